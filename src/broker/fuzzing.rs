//! The broker under whatever two clients send, and do, for the fuzzers; and what must hold after each step.

use std::collections::BTreeMap;
use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::Notify;

use crate::codec::frame::{Cutter, PROTOCOL_HEADER, put_frame, put_method};
use crate::codec::generated::constants::{FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD};
use crate::codec::generated::{basic, channel, confirm, connection, exchange, queue, tx};
use crate::codec::{Arguments, FieldTable, FieldValue, MethodId, Properties, ShortStr};

use super::Keep;
use super::broker_channel::{Channel, Mode, Unacked};
use super::broker_connection::OUT_MAX;
use super::broker_message::Message;
use super::broker_options::Options;
use super::fault::ReplyFault;
use super::socket::Peer;
use super::state::State;

/// The embedded broker: nothing that its clients do puts it in disorder, or has it keep more than it should. The first
/// octet says whether the rest are raw bytes, or steps of clients that are logged in.
///
/// Order is checked every few steps and at the end.
pub fn broker(data: &[u8]) {
    run(data, Some(16));
}

/// Like [`broker`], but order is checked after each step, so that the step to blame is the last one.
pub fn broker_steps(data: &[u8]) {
    run(data, None);
}

fn run(data: &[u8], check_every: Option<usize>) {
    match data.split_first() {
        Some((0, rest)) => raw(rest, check_every.unwrap_or(1)),
        Some((_, rest)) => steps(rest, check_every.unwrap_or(1)),
        None => {}
    }
}

/// Bytes from the first one on, as they come from a socket.
fn raw(data: &[u8], check_every: usize) {
    let mut clients = Clients::new();
    for (number, part) in (1..).zip(data.chunks(100)) {
        clients.send(0, part);
        if number % check_every == 0 {
            clients.check();
        }
    }
    clients.check();
}

/// A sequence of frames of two clients that are logged in and have three channels open, and, for frames of a
/// type that does not exist, of sensible methods, faults and passing time. Lengths that go beyond the input are
/// cut and ends of frames are right, so that damage stays inside the frames.
fn steps(data: &[u8], check_every: usize) {
    let mut clients = Clients::new();
    let (mut rest, mut number) = (data, 0);
    while let Some((mut head, tail)) = rest.split_at_checked(4) {
        let (kind, place, size) = (head.get_u8(), head.get_u8(), head.get_u16());
        let (payload, tail) = tail.split_at(usize::from(size).min(tail.len()));
        rest = tail;
        let (client, channel) = (usize::from(place & 1), u16::from(place >> 1) % 5);
        // when it is first heard of: logging in costs more than most inputs do
        if clients.both.get(client).is_some_and(|client| !client.logged_in) {
            clients.log_in(client);
        }
        if matches!(kind, FRAME_METHOD | FRAME_HEADER | FRAME_BODY | FRAME_HEARTBEAT) {
            let mut bytes = Vec::new();
            put_frame(&mut bytes, kind, channel, |out| out.extend_from_slice(payload));
            clients.send(client, &bytes);
        } else {
            clients.step(kind, client, channel, &mut Dice(payload));
        }
        number += 1;
        if number % check_every == 0 {
            clients.check();
        }
    }
    clients.check();
}

/// What a client sends until it is logged in and has three channels open.
static LOG_IN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = PROTOCOL_HEADER.to_vec();
    let mut client_properties = FieldTable::new();
    let mut capabilities = FieldTable::new();
    drop(capabilities.insert("consumer_cancel_notify", true));
    drop(capabilities.insert("connection.blocked", true));
    drop(client_properties.insert("capabilities", FieldValue::Table(capabilities)));
    let start = connection::StartOk {
        client_properties,
        mechanism: ShortStr::try_from("PLAIN").unwrap_or_default(),
        response: Bytes::from_static(b"\0guest\0guest"),
        locale: ShortStr::empty(),
    };
    put_method(&mut bytes, 0, &start);
    put_method(&mut bytes, 0, &connection::TuneOk { channel_max: 100, frame_max: 4096, heartbeat: 0 });
    let virtual_host = ShortStr::try_from("/").unwrap_or_default();
    put_method(&mut bytes, 0, &connection::Open { virtual_host });
    for channel in 1..=3 {
        put_method(&mut bytes, channel, &channel::Open);
    }
    bytes
});

