//! The whole broker as one value, without a socket: frames go in, bytes to write come out.
//!
//! What one event leads to at other places, such as a delivery, is [`Work`] that is done before the next event: so nothing
//! recurses, and every method leaves a broker that is in order.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::codec::ShortStr;
use crate::codec::generated::{basic, connection as wire};

use super::Keep;
use super::broker_channel::{Channel, Mode, Settle, Unacked};
use super::broker_connection::{Connection, End, Phase};
use super::broker_message::{Entry, Message};
use super::broker_options::Options;
use super::broker_queue::{Queue, Subscription};
use super::dead_letter::Death;
use super::fault::Faults;
use super::refusal::Refusal;
use super::socket::Peer;
use super::vhost::Vhost;

/// How much work is done before others have their turn: dead letters may multiply.
const WORK_AT_ONCE: usize = 10_000;

/// A channel of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub connection: u64,
    pub channel: u16,
}

/// A queue of a virtual host.
pub(super) type Place = (Arc<str>, ShortStr);

/// What is still to be done.
#[derive(Debug)]
pub(super) enum Work {
    /// Deliver, expire and drop what a queue has to.
    Pump(Place),
    /// Publish a message again that a queue has got rid of.
    DeadLetter(Death),
}

/// A broker.
#[derive(Debug)]
pub(super) struct State {
    pub options: Options,
    pub vhosts: BTreeMap<Arc<str>, Vhost>,
    pub connections: BTreeMap<u64, Connection>,
    pub faults: Faults,
    pub now: Instant,
    pub work: VecDeque<Work>,
    /// Queues that `work` has in it.
    due: HashSet<Place>,
    /// The queues that time does something to; each at most once, when it is [armed](Queue::armed).
    timers: BTreeSet<(Instant, Place)>,
    /// Tells the timer's task that something is due earlier.
    pub timer: Arc<Notify>,
    last_id: u64,
    /// What invented names are made of.
    seed: u64,
    /// Bytes of bodies and headers that are held.
    pub memory: Arc<AtomicU64>,
    /// Somebody has said that publishers must stop.
    pub alarm: Option<String>,
    /// Publishers were stopped when this was last looked at.
    throttled: bool,
}

impl State {
    pub(super) fn new(options: Options) -> Self {
        let vhosts = options.vhosts.iter().map(|name| {
            let name: Arc<str> = name.as_str().into();
            (Arc::clone(&name), Vhost::new(name))
        });
        Self {
            vhosts: vhosts.collect(),
            seed: options.seed.unwrap_or_else(|| RandomState::new().hash_one(0)),
            options,
            connections: BTreeMap::new(),
            faults: Faults::default(),
            now: Instant::now(),
            work: VecDeque::new(),
            due: HashSet::new(),
            timers: BTreeSet::new(),
            timer: Arc::default(),
            last_id: 0,
            memory: Arc::default(),
            alarm: None,
            throttled: false,
        }
    }

    /// A number that was not given before.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A name that nobody can guess.
    pub(super) fn invent(&mut self, prefix: &str) -> ShortStr {
        let id = self.next_id();
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let [one, two] = ["first", "second"].map(|part| hasher.hash_one((self.seed, id, part)));
        ShortStr::try_from(format!("{prefix}{one:016x}{:06x}", two & 0xff_ffff)).unwrap_or_default()
    }

    /// A connection has come.
    pub(super) fn connected(&mut self, peer: Peer, wake: Arc<Notify>) -> u64 {
        let id = self.next_id();
        let mut connection = Connection::new(peer.address, wake);
        connection.identity = peer.identity;
        connection.cut_after = self.faults.next_cut_after.take();
        self.connections.insert(id, connection);
        id
    }

    pub(super) fn connection(&mut self, id: u64) -> Result<&mut Connection, Refusal> {
        self.connections.get_mut(&id).ok_or_else(|| Refusal::internal("no such connection"))
    }

    pub(super) fn channel(&mut self, at: At) -> Result<&mut Channel, Refusal> {
        self.connection(at.connection)?
            .channels
            .get_mut(&at.channel)
            .ok_or_else(|| Refusal::internal("no such channel"))
    }

