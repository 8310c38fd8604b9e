//! A channel that outlives its connection.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::ledger_wire::Publishes;
use super::robust_call::Call;
use super::robust_confirm::RobustConfirm;
use super::robust_consumer::{ConsumerInner, RobustConsumer};
use super::robust_returns::{Hub, RobustReturns};
use super::robust_state::{Command, Handle, Shared, State};
use crate::codec::ShortStr;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Arguments, Method, Request, basic, queue};
use crate::robust::backoff::Pace;
use crate::robust::ledger::lifecycle::{Incarnation, Lifecycle, Phase};
use crate::robust::ledger::policy::{policy, record, translate};
use crate::single::{ConsumeSpec, Delivery, Message, Name, Outbound, Settled, SingleChannel};

/// A channel that is opened again after a loss, or when the server has closed it, with what was set on it.
#[derive(Clone)]
pub(crate) struct RobustChannel {
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
    pub life: Lifecycle<SingleChannel>,
    /// The number of the plain channel, or of the last one: what the server's log calls it.
    pub number: u16,
    /// How many plain channels were opened for it, those that ended during a restore included.
    pub opened: u64,
    /// Since when there is this plain channel.
    pub since: Instant,
    /// How soon the next one follows.
    pub pace: Pace,
    /// As set by `basic.qos`.
    pub prefetch: Option<u16>,
    /// The limit for the whole channel, where that was set by a raw call.
    pub prefetch_global: Option<u16>,
    /// The queue that was declared last.
    pub last_queue: ShortStr,
    pub consumers: Vec<Arc<ConsumerInner>>,
    /// Those that the user has cancelled, and may still take from.
    pub cancelled: Vec<Weak<ConsumerInner>>,
    pub next_consumer: u64,
    pub unconfirmed: Publishes,
    /// The first failure of a message that nobody asked for, from plain channels that have ended.
    pub failure: Option<Error>,
}

impl RobustChannel {
    /// Opens a channel, and waits for the link before that, as long as a call may take. Cancel safe: a channel that nobody
    /// waits for any more is closed again.
    pub(super) async fn open(handle: &Arc<Handle>, confirms: bool) -> Result<Self> {
        let shared = &handle.shared;
        let deadline = shared.deadline();
        loop {
            let (link, incarnation) = shared.up(deadline).await?;
            match link.channel(confirms, tag_base(0)).await {
                Ok(plain) => {
                    shared.unanswered.end_row();
                    if let Some(inner) = ChannelInner::adopt(handle, plain, incarnation, confirms) {
                        return Ok(Self { inner });
                    }
                }
                Err(error) if link.is_open() => {
                    if error.kind() == ErrorKind::Timeout {
                        shared.unopened(&link, incarnation);
                    }
                    return Err(error);
                }
                Err(_) => {}
            }
        }
    }
}

/// What is added to the server's delivery tags on the plain channel that follows so many `earlier` ones: so no tag occurs
/// twice in a robust channel's life, and a tag that is kept as a number tells which plain channel it is of.
pub(super) fn tag_base(earlier: u64) -> u64 {
    earlier << TAG_BITS
}

/// A plain channel may deliver 2^40 messages: a million each second, for twelve days.
const TAG_BITS: u32 = 40;

impl Shared {
    /// When a call that begins now has taken too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        // one that lies too far ahead is none
        self.settings.call_limit.and_then(|limit| Instant::now().checked_add(limit))
    }
}

