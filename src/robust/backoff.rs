//! How long to wait between attempts.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hasher};
use std::time::Duration;

/// How long to wait between two rounds of attempts to connect: a random time, whose bound doubles from
/// [`first`](Self::first) to [`most`](Self::most). The first attempt after a loss is made at once. In an outage of more than
/// 30 s the bound grows to a fortieth of the outage so far, up to [`long_outage`](Self::long_outage).
///
/// The random part keeps many clients from coming back at the same moment. The bound keeps an outage from lasting much
/// longer than its cause: with the defaults by at most 750 ms or 2.5 %, whichever is more, and never by more than 10 s. In a
/// long outage, 200 connections make some 40 attempts a second.
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
    long_outage: Duration,
    seed: Option<u64>,
}

impl Backoff {
    /// At most 50 ms for the first pause, at most 750 ms for any in the first 30 s, and at most 10 s for any.
    pub const fn new() -> Self {
        let (first, most) = (Duration::from_millis(50), Duration::from_millis(750));
        Self { long_outage: Duration::from_secs(10), ..Self::bounded(first, most) }
    }

    /// However long it takes.
    pub(super) const fn bounded(first: Duration, most: Duration) -> Self {
        Self { first, most, long_outage: Duration::ZERO, seed: None }
    }

    /// The bound of the first pause; at least 1 ms.
    pub fn first(mut self, bound: Duration) -> Self {
        self.first = bound.max(Duration::from_millis(1));
        self
    }

    /// The bound of any pause in the first 30 s of an outage; 750 ms unless set, and at least 1 ms.
    pub fn most(mut self, bound: Duration) -> Self {
        self.most = bound.max(Duration::from_millis(1));
        self
    }

    /// The bound of any pause in an outage of more than 30 s; 10 s unless set. It is reached after 40 times as long. What is
    /// less than [`most`](Self::most), such as zero, changes nothing: then that holds for long outages, too.
    ///
    /// A higher bound spares the broker and the network; a lower one notices sooner that the broker is back.
    pub fn long_outage(mut self, bound: Duration) -> Self {
        self.long_outage = bound;
        self
    }

    /// Takes the random part from here, for runs that are to be the same each time: the pauses of all outages are alike.
    #[doc(hidden)]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The bound of the first pause.
    pub fn get_first(&self) -> Duration {
        self.first
    }

    /// The bound of any pause.
    pub fn get_most(&self) -> Duration {
        self.most
    }

    /// The same with the seed of another one.
    pub(super) fn seeded_like(mut self, other: Self) -> Self {
        self.seed = other.seed;
        self
    }

    /// The pauses of one outage.
    pub(super) fn pauses(self) -> Pauses {
        Pauses { bound: self.first.min(self.most), backoff: self, seed: self.seed }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

/// From then on pauses may grow with the outage …
const LONG: Duration = Duration::from_secs(30);

/// … to this part of it.
const SHARE: u32 = 40;

/// The pauses of one outage, each longer than the one before, on average.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    bound: Duration,
    backoff: Backoff,
    /// Another one for each pause.
    seed: Option<u64>,
}

impl Pauses {
    /// The next one: anything from nothing to the bound, so that clients spread out.
    pub(super) fn next(&mut self) -> Duration {
        self.next_after(Duration::ZERO)
    }

    /// The next one in an outage that has lasted so long.
    pub(super) fn next_after(&mut self, outage: Duration) -> Duration {
        let Backoff { most, long_outage, .. } = self.backoff;
        let most = if outage > LONG { most.max(long_outage.min(outage / SHARE)) } else { most };
        let bound = self.bound;
        self.bound = bound.saturating_mul(2).min(most);
        let random = match &mut self.seed {
            None => RandomState::new().build_hasher().finish(),
            Some(seed) => {
                *seed = seed.wrapping_add(1);
                BuildHasherDefault::<DefaultHasher>::default().hash_one(*seed)
            }
        };
        // whole milliseconds, as timers have them: on a paused clock a part of one would make runs differ
        let share = bound.as_millis() * u128::from(random >> 32) / u128::from(u32::MAX);
        Duration::from_millis(u64::try_from(share).unwrap_or(u64::MAX))
    }
}

/// What lives for less than this was none.
const SHORT: Duration = Duration::from_secs(1);

/// How many short lives in a row are followed at once by the next.
const FREE: u32 = 3;

/// The pace at which what ends is begun again: at once, unless it ends too fast, several times in a row. Then something that
/// is done each time may be the cause.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    backoff: Backoff,
    /// How many short lives there were in a row.
    short: u32,
    pauses: Pauses,
}

impl Pace {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { backoff, short: 0, pauses: backoff.pauses() }
    }

    /// How long to wait after something that has `lived` so long.
    pub(super) fn after(&mut self, lived: Duration) -> Duration {
        if lived >= SHORT {
            *self = Self::new(self.backoff);
            return Duration::ZERO;
        }
        self.short += 1;
        if self.short > FREE { self.pauses.next() } else { Duration::ZERO }
    }
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
    fn pauses_of_a_long_outage_grow_with_it() {
        let longest = |backoff: Backoff, seconds| {
            let mut pauses = backoff.pauses();
            let outage = Duration::from_secs(seconds);
            (0..200).map(|_| pauses.next_after(outage)).max().unwrap_or_default().as_millis()
        };
        let usual = Backoff::new();
        assert!((600..=750).contains(&longest(usual, 30)));
        assert!((1200..=1500).contains(&longest(usual, 60)));
        assert!((8000..=10_000).contains(&longest(usual, 3600)));
        assert!(longest(usual.long_outage(Duration::ZERO), 3600) <= 750);
    }

    #[test]
    fn a_seed_repeats_the_pauses() {
        let pauses = |seed| {
            let mut pauses = Backoff::new().seed(seed).pauses();
            [(); 10].map(|()| pauses.next())
        };
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
    }

    #[test]
    fn a_bound_below_the_first_pause_holds_for_that_too() {
        let mut pauses = Backoff::new().first(Duration::from_secs(9)).most(Duration::from_millis(2)).pauses();
        assert!((0..50).all(|_| pauses.next() <= Duration::from_millis(2)));
    }

    #[test]
    fn only_what_ends_at_once_again_and_again_is_waited_for() {
        let mut pace = Pace::new(Backoff::new().first(Duration::from_secs(1)).most(Duration::from_secs(1)));
        assert!((0..FREE).all(|_| pace.after(Duration::ZERO).is_zero()));
        assert!((0..20).map(|_| pace.after(Duration::ZERO)).any(|pause| !pause.is_zero()));
        assert!(pace.after(SHORT).is_zero());
        assert!((0..FREE).all(|_| pace.after(Duration::ZERO).is_zero()));
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
