//! A channel: declares, consumes, publishes.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::task::{Poll, Waker};

use super::carrier::private::Operations;
use super::carrier::{BoxFuture, Carrier, Outbound};
use super::confirm::{Confirm, told};
use super::consumer::{ConsumeSpec, Consumer};
use super::delivery::{Acks, Delivery};
use super::exchange::{DeclareExchange, Exchange, ExchangeKind};
use super::message::Message;
use super::queue::{DeclareQueue, Queue};
use super::returned::{Returns, Stray};
use crate::codec::generated::{basic, channel, confirm, connection, tx};
use crate::codec::{Arguments, Method, Request, ShortStr};
use crate::driver::channel::{Asked, ChannelLink, Sent};
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
pub struct Channel {
    inner: Arc<ChannelInner>,
    /// Of how many failures this handle has told, that no `Confirm` tells.
    heard: AtomicU64,
}

/// What deliveries, confirms and consumers keep of their channel.
#[derive(Debug)]
pub(crate) struct ChannelInner {
    pub link: ChannelLink,
    prefetch: AtomicU16,
    /// Counts acks that came too late, where whoever opened the channel wants them told as stale.
    pub stale: Option<Arc<AtomicU64>>,
}

/// Opens a channel when awaited; see [`Connection::channel`](super::Connection::channel).
#[derive(Debug)]
#[must_use = "a channel is opened when this is awaited"]
pub struct OpenChannel<'a> {
    link: &'a Arc<Link>,
    confirms: bool,
    stale: Option<Arc<AtomicU64>>,
}

impl<'a> OpenChannel<'a> {
    pub(super) fn new(link: &'a Arc<Link>) -> Self {
        Self { link, confirms: true, stale: None }
    }

    /// Without publisher confirms: a publish counts as done when it is handed over, and nobody will know
    /// whether it arrived.
    pub fn without_confirms(mut self) -> Self {
        self.confirms = false;
        self
    }

    /// Acks on the channel after its end are [`Settled::Stale`](super::Settled::Stale), and counted here.
    pub(crate) fn stale(mut self, counter: Arc<AtomicU64>) -> Self {
        self.stale = Some(counter);
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
            Ok(Channel::of(&Arc::new(ChannelInner { link, prefetch, stale: self.stale })))
        })
    }
}