/// Choices that the input makes.
struct Dice<'a>(&'a [u8]);

impl Dice<'_> {
    fn byte(&mut self) -> u8 {
        self.0.try_get_u8().unwrap_or_default()
    }

    fn truth(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn name(&mut self, names: &[&str]) -> ShortStr {
        let name = names.get(usize::from(self.byte()) % names.len().max(1));
        name.and_then(|name| ShortStr::try_from(*name).ok()).unwrap_or_default()
    }

    fn queue(&mut self) -> ShortStr {
        self.name(&["q0", "q1", "q2", "q3", "", "amq.rabbitmq.reply-to"])
    }

    fn exchange(&mut self) -> ShortStr {
        self.name(&["", "amq.topic", "amq.fanout", "amq.headers", "amq.direct", "e0", "e1"])
    }

    fn key(&mut self) -> ShortStr {
        self.name(&["q0", "q1", "q2", "q3", "#", "a.b", "a.*", "amq.rabbitmq.reply-to"])
    }

    fn arguments(&mut self) -> FieldTable {
        let mut table = FieldTable::new();
        let bits = self.byte();
        let all: [(&str, FieldValue); 8] = [
            ("x-max-length", FieldValue::I32((self.byte() % 4).into())),
            ("x-message-ttl", FieldValue::I32((self.byte() % 8).into())),
            ("x-dead-letter-exchange", self.exchange().as_str().unwrap_or_default().into()),
            ("x-expires", FieldValue::I32(i32::from(self.byte() % 8) + 1)),
            ("x-max-priority", FieldValue::I32((self.byte() % 4).into())),
            ("x-single-active-consumer", true.into()),
            ("x-overflow", if self.truth() { "reject-publish-dlx" } else { "reject-publish" }.into()),
            ("x-queue-type", if self.truth() { "quorum" } else { "classic" }.into()),
        ];
        for (index, (name, value)) in all.into_iter().enumerate() {
            if bits >> index & 1 == 1 {
                drop(table.insert(name, value));
            }
        }
        table
    }
}

struct Client {
    id: u64,
    input: BytesMut,
    /// Whether it does not read what is sent to it.
    lazy: bool,
    logged_in: bool,
}

impl Client {
    fn connected_to(state: &mut State) -> Self {
        let id = state.connected(Peer::default(), Arc::new(Notify::new()));
        Self { id, input: BytesMut::new(), lazy: false, logged_in: false }
    }
}

struct Clients {
    state: State,
    both: [Client; 2],
}

impl Clients {
    fn new() -> Self {
        let mut state = State::new(Options::default().user("guest", "guest").memory_limit(100_000));
        let both = [0, 1].map(|_| Client::connected_to(&mut state));
        Self { state, both }
    }

    fn send(&mut self, client: usize, bytes: &[u8]) {
        let Some(client) = self.both.get_mut(client) else { return };
        client.input.extend_from_slice(bytes);
        self.state.take_input(client.id, &mut client.input);
        self.read();
    }

    fn call<M: Arguments>(&mut self, client: usize, channel: u16, method: &M) {
        let mut bytes = Vec::new();
        put_method(&mut bytes, channel, method);
        self.send(client, &bytes);
    }

    /// Clients read what was written, unless they are lazy; what waited for it goes on.
    fn read(&mut self) {
        for client in self.both.iter_mut().filter(|client| !client.lazy) {
            while let Ok(connection) = self.state.connection(client.id) {
                if connection.out.is_empty() {
                    break;
                }
                let out = std::mem::take(&mut connection.out);
                check_written(out, connection.frame_max);
                self.state.written(client.id);
                self.state.take_input(client.id, &mut client.input);
            }
        }
    }

    /// In one piece, as a client in a hurry may: every input begins with it twice.
    fn log_in(&mut self, client: usize) {
        if let Some(client) = self.both.get_mut(client) {
            client.logged_in = true;
        }
        self.send(client, &LOG_IN);
    }

