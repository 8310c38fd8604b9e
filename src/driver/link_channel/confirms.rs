//! Publisher confirms of a channel: asking for one, and waiting for all.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::super::link_state::Shared;
use super::{ChannelLink, ChannelState};
use crate::error::Error;
use crate::mux::confirm_ring::{Confirms, Outcome};
use crate::mux::incoming_return::Returned;

/// The answer to a question about a confirm.
#[derive(Debug)]
pub(crate) enum Asked {
    Told(Outcome),
    /// Not settled yet. The waker is registered.
    Waits,
    /// The channel is ending. Another thread is about to store the final outcomes.
    Ending,
    /// The channel ended before the publish was settled.
    Ended,
}

impl ChannelLink {
    /// Polls the outcome of a publish.
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

    /// Like [`poll_confirm`](Self::poll_confirm), but leaves [`Asked::Ending`] to the caller instead of waking the task.
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

    /// Whether a publish is known to be acked. Takes no lock.
    fn is_acked(&self, number: u64) -> bool {
        number < self.acked_below()
    }

    /// All publishes with a lower number were acked, or their failure was reported. Takes no lock.
    pub(crate) fn acked_below(&self) -> u64 {
        self.state.acked_below.load(Ordering::Relaxed)
    }

    /// The number of the last publish.
    pub(crate) fn last_published(&self) -> Result<u64, Error> {
        self.with(|session, key| Ok(session.confirms(key)?.map_or(0, |confirms| confirms.next() - 1)))
    }

    /// Waits until everything up to `number` is settled. Returns the first failure that no `Confirm` has reported, and the
    /// count of such failures so far. `heard` is the count that the caller already knows.
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

    /// Waits until `done` returns an outcome, which it does once everything up to `number` is settled.
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

    /// The first failure of a publish whose `Confirm` was dropped. Each failure is returned once.
    pub(crate) fn take_failure(&self) -> Option<Outcome> {
        self.look(Confirms::take_abandoned).flatten()
    }

    /// Whether a publish whose `Confirm` was dropped is still unsettled.
    pub(crate) fn has_abandoned(&self) -> bool {
        self.look(|confirms| confirms.has_abandoned()).unwrap_or(false)
    }

    /// Takes all nacks and returns that were not reported yet; nobody else reports them afterwards.
    pub(crate) fn take_failures(&self) -> BTreeMap<u64, Outcome> {
        self.look(Confirms::take_failures).unwrap_or_default()
    }

    /// Waits until everything up to `number` is settled, and ignores failures.
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

    /// Runs `look` on the confirms, if the channel has any. They are in the session, or in the channel's state after its end.
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut Confirms<Waker>) -> T) -> Option<T> {
        look_at(self.shared(), &self.state, look)
    }

    /// Waits until a blocked publish may succeed. Registers when it is called, not when it is first polled.
    pub(crate) fn credit(&self) -> impl Future<Output = ()> + Send + '_ {
        let mut credit = Box::pin(self.shared().credit.notified());
        credit.as_mut().enable();
        credit
    }

    /// Like [`ask`](Self::ask), as a poll.
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
            // another thread has ended the session and is about to end this channel
            Asked::Ending => {
                waker.wake_by_ref();
                Poll::Pending
            }
            Asked::Ended => Poll::Ready(Err(self.end_reason())),
        }
    }

    /// Runs `ask` on the confirms: those in the session or, with `true`, those in the channel's state after its end. If the
    /// caller has to wait, what is gathering in the outgoing buffer is written now.
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
            // only a channel with confirms numbers its publishes
            Ok(None) => return Asked::Told(Outcome::Acked),
            Err(_) => drop(core),
        }
        let Some(confirms) = self.state.confirms.get() else { return Asked::Ending };
        let mut confirms = confirms.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = confirms.as_mut().and_then(|confirms| ask(confirms, true));
        outcome.map_or(Asked::Ended, Asked::Told)
    }

    /// The `Confirm` of this publish was dropped. A message that the server returned goes to the channel's returns.
    pub(crate) fn abandon_confirm(&self, number: u64) {
        if let Some(returned) = self.abandon(number) {
            self.state.returns.push(*returned);
        }
    }

    /// The `Confirm` of this publish was dropped. Returns the message if the server has already returned it.
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

/// Removes the waker of a task that stops waiting until everything up to a number is settled.
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
