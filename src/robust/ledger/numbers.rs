//! The numbers of a channel's messages on the plain channel that is behind it.
//!
//! ```text
//!   published again        new: in step
//!   sequence  4  6  7      8  9  10 ...     on the robust channel
//!   number    1  2  3      4  5  6  ...     on the plain channel
//! ```

use super::publishes::Wire;

#[derive(Debug)]
pub(super) struct Numbers<W> {
    pub wire: W,
    /// What was published again: sequence and number, both ascending.
    again: Vec<(u64, u64)>,
    /// Sequence and number of the first message that is new; `None` as long as older ones are published again.
    new: Option<(u64, u64)>,
}

impl<W> Numbers<W> {
    /// On a plain channel on which nothing was published yet.
    pub(super) fn new(wire: W) -> Self {
        Self { wire, again: Vec::new(), new: None }
    }

    /// A message was published again.
    pub(super) fn add(&mut self, sequence: u64, number: u64) {
        self.again.push((sequence, number));
    }

    /// What follows is new.
    pub(super) fn complete(&mut self, next_sequence: u64) {
        let number = self.again.last().map_or(1, |(_, number)| number + 1);
        self.new = Some((next_sequence, number));
    }

    /// The number of a message; `None` if it was not published on this plain channel, or was settled there long ago.
    pub(super) fn number(&self, sequence: u64) -> Option<u64> {
        if let Some((first, number)) = self.new
            && let Some(after) = sequence.checked_sub(first)
        {
            return Some(number + after);
        }
        let at = self.again.binary_search_by_key(&sequence, |(sequence, _)| *sequence).ok()?;
        self.again.get(at).map(|(_, number)| *number)
    }

    /// The sequence of the first message with at least this number. All before it either has a lower number, or is not
    /// kept any more.
    pub(super) fn sequence(&self, number: u64) -> u64 {
        if let Some((sequence, first)) = self.new
            && let Some(after) = number.checked_sub(first)
        {
            return sequence + after;
        }
        let at = self.again.partition_point(|(_, other)| *other < number);
        let after = || self.new.or_else(|| self.again.last().map(|(last, number)| (last + 1, number + 1)));
        self.again.get(at).copied().or_else(after).map_or(0, |(sequence, _)| sequence)
    }

    /// Whether everything was published again.
    pub(super) fn is_complete(&self) -> bool {
        self.new.is_some()
    }
}

impl<W: Wire> Numbers<W> {
    /// Everything before this sequence was acked, or its failure was told, if it was published here.
    pub(super) fn acked_below(&mut self) -> u64 {
        let number = self.wire.acked_below();
        if self.new.is_some_and(|(_, first)| number >= first) {
            // nobody will ask for those any more
            self.again = Vec::new();
        }
        self.sequence(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As drawn above.
    fn drawn() -> Numbers<()> {
        let mut numbers = Numbers::new(());
        for (sequence, number) in [(4, 1), (6, 2), (7, 3)] {
            numbers.add(sequence, number);
        }
        numbers
    }

    #[test]
    fn new_messages_are_in_step_from_the_first_on() {
        let mut numbers = Numbers::new(());
        numbers.complete(1);
        assert_eq!([1, 2, 9].map(|sequence| numbers.number(sequence)), [Some(1), Some(2), Some(9)]);
        assert_eq!([0, 1, 9].map(|number| numbers.sequence(number)), [1, 1, 9]);
    }

    #[test]
    fn messages_keep_their_sequence_when_they_are_published_again() {
        let mut numbers = drawn();
        numbers.complete(8);
        let found = [3, 4, 5, 6, 7, 8, 9].map(|sequence| numbers.number(sequence));
        assert_eq!(found, [None, Some(1), None, Some(2), Some(3), Some(4), Some(5)]);
        assert_eq!([1, 2, 3, 4, 5].map(|number| numbers.sequence(number)), [4, 6, 7, 8, 9]);
    }

    #[test]
    fn what_is_still_to_be_published_again_has_no_number_and_is_not_settled() {
        let mut numbers = drawn();
        assert_eq!([7, 8, 9].map(|sequence| numbers.number(sequence)), [Some(3), None, None]);
        // all three are settled: the next message, 8 at the earliest, is not
        assert_eq!(numbers.sequence(4), 8);
        numbers.complete(20);
        assert_eq!(numbers.sequence(4), 20);
        assert_eq!(Numbers::new(()).sequence(1), 0);
    }
}
