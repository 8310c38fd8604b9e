//! What became of a publish, on whatever link.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::robust_channel::ChannelInner;
use crate::error::Result;
use crate::single::SingleConfirm;

/// A publish under way, on whatever link. Cancel safe when polled by reference.
#[must_use = "await it to learn what became of the message"]
pub(crate) struct RobustConfirm {
    state: State,
}

enum State {
    /// The channel keeps the message, under this number.
    Kept(Arc<ChannelInner>, u64),
    /// Nobody does: it is as good as the link.
    Sent(SingleConfirm),
    Told,
}

impl RobustConfirm {
    pub(super) fn kept(channel: &Arc<ChannelInner>, sequence: u64) -> Self {
        Self { state: State::Kept(Arc::clone(channel), sequence) }
    }

    pub(super) fn plain(confirm: SingleConfirm) -> Self {
        Self { state: State::Sent(confirm) }
    }

    /// After this moment the message is not published again.
    pub(crate) fn expire_at(&self, moment: Instant) {
        if let State::Kept(channel, sequence) = &self.state {
            channel.lock().unconfirmed.expire_at(*sequence, moment.into_std());
        }
    }

    /// Nobody waits for the message any more, and it is not published again.
    pub(crate) fn withdraw(&mut self) {
        if let State::Kept(channel, sequence) = std::mem::replace(&mut self.state, State::Told) {
            channel.withdraw(sequence);
        }
    }

    /// The message's number on its channel; it stays when the message is published again. `None` without confirms, or once
    /// it was told.
    pub(crate) fn delivery_tag(&self) -> Option<u64> {
        match &self.state {
            State::Kept(_, sequence) => Some(*sequence),
            State::Sent(confirm) => confirm.delivery_tag(),
            State::Told => None,
        }
    }
}

impl Future for RobustConfirm {
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

impl Drop for RobustConfirm {
    fn drop(&mut self) {
        if let State::Kept(channel, sequence) = &self.state {
            channel.abandon(*sequence);
        }
    }
}

impl fmt::Debug for RobustConfirm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RobustConfirm").field("delivery_tag", &self.delivery_tag()).finish()
    }
}
