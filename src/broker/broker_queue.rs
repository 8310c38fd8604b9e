//! Queues: what is ready in them, and who consumes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::codec::{FieldTable, ShortStr};

use super::broker_message::{Entry, Message};
use super::settings::{Overflow, QueueKind, Settings};
use super::state::At;

/// A consumer, as its queue sees it.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub at: At,
    pub tag: ShortStr,
    pub priority: i64,
    pub exclusive: bool,
}

/// Where an entry stands among the ready ones: priority counts first, then the place in the queue.
type Rank = (u8, u64);

/// Stands before all others.
const RETURNED: u8 = u8::MAX;

/// The priorities of a quorum queue go from 0 to 31, as from `RabbitMQ` 4.3 on; this one has who names none.
const QUORUM_PRIORITY: u8 = 4;
const QUORUM_PRIORITY_MAX: u8 = 31;

/// A queue.
#[derive(Debug)]
pub(super) struct Queue {
    /// Tells it from an earlier queue of the same name.
    pub id: u64,
    pub durable: bool,
    pub auto_delete: bool,
    /// The connection that alone may use it: then the queue is exclusive.
    pub owner: Option<u64>,
    pub arguments: FieldTable,
    pub settings: Settings,
    ready: BTreeMap<Rank, Entry>,
    ready_bytes: u64,
    /// How many messages are with consumers.
    pub unacked: usize,
    /// Highest priority first; among equals, who has waited longest. A single active consumer stands before them all.
    consumers: Vec<Subscription>,
    /// Of single active consumers the one that messages went to last.
    active: Option<(At, ShortStr)>,
    /// An auto-delete queue goes with its last consumer, not before it had one.
    pub had_consumers: bool,
    next_position: u64,
    /// For `x-expires`.
    pub last_used: Instant,
    /// When the timer is set to look after it.
    pub armed: Option<Instant>,
}

impl Queue {
    pub(super) fn new(id: u64, arguments: FieldTable, settings: Settings, now: Instant) -> Self {
        Self {
            id,
            durable: false,
            auto_delete: false,
            owner: None,
            arguments,
            settings,
            ready: BTreeMap::new(),
            ready_bytes: 0,
            unacked: 0,
            consumers: Vec::new(),
            active: None,
            had_consumers: false,
            next_position: 0,
            last_used: now,
            armed: None,
        }
    }

    /// How many messages are ready.
    pub(super) fn depth(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn ready_bytes(&self) -> u64 {
        self.ready_bytes
    }

    /// The ready messages in the order in which they would be delivered.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.ready.values()
    }

    /// Whether a message of this size is refused, since there is no room and nothing may be dropped for it.
    pub(super) fn refuses(&self, size: u64) -> bool {
        // a quorum queue notices when it is over its limit
        let more = u64::from(self.is_quorum());
        self.settings.overflow != Overflow::DropHead
            && (self
                .settings
                .max_length
                .is_some_and(|most| self.ready.len() as u64 >= most.saturating_add(more))
                || self.settings.max_length_bytes.is_some_and(|most| match self.settings.kind {
                    QueueKind::Classic => self.ready_bytes + size > most,
                    QueueKind::Quorum => self.ready_bytes > most,
                }))
    }

    /// Appends a message.
    pub(super) fn push(&mut self, message: Arc<Message>, now: Instant) {
        let own = message.expiration();
        let ttl = match (own, self.settings.message_ttl) {
            (Some(own), Some(all)) => Some(own.min(all)),
            (own, all) => own.or(all),
        };
        let given = message.properties.priority;
        let priority = match self.settings.kind {
            QueueKind::Classic => given.unwrap_or(0).min(self.settings.max_priority.unwrap_or(0)),
            QueueKind::Quorum => given.unwrap_or(QUORUM_PRIORITY).min(QUORUM_PRIORITY_MAX),
        };
        let position = self.next_position;
        self.next_position += 1;
        self.insert(Entry {
            priority,
            redelivered: message.deliveries > 0,
            acquired: message.deliveries,
            deliveries: message.deliveries,
            message,
            position,
            expires: ttl.and_then(|ttl| now.checked_add(ttl)),
        });
    }

    /// Puts an entry back to where it stood; in a quorum queue behind others that came back, before the rest.
    pub(super) fn give_back(&mut self, mut entry: Entry) {
        if self.is_quorum() {
            entry.position = self.next_position;
            self.next_position += 1;
            entry.priority = RETURNED;
        }
        self.insert(entry);
    }

    fn insert(&mut self, entry: Entry) {
        self.ready_bytes += entry.message.size();
        self.ready.insert((u8::MAX - entry.priority, entry.position), entry);
    }