    fn step(&mut self, kind: u8, client: usize, channel: u16, dice: &mut Dice<'_>) {
        match kind % 20 {
            0..=3 => self.declare(kind % 4, client, channel, dice),
            4..=10 => self.message(kind % 20, client, channel, dice),
            11 => self.modes(client, channel, dice),
            12 => match dice.byte() % 2 {
                0 => self.call(client, channel, &channel::Open),
                _ => self.call(client, channel, &channel::Close::default()),
            },
            13 => {
                self.state.now += Duration::from_millis(dice.byte().into());
                self.state.tick();
                self.read();
            }
            14 => {
                if let Some(client) = self.both.get_mut(client) {
                    client.lazy = dice.truth();
                }
                self.read();
            }
            15 => self.leave(client),
            16 => self.fault(dice),
            17 => self.call(
                client,
                channel,
                &queue::Delete { queue: dice.queue(), if_unused: dice.truth(), ..queue::Delete::default() },
            ),
            18 => self.call(
                client,
                channel,
                &basic::Qos {
                    prefetch_count: (dice.byte() % 4).into(),
                    global: dice.truth(),
                    prefetch_size: 0,
                },
            ),
            _ => match dice.byte() {
                128.. => self.undo(client, channel, dice),
                byte if byte % 3 == 0 => self.call(
                    client,
                    channel,
                    &queue::Purge { queue: dice.queue(), ..queue::Purge::default() },
                ),
                byte if byte % 3 == 1 => self.call(client, channel, &basic::Recover { requeue: true }),
                _ => self.restart(if dice.truth() { Keep::Durable } else { Keep::Nothing }),
            },
        }
    }

    /// Exchanges and bindings go; direct replies.
    fn undo(&mut self, client: usize, channel: u16, dice: &mut Dice<'_>) {
        match dice.byte() % 4 {
            0 => self.call(
                client,
                channel,
                &exchange::Delete { exchange: dice.exchange(), ..exchange::Delete::default() },
            ),
            1 => self.call(
                client,
                channel,
                &queue::Unbind {
                    queue: dice.queue(),
                    exchange: dice.exchange(),
                    routing_key: dice.key(),
                    ..queue::Unbind::default()
                },
            ),
            2 => self.call(
                client,
                channel,
                &exchange::Unbind {
                    source: dice.exchange(),
                    destination: dice.exchange(),
                    routing_key: dice.key(),
                    ..exchange::Unbind::default()
                },
            ),
            _ => {
                let channels =
                    self.state.connections.values().flat_map(|connection| connection.channels.values());
                let mut addresses =
                    channels.filter_map(|channel| channel.reply_to.as_ref()).map(|to| to.address.clone());
                if let Some(routing_key) = addresses.next() {
                    let publish = basic::Publish { routing_key, ..basic::Publish::default() };
                    self.content(client, channel, &publish, dice);
                }
            }
        }
    }

    /// Queues, exchanges and bindings.
    fn declare(&mut self, kind: u8, client: usize, channel: u16, dice: &mut Dice<'_>) {
        match kind {
            0 => self.call(client, channel, &declare(dice)),
            1 => self.call(
                client,
                channel,
                &exchange::Declare {
                    exchange: dice.exchange(),
                    kind: dice.name(&["fanout", "topic", "direct", "headers"]),
                    auto_delete: dice.truth(),
                    durable: dice.truth(),
                    ..exchange::Declare::default()
                },
            ),
            2 => self.call(
                client,
                channel,
                &queue::Bind {
                    queue: dice.queue(),
                    exchange: dice.exchange(),
                    routing_key: dice.key(),
                    ..queue::Bind::default()
                },
            ),
            _ => self.call(
                client,
                channel,
                &exchange::Bind {
                    source: dice.exchange(),
                    destination: dice.exchange(),
                    routing_key: dice.key(),
                    ..exchange::Bind::default()
                },
            ),
        }
    }

    /// Publishing and consuming.
    fn message(&mut self, kind: u8, client: usize, channel: u16, dice: &mut Dice<'_>) {
        match kind {
            4 | 5 => self.publish(client, channel, dice),
            6 => self.call(
                client,
                channel,
                &basic::Consume {
                    queue: dice.queue(),
                    consumer_tag: dice.name(&["c0", "c1", "c2", ""]),
                    no_ack: dice.truth(),
                    exclusive: dice.byte() & 7 == 1,
                    ..basic::Consume::default()
                },
            ),
            7 => self.call(client, channel, &basic::Get { queue: dice.queue(), no_ack: dice.truth() }),
            8 => self.call(
                client,
                channel,
                &basic::Ack { delivery_tag: dice.byte().into(), multiple: dice.truth() },
            ),
            9 => self.call(
                client,
                channel,
                &basic::Nack {
                    delivery_tag: dice.byte().into(),
                    multiple: dice.truth(),
                    requeue: dice.truth(),
                },
            ),
            _ => self.call(
                client,
                channel,
                &basic::Cancel { consumer_tag: dice.name(&["c0", "c1", "c2"]), no_wait: false },
            ),
        }
    }

