//! The methods of class `basic` that a consumer sends: qos, consume, cancel, get.

use std::sync::Arc;

use crate::codec::generated::basic as wire;
use crate::codec::{Arguments, ShortStr};

use super::broker_channel::{Consumer, ReplyTo, Unacked};
use super::broker_queue::{Queue, Subscription};
use super::queue_policy::consumer_priority;
use super::queues::count;
use super::refusal::{self, Refusal};
use super::state::{At, State};

/// The queue that stands for replies straight to a channel.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

impl State {
    /// As in `RabbitMQ`: without `global` for the consumers to come, with it for the whole channel.
    pub(super) fn qos(&mut self, at: At, qos: &wire::Qos) -> Result<(), Refusal> {
        if qos.prefetch_size != 0 {
            return Err(Refusal::not_implemented(format_args!("prefetch_size!=0 ({})", qos.prefetch_size)));
        }
        let channel = self.channel(at)?;
        if qos.global {
            channel.prefetch_global = qos.prefetch_count;
        } else {
            channel.prefetch = qos.prefetch_count;
            // as in RabbitMQ, it lifts the channel's limit
            channel.prefetch_global = 0;
        }
        self.reply(at, &wire::QosOk)?;
        self.pump_queues_of(at);
        Ok(())
    }

    pub(super) fn consume(&mut self, at: At, consume: wire::Consume) -> Result<(), Refusal> {
        let name = self.named(at, &consume.queue)?;
        let tag =
            if consume.consumer_tag.is_empty() { self.invent("amq.ctag-") } else { consume.consumer_tag };
        let channel = self.channel(at)?;
        let (prefetch, is_shared) = (channel.prefetch, channel.prefetch_global != 0);
        if channel.consumers.contains_key(&tag) {
            return Err(Refusal::not_allowed(format_args!("attempt to reuse consumer tag '{tag}'")));
        }
        if consume.queue.as_bytes() == REPLY_TO.as_bytes() {
            return self.consume_replies(at, tag, consume.no_ack, consume.no_wait);
        }
        let now = self.now;
        let vhost = self.vhost(at)?;
        let vhost_name = Arc::clone(&vhost.name);
        let queue = vhost.queue(at.connection, &name)?;
        let thing = refusal::queue(&vhost_name, &name);
        let priority = consumer_priority(&thing, queue.settings.kind, &consume.arguments)?;
        if is_shared && queue.is_quorum() {
            return Err(Refusal::not_implemented(format_args!("{thing} does not support global qos")));
        }
        // a quorum queue takes no notice of it, and a classic one with a single active consumer has none
        let exclusive = consume.exclusive && !queue.is_quorum();
        let in_use = queue.consumers().iter().any(|other| other.exclusive)
            || exclusive && (queue.settings.single_active || !queue.consumers().is_empty());
        if in_use {
            return Err(Refusal::access_refused(format_args!("{thing} in exclusive use")));
        }
        queue.last_used = now;
        queue.subscribe(Subscription { at, tag: tag.clone(), priority, exclusive });
        let consumer = Consumer { queue: name.clone(), no_ack: consume.no_ack, prefetch, unacked: 0 };
        self.channel(at)?.consumers.insert(tag.clone(), consumer);
        self.reply_unless(consume.no_wait, at, &wire::ConsumeOk { consumer_tag: tag })?;
        let place = self.place(at, &name)?;
        self.pump_soon(place);
        Ok(())
    }

    fn consume_replies(&mut self, at: At, tag: ShortStr, no_ack: bool, no_wait: bool) -> Result<(), Refusal> {
        if !no_ack {
            return Err(Refusal::precondition_failed("reply consumer cannot acknowledge"));
        }
        let address = self.invent(&format!("{REPLY_TO}."));
        let channel = self.channel(at)?;
        if channel.reply_to.is_some() {
            return Err(Refusal::precondition_failed("reply consumer already set"));
        }
        channel.reply_to = Some(ReplyTo { tag: tag.clone(), address });
        self.reply_unless(no_wait, at, &wire::ConsumeOk { consumer_tag: tag })
    }

    /// The channel that awaits replies at an address.
    pub(super) fn reply_channel(&self, address: &ShortStr) -> Option<(At, ReplyTo)> {
        // most names are of queues
        if !address.as_bytes().starts_with(REPLY_TO.as_bytes()) {
            return None;
        }
        self.connections.iter().find_map(|(id, connection)| {
            connection.channels.iter().find_map(|(number, channel)| {
                let reply_to = channel.reply_to.as_ref().filter(|reply_to| reply_to.address == *address)?;
                Some((At { connection: *id, channel: *number }, reply_to.clone()))
            })
        })
    }

    pub(super) fn cancel(&mut self, at: At, cancel: &wire::Cancel) -> Result<(), Refusal> {
        let tag = cancel.consumer_tag.clone();
        let channel = self.channel(at)?;
        if channel.reply_to.as_ref().is_some_and(|consumer| consumer.tag == tag) {
            channel.reply_to = None;
        }
        // what it has not acknowledged stays with the channel
        if let Some(consumer) = channel.consumers.remove(&tag) {
            self.unsubscribe(at, &tag, &consumer.queue);
        }
        self.reply_unless(cancel.no_wait, at, &wire::CancelOk { consumer_tag: tag })
    }

    pub(super) fn get(&mut self, at: At, get: &wire::Get) -> Result<(), Refusal> {
        let name = self.named(at, &get.queue)?;
        let place = self.place(at, &name)?;
        let now = self.now;
        let vhost = self.vhost(at)?;
        let thing = refusal::queue(&vhost.name, &name);
        let queue = vhost.queue(at.connection, &name)?;
        if queue.is_quorum() && queue.settings.single_active {
            return Err(Refusal::resource_locked(format_args!(
                "cannot obtain access to locked {thing}. basic.get operations are not supported by \
                 <<\"quorum\">> queues with single active consumer"
            )));
        }
        queue.last_used = now;
        self.bury_expired(&place);
        let found = self.queue_at(&place).and_then(Queue::pop);
        // nor does the count tell of what is over behind it
        self.bury_expired(&place);
        let queue = self.vhost(at)?.queue(at.connection, &name)?;
        let (queue_id, left) = (queue.id, count(queue.depth()));
        let mut answer = None;
        if let Some(entry) = found {
            if !get.no_ack {
                queue.unacked += 1;
            }
            answer = Some((entry.properties(queue), entry));
        }
        self.pump_soon(place);
        let Some((properties, entry)) = answer else { return self.reply(at, &wire::GetEmpty) };
        let message = Arc::clone(&entry.message);
        let channel = self.channel(at)?;
        let tag = channel.next_tag();
        let head = wire::GetOk {
            delivery_tag: tag,
            redelivered: entry.redelivered,
            exchange: message.exchange.clone(),
            routing_key: message.routing_key.clone(),
            message_count: left,
        };
        if !get.no_ack {
            channel.await_ack(Unacked { tag, queue: name, queue_id, consumer: None, entry });
        }
        self.reply_with(at, wire::GetOk::ID, |connection| {
            connection.put_content(at.channel, &head, &properties, &message.body);
        })
    }
}
