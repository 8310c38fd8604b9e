//! The writer: swaps the outgoing buffer under the lock, writes it outside, sends heartbeats.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, sleep_until};

use super::dial::WriteHalf;
use super::shared::Shared;
use crate::mux::outgoing::Outgoing;

/// How many pieces one system call takes.
const SLICES: usize = 64;

/// How long the last bytes may take once the connection has ended.
const LINGER: Duration = Duration::from_secs(2);

/// The task that writes.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    stream: WriteHalf,
    batch: Outgoing,
    last_write: Instant,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, stream: WriteHalf) -> Self {
        Self { shared, stream, batch: Outgoing::default(), last_write: Instant::now() }
    }

    /// Runs until the connection has ended and everything is written, or cannot be.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            written = self.write_all() => if let Err(error) = written {
                // the reader ends the connection, once it has seen what the server says
                drop(shared.write_error.set(error));
                shared.closing.notify_one();
            },
            () = async { shared.ended().await; sleep(LINGER).await } => {
                tracing::debug!("the last bytes could not be written in time");
            }
        }
        drop(tokio::time::timeout(LINGER, self.stream.shutdown()).await);
    }

    async fn write_all(&mut self) -> io::Result<()> {
        loop {
            if self.take() {
                self.write_batch().await?;
                self.last_write = Instant::now();
            } else if self.shared.failure().is_some() {
                return Ok(());
            } else {
                self.idle().await;
            }
        }
    }

    /// Takes what waits; false if nothing does.
    fn take(&mut self) -> bool {
        self.batch.clear();
        std::mem::swap(&mut self.shared.lock().out, &mut self.batch);
        if self.batch.is_empty() {
            return false;
        }
        // while this batch is written, the next one is encoded
        self.shared.credit.notify_waiters();
        true
    }

    async fn write_batch(&mut self) -> io::Result<()> {
        let total = self.batch.len();
        let mut written = 0;
        while written < total {
            let Self { stream, batch, .. } = self;
            let count = poll_fn(|context| {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let used = batch.slices(written, &mut slices);
                Pin::new(&mut *stream).poll_write_vectored(context, slices.get(..used).unwrap_or_default())
            })
            .await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            written += count;
        }
        self.stream.flush().await
    }

    /// Waits for something to write; when it is time, writes a heartbeat.
    async fn idle(&mut self) {
        let due = self.shared.heartbeat.send_at(self.last_write.into_std()).map(Instant::from_std);
        tokio::select! {
            () = self.shared.to_write.notified() => {}
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                self.batch.release();
                let mut session = self.shared.lock();
                session.out.release();
                session.heartbeat();
            }
        }
    }
}
