//! A message on its way out: method, header and body frames, one after the other.

use bytes::{BufMut, Bytes};

use super::outgoing::{CHAIN_FROM, Outgoing};
use crate::codec::Properties;
use crate::codec::content::put_header;
use crate::codec::encode::put_name;
use crate::codec::frame::{OVERHEAD, put_body_head, put_frame};
use crate::codec::generated::basic;
use crate::codec::generated::constants::{FRAME_END, FRAME_METHOD};
use crate::codec::{Arguments, ShortStr};

/// A message to publish. The names are borrowed, so that nothing is allocated for them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publish<'a> {
    pub exchange: &'a [u8],
    pub routing_key: &'a [u8],
    pub mandatory: bool,
    pub properties: &'a Properties,
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

impl Publish<'_> {
    /// Appends all frames of the message, or nothing. `frame_max` is in bytes, and more than 8.
    pub(crate) fn put(&self, out: &mut Outgoing, channel: u16, frame_max: u32) -> Result<(), Unfit> {
        for name in [self.exchange, self.routing_key] {
            if name.len() > ShortStr::MAX {
                return Err(Unfit::Name { length: name.len() });
            }
        }
        let start = out.mark();
        self.put_method(out.buffer(), channel);
        let payload = put_header(out.buffer(), channel, self.body.len() as u64, self.properties);
        let size = payload + OVERHEAD;
        if size > frame_max as usize {
            out.rewind(start);
            return Err(Unfit::Header { size, limit: frame_max });
        }
        self.put_body(out, channel, frame_max as usize - OVERHEAD);
        Ok(())
    }

    fn put_method(&self, out: &mut Vec<u8>, channel: u16) {
        let id = basic::Publish::ID;
        put_frame(out, FRAME_METHOD, channel, |out| {
            out.put_u16(id.class);
            out.put_u16(id.method);
            out.put_u16(0);
            put_name(out, self.exchange);
            put_name(out, self.routing_key);
            out.put_u8(self.mandatory.into());
        });
    }

    /// One frame for each `most` bytes; none for an empty body.
    fn put_body(&self, out: &mut Outgoing, channel: u16, most: usize) {
        if self.body.len() < CHAIN_FROM.min(most) {
            if !self.body.is_empty() {
                let out = out.buffer();
                put_body_head(out, channel, u32::try_from(self.body.len()).unwrap_or(u32::MAX));
                out.put_slice(self.body);
                out.put_u8(FRAME_END);
            }
            return;
        }
        let mut rest = self.body.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(most));
            put_body_head(out.buffer(), channel, u32::try_from(piece.len()).unwrap_or(u32::MAX));
            out.put_body(piece);
            out.buffer().put_u8(FRAME_END);
        }
    }
}
