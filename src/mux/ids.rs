//! Channel numbers: handed out round-robin, so that a number rests before it is used again and frames
//! that the server sent late find nobody.

use std::num::NonZeroU16;

/// A channel's number and its incarnation: numbers are used again, incarnations are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ChannelKey {
    pub id: NonZeroU16,
    pub generation: u32,
}

/// Finds free numbers from 1 to `max`.
#[derive(Debug)]
pub(crate) struct Ids {
    max: u16,
    last: u16,
}

impl Ids {
    /// `max` is the agreed `channel_max`, at least 1.
    pub(crate) fn new(max: u16) -> Self {
        Self { max: max.max(1), last: 0 }
    }

    /// The highest number that may be used.
    pub(crate) const fn max(&self) -> u16 {
        self.max
    }

    /// The next number, after the last one handed out, that `is_free` accepts.
    ///
    /// Numbers above the highest one ever used are taken only when the rest period of the lower ones,
    /// `REST` others in between, would be too short: the table of channels stays small.
    pub(crate) fn next(&mut self, is_free: impl Fn(NonZeroU16) -> bool) -> Option<NonZeroU16> {
        let after = (self.last.saturating_add(1)..=self.max).chain(1..=self.last.min(self.max));
        let id = after.filter_map(NonZeroU16::new).find(|id| is_free(*id))?;
        self.last = id.get();
        if self.last >= Self::REST && self.last < self.max {
            // start again while few are open
            let open = (1..=Self::REST).filter_map(NonZeroU16::new).filter(|id| !is_free(*id)).count();
            if open < usize::from(Self::REST / 2) {
                self.last = 0;
            }
        }
        Some(id)
    }

    /// How many numbers are handed out before the first is used again.
    const REST: u16 = 64;
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn e5_a_number_rests_before_it_is_used_again() {
        let mut ids = Ids::new(2047);
        let first = ids.next(|_| true).unwrap();
        for _ in 1..Ids::REST {
            assert_ne!(ids.next(|_| true), Some(first));
        }
        assert_eq!(ids.next(|_| true), Some(first));
    }

    #[test]
    fn every_number_up_to_channel_max_is_found_and_no_other() {
        for max in [1, 2, 63, 64, 65, 2047, u16::MAX] {
            let (mut ids, mut open) = (Ids::new(max), HashSet::new());
            while let Some(id) = ids.next(|id| !open.contains(&id)) {
                assert!(open.insert(id));
            }
            assert_eq!(open.len(), usize::from(max));
            let freed = open.iter().next().copied().unwrap();
            open.remove(&freed);
            assert_eq!(ids.next(|id| !open.contains(&id)), Some(freed));
        }
    }
}
