//! What waits to be written: frames encoded into one buffer, large bodies beside it.
//!
//! ```text
//!   publish, call, ack ──> batch ───────────────────────────────┐
//!                                                               ├──> take ──> one batch for the socket
//!   a body beyond TURN ──> lane of its channel: body, behind ───┘    a bounded part of the lanes, in turn
//!   connection.close ────> last: once no lane is left
//! ```
//!
//! Frames of one channel stay in their order, and those of one message stay together on their channel (spec 4.2.6).
//! Frames of different channels may come in any order: so a large body yields to what other channels have to say, and
//! what its own channel says next waits behind it.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use crate::codec::frame::put_body_head;
use crate::codec::generated::constants::FRAME_END;

/// Bodies of at least this many bytes are chained, not copied: from here on a reference count and an
/// I/O slice cost less than the copy.
pub(crate) const CHAIN_FROM: usize = 8 << 10;

/// How many bytes of large bodies go into one batch. A body of at most this many is written in one go.
const TURN: usize = 256 << 10;

/// A buffer that keeps more than this between two batches gives the rest back, so that one burst does
/// not hold its memory for ever.
const KEEP: usize = 512 << 10;

/// See the module's diagram.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    batch: Batch,
    /// Large bodies that are being written; the first has the next turn.
    lanes: VecDeque<Lane>,
    last: Vec<u8>,
    /// How many batches were taken, modulo 2^64.
    taken: u64,
    /// The bytes of acks, nacks and rejects, and of answers to the server, that were appended since a batch was taken.
    unread: usize,
}

/// Frames in their order on the wire.
///
/// Small pieces stand in `buffer`; a chained part of a body belongs between its bytes at the place `at`.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    buffer: Vec<u8>,
    chained: Vec<Chained>,
    chained_bytes: usize,
}

#[derive(Debug)]
struct Chained {
    at: usize,
    part: Bytes,
}

/// A channel in the middle of a large body, and what it says after that.
#[derive(Debug)]
struct Lane {
    channel: u16,
    body: Body,
    /// Further bodies, each with the frames before it.
    behind: VecDeque<(Vec<u8>, Body)>,
    /// The frames after all bodies.
    tail: Vec<u8>,
}

/// What is left of a body, and how much of it goes into one frame.
#[derive(Debug)]
struct Body {
    rest: Bytes,
    piece: usize,
}

/// How much of a channel there was at a moment, to go back to it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mark {
    Batch { buffer: usize },
    Lane { tail: usize },
}

