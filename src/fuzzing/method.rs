//! Target `method`: the payload of a method frame.

use bytes::Bytes;

use super::round_trip::encoded;
use crate::codec::Method;

/// Decoded methods survive a round trip.
pub fn method(data: &[u8]) {
    let source = Bytes::copy_from_slice(data);
    let Ok(method) = Method::from_payload(&source, &source) else { return };
    let written = encoded(|out| method.encode(out));
    assert!(written.len() <= data.len(), "more octets than were read");
    let again = Method::from_payload(&written, &written).map(|method| encoded(|out| method.encode(out)));
    assert_eq!(again.as_deref(), Ok(&*written));
}
