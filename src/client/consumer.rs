//! Consumers: streams of deliveries.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::arguments::{Collected, StreamOffset};
use super::carrier::private::Deliveries;
use super::carrier::{BoxFuture, Carrier};
use super::channel::{Channel, ChannelInner, short};
use super::delivery::{Acks, Delivery, Incoming, Token};
use super::worker::Handle;
use crate::codec::generated::basic;
use crate::codec::peer_text::PeerText;
use crate::codec::{FieldValue, ShortStr};
use crate::driver::queue::{DeliveryQueue, End};
use crate::error::{Error, ErrorKind, Result};
use crate::mux::delivery::Delivery as Raw;

/// What a consumer is started with.
#[derive(Clone, Debug)]
pub struct ConsumeSpec {
    /// `None`: as the channel says.
    pub(crate) prefetch: Option<u16>,
    pub(crate) method: basic::Consume,
}

/// Starts a consumer when awaited; see [`Queue::consume`](super::Queue::consume).
#[derive(Clone, Debug)]
#[must_use = "a consumer is started when this is awaited"]
pub struct Consume<'a, C = Channel> {
    carrier: &'a C,
    tag: Result<ShortStr>,
    spec: ConsumeSpec,
    arguments: Collected,
}

impl<'a, C: Carrier> Consume<'a, C> {
    pub(super) fn new(carrier: &'a C, queue: ShortStr) -> Self {
        let method = basic::Consume { queue, ..Default::default() };
        let spec = ConsumeSpec { prefetch: None, method };
        Self { carrier, tag: Ok(ShortStr::empty()), spec, arguments: Collected::default() }
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

    /// Where in a stream to begin; with what is published from now on unless set.
    pub fn stream_offset(self, offset: StreamOffset) -> Self {
        self.argument("x-stream-offset", offset)
    }

    /// Any other argument.
    pub fn argument(mut self, name: impl TryInto<ShortStr>, value: impl Into<FieldValue>) -> Self {
        self.arguments.set(name, value);
        self
    }

    /// Consumes with a handler instead of a stream: it gets each message as [`Incoming`], without the means to
    /// acknowledge; its `Ok` does that, an error or a panic rejects the message. See [`Handle`].
    pub fn handle<F, R, E>(self, handler: F) -> Handle<'a, F, C>
    where
        F: Fn(Incoming) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        Handle::new(self, handler)
    }

    /// What it acts through.
    pub(super) fn carrier(&self) -> &'a C {
        self.carrier
    }

    /// Whether deliveries need no acks.
    pub(super) fn is_no_ack(&self) -> bool {
        self.spec.method.no_ack
    }
}

impl<'a, C: Carrier> IntoFuture for Consume<'a, C> {
    type Output = Result<C::Consumer>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    /// Starts the consumer. A tag that is in use on the channel is an error, with nothing sent. Cancel
    /// safe: a consumer that nobody waits for any more is cancelled again.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let mut spec = self.spec;
            spec.method.consumer_tag = self.tag?;
            spec.method.arguments = self.arguments.finish()?;
            self.carrier.consume(spec).await
        })
    }
}

/// A consumer: the stream of its deliveries.
///
/// An item is an error only as the last one: when the server cancelled the consumer
/// ([`ErrorKind::ConsumerCancelled`]), or the channel or connection ended. After a cancel or close by the user the
/// stream just ends.
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
    channel: Arc<ChannelInner>,
    tag: ShortStr,
    queue: Arc<DeliveryQueue>,
    /// Taken from the queue, and not handed out yet.
    taken: VecDeque<Raw>,
    /// The bytes of what was taken together. They count until all of it was handed out and more is asked for, so that
    /// nothing is counted for each message.
    counted: usize,
    acks: Arc<Acks>,
    /// Nothing more is to be told.
    done: bool,
}

impl Consumer {
    pub(super) fn new(channel: Arc<ChannelInner>, queue: Arc<DeliveryQueue>) -> Self {
        let acks = Arc::new(Acks::new(Arc::clone(&channel), queue.no_ack()));
        Self { channel, tag: queue.tag(), queue, taken: VecDeque::new(), counted: 0, acks, done: false }
    }

