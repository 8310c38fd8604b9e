//! Field tables and their values, with the type tags as `RabbitMQ` speaks them.

use std::convert::Infallible;
use std::fmt;
use std::time::SystemTime;

use bytes::{BufMut, Bytes};
use nom::Parser;
use nom::number::complete::{be_f32, be_f64, be_i8, be_i16, be_i32, be_i64, be_u8, be_u16, be_u32};
use thiserror::Error;

use super::decode::{DecodeError, Decoder};
use super::encode::{put_length_of, put_long_str, put_short_str, put_table};
use super::primitive::{ShortStr, Timestamp, TooLong};

/// A value in a [`FieldTable`] or an array.
///
/// The comment of each variant gives its type tag. The tags follow `RabbitMQ`, which differs from the
/// specification's text: `s` is a 16-bit integer, `l` and `L` are both signed, `x` is a byte array, and
/// there is no unsigned 64-bit integer.
///
/// `From` makes one of each type that a variant holds, and of texts and [`SystemTime`]. `u64`, `usize`, `isize` and `i128` become an
/// [`I64`](Self::I64) with `TryFrom`, which fails beyond that; methods such as
/// [`Message::header`](crate::Message::header) take them, too.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FieldValue {
    /// `t`: a truth value in one octet.
    Bool(bool),
    /// `b`: a signed integer in one octet.
    I8(i8),
    /// `B`: an unsigned integer in one octet.
    U8(u8),
    /// `s`: a signed integer in two octets.
    I16(i16),
    /// `u`: an unsigned integer in two octets.
    U16(u16),
    /// `I`: a signed integer in four octets.
    I32(i32),
    /// `i`: an unsigned integer in four octets.
    U32(u32),
    /// `l`, and `L` when reading: a signed integer in eight octets.
    I64(i64),
    /// `f`: a floating-point number in four octets.
    F32(f32),
    /// `d`: a floating-point number in eight octets.
    F64(f64),
    /// `D`: a decimal number, `value` divided by ten to the power of `scale`.
    Decimal {
        /// How many digits stand behind the point.
        scale: u8,
        /// All digits, as one number.
        value: i32,
    },
    /// `S`: a string; bytes, usually but not necessarily UTF-8.
    LongStr(Bytes),
    /// `A`: a list of values.
    Array(Vec<FieldValue>),
    /// `T`: seconds since the Unix epoch.
    Timestamp(Timestamp),
    /// `F`: a table within the table.
    Table(FieldTable),
    /// `V`: no value.
    Void,
    /// `x`: a byte array.
    ByteArray(Bytes),
}

impl FieldValue {
    /// The number, if this is an integer of any width.
    pub fn as_integer(&self) -> Option<i64> {
        Some(match *self {
            Self::I8(value) => value.into(),
            Self::U8(value) => value.into(),
            Self::I16(value) => value.into(),
            Self::U16(value) => value.into(),
            Self::I32(value) => value.into(),
            Self::U32(value) => value.into(),
            Self::I64(value) => value,
            _ => return None,
        })
    }

