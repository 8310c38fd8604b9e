//! Target `encode`: what users may hand over, to bytes and back.
//!
//! The input is a source of choices, not of bytes: whatever it is, it makes a method, properties and a body that a user
//! could have written.

use bytes::{Buf, Bytes, BytesMut};

use super::round_trip::encoded;
use crate::codec::frame::put_method;
use crate::codec::generated::{basic, channel, connection, exchange, queue};
use crate::codec::{FieldTable, FieldValue, Method, Properties, ShortStr, Timestamp};
use crate::mux::ids::ChannelKey;
use crate::mux::outgoing_publish::{Publish, Unfit};
use crate::mux::session::{Published, Refusal};
use crate::mux::testing::Client;
use crate::mux::tune::Agreed;
use crate::protocol::{ContentHeader, Frame, FrameCutter, Payload};

/// A method survives a round trip through [`Frame`], whatever its arguments. So does a message, in frames of at most
/// `frame_max` bytes. One that does not fit is refused, and nothing is written.
pub fn encode(data: &[u8]) {
    let mut choices = Choices(data);
    let frame_max = [4096, 8192, 131_072].get(usize::from(choices.octet()) % 3).copied().unwrap_or(4096);
    if choices.truth() { method(&mut choices) } else { message(&mut choices, frame_max) }
}

fn method(choices: &mut Choices<'_>) {
    let method = choices.method();
    let frame = Frame::method(choices.octet().into(), &method);
    let mut bytes = Vec::new();
    assert_eq!(frame.encode(&mut bytes), Ok(()));
    assert_eq!(bytes.len(), frame.size());
    let mut input = BytesMut::from(Bytes::from(bytes));
    let cut = FrameCutter::new(0).cut(&mut input);
    assert_eq!(cut, Ok(Some(frame.clone())));
    assert!(input.is_empty());
    // by their octets, since a number in a table may be NaN
    let again = frame.decode().map(|payload| match payload {
        Payload::Method(method) => Frame::method(frame.channel, &method),
        _ => Frame::heartbeat(),
    });
    assert_eq!(again, Ok(frame));
}

fn message(choices: &mut Choices<'_>, frame_max: u32) {
    let (exchange, routing_key) = (choices.short_str(), choices.short_str());
    let properties = choices.truth().then(|| choices.properties());
    let body = Bytes::from(vec![b'b'; choices.size()]);
    let publish = Publish {
        exchange: exchange.as_bytes(),
        routing_key: routing_key.as_bytes(),
        mandatory: choices.truth(),
        properties: properties.as_ref(),
        encoded: None,
        body: &body,
    };
    let (mut client, key) = client(frame_max);
    let published = client.session.publish(key, &publish, usize::MAX);
    let written = BytesMut::from(Bytes::from(client.written()));
    check_encoded(&publish, frame_max, &published, &written);
    match published {
        Ok(published) => {
            assert_eq!(published, Published::Accepted(None));
            let read = Read::all(written, frame_max);
            assert_eq!((&read.publish.exchange, &read.publish.routing_key), (&exchange, &routing_key));
            assert_eq!(read.publish.mandatory, publish.mandatory);
            // none means persistent
            let properties =
                properties.unwrap_or_else(|| Properties { delivery_mode: Some(2), ..Properties::default() });
            assert_eq!(encoded(|out| read.properties.encode(out)), encoded(|out| properties.encode(out)));
            assert_eq!(read.body, body);
        }
        Err(Refusal::Unfit(Unfit::Header { size, limit })) => {
            assert!(size > limit as usize, "{size} bytes fit into {limit}");
            assert!(written.is_empty());
        }
        Err(refusal) => {
            assert_eq!(refusal, Refusal::Unfit(Unfit::Name { length: usize::MAX }), "not for that");
        }
    }
}

/// Properties that are encoded already make no difference.
fn check_encoded(
    publish: &Publish<'_>,
    frame_max: u32,
    published: &Result<Published, Refusal>,
    written: &[u8],
) {
    let encoded = publish.properties.map(|properties| encoded(|out| properties.encode(out)));
    let (mut client, key) = client(frame_max);
    let again = client.session.publish(key, &Publish { encoded: encoded.as_deref(), ..*publish }, usize::MAX);
    assert_eq!((&again, client.written().as_slice()), (published, written));
}

