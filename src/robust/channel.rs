//! A channel that outlives its connection.

use std::any::Any;
use std::fmt;
use std::future::IntoFuture;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::backoff::Pace;
use super::call::Call;
use super::consumer::{Consumer, ConsumerInner};
use super::live::Live;
use super::record::{is_idempotent, is_transaction, record, translate};
use super::returns::{Hub, Returns};
use super::shared::{Command, Handle, Phase, Shared, detached};
use super::unconfirmed::Unconfirmed;
use crate::client::carrier::private::Operations;
use crate::client::carrier::{BoxFuture, Carrier, Outbound};
use crate::client::channel::{check_raw, short};
use crate::client::consumer::ConsumeSpec;
use crate::client::name::Name;
use crate::client::{
    Channel as Plain, Connection as PlainConnection, DeclareExchange, DeclareQueue, Delivery, Exchange,
    ExchangeKind, Message, Queue,
};
use crate::codec::ShortStr;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Arguments, Method, Request, basic, queue};

/// A channel of a robust connection: a cheap handle, to be cloned and shared between tasks.
///
/// It has the operations of the plain [`Channel`](crate::Channel), and the same builders behind them. After a loss, or
/// when the server has closed it, it is opened again with what was set on it. Calls wait meanwhile, for as
/// long as a call may take ([`rpc_timeout`](crate::ConnectOptions::rpc_timeout)).
///
/// It stays open as long as something uses it: a clone, an exchange, a queue, a consumer.
#[derive(Clone)]
pub struct Channel {
    pub(super) inner: Arc<ChannelInner>,
}

#[derive(Debug)]
pub(super) struct ChannelInner {
    pub id: u64,
    pub handle: Arc<Handle>,
    pub confirms: bool,
    /// Whether messages are kept to be published again.
    pub retains: bool,
    /// All kept messages before this one were acked, or their failure was told: to see that costs no lock.
    pub acked_below: AtomicU64,
    /// One call at a time, so that an error belongs to the call that is under way.
    pub turn: tokio::sync::Mutex<()>,
    /// Only who publishes what is not kept reads and does not change it.
    core: RwLock<Core>,
    /// Wakes whoever waits for another phase.
    pub changed: Notify,
    pub returns: Hub,
}

#[derive(Debug)]
pub(super) struct Core {
    pub phase: Phase<Plain>,
    /// Which plain channel it is: one more with each.
    pub generation: u64,
    /// The link that the plain channel is on.
    pub epoch: u64,
    /// Since when there is this plain channel.
    pub since: Instant,
    /// How soon the next one follows.
    pub pace: Pace,
    /// As set by [`Channel::qos`].
    pub prefetch: Option<u16>,
    /// The limit for the whole channel, where that was set by a raw call.
    pub prefetch_global: Option<u16>,
    /// The queue that was declared last.
    pub last_queue: ShortStr,
    pub consumers: Vec<Arc<ConsumerInner>>,
    /// Those that the user has cancelled, and may still take from.
    pub cancelled: Vec<Weak<ConsumerInner>>,
    pub next_consumer: u64,
    pub unconfirmed: Unconfirmed,
    /// The first failure of a message that nobody asked for, from plain channels that have ended.
    pub failure: Option<Error>,
}

/// Opens a channel when awaited; see [`Connection::channel`](super::Connection::channel).
#[derive(Debug)]
#[must_use = "a channel is opened when this is awaited"]
pub struct OpenChannel<'a> {
    handle: &'a Arc<Handle>,
    confirms: bool,
}

impl<'a> OpenChannel<'a> {
    pub(super) fn new(handle: &'a Arc<Handle>) -> Self {
        Self { handle, confirms: true }
    }

    /// Without publisher confirms: a publish counts as done when it is handed over, and what was under way at a loss
    /// is lost.
    pub fn without_confirms(mut self) -> Self {
        self.confirms = false;
        self
    }
}

impl<'a> IntoFuture for OpenChannel<'a> {
    type Output = Result<Channel>;
    type IntoFuture = BoxFuture<'a, Result<Channel>>;

    /// Opens the channel, and waits for the link before that, as long as a call may take.
    ///
    /// Fails with [`ErrorKind::NoFreeChannel`], or when the connection has ended. Cancel safe: a channel that
    /// nobody waits for any more is closed again.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let shared = &self.handle.shared;
            let deadline = shared.deadline();
            loop {
                let (link, epoch) = shared.up(deadline).await?;
                match open(shared, &link, self.confirms).await {
                    Ok(plain) => {
                        if let Some(inner) = ChannelInner::adopt(self.handle, plain, epoch, self.confirms) {
                            return Ok(Channel { inner });
                        }
                    }
                    Err(error) if link.is_open() => return Err(error),
                    Err(_) => {}
                }
            }
        })
    }
}

