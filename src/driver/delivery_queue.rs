//! The queue between the reader and one consumer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::budget::{Bound, Budget};
use super::link_channel::ChannelState;
use crate::codec::ShortStr;
use crate::error::Error;
use crate::mux::ids::ChannelKey;
use crate::mux::incoming_delivery::Delivery;

/// Deliveries that wait for their consumer. The reader appends in batches and never waits; the consumer
/// takes all that is there at once.
///
/// Its own small lock is not the connection's: the two are never held together.
#[derive(Debug)]
pub(crate) struct DeliveryQueue {
    state: Mutex<State>,
    budget: Arc<Budget>,
    bound: Bound,
    channel: Arc<ChannelState>,
    consumer: Arc<ConsumerState>,
    no_ack: bool,
    /// Whether what nobody has looked at goes back to the server.
    gives_back: bool,
}

/// What whoever takes from a consumer, or works on its deliveries, sees without a lock. It lies apart from the queue, which
/// the reader writes to all the time.
#[derive(Debug, Default)]
pub(crate) struct ConsumerState(AtomicU8);

impl ConsumerState {
    /// Each delivery is to be looked at before it is handed out.
    const SPECIAL: u8 = 1;
    /// The channel has ended, and deliveries need acks.
    const FAILED: u8 = 2;
    /// The server has cancelled the consumer, and deliveries need acks.
    const CANCELLED: u8 = 4;

    /// Whether deliveries are handed out as they are.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn is_special(&self) -> bool {
        self.has(Self::SPECIAL)
    }

    pub(crate) fn set_special(&self, special: bool) {
        if special {
            self.0.fetch_or(Self::SPECIAL, Ordering::Relaxed);
        } else if self.is_special() {
            self.0.fetch_and(!Self::SPECIAL, Ordering::Relaxed);
        }
    }

    /// Whether the server has what was delivered back, as far as it was not acknowledged.
    pub(crate) fn is_stale(&self) -> bool {
        self.has(Self::FAILED | Self::CANCELLED)
    }

    fn has(&self, any: u8) -> bool {
        self.0.load(Ordering::Acquire) & any != 0
    }
}

/// What a consumer that goes away must still do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// Tell the server to cancel; [`DeliveryQueue::end`] then hands out what is left.
    Cancel(ShortStr),
    /// The consumer has ended: give these delivery tags back.
    GiveBack(Vec<u64>),
    /// Nothing yet: the server has not answered `basic.consume`. Whoever sees the answer cancels.
    Wait,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Delivery>,
    /// The bytes of `waiting`.
    weight: usize,
    end: Option<End>,
    waker: Option<Waker>,
    /// The consumer tag, once the server has told it.
    tag: Option<ShortStr>,
    /// The consumer was dropped: nobody will take what comes. Only the tags are kept, to give back.
    abandoned: bool,
    unseen: Vec<u64>,
}

/// What became of a batch that the reader handed over.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits for the consumer, or was dropped without a loss.
    Taken,
    /// The consumer is gone: these delivery tags must be given back to the server.
    GiveBack(Vec<u64>),
    /// More wait than the consumer's prefetch allows.
    Overrun { prefetch: u16 },
}

/// How a stream of deliveries ends.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// The user cancelled the consumer.
    Cancelled,
    /// The server cancelled it. What has come and needs an ack is given back: after a consumer timeout `RabbitMQ` has it
    /// back already, and nobody should begin to work on it here.
    CancelledByServer,
    /// Its channel has ended.
    Failed(Error),
}

impl DeliveryQueue {
    /// What waits counts in the budget, as `bound` says.
    pub(crate) fn new(channel: Arc<ChannelState>, no_ack: bool, bound: Bound, budget: Arc<Budget>) -> Self {
        let (state, consumer) = (Mutex::default(), Arc::default());
        Self { state, budget, bound, channel, consumer, no_ack, gives_back: !no_ack }
    }

    /// The consumer reads a stream. Nothing goes back there: messages stay where they are, and `RabbitMQ` 3 closes the
    /// connection for a `basic.nack`.
    pub(crate) fn of_stream(mut self) -> Self {
        self.gives_back = false;
        self
    }

    /// The channel that its deliveries come on.
    pub(crate) fn channel(&self) -> ChannelKey {
        self.channel.key
    }

    /// What is seen of the consumer without a lock.
    pub(crate) fn consumer(&self) -> &Arc<ConsumerState> {
        &self.consumer
    }

    /// Whether deliveries need no acks.
    pub(crate) const fn no_ack(&self) -> bool {
        self.no_ack
    }

    /// Whether nothing more will come.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    /// The server has answered `basic.consume`. `Cancel` if nobody waits for it any more.
    pub(crate) fn started(&self, tag: ShortStr) -> Farewell {
        let mut state = self.lock();
        state.tag = Some(tag.clone());
        if state.abandoned { Farewell::Cancel(tag) } else { Farewell::Wait }
    }

    /// The consumer tag; empty before the server has told it.
    pub(crate) fn tag(&self) -> ShortStr {
        self.lock().tag.clone().unwrap_or_default()
    }