    /// The virtual host of a connection.
    pub(super) fn vhost(&mut self, at: At) -> Result<&mut Vhost, Refusal> {
        let name = Arc::clone(&self.connection(at.connection)?.vhost);
        self.vhosts.get_mut(&name).ok_or_else(|| Refusal::internal("no such vhost"))
    }

    pub(super) fn place(&mut self, at: At, queue: &ShortStr) -> Result<Place, Refusal> {
        Ok((Arc::clone(&self.connection(at.connection)?.vhost), queue.clone()))
    }

    pub(super) fn queue_at(&mut self, place: &Place) -> Option<&mut Queue> {
        self.vhosts.get_mut(&place.0)?.queues.get_mut(&place.1)
    }

    /// Who has unsettled messages of a queue and is no consumer of it, or no longer: each `basic.get` for itself.
    pub(super) fn unsettled(&self, queue: u64) -> usize {
        let channels = self.connections.values().flat_map(|connection| connection.channels.values());
        let of_channel = |channel: &Channel| {
            let unacked = channel.unacked.values().filter(|delivery| delivery.queue_id == queue);
            let (got, consumed): (Vec<_>, Vec<_>) = unacked.partition(|delivery| delivery.consumer.is_none());
            let consumers: BTreeSet<_> =
                consumed.iter().filter_map(|delivery| delivery.consumer.as_ref()).collect();
            let gone = consumers.iter().filter(|tag| !channel.consumers.contains_key(**tag));
            got.len() + gone.count()
        };
        channels.map(of_channel).sum()
    }

    /// Has a queue looked after.
    pub(super) fn pump_soon(&mut self, place: Place) {
        if self.due.insert(place.clone()) {
            self.work.push_back(Work::Pump(place));
        }
    }

    /// Has all queues looked after that a channel consumes from, in turn: the one that was served last is the last.
    pub(super) fn pump_queues_of(&mut self, at: At) {
        let Ok(connection) = self.connection(at.connection) else { return };
        let vhost = Arc::clone(&connection.vhost);
        let Some(channel) = connection.channels.get(&at.channel) else { return };
        let queues: BTreeSet<_> = channel.consumers.values().map(|consumer| consumer.queue.clone()).collect();
        let served = channel.served.clone();
        let (early, late): (Vec<_>, Vec<_>) =
            queues.into_iter().partition(|queue| Some(queue) <= served.as_ref());
        for queue in late.into_iter().chain(early) {
            self.pump_soon((Arc::clone(&vhost), queue));
        }
    }

    /// Does the work that events have left behind. If it is very much, the [timer](Self::tick) goes on with it after
    /// others have had their turn.
    pub(super) fn run(&mut self) {
        for _ in 0..WORK_AT_ONCE {
            match self.work.pop_front() {
                Some(Work::Pump(place)) => self.pump(&place),
                Some(Work::DeadLetter(death)) => self.publish_dead(&death),
                None => break,
            }
        }
        if !self.work.is_empty() {
            self.timer.notify_one();
        }
        self.throttle();
    }

    /// Drops what is over a queue's limits or time, hands out what consumers can take, and sets the timer.
    fn pump(&mut self, place: &Place) {
        self.due.remove(place);
        let now = self.now;
        let Some(queue) = self.queue_at(place) else { return };
        if queue.expires_at().is_some_and(|at| at <= now) {
            self.delete_queue(place);
            return;
        }
        self.bury_expired(place);
        while let Some(entry) = self.queue_at(place).and_then(Queue::pop_surplus) {
            self.bury(place, entry, "maxlen");
        }
        while self.deliver_one(place, false) {
            // what comes to the front may be over, too
            self.bury_expired(place);
        }
        let Some(queue) = self.queue_at(place) else { return };
        if let Some(deadline) = queue.deadline() {
            if deadline <= now {
                self.pump_soon(place.clone());
            } else if queue.armed.is_none_or(|armed| deadline < armed) {
                let armed = queue.armed.replace(deadline);
                self.disarm(armed, place);
                self.arm(deadline, place.clone());
            }
        }
    }

    /// Gives up the messages at a queue's front whose time is over.
    pub(super) fn bury_expired(&mut self, place: &Place) {
        let now = self.now;
        while let Some(entry) = self.queue_at(place).and_then(|queue| queue.pop_expired(now)) {
            self.bury(place, entry, "expired");
        }
    }

