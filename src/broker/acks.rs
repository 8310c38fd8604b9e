//! Acknowledgements: ack, nack, reject, recover.

use std::sync::Arc;

use crate::codec::generated::basic as wire;

use super::broker_channel::{Mode, Settle, Unacked};
use super::refusal::Refusal;
use super::state::{At, State};

impl State {
    pub(super) fn ack(&mut self, at: At, ack: &wire::Ack) -> Result<(), Refusal> {
        self.settle_tag(at, ack.delivery_tag, ack.multiple, Settle::Ack)
    }

    pub(super) fn nack(&mut self, at: At, nack: &wire::Nack) -> Result<(), Refusal> {
        let how = if nack.requeue { Settle::Return } else { Settle::Discard };
        self.settle_tag(at, nack.delivery_tag, nack.multiple, how)
    }

    pub(super) fn reject(&mut self, at: At, reject: &wire::Reject) -> Result<(), Refusal> {
        let how = if reject.requeue { Settle::Requeue } else { Settle::Reject };
        self.settle_tag(at, reject.delivery_tag, false, how)
    }

    fn settle_tag(&mut self, at: At, tag: u64, multiple: bool, how: Settle) -> Result<(), Refusal> {
        let channel = self.channel(at)?;
        let Some(deliveries) = channel.take(tag, multiple) else {
            return Err(Refusal::precondition_failed(format_args!("unknown delivery tag {tag}")));
        };
        if let Mode::Tx(transaction) = &mut channel.mode {
            transaction.settled.extend(deliveries.into_iter().map(|delivery| (delivery, how)));
            return Ok(());
        }
        self.settle_all(at, deliveries, how)
    }

    /// Settles deliveries, and hands out what there is room for now.
    pub(super) fn settle_all(
        &mut self,
        at: At,
        deliveries: Vec<Unacked>,
        how: Settle,
    ) -> Result<(), Refusal> {
        let vhost = Arc::clone(&self.connection(at.connection)?.vhost);
        let channel = self.channel(at)?;
        for delivery in &deliveries {
            channel.release(delivery);
        }
        // without a common limit only those queues have room that the deliveries came from
        if channel.prefetch_global != 0 {
            self.pump_queues_of(at);
        }
        self.settle(&vhost, deliveries, how);
        Ok(())
    }

    pub(super) fn recover(&mut self, at: At, requeue: bool) -> Result<(), Refusal> {
        self.recover_async(at, requeue)?;
        self.reply(at, &wire::RecoverOk)
    }

    pub(super) fn recover_async(&mut self, at: At, requeue: bool) -> Result<(), Refusal> {
        if !requeue {
            return Err(Refusal::not_implemented("requeue=false"));
        }
        let deliveries = self.channel(at)?.take(0, true).unwrap_or_default();
        self.settle_all(at, deliveries, Settle::Return)
    }
}
