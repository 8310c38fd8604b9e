//! Content headers: what stands between a method with content and its body.
//!
//! ```text
//! octet  0      2       4          12      14
//!        | class | weight | body size | flags | properties ...
//! ```

use bytes::{Buf, BufMut, Bytes};

use super::decode::{DecodeError, Decoder};
use super::frame::put_frame;
use super::generated::basic::{self, Properties};
use super::generated::constants::FRAME_HEADER;

/// Octets before the property flags.
pub(crate) const PROPERTIES_AT: usize = 12;

/// The fixed part of a content header. The properties behind it are read later: an unreadable header
/// table must not stop the body from being delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentHeader {
    pub class: u16,
    /// How many bytes of body the sender announces.
    pub body_size: u64,
}

impl ContentHeader {
    /// Reads a header frame's payload. The weight is ignored: it has no meaning, and `RabbitMQ` sends 0.
    #[inline]
    pub(crate) fn from_payload(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut head = payload.get(..PROPERTIES_AT).ok_or(DecodeError::Truncated)?;
        let class = head.get_u16();
        let _weight = head.get_u16();
        Ok(Self { class, body_size: head.get_u64() })
    }
}

/// Reads the properties of a content header. Octets behind them are ignored: some brokers pad.
pub(crate) fn decode_properties(properties: &Bytes) -> Result<Properties, DecodeError> {
    Properties::decode(&mut Decoder::new(properties, properties))
}

/// Appends a header frame, and returns the length of its payload.
pub(crate) fn put_header(out: &mut Vec<u8>, channel: u16, body_size: u64, properties: &Properties) -> usize {
    put_frame(out, FRAME_HEADER, channel, |out| {
        out.put_u16(basic::CLASS_ID);
        out.put_u16(0);
        out.put_u64(body_size);
        properties.encode(out);
    })
}