impl Outgoing {
    /// How many bytes wait.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.batch.len() + if self.lanes.is_empty() { 0 } else { self.behind() }
    }

    /// How many bytes are not in the next batch.
    #[cold]
    fn behind(&self) -> usize {
        self.lanes.iter().map(Lane::len).sum::<usize>() + self.last.len()
    }

    /// Whether nothing waits.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // without lanes nothing is in `last`
        self.batch.is_empty() && self.lanes.is_empty()
    }

    /// How many bytes a message of `size` bytes would have to wait for: everything before a large one, or one on a
    /// channel that is in the middle of one; the next batch before any other.
    #[inline]
    pub(crate) fn before(&self, channel: u16, size: usize) -> usize {
        if self.lanes.is_empty() || !self.waits_for_lanes(channel, size) {
            self.batch.len()
        } else {
            self.len()
        }
    }

    #[cold]
    fn waits_for_lanes(&self, channel: u16, size: usize) -> bool {
        size > TURN || self.is_in_lane(channel)
    }

    /// Whether what a channel says now has to wait for a large body of the channel.
    pub(crate) fn is_in_lane(&self, channel: u16) -> bool {
        self.lanes.iter().any(|lane| lane.channel == channel)
    }

    /// The number of the batch that was taken last. What is appended now is in the next one, unless it waits in a lane.
    pub(crate) const fn taken(&self) -> u64 {
        self.taken
    }

    /// The buffer to append small pieces of a channel to.
    #[inline]
    pub(crate) fn on(&mut self, channel: u16) -> &mut Vec<u8> {
        if self.lanes.is_empty() {
            return &mut self.batch.buffer;
        }
        self.beside_lanes(channel)
    }

    #[cold]
    fn beside_lanes(&mut self, channel: u16) -> &mut Vec<u8> {
        match self.lanes.iter_mut().find(|lane| lane.channel == channel) {
            Some(lane) => &mut lane.tail,
            None => &mut self.batch.buffer,
        }
    }

    /// Appends the frames of a body, of at most `most` bytes each, without a copy if that pays.
    pub(crate) fn put_body(&mut self, channel: u16, body: &Bytes, most: usize) {
        if body.len() < CHAIN_FROM {
            return copy_body(self.on(channel), channel, body, most);
        }
        let mut body = Body { rest: body.clone(), piece: most };
        match self.lanes.iter_mut().find(|lane| lane.channel == channel) {
            Some(lane) => lane.behind.push_back((std::mem::take(&mut lane.tail), body)),
            None if body.rest.len() <= TURN => self.batch.put_pieces(channel, &mut body, TURN),
            None => {
                self.lanes.push_back(Lane { channel, body, behind: VecDeque::new(), tail: Vec::new() });
            }
        }
    }

    /// Appends what is to be written after everything else.
    pub(crate) fn put_last(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        put(if self.lanes.is_empty() { &mut self.batch.buffer } else { &mut self.last });
    }

    /// Drops what is not in the next batch: the rest of large bodies, and what waits for them.
    pub(crate) fn cut(&mut self) {
        self.lanes.clear();
        self.last.clear();
    }

    /// Counts bytes of acks or of answers to the server, and returns how many wait.
    pub(crate) const fn count_unread(&mut self, bytes: usize) -> usize {
        self.unread += bytes;
        self.unread
    }

    /// Remembers where the next piece of a channel will begin.
    pub(crate) fn mark(&self, channel: u16) -> Mark {
        match self.lanes.iter().find(|lane| lane.channel == channel) {
            Some(lane) => Mark::Lane { tail: lane.tail.len() },
            None => Mark::Batch { buffer: self.batch.buffer.len() },
        }
    }

    /// Takes back the frames of the channel that were appended after the mark. There must be no body among them.
    pub(crate) fn rewind(&mut self, channel: u16, mark: Mark) {
        match mark {
            Mark::Batch { buffer } => self.batch.buffer.truncate(buffer),
            Mark::Lane { tail } => {
                if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.channel == channel) {
                    lane.tail.truncate(tail);
                }
            }
        }
    }

    /// Moves what is to be written next into `batch`, which is empty: all that is small, and a bounded part of
    /// large bodies.
    pub(crate) fn take(&mut self, batch: &mut Batch) {
        std::mem::swap(&mut self.batch, batch);
        self.taken = self.taken.wrapping_add(1);
        self.unread = 0;
        if !self.lanes.is_empty() {
            self.take_turns(batch);
        }
        if self.lanes.is_empty() {
            batch.buffer.append(&mut self.last);
        }
    }

    /// The lanes take turns of a few frames, until one batch has enough.
    #[cold]
    fn take_turns(&mut self, batch: &mut Batch) {
        let enough = batch.len() + TURN;
        let share = TURN / self.lanes.len().max(1);
        while batch.len() < enough
            && let Some(mut lane) = self.lanes.pop_front()
        {
            if lane.take(batch, share) {
                self.lanes.push_back(lane);
            }
        }
    }

    /// Gives back the memory of an empty buffer, for a connection that has gone idle.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            *self = Self { taken: self.taken, ..Self::default() };
        }
    }
}

impl Lane {
    fn len(&self) -> usize {
        let behind = self.behind.iter().map(|(frames, body)| frames.len() + body.rest.len());
        self.body.rest.len() + behind.sum::<usize>() + self.tail.len()
    }