impl Clone for Channel {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), heard: AtomicU64::new(self.heard.load(Ordering::Relaxed)) }
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
    /// dropped: the first such error since the last call on this handle. Each clone of a channel is told for itself, so
    /// tasks that publish on clones all hear of it. What an awaited `Confirm` tells is not told again here. If the
    /// channel ends first, the reason.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_for_confirms(&self) -> Result<()> {
        let number = self.inner.link.last_published()?;
        if number == 0 {
            return Ok(());
        }
        let heard = self.heard.load(Ordering::Relaxed);
        let (outcome, count) = self.inner.link.drained(number, heard).await?;
        self.heard.fetch_max(count, Ordering::Relaxed);
        told(outcome)
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

    // For a channel that outlives this one.

    /// Whether both are handles of one channel.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Closes the channel without waiting for the server's answer.
    pub(crate) fn close_now(&self) {
        self.inner.link.close_now();
    }

    /// The channel of a consumer.
    pub(super) fn of(inner: &Arc<ChannelInner>) -> Self {
        Self { inner: Arc::clone(inner), heard: AtomicU64::new(0) }
    }

    /// Whether a publish is not settled whose `Confirm` was dropped.
    pub(crate) fn has_unheard(&self) -> bool {
        self.inner.link.has_abandoned()
    }

    /// As [`closed`](Self::closed), without keeping the channel open. What was settled before the end can then
    /// be [asked](Self::is_settled).
    pub(crate) fn over(&self) -> impl Future<Output = Error> + Send + use<> {
        let state = Arc::clone(&self.inner.link.state);
        async move { state.over().await }
    }

    /// All publishes with a lower number are settled. Stays where it was after the end.
    pub(crate) fn settled_below(&self) -> u64 {
        self.inner.link.settled_below()
    }

    /// Whether a publish is settled, whatever became of it.
    pub(crate) fn is_settled(&self, number: u64) -> bool {
        self.inner.link.is_settled(number)
    }

    /// Hands a message over at once, without a [`Confirm`]: that, or an answer to [`ask`](Self::ask), is to be had for
    /// what this returns. `None` where it would have to wait.
    #[inline]
    pub(crate) fn try_send(&self, outbound: &Outbound<'_>, message: &Message) -> Result<Option<Sent>> {
        self.inner.link.try_publish(&outbound.publish(message)?, outbound.awaited)
    }

    #[inline]
    pub(crate) fn confirm(&self, sent: Sent) -> Confirm {
        Confirm::new(&self.inner, sent.number)
    }

    /// All publishes with a lower number were acked, or their failure was told. Costs no lock.
    pub(crate) fn acked_below(&self) -> u64 {
        self.inner.link.acked_below()
    }

    /// What became of a publish; `None` if the channel ends or has ended first. Wakes nobody, so that it may be called
    /// under a lock.
    pub(crate) fn ask(&self, number: u64, waker: &Waker) -> Option<Poll<Result<()>>> {
        match self.inner.link.ask_confirm(number, waker) {
            Asked::Told(outcome) => Some(Poll::Ready(told(outcome))),
            Asked::Waits => Some(Poll::Pending),
            Asked::Ending | Asked::Ended => None,
        }
    }

    /// Nobody will [`ask`](Self::ask) for this publish. Returns the message if it has come back before.
    pub(crate) fn abandon(&self, number: u64) -> Option<Stray> {
        let returned = self.inner.link.abandon(number)?;
        Some(Stray::new(Arc::clone(&self.inner), returned))
    }

    /// What was nacked or returned, and not told yet: from now on nobody else tells it.
    pub(crate) fn take_failures(&self) -> impl Iterator<Item = (u64, Error)> + use<> {
        let failures = self.inner.link.take_failures();
        failures.into_iter().filter_map(|(number, outcome)| Some((number, told(outcome).err()?)))
    }

    /// Waits until all publishes up to this one are settled, or the channel has ended.
    pub(crate) async fn settled(&self, number: u64) -> Result<()> {
        self.inner.link.settled(number).await
    }

    /// The first failure of a publish whose `Confirm` was dropped, which is told once.
    pub(crate) fn take_failure(&self) -> Result<()> {
        self.inner.link.take_failure().map_or(Ok(()), told)
    }

    /// Waits until there may be room again for a publish: for what happens from now on.
    pub(crate) fn credit(&self) -> impl Future<Output = ()> + Send + '_ {
        self.inner.link.credit()
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
    type Consumer = Consumer;
    type Confirm = Confirm;

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
        let acks = || Arc::new(Acks::new(Arc::clone(&self.inner), method.no_ack));
        Ok(delivery.map(|delivery| Delivery::new(delivery, &acks())))
    }

    #[inline]
    fn try_enqueue(&self, outbound: &Outbound<'_>, message: &mut Message) -> Result<Option<Confirm>> {
        Ok(self.try_send(outbound, message)?.map(|sent| self.confirm(sent)))
    }

    async fn enqueue(&self, outbound: &Outbound<'_>, message: &mut Message) -> Result<Confirm> {
        let sent = self.inner.link.publish(&outbound.publish(message)?, outbound.awaited).await?;
        Ok(self.confirm(sent))
    }

    async fn flush(&self) {
        self.inner.link.flush().await;
    }
}

impl Outbound<'_> {
    /// As the layers below want it.
    #[inline]
    fn publish<'a>(&'a self, message: &'a Message) -> Result<Publish<'a>> {
        let (properties, body) = message.parts()?;
        let (exchange, routing_key) = (self.exchange.as_bytes(), self.routing_key.as_bytes());
        Ok(Publish { exchange, routing_key, mandatory: self.mandatory, properties, body })
    }
}

/// Refuses what needs bookkeeping that raw calls do not do.
pub(crate) fn check_raw<M: Arguments>() -> Result<()> {
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

fn unsupported(text: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, text)
}

/// A short string from what the user gave, or the error that names it.
pub(crate) fn short(what: &str, name: impl TryInto<ShortStr>) -> Result<ShortStr> {
    name.try_into().map_err(|_| {
        Error::new(
            ErrorKind::Argument,
            format!("{what} has more than 255 bytes, which is the most that AMQP allows"),
        )
    })
}
