//! What the fuzz targets run. Each function states what must hold for any input; a failed assertion is a finding.
//!
//! Not part of the API: compiled for `fuzz/` and for tests, which replay the seeds and feed random input.
//!
//! | target | input | checks |
//! |---|---|---|
//! | [`frame`](fn@frame), [`frame_splits`] | octets of a connection | frames do not depend on how the input is split |
//! | [`table`](fn@table), [`method`](fn@method), [`properties`](fn@properties) | one payload | decoded input encodes to the same bytes |
//! | [`content`](fn@content), [`content_splits`] | a server's frames | the multiplexer's invariants |
//! | [`encode`] | choices that make messages and methods | every message and method survives a round trip, and no frame exceeds `frame_max` |
//! | [`ledger`](fn@ledger) | what happens to a robust connection | the record and the unconfirmed messages are what a model says |
//! | [`client`] | a user's operations, and a server's frames | every future completes, and no task is left over |
//! | [`broker`], [`broker_steps`] | what clients send | the embedded broker's invariants |

mod client;
mod content;
mod encode;
mod frame;
mod ledger;
mod method;
mod properties;
mod round_trip;
#[cfg(test)]
mod seeds;
mod table;

pub use self::client::client;
pub use self::content::{content, content_splits};
pub use self::encode::encode;
pub use self::frame::{frame, frame_splits};
pub use self::ledger::ledger;
pub use self::method::method;
pub use self::properties::properties;
pub use self::table::table;
#[cfg(feature = "test-broker")]
pub use crate::broker::fuzzing::{broker, broker_steps};
