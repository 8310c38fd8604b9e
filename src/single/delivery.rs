//! Messages that have arrived.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::message::{Message, REPUBLISHED};
use super::single_channel::SingleInner;
use super::tally::Token;
use crate::codec::generated::basic;
use crate::codec::{Arguments, FieldTable, Properties};
use crate::driver::delivery_queue::{ConsumerState, DeliveryQueue};
use crate::error::{Error, ErrorKind, Result};
use crate::mux::incoming_delivery::Delivery as Raw;

/// A message from a queue, without the means to acknowledge it.
///
/// It shares the buffer that it was read into with its neighbours; [`detach`](Self::detach) copies it out, for
/// small messages that are kept for long.
///
/// `Debug` shows the size of the body, not its bytes.
#[derive(Clone)]
pub struct Incoming {
    raw: Raw,
}

impl Incoming {
    /// The body.
    pub fn body(&self) -> &[u8] {
        self.raw.body()
    }

    /// The body as a text, if it is UTF-8.
    pub fn body_str(&self) -> Option<&str> {
        std::str::from_utf8(self.body()).ok()
    }

    /// The body as a share of the buffer that it was read into, without a copy.
    pub fn body_bytes(&self) -> Bytes {
        self.raw.share_body()
    }

    /// The exchange that it was published to; where its name is not UTF-8, with replacement characters.
    pub fn exchange(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.raw.exchange())
    }

    /// The exact bytes of the exchange's name.
    pub fn exchange_bytes(&self) -> &[u8] {
        self.raw.exchange()
    }

    /// The key that it was published with; where it is not UTF-8, with replacement characters.
    pub fn routing_key(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.raw.routing_key())
    }

    /// The exact bytes of the routing key.
    pub fn routing_key_bytes(&self) -> &[u8] {
        self.raw.routing_key()
    }

    /// The consumer that it was delivered to; empty after [`Queue::get`](crate::Queue::get).
    pub fn consumer_tag(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.raw.consumer_tag())
    }

    /// Its number on the channel: 1 for the first delivery, then 2, … On a robust channel, the numbers after a loss begin
    /// higher, so that none occurs twice in the channel's life.
    pub fn delivery_tag(&self) -> u64 {
        self.raw.tag
    }

    /// Whether it was delivered before, to anybody, and not acknowledged.
    pub fn redelivered(&self) -> bool {
        self.raw.redelivered()
    }

    /// How many messages were left in the queue, after [`Queue::get`](crate::Queue::get); otherwise 0.
    pub fn message_count(&self) -> u32 {
        self.raw.message_count()
    }

    /// The properties, with the headers. They are read each time this is called.
    ///
    /// # Errors
    /// [`ErrorKind::Undecodable`] if they cannot be read, for example because a header has a type that
    /// nobody knows. Everything else of the message can be used all the same.
    pub fn properties(&self) -> Result<Properties> {
        self.raw.properties().map_err(|error| {
            Error::new(ErrorKind::Undecodable, "the message's properties cannot be read, its body can")
                .with_source(error)
        })
    }

    /// The headers; an empty table where the message has none. They are read each time this is called.
    ///
    /// # Errors
    /// As [`properties`](Self::properties).
    pub fn headers(&self) -> Result<FieldTable> {
        Ok(self.properties()?.headers.unwrap_or_default())
    }

    /// Whether a robust connection published it again after a loss, because it had not been confirmed: then
    /// it may have arrived before, too. Properties that cannot be read count as no.
    pub fn is_republished(&self) -> bool {
        self.headers().is_ok_and(|headers| headers.get(REPUBLISHED).is_some())
    }

    /// The message as it could be published again: the same body, the same properties.
    ///
    /// # Errors
    /// As [`properties`](Self::properties).
    pub fn to_message(&self) -> Result<Message> {
        Ok(Message::with_properties(self.body_bytes(), self.properties()?))
    }

    /// Copies it out of the buffer that it was read into, so that it does not keep that alive.
    pub fn detach(&mut self) {
        self.raw.detach();
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("exchange", &self.exchange())
            .field("routing_key", &self.routing_key())
            .field("delivery_tag", &self.delivery_tag())
            .field("redelivered", &self.redelivered())
            .field("body", &format_args!("{} bytes", self.body().len()))
            .finish_non_exhaustive()
    }
}

