//! Consumers: streams of deliveries.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::channel::Channel;
use super::worker::WorkerBuilder;
use crate::codec::generated::basic;
use crate::codec::{FieldValue, ShortStr};
use crate::error::Result;
use crate::robust::RobustConsumer;
use crate::single::{
    BoxFuture, Collected, ConsumeSpec, Delivery, Incoming, SingleConsumer, StreamOffset, short,
};

/// Starts a consumer when awaited; see [`Queue::consume`](super::Queue::consume).
#[derive(Clone, Debug)]
#[must_use = "a consumer is started when this is awaited"]
pub struct ConsumerBuilder<'a> {
    channel: &'a Channel,
    tag: Result<ShortStr>,
    spec: ConsumeSpec,
    arguments: Collected,
}

impl<'a> ConsumerBuilder<'a> {
    pub(super) fn new(channel: &'a Channel, queue: ShortStr) -> Self {
        let method = basic::Consume { queue, ..Default::default() };
        let spec = ConsumeSpec { prefetch: None, method };
        Self { channel, tag: Ok(ShortStr::empty()), spec, arguments: Collected::default() }
    }

    /// How many unacknowledged deliveries this consumer may have; 0 for no limit. What the channel says
    /// unless set: 250, or [`Channel::qos`].
    pub fn prefetch(mut self, deliveries: u16) -> Self {
        self.spec.prefetch = Some(deliveries);
        self
    }

    /// The server forgets each message as soon as it has sent it: faster, and what is under way is lost
    /// with the connection.
    pub fn no_ack(mut self) -> Self {
        self.spec.method.no_ack = true;
        self
    }

    /// Nobody else may consume from the queue; if somebody does, the server closes the channel with 403.
    pub fn exclusive(mut self) -> Self {
        self.spec.method.exclusive = true;
        self
    }

    /// Consumers with a higher priority get messages first; may be negative, 0 unless set.
    pub fn priority(self, priority: i32) -> Self {
        self.argument("x-priority", priority)
    }

    /// A name for the consumer, unique on its channel; the server makes one up unless set.
    pub fn tag(mut self, tag: impl TryInto<ShortStr>) -> Self {
        self.tag = short("the consumer tag", tag);
        self
    }

    /// Where in a stream to begin; with what is published from now on unless set. After a loss a robust consumer goes on
    /// behind the last message that it handed out, whether that was acknowledged or not. So does any consumer after
    /// [`Consumer::pause`].
    pub fn stream_offset(self, offset: StreamOffset) -> Self {
        self.argument("x-stream-offset", offset)
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

    /// Consumes with a handler instead of a stream: it gets each message as [`Incoming`], without the means to
    /// acknowledge; its `Ok` does that, an error or a panic rejects the message. See [`WorkerBuilder`].
    pub fn handle<F, R, E>(self, handler: F) -> WorkerBuilder<'a, F>
    where
        F: Fn(Incoming) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        WorkerBuilder::new(self, handler)
    }

    /// The queue that it consumes from; empty for the one that was declared last on the channel.
    pub(super) fn queue(&self) -> &ShortStr {
        &self.spec.method.queue
    }

    /// The channel that it consumes on.
    pub(super) fn channel(&self) -> &'a Channel {
        self.channel
    }
}

impl<'a> IntoFuture for ConsumerBuilder<'a> {
    type Output = Result<Consumer>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    /// Starts the consumer. A tag that is in use on the channel is an error, with nothing sent. Cancel
    /// safe: a consumer that nobody waits for any more is cancelled again.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let mut spec = self.spec;
            spec.method.consumer_tag = self.tag?;
            spec.method.arguments = self.arguments.finish()?;
            self.channel.consume(spec).await
        })
    }
}

/// A consumer: the stream of its deliveries.
///
/// On a robust connection it goes on after a loss. What was delivered before and not acknowledged comes again: what still
/// waited here is dropped, and an ack of what was handed out is [`Settled::Stale`](crate::Settled::Stale). If the server
/// cancels the consumer there, because its queue was deleted or moved, it starts again once the queue is there (see
/// [`Options::revive_consumers`](crate::robust::Options::revive_consumers)).
///
/// Deliveries that wait here and need acks are dropped when the channel ends or the server cancels the consumer, on plain
/// connections, too: the server has them back. A delivery that was handed out before tells by itself:
/// [`Delivery::stale`].
///
/// An item is an error only as the last one: when the server cancelled the consumer
/// ([`ErrorKind::ConsumerCancelled`](crate::ErrorKind::ConsumerCancelled)), or the channel or connection ended for good.
/// After a cancel or close by the user the stream just ends. The exception is
/// [`ErrorKind::MessageTooLarge`](crate::ErrorKind::MessageTooLarge): the message was rejected, and the stream goes on.
///
/// Dropped, the consumer is cancelled in the background, and what it had not handed out goes back to the queue.
///
/// ```no_run
/// # async fn example(queue: &lepus::Queue) -> lepus::Result<()> {
/// let mut deliveries = queue.consume().prefetch(100).await?;
/// while let Some(delivery) = deliveries.next().await {
///     let delivery = delivery?;
///     println!("{}: {:?}", delivery.routing_key(), delivery.body_str());
///     delivery.ack()?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Consumer {
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Single(SingleConsumer),
    Robust(RobustConsumer),
}