    /// Hands the first message to the consumer whose turn it is; whether there were both. One that goes from its publisher
    /// straight to a consumer is new, also after it has died elsewhere.
    pub(super) fn deliver_one(&mut self, place: &Place, is_new: bool) -> bool {
        let Self { vhosts, connections, .. } = self;
        let Some(queue) = vhosts.get_mut(&place.0).and_then(|vhost| vhost.queues.get_mut(&place.1)) else {
            return false;
        };
        if queue.depth() == 0 {
            return false;
        }
        let can_take = |consumer: &Subscription| {
            let connection =
                connections.get(&consumer.at.connection).filter(|connection| connection.has_room());
            let channel = connection.and_then(|connection| connection.channels.get(&consumer.at.channel));
            channel.is_some_and(|channel| channel.can_take(&consumer.tag))
        };
        let is_idle = |consumer: &Subscription| {
            let channel = connections
                .get(&consumer.at.connection)
                .and_then(|connection| connection.channels.get(&consumer.at.channel));
            channel.and_then(|channel| channel.consumers.get(&consumer.tag)).is_none_or(|it| it.unacked == 0)
        };
        let Some(consumer) = queue.next_consumer(can_take, is_idle) else { return false };
        let Some(entry) = queue.pop() else { return false };
        let queue_id = queue.id;
        let Some(connection) = connections.get_mut(&consumer.at.connection) else { return false };
        let Some(channel) = connection.channels.get_mut(&consumer.at.channel) else { return false };
        let tag = channel.next_tag();
        let message = Arc::clone(&entry.message);
        let deliver = basic::Deliver {
            consumer_tag: consumer.tag.clone(),
            delivery_tag: tag,
            redelivered: entry.redelivered && !is_new,
            exchange: message.exchange.clone(),
            routing_key: message.routing_key.clone(),
        };
        let properties = entry.properties(queue);
        channel.served = Some(place.1.clone());
        if channel.consumers.get(&consumer.tag).is_some_and(|consumer| !consumer.no_ack) {
            queue.unacked += 1;
            let queue = place.1.clone();
            channel.await_ack(Unacked { tag, queue, queue_id, consumer: Some(consumer.tag), entry });
        }
        connection.put_content(consumer.at.channel, &deliver, &properties, &message.body);
        true
    }

    /// Puts deliveries back, gives them up, or forgets them.
    pub(super) fn settle(&mut self, vhost: &Arc<str>, deliveries: Vec<Unacked>, how: Settle) {
        for Unacked { queue: name, queue_id, mut entry, .. } in deliveries {
            let place = (Arc::clone(vhost), name);
            // the queue may be gone, or be another of the same name
            let Some(queue) = self.queue_at(&place).filter(|queue| queue.id == queue_id) else { continue };
            queue.unacked = queue.unacked.saturating_sub(1);
            match how {
                Settle::Ack => {}
                Settle::Reject | Settle::Discard => {
                    let attempts = u32::from(how == Settle::Reject);
                    entry.deliveries = entry.deliveries.saturating_add(attempts);
                    self.bury(&place, entry, "rejected");
                }
                Settle::Return | Settle::Requeue => {
                    entry.redelivered = true;
                    entry.acquired = entry.acquired.saturating_add(1);
                    let attempts = u32::from(how == Settle::Requeue);
                    entry.deliveries = entry.deliveries.saturating_add(attempts);
                    if queue.settings.delivery_limit.is_some_and(|limit| entry.deliveries > limit) {
                        self.bury(&place, entry, "delivery_limit");
                    } else {
                        queue.give_back(entry);
                    }
                }
            }
            self.pump_soon(place);
        }
    }

    /// Has a queue's dead-letter exchange take a message that it gives up.
    pub(super) fn bury(&mut self, place: &Place, entry: Entry, reason: &'static str) {
        self.bury_message(place, entry.message, entry.deliveries, reason);
    }

    /// Like [`bury`](Self::bury) for a message that the queue never had.
    pub(super) fn bury_message(
        &mut self,
        place: &Place,
        message: Arc<Message>,
        deliveries: u32,
        reason: &'static str,
    ) {
        let Some(queue) = self.queue_at(place) else { return };
        if let Some(exchange) = queue.settings.dead_letter_exchange.clone() {
            let routing_key = queue.settings.dead_letter_routing_key.clone();
            let place = place.clone();
            let death = Death { place, exchange, routing_key, message, deliveries, reason };
            self.work.push_back(Work::DeadLetter(death));
        }
    }

