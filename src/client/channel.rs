//! A channel: declares, consumes, publishes.

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use super::carrier::private::Operations;
use super::carrier::{BoxFuture, Carrier, Outbound};
use super::confirm::{Confirm, told};
use super::consumer::{ConsumeSpec, Consumer};
use super::delivery::Delivery;
use super::exchange::{DeclareExchange, Exchange, ExchangeKind};
use super::queue::{DeclareQueue, Queue};
use super::returned::Returns;
use crate::codec::generated::{basic, channel, confirm, connection, tx};
use crate::codec::{Arguments, Method, Request, ShortStr};
use crate::driver::channel::ChannelLink;
use crate::driver::link::Link;
use crate::error::{Error, ErrorKind, Result};
use crate::mux::publish::Publish;

/// How many unacknowledged deliveries a consumer may have, unless it or its channel says otherwise.
///
/// `RabbitMQ`'s own default is no limit: one consumer can be sent a whole queue at once.
const DEFAULT_PREFETCH: u16 = 250;

/// A channel: a cheap handle, to be cloned and shared between tasks.
///
/// It stays open as long as something uses it: a clone, an exchange, a queue, a consumer, a delivery.
/// When the last of these is dropped it closes in the background; [`close`](Self::close) closes it now.
/// An error that the server answers with a close of the channel, such as 404 for a queue that does not
/// exist, ends the channel with all its consumers; open a new one.
#[derive(Clone)]
pub struct Channel {
    inner: Arc<ChannelInner>,
}

/// What deliveries, confirms and consumers keep of their channel.
#[derive(Debug)]
pub(crate) struct ChannelInner {
    pub link: ChannelLink,
    prefetch: AtomicU16,
}

/// Opens a channel when awaited; see [`Connection::channel`](super::Connection::channel).
#[derive(Debug)]
#[must_use = "a channel is opened when this is awaited"]
pub struct OpenChannel<'a> {
    link: &'a Arc<Link>,
    confirms: bool,
}

impl<'a> OpenChannel<'a> {
    pub(super) fn new(link: &'a Arc<Link>) -> Self {
        Self { link, confirms: true }
    }

    /// Without publisher confirms: a publish counts as done when it is handed over, and nobody will know
    /// whether it arrived.
    pub fn without_confirms(mut self) -> Self {
        self.confirms = false;
        self
    }
}

impl<'a> IntoFuture for OpenChannel<'a> {
    type Output = Result<Channel>;
    type IntoFuture = BoxFuture<'a, Result<Channel>>;

    /// Opens the channel.
    ///
    /// Fails with [`ErrorKind::NoFreeChannel`], or as the connection does. Cancel safe: a channel that
    /// nobody waits for any more is closed again.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let link = ChannelLink::open(Arc::clone(self.link)).await?;
            if self.confirms {
                link.call(&confirm::Select { no_wait: false }).await?;
            }
            let prefetch = AtomicU16::new(DEFAULT_PREFETCH);
            Ok(Channel { inner: Arc::new(ChannelInner { link, prefetch }) })
        })
    }
}

