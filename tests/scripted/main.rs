//! The client against a server that plays a script: what may go wrong between them, row by row.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod closing;
mod configuration;
mod connector;
mod consuming;
mod content;
mod debug;
mod draining;
mod errors;
mod framing;
mod handshake;
mod heartbeats;
mod large;
mod logs;
mod methods;
mod options;
#[path = "../support/peer.rs"]
mod peer;
mod publishing;
mod runtimes;
mod stale;
