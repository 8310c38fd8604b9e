//! An end in order: consumers stop, and what is under way is finished.

use std::sync::Arc;

use super::shared::Shared;
use crate::client::carrier::private::Operations;

/// Stops all consumers, and waits until all they have delivered is acknowledged or dropped, and all that was published
/// is confirmed.
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
    shared.in_flight.gone().await;
    for channel in &channels {
        // an error: the channel has no confirms to wait for any more
        drop(channel.settled().await);
        if let Ok(live) = channel.live_now() {
            live.plain.flush().await;
        }
    }
}
