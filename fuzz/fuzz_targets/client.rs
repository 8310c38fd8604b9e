//! Counts the memory that an input takes at most: the client's limits on what waits, in either direction, bound it.
#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// In bytes, beside what the input's size allows. The limits of the target come to about a tenth of it.
const MOST: usize = 4 << 20;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(HELD.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    lepus::fuzzing::client(data);
    let peak = PEAK.load(Relaxed) - before;
    // a user's message is up to 40 times as long as what stands for it
    assert!(peak <= MOST + 100 * data.len(), "{peak} bytes for an input of {}", data.len());
    let left = HELD.load(Relaxed).saturating_sub(before);
    // what is made once for all, such as a table of a thread
    assert!(left <= 64 << 10, "{left} bytes stay");
});
