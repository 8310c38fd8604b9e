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

/// The properties by the kind of their value, as bits of the flags; all others are short strings.
const TABLES: u16 = 1 << 13;
const OCTETS: u16 = 1 << 12 | 1 << 11;
const TIMESTAMPS: u16 = 1 << 6;
/// Bits 1 and 0 are no properties: nothing, and whether another word of flags follows.
const PROPERTIES: u16 = !0b11;
const MORE: u16 = 1;

/// Whether flags and properties are all there: of a table, as many octets as it announces.
///
/// Properties that are cut short are a fault of the frame, whether anybody reads them or not. A table with a value of an
/// unknown type is none: it spoils what is read later, not the message.
#[inline]
pub(crate) fn are_whole(properties: &[u8]) -> bool {
    // mostly none, or only the delivery mode, which is one octet
    matches!(properties, [0, 0, ..] | [0x10, 0, _, ..]) || skip_properties(properties).is_some()
}

#[inline(never)]
fn skip_properties(properties: &[u8]) -> Option<()> {
    let mut rest = properties;
    let mut flags = rest.try_get_u16().ok()?;
    let mut last = flags;
    while last & MORE != 0 {
        last = rest.try_get_u16().ok()?;
    }
    flags &= PROPERTIES;
    while flags != 0 {
        // the highest bit comes first
        let flag = 1 << flags.ilog2();
        flags &= !flag;
        let length = match flag {
            TABLES => rest.try_get_u32().ok()? as usize,
            flag if flag & OCTETS != 0 => 1,
            TIMESTAMPS => 8,
            _ => usize::from(rest.try_get_u8().ok()?),
        };
        rest = rest.get(length..)?;
    }
    Some(())
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
