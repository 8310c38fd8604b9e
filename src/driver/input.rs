//! The read buffer: small while a connection is idle, large while it is busy.
//!
//! Whole frames are handed on in one of two ways, so that a few small messages do not keep a large buffer alive:
//! a small part of the buffer is copied out, and reading goes on in place; a large part takes the buffer along, and
//! reading goes on in another one. A buffer comes back to the [`Pool`] when nobody shares it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
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
const COPY_MOST: usize = 16 << 10;

/// What has been read and not been cut into frames yet, with room for more.
#[derive(Debug)]
pub(crate) struct Input {
    pub bytes: BytesMut,
    /// How large the buffer should be.
    size: usize,
    most: usize,
    pool: Arc<Pool>,
}

/// Read buffers that are shared, and some that wait to be used again.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    spares: Mutex<Vec<BytesMut>>,
    /// How large a buffer must be to be used again; 0 while the connection is idle, and nothing is kept.
    wanted: AtomicUsize,
    /// The bytes of all buffers that somebody shares.
    pinned: AtomicUsize,
}

/// A buffer that frames share.
struct Pinned {
    bytes: BytesMut,
    size: usize,
    pool: Arc<Pool>,
}

impl Input {
    /// With what was read before.
    pub(crate) fn new(bytes: BytesMut, runtime: &RuntimeFlavor) -> Self {
        let most = if matches!(runtime, RuntimeFlavor::CurrentThread) { MOST_ON_ONE_THREAD } else { MOST };
        Self { bytes, size: LEAST, most, pool: Arc::default() }
    }

    /// How many bytes of memory are held by whoever shares what was read.
    pub(crate) fn pinned(&self) -> usize {
        self.pool.pinned.load(Ordering::Relaxed)
    }

    /// Takes the first `count` bytes out, which are whole frames, and tells how much memory they pin.
    pub(crate) fn take(&mut self, count: usize) -> (Bytes, usize) {
        if count == 0 {
            return (Bytes::new(), 0);
        }
        let held = self.bytes.capacity();
        let part = if count <= COPY_MOST && count <= held / 4 {
            let part = BytesMut::from(self.bytes.get(..count).unwrap_or_default());
            self.bytes.advance(count);
            part
        } else {
            let rest = self.bytes.get(count..).unwrap_or_default();
            let mut fresh = self.pool.buffer(rest.len() + self.size, self.size);
            fresh.extend_from_slice(rest);
            let mut part = std::mem::replace(&mut self.bytes, fresh);
            part.truncate(count);
            part
        };
        let size = part.capacity();
        self.pool.pinned.fetch_add(size, Ordering::Relaxed);
        (Bytes::from_owner(Pinned { bytes: part, size, pool: Arc::clone(&self.pool) }), size)
    }

    /// Makes room for the next read, and returns how much there is.
    pub(crate) fn make_room(&mut self) -> usize {
        if (self.bytes.is_empty() && !self.fits()) || self.room() < self.size / 4 {
            let needed = self.bytes.len() + self.size;
            if !self.fits() || !self.bytes.try_reclaim(self.size) {
                let mut fresh = self.pool.buffer(needed, self.size);
                fresh.extend_from_slice(&self.bytes);
                self.bytes = fresh;
            }
        }
        self.room()
    }

    /// Whether the buffer is as large as it should be: an idle connection keeps no large one.
    fn fits(&self) -> bool {
        let held = self.bytes.capacity();
        held >= self.size && (self.size > LEAST || held <= 4 * LEAST)
    }

    fn room(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    /// A read of `count` bytes had room for `room`.
    pub(crate) fn adapt(&mut self, count: usize, room: usize) {
        let before = self.size;
        if count >= room {
            self.size = (self.size * 2).min(self.most);
        } else if count < self.size / 4 && self.size > LEAST {
            self.size /= 2;
        }
        if self.size != before {
            self.pool.want(if self.size > LEAST { self.size } else { 0 });
        }
    }
}

impl Pool {
    /// An empty buffer with room for `needed` bytes; with room for what is left of a read, too, which moves along.
    fn buffer(&self, needed: usize, size: usize) -> BytesMut {
        let mut spares = self.spares.lock();
        match spares.iter_mut().position(|spare| spare.try_reclaim(needed)) {
            Some(at) => spares.swap_remove(at),
            None => BytesMut::with_capacity(needed.max(size + size / 4)),
        }
    }

    /// Keeps buffers of at least this size from now on; 0 for none.
    fn want(&self, size: usize) {
        self.wanted.store(size, Ordering::Relaxed);
        if size == 0 {
            *self.spares.lock() = Vec::new();
        }
    }
}

impl AsRef<[u8]> for Pinned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.pool.pinned.fetch_sub(self.size, Ordering::Relaxed);
        let wanted = self.pool.wanted.load(Ordering::Relaxed);
        if wanted > 0 && self.size >= wanted {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.clear();
            let mut spares = self.pool.spares.lock();
            if spares.len() < SPARES {
                spares.push(bytes);
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
        assert_eq!((input.size, input.pool.spares.lock().len()), (LEAST, 0));
        assert!(input.bytes.capacity() <= 4 * LEAST, "an idle connection keeps {}", input.bytes.capacity());
    }

    #[test]
    fn what_is_shared_stays_and_what_was_not_cut_moves_along() {
        let mut input = input();
        let (mut shared, mut total, mut pinned) = (Vec::new(), 0, 0);
        for n in 0..200 {
            total += read(&mut input, if n % 3 == 0 { 500 } else { usize::MAX });
            let (part, size) = input.take(input.bytes.len() - 5);
            pinned += size;
            shared.push(part);
        }
        let kept: usize = shared.iter().map(Bytes::len).sum();
        assert_eq!(kept + 5, total);
        assert!(shared.iter().all(|part| part.iter().all(|byte| *byte == 7)));
        assert_eq!(input.pinned(), pinned);
        drop(shared);
        assert_eq!(input.pinned(), 0);
        assert!(input.pool.spares.lock().len() <= SPARES);
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