/// A message from a queue, to be acknowledged: an [`Incoming`] with an [`Acker`].
///
/// Each way to acknowledge takes the delivery, so it cannot be done twice. One that is dropped stays
/// unacknowledged: the server delivers it again when the channel or connection ends.
///
/// Acknowledging hands a few bytes over for writing and does not wait. It fails if the channel that the
/// message came on has ended, for then the server delivers the message again; and, with
/// [`ErrorKind::Argument`], if the consumer needs no acks.
///
/// A delivery that can no longer be acknowledged is [stale](Self::is_stale): to go on working on it is in vain.
#[derive(Debug)]
#[must_use = "an unacknowledged message is delivered again when the channel ends"]
pub struct Delivery {
    incoming: Incoming,
    acks: Arc<Acks>,
}

/// Where the acks of one consumer go. It lives as long as the consumer and all that it has delivered.
pub(super) struct Acks {
    channel: Arc<SingleInner>,
    /// `None` for what was taken with `basic.get`.
    consumer: Option<Arc<ConsumerState>>,
    /// Deliveries need no acks.
    no_ack: bool,
    tag_base: u64,
    /// A drain waits until all that needs acks is gone.
    _token: Option<Token>,
}

impl Acks {
    pub(super) fn of_consumer(channel: &Arc<SingleInner>, queue: &DeliveryQueue) -> Self {
        Self::new(channel, queue.no_ack(), Some(Arc::clone(queue.consumer())))
    }

    pub(super) fn of_get(channel: &Arc<SingleInner>, no_ack: bool) -> Self {
        Self::new(channel, no_ack, None)
    }

    fn new(channel: &Arc<SingleInner>, no_ack: bool, consumer: Option<Arc<ConsumerState>>) -> Self {
        let token = (!no_ack).then(|| channel.tally.token());
        Self { channel: Arc::clone(channel), consumer, no_ack, tag_base: channel.tag_base, _token: token }
    }

    fn is_stale(&self) -> bool {
        let is_cancelled = || self.consumer.as_deref().is_some_and(ConsumerState::is_stale);
        !self.no_ack && (self.channel.link.state.error().is_some() || is_cancelled())
    }

    async fn stale(&self) {
        if self.no_ack {
            std::future::pending::<()>().await;
        }
        self.channel.link.state.stale(self.consumer.as_deref()).await;
    }
}

/// What became of an ack, nack or reject.
///
/// It may be ignored: what is [`Stale`](Self::Stale) comes again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Settled {
    /// It is on its way to the server.
    Sent,
    /// The message was delivered on a link that a robust connection has lost since. Nothing was sent: the broker
    /// delivers the message again, and what was done with it will be done once more.
    Stale,
}

impl Delivery {
    #[inline]
    /// `raw` has the number that users see.
    pub(super) fn new(raw: Raw, acks: Arc<Acks>) -> Self {
        Self { incoming: Incoming { raw }, acks }
    }

    /// The message and the means to acknowledge it, apart: for whoever hands the message on and settles it elsewhere.
    ///
    /// ```no_run
    /// # async fn example(mut deliveries: lepus::Consumer) -> lepus::Result<()> {
    /// while let Some(delivery) = deliveries.next().await {
    ///     let (message, acker) = delivery?.into_parts();
    ///     let length = tokio::task::spawn_blocking(move || message.body().len()).await;
    ///     if length.is_ok() { acker.ack()? } else { acker.reject(false)? };
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_parts(self) -> (Incoming, Acker) {
        let acker = Acker { delivery_tag: self.incoming.raw.tag, acks: self.acks };
        (self.incoming, acker)
    }

