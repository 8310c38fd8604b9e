//! Messages that may have to be published again, as bytes.
//!
//! The ledger keeps a copy of a message's encoded properties and, if it is small, of its body, in one ring of bytes. So the
//! message itself is freed right after it is published, while it is in the cache. Its parts, six allocations for a usual
//! message, would otherwise be freed when they are cold.
//!
//! ```text
//! entries   | 7 | 8 | 9 |            by ascending sequence
//! ring      |properties 7|body 7|properties 9|body 9|      8 has no properties, and a large body of its own
//! ```

use std::collections::VecDeque;

use bytes::Bytes;

use crate::codec::content::decode_properties;
use crate::codec::{DecodeError, Properties};
use crate::single::Message;

/// A body up to this size is copied into the ring. A larger one is shared with whoever else holds it.
const COPIED: usize = 4 << 10;

/// What a message counts beyond its own bytes: its entry, and about what a route takes.
const OVERHEAD: usize = 2 * size_of::<Entry>();

/// The memory that an idle ring may keep.
const SPARE: usize = 64 << 10;

/// A ring that was in use a moment ago shrinks as if at least so much were in it, or all that was. It keeps at most eight
/// times as much.
const RECENT: usize = 256 << 10;

/// The kept messages of one channel.
#[derive(Debug, Default)]
pub(super) struct Kept {
    entries: VecDeque<Entry>,
    ring: VecDeque<u8>,
    /// The place of the ring's first byte, counted from the first that ever was in it.
    start: u64,
    /// The encoded properties of the message that was measured last.
    scratch: Vec<u8>,
    /// How much all of it counts, in bytes.
    bytes: usize,
}

/// One message.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its number on the robust channel.
    pub sequence: u64,
    pub interest: Interest,
    /// Where its properties begin in the ring.
    at: u64,
    /// How long they are; zero for a message that is persistent and nothing else.
    properties: u32,
    /// How much of the body is in the ring: all, or nothing.
    copied: u32,
    body: Bytes,
    /// How many bytes the message counts.
    weight: usize,
}

/// Whether somebody may ask what became of a message. As wide as the other fields: an entry is copied word by word, and a
/// word that was just written as a byte is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Interest {
    Kept,
    Abandoned,
    /// Its deadline has passed: it is not published again, either.
    Withdrawn,
}

/// What a message will count.
#[derive(Clone, Copy, Debug)]
pub(in crate::robust) struct Measure {
    /// In bytes.
    pub weight: usize,
    /// The length of the encoded properties, which [`Kept`] has at hand.
    pub properties: usize,
}

impl Kept {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }

    pub(super) fn first(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// The first message with at least this sequence.
    pub(super) fn at_or_after(&self, sequence: u64) -> Option<&Entry> {
        self.entries.get(self.entries.partition_point(|entry| entry.sequence < sequence))
    }

    /// The last message with at most this sequence.
    pub(super) fn up_to(&self, sequence: u64) -> Option<&Entry> {
        let after = self.entries.partition_point(|entry| entry.sequence <= sequence);
        self.entries.get(after.checked_sub(1)?)
    }

    pub(super) fn get_mut(&mut self, sequence: u64) -> Option<&mut Entry> {
        let at = self.entries.binary_search_by_key(&sequence, |entry| entry.sequence).ok()?;
        self.entries.get_mut(at)
    }

    /// Encodes the properties of a message that is about to be [pushed](Self::push).
    #[inline]
    pub(super) fn measure(&mut self, routing_key: usize, message: &Message) -> Measure {
        self.scratch.clear();
        if message.has_properties() {
            message.properties().encode(&mut self.scratch);
        }
        let properties = self.scratch.len();
        Measure { weight: OVERHEAD + routing_key + properties + message.body().len(), properties }
    }

    /// The encoded properties of the message that was measured last; `None` if it is persistent and nothing else.
    #[inline]
    pub(super) fn encoded(&self) -> Option<&[u8]> {
        // flags are always there
        (!self.scratch.is_empty()).then_some(&self.scratch)
    }

    /// Keeps a copy of the message that was measured last.
    #[inline]
    pub(super) fn push(&mut self, sequence: u64, message: &Message, measure: Measure) {
        let body = message.body();
        let at = self.start + self.ring.len() as u64;
        self.ring.extend(&self.scratch);
        let (copied, body) = if body.len() <= COPIED {
            self.ring.extend(&**body);
            (size(body.len()), Bytes::new())
        } else {
            (0, body.clone())
        };
        self.bytes += measure.weight;
        self.entries.push_back(Entry {
            sequence,
            interest: Interest::Kept,
            at,
            properties: size(measure.properties),
            copied,
            body,
            weight: measure.weight,
        });
    }

    /// The message again. An error: its properties are nested deeper than what is read.
    pub(super) fn message(&self, entry: &Entry) -> Result<Message, DecodeError> {
        let properties = self.properties(entry)?;
        let body = match entry.copied {
            0 => entry.body.clone(),
            length => self.copy(entry.at + u64::from(entry.properties), length),
        };
        Ok(match properties {
            Some(properties) => Message::with_properties(body, properties),
            None => Message::new(body),
        })
    }

    /// Its properties; `None` if it is persistent and nothing else.
    pub(super) fn properties(&self, entry: &Entry) -> Result<Option<Properties>, DecodeError> {
        match entry.properties {
            0 => Ok(None),
            length => decode_properties(&self.copy(entry.at, length)).map(Some),
        }
    }

    fn copy(&self, at: u64, length: u32) -> Bytes {
        let from = usize::try_from(at.saturating_sub(self.start)).unwrap_or(usize::MAX);
        self.ring.iter().skip(from).take(length as usize).copied().collect()
    }

    /// Removes the messages before this one.
    pub(super) fn forget_before(&mut self, sequence: u64) {
        let gone = self.entries.partition_point(|entry| entry.sequence < sequence);
        for entry in self.entries.drain(..gone) {
            self.bytes -= entry.weight;
        }
        self.trim();
    }

    /// Removes messages wherever they are.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        let bytes = &mut self.bytes;
        self.entries.retain(|entry| {
            let keep = keep(entry);
            if !keep {
                *bytes -= entry.weight;
            }
            keep
        });
        self.compact();
    }

    pub(super) fn remove(&mut self, sequence: u64) -> Option<Entry> {
        let at = self.entries.binary_search_by_key(&sequence, |entry| entry.sequence).ok()?;
        let entry = self.entries.remove(at)?;
        self.bytes -= entry.weight;
        if at == 0 {
            self.trim();
        }
        Some(entry)
    }

    /// Frees the ring before the first message. Its memory counts as needed if it was in use since the last time: a ring that
    /// shrinks whenever everything is settled grows again at once, and each fresh page is a fault.
    fn trim(&mut self) {
        let used = self.ring.len();
        let end = self.start + used as u64;
        let first = self.entries.front().map_or(end, |entry| entry.at);
        let gone = usize::try_from(first - self.start).unwrap_or(usize::MAX).min(self.ring.len());
        self.ring.drain(..gone);
        self.start = first;
        let needed = self.ring.len().max(used.min(RECENT));
        if self.ring.capacity() > SPARE && needed < self.ring.capacity() / 8 {
            self.ring.shrink_to(SPARE.max(2 * needed));
        }
    }

    /// Frees what lies between messages, if that is more than what they need.
    fn compact(&mut self) {
        self.trim();
        let needed: usize = self.entries.iter().map(|entry| (entry.properties + entry.copied) as usize).sum();
        if self.ring.len() < SPARE || self.ring.len() < 2 * needed {
            return;
        }
        let mut ring = VecDeque::with_capacity(needed);
        let old = self.ring.make_contiguous();
        for entry in &mut self.entries {
            let from = usize::try_from(entry.at - self.start).unwrap_or(usize::MAX);
            let length = (entry.properties + entry.copied) as usize;
            entry.at = self.start + ring.len() as u64;
            ring.extend(old.get(from..from + length).unwrap_or_default());
        }
        self.ring = ring;
    }
}

