//! A call: one at a time on each channel, made again after a loss where that is harmless.

use tokio::sync::MutexGuard;
use tokio::time::Instant;

use super::channel::ChannelInner;
use super::live::Live;
use super::shared::{before, out_of_time};
use crate::error::{Error, Result};
use crate::protocol::MethodId;

/// A call that has its channel's turn, so that an error of the server belongs to it if it names its method.
#[derive(Debug)]
pub(super) struct Call<'a> {
    channel: &'a ChannelInner,
    method: MethodId,
    /// Whether it may be sent twice.
    again: bool,
    deadline: Option<Instant>,
    _turn: MutexGuard<'a, ()>,
}

impl<'a> Call<'a> {
    /// Waits for its turn, for as long as a call may take.
    pub(super) async fn begin(channel: &'a ChannelInner, method: MethodId, again: bool) -> Result<Self> {
        let deadline = channel.shared().deadline();
        let Some(turn) = before(deadline, channel.turn.lock()).await else { return Err(out_of_time(None)) };
        Ok(Self { channel, method, again, deadline, _turn: turn })
    }

    /// Waits for a plain channel to make it on.
    pub(super) async fn live(&self) -> Result<Live> {
        self.channel.live(self.deadline).await
    }

    /// It has failed there. `Ok`: it is to be made again.
    pub(super) fn failed(&self, live: &Live, error: Error) -> Result<()> {
        if !self.again || live.plain.is_open() || error.method() == Some(self.method) {
            return Err(error);
        }
        tracing::debug!(%error, "a call is made again on the next link");
        Ok(())
    }
}
