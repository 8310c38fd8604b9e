//! Messages that have arrived.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::channel::ChannelInner;
use super::message::{Message, REPUBLISHED};
use crate::codec::generated::basic;
use crate::codec::{Arguments, FieldTable, Properties};
use crate::error::{Error, ErrorKind, Result};
use crate::mux::delivery::Delivery as Raw;

/// A message from a queue, without the means to acknowledge it.
///
/// It shares the buffer that it was read into with its neighbours; [`detach`](Self::detach) copies it out, for
/// small messages that are kept for long.
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

    /// The consumer that it was delivered to; empty after [`Queue::get`](super::Queue::get).
    pub fn consumer_tag(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.raw.consumer_tag())
    }

    /// Its number on the channel: 1 for the first delivery, then 2, …
    pub fn delivery_tag(&self) -> u64 {
        self.raw.tag
    }

    /// Whether it was delivered before, to anybody, and not acknowledged.
    pub fn redelivered(&self) -> bool {
        self.raw.redelivered()
    }

    /// How many messages were left in the queue, after [`Queue::get`](super::Queue::get); otherwise 0.
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
            .field("body", &self.body_bytes())
            .finish_non_exhaustive()
    }
}

/// A message from a queue, to be acknowledged: [`Incoming`] with the channel that it came on.
///
/// Each way to acknowledge takes the delivery, so it cannot be done twice. One that is dropped stays
/// unacknowledged: the server delivers it again when the channel or connection ends.
///
/// Acknowledging hands a few bytes over for writing and does not wait. It fails if the channel that the
/// message came on has ended, for then the server delivers the message again; and, with
/// [`ErrorKind::Argument`], if the consumer needs no acks.
#[derive(Debug)]
#[must_use = "an unacknowledged message is delivered again when the channel ends"]
pub struct Delivery {
    incoming: Incoming,
    acks: Arc<Acks>,
}

/// Where the acks of one consumer go. It lives as long as the consumer and all that it has delivered.
pub(super) struct Acks {
    channel: Arc<ChannelInner>,
    /// Deliveries need no acks.
    no_ack: bool,
    _token: Option<Token>,
}

/// Something that is dropped when a consumer and all that it has delivered are gone.
pub(crate) type Token = Box<dyn Send + Sync>;

impl Acks {
    pub(super) fn new(channel: Arc<ChannelInner>, no_ack: bool) -> Self {
        Self { channel, no_ack, _token: None }
    }

    /// The same, until the token may be dropped.
    pub(super) fn holding(&self, token: Token) -> Self {
        Self { channel: Arc::clone(&self.channel), no_ack: self.no_ack, _token: Some(token) }
    }

    fn send_settle<M: Arguments>(&self, multiple: bool, method: &M) -> Result<Settled> {
        if self.no_ack {
            return Err(Error::new(ErrorKind::Argument, "the consumer was started without acks"));
        }
        if multiple {
            self.channel.link.state.settles_several();
        }
        match (self.channel.link.settle(method), &self.channel.stale) {
            (Ok(()), _) => Ok(Settled::Sent),
            (Err(error), Some(counter)) if error.kind() != ErrorKind::Closed => {
                counter.fetch_add(1, Ordering::Relaxed);
                Ok(Settled::Stale)
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// What became of an ack, nack or reject.
///
/// It may be ignored: what is [`Stale`](Self::Stale) comes again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settled {
    /// It is on its way to the server.
    Sent,
    /// The message was delivered on a link that a robust connection has lost since. Nothing was sent: the broker
    /// delivers the message again, and what was done with it will be done once more.
    Stale,
}

/// The means to acknowledge a delivery.
pub(super) struct Acker {
    acks: Arc<Acks>,
    delivery_tag: u64,
}

impl Delivery {
    /// The token is dropped once this delivery is gone.
    pub(crate) fn hold(&mut self, token: Token) {
        self.acks = Arc::new(self.acks.holding(token));
    }

    #[inline]
    pub(super) fn new(raw: Raw, acks: &Arc<Acks>) -> Self {
        Self { incoming: Incoming { raw }, acks: Arc::clone(acks) }
    }

    /// The work is done: the server may forget the message.
    ///
    /// # Errors
    /// If the channel has ended; on a robust connection only if the user has closed it.
    pub fn ack(self) -> Result<Settled> {
        self.split().1.ack(false)
    }

    /// Acknowledges this message and all before it on the channel that are not acknowledged.
    ///
    /// # Errors
    /// If the channel has ended; on a robust connection only if the user has closed it.
    pub fn ack_multiple(self) -> Result<Settled> {
        self.split().1.ack(true)
    }

    /// The work was not done. With `requeue` the message goes back to its queue, otherwise it is dropped or
    /// dead-lettered.
    ///
    /// # Errors
    /// If the channel has ended; on a robust connection only if the user has closed it.
    pub fn nack(self, requeue: bool) -> Result<Settled> {
        self.split().1.nack(false, requeue)
    }

    /// Like [`nack`](Self::nack), for this message and all before it on the channel that are not
    /// acknowledged.
    ///
    /// # Errors
    /// If the channel has ended; on a robust connection only if the user has closed it.
    pub fn nack_multiple(self, requeue: bool) -> Result<Settled> {
        self.split().1.nack(true, requeue)
    }

    /// The message cannot be worked on. With `requeue` it goes back to its queue, otherwise it is dropped or
    /// dead-lettered. Differs from [`nack`](Self::nack) in quorum queues of `RabbitMQ` 4.3 and later:
    /// only a reject counts towards the delivery limit.
    ///
    /// # Errors
    /// If the channel has ended; on a robust connection only if the user has closed it.
    pub fn reject(self, requeue: bool) -> Result<Settled> {
        self.split().1.reject(requeue)
    }

    /// The message alone; it stays unacknowledged.
    pub fn into_incoming(self) -> Incoming {
        self.incoming
    }

    pub(super) fn split(self) -> (Incoming, Acker) {
        let acker = Acker { delivery_tag: self.incoming.raw.tag, acks: self.acks };
        (self.incoming, acker)
    }
}

impl Acker {
    pub(super) fn ack(self, multiple: bool) -> Result<Settled> {
        self.acks.send_settle(multiple, &basic::Ack { delivery_tag: self.delivery_tag, multiple })
    }

    pub(super) fn nack(self, multiple: bool, requeue: bool) -> Result<Settled> {
        self.acks.send_settle(multiple, &basic::Nack { delivery_tag: self.delivery_tag, multiple, requeue })
    }

    pub(super) fn reject(self, requeue: bool) -> Result<Settled> {
        self.acks.send_settle(false, &basic::Reject { delivery_tag: self.delivery_tag, requeue })
    }
}

impl fmt::Debug for Acks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acks").field("no_ack", &self.no_ack).finish_non_exhaustive()
    }
}

impl Deref for Delivery {
    type Target = Incoming;

    fn deref(&self) -> &Incoming {
        &self.incoming
    }
}

impl DerefMut for Delivery {
    fn deref_mut(&mut self) -> &mut Incoming {
        &mut self.incoming
    }
}
