//! Waiting for the confirms of a channel.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::super::shared::Shared;
use super::{ChannelLink, ChannelState};
use crate::error::Error;
use crate::mux::confirms::{Confirms, Outcome};
use crate::mux::returns::Returned;

/// What the confirms say.
#[derive(Debug)]
pub(crate) enum Asked {
    Told(Outcome),
    /// Whoever asked will be woken.
    Waits,
    /// The channel is ending; what was settled before is about to be known.
    Ending,
    /// The channel has ended before it was settled.
    Ended,
}

impl ChannelLink {
    /// Asks what became of a publish.
    pub(crate) fn poll_confirm(
        &self,
        number: u64,
        context: &mut Context<'_>,
    ) -> Poll<Result<Outcome, Error>> {
        if self.is_acked(number) {
            return Poll::Ready(Ok(Outcome::Acked));
        }
        self.polled(self.ask_confirm(number, context.waker()), context.waker())
    }

    /// Like [`poll_confirm`](Self::poll_confirm), but wakes nobody.
    pub(crate) fn ask_confirm(&self, number: u64, waker: &Waker) -> Asked {
        self.ask(|confirms, ended| match confirms.outcome(number) {
            Some(outcome) => Some(outcome),
            None if ended => None,
            None => {
                confirms.wait(number, waker.clone());
                None
            }
        })
    }

    /// Whether a publish is known to be acked, without the lock.
    fn is_acked(&self, number: u64) -> bool {
        number < self.acked_below()
    }

    /// All publishes with a lower number were acked, or their failure was told. Costs no lock.
    pub(crate) fn acked_below(&self) -> u64 {
        self.state.acked_below.load(Ordering::Relaxed)
    }

    /// The number of the last publish.
    pub(crate) fn last_published(&self) -> Result<u64, Error> {
        self.with(|session, key| Ok(session.confirms(key)?.map_or(0, |confirms| confirms.next() - 1)))
    }

    /// Waits until everything up to `number` is settled, and tells the first failure that no `Confirm` told, and how many
    /// there were by now. The caller has `heard` of so many before.
    pub(crate) async fn drained(&self, number: u64, heard: u64) -> Result<(Outcome, u64), Error> {
        let mut count = heard;
        let outcome = self.wait_drained(number, |confirms| {
            let (outcome, now) = confirms.drained(number, heard)?;
            count = now;
            Some(outcome)
        });
        let outcome = outcome.await?;
        Ok((outcome, count))
    }

    /// Waits until `done` tells something of the confirms, which it does when everything up to `number` is settled.
    async fn wait_drained(
        &self,
        number: u64,
        mut done: impl FnMut(&mut Confirms<Waker>) -> Option<Outcome>,
    ) -> Result<Outcome, Error> {
        let mut waiting = Waiting { channel: self, number, ticket: None };
        poll_fn(|context| {
            let waker = context.waker();
            self.poll_confirms(waker, |confirms, ended| {
                let outcome = done(confirms);
                if outcome.is_none() && !ended {
                    waiting.ticket = Some(confirms.wait_drained(number, waiting.ticket, waker.clone()));
                }
                outcome
            })
        })
        .await
    }

    /// All publishes with a lower number are settled.
    pub(crate) fn settled_below(&self) -> u64 {
        self.look(|confirms| confirms.base()).unwrap_or(0)
    }

    /// How many publishes are not settled.
    pub(crate) fn unconfirmed(&self) -> usize {
        self.look(|confirms| confirms.unsettled()).flatten().map_or(0, |(count, ..)| count)
    }

    /// Whether a publish is settled.
    pub(crate) fn is_settled(&self, number: u64) -> bool {
        self.look(|confirms| confirms.is_settled(number)).unwrap_or(false)
    }

    /// The first failure of a publish whose confirm was dropped; it is told once.
    pub(crate) fn take_failure(&self) -> Option<Outcome> {
        self.look(Confirms::take_abandoned).flatten()
    }

    /// Whether a publish is not settled whose confirm was dropped.
    pub(crate) fn has_abandoned(&self) -> bool {
        self.look(|confirms| confirms.has_abandoned()).unwrap_or(false)
    }

    /// What was nacked or returned, and not told yet: from now on nobody else tells it.
    pub(crate) fn take_failures(&self) -> BTreeMap<u64, Outcome> {
        self.look(Confirms::take_failures).unwrap_or_default()
    }

    /// Waits until everything up to `number` is settled; tells no failures.
    pub(crate) async fn settled(&self, number: u64) -> Result<(), Error> {
        let settled = |confirms: &mut Confirms<Waker>| (number < confirms.base()).then_some(Outcome::Acked);
        self.wait_drained(number, settled).await.map(drop)
    }