    /// Moves at least a frame, and about `share` bytes. False: nothing is left.
    fn take(&mut self, batch: &mut Batch, share: usize) -> bool {
        batch.put_pieces(self.channel, &mut self.body, share);
        if !self.body.rest.is_empty() {
            return true;
        }
        let Some((frames, body)) = self.behind.pop_front() else {
            batch.buffer.extend_from_slice(&self.tail);
            return false;
        };
        batch.buffer.extend_from_slice(&frames);
        self.body = body;
        true
    }
}

/// Appends the frames of a small body.
fn copy_body(out: &mut Vec<u8>, channel: u16, body: &[u8], most: usize) {
    for piece in body.chunks(most) {
        put_body_head(out, channel, size(piece));
        out.extend_from_slice(piece);
        out.push(FRAME_END);
    }
}

impl Batch {
    /// How many bytes it has.
    pub(crate) const fn len(&self) -> usize {
        self.buffer.len() + self.chained_bytes
    }

    /// Whether there is nothing in it.
    pub(crate) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Chains frames of a body: at least one, until there are `enough` bytes.
    fn put_pieces(&mut self, channel: u16, body: &mut Body, enough: usize) {
        let mut put = 0;
        while !body.rest.is_empty() && (put == 0 || put < enough) {
            let part = body.rest.split_to(body.rest.len().min(body.piece));
            put += part.len();
            put_body_head(&mut self.buffer, channel, size(&part));
            self.chained_bytes += part.len();
            self.chained.push(Chained { at: self.buffer.len(), part });
            self.buffer.push(FRAME_END);
        }
    }

    /// Empties it, keeping a moderate buffer for the next batch.
    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(KEEP);
        self.chained.clear();
        self.chained_bytes = 0;
    }

    /// Gives back the memory of an empty one.
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
                [before, chained.part.as_ref()]
            })
            .chain(std::iter::once(self.buffer.get(last..).unwrap_or_default()))
    }
}

