//! The receiving half: assembles contents and routes deliveries. Owned by whoever reads, so no lock.
//!
//! ```text
//!            content method          header, size > 0        last body frame
//!   Idle ───────────────────> Header ────────────────> Body ────────────────> Idle, complete
//!                               ├── header, size 0 ──> Idle, complete
//!                               │                      last body frame
//!                               └── header, too large ─> TooLarge ────────> Idle, complete without its body
//! ```

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use super::Waiters;
use super::incoming_delivery::{Delivery, consumer_tag};
use super::incoming_return::Returned;
use super::violation::Violation;
use crate::codec::content::{ContentHeader, PROPERTIES_AT, are_whole};
use crate::codec::frame::{Frame, FrameKind, Frames};
use crate::codec::generated::{basic, channel};
use crate::codec::{Arguments, DecodeError, Decoder, Method, MethodId, ShortStr};

/// Unfinished contents of all channels together may hold so many times the largest body, and in any case so many bytes.
const UNFINISHED_FACTOR: u64 = 2;
const UNFINISHED_LEAST: u64 = 4 << 20;

/// How the payload of `basic.deliver` begins.
const DELIVER: [u8; 4] = {
    let ([c1, c0], [m1, m0]) = (basic::CLASS_ID.to_be_bytes(), basic::Deliver::ID.method.to_be_bytes());
    [c1, c0, m1, m0]
};

/// What one frame amounts to.
#[derive(Debug)]
pub(crate) enum Received<'a, X: Waiters> {
    /// Nothing yet: a part of a content, a heartbeat, or a late frame that was dropped.
    Nothing,
    /// A method without content, for the session.
    Method { channel: u16, method: Method },
    /// A message for a consumer.
    Delivery { consumer: &'a X::Consumer, delivery: Delivery },
    /// A message for a consumer that is not there.
    Unclaimed { channel: u16, delivery: Delivery },
    /// A message that answers a `basic.get`.
    GetOk { channel: u16, delivery: Delivery },
    /// A message that came back.
    Returned { channel: u16, returned: Box<Returned> },
}

/// The receiving half of the multiplexer.
#[derive(Debug)]
pub(crate) struct Inbound<X: Waiters> {
    lanes: Vec<Lane<X>>,
    limits: Limits,
}

/// Bounds on bodies, in bytes.
#[derive(Debug)]
struct Limits {
    /// The largest body that is accepted.
    message: u64,
    /// What is held of all contents that have not come whole: properties, and what has come of bodies.
    unfinished: u64,
}

impl Limits {
    /// More is held of an unfinished content.
    fn hold(&mut self, bytes: u64) -> Result<(), Violation> {
        self.unfinished += bytes;
        let limit = self.message.saturating_mul(UNFINISHED_FACTOR).max(UNFINISHED_LEAST);
        if self.unfinished > limit { Err(Violation::Unfinished { limit }) } else { Ok(()) }
    }
}

/// One channel number.
#[derive(Debug)]
enum Lane<X: Waiters> {
    /// Never opened: a frame here is a fault.
    Never,
    /// Closed: a frame here is late, and dropped.
    Closed,
    Open(Box<OpenLane<X>>),
}

#[derive(Debug)]
struct OpenLane<X: Waiters> {
    assembly: Assembly,
    consumers: HashMap<ShortStr, X::Consumer>,
    /// The consumer of the last delivery: most follow one for the same.
    last: Option<(ShortStr, X::Consumer)>,
}

/// See the module's diagram.
#[derive(Debug)]
enum Assembly {
    Idle,
    Header(Incoming),
    /// `counted` bytes of it are in [`Limits::unfinished`].
    Body {
        incoming: Incoming,
        announced: u64,
        gathered: BytesMut,
        counted: u64,
    },
    /// A body above the limit, of which `left` bytes have not come. It is dropped as it comes.
    TooLarge {
        incoming: Incoming,
        announced: u64,
        left: u64,
    },
}

/// A content that is being assembled.
#[derive(Debug)]
enum Incoming {
    Delivery(Delivery),
    GetOk(Delivery),
    Returned(Box<Returned>),
}

impl<X: Waiters> Inbound<X> {
    /// `max_message` is the largest acceptable body, in bytes.
    pub(crate) const fn new(max_message: u64) -> Self {
        Self { lanes: Vec::new(), limits: Limits { message: max_message, unfinished: 0 } }
    }

