//! One connection over one socket, as the public handles and the robust layer use it.
//!
//! This is the seam below both kinds of connection. A plain [`Connection`](crate::Connection) is a [`SingleConnection`]
//! with public methods around it. A robust one holds one `SingleConnection` at a time and replaces it after a loss. What
//! the robust layer needs beyond the public operations:
//!
//! - [`SingleChannel::append`] takes a message under a lock that the caller holds; the returned [`Due`] writes it after
//!   the lock is released;
//! - [`SingleChannel::ask`], `settled_below`, `is_settled`, `take_failures` tell what became of each publish, also
//!   after the channel's end;
//! - [`SingleChannel::over`] resolves when the channel has ended, and holds nothing open;
//! - [`SingleChannel::request_or_late`] lets a late answer still be waited for, as [`Late`];
//! - [`SingleChannel::closing`] closes for a reason of the robust layer's, which sets its own limit;
//! - a [`Race`] between hosts and addresses yields a stream, and
//!   [`ConnectOptions::log_in`] makes a connection of it;
//! - a [`Tally`] counts what is at work and which acks came too late, across connections.

#[cfg(feature = "_tls")]
mod any_certificate;
mod connect_options;
mod delivery;
mod message;
mod name;
mod outbound;
mod queue_arguments;
mod returned;
mod routing_key;
mod single_channel;
mod single_confirm;
mod single_connection;
mod single_consumer;
mod status;
mod stream_position;
mod tally;
#[cfg(feature = "_tls")]
mod tls;
mod uri;

use std::future::Future;
use std::pin::Pin;

pub use self::connect_options::ConnectOptions;
pub use self::delivery::{Acker, Delivery, Incoming, Settled};
pub use self::message::Message;
pub(crate) use self::message::REPUBLISHED;
pub(crate) use self::name::Name;
pub(crate) use self::outbound::{ConsumeSpec, Outbound};
pub(crate) use self::queue_arguments::{Collected, count, millis, short};
pub use self::queue_arguments::{DeadLetterStrategy, Overflow, QueueType, StreamOffset};
pub use self::returned::Returned;
pub(crate) use self::returned::{SingleReturns, Stray};
pub use self::routing_key::RoutingKey;
pub(crate) use self::single_channel::SingleChannel;
pub(crate) use self::single_confirm::SingleConfirm;
pub use self::single_connection::Blocked;
pub(crate) use self::single_connection::{SingleConnection, left};
pub(crate) use self::single_consumer::{AtHand, Handed, SingleConsumer};
pub use self::status::{ConnectionState, Status};
pub(crate) use self::stream_position::{StreamPosition, is_told};
pub(crate) use self::tally::{Tally, Waits};
#[cfg(feature = "_tls")]
pub use self::tls::Tls;

pub(crate) use crate::driver::link_call::Late;
pub(crate) use crate::driver::race::{Connected, Progress, Race};
pub(crate) use crate::driver::server::Server;

/// A boxed future, for operations where an allocation does not matter.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
