//! The plain channel behind a robust one: waiting for it, and its end.

use std::sync::Weak;
use std::task::Waker;

use tokio::time::Instant;

use super::robust_call::no_turn;
use super::robust_channel::{ChannelInner, Core};
use super::robust_state::{before, out_of_time};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::MethodId;
use crate::robust::ledger::lifecycle::{Incarnation, Phase};
use crate::single::SingleChannel;

/// A plain channel, and which one it is.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub plain: SingleChannel,
    pub incarnation: Incarnation,
}

impl ChannelInner {
    /// Waits for a plain channel that has not ended. An error: there will be none, or not in time.
    /// `sent`: how often that was done before for this call.
    pub(super) async fn live(&self, method: MethodId, sent: u32, deadline: Option<Instant>) -> Result<Live> {
        let mut is_first = true;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // listens before it looks, so that no wake is missed
            changed.as_mut().enable();
            let (number, is_retiring, why) = {
                let core = self.lock();
                let why = match core.life.phase() {
                    Phase::Up(plain) if plain.is_open() => {
                        return Ok(Live { plain: plain.clone(), incarnation: core.life.incarnation() });
                    }
                    Phase::Up(_) => None,
                    Phase::Down(error) | Phase::Retiring(_, error) => Some(error.clone()),
                    Phase::Ended(error) if is_first => return Err(error.earlier()),
                    Phase::Ended(error) => return Err(error.clone()),
                };
                (core.number, matches!(core.life.phase(), Phase::Retiring(..)), why)
            };
            is_first = false;
            if before(deadline, changed).await.is_none() {
                if is_retiring && sent == 0 {
                    return Err(no_turn(self, method));
                }
                let call = format_args!("{method} on channel {number}");
                return Err(out_of_time(call, sent, self.shared().settings.call_limit, why));
            }
        }
    }

    /// The plain channel, if there is one now; it may be retiring.
    pub(super) fn live_now(&self) -> Result<Live> {
        let core = self.lock();
        match core.life.phase() {
            Phase::Up(plain) | Phase::Retiring(plain, _) => {
                Ok(Live { plain: plain.clone(), incarnation: core.life.incarnation() })
            }
            Phase::Down(error) => Err(no_link(error.clone())),
            Phase::Ended(error) => Err(error.earlier()),
        }
    }

    /// Waits until the channel has ended for good.
    pub(super) async fn ended(&self) -> Error {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Phase::Ended(error) = self.lock().life.phase() {
                return error.clone();
            }
            changed.await;
        }
    }

    /// The plain channel has ended, and everything that it has settled is known. Returns false if that is not the one
    /// that is meant.
    pub(super) fn lost(&self, error: &Error, incarnation: Option<Incarnation>) -> bool {
        let (wakers, gone) = {
            let mut core = self.lock();
            if incarnation.is_some_and(|incarnation| incarnation != core.life.incarnation()) {
                return false;
            }
            let Some(plain) = core.life.lose(error) else { return false };
            let wakers = self.sort_out(&mut core, &plain, error);
            let gone: Vec<_> =
                core.consumers.iter().flat_map(|consumer| consumer.lock().link_lost()).collect();
            (wakers, gone)
        };
        drop(gone);
        wakers.into_iter().for_each(Waker::wake);
        self.changed.notify_waiters();
        true
    }

    /// Sorts out what a plain channel that has ended leaves to be done again. Returns who is to be told that it is
    /// settled, or will not be done.
    pub(super) fn sort_out(&self, core: &mut Core, plain: &SingleChannel, error: &Error) -> Vec<Waker> {
        self.keep_failure(core, plain, error);
        let given_up = core.unconfirmed.lost(error);
        if let Some(failure) = given_up.unheard {
            core.failure.get_or_insert(failure);
        }
        self.shared().release(core.unconfirmed.take_spare());
        given_up.wakers
    }

    /// What only `wait_for_confirms` can tell of a plain channel that has ended: a failure that no `Confirm` told, and what was
    /// under way without a `Confirm` where nobody publishes it again.
    fn keep_failure(&self, core: &mut Core, plain: &SingleChannel, error: &Error) {
        if let Err(failure) = plain.take_failure() {
            core.failure.get_or_insert(failure);
        }
        if !self.retains && plain.has_unheard() {
            core.failure.get_or_insert_with(|| error.clone());
        }
    }

    /// The channel ends for good. Returns the plain channel, if there was one.
    pub(super) fn end(&self, error: &Error) -> Option<SingleChannel> {
        let (main, given_up, consumers) = {
            let mut core = self.lock();
            if core.life.has_ended() {
                return None;
            }
            let main = core.life.end(error);
            if let Some(plain) = &main {
                self.keep_failure(&mut core, plain, error);
            }
            let given_up = core.unconfirmed.end(error);
            if given_up.any {
                core.failure.get_or_insert_with(|| error.clone());
            }
            self.shared().release(core.unconfirmed.take_spare());
            let cancelled = std::mem::take(&mut core.cancelled);
            let mut consumers = std::mem::take(&mut core.consumers);
            consumers.extend(cancelled.iter().filter_map(Weak::upgrade));
            (main, given_up, consumers)
        };
        for consumer in consumers {
            // after a close by the user streams just end
            let error = Some(error.clone()).filter(|error| error.kind() != ErrorKind::Closed);
            consumer.stop(error);
        }
        given_up.tell();
        self.changed.notify_waiters();
        self.returns.end();
        main
    }
}

/// There is no link at the moment, and the user does not want to wait for it.
pub(super) fn no_link(why: Error) -> Error {
    let text = "there is no connection at the moment; nothing was sent";
    Error::new(ErrorKind::NotSent, text).with_origin(why.origin()).with_source(why)
}
