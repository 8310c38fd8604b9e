//! The channel multiplexer: the protocol's rules without a socket, a clock, a lock or a runtime.
//!
//! Two halves: [`Session`] holds what both directions touch (channel states, pending replies, confirms,
//! what waits to be written) and lives under the driver's lock; [`Inbound`] assembles what arrives and
//! routes deliveries, and is owned by whoever reads. Before both comes the [`handshake`].
//!
//! ```text
//!   frames ──> Inbound::receive ──> a delivery for a consumer
//!                    │
//!                    └─ a method ──> Session::receive ──> at most one Event
//!   commands ──> Session::call, send, publish, close ──> Outgoing ──> bytes
//! ```

pub(crate) mod channel_state;
pub(crate) mod confirm_ring;
pub(crate) mod greeting;
pub(crate) mod handshake;
pub(crate) mod heartbeat;
pub(crate) mod ids;
pub(crate) mod inbound;
pub(crate) mod incoming_delivery;
pub(crate) mod incoming_return;
pub(crate) mod outgoing;
pub(crate) mod outgoing_publish;
pub(crate) mod sasl;
pub(crate) mod session;
#[cfg(any(fuzzing, test))]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod tune;
pub(crate) mod violation;

use std::fmt::Debug;

/// What waits for the peer: oneshots, queues and wakers in the driver, plain numbers in tests.
pub(crate) trait Waiters: Debug + 'static {
    /// Waits for the reply to a call.
    type Reply: Debug;
    /// Takes the deliveries of a consumer.
    type Consumer: Clone + Debug;
    /// Waits for a confirm.
    type Confirm: Debug;
    /// Stands for a channel above the multiplexer.
    type Channel: Clone + Debug;

    /// Whether both are the same consumer. Tags cannot tell: they are used again.
    fn is_same(one: &Self::Consumer, other: &Self::Consumer) -> bool;
}
