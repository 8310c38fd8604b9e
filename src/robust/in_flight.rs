//! Who is still at work: consumers that need acks, and what they have delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts tokens.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    count: AtomicUsize,
    gone: Notify,
}

/// Held by each consumer and its deliveries, until the last of them is dropped.
#[derive(Debug)]
pub(super) struct Token(Arc<InFlight>);

impl InFlight {
    pub(super) fn token(self: &Arc<Self>) -> Token {
        self.count.fetch_add(1, Ordering::Relaxed);
        Token(Arc::clone(self))
    }

    /// How many tokens there are.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until there are no tokens. Cancel safe.
    pub(super) async fn gone(&self) {
        loop {
            let mut gone = std::pin::pin!(self.gone.notified());
            // listens before it looks, so that no wake is missed
            gone.as_mut().enable();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            gone.await;
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::Release) == 1 {
            self.0.gone.notify_waiters();
        }
    }
}
