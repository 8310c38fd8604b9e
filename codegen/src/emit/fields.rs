//! Fields of methods and properties: their Rust types, how they are encoded and decoded.

use super::{doc, lines};
use crate::names;
use crate::spec::{Field, Type};

/// How many bits share an octet.
const BITS: usize = 8;

/// What Rust calls the type.
pub(super) fn rust_type(kind: Type) -> &'static str {
    match kind {
        Type::Bit => "bool",
        Type::Octet => "u8",
        Type::Short => "u16",
        Type::Long => "u32",
        Type::LongLong => "u64",
        Type::ShortStr => "ShortStr",
        Type::LongStr => "Bytes",
        Type::Timestamp => "Timestamp",
        Type::Table => "FieldTable",
    }
}

/// The function that appends a value; bits are appended by the octet.
pub(super) fn put_function(kind: Type) -> &'static str {
    match kind {
        Type::Bit | Type::Octet => "put_octet",
        Type::Short => "put_short",
        Type::Long => "put_long",
        Type::LongLong => "put_longlong",
        Type::ShortStr => "put_short_str",
        Type::LongStr => "put_long_str",
        Type::Timestamp => "put_timestamp",
        Type::Table => "put_table",
    }
}

/// The method of the decoder that reads a value; bits are read by the octet.
pub(super) fn get_method(kind: Type) -> &'static str {
    match kind {
        Type::Bit => "bits",
        Type::Octet => "octet",
        Type::Short => "short",
        Type::Long => "long",
        Type::LongLong => "longlong",
        Type::ShortStr => "short_str",
        Type::LongStr => "long_str",
        Type::Timestamp => "timestamp",
        Type::Table => "table",
    }
}

/// Whether values are appended by reference.
pub(super) fn by_reference(kind: Type) -> bool {
    matches!(kind, Type::ShortStr | Type::LongStr | Type::Table)
}

/// What is sent for a reserved field.
fn empty(kind: Type) -> &'static str {
    match kind {
        Type::Bit | Type::Octet | Type::Short | Type::Long | Type::LongLong => "0",
        Type::ShortStr => "&ShortStr::default()",
        Type::LongStr => "&Bytes::new()",
        Type::Timestamp => "Timestamp(0)",
        Type::Table => "&FieldTable::default()",
    }
}

/// The fields of a struct.
pub(super) fn declarations<'a>(of: &str, fields: impl IntoIterator<Item = &'a Field>) -> String {
    lines(fields, |field| {
        let doc = doc(field.doc.as_ref(), &format!("Field `{}` of `{of}`.", field.name));
        format!("{doc}\npub {}: {},", names::field(&field.name), rust_type(field.kind))
    })
}

/// The statements that append all fields of `self`.
pub(super) fn encode(fields: &[Field]) -> String {
    lines(octet_runs(fields), |run| match run {
        [field] if field.kind != Type::Bit => encode_one(field),
        bits => encode_bits(bits),
    })
}

fn encode_one(field: &Field) -> String {
    let put = put_function(field.kind);
    let name = names::field(&field.name);
    match (field.reserved, by_reference(field.kind)) {
        (true, _) => format!("{put}(out, {}); // {}", empty(field.kind), field.name),
        (false, true) => format!("{put}(out, &self.{name});"),
        (false, false) => format!("{put}(out, self.{name});"),
    }
}

fn encode_bits(bits: &[Field]) -> String {
    let terms: Vec<_> = bits
        .iter()
        .enumerate()
        .filter(|(_, field)| !field.reserved)
        .map(|(shift, field)| match (shift, names::field(&field.name)) {
            (0, name) => format!("u8::from(self.{name})"),
            (shift, name) => format!("(u8::from(self.{name}) << {shift})"),
        })
        .collect();
    let octet = if terms.is_empty() { "0".to_owned() } else { terms.join(" | ") };
    format!("put_octet(out, {octet});{}", reserved_note(bits))
}

/// The statements that read all fields into variables of their names.
pub(super) fn decode(fields: &[Field]) -> String {
    lines(octet_runs(fields), |run| match run {
        [field] if field.kind != Type::Bit => decode_one(field),
        bits => decode_bits(bits),
    })
}

fn decode_one(field: &Field) -> String {
    let get = get_method(field.kind);
    if field.reserved {
        format!("input.{get}()?; // {}", field.name)
    } else {
        format!("let {} = input.{get}()?;", names::field(&field.name))
    }
}

fn decode_bits(bits: &[Field]) -> String {
    let used: Vec<_> = bits.iter().zip(0..BITS).filter(|(field, _)| !field.reserved).collect();
    if used.is_empty() {
        return format!("input.bits()?;{}", reserved_note(bits));
    }
    let each = lines(used, |(field, shift)| {
        format!("let {} = bits & {:#04x} != 0;", names::field(&field.name), 1 << shift)
    });
    format!("let bits = input.bits()?;{}\n{each}", reserved_note(bits))
}

/// A comment that names the reserved ones among bits.
fn reserved_note(bits: &[Field]) -> String {
    let names: Vec<_> = bits.iter().filter(|field| field.reserved).map(|field| field.name.as_str()).collect();
    if names.is_empty() { String::new() } else { format!(" // {}", names.join(", ")) }
}

/// Up to eight consecutive bits together, every other field alone.
fn octet_runs(fields: &[Field]) -> impl Iterator<Item = &[Field]> {
    let both_bits = |a: &Field, b: &Field| a.kind == Type::Bit && b.kind == Type::Bit;
    fields.chunk_by(both_bits).flat_map(|run| run.chunks(BITS))
}