    /// The token is dropped once this consumer and all that it has delivered are gone. For a consumer
    /// that has delivered nothing.
    pub(crate) fn hold(&mut self, token: Token) {
        self.acks = Arc::new(self.acks.holding(token));
    }

    /// The consumer's tag, also if the server made it up.
    pub fn tag(&self) -> &ShortStr {
        &self.tag
    }

    /// The next delivery; `None` once the consumer was cancelled, or its channel or connection closed.
    ///
    /// # Errors
    /// Once, as the last item, if something else ended the consumer.
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
    /// As [`Channel::call`].
    ///
    /// # Cancel safety
    /// Once it was sent, the consumer ends.
    pub async fn cancel(&mut self) -> Result<()> {
        self.cancelling().await
    }

    /// As [`cancel`](Self::cancel), without holding the consumer.
    pub(crate) fn cancelling(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let (channel, queue) = (Arc::clone(&self.channel), Arc::clone(&self.queue));
        async move { channel.link.cancel(&queue).await }
    }

    /// As [`cancel`](Self::cancel), without waiting for the answer, nor for the channel's turn.
    pub(crate) fn cancel_now(&self) {
        self.channel.link.cancel_now(&self.queue);
    }

    /// Whether nothing more will come.
    pub(crate) fn has_ended(&self) -> bool {
        self.queue.has_ended()
    }

    /// The channel that it consumes on.
    pub(crate) fn channel(&self) -> Channel {
        Channel::of(&self.channel)
    }

    /// Whether the channel that it consumes on has not ended.
    pub(crate) fn is_open(&self) -> bool {
        self.channel.link.state.error().is_none()
    }

    /// Resolves when that channel has ended, and tells why. Holds nothing open.
    pub(crate) fn over(&self) -> impl Future<Output = Error> + Send + use<> {
        let state = Arc::clone(&self.channel.link.state);
        async move { state.over().await }
    }

    /// Whether what it hands out is to be acknowledged.
    pub(crate) fn needs_acks(&self) -> bool {
        !self.queue.no_ack()
    }

    #[inline]
    pub(crate) fn poll_delivery(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Delivery>>> {
        if self.taken.is_empty()
            && let Err(end) = ready!(self.poll_take(context))
        {
            return Poll::Ready(end.map(Err));
        }
        let delivery = self.taken.pop_front();
        Poll::Ready(delivery.map(|raw| Ok(Delivery::new(raw, &self.acks))))
    }

    /// Takes what waits. `Err`: nothing more will come, and why, if that is to be told.
    #[inline(never)]
    fn poll_take(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Option<Error>>> {
        if self.done {
            return Poll::Ready(Err(None));
        }
        self.queue.free(std::mem::take(&mut self.counted));
        let taken = ready!(self.channel.link.poll_take(&self.queue, &mut self.taken, context));
        Poll::Ready(taken.map(|weight| self.counted = weight).map_err(|end| {
            self.done = true;
            match end {
                End::Cancelled => None,
                End::CancelledByServer => {
                    let tag = PeerText(self.tag.as_bytes());
                    let text = format!("the server cancelled consumer \"{tag}\"; its queue may be gone");
                    Some(Error::new(ErrorKind::ConsumerCancelled, text))
                }
                End::Failed(error) if error.kind() == ErrorKind::Closed => None,
                End::Failed(error) => Some(error),
            }
        }))
    }
}

impl Stream for Consumer {
    type Item = Result<Delivery>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_delivery(context)
    }
}

impl Deliveries for Consumer {
    async fn next(&mut self) -> Option<Result<Delivery>> {
        Self::next(self).await
    }

    async fn cancel(&mut self) -> Result<()> {
        Self::cancel(self).await
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.queue.free(self.counted);
        self.channel.link.abandon_consumer(&self.queue, &self.taken);
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("tag", &self.tag).finish_non_exhaustive()
    }
}
