//! What a restore brings back, by name.

use std::fmt;

use crate::codec::ShortStr;
use crate::error::Error;
use crate::protocol::{exchange, queue};

/// What the broker refused to give back. It stays recorded, and is tried again: at intervals as long as the link lives, and after
/// the next loss. [`Event::EntityRestored`](crate::robust::Event::EntityRestored) and
/// [`Event::ConsumerRestored`](crate::robust::Event::ConsumerRestored) tell when it is back. What closed the connection, or was
/// not answered, is tried again only after the next loss.
#[derive(Clone, Debug)]
pub struct Unrestored {
    /// What it is.
    pub entity: Entity,
    /// What the broker said.
    pub error: Error,
}

impl fmt::Display for Unrestored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.entity, self.error)
    }
}

/// Something that was declared through a robust connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Entity {
    /// An exchange.
    Exchange {
        /// Its name.
        name: ShortStr,
    },
    /// A queue.
    Queue {
        /// Its name.
        name: ShortStr,
    },
    /// A binding of an exchange to another.
    ExchangeBinding {
        /// The exchange that gets the messages.
        destination: ShortStr,
        /// The exchange that they come from.
        source: ShortStr,
        /// The key or pattern.
        routing_key: ShortStr,
    },
    /// A binding of a queue to an exchange.
    QueueBinding {
        /// The queue.
        queue: ShortStr,
        /// The exchange.
        exchange: ShortStr,
        /// The key or pattern.
        routing_key: ShortStr,
    },
    /// A channel that could not be opened again yet, with what is on it. It is tried again.
    Channel {
        /// Its number on the connection: 1 for the first that was opened, then 2, …
        number: u64,
    },
    /// A consumer.
    Consumer {
        /// The queue that it consumes from.
        queue: ShortStr,
        /// Its tag.
        tag: ShortStr,
    },
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange { name } => write!(f, "exchange '{name}'"),
            Self::Queue { name } => write!(f, "queue '{name}'"),
            Self::ExchangeBinding { destination, source, routing_key } => {
                write!(
                    f,
                    "binding of exchange '{destination}' to exchange '{source}' with key '{routing_key}'"
                )
            }
            Self::QueueBinding { queue, exchange, routing_key } => {
                write!(f, "binding of queue '{queue}' to exchange '{exchange}' with key '{routing_key}'")
            }
            Self::Channel { number } => write!(f, "channel {number}"),
            Self::Consumer { queue, tag } => write!(f, "consumer '{tag}' of queue '{queue}'"),
        }
    }
}

impl Entity {
    pub(in crate::robust) fn of_exchange_binding(bind: &exchange::Bind) -> Self {
        let exchange::Bind { destination, source, routing_key, .. } = bind.clone();
        Self::ExchangeBinding { destination, source, routing_key }
    }

    pub(in crate::robust) fn of_queue_binding(bind: &queue::Bind) -> Self {
        let queue::Bind { queue, exchange, routing_key, .. } = bind.clone();
        Self::QueueBinding { queue, exchange, routing_key }
    }
}
