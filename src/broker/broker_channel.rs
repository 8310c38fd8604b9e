//! A channel, as the broker sees it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;

use crate::codec::generated::basic;
use crate::codec::{Properties, ShortStr};

use super::broker_message::{Entry, Held, Message};

/// A consumer, as its channel sees it.
#[derive(Clone, Debug)]
pub(super) struct Consumer {
    pub queue: ShortStr,
    pub no_ack: bool,
    /// At most so many of its deliveries unacknowledged; 0 for no limit.
    pub prefetch: u16,
    pub unacked: usize,
}

/// A delivery that waits for its acknowledgement.
#[derive(Debug)]
pub(super) struct Unacked {
    pub tag: u64,
    pub queue: ShortStr,
    pub queue_id: u64,
    /// `None` for `basic.get`, which no prefetch limits.
    pub consumer: Option<ShortStr>,
    pub entry: Entry,
}

/// What a delivery is settled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settle {
    Ack,
    /// Given back unused: not counted as an attempt to process it.
    Return,
    /// Given back after an attempt that failed.
    Requeue,
    /// Given up after an attempt that failed.
    Reject,
    /// Given up unused.
    Discard,
}

/// A publish, and where it goes.
#[derive(Debug)]
pub(super) struct Published {
    pub message: Message,
    pub queues: BTreeSet<ShortStr>,
    pub mandatory: bool,
}

/// Publisher confirms that are still to be sent.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    /// The last number that was given to a publish.
    pub last: u64,
    /// Decided and not sent: the number, and whether it is an ack.
    pub decided: Vec<(u64, bool)>,
}

/// What a transaction holds until its end.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub published: Vec<Published>,
    /// The deliveries, and what they are settled with.
    pub settled: Vec<(Unacked, Settle)>,
}

/// How publishes are answered.
#[derive(Debug, Default)]
pub(super) enum Mode {
    #[default]
    Plain,
    Confirm(Confirms),
    Tx(Transaction),
}

/// A publish whose content is arriving.
#[derive(Debug)]
pub(super) struct Content {
    pub publish: basic::Publish,
    /// `None` until the header is there.
    pub header: Option<Header>,
}

/// A header whose body is arriving.
#[derive(Debug)]
pub(super) struct Header {
    pub size: u64,
    pub properties: Properties,
    pub body: BytesMut,
    /// What has come of it so far.
    pub held: Held,
}

impl Header {
    /// Whether the body is whole.
    pub(super) fn is_whole(&self) -> bool {
        self.body.len() as u64 >= self.size
    }
}

/// Where direct replies go.
#[derive(Clone, Debug)]
pub(super) struct ReplyTo {
    pub tag: ShortStr,
    /// The name that requests carry instead of `amq.rabbitmq.reply-to`.
    pub address: ShortStr,
}

/// A channel.
#[derive(Debug, Default)]
pub(super) struct Channel {
    pub consumers: BTreeMap<ShortStr, Consumer>,
    pub unacked: BTreeMap<u64, Unacked>,
    pub last_tag: u64,
    /// For consumers that are still to come; 0 for no limit.
    pub prefetch: u16,
    /// For all consumers together; 0 for no limit.
    pub prefetch_global: u16,
    /// How many of the unacknowledged deliveries belong to consumers; with those whose ack a transaction holds.
    pub consumed: usize,
    /// The queue that the last delivery came from: with a common limit, the next one's turn is after it.
    pub served: Option<ShortStr>,
    pub mode: Mode,
    pub content: Option<Content>,
    /// What an empty queue name means.
    pub last_queue: Option<ShortStr>,
    pub reply_to: Option<ReplyTo>,
    /// The broker has sent `channel.close`: all but the answer is ignored.
    pub closing: bool,
}

impl Channel {
    /// Whether the limits allow this consumer another delivery.
    pub(super) fn can_take(&self, tag: &ShortStr) -> bool {
        let Some(consumer) = self.consumers.get(tag) else { return false };
        let own =
            consumer.no_ack || consumer.prefetch == 0 || consumer.unacked < usize::from(consumer.prefetch);
        // what is not acknowledged does not count, but waits all the same
        let shared = self.prefetch_global == 0 || self.consumed < usize::from(self.prefetch_global);
        !self.closing && own && shared
    }

    /// The next delivery tag.
    pub(super) fn next_tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }

    /// Remembers a delivery until it is settled.
    pub(super) fn await_ack(&mut self, delivery: Unacked) {
        if let Some(name) = &delivery.consumer {
            self.consumed += 1;
            if let Some(consumer) = self.consumers.get_mut(name) {
                consumer.unacked += 1;
            }
        }
        self.unacked.insert(delivery.tag, delivery);
    }

    /// Takes the deliveries that a tag names: one, or all up to it; tag 0 with `multiple` names all.
    /// `None` when there is no such delivery. They count until they are [released](Self::release).
    pub(super) fn take(&mut self, tag: u64, multiple: bool) -> Option<Vec<Unacked>> {
        if !multiple {
            return Some(vec![self.unacked.remove(&tag)?]);
        }
        if tag == 0 {
            return Some(std::mem::take(&mut self.unacked).into_values().collect());
        }
        let last = self.unacked.remove(&tag)?;
        let behind = self.unacked.split_off(&tag);
        let before = std::mem::replace(&mut self.unacked, behind);
        Some(before.into_values().chain([last]).collect())
    }

    /// Makes room for another delivery in place of this one.
    pub(super) fn release(&mut self, delivery: &Unacked) {
        if let Some(name) = &delivery.consumer {
            self.consumed = self.consumed.saturating_sub(1);
            if let Some(consumer) = self.consumers.get_mut(name) {
                consumer.unacked = consumer.unacked.saturating_sub(1);
            }
        }
    }
}