    fn publish(&mut self, client: usize, channel: u16, dice: &mut Dice<'_>) {
        let publish = basic::Publish {
            exchange: dice.exchange(),
            routing_key: dice.key(),
            mandatory: dice.truth(),
            ..basic::Publish::default()
        };
        self.content(client, channel, &publish, dice);
    }

    fn content(&mut self, client: usize, channel: u16, publish: &basic::Publish, dice: &mut Dice<'_>) {
        let bits = dice.byte();
        let properties = Properties {
            delivery_mode: Some(bits & 3),
            priority: Some(bits >> 2 & 3),
            expiration: (bits & 16 > 0).then(|| dice.name(&["0", "3", "x"])),
            reply_to: (bits & 32 > 0).then(|| dice.key()),
            ..Properties::default()
        };
        let body = vec![b'b'; usize::from(dice.byte()) * 16];
        let mut bytes = Vec::new();
        put_method(&mut bytes, channel, publish);
        crate::codec::content::put_header(&mut bytes, channel, body.len() as u64, &properties);
        if !body.is_empty() {
            put_frame(&mut bytes, FRAME_BODY, channel, |out| out.extend_from_slice(&body));
        }
        self.send(client, &bytes);
    }

    fn modes(&mut self, client: usize, channel: u16, dice: &mut Dice<'_>) {
        match dice.byte() % 4 {
            0 => self.call(client, channel, &confirm::Select::default()),
            1 => self.call(client, channel, &tx::Select),
            2 => self.call(client, channel, &tx::Commit),
            _ => self.call(client, channel, &tx::Rollback),
        }
    }

    /// The client goes, and comes back.
    fn leave(&mut self, client: usize) {
        if let Some(old) = self.both.get_mut(client) {
            self.state.lost(old.id);
            *old = Client::connected_to(&mut self.state);
        }
        self.read();
        self.log_in(client);
    }

    fn restart(&mut self, keep: Keep) {
        self.state.lose_all();
        self.state.restart(keep);
        self.leave(0);
        self.leave(1);
    }

    fn fault(&mut self, dice: &mut Dice<'_>) {
        let time = Duration::from_millis(dice.byte().into());
        let replies = [queue::DeclareOk::ID, basic::GetOk::ID, channel::OpenOk::ID, connection::Tune::ID];
        let reply = replies.get(usize::from(dice.byte()) % replies.len()).copied().unwrap_or(MethodId::NONE);
        let faults = &mut self.state.faults;
        match dice.byte() % 8 {
            0 => faults.add_reply(reply, ReplyFault::Drop),
            1 => faults.add_reply(reply, ReplyFault::Duplicate),
            2 => faults.add_reply(reply, ReplyFault::Delay(time)),
            3 => faults.nacks = dice.byte().into(),
            4 => faults.reversed = Some(dice.byte().into()),
            5 => faults.exclusive_lingers = Some(time).filter(|time| !time.is_zero()),
            6 => self.state.alarm = dice.truth().then(|| "a fault".into()),
            _ => {
                let queue = dice.queue();
                let vhost = self.state.vhosts.get("/").map(|vhost| Arc::clone(&vhost.name));
                if let Some(vhost) = vhost {
                    self.state.cancel_consumers(&(vhost, queue));
                }
            }
        }
        self.state.run();
        self.read();
    }

    /// What must hold whenever nothing is under way.
    fn check(&mut self) {
        while !self.state.work.is_empty() {
            self.state.run();
            self.read();
        }
        let state = &self.state;
        for connection in state.connections.values() {
            assert!(connection.out.len() <= OUT_MAX + 100_000, "{} bytes wait", connection.out.len());
        }
        self.check_unacked();
        self.check_consumers();
        self.check_memory();
        let armed = state.vhosts.values().flat_map(|vhost| vhost.queues.values());
        let armed = armed.filter(|queue| queue.armed.is_some()).count();
        assert_eq!(armed, state.timers(), "queues whose timer is set, and timers");
    }

