//! One channel, as the client holds it: calls in turn, publishes, confirms, and its end.

mod confirms;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

pub(crate) use self::confirms::{AnySettled, Asked};
use super::budget::Bound;
use super::delivery_queue::{ConsumerState, DeliveryQueue, End, Farewell};
use super::faults;
use super::link::Link;
use super::link_call::{Call, Late, Unanswered};
use super::link_state::{Due, Shared, Urgency};
use super::stray_returns::Returns;
use super::waiters::{Answer, Driver, ReplyWaiter};
use crate::codec::content::PROPERTIES_AT;
use crate::codec::frame::OVERHEAD;
use crate::codec::generated::{basic, channel, constants};
use crate::codec::{Arguments, Method, MethodId, Request};
use crate::error::{Error, ErrorKind, Scope};
use crate::mux::channel_state::{Expect, Pending};
use crate::mux::confirm_ring::Confirms;
use crate::mux::ids::ChannelKey;
use crate::mux::incoming_delivery::{Delivery, STREAM_OFFSET};
use crate::mux::outgoing_publish::Publish;
use crate::mux::session::{Published, Refusal, Session};

/// What is known of a channel outside the session: it outlives the channel, for whoever asks later.
#[derive(Debug)]
pub(crate) struct ChannelState {
    pub key: ChannelKey,
    /// One call at a time; callers queue in their order.
    turn: Arc<Semaphore>,
    /// Why it has ended.
    error: OnceLock<Error>,
    /// What was settled before the end, for `Confirm`s that have not asked yet. Set after `error`.
    confirms: OnceLock<Mutex<Option<Confirms<Waker>>>>,
    /// All publishes with lower numbers were acked, or their failure was told: to see that costs no lock.
    pub acked_below: AtomicU64,
    /// Wakes tasks that wait for the end, or for that of a consumer.
    ended: Notify,
    pub returns: Returns,
    /// Whether a consumer without acks was started on it.
    without_acks: AtomicBool,
    /// Whether the server delivered to a consumer that is not there.
    pub strays: AtomicBool,
    /// Whether deliveries may have been settled that nobody has seen yet.
    settled_several: AtomicBool,
}

impl ChannelState {
    pub(crate) fn new(key: ChannelKey) -> Self {
        Self {
            key,
            turn: Arc::new(Semaphore::new(1)),
            error: OnceLock::new(),
            confirms: OnceLock::new(),
            acked_below: AtomicU64::new(0),
            ended: Notify::new(),
            returns: Returns::default(),
            without_acks: AtomicBool::new(false),
            strays: AtomicBool::new(false),
            settled_several: AtomicBool::new(false),
        }
    }

    /// Several deliveries are about to be settled with one method, perhaps also some that wait for other consumers.
    pub(crate) fn settles_several(&self) {
        self.settled_several.store(true, Ordering::Relaxed);
    }

    /// Whether that has happened: then the server may rightly send more than fits a consumer's prefetch.
    pub(crate) fn has_settled_several(&self) -> bool {
        self.settled_several.load(Ordering::Relaxed)
    }

    /// Whether every delivery on it, for whatever consumer, is to be acknowledged.
    pub(crate) fn needs_acks(&self) -> bool {
        !self.without_acks.load(Ordering::Relaxed)
    }

    /// The channel is about to end, for this reason. Called under the session's lock, so that whoever finds
    /// the channel gone there finds the reason here.
    pub(crate) fn will_end(&self, error: Error) {
        drop(self.error.set(error));
    }

    /// The channel has ended: everybody who waits for a confirm is woken, and will find the error.
    pub(crate) fn end(&self, error: Error, mut confirms: Option<Confirms<Waker>>) {
        let mut woken = Vec::new();
        if let Some(confirms) = &mut confirms {
            confirms.take_waiters(&mut woken);
        }
        drop(self.error.set(error));
        drop(self.confirms.set(Mutex::new(confirms)));
        self.ended.notify_waiters();
        self.returns.end();
        woken.into_iter().for_each(Waker::wake);
    }

