//! What became of a publish on one connection.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::single_channel::SingleInner;
use crate::error::{Error, ErrorKind, Result};
use crate::mux::confirm_ring::Outcome;

/// A publish under way: awaited, it tells what became of the message. Dropped, the message is published all the same.
///
/// Cancel safe when polled by reference.
#[must_use = "await it to learn what became of the message"]
pub(crate) struct SingleConfirm {
    /// `None` once it was told, or where there is nothing to wait for.
    waiting: Option<(Arc<SingleInner>, u64)>,
}

impl SingleConfirm {
    #[inline]
    pub(super) fn new(channel: &Arc<SingleInner>, number: Option<u64>) -> Self {
        Self { waiting: number.map(|number| (Arc::clone(channel), number)) }
    }

    /// The message's number on its channel; `None` without confirms, or once it was told.
    pub(crate) fn delivery_tag(&self) -> Option<u64> {
        self.waiting.as_ref().map(|(_, number)| *number)
    }
}

impl Future for SingleConfirm {
    type Output = Result<()>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let Some((channel, number)) = &self.waiting else {
            return Poll::Ready(Ok(()));
        };
        let outcome = ready!(channel.link.poll_confirm(*number, context));
        self.waiting = None;
        Poll::Ready(outcome.and_then(told))
    }
}

impl Drop for SingleConfirm {
    #[inline]
    fn drop(&mut self) {
        if let Some((channel, number)) = &self.waiting {
            channel.link.abandon_confirm(*number);
        }
    }
}

impl fmt::Debug for SingleConfirm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleConfirm").field("delivery_tag", &self.delivery_tag()).finish()
    }
}

/// An outcome as the user sees it.
pub(super) fn told(outcome: Outcome) -> Result<()> {
    match outcome {
        Outcome::Acked => Ok(()),
        Outcome::Nacked => Err(Error::new(
            ErrorKind::Nacked,
            "the server refused to take the message (basic.nack): its queue may be full",
        )),
        Outcome::Returned(returned) => {
            let error = Error::new(ErrorKind::Returned, "no queue took the message, and it came back");
            let text = returned.text.to_string_lossy().into_owned();
            Err(error.with_reply(returned.code, text, crate::codec::MethodId::NONE).with_returned(returned))
        }
    }
}
