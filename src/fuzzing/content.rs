//! Targets `content` and `content_splits`: whole frames into the multiplexer.
//!
//! The input is a server's bytes. Lengths that go beyond the input are cut, frame ends are taken as right and channels
//! are mapped to 0 to 4, so that damage stays inside the frames; the target `frame` looks at the framing. A frame of
//! a type that does not exist is a command of the client. Of channels 1 to 3 those are open at the beginning that the
//! input gets to, since opening costs more than most inputs do.

use std::sync::LazyLock;

use bytes::{Buf, Bytes, BytesMut};

use crate::codec::frame::{Cutter, OVERHEAD, put_frame, put_method};
use crate::codec::generated::constants::{FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD};
use crate::codec::generated::{basic, channel, confirm};
use crate::codec::{Arguments, MethodId, Properties, Request, ShortStr};
use crate::mux::channel_state::{Expect, Pending};
use crate::mux::ids::ChannelKey;
use crate::mux::incoming_delivery::Delivery;
use crate::mux::outgoing_publish::Publish;
use crate::mux::testing::{Client, Numbers, Seen};
use crate::mux::tune::Agreed;

/// A server's frames for a client with open channels that consume, get and confirm. Bodies have the announced size,
/// answers are at most twice as long as what they answer, and what is written is whole frames.
///
/// The length of the input decides whether frames are read one by one or together, since the two take different ways.
pub fn content(data: &[u8]) {
    let reads = if data.len().is_multiple_of(2) { Reads::OneByOne } else { Reads::Together };
    Peers::new(reads, data).run(data);
}

/// The client sees and writes the same whether frames are read one by one or together. Includes what [`content`] checks.
pub fn content_splits(data: &[u8]) {
    let [one_by_one, together] = [Reads::OneByOne, Reads::Together].map(|reads| {
        let mut peers = Peers::new(reads, data);
        peers.record = Some(Vec::new());
        peers.run(data)
    });
    assert_eq!(one_by_one, together);
}

/// How the client reads what the server sends between two commands.
#[derive(Clone, Copy, PartialEq)]
enum Reads {
    OneByOne,
    Together,
}

/// What came of a run.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// What the client saw, if it was recorded.
    seen: Option<Vec<Seen>>,
    written: Vec<u8>,
    fault: bool,
}

/// The server's answers while channels 1 to 3 are opened, and while they begin to confirm and consume. They are as long
/// for each channel.
static SET_UP: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let [mut opened, mut begun] = [Vec::new(), Vec::new()];
    for id in 1..=3 {
        put_method(&mut opened, id, &channel::OpenOk);
        put_method(&mut begun, id, &confirm::SelectOk);
        put_method(&mut begun, id, &basic::ConsumeOk { consumer_tag: tag() });
    }
    [opened, begun]
});

/// The parts of a frame that the input describes, and what follows it.
fn next_frame(data: &[u8]) -> Option<(u8, u16, &[u8], &[u8])> {
    let (mut head, tail) = data.split_at_checked(7)?;
    let (kind, channel) = (head.get_u8(), head.get_u16() % 5);
    let size = head.get_u32() as usize;
    let (payload, tail) = tail.split_at(size.min(tail.len()));
    Some((kind, channel, payload, tail.get(1..).unwrap_or_default()))
}

/// The highest channel that the input gets to, at least 1 and at most 3.
fn channels(mut data: &[u8]) -> usize {
    let mut channels = 1;
    while let Some((_, channel, _, rest)) = next_frame(data) {
        channels = channels.max(channel.min(3));
        data = rest;
    }
    channels.into()
}

/// The consumer on each channel.
fn tag() -> ShortStr {
    Bytes::from_static(b"c").try_into().unwrap_or_default()
}

/// The client, and what is known of the server's side.
struct Peers {
    client: Client,
    /// The incarnation of each channel that was opened last.
    keys: [Option<ChannelKey>; 5],
    /// The body size in the last header on each channel.
    announced: [u64; 5],
    reads: Reads,
    /// All that was seen, for whoever compares it.
    record: Option<Vec<Seen>>,
    fault: bool,
}

