//! Fidelity: the same operations on the embedded broker and on a `RabbitMQ`, and whether both say the same.
//!
//! ```text
//! AMQP_URL=amqp://guest:guest@127.0.0.1/ cargo test --test differential -- --ignored --nocapture
//! ```
//!
//! With `LEPUS_DIFFERENTIAL_SECONDS=45` random sequences follow for so long.
//!
//! A difference is a fault of the embedded broker, unless `known.rs` has it with a reason. What proptest
//! finds and shrinks belongs into `fixed.rs`.

#[cfg(test)]
mod client;
#[cfg(test)]
mod compare;
#[cfg(test)]
mod fixed;
#[cfg(test)]
mod heard;
#[cfg(test)]
mod known;
#[cfg(test)]
mod line;
#[cfg(test)]
mod random;
#[cfg(test)]
mod runs;
#[cfg(test)]
mod side;
#[cfg(test)]
mod step;
