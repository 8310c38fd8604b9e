//! The codec against the protocol's test vectors, against its table of methods, and on input of any kind.

mod fields;
mod methods;
mod properties;
mod vectors;
mod wire;

use bytes::Bytes;

use super::content::decode_properties;
use super::table::FieldValue;
use super::{DecodeError, Decoder, FieldTable, Method, Properties};

/// Bytes from hexadecimal digits, with spaces anywhere.
fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// A table with its length before it.
fn table(bytes: &[u8]) -> Result<FieldTable, DecodeError> {
    let source = Bytes::copy_from_slice(bytes);
    Decoder::new(&source, &source).table()
}

/// A table from the octets of its pairs.
fn pairs(body: &[u8]) -> Result<FieldTable, DecodeError> {
    table(&wire::long_str(body))
}

/// The one value of a table, from its type tag and octets.
fn value(tagged: &[u8]) -> Result<FieldValue, DecodeError> {
    let table = pairs(&[b"\x01k", tagged].concat())?;
    assert_eq!(table.len(), 1);
    Ok(table.get("k").unwrap().clone())
}

fn method(payload: &[u8]) -> Result<Method, DecodeError> {
    let source = Bytes::copy_from_slice(payload);
    Method::from_payload(&source, &source)
}

fn properties(bytes: &[u8]) -> Result<Properties, DecodeError> {
    decode_properties(&Bytes::copy_from_slice(bytes))
}
