//! A message that has arrived, read only as far as routing needs.

use std::ops::Range;

use bytes::{Buf, Bytes};

use crate::codec::content::decode_properties;
use crate::codec::frame::Frame;
use crate::codec::{DecodeError, Properties};

/// `basic.deliver` or `basic.get-ok` with its content. Names and properties are read when asked for.
///
/// ```text
/// deliver | class method | tag-len tag | delivery-tag | redelivered | ex-len exchange | key-len key |
/// get-ok  | class method |             | delivery-tag | redelivered | ex-len exchange | key-len key | count |
/// ```
///
/// Usually all frames of a message arrive in one read. Then a single share of that buffer holds method,
/// properties and body, and the delivery costs one reference count; a part that arrived in another read,
/// or was gathered from several frames, stands apart.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// The delivery tag.
    pub tag: u64,
    /// How many messages stay in the queue; 0 for `basic.deliver`.
    pub message_count: u32,
    pub redelivered: bool,
    /// Where the consumer tag ends; 4 where there is none.
    tag_end: u16,
    /// Where the exchange's name ends.
    exchange_end: u16,
    /// Where the routing key ends.
    key_end: u16,
    /// From the method's payload on, at least as far as the parts that do not stand apart.
    buffer: Bytes,
    /// Property flags and properties, in `buffer`.
    properties: Range<u32>,
    /// In `buffer`.
    body: Range<u32>,
    apart: Option<Box<Apart>>,
}

/// Parts that are not in the buffer of the method.
#[derive(Clone, Debug, Default)]
struct Apart {
    properties: Option<Bytes>,
    body: Option<Bytes>,
}

/// The octets of class and method.
const ID: u16 = 4;

impl Delivery {
    /// Reads a `basic.deliver` frame; the content comes later.
    pub(crate) fn deliver(frame: &Frame<'_>) -> Result<Self, DecodeError> {
        let tag = frame.payload.get(usize::from(ID)).ok_or(DecodeError::Truncated)?;
        Self::parse(frame, ID + 1 + u16::from(*tag))
    }

    /// Reads a `basic.get-ok` frame; the content comes later.
    pub(crate) fn get_ok(frame: &Frame<'_>) -> Result<Self, DecodeError> {
        let mut delivery = Self::parse(frame, ID)?;
        let mut count = at(frame.payload, delivery.key_end)?;
        if count.len() < 4 {
            return Err(DecodeError::Truncated);
        }
        delivery.message_count = count.get_u32();
        Ok(delivery)
    }

    fn parse(frame: &Frame<'_>, tag_end: u16) -> Result<Self, DecodeError> {
        let mut fixed = at(frame.payload, tag_end)?;
        if fixed.len() < 10 {
            return Err(DecodeError::Truncated);
        }
        let tag = fixed.get_u64();
        let redelivered = fixed.get_u8() & 1 != 0;
        let exchange_end = name_end(frame.payload, tag_end + 9)?;
        let key_end = name_end(frame.payload, exchange_end)?;
        Ok(Self {
            tag,
            message_count: 0,
            redelivered,
            tag_end,
            exchange_end,
            key_end,
            buffer: frame.share_from(),
            properties: 0..0,
            body: 0..0,
            apart: None,
        })
    }

    /// The properties have come: they are the last octets of `frame` from `from` on.
    pub(crate) fn set_properties(&mut self, frame: &Frame<'_>, from: usize) {
        let properties = frame.payload.get(from..).unwrap_or_default();
        match within(&self.buffer, properties) {
            Some(range) => self.properties = range,
            None => self.apart().properties = Some(frame.source.slice_ref(properties)),
        }
    }

    /// All of the body has come in one frame.
    pub(crate) fn set_body(&mut self, frame: &Frame<'_>) {
        match within(&self.buffer, frame.payload) {
            Some(range) => self.body = range,
            None => self.apart().body = Some(frame.share()),
        }
    }

    /// The body was gathered from several frames.
    pub(crate) fn set_gathered(&mut self, body: Bytes) {
        self.apart().body = Some(body);
    }

    fn apart(&mut self) -> &mut Apart {
        self.apart.get_or_insert_default()
    }

    /// The consumer that it is for; empty for `get-ok`.
    pub(crate) fn consumer_tag(&self) -> &[u8] {
        self.name(ID, self.tag_end)
    }

    /// The exchange that it was published to.
    pub(crate) fn exchange(&self) -> &[u8] {
        self.name(self.tag_end + 9, self.exchange_end)
    }

    /// The key that it was published with.
    pub(crate) fn routing_key(&self) -> &[u8] {
        self.name(self.exchange_end, self.key_end)
    }

    /// The name between a length octet and `end`; both were checked when the payload was parsed.
    fn name(&self, length_at: u16, end: u16) -> &[u8] {
        self.buffer.get(usize::from(length_at) + 1..usize::from(end)).unwrap_or_default()
    }

    /// The body.
    pub(crate) fn body(&self) -> &[u8] {
        match self.apart.as_deref() {
            Some(Apart { body: Some(body), .. }) => body,
            _ => self.buffer.get(usizes(&self.body)).unwrap_or_default(),
        }
    }

    /// The body, sharing the buffer that it was read into.
    pub(crate) fn share_body(&self) -> Bytes {
        match self.apart.as_deref() {
            Some(Apart { body: Some(body), .. }) => body.clone(),
            _ => self.buffer.slice(usizes(&self.body)),
        }
    }

    /// Property flags and properties, as they came.
    fn raw_properties(&self) -> Bytes {
        match self.apart.as_deref() {
            Some(Apart { properties: Some(properties), .. }) => properties.clone(),
            _ => self.buffer.slice(usizes(&self.properties)),
        }
    }

    /// Reads the properties.
    pub(crate) fn properties(&self) -> Result<Properties, DecodeError> {
        decode_properties(&self.raw_properties())
    }

    /// What it weighs in a bound on memory, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let properties = match self.apart.as_deref() {
            Some(Apart { properties: Some(properties), .. }) => properties.len(),
            _ => usizes(&self.properties).len(),
        };
        size_of::<Self>() + usize::from(self.key_end) + properties + self.body().len()
    }

    /// Copies everything out of the buffer that it was read into.
    pub(crate) fn detach(&mut self) {
        let (properties, body) = (self.raw_properties(), self.share_body());
        self.buffer =
            Bytes::copy_from_slice(self.buffer.get(..usize::from(self.key_end)).unwrap_or_default());
        self.apart = Some(Box::new(Apart {
            properties: Some(Bytes::copy_from_slice(&properties)),
            body: Some(Bytes::copy_from_slice(&body)),
        }));
    }
}

/// Where `part` lies in `buffer`, if it does.
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

fn at(payload: &[u8], from: u16) -> Result<&[u8], DecodeError> {
    payload.get(usize::from(from)..).ok_or(DecodeError::Truncated)
}

/// Where the name ends whose length octet stands at `length_at`.
fn name_end(payload: &[u8], length_at: u16) -> Result<u16, DecodeError> {
    let length = at(payload, length_at)?.first().ok_or(DecodeError::Truncated)?;
    let end = length_at + 1 + u16::from(*length);
    at(payload, end).map(|_| end)
}
