//! What users hold: connections, channels, exchanges, queues, consumers, deliveries, messages.
//!
//! Knows methods and what they mean, and neither sockets nor the layout of bytes. Exchanges and queues
//! are generic over the channel they act through ([`Carrier`]), so that a channel which does more than
//! carry, such as one that remembers what was declared, can reuse them.

mod arguments;
pub(crate) mod carrier;
pub(crate) mod channel;
mod confirm;
mod connection;
pub(crate) mod consumer;
pub(crate) mod delivery;
mod exchange;
pub(crate) mod message;
pub(crate) mod name;
mod options;
mod publish;
mod queue;
pub(crate) mod returned;
pub(crate) mod routing_key;
mod uri;
mod worker;

pub use self::arguments::{DeadLetterStrategy, Overflow, QueueType, StreamOffset};
pub use self::carrier::Carrier;
pub use self::channel::{Channel, OpenChannel};
pub use self::confirm::Confirm;
pub use self::connection::{Blocked, Connection, connect};
pub use self::consumer::{Consume, Consumer};
pub use self::delivery::{Delivery, Incoming, Settled};
pub use self::exchange::{BindExchange, DeclareExchange, DeleteExchange, Exchange, ExchangeKind};
pub use self::message::Message;
pub use self::options::ConnectOptions;
pub use self::publish::{Enqueue, Publish};
pub use self::queue::{BindQueue, DeclareQueue, DeleteQueue, Get, Queue};
pub use self::returned::{Returned, Returns};
pub use self::routing_key::RoutingKey;
pub use self::worker::{Handle, OnError, Worker};
pub(crate) use crate::driver::channel::Sent;
