//! What the tests are written in: a client, frames as values, and the few things that most tests begin with.

use bytes::{Bytes, BytesMut};

use crate::codec::content::{ContentHeader, PROPERTIES_AT, decode_properties, put_header};
use crate::codec::frame::{Cutter, FrameKind, HEARTBEAT, put_frame};
use crate::codec::generated::constants::{FRAME_BODY, FRAME_METHOD};
use crate::codec::generated::{basic, channel, confirm};
use crate::codec::{Arguments, Method, Properties, Request, ShortStr};
use crate::mux::channel_state::{Expect, Pending};
use crate::mux::confirm_ring::{Confirms, Outcome};
use crate::mux::ids::ChannelKey;
use crate::mux::outgoing_publish::Publish;
use crate::mux::session::{Published, Refusal};
use crate::mux::testing::{Client, Numbers, Seen};
use crate::mux::tune::Agreed;
use crate::mux::violation::Violation;

pub(super) const FRAME_MAX: u32 = 4096;
pub(super) const MAX_MESSAGE: u64 = 1 << 20;

/// A frame as the tests write it.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a test holds few of them")]
pub(super) enum Wire {
    Method(u16, Method),
    Header(u16, u64, Properties),
    Body(u16, Bytes),
    Heartbeat,
    /// A payload of any kind, well framed.
    Raw(u8, u16, Vec<u8>),
}

pub(super) fn method(channel: u16, method: impl Into<Method>) -> Wire {
    Wire::Method(channel, method.into())
}

pub(super) fn header(channel: u16, size: u64) -> Wire {
    Wire::Header(channel, size, Properties::default())
}

pub(super) fn body(channel: u16, bytes: &[u8]) -> Wire {
    Wire::Body(channel, Bytes::copy_from_slice(bytes))
}

/// A content: its method, a header and one body frame, or none if it is empty.
pub(super) fn content(channel: u16, first: impl Into<Method>, bytes: &[u8]) -> Vec<Wire> {
    let mut frames = vec![method(channel, first), header(channel, bytes.len() as u64)];
    frames.extend((!bytes.is_empty()).then(|| body(channel, bytes)));
    frames
}

pub(super) fn deliver(consumer_tag: &str, delivery_tag: u64) -> basic::Deliver {
    basic::Deliver { consumer_tag: short(consumer_tag), delivery_tag, ..basic::Deliver::default() }
}

pub(super) fn ack(delivery_tag: u64, multiple: bool) -> basic::Ack {
    basic::Ack { delivery_tag, multiple }
}

pub(super) fn nack(delivery_tag: u64, multiple: bool) -> basic::Nack {
    basic::Nack { delivery_tag, multiple, requeue: true }
}

/// What comes back for a publish with this routing key.
pub(super) fn no_route(routing_key: &str) -> basic::Return {
    basic::Return { reply_code: 312, routing_key: short(routing_key), ..basic::Return::default() }
}

pub(super) fn short(text: &str) -> ShortStr {
    text.try_into().unwrap()
}

impl Wire {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Method(channel, method) => {
                put_frame(out, FRAME_METHOD, *channel, |out| method.encode(out));
            }
            Self::Header(channel, size, properties) => {
                put_header(out, *channel, *size, properties);
            }
            Self::Body(channel, bytes) => {
                put_frame(out, FRAME_BODY, *channel, |out| out.extend_from_slice(bytes));
            }
            Self::Heartbeat => out.extend_from_slice(&HEARTBEAT),
            Self::Raw(kind, channel, bytes) => {
                put_frame(out, *kind, *channel, |out| out.extend_from_slice(bytes));
            }
        }
    }

    /// All frames in what a client wrote, none of them beyond the agreed size.
    fn all(bytes: &[u8]) -> Vec<Self> {
        let mut input = BytesMut::from(bytes);
        let cut = Cutter::agreed(FRAME_MAX).cut(&mut input);
        assert_eq!((cut.fault, input.len()), (None, 0), "not whole frames: {bytes:x?}");
        let frames = cut.frames.frames().map(|frame| {
            let payload = frame.share();
            assert!(payload.len() + 8 <= FRAME_MAX as usize);
            match frame.kind {
                FrameKind::Method => {
                    Self::Method(frame.channel, Method::from_payload(&payload, &payload).unwrap())
                }
                FrameKind::Header => {
                    let header = ContentHeader::from_payload(&payload).unwrap();
                    let properties = decode_properties(&payload.slice(PROPERTIES_AT..)).unwrap();
                    Self::Header(frame.channel, header.body_size, properties)
                }
                FrameKind::Body => Self::Body(frame.channel, payload),
                FrameKind::Heartbeat => Self::Heartbeat,
            }
        });
        frames.collect()
    }
}

