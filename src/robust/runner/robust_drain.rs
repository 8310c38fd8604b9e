//! An end in order: consumers stop, and what is under way is finished.

use std::sync::Arc;

use super::robust_channel::RobustChannel;
use super::robust_state::Shared;
use crate::single::Waits;

impl RobustChannel {
    /// Counts a publish that waits to be handed over.
    pub(crate) fn publish_waits(&self) -> Waits {
        self.inner.shared().tally.publish_waits()
    }
}

/// Stops all consumers, and waits until all they have delivered is acknowledged or dropped, and all that was published
/// is handed over and confirmed.
pub(super) async fn drain(shared: &Arc<Shared>) {
    let channels = shared.channels();
    for channel in &channels {
        let consumers = std::mem::take(&mut channel.lock().consumers);
        shared.lock().topology.close_channel(channel.id);
        let cancelled: Vec<_> = channel.lock().cancelled.drain(..).filter_map(|old| old.upgrade()).collect();
        for consumer in cancelled.into_iter().chain(consumers) {
            // first, so that nothing starts it again
            consumer.end(None);
            if let Err(error) = consumer.cancel_sources().await {
                tracing::debug!(%error, "a consumer was not cancelled");
            }
        }
    }
    shared.tally.idle().await;
    shared.tally.handed_over().await;
    // those from before are still held, so they are among these
    for channel in shared.channels() {
        // an error: the channel has no confirms to wait for any more
        drop(channel.settled().await);
        if let Ok(live) = channel.live_now() {
            live.plain.flush().await;
        }
    }
}

/// What is not done yet, for the text of an error.
pub(super) fn left(shared: &Shared) -> String {
    let channels = shared.channels();
    let unconfirmed = channels.iter().map(|channel| {
        let mut core = channel.lock();
        core.unconfirmed.prune();
        core.unconfirmed.len()
    });
    let blocked = shared.blocked.borrow().clone();
    crate::single::left(unconfirmed.sum(), &shared.tally, blocked.as_ref())
}