    /// Removes a queue; its consumers are told. How many messages were ready.
    pub(super) fn delete_queue(&mut self, place: &Place) -> usize {
        let Some(queue) = self.vhosts.get_mut(&place.0).and_then(|vhost| vhost.delete_queue(&place.1)) else {
            return 0;
        };
        self.disarm(queue.armed, place);
        for consumer in queue.consumers() {
            self.cancel_consumer(consumer.at, &consumer.tag);
        }
        queue.depth()
    }

    /// Tells a client that a consumer of its ended without its doing.
    pub(super) fn cancel_consumer(&mut self, at: At, tag: &ShortStr) {
        let Ok(connection) = self.connection(at.connection) else { return };
        let capable = connection.is_capable("consumer_cancel_notify");
        let Some(channel) = connection.channels.get_mut(&at.channel) else { return };
        channel.consumers.remove(tag);
        if capable && !channel.closing {
            connection.put(at.channel, &basic::Cancel { consumer_tag: tag.clone(), no_wait: true });
        }
    }

    /// Takes a consumer away from its queue, which may end with it.
    pub(super) fn unsubscribe(&mut self, at: At, tag: &ShortStr, queue: &ShortStr) {
        let Ok(place) = self.place(at, queue) else { return };
        let now = self.now;
        let Some(queue) = self.queue_at(&place) else { return };
        if queue.unsubscribe(at, tag) {
            queue.last_used = now;
            if queue.ends_unused() {
                self.delete_queue(&place);
            } else {
                // with single active consumers the next one takes over, and the queue may expire
                self.pump_soon(place);
            }
        }
    }

    /// Ends a channel: consumers go, deliveries go back.
    pub(super) fn close_channel(&mut self, at: At) {
        let Ok(connection) = self.connection(at.connection) else { return };
        let vhost = Arc::clone(&connection.vhost);
        let Some(channel) = connection.channels.get_mut(&at.channel) else { return };
        let closing = channel.closing;
        let gone = std::mem::replace(channel, Channel { closing, ..Channel::default() });
        let mut deliveries: Vec<_> = gone.unacked.into_values().collect();
        if let Mode::Tx(transaction) = gone.mode {
            deliveries.extend(transaction.settled.into_iter().map(|(delivery, _)| delivery));
        }
        // consumers first, so that nothing is delivered to them again
        for (tag, consumer) in gone.consumers {
            self.unsubscribe(at, &tag, &consumer.queue);
        }
        self.settle(&vhost, deliveries, Settle::Requeue);
    }

    /// A connection is gone, however that came.
    pub(super) fn lost(&mut self, id: u64) {
        self.clean_up(id);
        self.connections.remove(&id);
        self.run();
    }

    /// A connection ends, and with it its channels and the queues that belong to it.
    pub(super) fn clean_up(&mut self, id: u64) {
        for at in self.channels_of(id) {
            self.close_channel(at);
        }
        self.give_up_exclusive(id);
    }

    fn channels_of(&self, id: u64) -> Vec<At> {
        let channels =
            self.connections.get(&id).into_iter().flat_map(|connection| connection.channels.keys());
        channels.map(|channel| At { connection: id, channel: *channel }).collect()
    }

    fn give_up_exclusive(&mut self, id: u64) {
        let Ok(connection) = self.connection(id) else { return };
        let vhost = Arc::clone(&connection.vhost);
        match self.faults.exclusive_lingers {
            None => self.delete_exclusive(&vhost, id),
            Some(time) => self.linger(vhost, id, time),
        }
    }

    /// Removes the queues that belong to a connection.
    pub(super) fn delete_exclusive(&mut self, vhost: &Arc<str>, owner: u64) {
        let Some(host) = self.vhosts.get(vhost) else { return };
        let exclusive = host.queues.iter().filter(|(_, queue)| queue.owner == Some(owner));
        let exclusive: Vec<_> = exclusive.map(|(name, _)| name.clone()).collect();
        for name in exclusive {
            self.delete_queue(&(Arc::clone(vhost), name));
        }
    }

    /// What was to be written is written: consumers that were held back may go on.
    pub(super) fn written(&mut self, id: u64) {
        for at in self.channels_of(id) {
            self.pump_queues_of(at);
        }
        self.run();
    }