impl ChannelInner {
    /// Makes a channel of a plain one, unless its link has been lost meanwhile.
    fn adopt(
        handle: &Arc<Handle>,
        plain: SingleChannel,
        link: Incarnation,
        confirms: bool,
    ) -> Option<Arc<Self>> {
        let over = plain.over();
        let (inner, incarnation) = {
            let mut state = handle.shared.lock();
            if state.life.incarnation() != link || state.life.phase().up().is_none() {
                return None;
            }
            let id = state.next_channel;
            state.next_channel += 1;
            let retains = confirms && handle.shared.settings.republish;
            let mut unconfirmed = Publishes::default();
            if retains {
                unconfirmed.follow(plain.clone());
                unconfirmed.followed();
            }
            let core = Core {
                number: plain.id(),
                life: Lifecycle::opened(plain, link),
                opened: 1,
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
            let incarnation = core.life.incarnation();
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
            (inner, incarnation)
        };
        inner.watch(over, incarnation);
        Some(inner)
    }

    /// Tells the supervisor when the plain channel has ended.
    pub(super) fn watch(
        self: &Arc<Self>,
        over: impl Future<Output = Error> + Send + 'static,
        incarnation: Incarnation,
    ) {
        let (channel, commands) = (Arc::downgrade(self), self.shared().commands.clone());
        let watch = async move {
            let error = over.await;
            // refused: the supervisor has ended
            drop(commands.send(Command::ChannelEnded { channel, incarnation, error }));
        };
        // not on the caller's, which may end sooner
        self.shared().runtime.spawn(watch);
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
        let mut call = Call::begin(&self, M::ID, policy(&request.clone().into()).repeated).await?;
        loop {
            let live = call.live().await?;
            let request = translate(&self.shared().lock().topology, &self.last_queue(), &request);
            match live.plain.request_or_late(&request).await {
                Ok(reply) => {
                    self.shared().unanswered.end_row();
                    if self.record(live.incarnation, request.into(), Some(&reply)) {
                        return Ok(reply);
                    }
                    // the link was lost before it was recorded
                }
                Err((error, Some(late))) => {
                    let (error, later) = self.answered_later(&live, error, request, late);
                    call.unanswered(&live, error, later)?;
                }
                Err((error, None)) => call.failed(&live, error)?,
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
                Ok(delivery) => {
                    self.shared().unanswered.end_row();
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
    fn record(&self, incarnation: Incarnation, request: Method, reply: Option<&dyn Any>) -> bool {
        let mut state = self.shared().lock();
        if !incarnation.is_on(state.life.incarnation()) {
            return false;
        }
        state.late.overtaken_by(&request);
        self.record_in(&mut state, request, reply);
        true
    }

    /// The same, where the record is locked and the link is the one that the request was answered on.
    pub(super) fn record_in(&self, state: &mut State, request: Method, reply: Option<&dyn Any>) {
        if let Some(ok) = reply.and_then(|reply| reply.downcast_ref::<queue::DeclareOk>()) {
            self.lock().last_queue = ok.queue.detach();
        }
        if let Method::BasicQos(qos) = &request {
            let mut core = self.lock();
            let limit = if qos.global { &mut core.prefetch_global } else { &mut core.prefetch };
            *limit = Some(qos.prefetch_count);
        }
        record(&mut state.topology, request, reply);
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

impl RobustChannel {
    /// Its number on the connection. It stays when the channel is opened again.
    pub(crate) fn number(&self) -> u64 {
        self.inner.id
    }

    /// Sends a request and waits for its reply; also if nobody waits for it any more, so that it is recorded.
    pub(crate) async fn request<M: Request>(&self, request: M) -> Result<M::Reply> {
        let shared = Arc::clone(self.inner.shared());
        shared.detached(Arc::clone(&self.inner).perform(request)).await
    }

    /// Sends a request that the server does not answer, and records it.
    pub(crate) fn send<M: Request>(&self, request: &M) -> Result<()> {
        let live = self.inner.live_now()?;
        let request = translate(&self.inner.shared().lock().topology, &self.inner.last_queue(), request);
        live.plain.send(&request)?;
        if self.inner.record(live.incarnation, request.into(), None) {
            Ok(())
        } else {
            Err(Error::new(
                ErrorKind::ConnectionLost,
                "the connection was lost while the request was sent; the server may have acted on it",
            ))
        }
    }

    /// The prefetch of consumers that start later and say nothing.
    pub(crate) async fn qos(&self, prefetch_count: u16) -> Result<()> {
        self.inner.lock().prefetch = Some(prefetch_count);
        self.request(basic::Qos { prefetch_size: 0, prefetch_count, global: false }).await.map(drop)
    }

    pub(crate) async fn consume(&self, spec: ConsumeSpec) -> Result<RobustConsumer> {
        let shared = Arc::clone(self.inner.shared());
        shared.detached(RobustConsumer::start(self.clone(), spec)).await
    }

    pub(crate) async fn get(&self, method: basic::Get) -> Result<Option<Delivery>> {
        self.inner.take(method).await
    }

    /// Acknowledges, nacks or rejects by tag: `method` makes the method of the server's tag.
    pub(crate) fn settle<M: Arguments>(
        &self,
        tag: u64,
        multiple: bool,
        method: impl FnOnce(u64) -> M,
    ) -> Result<Settled> {
        let live = match self.inner.live_now() {
            Ok(live) => live,
            Err(error) if error.kind() == ErrorKind::Closed => return Err(error),
            Err(_) => return Ok(self.stale()),
        };
        match live.plain.raw_tag(tag) {
            Some(raw) => live.plain.settle(multiple, &method(raw)),
            None => Ok(self.stale()),
        }
    }

    /// An ack came too late.
    fn stale(&self) -> Settled {
        self.inner.shared().tally.stale_acks.fetch_add(1, Ordering::Relaxed);
        Settled::Stale
    }

    /// Cancels the consumer with this tag. False: there is none.
    pub(crate) async fn cancel(&self, tag: &ShortStr) -> Result<bool> {
        let found = {
            let core = self.inner.lock();
            core.consumers.iter().find(|consumer| consumer.spec.method.consumer_tag == *tag).cloned()
        };
        match found {
            Some(consumer) => self.inner.cancel(&consumer).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Waits until everything that was published so far is confirmed, on whatever link, and tells an unreported failure.
    pub(crate) async fn wait_for_confirms(&self) -> Result<()> {
        self.inner.settled().await?;
        self.inner.take_failure()
    }

    /// Hands a message over at once, or returns `None` where that would have to wait. Takes the message if it is kept.
    #[inline]
    pub(crate) fn try_enqueue(
        &self,
        outbound: &Outbound<'_>,
        message: &mut Message,
        waits: bool,
    ) -> Result<Option<RobustConfirm>> {
        self.inner.try_publish(outbound, message, waits)
    }

    /// Hands a message over as soon as that is possible. Cancel safe.
    pub(crate) async fn enqueue(
        &self,
        outbound: &Outbound<'_>,
        message: &mut Message,
        waits: bool,
    ) -> Result<RobustConfirm> {
        self.inner.publish(outbound, message, waits).await
    }

    /// Why there is no link, or none that takes publishes.
    pub(crate) fn down(&self) -> Option<Error> {
        match self.inner.lock().life.phase() {
            Phase::Down(why) | Phase::Retiring(_, why) => Some(why.clone()),
            Phase::Up(_) | Phase::Ended(_) => None,
        }
    }

    /// Waits until everything that was handed over is written, if there is a link.
    pub(crate) async fn flush(&self) {
        if let Ok(live) = self.inner.live_now() {
            live.plain.flush().await;
        }
    }

    pub(crate) fn returns(&self) -> RobustReturns {
        RobustReturns::new(Arc::clone(&self.inner))
    }

    /// The name of a queue as its handles see it.
    pub(crate) fn name(&self, name: ShortStr) -> Name {
        self.inner.shared().lock().topology.name(name)
    }

    /// Closes the channel for good. What was declared on it stays recorded.
    pub(crate) async fn close(&self) -> Result<()> {
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

    /// Waits until the channel has ended for good, and tells why.
    pub(crate) async fn closed(&self) -> Error {
        self.inner.ended().await
    }

    /// Whether the channel has not ended for good; it may wait for the link.
    pub(crate) fn is_open(&self) -> bool {
        !self.inner.lock().life.has_ended()
    }
}

impl fmt::Debug for RobustChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RobustChannel")
            .field("number", &self.inner.id)
            .field("is_open", &self.is_open())
            .finish()
    }
}
