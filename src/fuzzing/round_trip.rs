//! What the targets that read and write payloads share.

use bytes::Bytes;

use crate::codec::{FieldTable, FieldValue};

/// The octets that `put` appends.
pub(super) fn encoded(put: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::new();
    put(&mut out);
    out.into()
}

/// How many values a table holds, at any depth.
pub(super) fn values(table: &FieldTable) -> usize {
    fn of(value: &FieldValue) -> usize {
        1 + match value {
            FieldValue::Table(table) => values(table),
            FieldValue::Array(values) => values.iter().map(of).sum(),
            _ => 0,
        }
    }
    table.iter().map(|(_, value)| of(value)).sum()
}
