//! Queues: where messages wait.

use std::fmt;
use std::future::IntoFuture;
use std::time::Duration;

use super::channel::Channel;
use super::consumer::ConsumerBuilder;
use super::exchange::Exchange;
use crate::codec::generated::{basic, queue};
use crate::codec::{FieldValue, ShortStr};
use crate::error::Result;
use crate::single::{
    BoxFuture, Collected, DeadLetterStrategy, Delivery, Name, Overflow, QueueType, count, millis, short,
};

/// A queue: a cheap handle, to be cloned and shared.
#[derive(Clone, Debug)]
pub struct Queue {
    channel: Channel,
    name: Name,
    message_count: u32,
    consumer_count: u32,
}

impl Queue {
    pub(crate) fn new(channel: Channel, name: ShortStr) -> Self {
        let name = channel.name(name);
        Self { channel, name, message_count: 0, consumer_count: 0 }
    }

    /// Its name, also if the server made it up. A robust connection gives a server-named queue a new name after a
    /// loss; this then returns that.
    pub fn name(&self) -> &ShortStr {
        self.name.get()
    }

    /// How many messages were ready for delivery when it was declared; 0 if it was not declared here.
    pub fn message_count(&self) -> u32 {
        self.message_count
    }

    /// How many consumers it had when it was declared; 0 if it was not declared here.
    pub fn consumer_count(&self) -> u32 {
        self.consumer_count
    }

    /// Binds the queue to an exchange: it gets the messages that the exchange takes for `routing_key`.
    pub fn bind(&self, exchange: &Exchange, routing_key: impl TryInto<ShortStr>) -> BindQueue<'_> {
        BindQueue::new(self, exchange, routing_key, false)
    }

    /// Removes a binding. One that does not exist counts as removed.
    pub fn unbind(&self, exchange: &Exchange, routing_key: impl TryInto<ShortStr>) -> BindQueue<'_> {
        BindQueue::new(self, exchange, routing_key, true)
    }

    /// Starts a consumer.
    pub fn consume(&self) -> ConsumerBuilder<'_> {
        ConsumerBuilder::new(&self.channel, self.name().clone())
    }

    /// Takes one message, if there is one.
    pub fn get(&self) -> Get<'_> {
        Get { queue: self, no_ack: false }
    }

    /// Drops all messages that are ready for delivery, and returns how many there were.
    ///
    /// # Errors
    /// As [`Channel::call`].
    ///
    /// # Cancel safety
    /// Once it was sent, the server acts on it.
    pub async fn purge(&self) -> Result<u32> {
        let method = queue::Purge { queue: self.name().clone(), no_wait: false };
        Ok(self.channel.request(method).await?.message_count)
    }

    /// Deletes the queue with its messages. One that does not exist counts as deleted.
    pub fn delete(&self) -> DeleteQueue<'_> {
        DeleteQueue { queue: self, if_unused: false, if_empty: false }
    }
}

/// Declares a queue when awaited; see [`Channel::declare_queue`].
#[derive(Clone, Debug)]
#[must_use = "a queue is declared when this is awaited"]
pub struct DeclareQueue<'a> {
    channel: &'a Channel,
    name: Result<ShortStr>,
    passive: bool,
    durable: Option<bool>,
    exclusive: bool,
    auto_delete: bool,
    arguments: Collected,
}

impl<'a> DeclareQueue<'a> {
    pub(crate) fn new(channel: &'a Channel, name: impl TryInto<ShortStr>) -> Self {
        let name = short("the queue's name", name);
        let exclusive = name.as_ref().is_ok_and(ShortStr::is_empty);
        Self {
            channel,
            name,
            passive: false,
            durable: None,
            exclusive,
            auto_delete: false,
            arguments: Collected::default(),
        }
    }

    /// Survives a restart of the server. Set for queues that are not exclusive.
    pub fn durable(mut self) -> Self {
        self.durable = Some(true);
        self
    }

    /// Does not survive a restart of the server. `RabbitMQ` from 4.3 on accepts this only together with
    /// [`exclusive`](Self::exclusive), and otherwise closes the connection.
    pub fn transient(mut self) -> Self {
        self.durable = Some(false);
        self
    }

