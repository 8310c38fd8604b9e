//! Opening a channel on a new link with its settings and consumers: carries out the steps of [`Starting`].
//!
//! [`Starting`]: crate::robust::ledger::starting::Starting

use std::collections::HashMap;
use std::sync::Arc;

use super::robust_channel::{ChannelInner, tag_base};
use super::robust_consumer::ConsumerInner;
use crate::codec::ShortStr;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{basic, queue};
use crate::robust::ledger::starting::{ConsumerId, Outcome};
use crate::single::{ConsumeSpec, SingleChannel, SingleConnection, SingleConsumer};

/// A consumer with what it goes on with.
pub(super) type Started = (Arc<ConsumerInner>, SingleConsumer);

/// A channel on its way back.
pub(super) struct Opening<'a> {
    channel: &'a Arc<ChannelInner>,
    link: &'a SingleConnection,
    pub plain: Option<SingleChannel>,
    /// Those that the channel has.
    consumers: HashMap<ConsumerId, Arc<ConsumerInner>>,
    /// On `plain`.
    pub started: Vec<Started>,
    /// For questions.
    scratch: Option<SingleChannel>,
}

impl<'a> Opening<'a> {
    pub(super) fn new(channel: &'a Arc<ChannelInner>, link: &'a SingleConnection) -> Self {
        let consumers = HashMap::new();
        Self { channel, link, plain: None, consumers, started: Vec::new(), scratch: None }
    }

    pub(super) fn consumer(&self, id: ConsumerId) -> Option<Arc<ConsumerInner>> {
        self.consumers.get(&id).cloned()
    }

    /// Opens the channel with its settings. Returns the consumers that are to be started on it.
    pub(super) async fn open(&mut self) -> Result<Vec<(ConsumerId, ConsumeSpec)>> {
        let Self { channel, link, .. } = self;
        if let Some(scratch) = self.scratch.take().filter(SingleChannel::is_open) {
            // and not in the background: its number may be needed
            scratch.close().await?;
        }
        // they went with the last one
        self.started.clear();
        let (earlier, prefetch, global, wanted) = {
            let mut core = channel.lock();
            core.opened += 1;
            (core.opened - 1, core.prefetch, core.prefetch_global, core.consumers.clone())
        };
        let plain = link.channel(channel.confirms, tag_base(earlier)).await?;
        if let Some(prefetch) = prefetch {
            plain.qos(prefetch).await?;
        }
        // after the other, which lifts it
        if let Some(prefetch_count) = global {
            plain.request(basic::Qos { prefetch_count, global: true, ..basic::Qos::default() }).await?;
        }
        self.plain = Some(plain);
        self.consumers.extend(wanted.iter().map(|consumer| (consumer.id, Arc::clone(consumer))));
        let wanted = wanted.iter().filter(|consumer| consumer.lock().is_wanted());
        Ok(wanted.map(|consumer| (consumer.id, channel.spec(consumer))).collect())
    }

    /// Starts a consumer, unless it is not wanted any more.
    pub(super) async fn start(&mut self, id: ConsumerId, spec: ConsumeSpec) -> Outcome {
        let Some(consumer) = self.consumer(id).filter(|consumer| consumer.lock().is_wanted()) else {
            return Outcome::Done;
        };
        let Some(plain) = &self.plain else { return Outcome::Done };
        match plain.consume(spec).await {
            Ok(plain) => {
                self.started.push((consumer, plain));
                Outcome::Done
            }
            Err(error) if is_lost(&error, self.link) => Outcome::Lost(error),
            Err(error) => Outcome::Refused { error, is_closed: !plain.is_open() },
        }
    }

    /// Asks whether a queue is there. An error: the link is lost, or does not answer.
    pub(super) async fn ask(&mut self, queue: ShortStr) -> Result<Outcome> {
        let scratch = match self.scratch.take().filter(SingleChannel::is_open) {
            Some(scratch) => scratch,
            None => self.link.channel(false, 0).await?,
        };
        let passive = queue::Declare { queue, passive: true, ..queue::Declare::default() };
        let asked = scratch.request(passive).await;
        let is_closed = !scratch.is_open();
        self.scratch = Some(scratch);
        match asked {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if is_lost(&error, self.link) => Err(error),
            Err(error) => Ok(Outcome::Refused { error, is_closed }),
        }
    }

    /// These consumers were refused: they are tried again later.
    pub(super) fn note(&self, refused: &[(ConsumerId, Error)]) {
        for (id, error) in refused {
            if let Some(consumer) = self.consumer(*id) {
                let (queue, tag) = self.channel.names(&consumer);
                tracing::warn!(%queue, consumer_tag = %tag, %error, "a consumer is not restored yet");
                consumer.lock().record.refused(&consumer.spec, error);
            }
        }
    }
}

/// Whether the link is lost, or does not answer.
fn is_lost(error: &Error, link: &SingleConnection) -> bool {
    !link.is_open() || error.kind() == ErrorKind::Timeout
}