/// A client after the handshake, and numbers for who waits.
pub(super) struct Script {
    pub client: Client,
    last: u32,
}

impl Script {
    pub(super) fn new() -> Self {
        Self::with_channel_max(2047)
    }

    pub(super) fn with_channel_max(channel_max: u16) -> Self {
        let agreed = Agreed { channel_max, frame_max: FRAME_MAX, heartbeat: 60 };
        Self { client: Client::new(agreed, MAX_MESSAGE), last: 0 }
    }

    /// With one channel open.
    pub(super) fn opened() -> (Self, ChannelKey) {
        let mut it = Self::new();
        let channel = it.open();
        (it, channel)
    }

    /// With one channel open and confirms on.
    pub(super) fn confirming() -> (Self, ChannelKey) {
        let (mut it, channel) = Self::opened();
        it.select(channel);
        (it, channel)
    }

    /// With one channel open and a consumer of the tag `c`.
    pub(super) fn consuming() -> (Self, ChannelKey, u32) {
        let (mut it, channel) = Self::opened();
        let consumer = it.consume(channel, "c");
        it.receives([method(channel.id.get(), basic::ConsumeOk { consumer_tag: short("c") })]);
        it.wrote();
        (it, channel, consumer)
    }

    /// The server's frames go in, what the user is told comes out.
    pub(super) fn receives(&mut self, frames: impl IntoIterator<Item = Wire>) -> Vec<Seen> {
        self.try_receive(frames).unwrap()
    }

    /// The server's frames go in, the last one must be a fault.
    pub(super) fn faults(&mut self, frames: impl IntoIterator<Item = Wire>) -> Violation {
        let frames: Vec<_> = frames.into_iter().collect();
        let (last, before) = frames.split_last().unwrap();
        self.receives(before.iter().cloned());
        self.try_receive([last.clone()]).unwrap_err()
    }

    fn try_receive(&mut self, frames: impl IntoIterator<Item = Wire>) -> Result<Vec<Seen>, Violation> {
        let mut bytes = Vec::new();
        frames.into_iter().for_each(|frame| frame.put(&mut bytes));
        self.client.read(&bytes).map(|()| self.client.seen())
    }

    /// What the client has written since the last time.
    pub(super) fn wrote(&mut self) -> Vec<Wire> {
        Wire::all(&self.client.written())
    }

