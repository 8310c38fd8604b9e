//! Opening all channels again on a new link.

use std::pin::Pin;
use std::sync::Arc;

use super::restore_channel::Reopened;
use super::restore_topology::Learnt;
use super::robust_channel::ChannelInner;
use super::robust_state::Shared;
use super::side_by_side::side_by_side;
use crate::error::{Error, ErrorKind, Result};
use crate::single::SingleConnection;

/// How many channels are opened at the same time.
const AT_ONCE: usize = 500;

type Opening<'a> = Pin<Box<dyn Future<Output = Result<Reopened>> + Send + 'a>>;

/// The channels on a new link.
#[derive(Default)]
pub(super) struct Channels {
    /// Restored, and not released yet.
    pub reopened: Vec<Reopened>,
    /// To be tried again.
    pub later: Vec<(Arc<ChannelInner>, Error)>,
}

impl Channels {
    /// Opens all channels with their consumers, and then publishes again: a server that takes no publishes may wait for
    /// just these consumers. An error: the link is lost, or does not answer.
    pub(super) async fn reopen(
        &mut self,
        shared: &Shared,
        link: &SingleConnection,
        learnt: &Learnt,
    ) -> Result<()> {
        let opened = self.open(shared.channels(), link, learnt).await?;
        // no round trip each: messages are only handed over here
        for reopened in opened {
            let channel = Arc::clone(&reopened.channel);
            match reopened.published(link, learnt).await {
                Ok(reopened) => self.reopened.push(reopened),
                Err(error) => self.postpone(channel, error, link)?,
            }
        }
        Ok(())
    }

    /// Opens channels side by side, and returns them in their order: a round trip for each step, not for each channel.
    async fn open(
        &mut self,
        channels: Vec<Arc<ChannelInner>>,
        link: &SingleConnection,
        learnt: &Learnt,
    ) -> Result<Vec<Reopened>> {
        let at_once = if learnt.lock().one_by_one() { 1 } else { AT_ONCE.min(channels.len()) };
        learnt.lock().set_several(at_once > 1);
        let (mut opened, mut failed, mut crowded) = (Vec::new(), Vec::new(), Vec::new());
        let opening: Vec<Opening<'_>> = channels
            .iter()
            .map(|channel| Box::pin(Reopened::new(channel, link, learnt)) as Opening<'_>)
            .collect();
        let outcome = side_by_side(at_once, opening, |index, outcome| {
            match outcome {
                Ok(reopened) => opened.push((index, reopened)),
                Err(error) if is_fatal(&error, link) => return Err(error),
                // scratch channels of the others may have taken the last numbers
                Err(error) if error.kind() == ErrorKind::NoFreeChannel && at_once > 1 => crowded.push(index),
                Err(error) => failed.push((index, error)),
            }
            Ok(())
        })
        .await;
        learnt.lock().set_several(false);
        outcome?;
        for index in crowded {
            let Some(channel) = channels.get(index) else { continue };
            match Reopened::new(channel, link, learnt).await {
                Ok(reopened) => opened.push((index, reopened)),
                Err(error) if is_fatal(&error, link) => return Err(error),
                Err(error) => failed.push((index, error)),
            }
        }
        for (index, error) in failed {
            if let Some(channel) = channels.get(index) {
                self.postpone(Arc::clone(channel), error, link)?;
            }
        }
        opened.sort_unstable_by_key(|(index, _)| *index);
        Ok(opened.into_iter().map(|(_, reopened)| reopened).collect())
    }

    fn postpone(&mut self, channel: Arc<ChannelInner>, error: Error, link: &SingleConnection) -> Result<()> {
        if is_fatal(&error, link) {
            return Err(error);
        }
        tracing::warn!(%error, "a channel could not be opened again yet");
        self.later.push((channel, error));
        Ok(())
    }
}

/// Whether the link is lost, or does not answer.
fn is_fatal(error: &Error, link: &SingleConnection) -> bool {
    !link.is_open() || error.kind() == ErrorKind::Timeout
}
