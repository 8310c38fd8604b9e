//! A channel of one connection.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Poll, Waker};

use super::delivery::{Acks, Delivery, Settled};
use super::message::Message;
use super::outbound::{ConsumeSpec, Outbound};
use super::returned::{SingleReturns, Stray};
use super::single_confirm::{SingleConfirm, told};
use super::single_consumer::SingleConsumer;
use super::tally::{Tally, Waits};
use crate::codec::generated::{basic, confirm};
use crate::codec::{Arguments, Request, ShortStr};
use crate::driver::delivery_queue::DeliveryQueue;
use crate::driver::link::Link;
use crate::driver::link_call::Late;
use crate::driver::link_channel::{AnySettled, Asked, ChannelLink, Sent};
use crate::driver::link_state::Due;
use crate::error::{Error, ErrorKind, Result};

/// How many unacknowledged deliveries a consumer may have, unless it or its channel says otherwise.
///
/// `RabbitMQ`'s own default is no limit: one consumer can be sent a whole queue at once.
const DEFAULT_PREFETCH: u16 = 250;

/// A channel: a handle whose clones share it. The last one dropped, with all deliveries, confirms and consumers, closes the
/// channel in the background.
pub(crate) struct SingleChannel {
    inner: Arc<SingleInner>,
    /// How many unreported failures this handle has told of.
    heard: AtomicU64,
}

/// What deliveries, confirms and consumers keep of their channel.
#[derive(Debug)]
pub(super) struct SingleInner {
    pub link: ChannelLink,
    prefetch: AtomicU16,
    pub tally: Arc<Tally>,
    /// Added to the server's delivery tags: so that a robust channel's tags differ from one link to the next.
    pub tag_base: u64,
    /// To be found by their tags, and stopped together.
    consumers: Mutex<Vec<Weak<DeliveryQueue>>>,
}

impl Clone for SingleChannel {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), heard: AtomicU64::new(self.heard.load(Ordering::Relaxed)) }
    }
}

impl SingleChannel {
    /// Opens a channel, with or without publisher confirms.
    pub(super) async fn open(
        link: &Arc<Link>,
        confirms: bool,
        tag_base: u64,
        tally: &Arc<Tally>,
    ) -> Result<Self> {
        let link = ChannelLink::open(Arc::clone(link)).await?;
        if confirms {
            link.call(&confirm::Select { no_wait: false }).await?;
        }
        let prefetch = AtomicU16::new(DEFAULT_PREFETCH);
        let (tally, consumers) = (Arc::clone(tally), Mutex::default());
        Ok(Self::of(&Arc::new(SingleInner { link, prefetch, tally, tag_base, consumers })))
    }

    /// One more handle of a channel.
    pub(super) fn of(inner: &Arc<SingleInner>) -> Self {
        Self { inner: Arc::clone(inner), heard: AtomicU64::new(0) }
    }

    pub(super) fn inner(&self) -> &Arc<SingleInner> {
        &self.inner
    }

    /// The channel's number in the protocol.
    pub(crate) fn id(&self) -> u16 {
        self.inner.link.state.key.id.get()
    }

    /// Whether both are handles of one channel.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    // Calls.

    /// Sends a request and waits for its reply. Once it was sent, the server acts on it.
    pub(crate) async fn request<M: Request>(&self, request: M) -> Result<M::Reply> {
        self.inner.link.call(&request).await
    }

    /// The same. After a time-out the answer can still be waited for.
    pub(crate) async fn request_or_late<M: Request>(
        &self,
        request: &M,
    ) -> Result<M::Reply, (Error, Option<Late<M::Reply>>)> {
        self.inner.link.call_or_late(request).await
    }

    /// Sends a request that the server does not answer.
    pub(crate) fn send<M: Arguments>(&self, request: &M) -> Result<()> {
        self.inner.link.send(request)
    }

    /// How many unacknowledged deliveries each consumer that starts later may have.
    pub(crate) async fn qos(&self, prefetch_count: u16) -> Result<()> {
        self.inner.prefetch.store(prefetch_count, Ordering::Relaxed);
        self.request(basic::Qos { prefetch_size: 0, prefetch_count, global: false }).await.map(drop)
    }

    /// Starts a consumer.
    pub(crate) async fn consume(&self, spec: ConsumeSpec) -> Result<SingleConsumer> {
        let queue = self.inner.consume(&spec).await?;
        Ok(SingleConsumer::new(Arc::clone(&self.inner), spec, queue))
    }

