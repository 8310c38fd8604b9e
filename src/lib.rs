//! An AMQP 0-9-1 (RabbitMQ) client for tokio: fast, safe, short to write.
//!
//! ```no_run
//! use lepus::{ExchangeKind, Message};
//!
//! # async fn example() -> lepus::Result<()> {
//! let connection = lepus::connect("amqp://guest:guest@127.0.0.1/").await?;
//! let channel = connection.channel().await?; // publisher confirms are on
//! let exchange = channel.declare_exchange("events", ExchangeKind::Topic).await?;
//! let queue = channel.declare_queue("").await?; // server-named, exclusive
//! queue.bind(&exchange, "user.*").await?;
//!
//! exchange.publish("user.created", Message::new("{}").content_type("application/json")).await?;
//!
//! let mut deliveries = queue.consume().prefetch(100).await?;
//! while let Some(delivery) = deliveries.next().await {
//!     let delivery = delivery?;
//!     println!("{:?}", delivery.body_str());
//!     delivery.ack()?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! With [`connect_robust`] in place of [`connect`] the same program outlives the network and the broker: see
//! [`robust`].
//!
//! Start at [`connect`] or [`ConnectOptions`], then [`Connection::channel`]. A [`Channel`] declares an
//! [`Exchange`] and a [`Queue`]; an exchange [publishes](Exchange::publish), a queue
//! [consumes](Queue::consume). Operations with options are builders that are awaited:
//! `channel.declare_queue("jobs").quorum().await`.
//!
//! # Errors
//!
//! Every operation fails with [`Error`]. Its [`scope`](Error::scope) tells what is gone: only this call,
//! the channel (open a new one), or the connection. The server answers most mistakes, such as a queue
//! that does not exist, by closing the channel; everything on that channel then fails with the server's code and text, and
//! nothing else does. Calls that come later say "closed earlier". The documentation of [`Error`] has a table of all kinds, with
//! what to do about each.
//!
//! # Cancel safety
//!
//! Any future of this crate may be dropped at any time. A message is sent whole or not at all. A call that
//! was sent takes effect on the server, whether anybody waits or not, and its reply is never taken for
//! another call's. A consumer or channel that nobody waits for any more is closed again. What a future's drop means in
//! particular stands at each of them. [`Queue::get`] is the exception: a message that it took stays
//! unacknowledged, or without acks is lost.
//!
//! # Handles and drops
//!
//! [`Connection`], [`Channel`], [`Exchange`] and [`Queue`] are cheap handles to clone and share. What is
//! dropped closes in the background: a [`Consumer`] is cancelled, and gives back what it had not handed out; a
//! channel closes with its last handle, counting consumers and deliveries; a connection with the last of
//! everything.
//!
//! What happens in the background needs the runtime: an ack is handed over for writing, and written soon.
//! A program that ends right after it ends with [`Connection::close`], or [`Worker::drain`], which wait.
//!
//! # Features
//!
//! Only `tls` is on by default.
//!
//! - `tls`: `amqps://` URIs and `Tls`, by [rustls](https://docs.rs/rustls) with aws-lc-rs for cryptography, which needs a C compiler.
//! - `tls-ring`: the same with ring for cryptography; use it with `default-features = false`. With both features aws-lc-rs is used.
//! - `test-broker`: `lepus::broker`, an AMQP broker in memory for tests.
//! - `serde`: [`ConnectOptions`] and [`robust::Options`] deserialize from a URI. They do not serialize: the password would be lost,
//!   or written down. [`ExchangeKind`], [`QueueType`], [`Overflow`], [`DeadLetterStrategy`], [`ShortStr`], [`Timestamp`],
//!   [`FieldValue`] and [`FieldTable`] do both. Field values need a self-describing format such as JSON, TOML or YAML.
//!
//! # Runtime
//!
//! Needs a tokio runtime with I/O and time enabled, of either flavour. Each connection has two tasks, a
//! robust one one more, and one for each channel.

#[cfg(lepus_bench)]
#[doc(hidden)]
pub mod bench;
#[cfg(feature = "test-broker")]
pub mod broker;
mod client;
mod codec;
mod driver;
mod error;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod mux;
pub mod protocol;
pub mod robust;
mod single;

pub use self::client::{
    BindExchange, BindQueue, Channel, ChannelBuilder, Confirm, Connection, Consumer, ConsumerBuilder,
    DeclareExchange, DeclareQueue, DeleteExchange, DeleteQueue, Enqueue, Exchange, ExchangeKind, Get,
    OnError, Publish, Queue, Returns, Worker, WorkerBuilder, connect, connect_robust,
};
pub use self::codec::table::{FieldError, IntegerOutOfRange};
pub use self::codec::{FieldTable, FieldValue, Properties, ShortStr, Timestamp, TooLong};
pub use self::driver::connector::Transport;
pub use self::error::{Error, ErrorKind, Origin, Result, Scope};
pub use self::mux::sasl::Mechanism;
#[cfg(feature = "_tls")]
pub use self::single::Tls;
pub use self::single::{
    Acker, Blocked, ConnectOptions, ConnectionState, DeadLetterStrategy, Delivery, Incoming, Message,
    Overflow, QueueType, Returned, RoutingKey, Settled, Status, StreamOffset,
};

/// Compiles the programs of docs/tls.md, and runs those that can run.
#[cfg(all(doctest, feature = "_tls", feature = "test-broker"))]
#[doc = include_str!("../docs/tls.md")]
struct TlsPage;

/// Compiles the programs of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
