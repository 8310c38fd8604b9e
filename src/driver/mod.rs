//! One socket: dialling, the handshake, reading, writing, timers, and the one lock of the hot path.
//!
//! Two tasks for each connection. The [`reader`] owns the receiving half of the multiplexer; the
//! [`writer`] swaps the outgoing buffer under the lock and writes it outside. Users encode into that
//! buffer from their own tasks, under the lock in [`shared`]; one that fills a batch, or will wait for an answer
//! anyway, and finds nobody writing, writes at once. The driver moves methods and messages; what they
//! mean is the client's affair.

pub(crate) mod budget;
pub(crate) mod connector;
pub(crate) mod delivery_queue;
pub(crate) mod dial;
mod farewell;
pub(crate) mod faults;
pub(crate) mod link;
pub(crate) mod link_call;
pub(crate) mod link_channel;
pub(crate) mod link_handshake;
pub(crate) mod link_state;
pub(crate) mod pipe;
mod pulse;
pub(crate) mod race;
pub(crate) mod read_buffer;
pub(crate) mod reader;
pub(crate) mod server;
pub(crate) mod stray_returns;
#[cfg(feature = "_tls")]
pub(crate) mod tls;
#[cfg(feature = "_tls")]
mod tls_faults;
pub(crate) mod waiters;
pub(crate) mod writer;
