//! What is measured.

use std::fmt;
use std::str::FromStr;

/// A kind of work; the numbers are the sizes of bodies in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// Publish without confirms.
    Publish(usize),
    /// Publish with confirms, [`WINDOW`] in flight.
    Confirm(usize),
    /// Publish what a service sends, with confirms, [`WINDOW`] in flight: JSON of 512 B with a content type, an id, a
    /// timestamp and three headers.
    ConfirmReal,
    /// Publish and await each confirm.
    ConfirmEach,
    /// Consume without acks.
    Consume(usize),
    /// Consume 1 KiB with an ack for each, and a prefetch of [`PREFETCH`].
    ConsumeAck,
    /// `queue.declare` round trips.
    Declare,
    /// [`TASKS`] tasks publish 16 B on one channel.
    Tasks,
    /// [`TASKS`] tasks publish 16 B on a channel each, of one connection.
    Channels,
    /// A producer and a consumer of 16 B on one connection.
    Both,
    /// [`IDLE`] connections with a channel each, which do nothing.
    Idle,
}

/// Publishes in flight.
pub(crate) const WINDOW: u64 = 1000;
/// Unacknowledged deliveries.
pub(crate) const PREFETCH: u16 = 250;
/// Tasks that publish at once.
pub(crate) const TASKS: u64 = 8;
/// Idle connections.
pub(crate) const IDLE: u64 = 200;

/// The routing key that leads nowhere: a real broker drops the message, so its disk is not measured.
pub(crate) const NOWHERE: &str = "lepus-peers-nowhere";
/// The queue of the round trips.
pub(crate) const QUEUE: &str = "lepus-peers-queue";

/// Every work with its name and a line for people.
pub(crate) const ALL: [(Work, &str, &str); 17] = [
    (Work::Publish(16), "publish-16", "publish 16 B, no confirms"),
    (Work::Publish(1 << 10), "publish-1k", "publish 1 KiB, no confirms"),
    (Work::Publish(64 << 10), "publish-64k", "publish 64 KiB, no confirms"),
    (Work::Publish(1 << 20), "publish-1m", "publish 1 MiB, no confirms"),
    (Work::Confirm(16), "confirm-16", "publish 16 B, confirms, 1,000 in flight"),
    (Work::Confirm(1 << 10), "confirm-1k", "publish 1 KiB, confirms, 1,000 in flight"),
    (Work::ConfirmReal, "confirm-real", "publish 512 B with properties, confirms, 1,000 in flight"),
    (Work::ConfirmEach, "confirm-each", "publish 16 B, await each confirm"),
    (Work::Consume(16), "consume-16", "consume 16 B, no acks"),
    (Work::Consume(1 << 10), "consume-1k", "consume 1 KiB, no acks"),
    (Work::Consume(64 << 10), "consume-64k", "consume 64 KiB, no acks"),
    (Work::ConsumeAck, "consume-ack", "consume 1 KiB, an ack for each, prefetch 250"),
    (Work::Declare, "declare", "queue.declare round trips"),
    (Work::Tasks, "tasks-8", "8 tasks publish 16 B on one channel"),
    (Work::Channels, "channels-8", "8 tasks publish 16 B on 8 channels of one connection"),
    (Work::Both, "both-16", "a producer and a consumer of 16 B on one connection"),
    (Work::Idle, "idle-200", "200 idle connections with a channel each"),
];

impl Work {
    /// The size of the bodies.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Publish(size) | Self::Confirm(size) | Self::Consume(size) => size,
            Self::ConsumeAck => 1 << 10,
            Self::ConfirmReal => 512,
            Self::ConfirmEach | Self::Tasks | Self::Channels | Self::Both => 16,
            Self::Declare | Self::Idle => 0,
        }
    }

    /// How many messages pass between two looks at the clock.
    pub(crate) fn stride(self) -> u64 {
        match self.size() {
            0..=1024 => 64,
            1025..=65_536 => 8,
            _ => 1,
        }
    }

    /// The queue to consume from. The null broker reads the size of the bodies from its name.
    pub(crate) fn queue(self) -> String {
        format!("lepus-peers-{}", self.size())
    }

    pub(crate) fn about(self) -> &'static str {
        ALL.iter().find(|(work, ..)| *work == self).map_or("", |(_, _, about)| about)
    }

    /// Whether a real broker needs a queue full of messages for it.
    pub(crate) fn needs_messages(self) -> bool {
        matches!(self, Self::Consume(_) | Self::ConsumeAck)
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(ALL.iter().find(|(work, ..)| work == self).map_or("?", |(_, name, _)| name))
    }
}

impl FromStr for Work {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = ALL.iter().find(|(_, known, _)| *known == name);
        found.map(|(work, ..)| *work).ok_or_else(|| format!("no work is called {name:?}"))
    }
}