    /// Only this connection may use it, and it goes with the connection. Set for queues without a name.
    pub fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Goes when its last consumer goes.
    pub fn auto_delete(mut self) -> Self {
        self.auto_delete = true;
        self
    }

    /// Only asks whether a queue with this name exists, and for its counts; everything else is ignored.
    /// If it does not, the server closes the channel with 404.
    pub fn passive(mut self) -> Self {
        self.passive = true;
        self
    }

    /// The kind of queue.
    pub fn queue_type(self, kind: QueueType) -> Self {
        self.argument("x-queue-type", kind)
    }

    /// A replicated queue.
    pub fn quorum(self) -> Self {
        self.queue_type(QueueType::Quorum)
    }

    /// An append-only log.
    pub fn stream(self) -> Self {
        self.queue_type(QueueType::Stream)
    }

    /// Messages that wait longer than this are dropped or dead-lettered; in whole milliseconds.
    pub fn message_ttl(self, ttl: Duration) -> Self {
        self.argument("x-message-ttl", millis(ttl))
    }

    /// The queue goes when it was not used for this long; in whole milliseconds, at least one.
    pub fn expires(self, after: Duration) -> Self {
        self.argument("x-expires", millis(after))
    }

    /// At most this many messages wait; see [`overflow`](Self::overflow).
    pub fn max_length(self, messages: u64) -> Self {
        self.argument("x-max-length", count(messages))
    }

    /// At most this many bytes of bodies wait; see [`overflow`](Self::overflow).
    pub fn max_length_bytes(self, bytes: u64) -> Self {
        self.argument("x-max-length-bytes", count(bytes))
    }

    /// What happens to messages beyond the limits.
    pub fn overflow(self, overflow: Overflow) -> Self {
        self.argument("x-overflow", overflow)
    }

    /// Messages that are rejected, expire or find no room go to this exchange.
    pub fn dead_letter_to(mut self, exchange: impl TryInto<ShortStr>) -> Self {
        self.arguments.set_name("x-dead-letter-exchange", exchange);
        self
    }

    /// They go there with this routing key instead of their own.
    pub fn dead_letter_routing_key(mut self, routing_key: impl TryInto<ShortStr>) -> Self {
        self.arguments.set_name("x-dead-letter-routing-key", routing_key);
        self
    }

    /// How sure dead-lettering is; quorum queues only.
    pub fn dead_letter_strategy(self, strategy: DeadLetterStrategy) -> Self {
        self.argument("x-dead-letter-strategy", strategy)
    }

    /// Messages have priorities from 0 to this; classic queues only.
    pub fn max_priority(self, priority: u8) -> Self {
        self.argument("x-max-priority", i64::from(priority))
    }

    /// One consumer gets all messages, until it goes and the next one takes over.
    pub fn single_active_consumer(self) -> Self {
        self.argument("x-single-active-consumer", true)
    }

    /// A message that came back more often than this is dropped or dead-lettered; quorum queues only, where
    /// 20 is the default from `RabbitMQ` 4.0 on.
    ///
    /// It comes back by `reject` and `nack` with requeue, and when its channel or connection ends. From 4.3 on a `nack` does
    /// not count: [`OnError::Requeue`](crate::OnError::Requeue) rejects, so that a handler that always fails has an end.
    pub fn delivery_limit(self, deliveries: u32) -> Self {
        self.argument("x-delivery-limit", i64::from(deliveries))
    }

    /// No limit to how often a message of a quorum queue comes back; see [`delivery_limit`](Self::delivery_limit). For `RabbitMQ`
    /// 4.0 and later: before that there is no limit unless one is set, and this would be one that is reached at once.
    pub fn unlimited_deliveries(self) -> Self {
        self.argument("x-delivery-limit", -1)
    }

    /// Messages older than this may go; streams only; in whole seconds.
    pub fn max_age(self, age: Duration) -> Self {
        self.argument("x-max-age", format!("{}s", age.as_secs()))
    }

    /// Any other argument. An integer that does not fit into an `i64` is an error when this is awaited.
    pub fn argument(
        mut self,
        name: impl TryInto<ShortStr>,
        value: impl TryInto<FieldValue, Error: fmt::Display>,
    ) -> Self {
        self.arguments.set(name, value);
        self
    }
}

