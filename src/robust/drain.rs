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

/// What is not done yet, for the text of an error.
pub(super) fn left(shared: &Shared) -> String {
    let mut left = Vec::new();
    let channels = shared.channels();
    let unconfirmed = channels.iter().map(|channel| {
        let mut core = channel.lock();
        core.unconfirmed.prune();
        core.unconfirmed.len()
    });
    match unconfirmed.sum::<usize>() {
        0 => {}
        1 => left.push("1 publish is not confirmed".to_owned()),
        publishes => left.push(format!("{publishes} publishes are not confirmed")),
    }
    match shared.in_flight.count() {
        0 => {}
        1 => left.push("1 consumer has deliveries that are not acknowledged".to_owned()),
        consumers => left.push(format!("{consumers} consumers have deliveries that are not acknowledged")),
    }
    if let Some(reason) = &*shared.blocked.borrow() {
        left.push(format!("the server blocks publishers ({reason})"));
    }
    if left.is_empty() { "something was not written yet".to_owned() } else { left.join("; ") }
}