    /// The channel was opened: its contents are assembled from now on.
    pub(crate) fn opened(&mut self, channel: u16) {
        let at = usize::from(channel);
        if self.lanes.len() <= at {
            self.lanes.resize_with(at + 1, || Lane::Never);
        }
        if let Some(lane) = self.lanes.get_mut(at) {
            *lane = Lane::Open(Box::new(OpenLane {
                assembly: Assembly::Idle,
                consumers: HashMap::new(),
                last: None,
            }));
        }
    }

    /// The channel was closed: what still comes is dropped.
    pub(crate) fn closed(&mut self, channel: u16) {
        if let Some(lane) = self.lanes.get_mut(usize::from(channel))
            && let Lane::Open(open) = lane
        {
            open.drop_content(&mut self.limits);
            *lane = Lane::Closed;
        }
    }

    /// Deliveries for `tag` go to `consumer` from now on, and no more to one that had the tag before.
    pub(crate) fn register(&mut self, channel: u16, tag: ShortStr, consumer: X::Consumer) {
        if let Some(Lane::Open(lane)) = self.lanes.get_mut(usize::from(channel)) {
            lane.last = None;
            lane.consumers.insert(tag, consumer);
        }
    }

    /// The consumer is gone, unless another one has its tag by now.
    pub(crate) fn unregister(&mut self, channel: u16, tag: &ShortStr, consumer: &X::Consumer) {
        if let Some(Lane::Open(lane)) = self.lanes.get_mut(usize::from(channel))
            && lane.consumers.get(tag).is_some_and(|known| X::is_same(known, consumer))
        {
            lane.last = None;
            lane.consumers.remove(tag);
        }
    }

    /// The usual case, in one go: a delivery for a consumer that is there, with its whole content right behind its
    /// method. Otherwise, and where anything is wrong, takes nothing from `next`: then the frames are to be
    /// [received](Self::receive) one by one.
    #[inline]
    pub(crate) fn deliver_whole(
        &mut self,
        frame: &Frame<'_>,
        next: &mut Frames<'_>,
    ) -> Option<(&X::Consumer, Delivery)> {
        if frame.kind != FrameKind::Method || !frame.payload.starts_with(&DELIVER) {
            return None;
        }
        let Some(Lane::Open(lane)) = self.lanes.get_mut(usize::from(frame.channel)) else { return None };
        if !matches!(lane.assembly, Assembly::Idle) {
            return None;
        }
        let mut ahead = next.clone();
        let (header, body) = content(frame.channel, self.limits.message, &mut ahead)?;
        let consumer = lane.consumer(consumer_tag(frame.payload)?)?;
        let delivery = Delivery::whole(frame, &header, body.as_ref())?;
        *next = ahead;
        Some((consumer, delivery))
    }

    /// Handles one frame.
    pub(crate) fn receive(&mut self, frame: Frame<'_>) -> Result<Received<'_, X>, Violation> {
        match frame.kind {
            FrameKind::Heartbeat => Ok(Received::Nothing),
            FrameKind::Method => self.method(frame),
            FrameKind::Header => self.content(frame, OpenLane::header),
            FrameKind::Body => self.content(frame, OpenLane::body),
        }
    }

    fn method(&mut self, frame: Frame<'_>) -> Result<Received<'_, X>, Violation> {
        // names are few and small here, and kept for long: they must not keep the read buffer alive
        let mut input = Decoder::copying(frame.payload);
        let id = id(&mut input).map_err(|error| Violation::Decode { method: MethodId::NONE, error })?;
        let fault = |error| Violation::Decode { method: id, error };
        if Method::has_content(id) {
            return self.begin(frame, id);
        }
        if let Some(Lane::Open(lane)) = self.lanes.get_mut(usize::from(frame.channel)) {
            lane.interrupt(frame.channel, id, &mut self.limits)?;
        }
        let method = Method::decode(id, &mut input).map_err(fault)?;
        Ok(Received::Method { channel: frame.channel, method })
    }

    /// A method with content: remembers it until header and body have come.
    fn begin(&mut self, frame: Frame<'_>, id: MethodId) -> Result<Received<'_, X>, Violation> {
        let fault = |error| Violation::Decode { method: id, error };
        if frame.channel == 0 {
            return Err(Violation::WrongChannel { channel: 0, method: id });
        }
        let lane = match self.lanes.get_mut(usize::from(frame.channel)) {
            None | Some(Lane::Never) => return Err(Violation::ChannelNotOpen(frame.channel)),
            Some(Lane::Closed) => return Ok(Received::Nothing),
            Some(Lane::Open(lane)) => lane,
        };
        lane.interrupt(frame.channel, id, &mut self.limits)?;
        let incoming = match id {
            basic::Deliver::ID => Incoming::Delivery(Delivery::begin(&frame).map_err(fault)?),
            basic::GetOk::ID => Incoming::GetOk(Delivery::begin(&frame).map_err(fault)?),
            basic::Return::ID => Incoming::Returned(Box::new(returned(frame).map_err(fault)?)),
            // basic.publish, which only clients send
            _ => return Err(Violation::Unexpected { channel: frame.channel, method: id }),
        };
        lane.assembly = Assembly::Header(incoming);
        Ok(Received::Nothing)
    }

    /// A header or body frame.
    fn content(
        &mut self,
        frame: Frame<'_>,
        step: impl for<'a> FnOnce(
            &'a mut OpenLane<X>,
            Frame<'_>,
            &mut Limits,
        ) -> Result<Received<'a, X>, Violation>,
    ) -> Result<Received<'_, X>, Violation> {
        match self.lanes.get_mut(usize::from(frame.channel)) {
            None | Some(Lane::Never) => Err(Violation::ChannelNotOpen(frame.channel)),
            Some(Lane::Closed) => Ok(Received::Nothing),
            Some(Lane::Open(lane)) => step(lane, frame, &mut self.limits),
        }
    }
}

impl<X: Waiters> OpenLane<X> {
    /// A method in the middle of a content is a fault, unless it closes the channel: then what has come
    /// of the content is dropped.
    fn interrupt(&mut self, channel: u16, id: MethodId, limits: &mut Limits) -> Result<(), Violation> {
        if matches!(self.assembly, Assembly::Idle) {
            return Ok(());
        }
        if id == channel::Close::ID {
            self.drop_content(limits);
            return Ok(());
        }
        Err(Violation::Interrupted { channel, method: id })
    }