/// Opens a plain channel for a robust one.
pub(super) async fn open(shared: &Shared, link: &PlainConnection, confirms: bool) -> Result<Plain> {
    let open = link.channel().stale(Arc::clone(&shared.stale_acks));
    if confirms { open.await } else { open.without_confirms().await }
}

impl Shared {
    /// When a call that begins now has taken too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        // one that lies too far ahead is none
        self.settings.call_limit.and_then(|limit| Instant::now().checked_add(limit))
    }
}

impl ChannelInner {
    /// Makes a channel of a plain one, unless its link has been lost meanwhile.
    fn adopt(handle: &Arc<Handle>, plain: Plain, epoch: u64, confirms: bool) -> Option<Arc<Self>> {
        let over = plain.over();
        let inner = {
            let mut state = handle.shared.lock();
            if state.epoch != epoch || !matches!(state.phase, Phase::Up(_)) {
                return None;
            }
            let id = state.next_channel;
            state.next_channel += 1;
            let retains = confirms && handle.shared.settings.republish;
            let mut unconfirmed = Unconfirmed::default();
            if retains {
                unconfirmed.follow(&plain);
                unconfirmed.followed();
            }
            let core = Core {
                phase: Phase::Up(plain),
                generation: 1,
                epoch,
                since: Instant::now(),
                pace: Pace::new(handle.shared.options().backoff),
                prefetch: None,
                prefetch_global: None,
                last_queue: ShortStr::empty(),
                consumers: Vec::new(),
                cancelled: Vec::new(),
                next_consumer: 1,
                unconfirmed,
                failure: None,
            };
            let inner = Arc::new(Self {
                id,
                handle: Arc::clone(handle),
                confirms,
                retains,
                acked_below: AtomicU64::new(0),
                turn: tokio::sync::Mutex::new(()),
                core: RwLock::new(core),
                changed: Notify::new(),
                returns: Hub::default(),
            });
            state.channels.insert(id, Arc::downgrade(&inner));
            inner
        };
        inner.watch(over, 1);
        Some(inner)
    }