/// The size of a part of a body, which fits into a frame.
fn size(part: &[u8]) -> u32 {
    u32::try_from(part.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(batch: &Batch, written: usize, most: usize) -> Vec<u8> {
        let mut slices = vec![IoSlice::new(&[]); most];
        let used = batch.slices(written, &mut slices);
        slices[..used].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    fn take(outgoing: &mut Outgoing) -> Vec<u8> {
        let mut batch = Batch::default();
        outgoing.take(&mut batch);
        gather(&batch, 0, usize::from(u16::MAX))
    }

    /// The frames of a body.
    fn framed(channel: u16, body: &[u8], most: usize) -> Vec<u8> {
        let mut out = Vec::new();
        copy_body(&mut out, channel, body, most);
        out
    }

    #[test]
    fn chained_bodies_keep_their_place_from_every_offset() {
        let mut outgoing = Outgoing::default();
        let large = vec![7; CHAIN_FROM];
        outgoing.put_body(1, &large.clone().into(), 5000);
        outgoing.on(1).extend_from_slice(b"head");
        outgoing.put_body(2, &Bytes::from_static(b"small"), 5000);
        outgoing.put_body(1, &large.clone().into(), 5000);
        outgoing.on(2).extend_from_slice(b"tail");
        let wire = [
            framed(1, &large, 5000),
            b"head".to_vec(),
            framed(2, b"small", 5000),
            framed(1, &large, 5000),
            b"tail".to_vec(),
        ]
        .concat();
        assert_eq!(outgoing.len(), wire.len());
        let mut batch = Batch::default();
        outgoing.take(&mut batch);
        for written in (0..wire.len()).step_by(509).chain([wire.len() - 1, wire.len()]) {
            assert_eq!(gather(&batch, written, 32), wire[written..], "from {written}");
        }
        assert!(wire.starts_with(&gather(&batch, 0, 2)));
    }

    #[test]
    fn rewinding_takes_back_what_a_channel_said_last() {
        let mut outgoing = Outgoing::default();
        for large in [false, true] {
            if large {
                outgoing.put_body(1, &vec![7; 2 * TURN].into(), 1000);
            }
            outgoing.on(1).extend_from_slice(b"kept");
            let (mark, before) = (outgoing.mark(1), outgoing.len());
            outgoing.on(1).extend_from_slice(b"gone");
            outgoing.rewind(1, mark);
            assert_eq!(outgoing.len(), before);
        }
    }

    #[test]
    fn a_large_body_yields_to_other_channels_and_its_own_waits() {
        let mut outgoing = Outgoing::default();
        let most = 1000;
        let body: Vec<_> = (0..4 * TURN).map(|n| n.to_le_bytes()[0]).collect();
        outgoing.on(1).extend_from_slice(b"header");
        outgoing.put_body(1, &body.clone().into(), most);
        outgoing.on(1).extend_from_slice(b"behind");
        outgoing.put_body(1, &Bytes::from_static(b"small"), most);
        outgoing.put_body(1, &vec![8; CHAIN_FROM].into(), most);
        outgoing.on(1).extend_from_slice(b"end");
        outgoing.put_last(|out| out.extend_from_slice(b"bye"));
        assert!(outgoing.is_in_lane(1) && !outgoing.is_in_lane(2));
        let (mut one, mut batches) = (Vec::new(), 0);
        while !outgoing.is_empty() {
            outgoing.on(2).extend_from_slice(b"other");
            let batch = take(&mut outgoing);
            batches += 1;
            assert!(batch.len() < TURN + 100 * most, "{}", batch.len());
            let at = if batches == 1 { b"header".len() } else { 0 };
            assert_eq!(batch[at..].get(..5), Some(&b"other"[..]), "batch {batches}");
            one.extend_from_slice(&batch[..at]);
            one.extend_from_slice(&batch[at + 5..]);
        }
        let whole = [
            b"header".to_vec(),
            framed(1, &body, most),
            b"behind".to_vec(),
            framed(1, b"small", most),
            framed(1, &[8; CHAIN_FROM], most),
            b"endbye".to_vec(),
        ];
        assert!(one == whole.concat(), "the channel's own order, and the last word last");
        assert!(batches >= 4, "{batches}");
    }

    #[test]
    fn large_bodies_of_several_channels_take_turns() {
        let mut outgoing = Outgoing::default();
        for channel in 1..=4 {
            outgoing.put_body(channel, &vec![channel.to_le_bytes()[0]; 4 * TURN].into(), 1000);
        }
        let mut sent = [0_usize; 4];
        for _ in 0..3 {
            let batch = take(&mut outgoing);
            for frame in batch.chunks(1008) {
                sent[usize::from(frame[2]) - 1] += 1;
            }
            let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
            assert!(most - least <= TURN / 1000 / 4 + 1, "{sent:?}");
        }
        assert_eq!(outgoing.before(9, 10), 0, "a small message of another channel does not wait for them");
        assert!(outgoing.before(9, 2 * TURN) > 10 * TURN, "a large one does");
        assert!(outgoing.before(1, 10) > 10 * TURN, "and one of the same channel");
        outgoing.cut();
        assert!(outgoing.is_empty());
    }

    #[test]
    fn no_frame_size_makes_large_bodies_be_copied() {
        let mut outgoing = Outgoing::default();
        for most in [8184, 4088, 100_000] {
            let body = Bytes::from(vec![7; TURN]);
            outgoing.put_body(1, &body, most);
            let mut batch = Batch::default();
            outgoing.take(&mut batch);
            assert_eq!(batch.chained_bytes, TURN, "frames of {most}");
            assert!(batch.chained.iter().all(|chained| body.as_ptr_range().contains(&chained.part.as_ptr())));
        }
    }
}