    /// Waits until it has ended, and what was settled before can be asked. Cancel safe.
    pub(crate) async fn over(&self) -> Error {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if let (Some(error), Some(_)) = (self.error(), self.confirms.get()) {
                return error.clone();
            }
            ended.await;
        }
    }

    /// Waits until a delivery cannot be acknowledged any more, because the channel has ended or the server has cancelled its
    /// consumer. Cancel safe.
    pub(crate) async fn stale(&self, consumer: Option<&ConsumerState>) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.error().is_some() || consumer.is_some_and(ConsumerState::is_stale) {
                return;
            }
            ended.await;
        }
    }

    /// The server has cancelled a consumer: wakes those who wait in [`stale`](Self::stale).
    pub(crate) fn look_again(&self) {
        self.ended.notify_waiters();
    }

    /// Why it has ended, if it has.
    pub(crate) fn error(&self) -> Option<&Error> {
        self.error.get()
    }
}

/// A channel. The last one dropped closes it in the background.
#[derive(Debug)]
pub(crate) struct ChannelLink {
    pub link: Arc<Link>,
    pub state: Arc<ChannelState>,
}

/// What a finished publish hands back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// The number to ask for its confirm, if confirms are on.
    pub number: Option<u64>,
}

impl ChannelLink {
    /// Opens a channel. Cancel safe: a channel that nobody waits for any more is closed.
    pub(crate) async fn open(link: Arc<Link>) -> Result<Self, Error> {
        let opened = link.shared.call(None, |session, waiter| {
            session.open_channel(waiter, |key| Arc::new(ChannelState::new(key)))
        });
        let (state, mut unanswered) = opened.map_err(|refusal| link.shared.refused(refusal))?;
        let opened = Self { link, state };
        opened.await_answer(&mut unanswered, channel::Open::ID).await?;
        Ok(opened)
    }

    /// Whether the channel has ended, or its connection has: that is known a moment before each channel is told.
    pub(crate) fn has_ended(&self) -> bool {
        self.state.error().is_some() || self.shared().failure().is_some()
    }

    fn shared(&self) -> &Shared {
        &self.link.shared
    }

    fn refused(&self, refusal: Refusal) -> Error {
        match (refusal, self.state.error()) {
            (Refusal::ChannelClosed | Refusal::ConnectionClosed, Some(error)) => error.earlier(),
            (Refusal::ChannelClosed, None) if self.shared().failure().is_none() => {
                faults::closed_channel(self.state.key.id.get())
            }
            (refusal, _) => self.shared().refused(refusal),
        }
    }

    /// Why the channel has ended, for calls that were under way then.
    fn end_reason(&self) -> Error {
        self.state.error().cloned().unwrap_or_else(|| self.shared().end_reason())
    }

    /// Runs a command under the lock.
    fn with<T>(
        &self,
        command: impl FnOnce(&mut Session<Driver>, ChannelKey) -> Result<T, Refusal>,
    ) -> Result<T, Error> {
        self.shared()
            .with(|session| command(session, self.state.key))
            .map_err(|refusal| self.refused(refusal))
    }

    // Calls.

    /// Sends a request and waits for its reply.
    pub(crate) async fn call<M: Request>(&self, request: &M) -> Result<M::Reply, Error> {
        self.call_or_late(request).await.map_err(|(error, _)| error)
    }

    /// The same. After a time-out the answer can still be waited for.
    pub(crate) async fn call_or_late<M: Request>(
        &self,
        request: &M,
    ) -> Result<M::Reply, (Error, Option<Late<M::Reply>>)> {
        let mut unanswered = self.begin(request).await.map_err(|error| (error, None))?;
        match self.await_answer(&mut unanswered, M::ID).await.and_then(expect_method) {
            Ok(reply) => Ok(reply),
            Err(error) => {
                let late = (error.kind() == ErrorKind::Timeout).then(|| Late::new(unanswered));
                Err((error, late))
            }
        }
    }

    /// Sends a request.
    async fn begin<M: Request>(&self, request: &M) -> Result<Unanswered, Error> {
        let turn = self.turn(M::ID).await?;
        if M::ID == basic::Recover::ID {
            self.state.settles_several();
        }
        self.start(turn, Expect::only(M::Reply::ID), |session, key, pending| {
            session.call(key, request, pending)
        })
    }

