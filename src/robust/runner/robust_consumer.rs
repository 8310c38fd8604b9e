//! Consumers whose stream goes on.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::current_channel::Live;
use super::restore_topology;
use super::robust_call::Call;
use super::robust_channel::{ChannelInner, RobustChannel};
use crate::codec::ShortStr;
use crate::codec::peer_text::PeerText;
use crate::error::{Error, ErrorKind, Result, Scope};
use crate::protocol::{Arguments, MethodId, basic};
use crate::robust::event::Event;
use crate::robust::ledger::consumers::{ConsumerRecord, Probe};
use crate::robust::ledger::entity::{Entity, Unrestored};
use crate::robust::ledger::lifecycle::Incarnation;
use crate::robust::ledger::topology::ConsumerKey;
use crate::single::{AtHand, BoxFuture, ConsumeSpec, Handed, SingleConsumer};

pub(super) const CONSUME: MethodId = <basic::Consume as Arguments>::ID;

/// A consumer that goes on after a loss. Dropped, it is cancelled in the background, and what it had not handed out goes
/// back to the queue.
pub(crate) struct RobustConsumer {
    channel: RobustChannel,
    inner: Arc<ConsumerInner>,
    /// Empty between two polls.
    handed: Handed,
}

/// What the channel keeps of a consumer, to start it again.
#[derive(Debug)]
pub(super) struct ConsumerInner {
    pub id: u64,
    /// With its own prefetch and tag; the queue may have got another name.
    pub spec: ConsumeSpec,
    slot: Mutex<Slot>,
}

/// Where a consumer's deliveries come from.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The last one may run. Those before it have ended, and their deliveries, which need no acks, are still being taken.
    sources: VecDeque<SingleConsumer>,
    pub record: ConsumerRecord,
    waker: Option<Waker>,
}

/// What is to be done without locks once a consumer goes on with another source.
#[must_use]
struct Put {
    waker: Option<Waker>,
    gone: VecDeque<SingleConsumer>,
}