    /// Takes the first ready message.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        let first = *self.ready.first_key_value()?.0;
        self.take(first)
    }

    fn take(&mut self, rank: Rank) -> Option<Entry> {
        let entry = self.ready.remove(&rank)?;
        self.ready_bytes -= entry.message.size();
        Some(entry)
    }

    /// Removes all ready messages, and says how many there were.
    pub(super) fn purge(&mut self) -> usize {
        let count = self.ready.len();
        self.ready.clear();
        self.ready_bytes = 0;
        count
    }

    /// Drops what a restart does not keep. A quorum queue keeps everything.
    pub(super) fn keep_persistent(&mut self) {
        let quorum = self.is_quorum();
        self.ready.retain(|_, entry| quorum || entry.message.is_persistent());
        self.ready_bytes = self.ready.values().map(|entry| entry.message.size()).sum();
    }

    /// Takes the first message if its time is over, in a quorum queue the first of each priority. Those behind it wait for
    /// it, as in `RabbitMQ`.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<Entry> {
        let is_over = |entry: &Entry| entry.expires.is_some_and(|expires| expires <= now);
        let rank = *self.fronts().find(|(_, entry)| is_over(entry))?.0;
        self.take(rank)
    }

    fn fronts(&self) -> impl Iterator<Item = (&Rank, &Entry)> {
        let first = self.ready.first_key_value();
        std::iter::successors(first, |((class, _), _)| {
            let next = class.checked_add(1).filter(|_| self.is_quorum())?;
            self.ready.range((next, 0)..).next()
        })
    }

    /// Takes the first message if there are more than the limits allow, and the queue drops what is too much.
    pub(super) fn pop_surplus(&mut self) -> Option<Entry> {
        if self.settings.overflow != Overflow::DropHead {
            return None;
        }
        let over = self.settings.max_length.is_some_and(|most| self.ready.len() as u64 > most)
            || self.settings.max_length_bytes.is_some_and(|most| self.ready_bytes > most);
        if over { self.pop() } else { None }
    }

    /// When time next does something to the queue: a message expires, or the queue does.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let fronts = self.fronts().filter_map(|(_, entry)| entry.expires);
        fronts.chain(self.expires_at()).min()
    }

    /// When the queue goes for want of use.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        let unused: Duration = self.settings.expires.filter(|_| self.consumers.is_empty())?;
        self.last_used.checked_add(unused)
    }

    pub(super) fn is_quorum(&self) -> bool {
        self.settings.kind == QueueKind::Quorum
    }

    pub(super) fn consumers(&self) -> &[Subscription] {
        &self.consumers
    }

    /// Adds a consumer, behind those of its priority.
    pub(super) fn subscribe(&mut self, consumer: Subscription) {
        // in a classic queue the active one stays, whatever the priority of who comes
        let active =
            usize::from(self.settings.single_active && !self.is_quorum() && !self.consumers.is_empty());
        let others = self.consumers.get(active..).unwrap_or_default();
        let behind = others.partition_point(|other| other.priority >= consumer.priority);
        self.consumers.insert(active + behind, consumer);
        self.had_consumers = true;
    }

    /// Removes a consumer; whether it was there.
    pub(super) fn unsubscribe(&mut self, at: At, tag: &ShortStr) -> bool {
        let before = self.consumers.len();
        self.consumers.retain(|consumer| consumer.at != at || consumer.tag != *tag);
        self.consumers.len() < before
    }

    /// Whether the queue ends with the consumer that has just left.
    pub(super) fn ends_unused(&self) -> bool {
        self.auto_delete && self.had_consumers && self.consumers.is_empty()
    }

    /// The consumer whose turn it is among those that can take a message. It moves behind its equals.
    ///
    /// A single active consumer that one of higher priority takes over from gets no more, and the other nothing before all
    /// that the first one has is settled (`is_idle`).
    pub(super) fn next_consumer(
        &mut self,
        can_take: impl Fn(&Subscription) -> bool,
        is_idle: impl Fn(&Subscription) -> bool,
    ) -> Option<Subscription> {
        if self.settings.single_active {
            let first = self.consumers.first()?;
            let is_first = |(at, tag): &(At, ShortStr)| *at == first.at && *tag == first.tag;
            if !self.active.as_ref().is_some_and(is_first) {
                let mut others = self.consumers.iter();
                let before = self
                    .active
                    .as_ref()
                    .and_then(|(at, tag)| others.find(|consumer| consumer.at == *at && consumer.tag == *tag));
                if before.is_some_and(|before| !is_idle(before)) {
                    return None;
                }
                self.active = Some((first.at, first.tag.clone()));
            }
            return Some(first).filter(|consumer| can_take(consumer)).cloned();
        }
        let index = self.consumers.iter().position(can_take)?;
        let consumer = self.consumers.remove(index);
        let behind = self.consumers.partition_point(|other| other.priority >= consumer.priority);
        self.consumers.insert(behind, consumer.clone());
        Some(consumer)
    }
}