    /// Sends `basic.cancel`, unless the consumer is being cancelled already, and waits for the answer.
    pub(crate) async fn cancel(&self, queue: &Arc<DeliveryQueue>) -> Result<(), Error> {
        let turn = self.turn(basic::Cancel::ID).await?;
        let (key, tag) = (self.state.key, queue.tag());
        let asked =
            self.shared().call(Some(turn), |session, waiter| session.cancel(key, &tag, queue, Some(waiter)));
        let (over, mut unanswered) = asked.map_err(|refusal| self.refused(refusal))?;
        if over.is_some() {
            return Ok(());
        }
        self.await_answer(&mut unanswered, basic::Cancel::ID).await.map(drop)
    }

    /// Sends `basic.cancel` at once; nobody waits for its answer.
    pub(crate) fn cancel_now(&self, queue: &Arc<DeliveryQueue>) {
        self.shared().farewell(queue, Farewell::Cancel(queue.tag()));
    }

    /// Sends `basic.get`. `None`: the queue is empty.
    pub(crate) async fn get(&self, method: &basic::Get) -> Result<Option<Delivery>, Error> {
        let turn = self.turn(basic::Get::ID).await?;
        let expect = Expect { reply: basic::GetOk::ID, or: Some(basic::GetEmpty::ID), tag: None };
        let mut answer =
            self.start(turn, expect, |session, key, pending| session.call(key, method, pending))?;
        Ok(match self.await_answer(&mut answer, basic::Get::ID).await? {
            Answer::GetOk(delivery) => Some(delivery),
            Answer::Method(_) => None,
        })
    }

    /// Sends `basic.qos`, if `prefetch` is given, and then `basic.consume`, with no other call between
    /// them: a limit applies to the consumers that start after it.
    ///
    /// The consumer's queue is registered before consume-ok is handed out, so no delivery is missed.
    pub(crate) async fn consume(
        &self,
        prefetch: Option<u16>,
        method: &basic::Consume,
    ) -> Result<Arc<DeliveryQueue>, Error> {
        let turn = self.turn(basic::Consume::ID).await?;
        if method.no_ack {
            self.state.without_acks.store(true, Ordering::Relaxed);
        }
        let bound = match prefetch {
            Some(prefetch) if prefetch > 0 && !method.no_ack => Bound::Prefetch(prefetch),
            _ => Bound::Unlimited,
        };
        let budget = Arc::clone(&self.shared().budget);
        let queue = DeliveryQueue::new(Arc::clone(&self.state), method.no_ack, bound, budget);
        // without the argument it is not known
        let is_stream = method.arguments.get(STREAM_OFFSET).is_some();
        let queue = Arc::new(if is_stream { queue.of_stream() } else { queue });
        let consumer = Some(Arc::clone(&queue));
        let mut answer = self.start(turn, Expect::only(basic::ConsumeOk::ID), |session, key, pending| {
            let pending = Pending { consumer, ..pending };
            let Some(prefetch_count) = prefetch else { return session.consume(key, method, pending) };
            // the server takes both in their order: no need to wait for the first one's answer
            let qos = basic::Qos { prefetch_size: 0, prefetch_count, global: false };
            session.consume_with(key, &qos, method, pending)
        })?;
        // dropped, or timed out, before the answer: the consumer is cancelled when it comes
        let mut unheard = Unheard { channel: self, queue: Some(queue) };
        self.await_answer(&mut answer, basic::Consume::ID).await?;
        unheard.queue.take().ok_or_else(|| self.shared().end_reason())
    }

    fn start(
        &self,
        turn: OwnedSemaphorePermit,
        expect: Expect,
        command: impl FnOnce(&mut Session<Driver>, ChannelKey, Pending<Driver>) -> Result<(), Refusal>,
    ) -> Result<Unanswered, Error> {
        let key = self.state.key;
        let asked = self.shared().call(Some(turn), |session, waiter| {
            command(session, key, Pending { expect, waiter: Some(waiter), consumer: None })
        });
        let ((), unanswered) = asked.map_err(|refusal| self.refused(refusal))?;
        Ok(unanswered)
    }

