//! What a consumer that goes away leaves to be done.

use std::sync::Arc;

use super::delivery_queue::{DeliveryQueue, End, Farewell};
use super::link_state::Shared;
use crate::codec::generated::basic;
use crate::mux::ids::ChannelKey;

impl Shared {
    /// Gives deliveries back that nobody has looked at: the server delivers them again.
    pub(crate) fn give_back(&self, key: ChannelKey, tags: &[u64]) {
        if tags.is_empty() {
            return;
        }
        self.with(|session| {
            for delivery_tag in tags {
                let nack = basic::Nack { delivery_tag: *delivery_tag, multiple: false, requeue: true };
                if session.settle(key, &nack).is_err() {
                    // the channel has ended, and with it the server takes all of them back; or it does not read
                    break;
                }
            }
        });
    }

    /// Does what a consumer that goes away must still do.
    pub(crate) fn farewell(&self, queue: &Arc<DeliveryQueue>, farewell: Farewell) {
        let key = queue.channel();
        match farewell {
            Farewell::Wait => {}
            Farewell::GiveBack(tags) => self.give_back(key, &tags),
            Farewell::Cancel(tag) => {
                // refused: the channel has ended, and the consumer with it
                let _refused = self.with(|session| session.cancel(key, &tag, queue, None));
            }
        }
    }

    /// Ends a consumer's stream.
    pub(crate) fn end_consumer(&self, queue: &DeliveryQueue, end: End) {
        let left = queue.end(end);
        self.give_back(queue.channel(), &left);
    }
}