impl Peers {
    const FRAME_MAX: u32 = 4096;
    /// Small, so that messages beyond it are found.
    const MAX_MESSAGE: u64 = 10_000;

    /// Sets up with two reads, since each read allocates.
    fn new(reads: Reads, data: &[u8]) -> Self {
        let agreed = Agreed { channel_max: 3, frame_max: Self::FRAME_MAX, heartbeat: 0 };
        let client = Client::new(agreed, Self::MAX_MESSAGE);
        let mut peers =
            Self { client, keys: [None; 5], announced: [0; 5], reads, record: None, fault: false };
        let channels = channels(data);
        let [opened, begun] =
            SET_UP.each_ref().map(|answers| answers.get(..answers.len() / 3 * channels).unwrap_or_default());
        for _ in 0..channels {
            peers.open();
        }
        assert_eq!(peers.client.read(opened), Ok(()));
        for key in peers.keys.into_iter().flatten() {
            peers.call(key, &confirm::Select::default(), confirm::SelectOk::ID, None);
            peers.consume(key, tag());
        }
        assert_eq!(peers.client.read(begun), Ok(()));
        for key in peers.keys.into_iter().flatten() {
            peers.get(key);
            peers.publish(key, b"m");
        }
        peers
    }

    fn key(&self, channel: u16) -> Option<ChannelKey> {
        self.keys.get(usize::from(channel)).copied().flatten()
    }

    // The server's side.

    fn run(mut self, data: &[u8]) -> Outcome {
        let (mut rest, mut read) = (data, Vec::new());
        while let Some((kind, channel, payload, tail)) = next_frame(rest) {
            rest = tail;
            if matches!(kind, FRAME_METHOD | FRAME_HEADER | FRAME_BODY | FRAME_HEARTBEAT) {
                put_frame(&mut read, kind, channel, |out| out.extend_from_slice(payload));
                if self.reads == Reads::OneByOne {
                    self.announce(kind, channel, payload);
                    self.receive(&mut read);
                }
            } else {
                self.receive(&mut read);
                if !self.fault {
                    self.command(kind, channel, payload);
                }
            }
            if self.fault {
                break;
            }
        }
        self.receive(&mut read);
        let written = self.client.written();
        check_written(&written);
        Outcome { seen: self.record, written, fault: self.fault }
    }

    fn announce(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        if kind == FRAME_HEADER
            && let Some(mut size) = payload.get(4..12)
            && let Some(announced) = self.announced.get_mut(usize::from(channel))
        {
            *announced = size.get_u64();
        }
    }

    fn receive(&mut self, read: &mut Vec<u8>) {
        let before = self.client.session.out.len();
        self.fault = self.fault || self.client.read(read).is_err();
        let answer = self.client.session.out.len() - before;
        // a cancel that asks for an answer gets that, and our own cancel
        assert!(answer <= 2 * read.len(), "an answer of {answer} bytes to {}", read.len());
        read.clear();
        let seen = self.client.seen();
        self.check(&seen);
        if let Some(record) = &mut self.record {
            record.extend(seen);
        }
    }

    /// Looks at what a read brought.
    fn check(&self, seen: &[Seen]) {
        for seen in seen {
            let (channel, size) = match seen {
                Seen::Delivered { channel, delivery, .. }
                | Seen::Unclaimed { channel, delivery }
                | Seen::Got { channel, delivery, .. } => (channel, check_delivery(delivery)),
                Seen::Returned { channel, returned } => (channel, returned.body.len()),
                _ => continue,
            };
            // of several that come together, only the last size is known
            if self.reads == Reads::OneByOne {
                let announced = self.announced.get(usize::from(*channel)).copied();
                assert_eq!(Some(size as u64), announced, "a body of another size than announced");
            }
        }
    }

    // The client's side; commands may be refused.