impl Put {
    fn told(self) {
        let Self { waker, gone } = self;
        drop(gone);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Slot {
    /// The link is gone: what needs an ack will come again. What is returned is to be dropped without the lock.
    pub(super) fn link_lost(&mut self) -> VecDeque<SingleConsumer> {
        if self.needs_acks() { std::mem::take(&mut self.sources) } else { VecDeque::new() }
    }

    /// Whether it is to be started on a new link.
    pub(super) fn is_wanted(&self) -> bool {
        self.record.is_wanted()
    }

    /// Whether it has a consumer that has not ended.
    pub(super) fn is_running(&self) -> bool {
        self.sources.back().is_some_and(|source| source.is_open() && !source.has_ended())
    }

    fn needs_acks(&self) -> bool {
        self.sources.front().is_some_and(SingleConsumer::needs_acks)
    }

    fn wake(&mut self) -> Option<Waker> {
        self.waker.take()
    }
}

impl ConsumerInner {
    pub(super) fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is to be started, and does not run.
    pub(super) fn waits(&self) -> bool {
        let slot = self.lock();
        slot.is_wanted() && !slot.is_running()
    }

    /// Goes on with this one. Not if that is not wanted any more; then it is dropped, and so cancelled.
    pub(super) fn install(&self, plain: SingleConsumer) {
        self.put(plain).told();
    }

    fn put(&self, plain: SingleConsumer) -> Put {
        let mut slot = self.lock();
        // somebody else may have started it meanwhile
        if !slot.is_wanted() || slot.is_running() {
            return Put { waker: None, gone: VecDeque::from([plain]) };
        }
        let gone = slot.link_lost();
        slot.sources.push_back(plain);
        Put { waker: slot.wake(), gone }
    }

    /// Ends the stream once what has come is taken.
    pub(super) fn end(&self, error: Option<Error>) {
        let waker = {
            let mut slot = self.lock();
            slot.record.end(error);
            slot.wake()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Its channel ends for good. What has come and needs no ack can still be taken.
    pub(super) fn stop(&self, error: Option<Error>) {
        let (gone, waker) = {
            let mut slot = self.lock();
            // under the same lock, so that nothing is started for it any more
            slot.record.end(error);
            (slot.link_lost(), slot.wake())
        };
        drop(gone);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Cancels what runs at the server. What has come and needs no ack can still be taken; all else goes back.
    pub(super) async fn cancel_sources(&self) -> Result<()> {
        let running = self.running();
        // dropped, they give back what nobody has seen
        let _gone = self.lock().link_lost();
        running.cancel().await
    }

    /// What runs for it at the server, to be cancelled.
    fn running(&self) -> Running<'_> {
        let running = self
            .lock()
            .sources
            .iter()
            .filter(|source| !source.has_ended())
            .map(|source| Box::pin(source.cancelling()) as BoxFuture<'static, _>)
            .collect();
        Running { consumer: self, cancelling: running }
    }

    /// Takes the plain consumers out, to stop them.
    pub(super) fn take(&self) -> VecDeque<SingleConsumer> {
        std::mem::take(&mut self.lock().sources)
    }
}

/// Consumers at the server that are being cancelled: also if nobody waits for that, or in vain.
struct Running<'a> {
    consumer: &'a ConsumerInner,
    cancelling: Vec<BoxFuture<'static, Result<()>>>,
}

impl Running<'_> {
    async fn cancel(mut self) -> Result<()> {
        while let Some(cancelling) = self.cancelling.last_mut() {
            let cancelled = cancelling.await;
            timed_out(cancelled)?;
            self.cancelling.pop();
        }
        Ok(())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.cancelling.is_empty() {
            let slot = self.consumer.lock();
            slot.sources.iter().filter(|source| !source.has_ended()).for_each(SingleConsumer::cancel_now);
        }
    }
}

impl ChannelInner {
    pub(super) fn key(&self, consumer: &ConsumerInner) -> ConsumerKey {
        ConsumerKey { channel: self.id, consumer: consumer.id }
    }

    /// What a consumer is to be started with now.
    pub(super) fn spec(&self, consumer: &ConsumerInner) -> ConsumeSpec {
        let state = self.shared().lock();
        let queue = state.topology.queue_of(self.key(consumer));
        consumer.lock().record.spec(&consumer.spec, queue)
    }

    /// Records a consumer that was started, unless the plain channel is another one by now.
    fn record_consumer(&self, live: &Live, plain: SingleConsumer) -> Option<Arc<ConsumerInner>> {
        let mut state = self.shared().lock();
        let mut core = self.lock();
        if core.life.incarnation() != live.incarnation {
            return None;
        }
        let id = core.next_consumer;
        core.next_consumer += 1;
        // with the tag that the server made up, if it did
        let spec = plain.spec().clone();
        let queue = spec.method.queue.clone();
        let slot = Slot { sources: VecDeque::from([plain]), ..Slot::default() };
        let consumer = Arc::new(ConsumerInner { id, spec, slot: Mutex::new(slot) });
        core.consumers.push(Arc::clone(&consumer));
        drop(core);
        state.topology.consume(self.key(&consumer), queue);
        Some(consumer)
    }

    /// Goes on with a consumer that was started while the plain channel was of this incarnation. False: that has gone
    /// meanwhile; a restore may already have started another one.
    pub(super) fn install(
        &self,
        consumer: &ConsumerInner,
        plain: SingleConsumer,
        incarnation: Incarnation,
    ) -> bool {
        let core = self.lock();
        if core.life.incarnation() != incarnation {
            drop(core);
            // without the lock, for that cancels it
            drop(plain);
            return false;
        }
        let put = consumer.put(plain);
        drop(core);
        put.told();
        true
    }

    /// Starts a consumer again that was paused.
    async fn resume(&self, consumer: &ConsumerInner) -> Result<()> {
        let mut call = Call::begin(self, CONSUME, true).await?;
        loop {
            let live = call.live().await?;
            // a restore has started it meanwhile, or it was cancelled
            if !consumer.waits() {
                return Ok(());
            }
            match self.start_again(&live, consumer).await {
                Ok(plain) => {
                    if self.install(consumer, plain, live.incarnation) {
                        return Ok(());
                    }
                }
                Err(error) => {
                    consumer.lock().record.refused(&consumer.spec, &error);
                    call.failed(&live, error)?;
                }
            }
        }
    }

    async fn start_again(&self, live: &Live, consumer: &ConsumerInner) -> Result<SingleConsumer> {
        let queue = self.spec(consumer).method.queue;
        let is_auto_delete = self.shared().lock().topology.is_auto_delete(&queue);
        if let Some(link) = self.shared().link().filter(|_| is_auto_delete) {
            // it went with its last consumer, if that was this one
            let refused = restore_topology::auto_delete(self.shared(), &link).await?;
            let is_meant =
                |refused: &Unrestored| matches!(&refused.entity, Entity::Queue { name } if *name == queue);
            if let Some(refused) = refused.into_iter().find(is_meant) {
                return Err(refused.error.with_scope(Scope::Call));
            }
        }
        live.plain.consume(self.spec(consumer)).await
    }

    /// Cancels a consumer for good.
    pub(super) async fn cancel(&self, consumer: &ConsumerInner) -> Result<()> {
        self.forget_consumer(consumer);
        consumer.end(None);
        let live = self.live_now();
        let cancelled = consumer.running().cancel().await;
        if let (Err(error), Ok(live)) = (&cancelled, &live) {
            self.unanswered(live, error, None);
        }
        cancelled
    }

    /// The user wants no more of it.
    pub(super) fn forget_consumer(&self, consumer: &ConsumerInner) {
        let mut state = self.shared().lock();
        let mut core = self.lock();
        let known = core.consumers.iter().position(|other| other.id == consumer.id);
        if let Some(known) = known {
            let cancelled = core.consumers.remove(known);
            // what it has not handed out yet goes back when the connection is drained
            core.cancelled.retain(|other| other.strong_count() > 0);
            core.cancelled.push(Arc::downgrade(&cancelled));
        }
        drop(core);
        state.topology.cancel(self.key(consumer));
    }
}

impl RobustConsumer {
    /// Starts a consumer and records it.
    pub(super) async fn start(channel: RobustChannel, spec: ConsumeSpec) -> Result<Self> {
        let mut call = Call::begin(&channel.inner, CONSUME, true).await?;
        let inner = loop {
            let live = call.live().await?;
            let mut spec = spec.clone();
            spec.method.queue = channel.inner.current_queue(&spec.method.queue);
            spec.prefetch = spec.prefetch.or(channel.inner.lock().prefetch);
            match live.plain.consume(spec).await {
                Ok(plain) => {
                    channel.inner.shared().unanswered.end_row();
                    if let Some(inner) = channel.inner.record_consumer(&live, plain) {
                        break inner;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Timeout => {
                    let more = "; if the server has started the consumer all the same, that is cancelled";
                    call.failed(&live, error.with_more(more))?;
                }
                Err(error) => call.failed(&live, error)?,
            }
        };
        drop(call);
        Ok(Self { channel, inner, handed: Handed::default() })
    }

    /// The consumer's tag; it stays the same after a loss.
    pub(crate) fn tag(&self) -> &ShortStr {
        &self.inner.spec.method.consumer_tag
    }

    /// Cancels the consumer. What has come already can still be taken. Dropped before it is done, the consumer ends at once.
    pub(crate) async fn cancel(&mut self) -> Result<()> {
        self.channel.inner.cancel(&self.inner).await
    }

    /// Cancels the consumer at the server until [`resume`](Self::resume), also across losses. Dropped before it is done, it
    /// goes on in the background.
    pub(crate) async fn pause(&mut self) -> Result<()> {
        self.inner.lock().record.pause();
        let live = self.channel.inner.live_now();
        let paused = self.inner.cancel_sources().await;
        if let (Err(error), Ok(live)) = (&paused, &live) {
            self.channel.inner.unanswered(live, error, None);
        }
        paused
    }

    /// Goes on after [`pause`](Self::pause): at once, or when there is a link again. Dropped, it goes on in the background.
    pub(crate) async fn resume(&mut self) -> Result<()> {
        if !self.inner.lock().record.resume() {
            return Ok(());
        }
        let (channel, consumer) = (Arc::clone(&self.channel.inner), Arc::clone(&self.inner));
        let shared = Arc::clone(channel.shared());
        let resumed = async move {
            // also if nobody waits any more: otherwise it would be neither paused nor running
            channel.resume(&consumer).await.inspect_err(|_| consumer.lock().record.pause())
        };
        shared.detached(resumed).await
    }

    /// The prefetch of its next start.
    pub(crate) fn set_prefetch(&mut self, deliveries: u16) {
        self.inner.lock().record.set_prefetch(deliveries);
    }

    /// Whether it is paused.
    pub(crate) fn is_paused(&self) -> bool {
        self.inner.lock().record.is_paused()
    }

    /// Waits until there is a delivery. `Err`: there is none, and what is told instead.
    #[inline(never)]
    pub(crate) fn poll_at_hand(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<AtHand<'_>, Option<Error>>> {
        // dropped after unlocking, for that may cancel them
        let mut gone = Vec::new();
        let mut cancelled = None;
        let mut slot = self.inner.lock();
        loop {
            if let Some(source) = slot.sources.front_mut() {
                // after the end, what needs an ack comes again
                let stale = source.needs_acks() && !source.is_open();
                let polled = if stale {
                    Poll::Ready(Err(None))
                } else if source.is_at_hand() {
                    Poll::Ready(Ok(()))
                } else {
                    source.poll_at_hand(context)
                };
                match polled {
                    Poll::Ready(Ok(())) => {
                        let at_hand = source.hand_over(&mut self.handed);
                        let position = source.position();
                        slot.record.handed_out(position);
                        return Poll::Ready(Ok(at_hand));
                    }
                    // the stream goes on behind it
                    Poll::Ready(Err(Some(error))) if error.kind() == ErrorKind::MessageTooLarge => {
                        let position = source.position();
                        slot.record.handed_out(position);
                        return Poll::Ready(Err(Some(error)));
                    }
                    Poll::Pending => break,
                    Poll::Ready(Err(ended)) => {
                        gone.extend(slot.sources.pop_front());
                        if let Some(error) = ended
                            && error.kind() == ErrorKind::ConsumerCancelled
                        {
                            cancelled = self.cancelled_by_server(&mut slot, error);
                        }
                    }
                }
            } else {
                match slot.record.take_end() {
                    Some(last) => return Poll::Ready(Err(last)),
                    None => break,
                }
            }
        }
        if !slot.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            slot.waker = Some(context.waker().clone());
        }
        drop(slot);
        if let Some(error) = cancelled {
            let channel = &self.channel.inner;
            let (queue, tag) = channel.names(&self.inner);
            let consumer_tag = PeerText(tag.as_bytes()).to_string();
            tracing::info!(consumer_tag, "the server cancelled a consumer, which waits for its queue");
            channel.shared().tell(Event::ConsumerCancelled { queue, tag, error });
            let incarnation = channel.lock().life.incarnation();
            channel.revive(&self.inner, incarnation, Probe::CANCELLED);
        }
        Poll::Pending
    }

    /// Returns the error if the consumer is to be started again.
    fn cancelled_by_server(&self, slot: &mut Slot, error: Error) -> Option<Error> {
        if slot.record.has_ended() || !slot.sources.is_empty() {
            return None;
        }
        if self.channel.inner.shared().settings.revive {
            return Some(error);
        }
        slot.record.end(Some(error));
        None
    }
}

/// Of what can go wrong with a cancel, only this leaves a consumer at the server.
fn timed_out(cancelled: Result<()>) -> Result<()> {
    match cancelled {
        Err(error) if error.kind() == ErrorKind::Timeout => Err(error),
        _ => Ok(()),
    }
}

impl Drop for RobustConsumer {
    fn drop(&mut self) {
        self.channel.inner.forget_consumer(&self.inner);
        self.inner.end(None);
        drop(self.inner.take());
    }
}

impl fmt::Debug for RobustConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RobustConsumer").field("tag", self.tag()).finish_non_exhaustive()
    }
}
