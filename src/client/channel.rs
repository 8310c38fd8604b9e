//! A channel: declares, consumes, publishes.

use std::fmt;
use std::future::IntoFuture;

use super::connection::{Connection, Kind as ConnectionKind};
use super::consumer::{Consumer, Kind as ConsumerKind};
use super::exchange::{DeclareExchange, Exchange, ExchangeKind};
use super::queue::{DeclareQueue, Queue};
use super::returns::Returns;
use crate::codec::generated::{basic, channel, connection, tx};
use crate::codec::{Arguments, Method, Request, ShortStr};
use crate::error::{Error, ErrorKind, Result};
use crate::robust::RobustChannel;
use crate::single::{BoxFuture, ConsumeSpec, Delivery, Name, Settled, SingleChannel, short};

/// A channel: a cheap handle, to be cloned and shared between tasks.
///
/// It stays open as long as something uses it: a clone, an exchange, a queue, a consumer, a delivery.
/// When the last of these is dropped it closes in the background; [`close`](Self::close) closes it now.
///
/// An error that the server answers by closing the channel, such as 404 for a queue that does not exist, ends a channel
/// of a plain connection with all its consumers; open a new one. A channel of a robust connection is opened again, with
/// its settings and consumers, after that and after a loss. Calls wait meanwhile, for as long as a call may take
/// ([`rpc_timeout`](crate::ConnectOptions::rpc_timeout)).
///
/// A function that takes a `&Channel` works on both kinds:
///
/// ```no_run
/// # async fn example() -> lepus::Result<()> {
/// use lepus::{ExchangeKind, Message};
///
/// async fn setup(channel: &lepus::Channel) -> lepus::Result<lepus::Queue> {
///     let events = channel.declare_exchange("events", ExchangeKind::Topic).await?;
///     let queue = channel.declare_queue("audit").await?;
///     queue.bind(&events, "#").await?;
///     events.publish("audit.started", Message::new("{}")).await?;
///     Ok(queue)
/// }
///
/// let plain = lepus::connect("amqp://localhost").await?;
/// setup(&plain.channel().await?).await?;
/// let robust = lepus::connect_robust("amqp://localhost").await?;
/// setup(&robust.channel().await?).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Channel {
    pub(super) kind: Kind,
}

/// The two ways to act.
#[derive(Clone)]
pub(super) enum Kind {
    Single(SingleChannel),
    Robust(RobustChannel),
}

/// Opens a channel when awaited; see [`Connection::channel`].
#[derive(Debug)]
#[must_use = "a channel is opened when this is awaited"]
pub struct ChannelBuilder<'a> {
    connection: &'a Connection,
    confirms: bool,
}

impl<'a> ChannelBuilder<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self { connection, confirms: true }
    }

    /// Without publisher confirms: a publish counts as done when it is handed over, and nobody will know
    /// whether it arrived. After a loss, nothing is published again.
    pub fn without_confirms(mut self) -> Self {
        self.confirms = false;
        self
    }
}

impl<'a> IntoFuture for ChannelBuilder<'a> {
    type Output = Result<Channel>;
    type IntoFuture = BoxFuture<'a, Result<Channel>>;

    /// Opens the channel; on a robust connection once there is a link.
    ///
    /// Fails with [`ErrorKind::NoFreeChannel`], or as the connection does. Cancel safe: a channel that
    /// nobody waits for any more is closed again.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let kind = match &self.connection.kind {
                ConnectionKind::Single(connection) => {
                    Kind::Single(connection.channel(self.confirms, 0).await?)
                }
                ConnectionKind::Robust(connection) => Kind::Robust(connection.channel(self.confirms).await?),
            };
            Ok(Channel { kind })
        })
    }
}

