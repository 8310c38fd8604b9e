//! A message that has arrived, read only as far as routing needs.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::codec::content::{PROPERTIES_AT, decode_properties};
use crate::codec::frame::Frame;
use crate::codec::generated::basic;
use crate::codec::{Arguments, DecodeError, Properties};

/// `basic.deliver` or `basic.get-ok` with its content. Names and properties are read when asked for.
///
/// ```text
/// deliver | class method | tag-len tag | delivery-tag | redelivered | ex-len exchange | key-len key |
/// get-ok  | class method |             | delivery-tag | redelivered | ex-len exchange | key-len key | count |
/// ```
///
/// Usually all frames of a message arrive in one read. Then a single share of that buffer holds method,
/// properties and body, and the delivery costs one reference count. Of every other message properties and body stand
/// apart.
#[derive(Clone)]
pub(crate) struct Delivery {
    /// The delivery tag.
    pub tag: u64,
    /// From the method's payload on, at least as far as the parts that do not stand apart. Its arguments were
    /// checked.
    buffer: Bytes,
    /// Property flags and properties, in `buffer`.
    properties: Range<u32>,
    /// In `buffer`.
    body: Range<u32>,
    apart: Option<Box<Apart>>,
}

/// The parts of a message that did not come whole in one read.
#[derive(Clone, Default)]
struct Apart {
    properties: Bytes,
    body: Bytes,
    /// The size of a body that was left out.
    too_large: Option<u64>,
}

/// The header that tells where in its stream a message stands, and the argument that tells a consumer where to begin.
pub(crate) const STREAM_OFFSET: &str = "x-stream-offset";

/// The octets of class and method.
const ID: usize = 4;
/// The octets of delivery tag and redelivered.
const FIXED: usize = 9;
/// The most octets of a payload that mean something: three names of 255 octets each, and the message count.
const ARGUMENTS_MAX: usize = ID + FIXED + 3 * 256 + 4;
/// Where the last octet of class and method stands, and what it is in `get-ok`.
const METHOD_AT: usize = ID - 1;
const GET_OK: u8 = basic::GetOk::ID.method.to_be_bytes()[1];

/// The consumer tag of a `basic.deliver` with this payload.
#[inline]
pub(crate) fn consumer_tag(payload: &[u8]) -> Option<&[u8]> {
    name(payload, ID)
}

