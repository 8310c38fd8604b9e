//! When the server was last heard.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Reading pauses: silence means nothing.
const PAUSED: u64 = u64::MAX;

/// The reader notes each read here; anybody may ask.
#[derive(Debug)]
pub(crate) struct Pulse {
    began: Instant,
    /// In milliseconds from `began`.
    last_read: AtomicU64,
    ended: OnceLock<Instant>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), last_read: AtomicU64::new(0), ended: OnceLock::new() }
    }

    /// Something was read.
    pub(super) fn read(&self, now: Instant) {
        let since = now.saturating_duration_since(self.began).as_millis();
        self.last_read.store(u64::try_from(since).unwrap_or(PAUSED), Ordering::Relaxed);
    }

    /// Nothing is read for a while.
    pub(super) fn pause(&self) {
        self.last_read.store(PAUSED, Ordering::Relaxed);
    }

    /// The connection has ended.
    pub(super) fn end(&self) {
        self.ended.get_or_init(Instant::now);
    }

    /// For how long nothing has come.
    pub(crate) fn silence(&self) -> Duration {
        match self.last_read.load(Ordering::Relaxed) {
            PAUSED => Duration::ZERO,
            read => self.began.elapsed().saturating_sub(Duration::from_millis(read)),
        }
    }

    /// For how long there has been the connection, or since when there is none any more.
    pub(crate) fn lasts(&self) -> Duration {
        self.ended.get().unwrap_or(&self.began).elapsed()
    }
}
