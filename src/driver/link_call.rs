//! A call: a request to the server, and the wait for its answer.

use std::fmt;
use std::marker::PhantomData;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout;

use super::faults;
use super::link_state::{Shared, Urgency};
use super::waiters::{Answer, Driver, ReplyWaiter};
use crate::codec::{Method, MethodId};
use crate::error::Error;
use crate::mux::session::{Refusal, Session};

/// What is called, as errors name it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub method: MethodId,
    /// 0: it is the connection's.
    pub channel: u16,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, channel } = self;
        match channel {
            0 => write!(f, "{method}"),
            _ => write!(f, "{method} on channel {channel}"),
        }
    }
}

/// A call that was handed over for writing.
#[derive(Debug)]
pub(crate) struct Unanswered {
    answer: oneshot::Receiver<Result<Answer, Error>>,
    /// It is in a batch after this one.
    after: u64,
}

/// A call that was not answered in time, whose answer may still come. Holds nothing open.
#[derive(Debug)]
pub(crate) struct Late<R> {
    unanswered: Unanswered,
    reply: PhantomData<fn() -> R>,
}

impl<R: TryFrom<Method>> Late<R> {
    pub(super) fn new(unanswered: Unanswered) -> Self {
        Self { unanswered, reply: PhantomData }
    }

    /// Waits for the answer. `None`: the channel has ended without.
    pub(crate) async fn answer(self) -> Option<R> {
        match self.unanswered.answer.await {
            Ok(Ok(Answer::Method(method))) => R::try_from(method).ok(),
            Ok(Ok(Answer::GetOk(_)) | Err(_)) | Err(_) => None,
        }
    }
}

impl Shared {
    /// Hands a call over, with the turn that the caller holds, if its channel has turns.
    pub(crate) fn call<T>(
        &self,
        turn: Option<OwnedSemaphorePermit>,
        command: impl FnOnce(&mut Session<Driver>, ReplyWaiter) -> Result<T, Refusal>,
    ) -> Result<(T, Unanswered), Refusal> {
        let (waiter, answer) = ReplyWaiter::new(turn);
        let (result, after) = self.run(|session| {
            let result = command(session, waiter);
            ((result, session.out.taken()), Urgency::Now)
        });
        Ok((result?, Unanswered { answer, after }))
    }

    /// Waits for the answer, for as long as the user allows. After a time-out it may still come.
    pub(crate) async fn await_answer(
        &self,
        unanswered: &mut Unanswered,
        call: Call,
    ) -> Result<Answer, Error> {
        let Unanswered { answer, after } = unanswered;
        let limit = self.limits.rpc_timeout;
        let answered = if limit.is_zero() {
            answer.await
        } else {
            timeout(limit, answer).await.map_err(|_| {
                if self.is_sent(call.channel, *after) {
                    faults::unanswered(call, limit)
                } else {
                    faults::unsent(call, limit, self.unwritten())
                }
            })?
        };
        // dropped unanswered: the reader is gone
        answered.unwrap_or_else(|_| Err(self.end_reason()))
    }
}
