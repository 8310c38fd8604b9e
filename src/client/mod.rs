//! What users hold: connections, channels, exchanges, queues, consumers, and the builders behind them.
//!
//! One vocabulary for both kinds of connection: each handle is an enum of the two ways to act, a single connection or one
//! that outlives its losses. Knows neither sockets nor the layout of bytes.

mod channel;
mod confirm;
mod connection;
mod consumer;
mod exchange;
mod publish;
mod queue;
mod returns;
mod worker;

pub use self::channel::{Channel, ChannelBuilder};
pub use self::confirm::Confirm;
pub use self::connection::{Connection, connect, connect_robust};
pub use self::consumer::{Consumer, ConsumerBuilder};
pub use self::exchange::{BindExchange, DeclareExchange, DeleteExchange, Exchange, ExchangeKind};
pub use self::publish::{Enqueue, Publish};
pub use self::queue::{BindQueue, DeclareQueue, DeleteQueue, Get, Queue};
pub use self::returns::Returns;
pub use self::worker::{OnError, Worker, WorkerBuilder};
