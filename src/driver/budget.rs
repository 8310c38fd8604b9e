//! A bound in bytes for deliveries that wait for their consumers.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Beyond the mark, reading pauses. While somebody waits for a reply or a confirm it goes on up to this
/// many times the mark: a handler that awaits an answer must not wait for its own backlog.
const AWAITED_FACTOR: usize = 4;

/// Deliveries that a prefetch limit bounds may be so many times the mark: the user has chosen their number, and only
/// large messages come near this.
const PREFETCHED_FACTOR: usize = 4;

/// What bounds the number of a consumer's deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Nothing: it needs no acks, or has no prefetch limit.
    Unlimited,
    /// So many may be unacknowledged.
    Prefetch(u16),
}

/// Counts the bytes of waiting deliveries on one connection.
#[derive(Debug)]
pub(crate) struct Budget {
    unlimited: AtomicUsize,
    prefetched: AtomicUsize,
    mark: usize,
    freed: Notify,
}

impl Budget {
    /// Reading pauses while more than `mark` bytes wait for consumers without a limit.
    pub(crate) const fn new(mark: usize) -> Self {
        let (unlimited, prefetched) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { unlimited, prefetched, mark, freed: Notify::const_new() }
    }

    fn of(&self, bound: Bound) -> (&AtomicUsize, usize) {
        match bound {
            Bound::Unlimited => (&self.unlimited, self.mark),
            Bound::Prefetch(_) => (&self.prefetched, self.mark.saturating_mul(PREFETCHED_FACTOR)),
        }
    }

    /// Deliveries of so many bytes wait.
    pub(crate) fn add(&self, bound: Bound, bytes: usize) {
        self.of(bound).0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// They were handed out, or dropped.
    pub(crate) fn free(&self, bound: Bound, bytes: usize) {
        let (waiting, mark) = self.of(bound);
        let before = waiting.fetch_sub(bytes, Ordering::Relaxed);
        // reading may wait for either bound, so whoever frees above the lower one tells
        if before > mark {
            self.freed.notify_one();
        }
    }

    /// Somebody has begun to wait for an answer: reading may have to go on.
    pub(crate) fn reconsider(&self) {
        if self.is_spent() {
            self.freed.notify_one();
        }
    }

    /// How many bytes wait.
    pub(crate) fn waiting(&self) -> usize {
        self.unlimited.load(Ordering::Relaxed) + self.prefetched.load(Ordering::Relaxed)
    }

    /// Whether so much waits that reading should pause.
    pub(crate) fn is_spent(&self) -> bool {
        self.is_beyond(1)
    }

    /// Whether so much waits that reading must pause, even though somebody waits for an answer.
    pub(crate) fn is_overspent(&self) -> bool {
        self.is_beyond(AWAITED_FACTOR)
    }

    fn is_beyond(&self, factor: usize) -> bool {
        [Bound::Unlimited, Bound::Prefetch(0)].into_iter().any(|bound| {
            let (waiting, mark) = self.of(bound);
            waiting.load(Ordering::Relaxed) > mark.saturating_mul(factor)
        })
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
        budget.add(Bound::Unlimited, 50);
        assert!(budget.is_overspent());
        budget.free(Bound::Unlimited, 20);
        assert!(budget.is_spent() && !budget.is_overspent());
        // resolves: reading that waits for the higher bound goes on
        budget.freed().await;
    }

    #[test]
    fn what_a_prefetch_limit_bounds_has_a_bound_of_its_own() {
        let (budget, bound) = (Budget::new(10), Bound::Prefetch(5));
        budget.add(bound, 40);
        budget.add(Bound::Unlimited, 10);
        assert!(!budget.is_spent());
        budget.add(bound, 1);
        assert!(budget.is_spent() && !budget.is_overspent());
        budget.add(bound, 120);
        assert!(budget.is_overspent());
        assert_eq!(budget.waiting(), 171);
    }
}
