//! A bound in bytes for deliveries that nothing else bounds: those of consumers without acks, or without
//! a prefetch limit.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Beyond the mark, reading pauses. While somebody waits for a reply or a confirm it goes on up to this
/// many times the mark: a handler that awaits an answer must not wait for its own backlog.
const AWAITED_FACTOR: usize = 4;

/// Counts the bytes of waiting deliveries on one connection.
#[derive(Debug)]
pub(crate) struct Budget {
    waiting: AtomicUsize,
    mark: usize,
    freed: Notify,
}

impl Budget {
    /// Reading pauses while more than `mark` bytes wait.
    pub(crate) const fn new(mark: usize) -> Self {
        Self { waiting: AtomicUsize::new(0), mark, freed: Notify::const_new() }
    }

    /// Deliveries of so many bytes wait.
    pub(crate) fn add(&self, bytes: usize) {
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
    }

    /// They were taken, or dropped.
    pub(crate) fn free(&self, bytes: usize) {
        let before = self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        // reading may wait for either bound, so whoever frees above the lower one tells
        if before > self.mark {
            self.freed.notify_one();
        }
    }

    /// Somebody has begun to wait for an answer: reading may have to go on.
    pub(crate) fn reconsider(&self) {
        if self.is_spent() {
            self.freed.notify_one();
        }
    }

    /// Whether so much waits that reading should pause.
    pub(crate) fn is_spent(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > self.mark
    }

    /// Whether so much waits that reading must pause, even though somebody waits for an answer.
    pub(crate) fn is_overspent(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > self.mark.saturating_mul(AWAITED_FACTOR)
    }

    /// Waits until there may be room again. Cancel safe.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_frees_tells_also_between_the_two_bounds() {
        let budget = Budget::new(10);
        budget.add(50);
        assert!(budget.is_overspent());
        budget.free(20);
        assert!(budget.is_spent() && !budget.is_overspent());
        // resolves: reading that waits for the higher bound goes on
        budget.freed().await;
    }
}
