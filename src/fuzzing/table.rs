//! Target `table`: a field table.

use bytes::Bytes;

use super::round_trip::{encoded, values};
use crate::codec::Decoder;
use crate::codec::encode::put_table;

/// Decoded tables survive a round trip, and are no larger than their octets allow.
pub fn table(data: &[u8]) {
    let source = Bytes::copy_from_slice(data);
    let mut input = Decoder::new(&source, &source);
    let Ok(table) = input.table() else { return };
    let taken = data.len() - input.rest().len();
    assert!(values(&table) <= taken, "more values than octets");
    let written = encoded(|out| put_table(out, &table));
    assert_eq!(written.len(), taken);
    let again = Decoder::new(&written, &written).table().map(|table| encoded(|out| put_table(out, &table)));
    assert_eq!(again.as_deref(), Ok(&*written));
}