    async fn turn(&self, method: MethodId) -> Result<OwnedSemaphorePermit, Error> {
        self.link.turn(&self.state.turn, self.named(method)).await
    }

    async fn await_answer(&self, unanswered: &mut Unanswered, method: MethodId) -> Result<Answer, Error> {
        self.shared().await_answer(unanswered, self.named(method)).await
    }

    fn named(&self, method: MethodId) -> Call {
        Call { method, channel: self.state.key.id.get() }
    }

    // What has no answer.

    /// Sends a method that the server does not answer.
    pub(crate) fn send<M: Arguments>(&self, method: &M) -> Result<(), Error> {
        self.with(|session, key| session.send(key, method))
    }

    /// Sends `basic.ack`, `nack` or `reject`. A server that does not read them loses the connection.
    pub(crate) fn settle<M: Arguments>(&self, method: &M) -> Result<(), Error> {
        let settled = self.shared().with(|session| session.settle(self.state.key, method));
        settled.map_err(|refusal| match refusal {
            Refusal::Unread { bytes } => self.shared().unread(bytes),
            refusal => self.refused(refusal),
        })
    }

    /// Hands a message over: all of it will be written, or nothing. Waits while the server blocks or too
    /// much waits to be written.
    ///
    /// Cancel safe: dropped while it waits, nothing was handed over.
    pub(crate) async fn publish(&self, publish: &Publish<'_>, awaited: bool) -> Result<Sent, Error> {
        if let Some(sent) = self.try_publish(publish, awaited)? {
            return Ok(sent);
        }
        loop {
            let mut credit = std::pin::pin!(self.shared().credit.notified());
            // listens before it looks, so that no wake is missed
            credit.as_mut().enable();
            if let Some(sent) = self.try_publish(publish, awaited)? {
                return Ok(sent);
            }
            credit.await;
        }
    }

    /// Like [`publish`](Self::publish), but `None` where that would wait.
    ///
    /// A message whose confirm is `awaited`, alone on its way, is written at once; where several are, they
    /// go out together.
    #[inline]
    pub(crate) fn try_publish(&self, publish: &Publish<'_>, awaited: bool) -> Result<Option<Sent>, Error> {
        let (published, due) = self.append(publish, awaited);
        self.write(due);
        published
    }

    /// Like [`try_publish`](Self::try_publish), but writes nothing: the caller passes the returned [`Due`] to
    /// [`write`](Self::write).
    #[inline]
    pub(crate) fn append(&self, publish: &Publish<'_>, awaited: bool) -> (Result<Option<Sent>, Error>, Due) {
        let most = self.shared().limits.outgoing;
        let key = self.state.key;
        let (published, due) = self.shared().append(|session| {
            let published = session.publish(key, publish, most);
            let urgency = match published {
                Ok(Published::Accepted(Some(_))) if awaited && session.is_alone(key) => Urgency::Now,
                Ok(Published::Accepted(Some(_))) => Urgency::Confirmed,
                _ => Urgency::Soon,
            };
            (published, urgency)
        });
        let sent = match published {
            Ok(Published::Accepted(number)) => Ok(Some(Sent { number })),
            Ok(Published::Wait) => Ok(None),
            Err(refusal) => Err(self.refused(refusal)),
        };
        (sent, due)
    }

    /// How many bytes of properties fit a message: what a header frame has room for beside its fixed part.
    #[inline]
    pub(crate) fn properties_max(&self) -> usize {
        (self.link.agreed.frame_max as usize).saturating_sub(OVERHEAD + PROPERTIES_AT)
    }

    /// Does what is due. Not to be called under a lock.
    #[inline]
    pub(crate) fn write(&self, due: Due) {
        self.shared().write(due);
    }

    /// Waits until everything that was handed over is written. Cancel safe.
    pub(crate) async fn flush(&self) {
        self.shared().flush().await;
    }

    // Consumers.

