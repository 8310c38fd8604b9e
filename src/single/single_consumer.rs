//! A consumer on one connection.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use super::delivery::{Acks, Delivery};
use super::outbound::ConsumeSpec;
use super::single_channel::SingleInner;
use super::stream_position::{StreamPosition, is_told};
use crate::codec::ShortStr;
use crate::codec::generated::basic;
use crate::codec::peer_text::PeerText;
use crate::driver::delivery_queue::{ConsumerState, DeliveryQueue, End};
use crate::error::{Error, ErrorKind, Result};
use crate::mux::incoming_delivery::Delivery as Raw;

/// A consumer. Dropped, it is cancelled in the background, and what it had not handed out goes back to the queue.
pub(crate) struct SingleConsumer {
    channel: Arc<SingleInner>,
    spec: ConsumeSpec,
    queue: Arc<DeliveryQueue>,
    /// Taken from the queue, and not handed out yet.
    taken: VecDeque<Raw>,
    /// The bytes of what was taken together. They count until all of it was handed out, so that nothing is counted for each
    /// message.
    counted: usize,
    acks: Arc<Acks>,
    position: StreamPosition,
    state: State,
    /// Special: each message is looked at before it is handed out, because it may be of a stream, or too large.
    seen: Arc<ConsumerState>,
}

/// Where the next delivery lies. Both kinds of consumer come down to this, so that the delivery is made only once, in the
/// caller's place: returned from two places, it is copied several times, and each copy waits for the stores of the last.
pub(crate) struct AtHand<'a> {
    taken: &'a mut VecDeque<Raw>,
    acks: Arc<Acks>,
}

impl AtHand<'_> {
    #[inline]
    pub(crate) fn take(self) -> Option<Delivery> {
        let raw = self.taken.pop_front()?;
        Some(Delivery::new(raw, self.acks))
    }
}

/// Deliveries that do not wait at a consumer any more; see [`SingleConsumer::hand_over`].
#[derive(Default)]
pub(crate) struct Handed(VecDeque<Raw>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// Cancelled at the server until it is resumed.
    Paused,
    /// Nothing more is to be told.
    Ended,
}

impl SingleConsumer {
    pub(super) fn new(channel: Arc<SingleInner>, mut spec: ConsumeSpec, queue: Arc<DeliveryQueue>) -> Self {
        let acks = Arc::new(Acks::of_consumer(&channel, &queue));
        // also if the server made it up
        spec.method.consumer_tag = queue.tag().detach();
        let position = StreamPosition::at_start(&spec);
        let (taken, seen) = (VecDeque::new(), Arc::clone(queue.consumer()));
        Self { channel, spec, queue, taken, counted: 0, acks, position, state: State::Running, seen }
    }

    /// The consumer's tag.
    pub(crate) fn tag(&self) -> &ShortStr {
        &self.spec.method.consumer_tag
    }

    /// What it was started with.
    pub(crate) fn spec(&self) -> &ConsumeSpec {
        &self.spec
    }

    /// How far it has got in its stream, if it consumes from one.
    #[inline]
    pub(crate) fn position(&self) -> StreamPosition {
        self.position
    }

    /// Cancels the consumer, without holding it: the server sends no more. What has come already can still be taken.
    pub(crate) fn cancelling(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let (channel, queue) = (Arc::clone(&self.channel), Arc::clone(&self.queue));
        async move { channel.link.cancel(&queue).await }
    }

    /// Cancels without waiting for the answer, nor for the channel's turn.
    pub(crate) fn cancel_now(&self) {
        self.channel.link.cancel_now(&self.queue);
    }

    /// Cancels the consumer until it is resumed. What has come and was not handed out goes back; without acks it can
    /// still be taken.
    pub(crate) async fn pause(&mut self) -> Result<()> {
        if self.state != State::Running {
            return Ok(());
        }
        self.state = State::Paused;
        if self.needs_acks() {
            self.abandon();
        }
        self.cancelling().await
    }

