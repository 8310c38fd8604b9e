//! The decoder: nom parsers over a payload, with zero-copy strings.

use bytes::Bytes;
use nom::Parser;
use nom::error::Error as NomError;
use nom::multi::length_data;
use nom::number::complete::{be_u8, be_u16, be_u32, be_u64};
use thiserror::Error;

use super::method::MethodId;
use super::primitive::{ShortStr, Timestamp};
use super::table::{FieldTable, parse_table_body};

/// How deep tables and arrays may nest. `RabbitMQ` has no limit of its own; this one keeps a hostile
/// table from overflowing the stack, in decoding as in dropping, comparing or printing it.
pub(crate) const MAX_NESTING: usize = 64;

/// Why a payload could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A value, or the length that it claims, goes beyond its frame or table.
    #[error("a value ends beyond its frame or table")]
    Truncated,
    /// A table or array holds a value with a type tag that `RabbitMQ` does not know.
    #[error("unknown field type tag 0x{0:02x}")]
    UnknownTag(u8),
    /// Tables and arrays are nested more than 64 deep.
    #[error("tables are nested more than {MAX_NESTING} deep")]
    TooDeep,
    /// No such class and method.
    #[error("unknown method {},{} (class, method)", .0.class, .0.method)]
    UnknownMethod(MethodId),
}

impl DecodeError {
    /// The error for a pair of class and method that the specification does not know.
    pub const fn unknown_method(id: MethodId) -> Self {
        Self::UnknownMethod(id)
    }
}

/// Reads primitives from the front of a payload. Strings share the payload's buffer, or are copied out of it.
#[derive(Debug)]
pub struct Decoder<'a> {
    /// The buffer that strings share; `None` if they are copied.
    source: Option<&'a Bytes>,
    input: &'a [u8],
    depth: usize,
}

/// What the parsers run on.
pub(crate) type Input<'a> = &'a [u8];

impl<'a> Decoder<'a> {
    /// A decoder for `input`, which lies in `source`. Strings share `source` and keep it alive.
    ///
    /// # Panics
    /// Reading a string panics if `input` is not a part of `source`.
    pub const fn new(source: &'a Bytes, input: &'a [u8]) -> Self {
        Self { source: Some(source), input, depth: 0 }
    }

    /// A decoder whose strings are copies. What is kept for long should not keep a whole read buffer alive.
    pub const fn copying(input: &'a [u8]) -> Self {
        Self { source: None, input, depth: 0 }
    }

    /// What has not been read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.input
    }

    /// One octet.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] at the end of the input; so for every method here.
    pub fn octet(&mut self) -> Result<u8, DecodeError> {
        self.parse(be_u8)
    }

    /// Up to eight packed bits, the first in the lowest.
    ///
    /// # Errors
    /// At the end of the input.
    pub fn bits(&mut self) -> Result<u8, DecodeError> {
        self.octet()
    }

    /// Two octets.
    ///
    /// # Errors
    /// At the end of the input.
    pub fn short(&mut self) -> Result<u16, DecodeError> {
        self.parse(be_u16)
    }

    /// Four octets.
    ///
    /// # Errors
    /// At the end of the input.
    pub fn long(&mut self) -> Result<u32, DecodeError> {
        self.parse(be_u32)
    }

    /// Eight octets.
    ///
    /// # Errors
    /// At the end of the input.
    pub fn longlong(&mut self) -> Result<u64, DecodeError> {
        self.parse(be_u64)
    }

    /// A string of at most 255 bytes.
    ///
    /// # Errors
    /// When it ends beyond the input.
    pub fn short_str(&mut self) -> Result<ShortStr, DecodeError> {
        let bytes = self.parse(length_data(be_u8))?;
        // a length octet cannot say more than 255
        ShortStr::try_from(self.take(bytes)).map_err(|_| DecodeError::Truncated)
    }

    /// A string whose length has four octets; bytes, not necessarily text.
    ///
    /// # Errors
    /// When it ends beyond the input.
    pub fn long_str(&mut self) -> Result<Bytes, DecodeError> {
        let bytes = self.parse(length_data(be_u32))?;
        Ok(self.take(bytes))
    }

    /// A part of the input, shared or copied.
    fn take(&self, bytes: &[u8]) -> Bytes {
        self.source.map_or_else(|| Bytes::copy_from_slice(bytes), |source| source.slice_ref(bytes))
    }

    /// Seconds since the epoch.
    ///
    /// # Errors
    /// At the end of the input.
    pub fn timestamp(&mut self) -> Result<Timestamp, DecodeError> {
        self.longlong().map(Timestamp)
    }

    /// A field table.
    ///
    /// # Errors
    /// When it ends beyond the input, nests too deep or holds an unknown type tag.
    pub fn table(&mut self) -> Result<FieldTable, DecodeError> {
        self.nested(parse_table_body)
    }

    /// Reads a length of four octets and runs `body` on just that many bytes, one level deeper.
    pub(crate) fn nested<T>(
        &mut self,
        body: impl FnOnce(&mut Decoder<'a>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let input = self.parse(length_data(be_u32))?;
        if self.depth >= MAX_NESTING {
            return Err(DecodeError::TooDeep);
        }
        body(&mut Decoder { source: self.source, input, depth: self.depth + 1 })
    }

    /// Runs a nom parser on what is left.
    pub(crate) fn parse<P, T>(&mut self, mut parser: P) -> Result<T, DecodeError>
    where
        P: Parser<Input<'a>, Output = T, Error = NomError<Input<'a>>>,
    {
        match parser.parse(self.input) {
            Ok((rest, value)) => {
                self.input = rest;
                Ok(value)
            }
            Err(_) => Err(DecodeError::Truncated),
        }
    }
}