    /// The text, if this is a string and UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::LongStr(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The bytes, if this is a string or a byte array.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match self {
            Self::LongStr(bytes) | Self::ByteArray(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// About how many bytes of memory it holds, beyond itself.
    #[cfg(feature = "test-broker")]
    fn weight(&self) -> usize {
        match self {
            Self::LongStr(bytes) | Self::ByteArray(bytes) => bytes.len(),
            Self::Array(values) => values.iter().map(|value| size_of::<Self>() + value.weight()).sum(),
            Self::Table(table) => table.weight(),
            _ => 0,
        }
    }

    /// The truth value, if this is one.
    pub const fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The table, if this is one.
    pub const fn as_table(&self) -> Option<&FieldTable> {
        match self {
            Self::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The elements, if this is an array.
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }
}

/// Makes `From` for the types that have one obvious variant.
macro_rules! from {
    ($($type:ty => $variant:ident),* $(,)?) => {$(
        impl From<$type> for FieldValue {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}

from! {
    bool => Bool, i8 => I8, u8 => U8, i16 => I16, u16 => U16, i32 => I32, u32 => U32, i64 => I64,
    f32 => F32, f64 => F64, String => LongStr, Vec<FieldValue> => Array,
    Timestamp => Timestamp, SystemTime => Timestamp, FieldTable => Table, Bytes => ByteArray,
    Vec<u8> => ByteArray,
}

impl From<&str> for FieldValue {
    fn from(text: &str) -> Self {
        Self::LongStr(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<&String> for FieldValue {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<&ShortStr> for FieldValue {
    fn from(name: &ShortStr) -> Self {
        Self::LongStr(Bytes::copy_from_slice(name.as_bytes()))
    }
}

/// The error for an integer that does not fit into an `i64`, the widest integer of AMQP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the integer {0} does not fit: AMQP's widest integer is a signed 64-bit one (i64)")]
pub struct IntegerOutOfRange(pub i128);

impl From<Infallible> for IntegerOutOfRange {
    /// So that [`FieldTable::insert`] also takes the values that always fit.
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Makes `TryFrom` for the integers that may not fit.
macro_rules! try_from {
    ($($type:ty),*) => {$(
        impl TryFrom<$type> for FieldValue {
            type Error = IntegerOutOfRange;

            /// An [`I64`](Self::I64).
            fn try_from(value: $type) -> Result<Self, IntegerOutOfRange> {
                // the largest of these types is `i128` itself, so the fallback is never used
                let wide = || i128::try_from(value).unwrap_or(i128::MAX);
                i64::try_from(value).map(Self::I64).map_err(|_| IntegerOutOfRange(wide()))
            }
        }
    )*};
}

try_from!(u64, usize, isize, i128);

/// Why a pair cannot stand in a [`FieldTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FieldError {
    /// The name has more than 255 bytes.
    #[error("the name of a field: {0}")]
    Name(TooLong),
    /// The value is an integer that AMQP has no type for.
    #[error(transparent)]
    Value(IntegerOutOfRange),
}

/// Pairs of a name and a value: message headers, arguments, properties of the peers.
///
/// Keeps its order. The wire allows a name twice; [`get`](Self::get) finds the last.
///
/// Wire layout: the length of all pairs in four octets, then for each pair the name as a short string,
/// a type tag and the value (spec 4.2.5.5).
#[derive(Clone, Default, PartialEq)]
pub struct FieldTable(Vec<(ShortStr, FieldValue)>);

impl FieldTable {
    /// A table without pairs.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The value of a name.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&FieldValue> {
        let name = name.as_ref();
        self.0.iter().rev().find(|(key, _)| key.as_bytes() == name).map(|(_, value)| value)
    }

    /// Sets the value of a name and returns the one that it had.
    ///
    /// # Errors
    /// If the name has more than 255 bytes, or the value is an integer that does not fit into an `i64`.
    pub fn insert(
        &mut self,
        name: impl TryInto<ShortStr, Error: Into<TooLong>>,
        value: impl TryInto<FieldValue, Error: Into<IntegerOutOfRange>>,
    ) -> Result<Option<FieldValue>, FieldError> {
        let name = name.try_into().map_err(|error| FieldError::Name(error.into()))?;
        let value = value.try_into().map_err(|error| FieldError::Value(error.into()))?;
        if let Some((_, old)) = self.0.iter_mut().rev().find(|(key, _)| *key == name) {
            return Ok(Some(std::mem::replace(old, value)));
        }
        self.0.push((name, value));
        Ok(None)
    }

    /// Takes a name and all its values out, and returns the last of them.
    pub fn remove(&mut self, name: impl AsRef<[u8]>) -> Option<FieldValue> {
        let name = name.as_ref();
        let mut removed = None;
        self.0.retain_mut(|(key, value)| {
            let keep = key.as_bytes() != name;
            if !keep {
                removed = Some(std::mem::replace(value, FieldValue::Void));
            }
            keep
        });
        removed
    }

    /// How many pairs it has.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no pairs.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a table, with its length before it, from the front of `source`. Strings share that buffer. Octets behind the
    /// table are ignored.
    ///
    /// # Errors
    /// When the table ends beyond `source`, nests more than 64 deep, or holds an unknown type tag.
    pub fn decode(source: &Bytes) -> Result<Self, DecodeError> {
        Decoder::new(source, source).table()
    }

    /// Appends the table, with its length before it.
    ///
    /// The length has four octets: of a table of 4 GiB or more it is wrong, and no frame holds one.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_table(out, self);
    }

    /// About how many bytes of memory it holds.
    #[cfg(feature = "test-broker")]
    pub(crate) fn weight(&self) -> usize {
        self.0
            .iter()
            .map(|(name, value)| size_of::<(ShortStr, FieldValue)>() + name.len() + value.weight())
            .sum()
    }

    /// The pairs in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&ShortStr, &FieldValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }
}

impl fmt::Debug for FieldTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a FieldTable {
    type Item = &'a (ShortStr, FieldValue);
    type IntoIter = std::slice::Iter<'a, (ShortStr, FieldValue)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl IntoIterator for FieldTable {
    type Item = (ShortStr, FieldValue);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl FromIterator<(ShortStr, FieldValue)> for FieldTable {
    /// Keeps every pair, also those with the same name.
    fn from_iter<I: IntoIterator<Item = (ShortStr, FieldValue)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl Extend<(ShortStr, FieldValue)> for FieldTable {
    fn extend<I: IntoIterator<Item = (ShortStr, FieldValue)>>(&mut self, pairs: I) {
        self.0.extend(pairs);
    }
}

/// Appends the pairs without the length before them. AMQPLAIN's response has this form.
pub(crate) fn put_table_body(out: &mut Vec<u8>, table: &FieldTable) {
    for (name, value) in table.iter() {
        put_short_str(out, name);
        put_value(out, value);
    }
}

fn put_value(out: &mut Vec<u8>, value: &FieldValue) {
    out.put_u8(tag(value));
    match value {
        FieldValue::Bool(value) => out.put_u8((*value).into()),
        FieldValue::I8(value) => out.put_i8(*value),
        FieldValue::U8(value) => out.put_u8(*value),
        FieldValue::I16(value) => out.put_i16(*value),
        FieldValue::U16(value) => out.put_u16(*value),
        FieldValue::I32(value) => out.put_i32(*value),
        FieldValue::U32(value) => out.put_u32(*value),
        FieldValue::I64(value) => out.put_i64(*value),
        FieldValue::F32(value) => out.put_f32(*value),
        FieldValue::F64(value) => out.put_f64(*value),
        FieldValue::Decimal { scale, value } => {
            out.put_u8(*scale);
            out.put_i32(*value);
        }
        FieldValue::LongStr(bytes) | FieldValue::ByteArray(bytes) => put_long_str(out, bytes),
        FieldValue::Array(values) => put_length_of(out, |out| {
            for value in values {
                put_value(out, value);
            }
        }),
        FieldValue::Timestamp(time) => out.put_u64(time.0),
        FieldValue::Table(table) => put_table(out, table),
        FieldValue::Void => {}
    }
}

const fn tag(value: &FieldValue) -> u8 {
    match value {
        FieldValue::Bool(_) => b't',
        FieldValue::I8(_) => b'b',
        FieldValue::U8(_) => b'B',
        FieldValue::I16(_) => b's',
        FieldValue::U16(_) => b'u',
        FieldValue::I32(_) => b'I',
        FieldValue::U32(_) => b'i',
        FieldValue::I64(_) => b'l',
        FieldValue::F32(_) => b'f',
        FieldValue::F64(_) => b'd',
        FieldValue::Decimal { .. } => b'D',
        FieldValue::LongStr(_) => b'S',
        FieldValue::Array(_) => b'A',
        FieldValue::Timestamp(_) => b'T',
        FieldValue::Table(_) => b'F',
        FieldValue::Void => b'V',
        FieldValue::ByteArray(_) => b'x',
    }
}

/// Reads pairs until the input is exhausted.
pub(crate) fn parse_table_body(input: &mut Decoder<'_>) -> Result<FieldTable, DecodeError> {
    let mut pairs = Vec::new();
    while !input.rest().is_empty() {
        pairs.push((input.short_str()?, parse_value(input)?));
    }
    Ok(FieldTable(pairs))
}

fn parse_array_body(input: &mut Decoder<'_>) -> Result<Vec<FieldValue>, DecodeError> {
    let mut values = Vec::new();
    while !input.rest().is_empty() {
        values.push(parse_value(input)?);
    }
    Ok(values)
}

fn parse_value(input: &mut Decoder<'_>) -> Result<FieldValue, DecodeError> {
    Ok(match input.octet()? {
        b't' => FieldValue::Bool(input.octet()? != 0),
        b'b' => FieldValue::I8(input.parse(be_i8)?),
        b'B' => FieldValue::U8(input.parse(be_u8)?),
        b's' => FieldValue::I16(input.parse(be_i16)?),
        b'u' => FieldValue::U16(input.parse(be_u16)?),
        b'I' => FieldValue::I32(input.parse(be_i32)?),
        b'i' => FieldValue::U32(input.parse(be_u32)?),
        b'l' | b'L' => FieldValue::I64(input.parse(be_i64)?),
        b'f' => FieldValue::F32(input.parse(be_f32)?),
        b'd' => FieldValue::F64(input.parse(be_f64)?),
        b'D' => {
            let (scale, value) = input.parse((be_u8, be_i32).map(|pair| pair))?;
            FieldValue::Decimal { scale, value }
        }
        b'S' => FieldValue::LongStr(input.long_str()?),
        b'A' => FieldValue::Array(input.nested(parse_array_body)?),
        b'T' => FieldValue::Timestamp(input.timestamp()?),
        b'F' => FieldValue::Table(input.table()?),
        b'V' => FieldValue::Void,
        b'x' => FieldValue::ByteArray(input.long_str()?),
        other => return Err(DecodeError::UnknownTag(other)),
    })
}
