//! What the fuzzers run, each with what must hold for any input; a failed assertion is a finding.
//!
//! Not a part of the API: compiled for `fuzz/`, and for tests, which replay the seeds and feed random input.

use bytes::{Buf, Bytes, BytesMut};

use crate::codec::content::decode_properties;
use crate::codec::encode::put_table;
use crate::codec::frame::{Cutter, FrameError, FrameKind, OVERHEAD, put_frame, put_method};
use crate::codec::generated::constants::{FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD};
use crate::codec::generated::{basic, channel, confirm};
use crate::codec::{
    Arguments, Decoder, FieldTable, FieldValue, Method, MethodId, Properties, Request, ShortStr,
};
use crate::mux::channel::{Expect, Pending};
use crate::mux::delivery::Delivery;
use crate::mux::ids::ChannelKey;
use crate::mux::publish::Publish;
use crate::mux::testing::{Client, Numbers, Seen};
use crate::mux::tune::Agreed;

/// Frames: any split of the input gives the same frames, the same fault and the same rest.
pub fn frame(data: &[u8]) {
    for cutter in [Cutter::provisional(), Cutter::agreed(4096)] {
        let whole = cut(cutter, [data]);
        let taken: usize = whole.frames.iter().map(|(_, _, payload)| payload.len() + OVERHEAD).sum();
        assert_eq!(taken + whole.rest.len(), data.len(), "octets were lost or made up");
        assert_eq!(cut(cutter, data.chunks(1)), whole, "octet by octet");
        // at a place that the input chooses
        let at = data.iter().fold(0_usize, |sum, octet| sum.wrapping_mul(31) + usize::from(*octet));
        let (one, two) = data.split_at(at % (data.len() + 1));
        assert_eq!(cut(cutter, [one, two]), whole, "in two pieces");
    }
}

/// Field tables: what is read is read the same again once written, and is no larger than its octets allow.
pub fn table(data: &[u8]) {
    let source = Bytes::copy_from_slice(data);
    let mut input = Decoder::new(&source, &source);
    let Ok(table) = input.table() else { return };
    let taken = data.len() - input.rest().len();
    assert!(values(&table) <= taken, "more values than octets");
    let written = encoded(|out| put_table(out, &table));
    assert_eq!(written.len(), taken);
    let again = Decoder::new(&written, &written).table().map(|table| encoded(|out| put_table(out, &table)));
    assert_eq!(again.as_deref(), Ok(&*written));
}

/// Methods: what is read is read the same again once written.
pub fn method(data: &[u8]) {
    let source = Bytes::copy_from_slice(data);
    let Ok(method) = Method::from_payload(&source, &source) else { return };
    let written = encoded(|out| method.encode(out));
    assert!(written.len() <= data.len(), "more octets than were read");
    let again = Method::from_payload(&written, &written).map(|method| encoded(|out| method.encode(out)));
    assert_eq!(again.as_deref(), Ok(&*written));
}

/// Properties: what is read is read the same again once written, and is no larger than its octets allow.
pub fn properties(data: &[u8]) {
    let Ok(properties) = decode_properties(&Bytes::copy_from_slice(data)) else { return };
    assert!(properties.headers.as_ref().map_or(0, values) <= data.len(), "more values than octets");
    let written = encoded(|out| properties.encode(out));
    assert!(written.len() <= data.len(), "more octets than were read");
    let again = decode_properties(&written).map(|properties| encoded(|out| properties.encode(out)));
    assert_eq!(again.as_deref(), Ok(&*written));
}

/// Whole frames into the multiplexer, with three open channels that consume, get and confirm: bodies have
/// just the announced size, answers are at most twice as long as what they answer, what is written is whole frames, and
/// all is the same whether frames are read one by one or together.
///
/// The input is a server's bytes. Lengths that go beyond it are cut, ends of frames are taken as right and
/// channels are mapped to 0 to 4, so that damage stays inside the frames; [`frame`] looks at the framing.
/// A frame of a type that does not exist is a command of the client.
pub fn content(data: &[u8]) {
    assert_eq!(Peers::new().run(data, true), Peers::new().run(data, false));
}

/// The embedded broker: nothing that its clients do puts it in disorder, or has it keep more than it should.
/// The first octet says whether the rest are raw bytes, or steps of clients that are logged in.
#[cfg(feature = "test-broker")]
pub fn broker(data: &[u8]) {
    use crate::broker::fuzzing::{raw, steps};

    match data.split_first() {
        Some((0, rest)) => raw(rest),
        Some((_, rest)) => steps(rest),
        None => {}
    }
}

/// What a [`Cutter`] made of some input.
#[derive(Debug, PartialEq)]
struct Cuts {
    frames: Vec<(FrameKind, u16, Vec<u8>)>,
    fault: Option<FrameError>,
    rest: Vec<u8>,
}

fn cut<'a>(cutter: Cutter, pieces: impl IntoIterator<Item = &'a [u8]>) -> Cuts {
    let (mut frames, mut fault, mut input) = (Vec::new(), None, BytesMut::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        if fault.is_none() {
            let cut = cutter.cut(&mut input);
            let owned = cut.frames.frames().map(|frame| (frame.kind, frame.channel, frame.payload.to_vec()));
            frames.extend(owned);
            fault = cut.fault;
        }
    }
    Cuts { frames, fault, rest: input.to_vec() }
}

