//! What became of a publish, on whatever link.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::channel::ChannelInner;
use crate::client::Confirm as Plain;
use crate::error::Result;

/// A publish under way: awaited, it tells what became of the message. See [`Confirm`](crate::Confirm).
///
/// If the link is lost first, the message is published again, and this tells what becomes of that. Without
/// republishing ([`Options::republish`](super::Options::republish)) it then fails with the reason.
///
/// # Cancel safety
/// Cancel safe when polled by reference.
#[must_use = "await it to learn what became of the message"]
pub struct Confirm {
    state: State,
}

enum State {
    /// The channel keeps the message, under this number.
    Kept(Arc<ChannelInner>, u64),
    /// Nobody does: it is as good as the link.
    Sent(Plain),
    Told,
}

impl Confirm {
    pub(super) fn kept(channel: &Arc<ChannelInner>, sequence: u64) -> Self {
        Self { state: State::Kept(Arc::clone(channel), sequence) }
    }

    pub(super) fn plain(confirm: Plain) -> Self {
        Self { state: State::Sent(confirm) }
    }

    /// The message's number on its channel: 1 for the first, then 2, … It stays when the message is published again.
    /// `None` without confirms, or once it was told.
    pub fn delivery_tag(&self) -> Option<u64> {
        match &self.state {
            State::Kept(_, sequence) => Some(*sequence),
            State::Sent(confirm) => confirm.delivery_tag(),
            State::Told => None,
        }
    }
}

impl Future for Confirm {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let told = match &mut self.state {
            State::Kept(channel, sequence) => ready!(channel.poll_confirm(*sequence, context)),
            State::Sent(confirm) => ready!(Pin::new(confirm).poll(context)),
            State::Told => Ok(()),
        };
        self.state = State::Told;
        Poll::Ready(told)
    }
}

impl Drop for Confirm {
    fn drop(&mut self) {
        if let State::Kept(channel, sequence) = &self.state {
            channel.abandon(*sequence);
        }
    }
}

impl fmt::Debug for Confirm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Confirm").field("delivery_tag", &self.delivery_tag()).finish()
    }
}