    /// Whether an ack would be in vain: the channel that it came on has ended, with its link or alone, or the server has
    /// cancelled its consumer. The server has taken the message back and delivers it again, perhaps already to somebody
    /// else; unless its queue is gone. What needs no ack is never stale.
    ///
    /// `RabbitMQ` cancels a consumer when its queue is deleted or moves; from 4.3 on also when it keeps a message of a quorum
    /// queue for longer than the consumer timeout. After a cancel an ack is still sent, and does no harm.
    pub fn is_stale(&self) -> bool {
        self.acks.is_stale()
    }

    /// Waits until the delivery is [stale](Self::is_stale), so that long work on it can be given up. Without acks it waits for
    /// ever.
    ///
    /// # Cancel safety
    /// Cancel safe.
    ///
    /// ```no_run
    /// # async fn work(body: &[u8]) {}
    /// # async fn example(delivery: lepus::Delivery) -> lepus::Result<()> {
    /// tokio::select! {
    ///     () = work(delivery.body()) => drop(delivery.ack()?),
    ///     () = delivery.stale() => eprintln!("given up: the message comes again"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn stale(&self) {
        self.acks.stale().await;
    }

    /// The message alone; it stays unacknowledged.
    pub fn into_incoming(self) -> Incoming {
        self.incoming
    }

    /// The message.
    pub fn incoming(&self) -> &Incoming {
        &self.incoming
    }

    /// The work is done: the server may forget the message.
    ///
    /// # Errors
    /// If the channel has ended; on a robust connection only if the user has closed it.
    pub fn ack(self) -> Result<Settled> {
        self.into_parts().1.ack()
    }

    /// Acknowledges this message and all before it on the channel that are not acknowledged.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn ack_multiple(self) -> Result<Settled> {
        self.into_parts().1.ack_multiple()
    }

    /// The work was not done. With `requeue` the message goes back to its queue, otherwise it is dropped or
    /// dead-lettered.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn nack(self, requeue: bool) -> Result<Settled> {
        self.into_parts().1.nack(requeue)
    }

    /// Like [`nack`](Self::nack), for this message and all before it on the channel that are not
    /// acknowledged.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn nack_multiple(self, requeue: bool) -> Result<Settled> {
        self.into_parts().1.nack_multiple(requeue)
    }

    /// The message cannot be worked on. With `requeue` it goes back to its queue, otherwise it is dropped or
    /// dead-lettered. Differs from [`nack`](Self::nack) in quorum queues of `RabbitMQ` 4.3 and later:
    /// only a reject counts towards the delivery limit.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn reject(self, requeue: bool) -> Result<Settled> {
        self.into_parts().1.reject(requeue)
    }
}