fn encoded(put: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::new();
    put(&mut out);
    out.into()
}

/// How many values a table holds, at any depth.
fn values(table: &FieldTable) -> usize {
    fn of(value: &FieldValue) -> usize {
        1 + match value {
            FieldValue::Table(table) => values(table),
            FieldValue::Array(values) => values.iter().map(of).sum(),
            _ => 0,
        }
    }
    table.iter().map(|(_, value)| of(value)).sum()
}

/// The client, and what is known of the server's side.
struct Peers {
    client: Client,
    /// The incarnation of each channel that was opened last.
    keys: [Option<ChannelKey>; 5],
    /// The body size in the last header on each channel.
    announced: [u64; 5],
    seen: Vec<Seen>,
    fault: bool,
}

impl Peers {
    const FRAME_MAX: u32 = 4096;
    /// Small, so that messages beyond it are found.
    const MAX_MESSAGE: u64 = 10_000;

    fn new() -> Self {
        let agreed = Agreed { channel_max: 3, frame_max: Self::FRAME_MAX, heartbeat: 0 };
        let client = Client::new(agreed, Self::MAX_MESSAGE);
        let mut peers = Self { client, keys: [None; 5], announced: [0; 5], seen: Vec::new(), fault: false };
        for id in 1..=3 {
            peers.open();
            assert!(peers.receive_method(id, &channel::OpenOk));
            let Some(key) = peers.key(id) else { continue };
            peers.call(key, &confirm::Select::default(), confirm::SelectOk::ID, None);
            assert!(peers.receive_method(id, &confirm::SelectOk));
            peers.consume(key, "c".try_into().unwrap_or_default());
            assert!(
                peers.receive_method(
                    id,
                    &basic::ConsumeOk { consumer_tag: "c".try_into().unwrap_or_default() }
                )
            );
            peers.get(key);
            peers.publish(key, b"m");
        }
        peers
    }

    fn key(&self, channel: u16) -> Option<ChannelKey> {
        self.keys.get(usize::from(channel)).copied().flatten()
    }

    // The server's side.

    fn receive_method(&mut self, channel: u16, method: &impl Arguments) -> bool {
        let mut bytes = Vec::new();
        put_method(&mut bytes, channel, method);
        self.client.read(&bytes).is_ok()
    }

    /// What was seen, what was written, and whether there was a fault.
    fn run(mut self, data: &[u8], one_by_one: bool) -> (Vec<Seen>, Vec<u8>, bool) {
        let (mut rest, mut read) = (data, Vec::new());
        while let Some((mut head, tail)) = rest.split_at_checked(7) {
            let (kind, channel) = (head.get_u8(), head.get_u16() % 5);
            let size = head.get_u32() as usize;
            let (payload, tail) = tail.split_at(size.min(tail.len()));
            rest = tail.get(1..).unwrap_or_default();
            if matches!(kind, FRAME_METHOD | FRAME_HEADER | FRAME_BODY | FRAME_HEARTBEAT) {
                put_frame(&mut read, kind, channel, |out| out.extend_from_slice(payload));
                if one_by_one {
                    self.announce(kind, channel, payload);
                    self.receive(&mut read);
                    self.check();
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
        self.seen.extend(self.client.seen());
        let written = self.client.written();
        check_written(&written);
        (self.seen, written, self.fault)
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
    }

    /// Looks at what one frame brought.
    fn check(&mut self) {
        let seen = self.client.seen();
        for seen in &seen {
            let (channel, size) = match seen {
                Seen::Delivered { channel, delivery, .. }
                | Seen::Unclaimed { channel, delivery }
                | Seen::Got { channel, delivery, .. } => (channel, check_delivery(delivery)),
                Seen::Returned { channel, returned } => (channel, returned.body.len()),
                _ => continue,
            };
            let announced = self.announced.get(usize::from(*channel)).copied();
            assert_eq!(Some(size as u64), announced, "a body of another size than announced");
        }
        self.seen.extend(seen);
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
    let cuts = cut(Cutter::agreed(Peers::FRAME_MAX), [written]);
    assert_eq!((cuts.fault, cuts.rest), (None, Vec::new()));
    for (_, _, payload) in cuts.frames {
        assert!(payload.len() + OVERHEAD <= Peers::FRAME_MAX as usize);
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn replay(target: &str, run: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let seeds: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!seeds.is_empty(), "no seeds in {}", folder.display());
        for seed in seeds {
            println!("{}", seed.display());
            run(&fs::read(seed).unwrap());
        }
    }

    #[test]
    fn seeds_of_frame() {
        replay("frame", frame);
    }

    #[test]
    fn seeds_of_table() {
        replay("table", table);
    }

    #[test]
    fn seeds_of_method() {
        replay("method", method);
    }

    #[test]
    fn seeds_of_properties() {
        replay("properties", properties);
    }

    #[test]
    fn seeds_of_content() {
        replay("content", content);
    }

    #[test]
    #[cfg(feature = "test-broker")]
    fn seeds_of_broker() {
        replay("broker", broker);
    }
}