impl Delivery {
    /// A `basic.deliver` frame with all of its content; `None` if something is wrong.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "it is made in its place in the batch: a copy costs a tenth of the rate"
    )]
    pub(crate) fn whole(frame: &Frame<'_>, header: &Frame<'_>, body: Option<&Frame<'_>>) -> Option<Self> {
        let tag = check(frame.payload).ok()?;
        let buffer = frame.share_from();
        let properties = within(&buffer, header.payload.get(PROPERTIES_AT..)?)?;
        let body = match body {
            Some(body) => within(&buffer, body.payload)?,
            None => 0..0,
        };
        Some(Self { tag, buffer, properties, body, apart: None })
    }

    /// Reads a `basic.deliver` or `basic.get-ok` frame; the content comes later, perhaps never: so names and
    /// properties are copied, and keep no read buffer alive.
    pub(crate) fn begin(frame: &Frame<'_>) -> Result<Self, DecodeError> {
        let tag = check(frame.payload)?;
        let arguments = frame.payload.len().min(ARGUMENTS_MAX);
        let buffer = Bytes::copy_from_slice(frame.payload.get(..arguments).unwrap_or_default());
        Ok(Self { tag, buffer, properties: 0..0, body: 0..0, apart: None })
    }

    /// The header has come.
    pub(crate) fn set_properties(&mut self, frame: &Frame<'_>) {
        let properties = frame.payload.get(PROPERTIES_AT..).unwrap_or_default();
        self.apart().properties = Bytes::copy_from_slice(properties);
    }

    /// The body has come: all of it in one frame, or gathered from several.
    pub(crate) fn set_body(&mut self, body: Bytes) {
        self.apart().body = body;
    }

    /// The body has so many bytes, more than the limit, and is left out.
    pub(crate) fn set_too_large(&mut self, bytes: u64) {
        self.apart().too_large = Some(bytes);
    }

    /// How many bytes the body has, if that is more than the limit, and it was left out.
    #[inline]
    pub(crate) fn too_large(&self) -> Option<u64> {
        self.apart.as_deref().and_then(|apart| apart.too_large)
    }

    fn apart(&mut self) -> &mut Apart {
        self.apart.get_or_insert_default()
    }

    /// The consumer that it is for; empty for `get-ok`.
    pub(crate) fn consumer_tag(&self) -> &[u8] {
        self.buffer.get(ID + 1..names_at(&self.buffer) - FIXED).unwrap_or_default()
    }

    /// Whether it was delivered before.
    pub(crate) fn redelivered(&self) -> bool {
        self.buffer.get(names_at(&self.buffer) - 1).is_some_and(|bits| bits & 1 != 0)
    }

    /// The exchange that it was published to.
    #[inline]
    pub(crate) fn exchange(&self) -> &[u8] {
        name(&self.buffer, names_at(&self.buffer)).unwrap_or_default()
    }

    /// The key that it was published with.
    #[inline]
    pub(crate) fn routing_key(&self) -> &[u8] {
        name(&self.buffer, self.key_at()).unwrap_or_default()
    }

    /// How many messages stay in the queue; 0 for `basic.deliver`.
    pub(crate) fn message_count(&self) -> u32 {
        if self.buffer.get(METHOD_AT) != Some(&GET_OK) {
            return 0;
        }
        let count = self.buffer.get(self.key_end()..).and_then(<[u8]>::first_chunk);
        count.map_or(0, |count| u32::from_be_bytes(*count))
    }

    #[inline]
    fn key_at(&self) -> usize {
        names_at(&self.buffer) + 1 + self.exchange().len()
    }

    #[inline]
    fn key_end(&self) -> usize {
        self.key_at() + 1 + self.routing_key().len()
    }

    /// The body.
    pub(crate) fn body(&self) -> &[u8] {
        match self.apart.as_deref() {
            Some(apart) => &apart.body,
            None => self.buffer.get(usizes(&self.body)).unwrap_or_default(),
        }
    }

    /// The body, sharing the buffer that it was read into.
    pub(crate) fn share_body(&self) -> Bytes {
        match self.apart.as_deref() {
            Some(apart) => apart.body.clone(),
            None => self.buffer.slice(usizes(&self.body)),
        }
    }

    /// Property flags and properties, as they came.
    fn raw_properties(&self) -> Bytes {
        match self.apart.as_deref() {
            Some(apart) => apart.properties.clone(),
            None => self.buffer.slice(usizes(&self.properties)),
        }
    }

    /// Reads the properties.
    pub(crate) fn properties(&self) -> Result<Properties, DecodeError> {
        decode_properties(&self.raw_properties())
    }

    /// Whether it comes from a stream. `RabbitMQ` delivers those by the chunk, also beyond the prefetch.
    #[cold]
    pub(crate) fn is_of_stream(&self) -> bool {
        self.stream_offset().is_some()
    }

    /// Where in a stream it stands, if it comes from one.
    #[cold]
    pub(crate) fn stream_offset(&self) -> Option<i64> {
        self.properties().ok()?.headers?.get(STREAM_OFFSET)?.as_integer()
    }

    /// What it weighs in a bound on memory, in bytes: its frames, and the value itself.
    #[inline]
    pub(crate) fn weight(&self) -> usize {
        size_of::<Self>()
            + self.apart.as_deref().map_or_else(|| self.end(), |apart| apart.weight(&self.buffer))
    }

    /// Where its last octet stands in `buffer`, if nothing stands apart.
    #[inline]
    fn end(&self) -> usize {
        self.body.end.max(self.properties.end) as usize
    }

    /// Copies everything out of the buffer that it was read into.
    pub(crate) fn detach(&mut self) {
        match &mut self.apart {
            // the rest was copied when it came
            Some(apart) => apart.body = Bytes::copy_from_slice(&apart.body),
            None => {
                self.buffer = Bytes::copy_from_slice(self.buffer.get(..self.end()).unwrap_or_default());
            }
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("tag", &self.tag)
            .field("body", &format_args!("{} bytes", self.body().len()))
            .finish_non_exhaustive()
    }
}

impl Apart {
    #[cold]
    fn weight(&self, names: &Bytes) -> usize {
        size_of::<Self>() + names.len() + self.properties.len() + self.body.len()
    }
}

/// Where `part` lies in `buffer`, if it does.
#[inline]
fn within(buffer: &Bytes, part: &[u8]) -> Option<Range<u32>> {
    let start = (part.as_ptr() as usize).checked_sub(buffer.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    if end > buffer.len() {
        return None;
    }
    Some(u32::try_from(start).ok()?..u32::try_from(end).ok()?)
}

fn usizes(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

/// Checks the arguments of a `basic.deliver` or `basic.get-ok`, and reads the delivery tag.
#[inline]
fn check(payload: &[u8]) -> Result<u64, DecodeError> {
    let names_at = names_at(payload);
    let fixed = payload.get(names_at - FIXED..names_at).ok_or(DecodeError::Truncated)?;
    let tag = fixed.first_chunk().ok_or(DecodeError::Truncated)?;
    let exchange = name(payload, names_at).ok_or(DecodeError::Truncated)?;
    let key_at = names_at + 1 + exchange.len();
    let key = name(payload, key_at).ok_or(DecodeError::Truncated)?;
    let count = if payload.get(METHOD_AT) == Some(&GET_OK) { size_of::<u32>() } else { 0 };
    if payload.len() < key_at + 1 + key.len() + count {
        return Err(DecodeError::Truncated);
    }
    Ok(u64::from_be_bytes(*tag))
}

/// Where the names of exchange and routing key begin: behind the consumer tag, if there is one, and what is fixed.
#[inline]
fn names_at(payload: &[u8]) -> usize {
    match (payload.get(METHOD_AT), payload.get(ID)) {
        (Some(&GET_OK), _) => ID + FIXED,
        (_, Some(tag)) => ID + 1 + usize::from(*tag) + FIXED,
        (_, None) => ID + 1 + FIXED,
    }
}

/// The name whose length octet stands at `at`.
#[inline]
fn name(payload: &[u8], at: usize) -> Option<&[u8]> {
    let (length, rest) = payload.get(at..)?.split_first()?;
    rest.get(..usize::from(*length))
}
