//! Messages that came back.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::channel::{Channel, Kind as ChannelKind};
use crate::robust::RobustReturns;
use crate::single::{Returned, SingleReturns};

/// The stream of returned messages that no [`Confirm`](super::Confirm) tells of; see [`Channel::returns`]. Ends with the
/// channel.
pub struct Returns {
    kind: Kind,
}

enum Kind {
    Single(SingleReturns),
    Robust(RobustReturns),
}

impl Returns {
    pub(super) fn of(channel: &Channel) -> Self {
        let kind = match &channel.kind {
            ChannelKind::Single(channel) => Kind::Single(channel.returns()),
            ChannelKind::Robust(channel) => Kind::Robust(channel.returns()),
        };
        Self { kind }
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
        match &self.kind {
            Kind::Single(returns) => returns.missed(),
            Kind::Robust(returns) => returns.missed(),
        }
    }
}

impl Stream for Returns {
    type Item = Returned;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Returned>> {
        match &mut self.kind {
            Kind::Single(returns) => returns.poll_next(context),
            Kind::Robust(returns) => returns.poll_next(context),
        }
    }
}

impl fmt::Debug for Returns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Returns").field("missed", &self.missed()).finish_non_exhaustive()
    }
}