    /// The rest of a content that has begun will not come.
    fn drop_content(&mut self, limits: &mut Limits) {
        if let Assembly::Body { counted, .. } = std::mem::replace(&mut self.assembly, Assembly::Idle) {
            limits.unfinished -= counted;
        }
    }

    fn header(&mut self, frame: Frame<'_>, limits: &mut Limits) -> Result<Received<'_, X>, Violation> {
        let Assembly::Header(mut incoming) = std::mem::replace(&mut self.assembly, Assembly::Idle) else {
            return Err(Violation::StrayHeader(frame.channel));
        };
        let header = ContentHeader::from_payload(frame.payload).map_err(Violation::Header)?;
        if header.class != basic::CLASS_ID {
            return Err(Violation::HeaderClass(header.class));
        }
        if !are_whole(frame.payload.get(PROPERTIES_AT..).unwrap_or_default()) {
            return Err(Violation::Header(DecodeError::Truncated));
        }
        let announced = header.body_size;
        incoming.set_properties(&frame);
        if announced > limits.message {
            if !incoming.set_too_large(announced) {
                return Err(Violation::MessageTooLarge { announced, limit: limits.message });
            }
            self.assembly = Assembly::TooLarge { incoming, announced, left: announced };
            return Ok(Received::Nothing);
        }
        if announced == 0 {
            return Ok(self.complete(frame.channel, incoming));
        }
        let counted = frame.payload.len() as u64;
        limits.hold(counted)?;
        self.assembly = Assembly::Body { incoming, announced, gathered: BytesMut::new(), counted };
        Ok(Received::Nothing)
    }

    /// A body in one frame is shared with the read buffer; one in several is gathered in a buffer that
    /// grows with what arrives, never by what the header announced.
    fn body(&mut self, frame: Frame<'_>, limits: &mut Limits) -> Result<Received<'_, X>, Violation> {
        let (mut incoming, announced, mut gathered, counted) =
            match std::mem::replace(&mut self.assembly, Assembly::Idle) {
                Assembly::Body { incoming, announced, gathered, counted } => {
                    (incoming, announced, gathered, counted)
                }
                Assembly::TooLarge { incoming, announced, left } => {
                    return self.skip(&frame, incoming, announced, left);
                }
                Assembly::Idle | Assembly::Header(_) => return Err(Violation::StrayBody(frame.channel)),
            };
        limits.unfinished -= counted;
        let so_far = gathered.len() as u64 + frame.payload.len() as u64;
        if so_far > announced {
            return Err(Violation::BodyTooLong { announced });
        }
        if so_far == announced && gathered.is_empty() {
            incoming.set_body(&frame);
            return Ok(self.complete(frame.channel, incoming));
        }
        gathered.extend_from_slice(frame.payload);
        if so_far == announced {
            incoming.set_gathered(gathered.freeze());
            return Ok(self.complete(frame.channel, incoming));
        }
        let counted = counted + frame.payload.len() as u64;
        limits.hold(counted)?;
        self.assembly = Assembly::Body { incoming, announced, gathered, counted };
        Ok(Received::Nothing)
    }

    /// A part of a body above the limit: only its length matters.
    #[cold]
    fn skip(
        &mut self,
        frame: &Frame<'_>,
        incoming: Incoming,
        announced: u64,
        left: u64,
    ) -> Result<Received<'_, X>, Violation> {
        match left.checked_sub(frame.payload.len() as u64) {
            None => Err(Violation::BodyTooLong { announced }),
            Some(0) => Ok(self.complete(frame.channel, incoming)),
            Some(left) => {
                self.assembly = Assembly::TooLarge { incoming, announced, left };
                Ok(Received::Nothing)
            }
        }
    }

    fn complete(&mut self, channel: u16, incoming: Incoming) -> Received<'_, X> {
        match incoming {
            Incoming::Delivery(delivery) => self.deliver(channel, delivery),
            Incoming::GetOk(delivery) => Received::GetOk { channel, delivery },
            Incoming::Returned(returned) => Received::Returned { channel, returned },
        }
    }