    /// Takes a message from a queue, if there is one.
    pub(crate) async fn get(&self, method: basic::Get) -> Result<Option<Delivery>> {
        let delivery = self.inner.link.get(&method).await?;
        if let Some((tag, bytes)) = delivery.as_ref().and_then(|it| Some((it.tag, it.too_large()?))) {
            let place = format!("from queue \"{}\"", method.queue);
            return Err(self.inner.reject_too_large(tag, bytes, &place, !method.no_ack, false));
        }
        let acks = || Arc::new(Acks::of_get(&self.inner, method.no_ack));
        Ok(delivery.map(|mut delivery| {
            delivery.tag += self.inner.tag_base;
            Delivery::new(delivery, acks())
        }))
    }

    /// Acknowledges, nacks or rejects by the tag that `method` makes of the server's.
    pub(crate) fn settle<M: Arguments>(&self, multiple: bool, method: &M) -> Result<Settled> {
        self.inner.settle(multiple, method)
    }

    /// The server's delivery tag for one that users see; `None` if it is of an earlier channel.
    pub(crate) fn raw_tag(&self, tag: u64) -> Option<u64> {
        tag.checked_sub(self.inner.tag_base)
    }

    /// Cancels the consumer with this tag. False: there is none.
    pub(crate) async fn cancel(&self, tag: &ShortStr) -> Result<bool> {
        let Some(queue) = self.inner.queues().into_iter().find(|queue| queue.tag() == *tag) else {
            return Ok(false);
        };
        self.inner.link.cancel(&queue).await.map(|()| true)
    }

    /// How many consumers have not ended.
    pub(crate) fn consumers(&self) -> usize {
        self.inner.queues().len()
    }

    /// Cancels all consumers; what has come and was not taken goes back.
    pub(crate) fn stop_consumers(&self) {
        for queue in self.inner.queues() {
            self.inner.link.stop(&queue);
        }
    }

    // Publishing.

    /// Hands a message over at once. `None` where it would have to wait.
    #[inline]
    pub(crate) fn try_send(&self, outbound: &Outbound<'_>, message: &Message) -> Result<Option<Sent>> {
        self.inner.link.try_publish(&outbound.publish(message, None)?, outbound.awaited)
    }

    /// Like [`try_send`](Self::try_send), for a caller that holds a lock: once that is released it passes what is due to
    /// [`write`](Self::write).
    #[inline]
    pub(crate) fn append(&self, outbound: &Outbound<'_>, message: &Message) -> (Result<Option<Sent>>, Due) {
        self.append_encoded(outbound, message, None)
    }

    /// Like [`append`](Self::append), for a caller that has `encoded` the message's properties already.
    #[inline]
    pub(crate) fn append_encoded(
        &self,
        outbound: &Outbound<'_>,
        message: &Message,
        encoded: Option<&[u8]>,
    ) -> (Result<Option<Sent>>, Due) {
        match outbound.publish(message, encoded) {
            Ok(publish) => self.inner.link.append(&publish, outbound.awaited),
            Err(error) => (Err(error), Due::Nothing),
        }
    }

    /// Does what is due. Not to be called under a lock.
    pub(crate) fn write(&self, due: Due) {
        self.inner.link.write(due);
    }

    /// Hands a message over as soon as that is possible. Cancel safe: dropped while it waits, nothing was handed over.
    pub(crate) async fn enqueue(&self, outbound: &Outbound<'_>, message: &Message) -> Result<SingleConfirm> {
        let sent = self.inner.link.publish(&outbound.publish(message, None)?, outbound.awaited).await?;
        Ok(self.confirm(sent))
    }

    /// Counts a publish that waits to be handed over, for a drain.
    pub(crate) fn publish_waits(&self) -> Waits {
        self.inner.tally.publish_waits()
    }

    /// What becomes of a publish.
    #[inline]
    pub(crate) fn confirm(&self, sent: Sent) -> SingleConfirm {
        SingleConfirm::new(&self.inner, sent.number)
    }

    /// How many bytes of properties fit a message.
    #[inline]
    pub(crate) fn properties_max(&self) -> usize {
        self.inner.link.properties_max()
    }

    /// Waits until any publish is settled, from the call on. An error: the channel has ended.
    pub(crate) fn any_settled(&self) -> AnySettled {
        self.inner.link.any_settled()
    }

