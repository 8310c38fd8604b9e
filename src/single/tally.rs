//! What a connection has at work, which publishes wait, and which acks came too late. A robust connection has one tally for
//! all its links.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// Publishes that are not handed over yet. One that is handed over at once is never among them.
    waiting: Mutex<Waiting>,
    /// Wakes a drain, once nothing is at work or a publish no longer waits.
    changed: Notify,
}

/// In the order in which they began to wait.
#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    numbers: BTreeSet<u64>,
}

/// A publish that waits to be handed over, until it is dropped.
#[derive(Debug)]
pub(crate) struct Waits {
    tally: Arc<Tally>,
    number: u64,
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
            let mut changed = std::pin::pin!(self.changed.notified());
            // listens before it looks, so that no wake is missed
            changed.as_mut().enable();
            if self.at_work.load(Ordering::Acquire) == 0 {
                return;
            }
            changed.await;
        }
    }

    /// A publish cannot be handed over at once.
    pub(crate) fn publish_waits(self: &Arc<Self>) -> Waits {
        let number = {
            let mut waiting = self.lock();
            let number = waiting.next;
            waiting.next += 1;
            waiting.numbers.insert(number);
            number
        };
        Waits { tally: Arc::clone(self), number }
    }

    /// How many publishes wait to be handed over.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().numbers.len()
    }

    /// Waits until all publishes that wait now are handed over, have failed, or were dropped. Cancel safe.
    pub(crate) async fn handed_over(&self) {
        let next = self.lock().next;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.lock().numbers.first().is_none_or(|first| *first >= next) {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.tally.lock().numbers.remove(&self.number);
        self.tally.changed.notify_waiters();
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if self.0.at_work.fetch_sub(1, Ordering::Release) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn is_done(future: impl Future<Output = ()>) -> bool {
        pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_drain_waits_for_the_publishes_that_wait_when_it_begins_and_for_no_later_ones() {
        let tally = Arc::new(Tally::default());
        assert!(is_done(tally.handed_over()));
        let (first, second) = (tally.publish_waits(), tally.publish_waits());
        let mut handed_over = pin!(tally.handed_over());
        let mut context = Context::from_waker(Waker::noop());
        assert!(handed_over.as_mut().poll(&mut context).is_pending());
        let later = tally.publish_waits();
        drop(second);
        assert!(handed_over.as_mut().poll(&mut context).is_pending());
        assert_eq!(tally.waiting(), 2);
        drop(first);
        assert!(handed_over.as_mut().poll(&mut context).is_ready());
        assert!(!is_done(tally.handed_over()));
        drop(later);
        assert!(is_done(tally.handed_over()));
    }
}