    /// Starts the consumer again after a pause.
    pub(crate) async fn resume(&mut self) -> Result<()> {
        if self.state != State::Paused {
            return Ok(());
        }
        // without the argument it may be no stream, and a queue refuses the argument
        if is_told(&self.spec) {
            self.position.apply(&mut self.spec);
        }
        let queue = self.channel.consume(&self.spec).await?;
        // what was delivered before the pause has nothing to do with the end of what comes now
        self.acks = Arc::new(Acks::of_consumer(&self.channel, &queue));
        self.seen = Arc::clone(queue.consumer());
        let old = std::mem::replace(&mut self.queue, queue);
        let mut rest = VecDeque::new();
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Ok(weight)) = old.poll_take(&mut rest, &mut context) {
            old.free(weight);
            for raw in &mut rest {
                raw.tag += self.channel.tag_base;
            }
            self.taken.append(&mut rest);
            self.seen.set_special(true);
        }
        self.state = State::Running;
        Ok(())
    }

    /// The prefetch of its next start.
    pub(crate) fn set_prefetch(&mut self, deliveries: u16) {
        self.spec.prefetch = Some(deliveries);
    }

    /// Whether it is paused.
    pub(crate) fn is_paused(&self) -> bool {
        self.state == State::Paused
    }

    /// Whether nothing more will come.
    pub(crate) fn has_ended(&self) -> bool {
        self.queue.has_ended()
    }

    /// Whether the channel that it consumes on has not ended.
    pub(crate) fn is_open(&self) -> bool {
        self.channel.link.state.error().is_none()
    }

    /// Whether what it hands out is to be acknowledged.
    pub(crate) fn needs_acks(&self) -> bool {
        !self.queue.no_ack()
    }

    /// Whether [`at_hand`](Self::at_hand) has a delivery without [`poll_at_hand`](Self::poll_at_hand) before it: one was taken
    /// that is neither the last one, nor stale, nor to be looked at.
    #[inline]
    pub(crate) fn is_at_hand(&self) -> bool {
        self.taken.len() > 1 && self.seen.is_plain()
    }

    /// Waits until there is a delivery. `Err`: there is none, and what is told instead.
    #[inline(never)]
    pub(crate) fn poll_at_hand(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Option<Error>>> {
        if self.seen.is_stale() && !self.taken.is_empty() {
            // nobody should begin to work on it: it comes again
            self.abandon();
        }
        if self.taken.is_empty() {
            ready!(self.poll_take(context))?;
        }
        if self.seen.is_special()
            && let Some(error) = self.look_at_next()
        {
            return Poll::Ready(Err(Some(error)));
        }
        if self.taken.len() == 1 {
            // at once: whoever asks for no more must not hold up a call that waits for its answer
            self.free_taken();
        }
        Poll::Ready(Ok(()))
    }

    /// What is there.
    #[inline]
    pub(crate) fn at_hand(&mut self) -> AtHand<'_> {
        AtHand { taken: &mut self.taken, acks: Arc::clone(&self.acks) }
    }

    /// Hands over one delivery.
    pub(crate) fn hand_over<'a>(&mut self, handed: &'a mut Handed) -> AtHand<'a> {
        handed.0.extend(self.taken.pop_front());
        AtHand { taken: &mut handed.0, acks: Arc::clone(&self.acks) }
    }

    /// Follows a stream, and rejects a message that is too large. Looked at where it lies: a copy of it would wait for its
    /// own stores.
    #[cold]
    fn look_at_next(&mut self) -> Option<Error> {
        let raw = self.taken.front()?;
        self.position.pass(raw);
        let bytes = raw.too_large()?;
        let tag = raw.tag - self.channel.tag_base;
        self.taken.pop_front();
        Some(self.too_large(tag, bytes))
    }

    /// All that was taken together was handed out.
    #[inline(never)]
    fn free_taken(&mut self) {
        self.queue.free(std::mem::take(&mut self.counted));
    }

    /// Gives what was taken the numbers that users see; done for a batch, since on most channels they are the server's.
    fn number_taken(&mut self) {
        if self.channel.tag_base != 0 {
            for raw in &mut self.taken {
                raw.tag += self.channel.tag_base;
            }
        }
    }

    /// Cancels the consumer in the background, and gives back what was not handed out.
    fn abandon(&mut self) {
        self.queue.free(std::mem::take(&mut self.counted));
        for raw in &mut self.taken {
            raw.tag -= self.channel.tag_base;
        }
        self.channel.link.abandon_consumer(&self.queue, &self.taken);
        self.taken.clear();
    }

    /// Rejects a message whose body was left out.
    #[cold]
    fn too_large(&self, tag: u64, bytes: u64) -> Error {
        let basic::Consume { queue, consumer_tag, .. } = &self.spec.method;
        let place = format!("for consumer \"{consumer_tag}\" of queue \"{queue}\"");
        // a stream takes no reject, and drops nothing
        self.channel.reject_too_large(tag, bytes, &place, self.needs_acks(), is_told(&self.spec))
    }

    /// Takes what waits. `Err`: nothing more will come, and why, if that is to be told.
    #[inline(never)]
    fn poll_take(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Option<Error>>> {
        if self.state == State::Ended {
            return Poll::Ready(Err(None));
        }
        self.queue.free(std::mem::take(&mut self.counted));
        let taken = ready!(self.channel.link.poll_take(&self.queue, &mut self.taken, context));
        let end = match taken {
            Ok(weight) => {
                self.counted = weight;
                self.number_taken();
                let is_special = self.position != StreamPosition::NoStream
                    || self.taken.iter().any(|raw| raw.too_large().is_some());
                self.seen.set_special(is_special);
                return Poll::Ready(Ok(()));
            }
            // whoever resumes it polls it again
            Err(End::Cancelled) if self.state == State::Paused => return Poll::Pending,
            Err(end) => end,
        };
        self.state = State::Ended;
        Poll::Ready(Err(match end {
            End::Cancelled => None,
            End::CancelledByServer => {
                let tag = PeerText(self.tag().as_bytes());
                let queue = PeerText(self.spec.method.queue.as_bytes());
                let channel = self.channel.link.state.key.id.get();
                let text = format!(
                    "the server cancelled consumer \"{tag}\" on channel {channel}; its queue \"{queue}\" may be gone"
                );
                Some(Error::new(ErrorKind::ConsumerCancelled, text))
            }
            End::Failed(error) if error.kind() == ErrorKind::Closed => None,
            End::Failed(error) => Some(error),
        }))
    }
}

impl Drop for SingleConsumer {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl fmt::Debug for SingleConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleConsumer").field("tag", self.tag()).finish_non_exhaustive()
    }
}