    /// Waits until any publish is settled. Listens from the call on, not from the first poll.
    pub(crate) fn any_settled(&self) -> AnySettled {
        let woken = Arc::new(Woken::default());
        let ticket = self.look(|confirms| confirms.wait_any(Waker::from(Arc::clone(&woken))));
        let (shared, state) = (Arc::clone(&self.link.shared), Arc::clone(&self.state));
        AnySettled { shared, state, ticket, woken }
    }

    /// Looks at the confirms, if there are any, wherever they are.
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut Confirms<Waker>) -> T) -> Option<T> {
        look_at(self.shared(), &self.state, look)
    }

    /// Waits until a publish that had to wait may succeed. Listens from the call on, not from the first poll.
    pub(crate) fn credit(&self) -> impl Future<Output = ()> + Send + '_ {
        let mut credit = Box::pin(self.shared().credit.notified());
        credit.as_mut().enable();
        credit
    }

    /// As [`ask`](Self::ask), for whoever polls.
    fn poll_confirms(
        &self,
        waker: &Waker,
        ask: impl FnOnce(&mut Confirms<Waker>, bool) -> Option<Outcome>,
    ) -> Poll<Result<Outcome, Error>> {
        self.polled(self.ask(ask), waker)
    }

    fn polled(&self, asked: Asked, waker: &Waker) -> Poll<Result<Outcome, Error>> {
        match asked {
            Asked::Told(outcome) => Poll::Ready(Ok(outcome)),
            Asked::Waits => Poll::Pending,
            // another thread is about to tell: it has ended the session, and not yet this channel
            Asked::Ending => {
                waker.wake_by_ref();
                Poll::Pending
            }
            Asked::Ended => Poll::Ready(Err(self.end_reason())),
        }
    }

    /// Asks the confirms, wherever they are: in the session, or behind it after the channel's end.
    fn ask(&self, ask: impl FnOnce(&mut Confirms<Waker>, bool) -> Option<Outcome>) -> Asked {
        let mut core = self.shared().lock();
        match core.confirms(self.state.key) {
            Ok(Some(confirms)) => {
                if let Some(outcome) = ask(confirms, false) {
                    return Asked::Told(outcome);
                }
                self.shared().push(core);
                return Asked::Waits;
            }
            // numbers are given out only where confirms are on
            Ok(None) => return Asked::Told(Outcome::Acked),
            Err(_) => drop(core),
        }
        let Some(confirms) = self.state.confirms.get() else { return Asked::Ending };
        let mut confirms = confirms.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = confirms.as_mut().and_then(|confirms| ask(confirms, true));
        outcome.map_or(Asked::Ended, Asked::Told)
    }

    /// Nobody waits for this publish any more.
    pub(crate) fn abandon_confirm(&self, number: u64) {
        if let Some(returned) = self.abandon(number) {
            self.state.returns.push(*returned);
        }
    }

    /// Nobody waits for this publish any more. Gives the message back if it has come back before.
    pub(crate) fn abandon(&self, number: u64) -> Option<Box<Returned>> {
        if self.is_acked(number) {
            return None;
        }
        match self.shared().lock().confirms(self.state.key) {
            Ok(Some(confirms)) => confirms.abandon(number),
            _ => None,
        }
    }
}

fn look_at<T>(
    shared: &Shared,
    state: &ChannelState,
    look: impl FnOnce(&mut Confirms<Waker>) -> T,
) -> Option<T> {
    let mut session = shared.lock();
    match session.confirms(state.key) {
        Ok(confirms) => return confirms.map(look),
        Err(_) => drop(session),
    }
    state.confirms.get()?.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(look)
}

/// Waits until any publish of a channel is settled; an error: the channel has ended. Holds nothing open. Dropped, it takes
/// its waker back.
#[derive(Debug)]
pub(crate) struct AnySettled {
    shared: Arc<Shared>,
    state: Arc<ChannelState>,
    ticket: Option<u64>,
    woken: Arc<Woken>,
}

impl AnySettled {
    fn told(&self) -> Option<Result<(), Error>> {
        match self.state.error() {
            Some(error) => Some(Err(error.clone())),
            None => (self.ticket.is_none() || self.woken.is_set()).then_some(Ok(())),
        }
    }
}

impl Future for AnySettled {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Some(told) = self.told() {
            return Poll::Ready(told);
        }
        self.woken.register(context.waker());
        // woken in between
        self.told().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for AnySettled {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            look_at(&self.shared, &self.state, |confirms| confirms.forget_any(ticket));
        }
    }
}

/// Remembers that it was woken, and wakes whoever polls.
#[derive(Debug, Default)]
struct Woken {
    set: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Woken {
    fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    fn register(&self, waker: &Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.set.store(true, Ordering::Release);
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A task that waits until everything up to a number is settled. Dropped, it takes its waker back.
struct Waiting<'a> {
    channel: &'a ChannelLink,
    number: u64,
    ticket: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.channel.look(|confirms| confirms.forget_drained(self.number, ticket));
        }
    }
}
