//! The writer: takes what waits under the lock, writes it outside, sends heartbeats.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::link_state::{Shared, Turn};

/// How long the last bytes may take once the connection has ended.
const LINGER: Duration = Duration::from_secs(2);

/// How long the writer lets more gather, while publishers are busy: the timer's finest step.
const GATHER: Duration = Duration::from_millis(1);

/// How long to sleep where there are no heartbeats.
const LONG: Duration = Duration::from_secs(3600);

/// The task that writes.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    /// One timer for the task's life, set again only when it has fired: writing does not touch it.
    heartbeat: Pin<Box<Sleep>>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let heartbeat = Box::pin(sleep_until(due(&shared, Instant::now())));
        Self { shared, heartbeat }
    }

    /// Runs until the connection has ended and everything is written, or cannot be.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            biased;
            written = self.write_all() => if let Err(error) = written {
                shared.write_failed(error);
            },
            () = async { shared.ended().await; sleep(LINGER).await } => {
                tracing::debug!("the last bytes could not be written in time");
            }
        }
        if let Some(mut pipe) = shared.remove_pipe() {
            drop(timeout(LINGER, pipe.stream.shutdown()).await);
        }
    }

    async fn write_all(&mut self) -> io::Result<()> {
        let mut back = None;
        let mut total = 0;
        loop {
            match self.shared.next_turn(back.take()) {
                Turn::Write(mut pipe) => {
                    let written = poll_fn(|context| pipe.poll_write(context)).await;
                    back = Some(pipe);
                    written?;
                }
                Turn::Gather => {
                    if timeout(GATHER, self.shared.to_write.notified()).await.is_err() {
                        total = self.shared.gathered(total);
                    }
                }
                Turn::Idle if self.shared.is_finished() => return Ok(()),
                Turn::Idle => self.idle().await,
            }
        }
    }

    /// Waits for something to write; when it is time, appends a heartbeat.
    async fn idle(&mut self) {
        tokio::select! {
            biased;
            () = self.shared.to_write.notified() => {}
            () = &mut self.heartbeat => {
                let last_write = self.shared.heartbeat_if_idle();
                self.heartbeat.as_mut().reset(due(&self.shared, last_write));
            }
        }
    }
}

impl Drop for Writer {
    /// However the task ends, the socket does not outlive it: also when the runtime shuts down.
    fn drop(&mut self) {
        drop(self.shared.remove_pipe());
    }
}

/// When to look whether a heartbeat is due.
fn due(shared: &Shared, last_write: Instant) -> Instant {
    shared.heartbeat.send_at(last_write.into_std()).map_or_else(|| Instant::now() + LONG, Instant::from_std)
}