impl Consumer {
    /// The consumer's tag, also if the server made it up. It stays the same after a loss.
    pub fn tag(&self) -> &ShortStr {
        match &self.kind {
            Kind::Single(consumer) => consumer.tag(),
            Kind::Robust(consumer) => consumer.tag(),
        }
    }

    /// The next delivery; `None` once the consumer was cancelled, or its channel or connection closed.
    ///
    /// # Errors
    /// Once, as the last item, if something else ended the consumer for good. And with
    /// [`ErrorKind::MessageTooLarge`](crate::ErrorKind::MessageTooLarge) for each message above
    /// [`message_limit`](crate::ConnectOptions::message_limit), after which the stream goes on.
    ///
    /// # Cancel safety
    /// Cancel safe: no delivery is lost.
    #[expect(clippy::should_implement_trait, reason = "it is awaited, as the `next` of every stream")]
    #[inline]
    pub fn next(&mut self) -> impl Future<Output = Option<Result<Delivery>>> + Send {
        std::future::poll_fn(|context| self.poll_delivery(context))
    }

    /// Cancels the consumer: the server sends no more. What has come already can still be taken from the
    /// stream, which then ends.
    ///
    /// # Errors
    /// As [`Channel::call`]. On a robust connection only [`ErrorKind::Timeout`](crate::ErrorKind::Timeout), if the server
    /// does not answer in time: after a loss there is nothing to cancel.
    ///
    /// # Cancel safety
    /// Once it was sent, the consumer ends.
    pub async fn cancel(&mut self) -> Result<()> {
        match &mut self.kind {
            Kind::Single(consumer) => consumer.cancelling().await,
            Kind::Robust(consumer) => consumer.cancel().await,
        }
    }

    /// Cancels the consumer at the server until [`resume`](Self::resume), also across losses. What has come and was not
    /// handed out goes back to its queue; without acks it can still be taken. Then the stream waits. An auto-delete queue
    /// goes with its last consumer, also if that is only paused; a robust connection declares it again when it is resumed.
    ///
    /// # Errors
    /// As [`cancel`](Self::cancel).
    ///
    /// # Cancel safety
    /// Dropped before it is done, it goes on in the background.
    pub async fn pause(&mut self) -> Result<()> {
        match &mut self.kind {
            Kind::Single(consumer) => consumer.pause().await,
            Kind::Robust(consumer) => consumer.pause().await,
        }
    }

    /// Goes on after [`pause`](Self::pause); on a robust connection once there is a link. Does nothing if it is not
    /// paused, or was cancelled.
    ///
    /// # Errors
    /// As [`Queue::consume`](super::Queue::consume).
    ///
    /// # Cancel safety
    /// On a plain connection a consumer whose start nobody waits for stays paused. On a robust one it goes on in the
    /// background.
    pub async fn resume(&mut self) -> Result<()> {
        match &mut self.kind {
            Kind::Single(consumer) => consumer.resume().await,
            Kind::Robust(consumer) => consumer.resume().await,
        }
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        match &self.kind {
            Kind::Single(consumer) => consumer.is_paused(),
            Kind::Robust(consumer) => consumer.is_paused(),
        }
    }

    /// Changes how many unacknowledged deliveries the consumer may have while it runs; 0 for no limit. AMQP sets that at
    /// a consumer's start, so this is [`pause`](Self::pause) and [`resume`](Self::resume) in one: what has come and was not
    /// handed out goes back to its queue and is delivered again, perhaps to somebody else. A paused consumer stays paused,
    /// and resumes with this.
    ///
    /// # Errors
    /// As [`resume`](Self::resume).
    ///
    /// # Cancel safety
    /// Dropped before it is done, the consumer may stay paused.
    pub async fn set_prefetch(&mut self, deliveries: u16) -> Result<()> {
        let was_paused = self.is_paused();
        if !was_paused {
            self.pause().await?;
        }
        match &mut self.kind {
            Kind::Single(consumer) => consumer.set_prefetch(deliveries),
            Kind::Robust(consumer) => consumer.set_prefetch(deliveries),
        }
        if was_paused { Ok(()) } else { self.resume().await }
    }

    /// Most deliveries are at hand: those of a plain connection are taken in the caller's code.
    #[inline]
    fn poll_delivery(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Delivery>>> {
        let polled = match &mut self.kind {
            Kind::Single(consumer) if consumer.is_at_hand() => Ok(consumer.at_hand()),
            Kind::Single(consumer) => ready!(consumer.poll_at_hand(context)).map(|()| consumer.at_hand()),
            Kind::Robust(consumer) => ready!(consumer.poll_at_hand(context)),
        };
        Poll::Ready(match polled {
            Ok(at_hand) => at_hand.take().map(Ok),
            Err(end) => end.map(Err),
        })
    }
}

impl Stream for Consumer {
    type Item = Result<Delivery>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_delivery(context)
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("tag", self.tag()).finish_non_exhaustive()
    }
}
