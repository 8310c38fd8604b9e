//! Counting what is allocated while something happens.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ALLOCATIONS;

pub(crate) const KIB: usize = 1 << 10;
pub(crate) const MIB: usize = 1 << 20;

/// One test at a time: they count the memory of the whole process.
static TURN: Mutex<()> = Mutex::new(());

/// Runs a test alone.
pub(crate) fn alone(test: impl Future<Output = ()>) {
    let _turn: MutexGuard<'_, ()> = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

/// Memory from a moment on.
pub(crate) struct Count {
    before: usize,
}

impl Count {
    pub(crate) fn begin() -> Self {
        ALLOCATIONS.reset_peak_usage();
        Self { before: ALLOCATIONS.current_usage() }
    }

    /// How many bytes more than then were held at most.
    pub(crate) fn peak(&self) -> usize {
        ALLOCATIONS.peak_usage().saturating_sub(self.before)
    }

    /// How many bytes more than then are held now.
    pub(crate) fn now(&self) -> usize {
        ALLOCATIONS.current_usage().saturating_sub(self.before)
    }

    /// Never more than this was held.
    pub(crate) fn check(&self, what: &str, bound: usize) {
        let peak = self.peak();
        println!("{what}: {} KiB of at most {} KiB", peak / KIB, bound / KIB);
        assert!(peak <= bound, "{what}: {} KiB, more than {} KiB", peak / KIB, bound / KIB);
    }
}