    /// Appends a batch of so many bytes, leaving it empty, and wakes the consumer once.
    pub(crate) fn push(&self, batch: &mut Vec<Delivery>, weight: usize) -> Pushed {
        let mut state = self.lock();
        if state.end.is_some() || state.abandoned {
            return self.refuse(&mut state, batch);
        }
        if let Bound::Prefetch(prefetch) = self.bound
            && state.waiting.len() + batch.len() > usize::from(prefetch)
            && !self.channel.has_settled_several()
            && !batch.last().is_some_and(Delivery::is_of_stream)
        {
            return Pushed::Overrun { prefetch };
        }
        // before the consumer can take, and free, them
        self.budget.add(self.bound, weight);
        state.weight += weight;
        if state.waiting.is_empty() {
            // neither copies: the batch's memory goes there, and that of an earlier one comes back
            let empty = std::mem::replace(&mut state.waiting, std::mem::take(batch).into());
            *batch = empty.into();
        } else {
            state.waiting.extend(batch.drain(..));
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Pushed::Taken
    }

    /// Nobody will take this batch any more.
    #[cold]
    fn refuse(&self, state: &mut State, batch: &mut Vec<Delivery>) -> Pushed {
        let tags = batch.drain(..).map(|delivery| delivery.tag);
        match &state.end {
            // the server takes back what needs an ack, together with the channel
            Some(End::Failed(_)) => Pushed::Taken,
            _ if !self.gives_back => Pushed::Taken,
            Some(End::Cancelled | End::CancelledByServer) => Pushed::GiveBack(tags.collect()),
            // with the rest, once the server has answered the cancel
            None => {
                state.unseen.extend(tags);
                Pushed::Taken
            }
        }
    }

    /// Takes everything that waits into `taken`, which is empty, and tells how many bytes that are: they count until they
    /// are [freed](Self::free). `Ready(Err)`: nothing waits, and nothing will come.
    pub(crate) fn poll_take(
        &self,
        taken: &mut VecDeque<Delivery>,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize, End>> {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            if let Some(end) = &state.end {
                return Poll::Ready(Err(end.clone()));
            }
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                state.waker = Some(context.waker().clone());
            }
            return Poll::Pending;
        }
        std::mem::swap(&mut state.waiting, taken);
        Poll::Ready(Ok(std::mem::take(&mut state.weight)))
    }

    /// Nothing more will come. Hands out the delivery tags that must be given back to the server, because
    /// the consumer is gone.
    ///
    /// After a failure, or its own cancel, the server delivers again what was not acknowledged, so nobody should begin to
    /// work on it here; what needs no acknowledgement would be lost, and stays.
    pub(crate) fn end(&self, end: End) -> Vec<u64> {
        let mut state = self.lock();
        let again = match state.end.get_or_insert(end) {
            _ if self.no_ack => 0,
            End::Cancelled => 0,
            End::CancelledByServer => ConsumerState::CANCELLED,
            End::Failed(_) => ConsumerState::FAILED,
        };
        self.consumer.0.fetch_or(again, Ordering::Release);
        let left = if state.abandoned || again != 0 { self.drain(&mut state) } else { Vec::new() };
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        if again == ConsumerState::CANCELLED {
            self.channel.look_again();
        }
        left
    }

    /// The consumer is gone, and had taken `taken` without looking at it.
    pub(crate) fn abandon(&self, taken: &VecDeque<Delivery>) -> Farewell {
        let mut state = self.lock();
        state.abandoned = true;
        // what they hold is free at once: the server's answer to the cancel may wait behind a full budget
        let mut unseen: Vec<_> = taken.iter().map(|delivery| delivery.tag).collect();
        unseen.extend(self.drain(&mut state));
        if !self.gives_back {
            unseen.clear();
        }
        if state.end.is_some() {
            return Farewell::GiveBack(unseen);
        }
        state.unseen = unseen;
        state.tag.clone().map_or(Farewell::Wait, Farewell::Cancel)
    }

    fn drain(&self, state: &mut State) -> Vec<u64> {
        self.free(std::mem::take(&mut state.weight));
        let waiting = std::mem::take(&mut state.waiting);
        let unseen = std::mem::take(&mut state.unseen);
        if !self.gives_back || matches!(state.end, Some(End::Failed(_))) {
            return Vec::new();
        }
        unseen.into_iter().chain(waiting.into_iter().map(|delivery| delivery.tag)).collect()
    }

