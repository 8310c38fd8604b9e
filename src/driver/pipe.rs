//! The writing half of the socket, with the batch that is being written.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::dial::WriteHalf;
use crate::mux::outgoing::{Batch, Outgoing};

/// How many pieces one system call takes.
const SLICES: usize = 64;

/// Whoever holds the pipe writes. While nobody does it lies beside the session, under the same lock.
pub(crate) struct Pipe {
    pub stream: WriteHalf,
    batch: Batch,
    written: usize,
    /// How many bytes were written in all, modulo 2^64.
    pub total: u64,
    pub last_write: Instant,
}

impl Pipe {
    pub(crate) fn new(stream: WriteHalf) -> Self {
        Self { stream, batch: Batch::default(), written: 0, total: 0, last_write: Instant::now() }
    }

    /// Whether a part of the batch is still to be written.
    pub(crate) const fn is_unfinished(&self) -> bool {
        !self.batch.is_empty()
    }

    /// Takes what is to be written next. The batch before must be finished.
    pub(crate) fn load(&mut self, out: &mut Outgoing) {
        out.take(&mut self.batch);
    }

    /// How many bytes of the batch are still to be written.
    pub(crate) const fn rest(&self) -> usize {
        self.batch.len() - self.written
    }

    /// Gives memory back, for a connection that has gone idle.
    pub(crate) fn release(&mut self) {
        self.batch.release();
    }

    /// Writes the batch. Cancel safe: polled again later, by whomever, it goes on where it was.
    pub(crate) fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let total = self.batch.len();
        while self.written < total {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = self.batch.slices(self.written, &mut slices);
            let slices = slices.get(..used).unwrap_or_default();
            match ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.total = self.total.wrapping_add(total as u64);
        self.batch.clear();
        self.written = 0;
        self.last_write = Instant::now();
        Poll::Ready(Ok(()))
    }
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipe").field("unfinished", &self.is_unfinished()).finish_non_exhaustive()
    }
}
