//! The read buffer: small while a connection is idle, large while it is busy, and used again once
//! nobody shares it any more.
//!
//! Whole frames are handed on as shares of the buffer, which keep it alive: so the bytes of all buffers that are shared
//! are counted. A small part of a large buffer is copied out instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use tokio::runtime::RuntimeFlavor;

/// The least that is read at once, and the most, in bytes. The size grows while reads fill the buffer, and shrinks
/// when they do not.
const LEAST: usize = 4 << 10;
const MOST: usize = 256 << 10;

/// The most on a runtime with one thread: consumers run there as soon as something is read, so nothing is gained
/// by more, and this stays in the core's cache. With several threads each batch wakes another one.
const MOST_ON_ONE_THREAD: usize = 64 << 10;

/// How many buffers wait to be used again: fresh memory costs a page fault for every 4 KiB.
const SPARES: usize = 16;

/// What is copied out of the buffer: at most this many bytes, and at most a quarter of the buffer.
const COPY_MOST: usize = 2 << 10;

/// What has been read and not been cut into frames yet, with room for more.
#[derive(Debug)]
pub(crate) struct Input {
    pub bytes: BytesMut,
    /// How large the buffer is, with what was cut off and may be shared.
    held: usize,
    /// Held by each share of the buffer; `None` while there is none.
    pin: Option<Arc<Pin>>,
    /// How large the buffer should be.
    size: usize,
    most: usize,
    /// Buffers that frames may still share.
    spares: Vec<BytesMut>,
    pinned: Arc<AtomicUsize>,
}

/// A buffer that is shared: counts its bytes for as long as that lasts.
#[derive(Debug)]
struct Pin {
    size: usize,
    pinned: Arc<AtomicUsize>,
}