/// With one open channel, and nothing to be written.
#[expect(clippy::panic, reason = "a finding ends the fuzzer")]
fn client(frame_max: u32) -> (Client, ChannelKey) {
    let mut client = Client::new(Agreed { channel_max: 1, frame_max, heartbeat: 0 }, 0);
    let key = client.session.open_channel(0, |key| key);
    let mut answer = Vec::new();
    put_method(&mut answer, 1, &channel::OpenOk);
    assert_eq!(client.read(&answer), Ok(()));
    client.written();
    (client, key.unwrap_or_else(|refusal| panic!("no channel: {refusal:?}")))
}

/// A message as the other side reads it.
struct Read {
    publish: basic::Publish,
    properties: Properties,
    body: Vec<u8>,
}

impl Read {
    #[expect(clippy::panic, reason = "a finding ends the fuzzer")]
    fn all(mut input: BytesMut, frame_max: u32) -> Self {
        let cutter = FrameCutter::new(frame_max);
        let mut frames = std::iter::from_fn(|| {
            let frame = cutter.cut(&mut input);
            let frame = frame.unwrap_or_else(|fault| panic!("the other side refuses it: {fault}"))?;
            assert!(frame.size() <= frame_max as usize, "beyond frame_max: {frame:?}");
            assert_eq!(frame.channel, 1);
            Some(frame.decode().unwrap_or_else(|error| panic!("the other side cannot read it: {error}")))
        });
        let (method, header) = (frames.next(), frames.next());
        let (Some(Payload::Method(Method::BasicPublish(publish))), Some(Payload::Header(header))) =
            (method, header)
        else {
            panic!("no method and header")
        };
        let mut body = Vec::new();
        for payload in frames {
            let Payload::Body(piece) = payload else { panic!("no body: {payload:?}") };
            assert!(!piece.is_empty(), "a body frame without a body");
            body.extend_from_slice(&piece);
        }
        assert_eq!(header.body_size, body.len() as u64);
        assert!(input.is_empty(), "a part of a frame");
        let ContentHeader { properties, .. } = *header;
        Self { publish, properties, body }
    }
}

