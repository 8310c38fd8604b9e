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
        for consumer in consumers {
            // first, so that nothing starts it again
            consumer.end(None);
            for mut plain in consumer.take() {
                if let Err(error) = plain.cancel().await {
                    // lost: then there is nothing to cancel
                    tracing::debug!(%error, "a consumer was not cancelled");
                }
                // dropped, it gives back what nobody has seen
            }
        }
    }
    shared.tokens_gone().await;
    for channel in &channels {
        // an error: the channel has no confirms to wait for any more
        drop(channel.settled().await);
        if let Ok(live) = channel.live_now() {
            live.plain.flush().await;
        }
    }
}
