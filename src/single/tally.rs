//! What a connection has at work, and which acks came too late. A robust connection has one tally for all its links.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The counts of one connection.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Whether acks that come after the end of their channel are stale, instead of an error.
    pub stale: bool,
    /// How many acks were stale.
    pub stale_acks: AtomicU64,
    /// Consumers with deliveries to be acknowledged, and messages that were taken with `basic.get`.
    at_work: AtomicUsize,
    idle: Notify,
}

/// Counts as at work until it is dropped. Each consumer that needs acks shares one with all its deliveries.
#[derive(Debug)]
pub(crate) struct Token(Arc<Tally>);

impl Tally {
    /// For a connection that outlives its links: acks after the end of a link are stale.
    pub(crate) fn of_robust() -> Self {
        Self { stale: true, ..Self::default() }
    }

    pub(crate) fn token(self: &Arc<Self>) -> Token {
        self.at_work.fetch_add(1, Ordering::Relaxed);
        Token(Arc::clone(self))
    }

    /// How many tokens there are.
    pub(crate) fn at_work(&self) -> usize {
        self.at_work.load(Ordering::Relaxed)
    }

    /// Waits until there are no tokens. Cancel safe.
    pub(crate) async fn idle(&self) {
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            // listens before it looks, so that no wake is missed
            idle.as_mut().enable();
            if self.at_work.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if self.0.at_work.fetch_sub(1, Ordering::Release) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}