/// Choices that the input makes; once it is used up, the choice is always the first.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn octet(&mut self) -> u8 {
        self.0.try_get_u8().unwrap_or_default()
    }

    fn truth(&mut self) -> bool {
        self.octet() & 1 == 1
    }

    fn number(&mut self) -> u64 {
        let mut octets = [0; 8];
        octets.fill_with(|| self.octet());
        u64::from_be_bytes(octets)
    }

    /// Often near a limit of something.
    fn size(&mut self) -> usize {
        let near = [0, 4096, 8192, 131_072].get(usize::from(self.octet()) % 4).copied().unwrap_or_default();
        (near + usize::from(self.octet())).saturating_sub(usize::from(self.octet()))
    }

    fn short_str(&mut self) -> ShortStr {
        let (length, octet) = (self.octet().into(), self.octet());
        ShortStr::try_from(vec![octet; length]).unwrap_or_default()
    }

    fn long_str(&mut self) -> Bytes {
        let (length, octet) = (self.size(), self.octet());
        vec![octet; length].into()
    }

    fn table(&mut self, depth: u8) -> FieldTable {
        let mut table = FieldTable::new();
        for _ in 0..self.octet() % 4 {
            let name = self.short_str();
            let value = self.value(depth);
            table.extend([(name, value)]);
        }
        table
    }

    fn value(&mut self, depth: u8) -> FieldValue {
        let kind = self.octet() % 17;
        if depth == 0 && kind > 14 {
            return FieldValue::Void;
        }
        // a narrower number is a part of this one
        let octets = self.number().to_be_bytes();
        let [a, b, c, d, ..] = octets;
        match kind {
            0 => FieldValue::Bool(a & 1 == 1),
            1 => FieldValue::I8(i8::from_be_bytes([a])),
            2 => FieldValue::U8(a),
            3 => FieldValue::I16(i16::from_be_bytes([a, b])),
            4 => FieldValue::U16(u16::from_be_bytes([a, b])),
            5 => FieldValue::I32(i32::from_be_bytes([a, b, c, d])),
            6 => FieldValue::U32(u32::from_be_bytes([a, b, c, d])),
            7 => FieldValue::I64(i64::from_be_bytes(octets)),
            8 => FieldValue::F32(f32::from_be_bytes([a, b, c, d])),
            9 => FieldValue::F64(f64::from_be_bytes(octets)),
            10 => FieldValue::Decimal { scale: a, value: i32::from_be_bytes([a, b, c, d]) },
            11 => FieldValue::LongStr(self.long_str()),
            12 => FieldValue::Timestamp(Timestamp(u64::from_be_bytes(octets))),
            13 => FieldValue::ByteArray(self.long_str()),
            14 => FieldValue::Void,
            15 => FieldValue::Array((0..a % 4).map(|_| self.value(depth - 1)).collect()),
            _ => FieldValue::Table(self.table(depth - 1)),
        }
    }

    fn properties(&mut self) -> Properties {
        let bits = self.octet();
        let mut name = |bit: u8| (bits >> bit & 1 == 1).then(|| self.short_str());
        let (content_type, correlation_id, reply_to, expiration) = (name(0), name(1), name(2), name(3));
        let (message_id, kind, user_id, app_id) = (name(4), name(5), name(6), name(7));
        Properties {
            content_type,
            content_encoding: self.truth().then(|| self.short_str()),
            headers: self.truth().then(|| self.table(8)),
            delivery_mode: self.truth().then(|| self.octet()),
            priority: self.truth().then(|| self.octet()),
            correlation_id,
            reply_to,
            expiration,
            message_id,
            timestamp: self.truth().then(|| Timestamp(self.number())),
            kind,
            user_id,
            app_id,
            cluster_id: self.truth().then(|| self.short_str()),
        }
    }

    /// One of the methods that users send with arguments of their own.
    fn method(&mut self) -> Method {
        let kind = self.octet() % 10;
        let (name, other, key) = (self.short_str(), self.short_str(), self.short_str());
        let flags = self.octet();
        let flag = |bit: u8| flags >> bit & 1 == 1;
        let delivery_tag = self.number();
        match kind {
            0 => queue::Declare {
                queue: name,
                passive: flag(0),
                durable: flag(1),
                exclusive: flag(2),
                auto_delete: flag(3),
                no_wait: flag(4),
                arguments: self.table(8),
            }
            .into(),
            1 => exchange::Declare {
                exchange: name,
                kind: other,
                passive: flag(0),
                durable: flag(1),
                auto_delete: flag(2),
                internal: flag(3),
                no_wait: flag(4),
                arguments: self.table(8),
            }
            .into(),
            2 => queue::Bind {
                queue: name,
                exchange: other,
                routing_key: key,
                no_wait: flag(0),
                arguments: self.table(8),
            }
            .into(),
            3 => exchange::Unbind {
                destination: name,
                source: other,
                routing_key: key,
                no_wait: flag(0),
                arguments: self.table(8),
            }
            .into(),
            4 => basic::Consume {
                queue: name,
                consumer_tag: other,
                no_local: flag(0),
                no_ack: flag(1),
                exclusive: flag(2),
                no_wait: flag(3),
                arguments: self.table(8),
            }
            .into(),
            5 => connection::StartOk {
                client_properties: self.table(8),
                mechanism: name,
                response: self.long_str(),
                locale: other,
            }
            .into(),
            6 => connection::UpdateSecret { new_secret: self.long_str(), reason: name }.into(),
            7 => basic::Nack { delivery_tag, multiple: flag(0), requeue: flag(1) }.into(),
            8 => {
                basic::Publish { exchange: name, routing_key: other, mandatory: flag(0), immediate: flag(1) }
                    .into()
            }
            _ => channel::Close {
                reply_code: self.size().try_into().unwrap_or_default(),
                reply_text: name,
                class_id: self.octet().into(),
                method_id: self.octet().into(),
            }
            .into(),
        }
    }
}