impl<'a> IntoFuture for DeclareQueue<'a> {
    type Output = Result<Queue>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    /// Declares the queue. If it exists with other settings, the server closes the channel with 406; if
    /// it is exclusive to another connection, with 405.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let method = queue::Declare {
                queue: self.name?,
                passive: self.passive,
                durable: self.durable.unwrap_or(!self.exclusive),
                exclusive: self.exclusive,
                auto_delete: self.auto_delete,
                no_wait: false,
                arguments: self.arguments.finish()?,
            };
            let ok = self.channel.request(method).await?;
            // the name may be kept for long; the buffer that it was read into should not
            let queue = Queue::new(self.channel.clone(), ok.queue.detach());
            let (message_count, consumer_count) = (ok.message_count, ok.consumer_count);
            Ok(Queue { message_count, consumer_count, ..queue })
        })
    }
}

/// Binds a queue to an exchange, or removes the binding, when awaited.
#[derive(Clone, Debug)]
#[must_use = "nothing is bound until this is awaited"]
pub struct BindQueue<'a> {
    queue: &'a Queue,
    exchange: ShortStr,
    routing_key: Result<ShortStr>,
    arguments: Collected,
    unbind: bool,
}

impl<'a> BindQueue<'a> {
    fn new(queue: &'a Queue, exchange: &Exchange, routing_key: impl TryInto<ShortStr>, unbind: bool) -> Self {
        Self {
            queue,
            exchange: exchange.name().clone(),
            routing_key: short("the routing key", routing_key),
            arguments: Collected::default(),
            unbind,
        }
    }

    /// An argument of the binding, such as `x-match` and the headers for a headers exchange.
    pub fn argument(
        mut self,
        name: impl TryInto<ShortStr>,
        value: impl TryInto<FieldValue, Error: fmt::Display>,
    ) -> Self {
        self.arguments.set(name, value);
        self
    }
}

impl<'a> IntoFuture for BindQueue<'a> {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (queue, exchange, channel) = (self.queue.name().clone(), self.exchange, &self.queue.channel);
            let (routing_key, arguments) = (self.routing_key?, self.arguments.finish()?);
            if self.unbind {
                channel.request(queue::Unbind { queue, exchange, routing_key, arguments }).await?;
            } else {
                let method = queue::Bind { queue, exchange, routing_key, no_wait: false, arguments };
                channel.request(method).await?;
            }
            Ok(())
        })
    }
}

/// Deletes a queue when awaited, and returns how many messages it had; see [`Queue::delete`].
#[derive(Clone, Debug)]
#[must_use = "a queue is deleted when this is awaited"]
pub struct DeleteQueue<'a> {
    queue: &'a Queue,
    if_unused: bool,
    if_empty: bool,
}

impl DeleteQueue<'_> {
    /// Only if it has no consumers; otherwise the server closes the channel with 406, for a quorum queue
    /// the connection with 540.
    pub fn if_unused(mut self) -> Self {
        self.if_unused = true;
        self
    }

    /// Only if it has no messages; otherwise as with [`if_unused`](Self::if_unused).
    pub fn if_empty(mut self) -> Self {
        self.if_empty = true;
        self
    }
}

impl<'a> IntoFuture for DeleteQueue<'a> {
    type Output = Result<u32>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let method = queue::Delete {
                queue: self.queue.name().clone(),
                if_unused: self.if_unused,
                if_empty: self.if_empty,
                no_wait: false,
            };
            Ok(self.queue.channel.request(method).await?.message_count)
        })
    }
}

/// Takes one message from a queue when awaited; see [`Queue::get`].
#[derive(Clone, Debug)]
#[must_use = "a message is taken when this is awaited"]
pub struct Get<'a> {
    queue: &'a Queue,
    no_ack: bool,
}

impl Get<'_> {
    /// The server forgets the message as soon as it has sent it.
    pub fn no_ack(mut self) -> Self {
        self.no_ack = true;
        self
    }
}

impl<'a> IntoFuture for Get<'a> {
    type Output = Result<Option<Delivery>>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    /// Takes a message; `None` if the queue is empty. Dropped before it is done, the message may have been
    /// taken: then it stays unacknowledged until the channel closes.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let method = basic::Get { queue: self.queue.name().clone(), no_ack: self.no_ack };
            self.queue.channel.get(method).await
        })
    }
}
