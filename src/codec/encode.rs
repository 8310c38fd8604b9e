//! Primitives appended to a buffer, big-endian. None of these can fail: limits are kept by the types
//! (a short string has at most 255 bytes) or checked on the whole frame once it is encoded.

use bytes::{BufMut, Bytes};

use super::primitive::{ShortStr, Timestamp};
use super::table::{FieldTable, put_table_body};

/// One octet; also a group of up to eight packed bits, the first in the lowest bit.
pub(crate) fn put_octet(out: &mut Vec<u8>, value: u8) {
    out.put_u8(value);
}

/// Two octets.
pub(crate) fn put_short(out: &mut Vec<u8>, value: u16) {
    out.put_u16(value);
}

/// Four octets.
pub(crate) fn put_long(out: &mut Vec<u8>, value: u32) {
    out.put_u32(value);
}

/// Eight octets.
pub(crate) fn put_longlong(out: &mut Vec<u8>, value: u64) {
    out.put_u64(value);
}

/// A length octet, then the bytes.
pub(crate) fn put_short_str(out: &mut Vec<u8>, value: &ShortStr) {
    put_name(out, value.as_bytes());
}

/// Like [`put_short_str`] for bytes whose length the caller has checked to be at most 255.
pub(crate) fn put_name(out: &mut Vec<u8>, name: &[u8]) {
    debug_assert!(name.len() <= ShortStr::MAX, "the caller checks the length");
    out.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.put_slice(name);
}

/// Four length octets, then the bytes.
pub(crate) fn put_long_str(out: &mut Vec<u8>, value: &Bytes) {
    put_length_of(out, |out| out.put_slice(value));
}

/// Seconds since the epoch in eight octets.
pub(crate) fn put_timestamp(out: &mut Vec<u8>, value: Timestamp) {
    out.put_u64(value.0);
}

/// The length of the body in four octets, then the pairs.
pub(crate) fn put_table(out: &mut Vec<u8>, table: &FieldTable) {
    put_length_of(out, |out| put_table_body(out, table));
}

/// Runs `body` and writes the number of bytes that it appended before them, in four octets.
///
/// Four gigabytes and more saturate; such a frame is refused as a whole afterwards.
pub(crate) fn put_length_of(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.put_u32(0);
    body(out);
    let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    patch_long(out, at, length);
}

/// Overwrites four octets that were appended before.
pub(crate) fn patch_long(out: &mut [u8], at: usize, value: u32) {
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}
