//! The stairway: a whole session is cut at every byte offset, in each direction, one run for each.
//!
//! By default only some offsets are taken. `LEPUS_STAIRWAY=all` takes all of them, `LEPUS_STAIRWAY=7` every
//! seventh.

#[cfg(test)]
#[path = "../support/broker.rs"]
mod broker;
#[cfg(test)]
#[expect(dead_code, reason = "a session is only cut")]
#[path = "../support/relay.rs"]
mod relay;
#[cfg(test)]
#[path = "../support/wire.rs"]
mod wire;

#[cfg(test)]
mod cuts;
#[cfg(test)]
mod session;
