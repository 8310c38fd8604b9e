//! Messages that came back, on whatever link.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;

use super::channel::ChannelInner;
use super::shared::Phase;
use crate::client::{Channel as Plain, Returned, Returns as PlainReturns};

/// How many messages wait from plain channels that have ended.
const MOST: usize = 1024;

/// The listeners of one channel.
#[derive(Debug, Default)]
pub(super) struct Hub(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    listeners: usize,
    current: Option<PlainReturns>,
    /// From plain channels that have ended.
    waiting: VecDeque<Returned>,
    /// Missed on plain channels that have ended.
    missed: u64,
    ended: bool,
    waker: Option<Waker>,
}

impl Hub {
    /// Listens on the next plain channel, if anybody listens here.
    pub(super) fn follow(&self, plain: &Plain) {
        let mut state = self.lock();
        if state.listeners == 0 {
            return;
        }
        state.replace(Some(plain.returns()));
        wake(state);
    }

    /// The same for whoever has begun to listen since.
    pub(super) fn catch_up(&self, plain: &Plain) {
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
    fn replace(&mut self, new: Option<PlainReturns>) {
        let Some(mut old) = std::mem::replace(&mut self.current, new) else { return };
        self.missed += old.missed();
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(returned)) = Pin::new(&mut old).poll_next(&mut context) {
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

/// The stream of returned messages that no [`Confirm`](super::Confirm) tells of, on whatever link; see
/// [`Channel::returns`](super::Channel::returns). Ends with the channel.
pub struct Returns {
    channel: Arc<ChannelInner>,
}

impl Returns {
    pub(super) fn new(channel: Arc<ChannelInner>) -> Self {
        let plain = match &channel.lock().phase {
            Phase::Up(plain) => Some(plain.clone()),
            Phase::Down(_) | Phase::Ended(_) => None,
        };
        let mut state = channel.returns.lock();
        state.listeners += 1;
        if state.current.is_none() {
            state.current = plain.map(|plain| plain.returns());
        }
        drop(state);
        Self { channel }
    }

    /// The next one; `None` once the channel has ended for good.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Returned> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// How many messages had to go because nobody took them in time.
    pub fn missed(&self) -> u64 {
        let state = self.channel.returns.lock();
        state.missed + state.current.as_ref().map_or(0, PlainReturns::missed)
    }
}

impl Stream for Returns {
    type Item = Returned;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Returned>> {
        let mut state = self.channel.returns.lock();
        if let Some(returned) = state.waiting.pop_front() {
            return Poll::Ready(Some(returned));
        }
        if let Some(current) = &mut state.current {
            match Pin::new(current).poll_next(context) {
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

impl Drop for Returns {
    fn drop(&mut self) {
        let mut state = self.channel.returns.lock();
        state.listeners = state.listeners.saturating_sub(1);
        if state.listeners == 0 {
            state.replace(None);
            state.waiting.clear();
        }
    }
}

impl fmt::Debug for Returns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Returns").field("missed", &self.missed()).finish_non_exhaustive()
    }
}