    /// Tells the supervisor when the plain channel has ended.
    pub(super) fn watch(
        self: &Arc<Self>,
        over: impl Future<Output = Error> + Send + 'static,
        generation: u64,
    ) {
        let (channel, commands) = (Arc::downgrade(self), self.shared().commands.clone());
        let watch = async move {
            let error = over.await;
            // refused: the supervisor has ended
            drop(commands.send(Command::ChannelEnded { channel, generation, error }));
        };
        tokio::spawn(watch);
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    pub(super) fn lock(&self) -> RwLockWriteGuard<'_, Core> {
        self.core.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Core> {
        self.core.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Performs a request on the link, and records it. Waits for the link, and tries again after a loss where that
    /// is harmless.
    async fn perform<M: Request>(self: Arc<Self>, request: M) -> Result<M::Reply> {
        let mut call = Call::begin(&self, M::ID, is_idempotent(&request.clone().into())).await?;
        loop {
            let live = call.live().await?;
            let request = translate(&self.shared().lock().topology, &self.last_queue(), &request);
            match live.plain.request(request.clone()).await {
                Ok(reply) if self.record(&live, request.into(), Some(&reply)) => return Ok(reply),
                // the link was lost before it was recorded
                Ok(_) => {}
                Err(error) => call.failed(&live, error)?,
            }
        }
    }

    /// Takes a message.
    async fn take(&self, method: basic::Get) -> Result<Option<Delivery>> {
        // without acks a message whose delivery was lost is lost
        let mut call = Call::begin(self, <basic::Get as Arguments>::ID, !method.no_ack).await?;
        loop {
            let live = call.live().await?;
            let queue = self.current_queue(&method.queue);
            match live.plain.get(basic::Get { queue, ..method.clone() }).await {
                Ok(mut delivery) => {
                    if let Some(delivery) = delivery.as_mut().filter(|_| !method.no_ack) {
                        delivery.hold(Box::new(self.shared().in_flight.token()));
                    }
                    return Ok(delivery);
                }
                Err(error) => call.failed(&live, error)?,
            }
        }
    }

    /// What a queue of this name is called now; an empty name means the queue that was declared last.
    pub(super) fn current_queue(&self, name: &ShortStr) -> ShortStr {
        let state = self.shared().lock();
        let last = self.last_queue();
        state.topology.current(if name.is_empty() { &last } else { name }).clone()
    }

    /// Records what the server has agreed to, unless the link is another one by now.
    fn record(&self, live: &Live, request: Method, reply: Option<&dyn Any>) -> bool {
        let mut state = self.shared().lock();
        if state.epoch != live.epoch {
            return false;
        }
        if let Some(ok) = reply.and_then(|reply| reply.downcast_ref::<queue::DeclareOk>()) {
            self.lock().last_queue = ok.queue.detach();
        }
        if let Method::BasicQos(qos) = &request {
            let mut core = self.lock();
            let limit = if qos.global { &mut core.prefetch_global } else { &mut core.prefetch };
            *limit = Some(qos.prefetch_count);
        }
        record(&mut state.topology, request, reply);
        true
    }

    pub(super) fn last_queue(&self) -> ShortStr {
        self.lock().last_queue.clone()
    }
}

impl Drop for ChannelInner {
    fn drop(&mut self) {
        let core = self.core.get_mut().unwrap_or_else(PoisonError::into_inner);
        let bytes = core.unconfirmed.reserved();
        let shared = &self.handle.shared;
        shared.release(bytes);
        let mut state = shared.lock();
        state.channels.remove(&self.id);
        state.topology.close_channel(self.id);
    }
}

impl Channel {
    /// Declares an exchange; see [`Channel::declare_exchange`](crate::Channel::declare_exchange).
    pub fn declare_exchange(
        &self,
        name: impl TryInto<ShortStr>,
        kind: impl Into<ExchangeKind>,
    ) -> DeclareExchange<'_, Self> {
        DeclareExchange::new(self, name, kind.into())
    }

    /// An exchange that exists, or that nobody needs to declare, without asking the server. It is not restored.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] if the name has more than 255 bytes.
    pub fn exchange(&self, name: impl TryInto<ShortStr>) -> Result<Exchange<Self>> {
        Ok(Exchange::new(self.clone(), short("the exchange's name", name)?))
    }

    /// The default exchange: it takes every message to the queue that has the routing key as its name.
    pub fn default_exchange(&self) -> Exchange<Self> {
        Exchange::new(self.clone(), ShortStr::empty())
    }

    /// Declares a queue; see [`Channel::declare_queue`](crate::Channel::declare_queue).
    pub fn declare_queue(&self, name: impl TryInto<ShortStr>) -> DeclareQueue<'_, Self> {
        DeclareQueue::new(self, name)
    }

    /// Its number on the connection: 1 for the first that was opened, then 2, … It stays when the channel is opened again;
    /// see [`Entity::Channel`](super::Entity::Channel).
    pub fn number(&self) -> u64 {
        self.inner.id
    }

    /// A queue that exists, without asking the server. It is not restored, but its bindings and consumers are.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] if the name has more than 255 bytes.
    pub fn queue(&self, name: impl TryInto<ShortStr>) -> Result<Queue<Self>> {
        Ok(Queue::new(self.clone(), short("the queue's name", name)?))
    }

    /// How many unacknowledged deliveries each consumer that starts later on this channel may have, where
    /// the consumer itself says nothing; 0 for no limit. 250 unless set.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Cancel safety
    /// Dropped, it goes on in the background.
    pub async fn qos(&self, prefetch_count: u16) -> Result<()> {
        self.inner.lock().prefetch = Some(prefetch_count);
        self.call(basic::Qos { prefetch_size: 0, prefetch_count, global: false }).await.map(drop)
    }

