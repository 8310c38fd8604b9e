//! The reader: owns the receiving half, routes deliveries, hands out replies, notices the end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::delivery_queue::{DeliveryQueue, End, Pushed};
use super::dial::ReadHalf;
use super::faults;
use super::link_call::Call;
use super::link_state::{Shared, end_channels};
use super::read_buffer::Input;
use super::waiters::{Answer, Driver};
use crate::codec::frame::{Chunk, Cutter};
use crate::codec::generated::{channel, connection};
use crate::codec::peer_text::PeerText;
use crate::codec::{Arguments, Method};
use crate::error::Scope;
use crate::mux::inbound::{Inbound, Received};
use crate::mux::incoming_delivery::Delivery;
use crate::mux::session::Event;
use crate::mux::tune::Agreed;
use crate::mux::violation::Violation;

/// How long the server may take to end the connection after the last word.
const LINGER: Duration = Duration::from_secs(1);

/// How long to sleep where there is no deadline.
const LONG: Duration = Duration::from_secs(3600);

/// A read of so many bytes means that more is about to come.
const BUSY: usize = 16 << 10;

/// The task that reads.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    stream: ReadHalf,
    input: Input,
    cutter: Cutter,
    inbound: Inbound<Driver>,
    batch: Batch,
    /// Who is to be woken because of confirms; empty but for a moment.
    woken: Vec<Waker>,
    /// The agreed interval, in seconds.
    heartbeat: u16,
    last_read: Instant,
    /// Whether much came with it.
    busy: bool,
    /// One timer for the task's life, set again only when it has fired or the deadline comes nearer:
    /// reading does not touch it.
    timer: Pin<Box<Sleep>>,
    /// When an orderly close is given up, or the server's last word after a failed write.
    give_up: Option<Instant>,
    writer: Option<JoinHandle<()>>,
}

/// Deliveries for one consumer, handed over together.
#[derive(Default)]
struct Batch {
    queue: Option<Arc<DeliveryQueue>>,
    deliveries: Vec<Delivery>,
    /// The bytes of `deliveries`.
    weight: usize,
    /// Deliveries of fewer bytes are copied out of the read buffer.
    squeezed: usize,
    /// More came for a consumer than its prefetch allows.
    overrun: Option<Violation>,
    /// Whether anything was handed over since somebody last looked.
    delivered: bool,
}

/// Why reading ends.
enum Stop {
    /// Nothing more is to be said.
    Done,
    /// The server ended it without a close.
    Lost(Option<Arc<io::Error>>),
    /// The task was dropped: its runtime shuts down.
    Dropped,
    /// Nothing came for too long.
    Silent,
    /// The server did not answer our close in time.
    CloseTimeout,
    /// The server broke the protocol.
    Violation(Violation),
}

impl Reader {
    pub(crate) fn new(
        shared: Arc<Shared>,
        stream: ReadHalf,
        input: BytesMut,
        agreed: Agreed,
        writer: JoinHandle<()>,
    ) -> Self {
        let inbound = Inbound::new(shared.limits.message);
        Self {
            shared,
            stream,
            input: Input::new(input, &Handle::current().runtime_flavor()),
            cutter: Cutter::agreed(agreed.frame_max),
            inbound,
            batch: Batch::default(),
            woken: Vec::new(),
            heartbeat: agreed.heartbeat,
            last_read: Instant::now(),
            busy: false,
            // fires at once, and is set then
            timer: Box::pin(sleep_until(Instant::now())),
            give_up: None,
            writer: Some(writer),
        }
    }

    /// Runs until the connection has ended, and then tells everybody who waits.
    pub(crate) async fn run(mut self) {
        let stop = self.read_all().await;
        // too many deliveries are no matter any more
        let _overrun = self.batch.flush(&self.shared);
        self.stop(&stop);
        if matches!(stop, Stop::Done | Stop::Violation(_)) {
            self.linger().await;
        }
        if let Some(writer) = self.writer.take() {
            // a writer that panicked has nothing left to write
            drop(writer.await);
        }
    }

