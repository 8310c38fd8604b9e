//! A message on its way out: method, header and body frames, one after the other.

use bytes::{BufMut, Bytes};

use super::outgoing::{CHAIN_FROM, Outgoing};
use crate::codec::content::{PROPERTIES_AT, put_header};
use crate::codec::frame::{HEAD, OVERHEAD, put_body_head};
use crate::codec::generated::basic;
use crate::codec::generated::constants::{FRAME_END, FRAME_HEADER, FRAME_METHOD};
use crate::codec::{Arguments, MethodId, Properties};

/// A message to publish. The names are borrowed, so that nothing is allocated for them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publish<'a> {
    pub exchange: &'a [u8],
    pub routing_key: &'a [u8],
    pub mandatory: bool,
    /// `None`: persistent, and nothing else.
    pub properties: Option<&'a Properties>,
    /// The same properties as they are encoded, if the caller has them already: they are copied then.
    pub encoded: Option<&'a [u8]>,
    pub body: &'a Bytes,
}

/// Why a message cannot be encoded. Nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// A name has more than 255 bytes.
    Name { length: usize },
    /// The properties do not fit into one frame of `limit` bytes, and they cannot be split.
    Header { size: usize, limit: u32 },
}

/// Octets of the method frame's payload beside the names: class, method, two reserved octets, the names'
/// length octets, the flags.
const METHOD_PAYLOAD: usize = 4 + 2 + 2 + 1;

/// The header frame's payload of a message that is persistent and nothing else: class, weight, body size, flags,
/// delivery mode.
const PERSISTENT_PAYLOAD: u32 = 2 + 2 + 8 + 2 + 1;

/// What flag and value say that a message is persistent.
const DELIVERY_MODE_FLAG: u16 = 0x1000;
const PERSISTENT: u8 = 2;

impl Publish<'_> {
    /// Appends all frames of the message, or nothing. `frame_max` is in bytes, and more than 23.
    #[inline]
    pub(crate) fn put(&self, out: &mut Outgoing, channel: u16, frame_max: u32) -> Result<(), Unfit> {
        let length = |name: &[u8]| u8::try_from(name.len()).map_err(|_| Unfit::Name { length: name.len() });
        let lengths = (length(self.exchange)?, length(self.routing_key)?);
        let most = frame_max as usize - OVERHEAD;
        if self.properties.is_none() && self.body.len() < CHAIN_FROM.min(most) {
            self.put_small(out.on(channel), channel, lengths);
            return Ok(());
        }
        self.put_any(out, channel, lengths, most)
    }

    /// A message that is persistent and nothing else, and whose body fits into one frame: the hottest path of a
    /// publisher. The place for all that stands before the body is made at once, so that there is one look at the
    /// buffer's capacity, and not one for every field.
    fn put_small(&self, out: &mut Vec<u8>, channel: u16, lengths: (u8, u8)) {
        let names = self.exchange.len() + self.routing_key.len();
        let frames = METHOD_PAYLOAD + names + OVERHEAD + PERSISTENT_PAYLOAD as usize + OVERHEAD;
        let head = if self.body.is_empty() { frames } else { frames + HEAD };
        let start = out.len();
        out.reserve(head + self.body.len() + 1);
        out.resize(start + head, 0);
        let mut place = out.get_mut(start..).unwrap_or_default();
        self.put_method(&mut place, channel, lengths);
        self.put_persistent_header(&mut place, channel);
        if !self.body.is_empty() {
            put_body_head(&mut place, channel, size(self.body));
            out.extend_from_slice(self.body);
            out.push(FRAME_END);
        }
    }

    /// Any message.
    fn put_any(&self, out: &mut Outgoing, channel: u16, lengths: (u8, u8), most: usize) -> Result<(), Unfit> {
        let start = out.mark(channel);
        let buffer = out.on(channel);
        self.put_method(buffer, channel, lengths);
        let payload = match (self.encoded, self.properties) {
            (Some(encoded), _) => self.put_encoded_header(buffer, channel, encoded),
            (None, Some(properties)) => put_header(buffer, channel, self.body.len() as u64, properties),
            (None, None) => {
                self.put_persistent_header(buffer, channel);
                PERSISTENT_PAYLOAD as usize
            }
        };
        if payload > most {
            out.rewind(channel, start);
            let limit = u32::try_from(most + OVERHEAD).unwrap_or(u32::MAX);
            return Err(Unfit::Header { size: payload + OVERHEAD, limit });
        }
        if !self.body.is_empty() {
            out.put_body(channel, self.body, most);
        }
        Ok(())
    }

    fn put_method(&self, out: &mut impl BufMut, channel: u16, (exchange, routing_key): (u8, u8)) {
        const ID: MethodId = basic::Publish::ID;
        let payload = METHOD_PAYLOAD + usize::from(exchange) + usize::from(routing_key);
        group::<14>(out, |mut head| {
            head.put_u8(FRAME_METHOD);
            head.put_u16(channel);
            head.put_u32(u32::try_from(payload).unwrap_or(u32::MAX));
            head.put_u16(ID.class);
            head.put_u16(ID.method);
            head.put_u16(0);
            head.put_u8(exchange);
        });
        // mostly the default exchange
        if exchange > 0 {
            out.put_slice(self.exchange);
        }
        out.put_u8(routing_key);
        out.put_slice(self.routing_key);
        out.put_slice(&[self.mandatory.into(), FRAME_END]);
    }

    fn put_persistent_header(&self, out: &mut impl BufMut, channel: u16) {
        group::<{ OVERHEAD + PERSISTENT_PAYLOAD as usize }>(out, |mut header| {
            header.put_u8(FRAME_HEADER);
            header.put_u16(channel);
            header.put_u32(PERSISTENT_PAYLOAD);
            header.put_u16(basic::CLASS_ID);
            header.put_u16(0);
            header.put_u64(self.body.len() as u64);
            header.put_u16(DELIVERY_MODE_FLAG);
            header.put_u8(PERSISTENT);
            header.put_u8(FRAME_END);
        });
    }

    /// Appends a header frame, and returns the length of its payload.
    fn put_encoded_header(&self, out: &mut Vec<u8>, channel: u16, encoded: &[u8]) -> usize {
        let payload = PROPERTIES_AT + encoded.len();
        out.reserve(payload + OVERHEAD);
        group::<{ HEAD + PROPERTIES_AT }>(out, |mut header| {
            header.put_u8(FRAME_HEADER);
            header.put_u16(channel);
            header.put_u32(u32::try_from(payload).unwrap_or(u32::MAX));
            header.put_u16(basic::CLASS_ID);
            header.put_u16(0);
            header.put_u64(self.body.len() as u64);
        });
        out.put_slice(encoded);
        out.put_u8(FRAME_END);
        payload
    }
}

/// The size of a part of a body, which fits into a frame.
fn size(part: &Bytes) -> u32 {
    u32::try_from(part.len()).unwrap_or(u32::MAX)
}

/// Appends `N` octets at once, which `fill` writes: there is one look at how much room there is, and not one for every
/// field.
fn group<const N: usize>(out: &mut impl BufMut, fill: impl FnOnce(&mut [u8])) {
    let mut octets = [0; N];
    fill(&mut octets);
    out.put_slice(&octets);
}