    /// Takes what waits for a consumer into `taken`, which is empty; see [`DeliveryQueue::poll_take`].
    ///
    /// A consumer that has to wait is done with what it had: its acks are written at once.
    pub(crate) fn poll_take(
        &self,
        queue: &DeliveryQueue,
        taken: &mut VecDeque<Delivery>,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize, End>> {
        let polled = queue.poll_take(taken, context);
        if polled.is_pending() {
            self.shared().run(|_| ((), Urgency::Now));
        }
        polled
    }

    /// Cancels a consumer in the background; what waits for it goes back. Its stream ends once what it has taken was handed
    /// out.
    pub(crate) fn stop(&self, queue: &Arc<DeliveryQueue>) {
        self.abandon_consumer(queue, &VecDeque::new());
    }

    /// The user dropped a consumer: cancels it in the background, and gives back what it had not looked at.
    pub(crate) fn abandon_consumer(&self, queue: &Arc<DeliveryQueue>, taken: &VecDeque<Delivery>) {
        self.shared().farewell(queue, queue.abandon(taken));
    }

    // The end.

    /// Waits until the channel has ended. Cancel safe.
    pub(crate) async fn ended(&self) -> Error {
        loop {
            let mut ended = std::pin::pin!(self.state.ended.notified());
            ended.as_mut().enable();
            if let Some(error) = self.state.error() {
                return error.clone();
            }
            ended.await;
        }
    }

    /// Closes the channel; whoever waits on it gets [`ErrorKind::Closed`].
    pub(crate) async fn close(&self) -> Result<(), Error> {
        let limit = self.shared().limits.close_timeout;
        let error = faults::closed_channel(self.state.key.id.get());
        if let Ok(closed) = timeout(limit, self.closing(&error)).await {
            return closed;
        }
        let call = self.named(channel::Close::ID);
        let unconfirmed = self.look(|confirms| confirms.unsettled()).flatten();
        let left = self.shared().left_by_channel(call.channel, unconfirmed);
        Err(faults::unanswered_with(call, limit, &left).with_scope(Scope::Channel))
    }

    /// Sends the close at once, and fails all waiting calls with the error. Resolves when the server has answered or the
    /// connection has ended; at once if the channel was closed before. Cancel safe.
    pub(crate) fn closing(&self, error: &Error) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (waiter, answer) = ReplyWaiter::new(None);
        let answer = self.start_close(Some(waiter), error).then_some(answer);
        async move {
            let Some(answer) = answer else { return Ok(()) };
            // dropped: the connection ended meanwhile, and the channel with it
            answer.await.map_or(Ok(()), |answer| answer.map(drop))
        }
    }

    /// Sends the close, and tells everybody. False: it is closed already.
    fn start_close(&self, waiter: Option<ReplyWaiter>, error: &Error) -> bool {
        let close = channel::Close { reply_code: constants::REPLY_SUCCESS, ..channel::Close::default() };
        let ended = self.shared().with(|session| {
            let ended = session.close_channel(self.state.key, &close, waiter);
            if ended.is_ok() {
                self.state.will_end(error.clone());
            }
            ended
        });
        let Ok(ended) = ended else { return false };
        super::link_state::end_channels(vec![ended], error);
        self.shared().credit.notify_waiters();
        true
    }
}

impl Drop for ChannelLink {
    fn drop(&mut self) {
        self.start_close(None, &faults::closed_channel(self.state.key.id.get()));
    }
}

/// A consumer whose start nobody has heard of yet.
struct Unheard<'a> {
    channel: &'a ChannelLink,
    queue: Option<Arc<DeliveryQueue>>,
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            self.channel.abandon_consumer(queue, &VecDeque::new());
        }
    }
}

fn expect_method<M: TryFrom<Method>>(answer: Answer) -> Result<M, Error> {
    match answer {
        Answer::Method(method) => M::try_from(method).ok(),
        Answer::GetOk(_) => None,
    }
    // the session matches answers by their method, so this does not happen
    .ok_or_else(|| Error::new(ErrorKind::Protocol, "the server's answer does not fit the question"))
}