    async fn read_all(&mut self) -> Stop {
        loop {
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return Stop::Done,
                Err(violation) => return Stop::Violation(violation),
            }
            if std::mem::take(&mut self.batch.delivered) && self.busy {
                // consumers take what has come while it is warm, instead of letting more pile up; after a small
                // read there is nothing to read yet, and so they come anyway
                tokio::task::yield_now().await;
            }
            if let Some(stop) = self.read().await {
                return stop;
            }
        }
    }

    /// Handles all whole frames that have come. False: the connection is closed.
    fn advance(&mut self) -> Result<bool, Violation> {
        let (whole, fault) = self.cutter.whole(&self.input.bytes);
        let (bytes, pins) = self.input.take(whole);
        // a message pins the buffer that it was read into: once too much is pinned, small ones are copied out of it
        let pinned = self.input.pinned();
        self.batch.squeezed = if pinned > self.shared.limits.incoming / 2 + 2 * self.shared.budget.waiting() {
            pins / 4
        } else {
            0
        };
        let open = self.chunk(&Chunk::measured(bytes))?;
        self.batch.flush(&self.shared)?;
        match fault {
            Some(fault) if open => Err(fault.into()),
            _ => Ok(open),
        }
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<bool, Violation> {
        let mut frames = chunk.frames();
        while let Some(frame) = frames.next() {
            if let Some((consumer, delivery)) = self.inbound.deliver_whole(&frame, &mut frames) {
                // once the connection is closing, nobody is to begin work that cannot be acknowledged
                if self.give_up.is_none() {
                    self.batch.add(&self.shared, consumer, delivery);
                }
                continue;
            }
            match self.inbound.receive(frame)? {
                Received::Nothing => {}
                Received::Delivery { .. } if self.give_up.is_some() => {}
                Received::Delivery { consumer, delivery } => {
                    self.batch.add(&self.shared, consumer, delivery);
                }
                Received::Method { channel, method } => {
                    if !self.method(channel, method)? {
                        return Ok(false);
                    }
                }
                Received::Unclaimed { channel, delivery } => self.unclaimed(channel, &delivery),
                Received::GetOk { channel, mut delivery } => {
                    if delivery.weight() < self.batch.squeezed {
                        delivery.detach();
                    }
                    // unlocked before anybody is woken
                    let waiter = self.shared.lock().get_ok(channel)?;
                    if let Some(waiter) = waiter {
                        waiter.complete(Ok(Answer::GetOk(delivery)));
                    }
                }
                Received::Returned { channel, returned } => {
                    let unclaimed = self.shared.lock().returned(channel, returned);
                    if let Some((channel, returned)) = unclaimed {
                        channel.returns.push(*returned);
                    }
                }
            }
        }
        Ok(true)
    }

    /// A delivery for a consumer that is not there goes back to its queue, where it is sure that it needs an ack:
    /// one too many closes the channel.
    #[cold]
    fn unclaimed(&self, channel: u16, delivery: &Delivery) {
        let Some(state) = self.shared.lock().channel(channel).cloned() else { return };
        let tag = PeerText(delivery.consumer_tag());
        if !state.strays.swap(true, Ordering::Relaxed) {
            tracing::warn!(channel, %tag, "the server delivers to an unknown consumer; further ones are not logged");
        }
        if state.needs_acks() {
            self.shared.give_back(state.key, &[delivery.tag]);
        }
    }

    /// Handles a method. False: the connection is closed.
    fn method(&mut self, channel: u16, method: Method) -> Result<bool, Violation> {
        let confirms = matches!(method, Method::BasicAck(_) | Method::BasicNack(_));
        if !confirms {
            // what came before an end or a cancel comes before it in the stream, too
            self.batch.flush(&self.shared)?;
        }
        let event = self.shared.with(|session| {
            let event = session.receive(channel, method);
            if confirms && let Some((state, number)) = session.acked_below(channel) {
                state.acked_below.store(number, Ordering::Relaxed);
            }
            if let Ok(Event::ChannelClosed { close, ended, .. }) = &event {
                ended.channel.will_end(faults::channel_closed(channel, close));
            }
            std::mem::swap(&mut session.woken, &mut self.woken);
            event
        })?;
        self.woken.drain(..).for_each(Waker::wake);
        Ok(self.event(event))
    }

    /// Does what an event asks for. False: the connection is closed.
    fn event(&mut self, event: Event<Driver>) -> bool {
        match event {
            Event::Nothing => {}
            Event::Opened { id, waiter } => {
                self.inbound.opened(id);
                waiter.complete(Ok(Answer::Method(channel::OpenOk.into())));
            }
            Event::Reply { id, waiter, reply, consumer } => {
                self.before_reply(id, &reply, consumer);
                if let Some(waiter) = waiter {
                    waiter.complete(Ok(Answer::Method(reply)));
                }
            }
            Event::ChannelClosed { id, close, ended } => {
                let error = faults::channel_closed(id, &close);
                tracing::debug!(channel = id, %error, "the server closed a channel");
                self.inbound.closed(id);
                end_channels(vec![ended], &error);
                self.shared.credit.notify_waiters();
            }
            Event::ChannelCloseOk { id, waiter } => {
                self.inbound.closed(id);
                if let Some(waiter) = waiter {
                    waiter.complete(Ok(Answer::Method(channel::CloseOk.into())));
                }
            }
            Event::Cancelled { id, tag, consumer } => {
                tracing::debug!(channel = id, tag = %PeerText(tag.as_bytes()), "the server cancelled a consumer");
                // the consumer stays registered until cancel-ok: deliveries that come before that are given back
                self.shared.end_consumer(&consumer, End::CancelledByServer);
            }
            Event::FlowResumed => self.shared.credit.notify_waiters(),
            Event::Blocked { reason } => {
                tracing::warn!(reason = %PeerText(reason.as_bytes()), "the server blocks publishers");
                self.shared.blocked.send_replace(Some(reason));
            }
            Event::Unblocked => {
                tracing::info!("the server takes publishes again");
                self.shared.blocked.send_replace(None);
                self.shared.credit.notify_waiters();
            }
            Event::ConnectionClosed { close } => {
                self.shared.fail(faults::connection_closed(&self.shared.server, &close), None);
                return false;
            }
            Event::ConnectionCloseOk { waiter } => {
                drop(waiter);
                self.shared.fail(faults::closed_connection(&self.shared.server), None);
                return false;
            }
        }
        true
    }

    /// What a reply changes here, before whoever waits for it goes on.
    fn before_reply(&mut self, id: u16, reply: &Method, consumer: Option<Arc<DeliveryQueue>>) {
        match (reply, consumer) {
            (Method::BasicConsumeOk(ok), Some(queue)) => {
                let tag = ok.consumer_tag.clone();
                self.inbound.register(id, tag.clone(), Arc::clone(&queue));
                self.shared.farewell(&queue, queue.started(tag));
            }
            (Method::BasicCancelOk(ok), Some(queue)) => {
                self.inbound.unregister(id, &ok.consumer_tag, &queue);
                self.shared.end_consumer(&queue, End::Cancelled);
            }
            _ => {}
        }
    }

    /// Reads more.
    async fn read(&mut self) -> Option<Stop> {
        self.pause().await;
        let room = self.input.make_room();
        loop {
            tokio::select! {
                biased;
                // first: a server that never stops sending must not keep it from being seen
                () = self.shared.closing.notified() => if let Some(stop) = self.notice_close() {
                    return Some(stop);
                },
                read = self.stream.read_buf(&mut self.input.bytes) => return self.has_read(read, room),
                () = &mut self.timer => if let Some(stop) = self.look_at_deadlines() {
                    return Some(stop);
                },
            }
        }
    }

    /// Whether a deadline has passed; if not, sets the timer to the next one.
    fn look_at_deadlines(&mut self) -> Option<Stop> {
        let now = Instant::now();
        let dead = self.shared.heartbeat.dead_at(self.last_read.into_std()).map(Instant::from_std);
        if dead.is_some_and(|dead| dead <= now) {
            return Some(Stop::Silent);
        }
        if self.give_up.is_some_and(|give_up| give_up <= now) {
            return Some(self.gave_up());
        }
        let next = [dead, self.give_up].into_iter().flatten().min();
        self.timer.as_mut().reset(next.unwrap_or(now + LONG));
        None
    }

    fn has_read(&mut self, read: io::Result<usize>, room: usize) -> Option<Stop> {
        match read {
            Ok(0) => Some(Stop::Lost(None)),
            Err(error) => Some(Stop::Lost(Some(Arc::new(error)))),
            Ok(count) => {
                self.last_read = Instant::now();
                self.shared.pulse.read(self.last_read);
                self.busy = count >= BUSY;
                self.input.adapt(count, room);
                self.give_up.filter(|give_up| *give_up <= self.last_read).map(|_| self.gave_up())
            }
        }
    }

    /// The connection is closing, and from now on there is a limit; or it has ended, for example because
    /// nothing could be written.
    fn notice_close(&mut self) -> Option<Stop> {
        if self.shared.failure().is_some() {
            return Some(Stop::Done);
        }
        // a server that closes the connection may do so while we write: its reason can still be read
        let limit =
            if self.shared.write_error.get().is_some() { LINGER } else { self.shared.limits.close_timeout };
        self.give_up = Instant::now().checked_add(limit);
        self.look_at_deadlines()
    }

    fn gave_up(&self) -> Stop {
        match self.shared.write_error.get() {
            Some(error) => Stop::Lost(Some(Arc::clone(error))),
            None => Stop::CloseTimeout,
        }
    }

    /// While too much waits for consumers that nothing else bounds, nothing is read.
    async fn pause(&mut self) {
        let budget = Arc::clone(&self.shared.budget);
        // once the connection is closing, the server's answer must be found behind whatever comes before it
        while self.give_up.is_none()
            && (budget.is_overspent() || (budget.is_spent() && !self.shared.lock().is_awaited()))
        {
            self.shared.pulse.pause();
            tokio::select! {
                biased;
                () = budget.freed() => {}
                () = self.shared.closing.notified() => {
                    // seen again by the next read
                    self.shared.closing.notify_one();
                    return;
                }
            }
            // the server's heartbeats wait in the socket meanwhile
            self.last_read = Instant::now();
            self.shared.pulse.read(self.last_read);
        }
    }

    /// Tells everybody why it is over.
    fn stop(&mut self, stop: &Stop) {
        let server = &self.shared.server;
        match stop {
            Stop::Done => {}
            Stop::Lost(source) => {
                self.shared.fail(faults::lost(server, source.clone()), None);
            }
            Stop::Dropped => self.shared.fail(faults::runtime_ended(server), None),
            Stop::Silent => self.shared.fail(faults::silent(server, self.heartbeat), None),
            Stop::CloseTimeout => {
                let call = Call { method: connection::Close::ID, channel: 0 };
                let left = self.shared.left_undone();
                let error = faults::unanswered_with(call, self.shared.limits.close_timeout, &left);
                self.shared.fail(error.with_scope(Scope::Connection), None);
            }
            Stop::Violation(violation) => {
                let close = faults::close_for(violation);
                self.shared.fail(faults::violation(server, violation), Some(&close));
            }
        }
    }

    /// Takes what still comes without looking at it, so that closing the socket does not destroy our last
    /// word on its way, until the server ends the connection; not for long.
    async fn linger(&mut self) {
        let drain = async {
            loop {
                self.input.bytes.clear();
                self.input.make_room();
                match self.stream.read_buf(&mut self.input.bytes).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
        };
        drop(timeout(LINGER, drain).await);
    }
}

impl Drop for Reader {
    /// However the task ends, nobody is left waiting: also when the runtime shuts down.
    fn drop(&mut self) {
        self.stop(&Stop::Dropped);
    }
}

impl Batch {
    #[inline]
    fn add(&mut self, shared: &Shared, queue: &Arc<DeliveryQueue>, delivery: Delivery) {
        if !self.queue.as_ref().is_some_and(|last| Arc::ptr_eq(last, queue)) {
            self.turn_to(shared, queue);
        }
        let weight = delivery.weight();
        self.weight += weight;
        self.deliveries.push(delivery);
        if weight < self.squeezed
            && let Some(delivery) = self.deliveries.last_mut()
        {
            delivery.detach();
        }
    }

    #[inline(never)]
    fn turn_to(&mut self, shared: &Shared, queue: &Arc<DeliveryQueue>) {
        self.hand_over(shared);
        self.queue = Some(Arc::clone(queue));
    }

    /// Hands over what there is. An error: there was too much for a consumer since the last time.
    fn flush(&mut self, shared: &Shared) -> Result<(), Violation> {
        self.hand_over(shared);
        self.overrun.take().map_or(Ok(()), Err)
    }

    fn hand_over(&mut self, shared: &Shared) {
        let Some(queue) = self.queue.take() else { return };
        self.delivered = true;
        match queue.push(&mut self.deliveries, std::mem::take(&mut self.weight)) {
            Pushed::Taken => {}
            Pushed::GiveBack(tags) => shared.give_back(queue.channel(), &tags),
            Pushed::Overrun { prefetch } => {
                self.deliveries.clear();
                self.overrun = Some(Violation::Overrun { channel: queue.channel().id.get(), prefetch });
            }
        }
    }
}