impl Entry {
    /// The length of the body in bytes.
    pub(super) fn body_length(&self) -> usize {
        if self.copied > 0 { self.copied as usize } else { self.body.len() }
    }
}

/// A length below 4 GiB: that of properties, which fit a frame, or of a small body.
fn size(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::FieldTable;

    fn push(kept: &mut Kept, sequence: u64, message: &Message) {
        let measure = kept.measure(0, message);
        kept.push(sequence, message, measure);
    }

    fn messages(kept: &Kept) -> Vec<Message> {
        kept.iter().map(|entry| kept.message(entry).unwrap()).collect()
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let mut kept = Kept::default();
        let all = [
            Message::new("small"),
            Message::new("with properties").content_type("text/plain").header("n", 1),
            Message::new(vec![7; 100_000]).message_id("large"),
            Message::new(""),
            Message::new("transient").transient(),
        ];
        for (sequence, message) in (1..).zip(&all) {
            push(&mut kept, sequence, message);
        }
        assert_eq!(messages(&kept), all);
        kept.forget_before(3);
        assert_eq!(messages(&kept), all[2..]);
        assert!(kept.remove(4).is_some() && kept.remove(4).is_none());
        assert_eq!(messages(&kept), [all[2].clone(), all[4].clone()]);
    }

    #[test]
    fn headers_that_cannot_be_read_back_are_an_error_and_not_left_out() {
        let mut headers = FieldTable::new();
        for _ in 0..200 {
            let mut outer = FieldTable::new();
            outer.insert("deeper", headers).unwrap();
            headers = outer;
        }
        let mut kept = Kept::default();
        push(&mut kept, 1, &Message::new("x").headers(headers));
        assert!(kept.message(kept.first().unwrap()).is_err());
    }

    #[test]
    fn gaps_in_the_ring_are_freed_and_the_count_goes_back_to_zero() {
        let mut kept = Kept::default();
        for sequence in 0..1_000 {
            push(&mut kept, sequence, &Message::new(vec![1; 1_000]).message_id(sequence.to_string()));
        }
        kept.retain(|entry| entry.sequence % 100 == 0);
        assert_eq!(kept.len(), 10);
        assert!(kept.ring.len() < 20_000, "{}", kept.ring.len());
        for entry in kept.iter() {
            let id = kept.properties(entry).unwrap().unwrap().message_id.unwrap();
            assert_eq!(id, entry.sequence.to_string());
        }
        kept.forget_before(u64::MAX);
        assert_eq!((kept.bytes(), kept.ring.len()), (0, 0));
    }

    #[test]
    fn the_ring_keeps_its_memory_while_it_is_used_again_and_again() {
        let mut kept = Kept::default();
        let fill = |kept: &mut Kept, bytes: usize| {
            for sequence in 0..bytes as u64 / 1_000 {
                push(kept, sequence, &Message::new(vec![1; 1_000]));
            }
            kept.forget_before(u64::MAX);
            kept.ring.capacity()
        };
        let capacity = fill(&mut kept, 1 << 20);
        assert!(capacity >= 1 << 20, "{capacity}");
        assert_eq!(fill(&mut kept, 1 << 20), capacity);
        // a rare burst keeps a little, and an idle ring nearly nothing
        assert!(fill(&mut kept, 16 << 20) <= 4 * RECENT);
        assert!(fill(&mut kept, 0) <= 2 * SPARE);
    }
}
