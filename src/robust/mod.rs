//! Connections that outlive the network and the broker.
//!
//! [`connect_robust`](crate::connect_robust) returns the same [`Connection`](crate::Connection) as
//! [`connect`](crate::connect). Each of its sockets in turn is called a link. When a link is lost, the connection connects
//! again, declares what was declared through it, starts the consumers, publishes what was not confirmed, and continues:
//!
//! ```no_run
//! use lepus::{ExchangeKind, Message};
//!
//! # async fn example() -> lepus::Result<()> {
//! let connection = lepus::connect_robust("amqp://guest:guest@127.0.0.1/").await?;
//! let channel = connection.channel().await?;
//! let exchange = channel.declare_exchange("events", ExchangeKind::Topic).await?;
//! let queue = channel.declare_queue("").await?;
//! queue.bind(&exchange, "user.*").await?;
//!
//! exchange.publish("user.created", Message::new("{}")).await?; // confirmed, whatever happened meanwhile
//!
//! let mut deliveries = queue.consume().prefetch(100).await?;
//! while let Some(delivery) = deliveries.next().await {
//!     let delivery = delivery?;
//!     println!("{:?}", delivery.body_str());
//!     delivery.ack()?; // Settled::Stale if it came before a loss: then it comes again
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//!
//! - What was confirmed arrived. What was handed over and not confirmed when the link was lost is published again,
//!   in its order and before anything newer; it may arrive twice, and then
//!   [`is_republished`](crate::Incoming::is_republished) tells so. Channels without confirms publish nothing again.
//! - What was declared, bound and consumed through the connection is there again before anything else is sent.
//!   What was deleted, unbound or cancelled through it stays away. What the broker refuses to give back is told in
//!   [`Event::Restored`], and everything else goes on.
//! - A server-named queue gets a new name; its handles, bindings and consumers follow.
//! - Messages that were delivered before the loss cannot be acknowledged after it
//!   ([`Settled::Stale`](crate::Settled::Stale)); the broker delivers them again. [`Delivery::stale`](crate::Delivery::stale)
//!   tells when that happens.
//! - A call during an outage waits, as long as a call may take; one whose answer was lost is made again where that is
//!   harmless. Publishes wait as [`Options::on_outage`] says.
//! - An error that the server answers with a close of the channel reaches its cause, and the channel is opened again.
//!
//! Transactions are not offered here: nobody could tell which of them took effect.

mod backoff;
mod event;
mod ledger;
mod robust_options;
mod runner;

pub use self::backoff::Backoff;
pub use self::event::{Counters, Event, Events};
pub use self::ledger::entity::{Entity, Unrestored};
pub use self::ledger::extent::RestoreTopology;
#[cfg(any(fuzzing, test))]
pub(crate) use self::ledger::{publishes::model as publishes_model, topology::model as topology_model};
pub use self::robust_options::{Options, Outage};
pub(crate) use self::runner::{
    RobustChannel, RobustConfirm, RobustConnection, RobustConsumer, RobustReturns,
};