    fn unacked(&self) -> impl Iterator<Item = &Unacked> {
        let channels = self.state.connections.values().flat_map(|connection| connection.channels.values());
        channels.flat_map(unacked)
    }

    fn check_unacked(&self) {
        let mut held: BTreeMap<u64, usize> = BTreeMap::new();
        for delivery in self.unacked() {
            *held.entry(delivery.queue_id).or_default() += 1;
        }
        for queue in self.state.vhosts.values().flat_map(|vhost| vhost.queues.values()) {
            let held = held.get(&queue.id).copied().unwrap_or_default();
            assert_eq!(queue.unacked, held, "unacked of a queue, and of channels");
            let bytes: u64 = queue.entries().map(|entry| entry.message.size()).sum();
            assert_eq!(queue.ready_bytes(), bytes);
        }
        for channel in self.state.connections.values().flat_map(|connection| connection.channels.values()) {
            let consumed = unacked(channel).filter(|delivery| delivery.consumer.is_some()).count();
            assert_eq!(channel.consumed, consumed);
        }
    }

    /// Queues and channels agree on who consumes.
    fn check_consumers(&self) {
        let mut of_channels: Vec<_> = Vec::new();
        for (id, connection) in &self.state.connections {
            for (number, channel) in &connection.channels {
                let consumers = channel.consumers.iter();
                of_channels
                    .extend(consumers.map(|(tag, consumer)| (*id, *number, tag.clone(), &consumer.queue)));
            }
        }
        let mut of_queues: Vec<_> = Vec::new();
        for (name, queue) in self.state.vhosts.values().flat_map(|vhost| &vhost.queues) {
            for consumer in queue.consumers() {
                of_queues.push((consumer.at.connection, consumer.at.channel, consumer.tag.clone(), name));
            }
        }
        of_channels.sort();
        of_queues.sort();
        assert_eq!(of_channels, of_queues, "consumers of channels, and of queues");
    }

    /// What counts as held is what is there.
    fn check_memory(&self) {
        let state = &self.state;
        let queues = state.vhosts.values().flat_map(|vhost| vhost.queues.values());
        let ready = queues.flat_map(|queue| queue.entries().map(|entry| &entry.message));
        let shared = ready.chain(self.unacked().map(|delivery| &delivery.entry.message));
        let once: BTreeMap<*const Message, u64> =
            shared.map(|message| (ptr::from_ref(&**message), message.held.bytes())).collect();
        let channels = state.connections.values().flat_map(|connection| connection.channels.values());
        let in_transactions: u64 = channels
            .flat_map(|channel| match &channel.mode {
                Mode::Tx(transaction) => transaction.published.as_slice(),
                _ => &[],
            })
            .map(|published| published.message.held.bytes())
            .sum();
        let arriving: u64 = state
            .connections
            .values()
            .flat_map(|connection| connection.channels.values())
            .filter_map(|channel| Some(channel.content.as_ref()?.header.as_ref()?.held.bytes()))
            .sum();
        let held = once.values().sum::<u64>() + in_transactions + arriving;
        assert_eq!(state.memory.load(Ordering::Relaxed), held);
    }
}

/// What a channel has not acknowledged, or not for good.
fn unacked(channel: &Channel) -> impl Iterator<Item = &Unacked> {
    let settled = match &channel.mode {
        Mode::Tx(transaction) => transaction.settled.as_slice(),
        _ => &[],
    };
    channel.unacked.values().chain(settled.iter().map(|(delivery, _)| delivery))
}

fn declare(dice: &mut Dice<'_>) -> queue::Declare {
    queue::Declare {
        queue: dice.queue(),
        durable: dice.truth(),
        exclusive: dice.byte() & 3 == 1,
        auto_delete: dice.byte() & 3 == 1,
        arguments: dice.arguments(),
        ..queue::Declare::default()
    }
}

/// What the broker wrote must be whole frames, or the header of the protocol that it speaks.
fn check_written(out: Vec<u8>, frame_max: u32) {
    if out == PROTOCOL_HEADER {
        return;
    }
    let mut rest = BytesMut::from(Bytes::from(out));
    let cut = Cutter::agreed(frame_max.max(4096)).cut(&mut rest);
    assert_eq!(cut.fault, None, "a frame that no client takes");
    assert!(rest.is_empty(), "a part of a frame");
}