    fn arm(&mut self, deadline: Instant, place: Place) {
        let earliest = self.timers.first().is_none_or(|(first, _)| deadline < *first);
        self.timers.insert((deadline, place));
        if earliest {
            self.timer.notify_one();
        }
    }

    fn disarm(&mut self, armed: Option<Instant>, place: &Place) {
        if let Some(deadline) = armed {
            self.timers.remove(&(deadline, place.clone()));
        }
    }

    #[cfg(any(fuzzing, test))]
    pub(super) fn timers(&self) -> usize {
        self.timers.len()
    }

    /// When [`tick`](Self::tick) is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let queues = self.timers.first().map(|(first, _)| *first);
        queues.into_iter().chain(self.faults.next_deadline()).min()
    }

    /// Does what time brings.
    pub(super) fn tick(&mut self) {
        let now = self.now;
        while self.timers.first().is_some_and(|(deadline, _)| *deadline <= now) {
            if let Some((_, place)) = self.timers.pop_first() {
                if let Some(queue) = self.queue_at(&place) {
                    queue.armed = None;
                }
                self.pump_soon(place);
            }
        }
        self.end_delays();
        self.run();
    }

    /// Why publishers must stop, if they must.
    pub(super) fn alarm(&self) -> Option<&str> {
        let full =
            || self.options.memory_limit.is_some_and(|most| self.memory.load(Ordering::Relaxed) > most);
        self.alarm.as_deref().or_else(|| full().then_some("low on memory"))
    }

    /// Stops publishers while there is an alarm, and lets them go on after it.
    fn throttle(&mut self) {
        let reason = self.alarm().map(str::to_owned);
        let reason = reason.as_deref();
        if reason.is_none() && !self.throttled {
            return;
        }
        self.throttled = reason.is_some();
        for connection in self.connections.values_mut().filter(|connection| connection.phase == Phase::Open) {
            // once it is over, only who publishes again is stopped again
            connection.publishes &= reason.is_some();
            let stop = reason.filter(|_| connection.publishes);
            if stop.is_some() == connection.blocked {
                continue;
            }
            connection.blocked = stop.is_some();
            connection.wake.notify_one();
            if !connection.is_capable("connection.blocked") {
                continue;
            }
            match stop {
                Some(reason) => {
                    let reason = ShortStr::try_from(reason).unwrap_or_default();
                    connection.put(0, &wire::Blocked { reason });
                }
                None => connection.put(0, &wire::Unblocked),
            }
        }
    }

    /// Closes a connection from the broker's side.
    pub(super) fn close_connection(
        &mut self,
        id: u64,
        code: u16,
        text: ShortStr,
        blamed: crate::codec::MethodId,
    ) {
        let Ok(connection) = self.connection(id) else { return };
        if matches!(connection.phase, Phase::Closing) {
            return;
        }
        connection.phase = Phase::Closing;
        // its answer is read
        connection.blocked = false;
        connection.put(
            0,
            &wire::Close {
                reply_code: code,
                reply_text: text,
                class_id: blamed.class,
                method_id: blamed.method,
            },
        );
        self.clean_up(id);
    }

    /// Ends a connection's socket.
    pub(super) fn end(&mut self, id: u64, how: End) {
        if let Ok(connection) = self.connection(id) {
            connection.end(how);
        }
    }

    /// All connections are gone at once: nothing is handed from one to the next.
    pub(super) fn lose_all(&mut self) {
        self.connections.values_mut().for_each(|connection| connection.end(End::Cut));
        let connections: Vec<_> = self.connections.keys().copied().collect();
        for id in connections {
            self.lost(id);
        }
    }

    /// Forgets what a restart does not keep. All connections are gone already.
    pub(super) fn restart(&mut self, keep: Keep) {
        self.timers.clear();
        for vhost in self.vhosts.values_mut() {
            match keep {
                Keep::Nothing => *vhost = Vhost::new(Arc::clone(&vhost.name)),
                Keep::Durable => vhost.restart(),
            }
            for (name, queue) in &mut vhost.queues {
                queue.armed = None;
                // leases start anew
                queue.last_used = self.now;
                queue.had_consumers = false;
                self.work.push_back(Work::Pump((Arc::clone(&vhost.name), name.clone())));
            }
        }
        self.run();
    }
}
