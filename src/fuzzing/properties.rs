//! Target `properties`: the property flags and values of a content header.

use bytes::Bytes;

use super::round_trip::{encoded, values};
use crate::codec::content::decode_properties;

/// Decoded properties survive a round trip, and are no larger than their octets allow.
pub fn properties(data: &[u8]) {
    let Ok(properties) = decode_properties(&Bytes::copy_from_slice(data)) else { return };
    assert!(properties.headers.as_ref().map_or(0, values) <= data.len(), "more values than octets");
    let written = encoded(|out| properties.encode(out));
    assert!(written.len() <= data.len(), "more octets than were read");
    let again = decode_properties(&written).map(|properties| encoded(|out| properties.encode(out)));
    assert_eq!(again.as_deref(), Ok(&*written));
}