    /// Deliveries of so many bytes were handed out, or dropped.
    pub(crate) fn free(&self, weight: usize) {
        if weight > 0 {
            self.budget.free(self.bound, weight);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use bytes::BytesMut;

    use super::*;
    use crate::codec::frame::{Cutter, put_method};
    use crate::codec::generated::basic::Deliver;

    fn channel() -> Arc<ChannelState> {
        Arc::new(ChannelState::new(ChannelKey { id: NonZeroU16::MIN, generation: 1 }))
    }

    fn deliveries(tags: std::ops::RangeInclusive<u64>) -> Vec<Delivery> {
        tags.map(|delivery_tag| {
            let mut out = Vec::new();
            put_method(&mut out, 1, &Deliver { delivery_tag, ..Deliver::default() });
            let cut = Cutter::agreed(4096).cut(&mut BytesMut::from(out.as_slice()));
            let delivery = Delivery::begin(&cut.frames.frames().next().unwrap());
            delivery.unwrap()
        })
        .collect()
    }

    fn push(queue: &DeliveryQueue, mut batch: Vec<Delivery>) {
        let weight = batch.iter().map(Delivery::weight).sum();
        assert_eq!(queue.push(&mut batch, weight), Pushed::Taken);
        assert!(batch.is_empty());
    }

    fn tag() -> ShortStr {
        ShortStr::try_from("tag").unwrap()
    }

    #[test]
    fn a_dropped_consumer_frees_the_budget_at_once_and_gives_back_in_order() {
        let budget = Arc::new(Budget::new(1));
        let queue = DeliveryQueue::new(channel(), false, Bound::Unlimited, Arc::clone(&budget));
        queue.started(tag());
        push(&queue, deliveries(3..=4));
        assert!(budget.is_spent());
        let taken = deliveries(1..=2).into();
        assert_eq!(queue.abandon(&taken), Farewell::Cancel(tag()));
        assert!(!budget.is_spent());
        push(&queue, deliveries(5..=6));
        assert!(!budget.is_spent());
        assert_eq!(queue.end(End::Cancelled), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn after_a_cancel_by_the_server_what_waits_is_given_back_unless_it_needs_no_ack() {
        for no_ack in [false, true] {
            let queue = DeliveryQueue::new(channel(), no_ack, Bound::Unlimited, Arc::new(Budget::new(1)));
            queue.started(tag());
            push(&queue, deliveries(1..=2));
            let left = queue.end(End::CancelledByServer);
            let (waits, mut taken) = (if no_ack { 2 } else { 0 }, VecDeque::new());
            let _polled = queue.poll_take(&mut taken, &mut Context::from_waker(Waker::noop()));
            assert_eq!((left.len(), taken.len()), (2 - waits, waits));
            assert_eq!(queue.consumer().is_stale(), !no_ack);
        }
    }

    #[test]
    fn a_user_who_has_cancelled_may_still_take_what_has_come() {
        let queue = DeliveryQueue::new(channel(), false, Bound::Unlimited, Arc::new(Budget::new(1)));
        queue.started(tag());
        push(&queue, deliveries(1..=2));
        assert!(queue.end(End::Cancelled).is_empty());
        // the first end counts
        assert!(queue.end(End::CancelledByServer).is_empty());
        assert!(!queue.consumer().is_stale());
    }

    #[test]
    fn without_acks_there_is_nothing_to_give_back() {
        let budget = Arc::new(Budget::new(1));
        let queue = DeliveryQueue::new(channel(), true, Bound::Unlimited, Arc::clone(&budget));
        queue.started(tag());
        push(&queue, deliveries(1..=2));
        assert_eq!(queue.abandon(&VecDeque::new()), Farewell::Cancel(tag()));
        push(&queue, deliveries(3..=3));
        assert!(!budget.is_spent());
        assert!(queue.end(End::Cancelled).is_empty());
    }

    #[test]
    fn a_consumer_dropped_before_its_start_is_known_is_cancelled_then() {
        let queue = DeliveryQueue::new(channel(), false, Bound::Prefetch(9), Arc::new(Budget::new(1)));
        assert_eq!(queue.abandon(&VecDeque::new()), Farewell::Wait);
        assert_eq!(queue.started(tag()), Farewell::Cancel(tag()));
    }

    #[test]
    fn more_than_the_prefetch_is_an_overrun_whoever_reads_how_much_at_once() {
        for batches in [vec![1..=4], vec![1..=3, 4..=4]] {
            let queue = DeliveryQueue::new(channel(), false, Bound::Prefetch(3), Arc::new(Budget::new(1)));
            queue.started(tag());
            let (last, before) = batches.split_last().unwrap();
            for batch in before {
                push(&queue, deliveries(batch.clone()));
            }
            let mut batch = deliveries(last.clone());
            assert_eq!(queue.push(&mut batch, 1), Pushed::Overrun { prefetch: 3 });
            // who acknowledges several at once may have acknowledged some that it has not seen
            queue.channel.settles_several();
            assert_eq!(queue.push(&mut batch, 1), Pushed::Taken);
        }
    }

    #[test]
    fn what_was_taken_counts_until_it_is_handed_out() {
        let budget = Arc::new(Budget::new(1));
        let queue = DeliveryQueue::new(channel(), true, Bound::Unlimited, Arc::clone(&budget));
        push(&queue, deliveries(1..=2));
        let mut context = Context::from_waker(Waker::noop());
        let mut taken = VecDeque::new();
        let Poll::Ready(Ok(weight)) = queue.poll_take(&mut taken, &mut context) else { panic!() };
        assert_eq!((budget.waiting(), taken.len()), (weight, 2));
        queue.free(weight);
        assert_eq!(budget.waiting(), 0);
    }
}
