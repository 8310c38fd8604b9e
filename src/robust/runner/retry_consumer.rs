//! Bringing back consumers that the server cancelled, or refused to start again.
//!
//! A refused `basic.consume` closes its channel, with all other consumers on it. So it is first found out on a scratch
//! channel whether the server would accept it. The consumer itself is started on its robust channel's own plain channel:
//! all deliveries of a robust channel come from one plain channel at a time, as its delivery tags require.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tracing::Instrument;

use super::restore_topology;
use super::robust_call::Call;
use super::robust_channel::ChannelInner;
use super::robust_consumer::{CONSUME, ConsumerInner};
use crate::codec::ShortStr;
use crate::error::{Error, Result};
use crate::protocol::queue;
use crate::robust::backoff::Backoff;
use crate::robust::event::Event;
use crate::robust::ledger::consumers::Probe;
use crate::robust::ledger::extent::RestoreTopology;
use crate::robust::ledger::lifecycle::Incarnation;
use crate::single::{ConsumeSpec, SingleChannel, SingleConnection};

/// How often it is tried.
const PACE: Backoff = Backoff::bounded(Duration::from_millis(100), Duration::from_secs(1));

/// Returns an error if the consumer cannot be started now.
async fn ask(
    probe: &mut Probe,
    channel: &ChannelInner,
    link: &SingleConnection,
    consumer: &ConsumerInner,
) -> Result<()> {
    let shared = channel.shared();
    if probe.declare {
        restore_topology::auto_delete(shared, link).await?;
    }
    // one scratch channel for all that wait: there may be few numbers, and many consumers
    let _turn = shared.probing.lock().await;
    let scratch = link.channel(false, 0).await?;
    let asked = ask_on(probe, &scratch, channel, channel.spec(consumer)).await;
    if scratch.is_open() {
        // and not in the background: its number may be needed
        scratch.close().await?;
    }
    asked
}

async fn ask_on(
    probe: &mut Probe,
    scratch: &SingleChannel,
    channel: &ChannelInner,
    mut spec: ConsumeSpec,
) -> Result<()> {
    let queue = spec.method.queue.clone();
    let is_declared = probe.declare
        && channel.declare_recorded(scratch, &queue).await.inspect_err(|error| probe.not_declared(error))?;
    if probe.trial {
        (spec.method.no_ack, spec.prefetch) = (false, Some(1));
        scratch.consume(spec).await?;
    } else if !is_declared {
        let passive = queue::Declare { queue, passive: true, ..queue::Declare::default() };
        scratch.request(passive).await.inspect_err(|error| probe.not_asked(error))?;
    }
    Ok(())
}

/// Tries to start a consumer until that succeeds, or the server has refused it too often. Ends also when the consumer is not
/// wanted any more, runs already, or its channel was lost: then the restore starts it.
async fn revive(
    channel: Weak<ChannelInner>,
    consumer: Weak<ConsumerInner>,
    incarnation: Incarnation,
    mut probe: Probe,
) {
    let Some(mut pauses) = channel.upgrade().map(|channel| channel.shared().pauses(PACE)) else { return };
    if let Some(consumer) = consumer.upgrade() {
        consumer.lock().record.forgive();
    }
    loop {
        // holds nothing while it waits, so that dropped handles close
        tokio::time::sleep(pauses.next()).await;
        let (Some(channel), Some(consumer)) = (channel.upgrade(), consumer.upgrade()) else { return };
        if channel.lock().life.incarnation() != incarnation || !consumer.waits() {
            return;
        }
        let error = match channel.start_waiting(&consumer, incarnation, &mut probe).await {
            Ok(()) => return,
            Err(error) => error,
        };
        let may_heal = consumer.lock().record.refused(&consumer.spec, &error);
        tracing::debug!(%error, "a consumer cannot be started yet");
        if !may_heal && channel.lock().life.incarnation() == incarnation && consumer.waits() {
            channel.give_up_consumer(&consumer, error);
            return;
        }
    }
}

impl ChannelInner {
    /// Starts a consumer in the background as soon as the server accepts it, on the plain channel of this incarnation.
    pub(super) fn revive(
        self: &Arc<Self>,
        consumer: &Arc<ConsumerInner>,
        incarnation: Incarnation,
        probe: Probe,
    ) {
        let revived = revive(Arc::downgrade(self), Arc::downgrade(consumer), incarnation, probe);
        let shared = self.shared();
        shared.runtime.spawn(revived.instrument(shared.span.clone()));
    }

    /// Starts a consumer that waits for its queue. `Ok`: it runs, or somebody else sees to it.
    async fn start_waiting(
        &self,
        consumer: &ConsumerInner,
        incarnation: Incarnation,
        probe: &mut Probe,
    ) -> Result<()> {
        let Some(link) = self.shared().link() else { return Ok(()) };
        ask(probe, self, &link, consumer).await?;
        let call = Call::begin(self, CONSUME, false).await?;
        let live = call.live().await?;
        if live.incarnation != incarnation || !consumer.waits() {
            return Ok(());
        }
        let started = live.plain.consume(self.spec(consumer)).await;
        let plain = started.inspect_err(|error| self.unanswered(&live, error, None))?;
        if self.install(consumer, plain, incarnation) {
            let (queue, tag) = self.names(consumer);
            tracing::info!(%queue, consumer_tag = %tag, "a consumer is back");
            self.shared().tell(Event::ConsumerRestored { queue, tag });
        }
        Ok(())
    }

    /// The server refuses a consumer, and will go on to do so: its stream ends.
    fn give_up_consumer(&self, consumer: &ConsumerInner, error: Error) {
        let (queue, tag) = self.names(consumer);
        tracing::warn!(%queue, consumer_tag = %tag, %error, "gave up a consumer that the server refuses");
        self.forget_consumer(consumer);
        consumer.end(Some(error.clone()));
        self.shared().tell(Event::ConsumerGaveUp { queue, tag, error });
    }

    /// What a consumer's queue is called now, and its tag.
    pub(super) fn names(&self, consumer: &ConsumerInner) -> (ShortStr, ShortStr) {
        let method = self.spec(consumer).method;
        (method.queue, method.consumer_tag)
    }

    /// Declares a queue again, with its bindings. False: it was not recorded, or the server named it,
    /// or nothing is to be declared again.
    async fn declare_recorded(&self, plain: &SingleChannel, name: &ShortStr) -> Result<bool> {
        let (declare, binds) = {
            let shared = self.shared();
            if shared.settings.restore_topology == RestoreTopology::Nothing {
                return Ok(false);
            }
            let topology = &shared.lock().topology;
            let Some(queue) = topology.queue(name).filter(|queue| queue.server_named.is_none()) else {
                return Ok(false);
            };
            let binds: Vec<_> =
                topology.queue_bindings().filter(|bind| bind.queue == *name).cloned().collect();
            (queue.declare.clone(), binds)
        };
        plain.request(declare).await?;
        for bind in binds {
            plain.request(bind).await?;
        }
        Ok(true)
    }
}
