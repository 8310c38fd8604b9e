//! Messages that came back, on whatever link.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::robust_channel::ChannelInner;
use crate::single::{Returned, SingleChannel, SingleReturns};

/// How many messages wait from plain channels that have ended.
const MOST: usize = 1024;

/// The listeners of one channel.
#[derive(Debug, Default)]
pub(super) struct Hub(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    listeners: usize,
    current: Option<SingleReturns>,
    /// From plain channels that have ended.
    waiting: VecDeque<Returned>,
    /// Missed on plain channels that have ended.
    missed: u64,
    ended: bool,
    waker: Option<Waker>,
}

impl Hub {
    /// Listens on the next plain channel, if anybody listens here.
    pub(super) fn follow(&self, plain: &SingleChannel) {
        let mut state = self.lock();
        if state.listeners == 0 {
            return;
        }
        state.replace(Some(plain.returns()));
        wake(state);
    }

    /// The same for whoever has begun to listen since.
    pub(super) fn catch_up(&self, plain: &SingleChannel) {
        let is_missing = {
            let state = self.lock();
            state.listeners > 0 && state.current.is_none()
        };
        if is_missing {
            self.follow(plain);
        }
    }

    /// There will be no further plain channel.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        wake(state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn replace(&mut self, new: Option<SingleReturns>) {
        let Some(mut old) = std::mem::replace(&mut self.current, new) else { return };
        self.missed += old.missed();
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(returned)) = old.poll_next(&mut context) {
            self.waiting.push_back(returned);
        }
        while self.waiting.len() > MOST {
            self.waiting.pop_front();
            self.missed += 1;
        }
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Returned messages that no confirm tells of, on whatever link. Ends with the channel.
pub(crate) struct RobustReturns {
    channel: Arc<ChannelInner>,
}

impl RobustReturns {
    pub(super) fn new(channel: Arc<ChannelInner>) -> Self {
        let plain = channel.lock().life.phase().up().cloned();
        let mut state = channel.returns.lock();
        state.listeners += 1;
        if state.current.is_none() {
            state.current = plain.map(|plain| plain.returns());
        }
        drop(state);
        Self { channel }
    }

    /// How many messages had to go because nobody took them in time.
    pub(crate) fn missed(&self) -> u64 {
        let state = self.channel.returns.lock();
        state.missed + state.current.as_ref().map_or(0, SingleReturns::missed)
    }
}

impl RobustReturns {
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Returned>> {
        let mut state = self.channel.returns.lock();
        if let Some(returned) = state.waiting.pop_front() {
            return Poll::Ready(Some(returned));
        }
        if let Some(current) = &mut state.current {
            match current.poll_next(context) {
                Poll::Ready(Some(returned)) => return Poll::Ready(Some(returned)),
                Poll::Ready(None) => state.replace(None),
                Poll::Pending => {}
            }
        }
        if state.ended && state.current.is_none() {
            return Poll::Ready(None);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for RobustReturns {
    fn drop(&mut self) {
        let mut state = self.channel.returns.lock();
        state.listeners = state.listeners.saturating_sub(1);
        if state.listeners == 0 {
            state.replace(None);
            state.waiting.clear();
        }
    }
}

impl fmt::Debug for RobustReturns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RobustReturns").field("missed", &self.missed()).finish_non_exhaustive()
    }
}