    fn deliver(&mut self, channel: u16, delivery: Delivery) -> Received<'_, X> {
        match self.consumer(delivery.consumer_tag()) {
            Some(consumer) => Received::Delivery { consumer, delivery },
            None => Received::Unclaimed { channel, delivery },
        }
    }

    #[inline]
    fn consumer(&mut self, tag: &[u8]) -> Option<&X::Consumer> {
        if self.last.as_ref().is_none_or(|(last, _)| last.as_bytes() != tag) {
            let (tag, consumer) = self.consumers.get_key_value(tag)?;
            self.last = Some((tag.clone(), consumer.clone()));
        }
        self.last.as_ref().map(|(_, consumer)| consumer)
    }
}

impl Incoming {
    fn set_properties(&mut self, frame: &Frame<'_>) {
        match self {
            Self::Delivery(delivery) | Self::GetOk(delivery) => delivery.set_properties(frame),
            Self::Returned(returned) => {
                let properties = frame.payload.get(PROPERTIES_AT..).unwrap_or_default();
                returned.properties = Bytes::copy_from_slice(properties);
            }
        }
    }

    /// The body has so many bytes, which is too much, and will be left out. False: it is a message that came back, which
    /// cannot be told apart from others without its body.
    fn set_too_large(&mut self, announced: u64) -> bool {
        match self {
            Self::Delivery(delivery) | Self::GetOk(delivery) => delivery.set_too_large(announced),
            Self::Returned(_) => return false,
        }
        true
    }

    /// All of the body has come in one frame.
    fn set_body(&mut self, frame: &Frame<'_>) {
        match self {
            Self::Delivery(delivery) | Self::GetOk(delivery) => delivery.set_body(frame.share()),
            // what comes back is kept for long, or dropped
            Self::Returned(returned) => returned.body = Bytes::copy_from_slice(frame.payload),
        }
    }

    /// The body was gathered from several frames.
    fn set_gathered(&mut self, body: Bytes) {
        match self {
            Self::Delivery(delivery) | Self::GetOk(delivery) => delivery.set_body(body),
            Self::Returned(returned) => returned.body = body,
        }
    }
}

/// The frames of a whole content: header, and body if there is one.
#[inline]
fn content<'a>(
    channel: u16,
    max_message: u64,
    frames: &mut Frames<'a>,
) -> Option<(Frame<'a>, Option<Frame<'a>>)> {
    let mut next = |kind| frames.next().filter(|frame| frame.kind == kind && frame.channel == channel);
    let header = next(FrameKind::Header)?;
    let ContentHeader { class, body_size } = ContentHeader::from_payload(header.payload).ok()?;
    if class != basic::CLASS_ID || body_size > max_message {
        return None;
    }
    if !are_whole(header.payload.get(PROPERTIES_AT..)?) {
        return None;
    }
    if body_size == 0 {
        return Some((header, None));
    }
    let body = next(FrameKind::Body).filter(|body| body.payload.len() as u64 == body_size)?;
    Some((header, Some(body)))
}

fn id(input: &mut Decoder<'_>) -> Result<MethodId, DecodeError> {
    Ok(MethodId::new(input.short()?, input.short()?))
}

fn returned(frame: Frame<'_>) -> Result<Returned, DecodeError> {
    let mut input = Decoder::copying(frame.payload);
    id(&mut input)?;
    let method = basic::Return::decode(&mut input)?;
    Ok(Returned {
        code: method.reply_code,
        text: method.reply_text,
        exchange: method.exchange,
        routing_key: method.routing_key,
        properties: Bytes::new(),
        body: Bytes::new(),
    })
}