    /// A number for somebody who waits.
    pub(super) fn waiter(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    /// Asks for a channel, which the server has not answered.
    pub(super) fn opening(&mut self) -> Result<(ChannelKey, u32), Refusal> {
        let waiter = self.waiter();
        self.client.session.open_channel(waiter, |key| key).map(|key| (key, waiter))
    }

    pub(super) fn open(&mut self) -> ChannelKey {
        let (key, waiter) = self.opening().unwrap();
        assert_eq!(self.receives([method(key.id.get(), channel::OpenOk)]), [Seen::Opened { waiter }]);
        self.wrote();
        key
    }

    /// Sends a request; the number is whose reply it is.
    pub(super) fn call<M: Request>(&mut self, key: ChannelKey, request: &M) -> u32 {
        self.call_expecting(key, request, Expect::only(M::Reply::ID))
    }

    pub(super) fn get(&mut self, key: ChannelKey) -> u32 {
        let expect = Expect { or: Some(basic::GetEmpty::ID), ..Expect::only(basic::GetOk::ID) };
        self.call_expecting(key, &basic::Get { queue: short("q"), no_ack: false }, expect)
    }

    pub(super) fn cancel(&mut self, key: ChannelKey, tag: &str, consumer: u32) -> u32 {
        let waiter = self.waiter();
        assert_eq!(self.try_cancel(key, tag, consumer, Some(waiter)), Ok(None));
        waiter
    }

    pub(super) fn try_cancel(
        &mut self,
        key: ChannelKey,
        tag: &str,
        consumer: u32,
        waiter: Option<u32>,
    ) -> Result<Option<u32>, Refusal> {
        self.client.session.cancel(key, &short(tag), &consumer, waiter)
    }

    fn call_expecting<M: Arguments>(&mut self, key: ChannelKey, request: &M, expect: Expect) -> u32 {
        let waiter = self.waiter();
        let pending = Pending { expect, waiter: Some(waiter), consumer: None };
        self.client.session.call(key, request, pending).unwrap();
        waiter
    }

    /// Asks for a consumer; the number is the consumer.
    pub(super) fn consume(&mut self, key: ChannelKey, tag: &str) -> u32 {
        self.try_consume(key, tag).unwrap()
    }

    pub(super) fn try_consume(&mut self, key: ChannelKey, tag: &str) -> Result<u32, Refusal> {
        let consumer = self.waiter();
        let consume = basic::Consume { consumer_tag: short(tag), ..basic::Consume::default() };
        let expect = Expect::only(basic::ConsumeOk::ID);
        let pending: Pending<Numbers> = Pending { expect, waiter: Some(consumer), consumer: Some(consumer) };
        self.client.session.consume(key, &consume, pending).map(|()| consumer)
    }

    pub(super) fn select(&mut self, key: ChannelKey) {
        self.call(key, &confirm::Select::default());
        self.receives([method(key.id.get(), confirm::SelectOk)]);
        self.wrote();
    }

    /// Publishes a message to the default exchange.
    pub(super) fn publish(
        &mut self,
        key: ChannelKey,
        routing_key: &str,
        body: &[u8],
    ) -> Result<Published, Refusal> {
        self.publish_with(key, routing_key, &Properties::default(), body, false)
    }

    pub(super) fn publish_with(
        &mut self,
        key: ChannelKey,
        routing_key: &str,
        properties: &Properties,
        body: &[u8],
        mandatory: bool,
    ) -> Result<Published, Refusal> {
        let body = &Bytes::copy_from_slice(body);
        let routing_key = routing_key.as_bytes();
        let publish = Publish {
            exchange: b"",
            routing_key,
            mandatory,
            properties: Some(properties),
            encoded: None,
            body,
        };
        self.client.session.publish(key, &publish, usize::MAX)
    }

    /// Publishes with a number.
    pub(super) fn numbered(
        &mut self,
        key: ChannelKey,
        routing_key: &str,
        body: &[u8],
        mandatory: bool,
    ) -> u64 {
        match self.publish_with(key, routing_key, &Properties::default(), body, mandatory) {
            Ok(Published::Accepted(Some(number))) => number,
            other => panic!("{other:?}"),
        }
    }

    /// Publishes with a number, and waits for the confirm.
    pub(super) fn awaited(&mut self, key: ChannelKey) -> (u64, u32) {
        let (number, waiter) = (self.numbered(key, "q", b"", false), self.waiter());
        self.confirms(key).wait(number, waiter);
        (number, waiter)
    }

    pub(super) fn confirms(&mut self, key: ChannelKey) -> &mut Confirms<u32> {
        self.client.session.confirms(key).unwrap().unwrap()
    }

    pub(super) fn outcome(&mut self, key: ChannelKey, number: u64) -> Option<Outcome> {
        self.confirms(key).outcome(number)
    }

    /// Closes a channel, which the server has not answered; the number waits for that.
    pub(super) fn close(&mut self, key: ChannelKey) -> (Vec<u32>, u32) {
        let waiter = self.waiter();
        let close = channel::Close { reply_code: 200, ..channel::Close::default() };
        let ended = self.client.session.close_channel(key, &close, Some(waiter)).unwrap();
        (ended.replies, waiter)
    }
}
