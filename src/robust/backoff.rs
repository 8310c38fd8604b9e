//! How long to wait between attempts.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// How long to wait between two rounds of attempts to connect: a random time, whose bound doubles from
/// [`first`](Self::first) to [`most`](Self::most). The first attempt after a loss is made at once.
///
/// The random part keeps many clients from coming back at the same moment; the low bound on the rest keeps an
/// outage from lasting much longer than its cause.
///
/// ```
/// use std::time::Duration;
/// use lepus::robust::Backoff;
///
/// let gentle = Backoff::new().first(Duration::from_millis(200)).most(Duration::from_secs(10));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    most: Duration,
}

impl Backoff {
    /// At most 50 ms for the first pause, and at most 750 ms for any.
    pub const fn new() -> Self {
        Self::bounded(Duration::from_millis(50), Duration::from_millis(750))
    }

    pub(super) const fn bounded(first: Duration, most: Duration) -> Self {
        Self { first, most }
    }

    /// The bound of the first pause; at least 1 ms.
    pub fn first(mut self, bound: Duration) -> Self {
        self.first = bound.max(Duration::from_millis(1));
        self
    }

    /// The bound of any pause; at least 1 ms.
    pub fn most(mut self, bound: Duration) -> Self {
        self.most = bound.max(Duration::from_millis(1));
        self
    }

    /// The pauses of one outage.
    pub(super) fn pauses(self) -> Pauses {
        Pauses { bound: self.first.min(self.most), most: self.most }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

/// The pauses of one outage, each longer than the one before, on average.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    bound: Duration,
    most: Duration,
}

impl Pauses {
    /// The next one: anything from nothing to the bound, so that clients spread out.
    pub(super) fn next(&mut self) -> Duration {
        let bound = self.bound;
        self.bound = bound.saturating_mul(2).min(self.most);
        bound.mul_f64(share())
    }
}

/// A random number from 0 to 1. The standard library's hasher is seeded anew each time.
fn share() -> f64 {
    let random = RandomState::new().build_hasher().finish() >> 32;
    f64::from(u32::try_from(random).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

/// Brings a list into a random order.
pub(super) fn shuffle<T>(list: &mut [T]) {
    let random = RandomState::new();
    for last in (1..list.len()).rev() {
        let other = random.hash_one(last) % (last as u64 + 1);
        list.swap(last, usize::try_from(other).unwrap_or(last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_differ() {
        let mut pauses = Backoff::new().pauses();
        let taken: Vec<_> = (0..100).map(|_| pauses.next()).collect();
        assert!(taken[0] <= Duration::from_millis(50));
        assert!(taken.iter().all(|pause| *pause <= Duration::from_millis(750)));
        assert!(taken.iter().any(|pause| *pause > Duration::from_millis(300)), "{taken:?}");
        assert!(taken.windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_bound_below_the_first_pause_holds_for_that_too() {
        let mut pauses = Backoff::new().first(Duration::from_secs(9)).most(Duration::from_millis(2)).pauses();
        assert!((0..50).all(|_| pauses.next() <= Duration::from_millis(2)));
    }

    #[test]
    fn shuffling_keeps_everything_and_changes_the_order() {
        let sorted: Vec<_> = (0..50).collect();
        let mut list = sorted.clone();
        shuffle(&mut list);
        assert_ne!(list, sorted);
        list.sort_unstable();
        assert_eq!(list, sorted);
    }
}