/// Gives `Delivery` the getters of `Incoming`.
macro_rules! as_incoming {
    ($($(#[$doc:meta])* $name:ident -> $type:ty;)*) => {
        impl Delivery {
            $($(#[$doc])*
            #[inline]
            pub fn $name(&self) -> $type {
                self.incoming.$name()
            })*

            /// Copies it out of the buffer that it was read into; see [`Incoming::detach`].
            pub fn detach(&mut self) {
                self.incoming.detach();
            }
        }
    };
}

as_incoming! {
    /// The body.
    body -> &[u8];
    /// The body as a text, if it is UTF-8.
    body_str -> Option<&str>;
    /// The body as a share of the buffer that it was read into, without a copy.
    body_bytes -> Bytes;
    /// The exchange that it was published to; see [`Incoming::exchange`].
    exchange -> Cow<'_, str>;
    /// The exact bytes of the exchange's name.
    exchange_bytes -> &[u8];
    /// The key that it was published with; see [`Incoming::routing_key`].
    routing_key -> Cow<'_, str>;
    /// The exact bytes of the routing key.
    routing_key_bytes -> &[u8];
    /// The consumer that it was delivered to; see [`Incoming::consumer_tag`].
    consumer_tag -> Cow<'_, str>;
    /// Its number on the channel; see [`Incoming::delivery_tag`].
    delivery_tag -> u64;
    /// Whether it was delivered before; see [`Incoming::redelivered`].
    redelivered -> bool;
    /// How many messages were left in the queue; see [`Incoming::message_count`].
    message_count -> u32;
    /// The properties, with the headers.
    ///
    /// # Errors
    /// As [`Incoming::properties`].
    properties -> Result<Properties>;
    /// The headers.
    ///
    /// # Errors
    /// As [`Incoming::properties`].
    headers -> Result<FieldTable>;
    /// Whether it may have arrived before; see [`Incoming::is_republished`].
    is_republished -> bool;
    /// The message as it could be published again.
    ///
    /// # Errors
    /// As [`Incoming::properties`].
    to_message -> Result<Message>;
}

/// The means to acknowledge one delivery, without its body: small, to be sent to whoever knows when the work is done.
///
/// Each method takes it, so a delivery is settled once. Dropped, the delivery stays unacknowledged.
#[derive(Debug)]
#[must_use = "an unacknowledged message is delivered again when the channel ends"]
pub struct Acker {
    acks: Arc<Acks>,
    delivery_tag: u64,
}

impl Acker {
    /// The delivery's number on its channel; see [`Incoming::delivery_tag`].
    pub fn delivery_tag(&self) -> u64 {
        self.delivery_tag
    }

    /// Whether an ack would be in vain; see [`Delivery::is_stale`].
    pub fn is_stale(&self) -> bool {
        self.acks.is_stale()
    }

    /// Waits until the delivery is stale; see [`Delivery::stale`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn stale(&self) {
        self.acks.stale().await;
    }

    /// As [`stale`](Self::stale), without the acker.
    pub(crate) fn going_stale(&self) -> impl Future<Output = ()> + Send + use<> {
        let acks = Arc::clone(&self.acks);
        async move { acks.stale().await }
    }

    /// See [`Delivery::ack`].
    ///
    /// # Errors
    /// If the channel has ended; on a robust connection only if the user has closed it.
    pub fn ack(self) -> Result<Settled> {
        self.send(false, |delivery_tag| basic::Ack { delivery_tag, multiple: false })
    }

    /// See [`Delivery::ack_multiple`].
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn ack_multiple(self) -> Result<Settled> {
        self.send(true, |delivery_tag| basic::Ack { delivery_tag, multiple: true })
    }

    /// See [`Delivery::nack`].
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn nack(self, requeue: bool) -> Result<Settled> {
        self.send(false, |delivery_tag| basic::Nack { delivery_tag, multiple: false, requeue })
    }

    /// See [`Delivery::nack_multiple`].
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn nack_multiple(self, requeue: bool) -> Result<Settled> {
        self.send(true, |delivery_tag| basic::Nack { delivery_tag, multiple: true, requeue })
    }

    /// See [`Delivery::reject`].
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn reject(self, requeue: bool) -> Result<Settled> {
        self.send(false, |delivery_tag| basic::Reject { delivery_tag, requeue })
    }

    /// Whether the delivery is to be acknowledged at all: not if its consumer was started without acks.
    pub(crate) fn is_needed(&self) -> bool {
        !self.acks.no_ack
    }

    #[inline]
    fn send<M: Arguments>(self, multiple: bool, method: impl FnOnce(u64) -> M) -> Result<Settled> {
        if self.acks.no_ack {
            return Err(Error::new(ErrorKind::Argument, "the consumer was started without acks"));
        }
        self.acks.channel.settle(multiple, &method(self.delivery_tag - self.acks.tag_base))
    }
}

impl fmt::Debug for Acks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acks").field("no_ack", &self.no_ack).finish_non_exhaustive()
    }
}
