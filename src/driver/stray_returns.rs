//! Returned messages that belong to no publish that anybody awaits.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::mux::incoming_return::Returned;

/// How many returned messages wait for the user, at most. Beyond that the oldest goes, and is counted:
/// the reader never waits for the user.
const MOST: usize = 1024;

/// How many bytes of body wait, at most; one message always does.
const MOST_BYTES: usize = 16 << 20;

/// The returned messages of one channel. They are kept only while somebody listens.
#[derive(Debug, Default)]
pub(crate) struct Returns(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    listeners: usize,
    waiting: VecDeque<Returned>,
    bytes: usize,
    missed: u64,
    ended: bool,
    waker: Option<Waker>,
}

impl Returns {
    /// A message came back.
    pub(crate) fn push(&self, returned: Returned) {
        let mut state = self.lock();
        if state.listeners == 0 {
            tracing::warn!(
                exchange = %returned.exchange,
                routing_key = %returned.routing_key,
                "a mandatory message came back, and nobody listens"
            );
            return;
        }
        state.bytes += returned.body.len();
        state.waiting.push_back(returned);
        while state.waiting.len() > MOST || (state.bytes > MOST_BYTES && state.waiting.len() > 1) {
            if let Some(oldest) = state.waiting.pop_front() {
                state.bytes -= oldest.body.len();
                state.missed += 1;
            }
        }
        wake(state);
    }

    /// Somebody listens from now on.
    pub(crate) fn listen(&self) {
        self.lock().listeners += 1;
    }

    /// Somebody has stopped listening.
    pub(crate) fn unlisten(&self) {
        let mut state = self.lock();
        state.listeners = state.listeners.saturating_sub(1);
        if state.listeners == 0 {
            state.waiting.clear();
            state.bytes = 0;
        }
    }

    /// The channel is gone.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        wake(state);
    }

    /// How many had to go because nobody took them in time.
    pub(crate) fn missed(&self) -> u64 {
        self.lock().missed
    }

    /// The next one; `None` after the end.
    pub(crate) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Returned>> {
        let mut state = self.lock();
        if let Some(returned) = state.waiting.pop_front() {
            state.bytes -= returned.body.len();
            return Poll::Ready(Some(returned));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}
