//! A message on its way out: method, header and body frames, one after the other.

use bytes::{BufMut, Bytes};

use super::outgoing::{CHAIN_FROM, Outgoing};
use crate::codec::content::put_header;
use crate::codec::frame::{OVERHEAD, put_body_head};
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
const METHOD_PAYLOAD: u32 = 4 + 2 + 2 + 1;

/// The header frame's payload of a message that is persistent and nothing else: class, weight, body size, flags,
/// delivery mode.
const PERSISTENT_PAYLOAD: u32 = 2 + 2 + 8 + 2 + 1;

/// What flag and value say that a message is persistent.
const DELIVERY_MODE_FLAG: u16 = 0x1000;
const PERSISTENT: u8 = 2;

/// More octets than a message has beside its names, its body and unusual properties.
const FIXED: usize = 64;

impl Publish<'_> {
    /// Appends all frames of the message, or nothing. `frame_max` is in bytes, and more than 8.
    ///
    /// Octets are appended in groups: this is the hottest path of a publisher.
    pub(crate) fn put(&self, out: &mut Outgoing, channel: u16, frame_max: u32) -> Result<(), Unfit> {
        let length = |name: &[u8]| u8::try_from(name.len()).map_err(|_| Unfit::Name { length: name.len() });
        let lengths = (length(self.exchange)?, length(self.routing_key)?);
        let most = frame_max as usize - OVERHEAD;
        let copied = self.body.len() < CHAIN_FROM.min(most);
        let start = out.mark();
        let buffer = out.buffer();
        let body = if copied { self.body.len() } else { 0 };
        buffer.reserve(FIXED + self.exchange.len() + self.routing_key.len() + body);
        self.put_method(buffer, channel, lengths);
        let payload = self.put_header(buffer, channel);
        let size = payload + OVERHEAD;
        if size > frame_max as usize {
            out.rewind(start);
            return Err(Unfit::Header { size, limit: frame_max });
        }
        if copied {
            self.put_small_body(buffer, channel);
        } else {
            self.put_body(out, channel, most);
        }
        Ok(())
    }

    fn put_method(&self, out: &mut Vec<u8>, channel: u16, (exchange, routing_key): (u8, u8)) {
        const ID: MethodId = basic::Publish::ID;
        group::<14>(out, |mut head| {
            head.put_u8(FRAME_METHOD);
            head.put_u16(channel);
            head.put_u32(METHOD_PAYLOAD + u32::from(exchange) + u32::from(routing_key));
            head.put_u16(ID.class);
            head.put_u16(ID.method);
            head.put_u16(0);
            head.put_u8(exchange);
        });
        out.extend_from_slice(self.exchange);
        out.push(routing_key);
        out.extend_from_slice(self.routing_key);
        out.extend_from_slice(&[self.mandatory.into(), FRAME_END]);
    }

    /// Returns the length of the payload.
    fn put_header(&self, out: &mut Vec<u8>, channel: u16) -> usize {
        let size = self.body.len() as u64;
        let Some(properties) = self.properties else {
            group::<{ 7 + PERSISTENT_PAYLOAD as usize + 1 }>(out, |mut header| {
                header.put_u8(FRAME_HEADER);
                header.put_u16(channel);
                header.put_u32(PERSISTENT_PAYLOAD);
                header.put_u16(basic::CLASS_ID);
                header.put_u16(0);
                header.put_u64(size);
                header.put_u16(DELIVERY_MODE_FLAG);
                header.put_u8(PERSISTENT);
                header.put_u8(FRAME_END);
            });
            return PERSISTENT_PAYLOAD as usize;
        };
        put_header(out, channel, size, properties)
    }

    /// One frame; none for an empty body.
    fn put_small_body(&self, out: &mut Vec<u8>, channel: u16) {
        if !self.body.is_empty() {
            put_body_head(out, channel, u32::try_from(self.body.len()).unwrap_or(u32::MAX));
            out.extend_from_slice(self.body);
            out.push(FRAME_END);
        }
    }

    /// One frame for each `most` bytes.
    fn put_body(&self, out: &mut Outgoing, channel: u16, most: usize) {
        let mut rest = self.body.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(most));
            put_body_head(out.buffer(), channel, u32::try_from(piece.len()).unwrap_or(u32::MAX));
            out.put_body(piece);
            out.buffer().push(FRAME_END);
        }
    }
}

/// Appends `N` octets at once, which `fill` writes: the buffer's capacity is looked at once, and not for every
/// field.
fn group<const N: usize>(out: &mut Vec<u8>, fill: impl FnOnce(&mut [u8])) {
    let mut octets = [0; N];
    fill(&mut octets);
    out.extend_from_slice(&octets);
}