impl Channel {
    /// Declares an exchange: creates it if it does not exist.
    pub fn declare_exchange(
        &self,
        name: impl TryInto<ShortStr>,
        kind: impl Into<ExchangeKind>,
    ) -> DeclareExchange<'_, Self> {
        DeclareExchange::new(self, name, kind.into())
    }

    /// An exchange that exists, or that nobody needs to declare, without asking the server.
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
    pub fn declare_queue(&self, name: impl TryInto<ShortStr>) -> DeclareQueue<'_, Self> {
        DeclareQueue::new(self, name)
    }

    /// A queue that exists, without asking the server.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] if the name has more than 255 bytes.
    pub fn queue(&self, name: impl TryInto<ShortStr>) -> Result<Queue> {
        Ok(Queue::new(self.clone(), short("the queue's name", name)?))
    }

    /// How many unacknowledged deliveries each consumer that starts later on this channel may have, where
    /// the consumer itself says nothing; 0 for no limit. 250 unless set.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Cancel safety
    /// Once it was sent, the server acts on it.
    pub async fn qos(&self, prefetch_count: u16) -> Result<()> {
        self.inner.prefetch.store(prefetch_count, Ordering::Relaxed);
        self.call(basic::Qos { prefetch_size: 0, prefetch_count, global: false }).await.map(drop)
    }

    /// Waits until everything that was published on this channel so far is confirmed. At once on a
    /// channel without confirms.
    ///
    /// # Errors
    /// [`ErrorKind::Nacked`] or [`ErrorKind::Returned`] if that became of a message whose [`Confirm`] was
    /// dropped; the first such error since the last call. What an awaited `Confirm` tells is not told again
    /// here. If the channel ends first, the reason.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_for_confirms(&self) -> Result<()> {
        let number = self.inner.link.last_published()?;
        if number == 0 {
            return Ok(());
        }
        told(self.inner.link.drained(number).await?)
    }

    /// Messages that came back because they were mandatory and reached no queue, and that no [`Confirm`]
    /// tells of: on a channel without confirms, or when the `Confirm` was dropped. Returned messages are kept
    /// only while somebody listens, and at most 1,024 of them.
    pub fn returns(&self) -> Returns {
        Returns::new(Arc::clone(&self.inner))
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
    /// As [`call`](Self::call); 406 without [`tx_select`](Self::tx_select).
    ///
    /// # Cancel safety
    /// Once it was sent, the server acts on it.
    pub async fn tx_commit(&self) -> Result<()> {
        self.call(tx::Commit).await.map(drop)
    }

    /// Forgets publishes and acks since the last commit or rollback. Deliveries stay unacknowledged.
    ///
    /// # Errors
    /// As [`call`](Self::call); 406 without [`tx_select`](Self::tx_select).
    ///
    /// # Cancel safety
    /// Once it was sent, the server acts on it.
    pub async fn tx_rollback(&self) -> Result<()> {
        self.call(tx::Rollback).await.map(drop)
    }

    /// Sends any request of the protocol and waits for its reply: for what has no method of its own here.
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
    /// channel is gone. [`ErrorKind::Timeout`] if it does not answer in time. [`ErrorKind::Unsupported`], with nothing
    /// sent, for `connection` methods, opening and closing channels, `basic.consume` and `basic.cancel`, which need
    /// bookkeeping here, and for requests with `no_wait`: see [`call_no_wait`](Self::call_no_wait).
    ///
    /// # Cancel safety
    /// Dropped before it was sent, it was not sent. Afterwards the server acts on it, and its reply is not
    /// taken for another call's.
    pub async fn call<M: Request>(&self, request: M) -> Result<M::Reply> {
        check_raw::<M>()?;
        if request.no_wait() {
            return Err(unsupported("a request with no_wait has no reply: use call_no_wait"));
        }
        self.inner.link.call(&request).await
    }

    /// Sends a request whose `no_wait` is set: the server acts on it and does not answer. An error closes
    /// the channel.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if `no_wait` is not set, where [`call`](Self::call) gives it, or for a
    /// `queue.declare` without a name: nobody would learn the one that the server makes up.
    pub fn call_no_wait<M: Request>(&self, request: &M) -> Result<()> {
        check_raw::<M>()?;
        if !request.no_wait() {
            return Err(unsupported("a request without no_wait has a reply: use call"));
        }
        match request.clone().into() {
            Method::QueueDeclare(declare) if declare.queue.is_empty() => {
                Err(unsupported("the name of a server-named queue would stay unknown"))
            }
            _ => self.inner.link.send(request),
        }
    }

    /// Closes the channel: tells the server, and waits for its answer. Whoever waits for anything on it
    /// gets [`ErrorKind::Closed`]; consumers' streams end, and what they had not acknowledged is delivered again.
    /// The second time does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the server does not answer in time; the channel is closed all the same.
    ///
    /// # Cancel safety
    /// Once it was sent, the channel closes.
    pub async fn close(&self) -> Result<()> {
        self.inner.link.close().await
    }

    /// Waits until the channel has ended, and tells why: [`ErrorKind::Closed`] after [`close`](Self::close).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn closed(&self) -> Error {
        self.inner.link.ended().await
    }

    /// Whether calls are still accepted.
    pub fn is_open(&self) -> bool {
        self.inner.link.state.error().is_none()
    }

    /// The channel's number.
    pub fn id(&self) -> u16 {
        self.inner.link.state.key.id.get()
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("id", &self.id()).field("is_open", &self.is_open()).finish()
    }
}

impl Carrier for Channel {}

impl Operations for Channel {
    async fn request<M: Request>(&self, request: M) -> Result<M::Reply> {
        self.inner.link.call(&request).await
    }

    async fn consume(&self, spec: ConsumeSpec) -> Result<Consumer> {
        let prefetch = spec.prefetch.unwrap_or_else(|| self.inner.prefetch.load(Ordering::Relaxed));
        // without acks there is nothing to limit
        let prefetch = (!spec.method.no_ack).then_some(prefetch);
        let queue = self.inner.link.consume(prefetch, &spec.method).await?;
        Ok(Consumer::new(Arc::clone(&self.inner), queue))
    }

    async fn get(&self, method: basic::Get) -> Result<Option<Delivery>> {
        let delivery = self.inner.link.get(&method).await?;
        Ok(delivery.map(|delivery| Delivery::new(delivery, &self.inner, method.no_ack)))
    }

    fn try_enqueue(&self, outbound: Outbound<'_>) -> Result<Option<Confirm>> {
        let sent = self.inner.link.try_publish(outbound.publish()?, outbound.awaited)?;
        Ok(sent.map(|sent| Confirm::new(&self.inner, sent.number)))
    }

    async fn enqueue(&self, outbound: Outbound<'_>) -> Result<Confirm> {
        let sent = self.inner.link.publish(outbound.publish()?, outbound.awaited).await?;
        Ok(Confirm::new(&self.inner, sent.number))
    }
}

impl<'a> Outbound<'a> {
    /// As the layers below want it.
    fn publish(self) -> Result<Publish<'a>> {
        let Self { exchange, routing_key, mandatory, message, .. } = self;
        let (properties, body) = message.parts()?;
        Ok(Publish { exchange: exchange.as_bytes(), routing_key, mandatory, properties, body })
    }
}

/// Refuses what needs bookkeeping that raw calls do not do.
fn check_raw<M: Arguments>() -> Result<()> {
    match M::ID {
        basic::Consume::ID => Err(unsupported("basic.consume: use Queue::consume")),
        basic::Cancel::ID => Err(unsupported("basic.cancel: use Consumer::cancel")),
        channel::Open::ID | channel::Close::ID => {
            Err(unsupported("channels are opened and closed by Connection::channel and Channel::close"))
        }
        id if id.class == connection::CLASS_ID => {
            Err(unsupported("methods of class connection are not for channels"))
        }
        _ => Ok(()),
    }
}

fn unsupported(text: &str) -> Error {
    Error::new(ErrorKind::Unsupported, text)
}

/// A short string from what the user gave, or the error that names it.
pub(super) fn short(what: &str, name: impl TryInto<ShortStr>) -> Result<ShortStr> {
    name.try_into().map_err(|_| Error::new(ErrorKind::Argument, format!("{what} has more than 255 bytes")))
}
