//! Starting a consumer again whose queue was gone.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::backoff::Backoff;
use super::restore::Restore;
use super::robust_channel::ChannelInner;
use super::robust_consumer::ConsumerInner;
use crate::codec::ShortStr;
use crate::error::{ErrorKind, Result, Scope};
use crate::single::{SingleChannel, SingleConnection, SingleConsumer};

/// How often it is tried.
const PACE: Backoff = Backoff::bounded(Duration::from_millis(100), Duration::from_secs(1));

/// Tries to start a consumer until its queue is there, on a plain channel of its own: so what fails closes only that.
/// With `declare` its queue is declared again if that was recorded. Starts over if the server closes that channel, which
/// nobody else watches. Ends when the consumer is not wanted any more, runs elsewhere, or its channel was
/// lost: then the restore does it.
pub(super) async fn revive(channel: Weak<ChannelInner>, consumer: Weak<ConsumerInner>, declare: bool) {
    let begun = channel.upgrade().map(|channel| (channel.lock().generation, channel.shared().pauses(PACE)));
    let Some((generation, mut pauses)) = begun else { return };
    loop {
        // holds nothing while it waits, so that dropped handles close
        tokio::time::sleep(pauses.next()).await;
        let (Some(channel), Some(consumer)) = (channel.upgrade(), consumer.upgrade()) else { return };
        if channel.lock().generation != generation {
            return;
        }
        if !consumer.lock().is_wanted() || consumer.lock().is_running() {
            return;
        }
        let Some((link, _)) = channel.shared().link() else { return };
        match start(&channel, &consumer, &link, declare).await {
            Ok(plain) => {
                let over = plain.channel().over();
                if !channel.install(&consumer, plain, generation) {
                    return;
                }
                tracing::info!(consumer_tag = %consumer.spec.method.consumer_tag, "a consumer is back");
                drop((channel, consumer, link));
                let error = over.await;
                if error.scope() != Scope::Channel || error.kind() == ErrorKind::Closed {
                    return;
                }
                tracing::warn!(%error, "the server closed a consumer's channel");
                pauses = PACE.pauses();
            }
            Err(error) => tracing::debug!(%error, "a consumer cannot be started yet"),
        }
    }
}

async fn start(
    channel: &Arc<ChannelInner>,
    consumer: &ConsumerInner,
    link: &SingleConnection,
    declare: bool,
) -> Result<SingleConsumer> {
    if declare {
        Restore::auto_delete(channel.shared(), link).await?;
    }
    let plain = link.channel(false, 0).await?;
    let spec = channel.spec(consumer);
    if declare {
        channel.declare_recorded(&plain, &spec.method.queue).await?;
    }
    plain.consume(spec).await
}

impl ChannelInner {
    /// Declares a queue again, as far as it was recorded, with its bindings.
    async fn declare_recorded(&self, plain: &SingleChannel, name: &ShortStr) -> Result<()> {
        let (declare, binds) = {
            let topology = &self.shared().lock().topology;
            let Some(queue) = topology.queue(name).filter(|queue| queue.server_named.is_none()) else {
                return Ok(());
            };
            let binds: Vec<_> =
                topology.queue_bindings().filter(|bind| bind.queue == *name).cloned().collect();
            (queue.declare.clone(), binds)
        };
        plain.request(declare).await?;
        for bind in binds {
            plain.request(bind).await?;
        }
        Ok(())
    }
}