    /// Waits until there may be room again for a publish: for what happens from now on.
    pub(crate) fn credit(&self) -> impl Future<Output = ()> + Send + '_ {
        self.inner.link.credit()
    }

    /// Waits until everything that was handed over is written.
    pub(crate) async fn flush(&self) {
        self.inner.link.flush().await;
    }

    // Confirms.

    /// Waits until everything that was published so far is confirmed; tells each unreported failure once for each handle.
    pub(crate) async fn wait_for_confirms(&self) -> Result<()> {
        let number = self.inner.link.last_published()?;
        if number == 0 {
            return Ok(());
        }
        let heard = self.heard.load(Ordering::Relaxed);
        let (outcome, count) = self.inner.link.drained(number, heard).await?;
        self.heard.fetch_max(count, Ordering::Relaxed);
        told(outcome)
    }

    /// Waits until everything that was published so far is settled, whatever became of it.
    pub(crate) async fn all_settled(&self) {
        // refused: the channel has ended, and everything on it is settled
        let Ok(number) = self.inner.link.last_published() else { return };
        if number > 0 {
            drop(self.settled(number).await);
        }
    }

    /// How many publishes are not confirmed.
    pub(crate) fn unconfirmed(&self) -> usize {
        self.inner.link.unconfirmed()
    }

    /// Whether a publish is not settled whose confirm was dropped.
    pub(crate) fn has_unheard(&self) -> bool {
        self.inner.link.has_abandoned()
    }

    /// All publishes with a lower number are settled. Stays where it was after the end.
    pub(crate) fn settled_below(&self) -> u64 {
        self.inner.link.settled_below()
    }

    /// Whether a publish is settled, whatever became of it.
    pub(crate) fn is_settled(&self, number: u64) -> bool {
        self.inner.link.is_settled(number)
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

    /// The first failure of a publish whose confirm was dropped; it is told once.
    pub(crate) fn take_failure(&self) -> Result<()> {
        self.inner.link.take_failure().map_or(Ok(()), told)
    }

    /// Messages that came back and that no confirm tells of.
    pub(crate) fn returns(&self) -> SingleReturns {
        SingleReturns::new(Arc::clone(&self.inner))
    }

    // The end.

    /// Closes the channel and waits for the server's answer.
    pub(crate) async fn close(&self) -> Result<()> {
        self.inner.link.close().await
    }

    /// As [`close`](Self::close), for this reason and without a limit: the caller has its own.
    pub(crate) fn closing(&self, why: &Error) -> impl Future<Output = Result<()>> + Send + use<> {
        self.inner.link.closing(why)
    }

    /// Waits until the channel has ended, and tells why.
    pub(crate) async fn closed(&self) -> Error {
        self.inner.link.ended().await
    }

    /// As [`closed`](Self::closed), without keeping the channel open. What was settled before the end can then be
    /// [asked](Self::is_settled).
    pub(crate) fn over(&self) -> impl Future<Output = Error> + Send + use<> {
        let state = Arc::clone(&self.inner.link.state);
        async move { state.over().await }
    }

    /// Whether calls are still accepted.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        !self.inner.link.has_ended()
    }
}

impl SingleInner {
    pub(super) async fn consume(&self, spec: &ConsumeSpec) -> Result<Arc<DeliveryQueue>> {
        let prefetch = spec.prefetch.unwrap_or_else(|| self.prefetch.load(Ordering::Relaxed));
        // without acks there is nothing to limit
        let prefetch = (!spec.method.no_ack).then_some(prefetch);
        let queue = self.link.consume(prefetch, &spec.method).await?;
        let mut consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        consumers.retain(|other| other.strong_count() > 0);
        consumers.push(Arc::downgrade(&queue));
        Ok(queue)
    }

    /// The consumers that have not ended.
    fn queues(&self) -> Vec<Arc<DeliveryQueue>> {
        let consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        consumers.iter().filter_map(Weak::upgrade).filter(|queue| !queue.has_ended()).collect()
    }

    /// Rejects a message whose body is too large and was left out, so that it does not come again and again. On a stream it is
    /// acknowledged.
    #[cold]
    pub(super) fn reject_too_large(
        &self,
        delivery_tag: u64,
        bytes: u64,
        place: &str,
        needs_ack: bool,
        is_stream: bool,
    ) -> Error {
        let settled = match (needs_ack, is_stream) {
            (true, false) => self.link.settle(&basic::Reject { delivery_tag, requeue: false }),
            (true, true) => self.link.settle(&basic::Ack { delivery_tag, multiple: false }),
            (false, _) => Ok(()),
        };
        // refused: the channel has ended, and the message comes again
        drop(settled);
        let limit = self.link.link.shared.limits.message;
        let outcome = if needs_ack && !is_stream { "rejected" } else { "skipped" };
        let text = format!(
            "a message of {bytes} bytes {place} exceeds message_limit ({limit} bytes), and was {outcome}"
        );
        Error::new(ErrorKind::MessageTooLarge, text)
    }

    pub(super) fn settle<M: Arguments>(&self, multiple: bool, method: &M) -> Result<Settled> {
        if multiple {
            self.link.state.settles_several();
        }
        match self.link.settle(method) {
            Ok(()) => Ok(Settled::Sent),
            Err(error) if self.tally.stale && error.kind() != ErrorKind::Closed => {
                self.tally.stale_acks.fetch_add(1, Ordering::Relaxed);
                Ok(Settled::Stale)
            }
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for SingleChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleChannel").field("id", &self.id()).field("is_open", &self.is_open()).finish()
    }
}