impl Pin {
    fn new(size: usize, pinned: &Arc<AtomicUsize>) -> Arc<Self> {
        pinned.fetch_add(size, Ordering::Relaxed);
        Arc::new(Self { size, pinned: Arc::clone(pinned) })
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pinned.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// Whole frames, and what they pin.
struct Share {
    frames: Bytes,
    _pin: Arc<Pin>,
}

impl AsRef<[u8]> for Share {
    fn as_ref(&self) -> &[u8] {
        &self.frames
    }
}

impl Input {
    /// With what was read before.
    pub(crate) fn new(bytes: BytesMut, runtime: &RuntimeFlavor) -> Self {
        let most = if matches!(runtime, RuntimeFlavor::CurrentThread) { MOST_ON_ONE_THREAD } else { MOST };
        let held = bytes.capacity();
        Self { bytes, held, pin: None, size: LEAST, most, spares: Vec::new(), pinned: Arc::default() }
    }

    /// How many bytes of memory are held by whoever shares what was read.
    pub(crate) fn pinned(&self) -> usize {
        self.pinned.load(Ordering::Relaxed)
    }

    /// Takes the first `count` bytes out, which are whole frames, and tells how much memory they pin.
    pub(crate) fn take(&mut self, count: usize) -> (Bytes, usize) {
        if count == 0 {
            return (Bytes::new(), 0);
        }
        let (frames, pin) = if count <= COPY_MOST && count <= self.held / 4 {
            let copy = Bytes::copy_from_slice(self.bytes.get(..count).unwrap_or_default());
            self.bytes.advance(count);
            (copy, Pin::new(count, &self.pinned))
        } else {
            let pin = self.pin.get_or_insert_with(|| Pin::new(self.held, &self.pinned));
            (self.bytes.split_to(count).freeze(), Arc::clone(pin))
        };
        let size = pin.size;
        (Bytes::from_owner(Share { frames, _pin: pin }), size)
    }

    /// Makes room for the next read, and returns how much there is.
    pub(crate) fn make_room(&mut self) -> usize {
        if (self.bytes.is_empty() && !self.fits()) || self.room() < self.size / 4 {
            self.renew();
        }
        self.room()
    }

    /// Whether the buffer is as large as it should be: an idle connection keeps no large one.
    fn fits(&self) -> bool {
        self.held >= self.size && (self.size > LEAST || self.held <= 4 * LEAST)
    }

    fn room(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    /// Moves the rest of what was read to a buffer with room, preferably one that was used before.
    fn renew(&mut self) {
        let needed = self.bytes.len() + self.size;
        if self.fits() && self.bytes.try_reclaim(self.size) {
            // nobody shares it any more
            self.pin = None;
            return;
        }
        let free = self.spares.iter_mut().position(|spare| spare.try_reclaim(needed));
        let mut fresh = match free {
            Some(at) => self.spares.swap_remove(at),
            // with room for what is left of a read, which moves along
            None => BytesMut::with_capacity(needed.max(self.size + self.size / 4)),
        };
        let held = std::mem::replace(&mut self.held, fresh.capacity());
        fresh.extend_from_slice(&self.bytes);
        let mut old = std::mem::replace(&mut self.bytes, fresh);
        old.clear();
        self.pin = None;
        // one that has become too small is of no use any more
        if self.size > LEAST && held >= self.size && self.spares.len() < SPARES {
            self.spares.push(old);
        }
    }

    /// A read of `count` bytes had room for `room`.
    pub(crate) fn adapt(&mut self, count: usize, room: usize) {
        if count >= room {
            self.size = (self.size * 2).min(self.most);
        } else if count < self.size / 4 && self.size > LEAST {
            self.size /= 2;
            if self.size == LEAST {
                self.spares = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input() -> Input {
        Input::new(BytesMut::new(), &RuntimeFlavor::MultiThread)
    }

    /// Reads `count` bytes, as far as there is room.
    fn read(input: &mut Input, count: usize) -> usize {
        let room = input.make_room();
        let count = count.min(room);
        input.bytes.extend_from_slice(&vec![7; count]);
        input.adapt(count, room);
        count
    }

    #[test]
    fn it_grows_with_full_reads_and_shrinks_with_small_ones() {
        let mut input = input();
        assert!(read(&mut input, usize::MAX) < 2 * LEAST);
        while read(&mut input, usize::MAX) < MOST {
            drop(input.take(input.bytes.len()));
        }
        assert!(input.room() <= 2 * MOST);
        for _ in 0..64 {
            input.bytes.clear();
            read(&mut input, 1);
        }
        assert_eq!((input.size, input.spares.len()), (LEAST, 0));
        assert!(input.bytes.capacity() <= 4 * LEAST, "an idle connection keeps {}", input.bytes.capacity());
    }

    #[test]
    fn what_is_shared_stays_and_what_was_not_cut_moves_along() {
        let mut input = input();
        let (mut shared, mut total) = (Vec::new(), 0);
        for n in 0..200 {
            total += read(&mut input, if n % 3 == 0 { 500 } else { usize::MAX });
            shared.push(input.take(input.bytes.len() - 5).0);
        }
        let kept: usize = shared.iter().map(Bytes::len).sum();
        assert_eq!(kept + 5, total);
        assert!(shared.iter().all(|part| part.iter().all(|byte| *byte == 7)));
        assert!((kept..2 * kept).contains(&input.pinned()), "{} for {kept}", input.pinned());
        drop(shared);
        // the buffer that is in use
        assert!(input.pinned() <= input.held, "{}", input.pinned());
        assert!(input.spares.len() <= SPARES);
    }

    #[test]
    fn a_small_part_of_a_large_buffer_is_copied_out() {
        let mut input = input();
        while read(&mut input, usize::MAX) < MOST {
            drop(input.take(input.bytes.len()));
        }
        drop(input.take(input.bytes.len()));
        read(&mut input, 1000);
        let place = input.bytes.as_ptr();
        let (part, pinned) = input.take(1000);
        assert!(part.len() == 1000 && pinned < 2000, "{pinned}");
        // and its place is used again
        read(&mut input, 1000);
        assert!(input.bytes.as_ptr() == place || input.bytes.as_ptr() == place.wrapping_add(1000));
    }

    #[test]
    fn a_buffer_that_nobody_shares_is_used_again() {
        let mut input = input();
        while read(&mut input, usize::MAX) < MOST {
            input.bytes.clear();
        }
        let mut places = std::collections::HashSet::new();
        let mut last = None;
        for _ in 0..100 {
            read(&mut input, usize::MAX);
            // one chunk is still shared while the next is read
            last = Some(input.take(input.bytes.len()).0);
            places.insert(last.as_ref().map(|chunk| chunk.as_ptr() as usize));
        }
        assert!(last.is_some() && places.len() < 20, "{} places", places.len());
    }
}
