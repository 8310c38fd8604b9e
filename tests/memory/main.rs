//! What a connection holds in memory, whatever the server does: a process of its own, whose allocations are counted.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use peak_alloc::PeakAlloc;

mod counted;
mod drops;
mod floods;
#[expect(dead_code, reason = "other tests need more of it")]
#[path = "../support/peer.rs"]
mod peer;
mod retention;

#[global_allocator]
static ALLOCATIONS: PeakAlloc = PeakAlloc;