impl Channel {
    /// Declares an exchange: creates it if it does not exist.
    pub fn declare_exchange(
        &self,
        name: impl TryInto<ShortStr>,
        kind: impl Into<ExchangeKind>,
    ) -> DeclareExchange<'_> {
        DeclareExchange::new(self, name, kind.into())
    }

    /// An exchange that exists, or that nobody needs to declare, without asking the server. A robust connection does not
    /// restore it.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] if the name has more than 255 bytes.
    pub fn exchange(&self, name: impl TryInto<ShortStr>) -> Result<Exchange> {
        Ok(Exchange::new(self.clone(), short("the exchange's name", name)?))
    }

    /// The default exchange: it takes every message to the queue that has the routing key as its name.
    pub fn default_exchange(&self) -> Exchange {
        Exchange::new(self.clone(), ShortStr::empty())
    }

    /// Declares a queue: creates it if it does not exist. With an empty name the server makes one up, and
    /// the queue is exclusive to the connection; a named queue is durable.
    pub fn declare_queue(&self, name: impl TryInto<ShortStr>) -> DeclareQueue<'_> {
        DeclareQueue::new(self, name)
    }

    /// A queue that exists, without asking the server. A robust connection does not restore it, but its bindings and
    /// consumers.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] if the name has more than 255 bytes.
    pub fn queue(&self, name: impl TryInto<ShortStr>) -> Result<Queue> {
        Ok(Queue::new(self.clone(), short("the queue's name", name)?))
    }

    /// Its number on the connection. On a plain connection it is the one that the server shows in its lists. On a robust
    /// connection it counts the channels that were opened, from 1 on, and stays when the channel is opened again; see
    /// [`Entity::Channel`](crate::robust::Entity::Channel).
    pub fn number(&self) -> u64 {
        match &self.kind {
            Kind::Single(channel) => channel.id().into(),
            Kind::Robust(channel) => channel.number(),
        }
    }

    /// How many unacknowledged deliveries each consumer that starts later on this channel may have, where
    /// the consumer itself says nothing; 0 for no limit. 250 unless set. For a consumer that runs, see
    /// [`Consumer::set_prefetch`].
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Cancel safety
    /// Once it was sent, the server acts on it.
    pub async fn qos(&self, prefetch_count: u16) -> Result<()> {
        match &self.kind {
            Kind::Single(channel) => channel.qos(prefetch_count).await,
            Kind::Robust(channel) => channel.qos(prefetch_count).await,
        }
    }

    /// Waits until everything that was published on this channel so far is confirmed; on a robust connection whatever
    /// happens to the link meanwhile. At once on a channel without confirms.
    ///
    /// # Errors
    /// [`ErrorKind::Nacked`] or [`ErrorKind::Returned`] if that became of a message whose [`Confirm`](super::Confirm) was
    /// dropped: the first such error since the last call on this handle. Each clone of a channel of a plain connection is
    /// told for itself, so tasks that publish on clones all hear of it. What an awaited `Confirm` tells is not told again
    /// here. If the channel ends first, the reason.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_for_confirms(&self) -> Result<()> {
        match &self.kind {
            Kind::Single(channel) => channel.wait_for_confirms().await,
            Kind::Robust(channel) => channel.wait_for_confirms().await,
        }
    }

    /// Messages that came back because they were mandatory and reached no queue, and that no
    /// [`Confirm`](super::Confirm) tells of: on a channel without confirms, or when the `Confirm` was dropped. Returned
    /// messages are kept only while somebody listens, and at most 1,024 of them.
    pub fn returns(&self) -> Returns {
        Returns::of(self)
    }

    /// Acknowledges the delivery with this number, for libraries that keep only numbers. [`Delivery::ack`] cannot be done
    /// twice; this can, and the server answers the second time by closing the channel (406).
    ///
    /// On a robust connection a number from before a loss is [`Settled::Stale`]: nothing is sent.
    ///
    /// # Errors
    /// If the channel has ended; on a robust connection only if the user has closed it.
    pub fn ack(&self, delivery_tag: u64) -> Result<Settled> {
        self.settle(delivery_tag, |delivery_tag| basic::Ack { delivery_tag, multiple: false })
    }

    /// Negatively acknowledges the delivery with this number; see [`ack`](Self::ack) and [`Delivery::nack`].
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn nack(&self, delivery_tag: u64, requeue: bool) -> Result<Settled> {
        self.settle(delivery_tag, |delivery_tag| basic::Nack { delivery_tag, multiple: false, requeue })
    }

    /// Rejects the delivery with this number; see [`ack`](Self::ack) and [`Delivery::reject`].
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn reject(&self, delivery_tag: u64, requeue: bool) -> Result<Settled> {
        self.settle(delivery_tag, |delivery_tag| basic::Reject { delivery_tag, requeue })
    }

    fn settle<M: Arguments>(&self, tag: u64, method: impl FnOnce(u64) -> M) -> Result<Settled> {
        match &self.kind {
            Kind::Single(channel) => channel.settle(false, &method(tag)),
            Kind::Robust(channel) => channel.settle(tag, false, method),
        }
    }

    /// Cancels the consumer with this tag, as [`Consumer::cancel`] does. `false` if the channel has none with it.
    ///
    /// # Errors
    /// As [`Consumer::cancel`].
    ///
    /// # Cancel safety
    /// Once it was sent, the consumer ends.
    pub async fn cancel(&self, consumer_tag: impl TryInto<ShortStr>) -> Result<bool> {
        let tag = short("the consumer tag", consumer_tag)?;
        match &self.kind {
            Kind::Single(channel) => channel.cancel(&tag).await,
            Kind::Robust(channel) => channel.cancel(&tag).await,
        }
    }

    /// Asks the server to deliver again everything that is not acknowledged on this channel.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Cancel safety
    /// Once it was sent, the server acts on it.
    pub async fn recover(&self) -> Result<()> {
        // without requeue, RabbitMQ closes the connection
        self.call(basic::Recover { requeue: true }).await.map(drop)
    }

    /// Puts the channel into transactions: publishes and acks take effect with
    /// [`tx_commit`](Self::tx_commit). Only on a channel without confirms.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] on a robust connection: after a loss nobody could tell which transactions took effect.
    /// 406 on a channel with confirms; the server closes it. Otherwise as [`call`](Self::call).
    ///
    /// # Cancel safety
    /// Once it was sent, the server acts on it.
    pub async fn tx_select(&self) -> Result<()> {
        self.call(tx::Select).await.map(drop)
    }

    /// Makes publishes and acks since the last commit or rollback take effect.
    ///
    /// # Errors
    /// As [`tx_select`](Self::tx_select); 406 before it.
    ///
    /// # Cancel safety
    /// Once it was sent, the server acts on it.
    pub async fn tx_commit(&self) -> Result<()> {
        self.call(tx::Commit).await.map(drop)
    }

    /// Forgets publishes and acks since the last commit or rollback. Deliveries stay unacknowledged.
    ///
    /// # Errors
    /// As [`tx_select`](Self::tx_select); 406 before it.
    ///
    /// # Cancel safety
    /// Once it was sent, the server acts on it.
    pub async fn tx_rollback(&self) -> Result<()> {
        self.call(tx::Rollback).await.map(drop)
    }

    /// Sends any request of the protocol and waits for its reply: for what has no method of its own here. On a robust
    /// connection, what declares, binds, unbinds or deletes is recorded as if it were done with the methods for it.
    ///
    /// ```no_run
    /// # async fn example(channel: &lepus::Channel) -> lepus::Result<()> {
    /// use lepus::protocol::basic;
    ///
    /// // a limit for all consumers of the channel together
    /// channel.call(basic::Qos { prefetch_count: 10, global: true, ..Default::default() }).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the server closes the channel or connection in answer, its code and text; then the
    /// channel is gone, or on a robust connection opened again. [`ErrorKind::Timeout`] if it does not answer in time, or if
    /// there was no link in time. If the link is lost before the answer, a robust connection sends the request again on the
    /// next one where that is harmless, and otherwise it fails with the reason of the loss. [`ErrorKind::Unsupported`],
    /// with nothing sent, for `connection` methods, opening and closing channels, `basic.consume` and `basic.cancel`,
    /// which need bookkeeping here, for transactions on a robust connection, and for requests with `no_wait`: see
    /// [`call_no_wait`](Self::call_no_wait).
    ///
    /// # Cancel safety
    /// On a plain connection: dropped before it was sent, it was not sent. Afterwards the server acts on it, and its reply
    /// is not taken for another call's. On a robust connection it goes on in the background.
    pub async fn call<M: Request>(&self, request: M) -> Result<M::Reply> {
        self.check_raw::<M>()?;
        if request.no_wait() {
            return Err(unsupported("a request with no_wait has no reply: use call_no_wait"));
        }
        self.request(request).await
    }

    /// Sends a request whose `no_wait` is set: the server acts on it and does not answer. An error closes
    /// the channel. On a robust connection the request is recorded, as with [`call`](Self::call).
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if `no_wait` is not set, where [`call`](Self::call) gives it, or for a
    /// `queue.declare` without a name: nobody would learn the one that the server makes up.
    /// [`ErrorKind::NotSent`] on a robust connection while there is no link.
    pub fn call_no_wait<M: Request>(&self, request: &M) -> Result<()> {
        self.check_raw::<M>()?;
        if !request.no_wait() {
            return Err(unsupported("a request without no_wait has a reply: use call"));
        }
        match (request.clone().into(), &self.kind) {
            (Method::QueueDeclare(declare), _) if declare.queue.is_empty() => {
                Err(unsupported("the name of a server-named queue would stay unknown"))
            }
            (_, Kind::Single(channel)) => channel.send(request),
            (_, Kind::Robust(channel)) => channel.send(request),
        }
    }

    /// Closes the channel and waits for the server's answer. Pending operations on it fail with
    /// [`ErrorKind::Closed`]; consumers' streams end, and what they had not acknowledged is delivered again.
    /// What was declared on it stays, and a robust connection goes on restoring it. The second time does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the server does not answer in time; the channel is closed all the same.
    ///
    /// # Cancel safety
    /// Once it was sent, the channel closes.
    pub async fn close(&self) -> Result<()> {
        match &self.kind {
            Kind::Single(channel) => channel.close().await,
            Kind::Robust(channel) => channel.close().await,
        }
    }

    /// Waits until the channel has ended for good, and tells why: [`ErrorKind::Closed`] after [`close`](Self::close) or
    /// the connection's.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn closed(&self) -> Error {
        match &self.kind {
            Kind::Single(channel) => channel.closed().await,
            Kind::Robust(channel) => channel.closed().await,
        }
    }

    /// Whether the channel has not ended for good. One of a robust connection may wait for a link.
    pub fn is_open(&self) -> bool {
        match &self.kind {
            Kind::Single(channel) => channel.is_open(),
            Kind::Robust(channel) => channel.is_open(),
        }
    }

    // For the builders.

    pub(super) async fn request<M: Request>(&self, request: M) -> Result<M::Reply> {
        match &self.kind {
            Kind::Single(channel) => channel.request(request).await,
            Kind::Robust(channel) => channel.request(request).await,
        }
    }

    pub(super) async fn consume(&self, spec: ConsumeSpec) -> Result<Consumer> {
        let kind = match &self.kind {
            Kind::Single(channel) => ConsumerKind::Single(channel.consume(spec).await?),
            Kind::Robust(channel) => ConsumerKind::Robust(channel.consume(spec).await?),
        };
        Ok(Consumer { kind })
    }

    pub(super) async fn get(&self, method: basic::Get) -> Result<Option<Delivery>> {
        match &self.kind {
            Kind::Single(channel) => channel.get(method).await,
            Kind::Robust(channel) => channel.get(method).await,
        }
    }

    /// Waits until everything that was handed over is written.
    pub(super) async fn flush(&self) {
        match &self.kind {
            Kind::Single(channel) => channel.flush().await,
            Kind::Robust(channel) => channel.flush().await,
        }
    }

    /// The name of a queue, as its handles see it.
    pub(super) fn name(&self, name: ShortStr) -> Name {
        match &self.kind {
            Kind::Single(_) => Name::new(name),
            Kind::Robust(channel) => channel.name(name),
        }
    }

    /// Refuses what needs bookkeeping that raw calls do not do.
    fn check_raw<M: Arguments>(&self) -> Result<()> {
        match M::ID {
            basic::Consume::ID => Err(unsupported("basic.consume: use Queue::consume")),
            basic::Cancel::ID => Err(unsupported("basic.cancel: use Consumer::cancel")),
            channel::Open::ID | channel::Close::ID => {
                Err(unsupported("channels are opened and closed by Connection::channel and Channel::close"))
            }
            id if id.class == connection::CLASS_ID => {
                Err(unsupported("methods of class connection are not for channels"))
            }
            id if id.class == tx::CLASS_ID && matches!(self.kind, Kind::Robust(_)) => {
                Err(unsupported("transactions do not outlive a connection: use a plain one (lepus::connect)"))
            }
            _ => Ok(()),
        }
    }
}

fn unsupported(text: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, text)
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("number", &self.number()).field("is_open", &self.is_open()).finish()
    }
}
