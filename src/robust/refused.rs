//! Starting the consumers of a channel on a new link, where the broker may refuse some of them.
//!
//! A refusal closes the channel, and with it those that were started before. So after the first one the queues of those
//! that are left are asked for on a scratch channel: otherwise each one that is gone would start all before it anew.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::ledger::entity::{Entity, Unrestored};
use super::restore::Learnt;
use super::revive::Probe;
use super::robust_channel::ChannelInner;
use super::robust_consumer::ConsumerInner;
use crate::codec::ShortStr;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Arguments, basic, constants, queue};
use crate::single::{ConsumeSpec, SingleChannel, SingleConnection, SingleConsumer};

/// A consumer with what it goes on with.
pub(super) type Started = (Arc<ConsumerInner>, SingleConsumer);

/// The consumers that were refused so far.
#[derive(Debug, Default)]
pub(super) struct Refused {
    probes: HashMap<u64, Probe>,
    /// Those of them that are not to be tried again on this link: they would close it.
    poison: HashSet<u64>,
    /// Whether queues were asked for.
    asked: bool,
    pub unrestored: Vec<Unrestored>,
}

impl Refused {
    /// How it is to be tried again before the next loss; `None` if it is not.
    pub(super) fn probe(&self, consumer: &ConsumerInner) -> Option<Probe> {
        self.probes.get(&consumer.id).copied().filter(|_| !self.poison.contains(&consumer.id))
    }

    fn contains(&self, consumer: &ConsumerInner) -> bool {
        self.probes.contains_key(&consumer.id)
    }

    /// Starts all but those that were refused before. `None`: another one was refused, and the channel is gone. An error:
    /// the link is lost, or does not answer.
    pub(super) async fn start_others(
        &mut self,
        channel: &ChannelInner,
        link: &SingleConnection,
        plain: &SingleChannel,
        wanted: &[Arc<ConsumerInner>],
        learnt: &Learnt,
    ) -> Result<Option<Vec<Started>>> {
        let mut started = Vec::new();
        let mut left = wanted.iter();
        while let Some(consumer) = left.next() {
            if self.contains(consumer) || !consumer.lock().is_wanted() {
                continue;
            }
            let spec = channel.spec(consumer);
            if let Some(error) = learnt.lock().against(&entity(&spec)) {
                // one that was not answered closes nothing
                if error.kind() != ErrorKind::Timeout {
                    self.poison.insert(consumer.id);
                }
                self.note(consumer, &spec, error);
                continue;
            }
            match plain.consume(spec.clone()).await {
                Ok(plain) => {
                    started.push((Arc::clone(consumer), plain));
                }
                Err(error) if !link.is_open() || error.kind() == ErrorKind::Timeout => {
                    learnt.lock().learn(entity(&spec), basic::Consume::ID, &error);
                    return Err(error);
                }
                Err(error) => {
                    self.note(consumer, &spec, error);
                    if !plain.is_open() {
                        self.ask(channel, link, left.as_slice()).await?;
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some(started))
    }

    /// Finds out whose queues are gone, too; once, since what goes after that is rare.
    async fn ask(
        &mut self,
        channel: &ChannelInner,
        link: &SingleConnection,
        consumers: &[Arc<ConsumerInner>],
    ) -> Result<()> {
        if std::mem::replace(&mut self.asked, true) {
            return Ok(());
        }
        let mut answers: HashMap<ShortStr, Option<Error>> = HashMap::new();
        let mut scratch = None;
        for consumer in consumers.iter().filter(|consumer| consumer.lock().is_wanted()) {
            let spec = channel.spec(consumer);
            let queue = &spec.method.queue;
            if !answers.contains_key(queue) {
                let asked = match scratch.take().filter(SingleChannel::is_open) {
                    Some(asked) => asked,
                    None => link.channel(false, 0).await?,
                };
                answers.insert(queue.clone(), missing(&asked, link, queue.clone()).await?);
                scratch = Some(asked);
            }
            if let Some(Some(error)) = answers.get(queue) {
                self.note(consumer, &spec, error.clone());
            }
        }
        match scratch.filter(SingleChannel::is_open) {
            // and not in the background: its number may be needed
            Some(scratch) => scratch.close().await,
            None => Ok(()),
        }
    }

    fn note(&mut self, consumer: &ConsumerInner, spec: &ConsumeSpec, error: Error) {
        let entity = entity(spec);
        tracing::warn!(%entity, %error, "not restored yet");
        consumer.refused(&error);
        self.probes.insert(consumer.id, Probe::refused(&error));
        self.unrestored.push(Unrestored { entity, error });
    }
}

fn entity(spec: &ConsumeSpec) -> Entity {
    let basic::Consume { queue, consumer_tag, .. } = &spec.method;
    Entity::Consumer { queue: queue.clone(), tag: consumer_tag.clone() }
}

/// Asks for a queue; returns what the server says if there is none.
async fn missing(scratch: &SingleChannel, link: &SingleConnection, queue: ShortStr) -> Result<Option<Error>> {
    match scratch.request(queue::Declare { queue, passive: true, ..queue::Declare::default() }).await {
        Ok(_) => Ok(None),
        Err(error) if !link.is_open() || error.kind() == ErrorKind::Timeout => Err(error),
        // of what else is refused here, its consumer may be allowed
        Err(error) => Ok(Some(error).filter(|error| error.reply_code() == Some(constants::NOT_FOUND))),
    }
}
