//! What became of a publish.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::{Error, ErrorKind, Result};
use crate::robust::RobustConfirm;
use crate::single::SingleConfirm;

/// A publish under way: awaited, it tells what became of the message.
///
/// `Ok`: the broker has taken responsibility, or the channel has no confirms. Errors:
/// [`ErrorKind::Nacked`] if it refused to, [`ErrorKind::Returned`] if the message was mandatory and reached no
/// queue (the error has it: [`Error::returned`]), [`ErrorKind::Unconfirmed`] if a
/// [`deadline`](super::Enqueue::deadline) passed first, or the reason why the channel ended before the broker
/// had answered: then it may have taken the message or not.
///
/// If a robust connection loses its link first, the message is published again, and this tells what becomes of that.
/// Without republishing ([`Options::republish`](crate::robust::Options::republish)) it then fails with the reason.
///
/// Dropped, the message is published all the same; only nobody is told, except by
/// [`Channel::wait_for_confirms`](super::Channel::wait_for_confirms).
///
/// # Cancel safety
/// Cancel safe when polled by reference.
#[must_use = "await it to learn what became of the message"]
pub struct Confirm {
    kind: Kind,
    deadline: Option<Box<Deadline>>,
}

enum Kind {
    Single(SingleConfirm),
    Robust(RobustConfirm),
}

/// Until when a confirm is waited for.
struct Deadline {
    /// As the user said it.
    limit: Duration,
    over: Pin<Box<Sleep>>,
    passed: bool,
}

impl Confirm {
    #[inline]
    pub(super) fn single(confirm: SingleConfirm) -> Self {
        Self { kind: Kind::Single(confirm), deadline: None }
    }

    #[inline]
    pub(super) fn robust(confirm: RobustConfirm) -> Self {
        Self { kind: Kind::Robust(confirm), deadline: None }
    }

    /// Waits no longer than until this moment, which is `limit` after the publish began. A robust connection publishes the
    /// message not again after it.
    pub(super) fn until(mut self, limit: Duration, moment: Instant) -> Self {
        if let Kind::Robust(confirm) = &self.kind {
            confirm.expire_at(moment);
        }
        self.deadline =
            Some(Box::new(Deadline { limit, over: Box::pin(sleep_until(moment)), passed: false }));
        self
    }

    /// The message's number on its channel: 1 for the first, then 2, … It stays when the message is published again.
    /// `None` without confirms, or once it was told.
    pub fn delivery_tag(&self) -> Option<u64> {
        match &self.kind {
            Kind::Single(confirm) => confirm.delivery_tag(),
            Kind::Robust(confirm) => confirm.delivery_tag(),
        }
    }

    /// The broker has not answered yet: whether the deadline has passed.
    #[cold]
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(deadline) = &mut self.deadline else { return Poll::Pending };
        if deadline.passed || deadline.over.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        deadline.passed = true;
        if let Kind::Robust(confirm) = &mut self.kind {
            confirm.withdraw();
        }
        let limit = deadline.limit.as_secs_f32();
        let text = format!(
            "the server did not confirm the message within its deadline of {limit} s; it may arrive, and is not \
             published again"
        );
        Poll::Ready(Err(Error::new(ErrorKind::Unconfirmed, text)))
    }
}

impl Future for Confirm {
    type Output = Result<()>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let told = match &mut self.kind {
            Kind::Single(confirm) => Pin::new(confirm).poll(context),
            Kind::Robust(confirm) => Pin::new(confirm).poll(context),
        };
        if told.is_pending() && self.deadline.is_some() { self.poll_deadline(context) } else { told }
    }
}

impl fmt::Debug for Confirm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Confirm").field("delivery_tag", &self.delivery_tag()).finish()
    }
}
