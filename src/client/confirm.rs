//! What became of a publish.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::channel::ChannelInner;
use crate::error::{Error, ErrorKind, Result};
use crate::mux::confirms::Outcome;

/// A publish under way: awaited, it tells what became of the message.
///
/// `Ok`: the broker has taken responsibility, or the channel has no confirms. Errors:
/// [`ErrorKind::Nacked`] if it refused to, [`ErrorKind::Returned`] if the message was mandatory and reached no
/// queue (the error has it: [`Error::returned`]), or the reason why the channel ended before the broker
/// had answered: then it may have taken the message or not.
///
/// Dropped, the message is published all the same; only nobody is told, except by
/// [`Channel::wait_for_confirms`](super::Channel::wait_for_confirms).
///
/// # Cancel safety
/// Cancel safe when polled by reference.
#[must_use = "await it to learn what became of the message"]
pub struct Confirm {
    /// `None` once it was told, or where there is nothing to wait for.
    waiting: Option<(Arc<ChannelInner>, u64)>,
}

impl Confirm {
    #[inline]
    pub(super) fn new(channel: &Arc<ChannelInner>, number: Option<u64>) -> Self {
        Self { waiting: number.map(|number| (Arc::clone(channel), number)) }
    }

    /// The message's number on its channel: 1 for the first, then 2, … `None` without confirms, or once
    /// it was told.
    pub fn delivery_tag(&self) -> Option<u64> {
        self.waiting.as_ref().map(|(_, number)| *number)
    }
}

impl Future for Confirm {
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

impl Drop for Confirm {
    #[inline]
    fn drop(&mut self) {
        if let Some((channel, number)) = &self.waiting {
            channel.link.abandon_confirm(*number);
        }
    }
}

impl fmt::Debug for Confirm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Confirm").field("delivery_tag", &self.delivery_tag()).finish()
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
            let text = returned.text.to_string();
            Err(error.with_reply(returned.code, text, crate::codec::MethodId::NONE).with_returned(returned))
        }
    }
}