    /// Waits until everything that was published on this channel so far is confirmed, whatever happens to the link
    /// meanwhile. At once on a channel without confirms.
    ///
    /// # Errors
    /// As [`Channel::wait_for_confirms`](crate::Channel::wait_for_confirms); a loss is none, unless messages
    /// are not published again.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_for_confirms(&self) -> Result<()> {
        self.inner.settled().await?;
        self.inner.take_failure()
    }

    /// Messages that came back because they were mandatory and reached no queue, and that no confirm tells of; see
    /// [`Channel::returns`](crate::Channel::returns).
    pub fn returns(&self) -> Returns {
        Returns::new(Arc::clone(&self.inner))
    }

    /// Asks the server to deliver again everything that is not acknowledged on this channel.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Cancel safety
    /// Dropped, it goes on in the background.
    pub async fn recover(&self) -> Result<()> {
        self.call(basic::Recover { requeue: true }).await.map(drop)
    }

    /// Sends any request of the protocol and waits for its reply. What declares, binds, unbinds or deletes is
    /// recorded as if it were done with the methods for it.
    ///
    /// # Errors
    /// As [`Channel::call`](crate::Channel::call); [`ErrorKind::Timeout`] also if there was no link in time;
    /// [`ErrorKind::Unsupported`] also for transactions. If the link is lost before the answer, it is sent again on
    /// the next one where that is harmless, and otherwise fails with the reason of the loss.
    ///
    /// # Cancel safety
    /// Dropped, it goes on in the background.
    pub async fn call<M: Request>(&self, request: M) -> Result<M::Reply> {
        check_raw::<M>()?;
        if request.no_wait() {
            return Err(unsupported("a request with no_wait has no reply: use call_no_wait"));
        }
        if is_transaction(&request.clone().into()) {
            return Err(unsupported("transactions do not outlive a connection: use the plain one"));
        }
        self.request(request).await
    }

    /// Sends a request whose `no_wait` is set: the server acts on it and does not answer. It is recorded, as with
    /// [`call`](Self::call). An error closes the channel, which is then opened again; what was recorded stays.
    ///
    /// # Errors
    /// As [`Channel::call_no_wait`](crate::Channel::call_no_wait), and [`ErrorKind::ConnectionLost`] while there
    /// is no link.
    pub fn call_no_wait<M: Request>(&self, request: &M) -> Result<()> {
        let live = self.inner.live_now()?;
        let request = translate(&self.inner.shared().lock().topology, &self.inner.last_queue(), request);
        live.plain.call_no_wait(&request)?;
        if self.inner.record(&live, request.into(), None) {
            Ok(())
        } else {
            Err(Error::new(
                ErrorKind::ConnectionLost,
                "the connection was lost while the request was sent; the server may have acted on it",
            ))
        }
    }

    /// Closes the channel: cancels its consumers, tells the server, and waits for its answer. What was declared on it
    /// stays recorded. Whoever waits for anything on it gets [`ErrorKind::Closed`]. The second time does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the server does not answer in time; the channel is closed all the same.
    ///
    /// # Cancel safety
    /// Once it was called, the channel closes.
    pub async fn close(&self) -> Result<()> {
        let error = Error::new(ErrorKind::Closed, "this program closed the channel");
        {
            let mut state = self.inner.shared().lock();
            state.channels.remove(&self.inner.id);
            state.topology.close_channel(self.inner.id);
        }
        match self.inner.end(&error) {
            Some(plain) => match plain.close().await {
                Err(error) if error.kind() == ErrorKind::Timeout => Err(error),
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// Waits until the channel has ended for good, and tells why: [`ErrorKind::Closed`] after
    /// [`close`](Self::close) or the connection's.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn closed(&self) -> Error {
        self.inner.ended().await
    }

    /// Whether the channel has not ended for good; it may wait for the link.
    pub fn is_open(&self) -> bool {
        !matches!(self.inner.lock().phase, Phase::Ended(_))
    }
}

pub(super) fn unsupported(text: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, text)
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("id", &self.inner.id).field("is_open", &self.is_open()).finish()
    }
}

impl Carrier for Channel {}

impl Operations for Channel {
    type Consumer = Consumer;
    type Confirm = super::confirm::Confirm;

    async fn request<M: Request>(&self, request: M) -> Result<M::Reply> {
        detached(Arc::clone(&self.inner).perform(request)).await
    }

    async fn consume(&self, spec: ConsumeSpec) -> Result<Consumer> {
        detached(Consumer::start(self.clone(), spec)).await
    }

    async fn get(&self, method: basic::Get) -> Result<Option<Delivery>> {
        self.inner.take(method).await
    }

    fn try_enqueue(&self, outbound: &Outbound<'_>, message: &mut Message) -> Result<Option<Self::Confirm>> {
        self.inner.try_publish(outbound, message)
    }

    async fn enqueue(&self, outbound: &Outbound<'_>, message: &mut Message) -> Result<Self::Confirm> {
        self.inner.publish(outbound, message).await
    }

    async fn flush(&self) {
        if let Ok(live) = self.inner.live_now() {
            live.plain.flush().await;
        }
    }

    fn name(&self, name: ShortStr) -> Name {
        self.inner.shared().lock().topology.name(name)
    }
}
