//! A call: one at a time on each channel, made again after a loss where that is harmless.

use tokio::sync::MutexGuard;
use tokio::time::Instant;

use super::current_channel::Live;
use super::robust_channel::ChannelInner;
use super::robust_state::{before, out_of_time};
use super::unanswered_calls::Later;
use crate::error::{Error, ErrorKind, Result, Scope};
use crate::protocol::MethodId;
use crate::robust::ledger::lifecycle::Phase;

/// A call that has its channel's turn, so that an error of the server belongs to it if it names its method.
#[derive(Debug)]
pub(super) struct Call<'a> {
    channel: &'a ChannelInner,
    method: MethodId,
    /// Whether it may be sent twice.
    again: bool,
    /// Whether the whole connection was closed because of a method like this.
    accused: bool,
    /// How often it was sent, and its answer lost.
    sent: u32,
    deadline: Option<Instant>,
    _turn: MutexGuard<'a, ()>,
}

impl<'a> Call<'a> {
    /// Waits for its turn, for as long as a call may take.
    pub(super) async fn begin(channel: &'a ChannelInner, method: MethodId, again: bool) -> Result<Self> {
        let deadline = channel.shared().deadline();
        let Some(turn) = before(deadline, channel.turn.lock()).await else {
            return Err(no_turn(channel, method));
        };
        Ok(Self { channel, method, again, accused: false, sent: 0, deadline, _turn: turn })
    }

    /// Waits for a plain channel to make it on.
    pub(super) async fn live(&self) -> Result<Live> {
        self.channel.live(self.method, self.sent, self.deadline).await
    }

    /// It was not answered in time there, and may still be: see [`ChannelInner::answered_later`]. An error: this one.
    pub(super) fn unanswered(&self, live: &Live, error: Error, later: Later) -> Result<()> {
        self.channel.unanswered(live, &error, Some(later));
        Err(error)
    }

    /// It has failed there. `Ok`: it is to be made again.
    pub(super) fn failed(&mut self, live: &Live, error: Error) -> Result<()> {
        self.channel.unanswered(live, &error, None);
        if !self.again || live.plain.is_open() || error.scope() == Scope::Call {
            return Err(error);
        }
        if error.method() == Some(self.method) {
            // where the whole connection was closed, another channel's call may be to blame: once
            if error.scope() == Scope::Channel || self.accused {
                return Err(error);
            }
            self.accused = true;
        }
        self.sent += 1;
        tracing::debug!(%error, "a call is made again on the next link");
        Ok(())
    }
}

/// Earlier calls on the channel took too long: because there is no link, or because the server does not answer.
pub(super) fn no_turn(channel: &ChannelInner, method: MethodId) -> Error {
    let limit = channel.shared().settings.call_limit;
    let core = channel.lock();
    let call = format_args!("{method} on channel {}", core.number);
    if let Phase::Down(why) = core.life.phase() {
        return out_of_time(call, 0, limit, Some(why.clone()));
    }
    let limit = limit.unwrap_or_default().as_secs_f32();
    let text =
        format!("{call}: not sent, because the server did not answer an earlier call there within {limit} s");
    Error::new(ErrorKind::Timeout, text)
}
