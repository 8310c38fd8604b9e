//! What waits to be written: frames encoded into one buffer, large bodies chained beside it.

use std::io::IoSlice;

use bytes::Bytes;

/// Bodies of at least this many bytes are chained, not copied: from here on a reference count and an
/// I/O slice cost less than the copy.
pub(crate) const CHAIN_FROM: usize = 8 << 10;

/// A buffer that keeps more than this between two batches gives the rest back, so that one burst does
/// not hold its memory for ever.
const KEEP: usize = 512 << 10;

/// Frames in their order on the wire.
///
/// Small pieces stand in `buffer`; a chained body belongs between its bytes at the place `at`.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    buffer: Vec<u8>,
    chained: Vec<Chained>,
    chained_bytes: usize,
    /// How many answers to methods of the server are in it.
    answers: u32,
}

#[derive(Debug)]
struct Chained {
    at: usize,
    body: Bytes,
}

/// How much there was at a moment, to go back to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    buffer: usize,
    chained: usize,
    chained_bytes: usize,
}

impl Outgoing {
    /// How many bytes wait.
    pub(crate) const fn len(&self) -> usize {
        self.buffer.len() + self.chained_bytes
    }

    /// Whether nothing waits.
    pub(crate) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer to append small pieces to.
    pub(crate) const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Appends a body without a copy if that pays.
    pub(crate) fn put_body(&mut self, body: Bytes) {
        if body.len() < CHAIN_FROM {
            self.buffer.extend_from_slice(&body);
        } else {
            self.chained_bytes += body.len();
            self.chained.push(Chained { at: self.buffer.len(), body });
        }
    }

    /// Counts an answer to a method of the server, and returns how many wait.
    pub(crate) const fn count_answer(&mut self) -> u32 {
        self.answers += 1;
        self.answers
    }

    /// Remembers where the next piece will begin.
    pub(crate) const fn mark(&self) -> Mark {
        Mark { buffer: self.buffer.len(), chained: self.chained.len(), chained_bytes: self.chained_bytes }
    }

    /// Takes back everything that was appended after the mark.
    pub(crate) fn rewind(&mut self, mark: Mark) {
        self.buffer.truncate(mark.buffer);
        self.chained.truncate(mark.chained);
        self.chained_bytes = mark.chained_bytes;
    }

    /// Empties it, keeping a moderate buffer for the next batch.
    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(KEEP);
        self.chained.clear();
        self.chained_bytes = 0;
        self.answers = 0;
    }

    /// Gives back the memory of an empty buffer, for a connection that has gone idle.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Fills `slices` with what stands behind the first `written` bytes, in order, and returns how many
    /// slices that took.
    pub(crate) fn slices<'a>(&'a self, written: usize, slices: &mut [IoSlice<'a>]) -> usize {
        let mut skip = written;
        let mut used = 0;
        for piece in self.pieces() {
            let Some(rest) = piece.get(skip..) else {
                skip -= piece.len();
                continue;
            };
            skip = 0;
            if rest.is_empty() {
                continue;
            }
            let Some(slot) = slices.get_mut(used) else { break };
            *slot = IoSlice::new(rest);
            used += 1;
        }
        used
    }

    /// All pieces in the order of the wire; some may be empty.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let last = self.chained.last().map_or(0, |chained| chained.at);
        let mut from = 0;
        self.chained
            .iter()
            .flat_map(move |chained| {
                let before = self.buffer.get(from..chained.at).unwrap_or_default();
                from = chained.at;
                [before, chained.body.as_ref()]
            })
            .chain(std::iter::once(self.buffer.get(last..).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(outgoing: &Outgoing, written: usize, most: usize) -> Vec<u8> {
        let mut slices = vec![IoSlice::new(&[]); most];
        let used = outgoing.slices(written, &mut slices);
        slices[..used].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn chained_bodies_keep_their_place_from_every_offset() {
        let mut outgoing = Outgoing::default();
        let large = Bytes::from(vec![7; CHAIN_FROM]);
        outgoing.put_body(large.clone());
        outgoing.buffer().extend_from_slice(b"head");
        outgoing.put_body(Bytes::from_static(b"small"));
        outgoing.put_body(large.clone());
        outgoing.put_body(large.clone());
        outgoing.buffer().extend_from_slice(b"tail");
        let mut wire = large.to_vec();
        wire.extend_from_slice(b"headsmall");
        wire.extend_from_slice(&large);
        wire.extend_from_slice(&large);
        wire.extend_from_slice(b"tail");
        assert_eq!(outgoing.len(), wire.len());
        for written in (0..wire.len()).step_by(509).chain([wire.len() - 1, wire.len()]) {
            assert_eq!(gather(&outgoing, written, 16), wire[written..], "from {written}");
        }
        assert!(wire.starts_with(&gather(&outgoing, 0, 2)));
    }

    #[test]
    fn rewinding_takes_back_both_kinds() {
        let mut outgoing = Outgoing::default();
        outgoing.buffer().extend_from_slice(b"kept");
        let mark = outgoing.mark();
        outgoing.buffer().extend_from_slice(b"gone");
        outgoing.put_body(Bytes::from(vec![7; CHAIN_FROM]));
        outgoing.rewind(mark);
        assert_eq!(gather(&outgoing, 0, 4), b"kept");
        assert_eq!(outgoing.len(), 4);
    }
}