    fn command(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let Some(key) = self.key(channel) else { return self.open() };
        let number = payload.iter().fold(0, |number, octet| number << 8 | u64::from(*octet));
        let confirms = self.client.session.confirms(key).ok().flatten();
        match kind % 11 {
            0 => self.open(),
            1 => self.publish(key, payload),
            2 => self.get(key),
            3 => self.consume(key, payload.try_into().unwrap_or_default()),
            4 => {
                let cancel =
                    basic::Cancel { consumer_tag: payload.try_into().unwrap_or_default(), no_wait: false };
                let tag = cancel.consumer_tag.clone();
                self.call(key, &cancel, basic::CancelOk::ID, Some(tag));
            }
            5 => drop(self.client.session.close_channel(key, &channel::Close::default(), Some(5))),
            6 => drop(confirms.map(|confirms| confirms.wait(number, 6))),
            7 => drop(confirms.map(|confirms| confirms.abandon(number))),
            8 => drop(confirms.map(|confirms| confirms.outcome(number))),
            9 => drop(confirms.map(|confirms| confirms.wait_drained(number, None, 9))),
            _ => self.call(key, &basic::Qos::default(), <basic::Qos as Request>::Reply::ID, None),
        }
    }

    fn open(&mut self) {
        if let Ok(key) = self.client.session.open_channel(0, |key| key)
            && let Some(place) = self.keys.get_mut(usize::from(key.id.get()))
        {
            *place = Some(key);
        }
    }

    fn call(&mut self, key: ChannelKey, method: &impl Arguments, reply: MethodId, tag: Option<ShortStr>) {
        let expect = Expect { tag, ..Expect::only(reply) };
        let _ = self.client.session.call(key, method, pending(expect, None));
    }

    fn get(&mut self, key: ChannelKey) {
        let expect = Expect { or: Some(basic::GetEmpty::ID), ..Expect::only(basic::GetOk::ID) };
        let _ = self.client.session.call(key, &basic::Get::default(), pending(expect, None));
    }

    fn consume(&mut self, key: ChannelKey, consumer_tag: ShortStr) {
        let consume = basic::Consume { consumer_tag, ..basic::Consume::default() };
        let pending = pending(Expect::only(basic::ConsumeOk::ID), Some(3));
        let _ = self.client.session.consume(key, &consume, pending);
    }

    fn publish(&mut self, key: ChannelKey, body: &[u8]) {
        let (properties, body) = (Properties::default(), Bytes::copy_from_slice(body));
        let publish = Publish {
            exchange: b"",
            routing_key: b"q",
            mandatory: true,
            properties: Some(&properties),
            encoded: None,
            body: &body,
        };
        let _ = self.client.session.publish(key, &publish, usize::MAX);
    }
}

fn pending(expect: Expect, consumer: Option<u32>) -> Pending<Numbers> {
    Pending { expect, waiter: Some(2), consumer }
}

/// What the client wrote must be whole frames within the limit, as the server cuts them.
fn check_written(written: &[u8]) {
    let mut rest = BytesMut::from(written);
    let cut = Cutter::agreed(Peers::FRAME_MAX).cut(&mut rest);
    assert_eq!((cut.fault, rest.len()), (None, 0));
    for frame in cut.frames.frames() {
        assert!(frame.payload.len() + OVERHEAD <= Peers::FRAME_MAX as usize);
    }
}

/// Reads everything of a delivery, as a user may, and returns the size of its body.
fn check_delivery(delivery: &Delivery) -> usize {
    let names = [delivery.consumer_tag(), delivery.exchange(), delivery.routing_key()];
    let length: usize = names.iter().map(|name| name.len()).sum();
    let size = delivery.body().len();
    assert_eq!(delivery.share_body().len(), size);
    assert!(length + size <= delivery.weight());
    let mut detached = delivery.clone();
    detached.detach();
    assert_eq!(detached, *delivery);
    assert_eq!(detached.weight(), delivery.weight());
    size
}
