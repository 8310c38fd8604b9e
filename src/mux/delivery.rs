//! A message that has arrived, read only as far as routing needs.

use bytes::{Buf, Bytes};

use crate::codec::content::decode_properties;
use crate::codec::{DecodeError, Properties};

/// `basic.deliver` or `basic.get-ok` with its content. Names and properties are read when asked for.
///
/// ```text
/// deliver  | class method | tag-len tag | delivery-tag | redelivered | ex-len exchange | key-len key |
/// get-ok   | class method |             | delivery-tag | redelivered | ex-len exchange | key-len key | count |
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// The delivery tag.
    pub tag: u64,
    pub redelivered: bool,
    /// How many messages stay in the queue; 0 for `basic.deliver`.
    pub message_count: u32,
    /// Where the consumer tag ends; 4 where there is none.
    tag_end: u16,
    /// Where the exchange's name ends.
    exchange_end: u16,
    /// Where the routing key ends.
    key_end: u16,
    method: Bytes,
    /// Property flags and properties, as they came.
    pub properties: Bytes,
    pub body: Bytes,
}

/// The octets of class and method.
const ID: u16 = 4;

impl Delivery {
    /// Reads a `basic.deliver` payload; the content comes later.
    pub(crate) fn deliver(method: Bytes) -> Result<Self, DecodeError> {
        let tag = method.get(usize::from(ID)).ok_or(DecodeError::Truncated)?;
        let tag_end = ID + 1 + u16::from(*tag);
        Self::parse(method, tag_end)
    }

    /// Reads a `basic.get-ok` payload; the content comes later.
    pub(crate) fn get_ok(method: Bytes) -> Result<Self, DecodeError> {
        let mut delivery = Self::parse(method, ID)?;
        let mut count = at(&delivery.method, delivery.key_end)?;
        if count.len() < 4 {
            return Err(DecodeError::Truncated);
        }
        delivery.message_count = count.get_u32();
        Ok(delivery)
    }

    fn parse(method: Bytes, tag_end: u16) -> Result<Self, DecodeError> {
        let mut fixed = at(&method, tag_end)?;
        if fixed.len() < 10 {
            return Err(DecodeError::Truncated);
        }
        let tag = fixed.get_u64();
        let redelivered = fixed.get_u8() & 1 != 0;
        let exchange_end = name_end(&method, tag_end + 9)?;
        let key_end = name_end(&method, exchange_end)?;
        Ok(Self {
            tag,
            redelivered,
            message_count: 0,
            tag_end,
            exchange_end,
            key_end,
            method,
            properties: Bytes::new(),
            body: Bytes::new(),
        })
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
        self.method.get(usize::from(length_at) + 1..usize::from(end)).unwrap_or_default()
    }

    /// Reads the properties.
    pub(crate) fn properties(&self) -> Result<Properties, DecodeError> {
        decode_properties(&self.properties)
    }

    /// What it weighs in a bound on memory, in bytes.
    pub(crate) fn weight(&self) -> usize {
        self.method.len() + self.properties.len() + self.body.len()
    }

    /// Copies everything out of the buffer that it was read into.
    pub(crate) fn detach(&mut self) {
        for part in [&mut self.method, &mut self.properties, &mut self.body] {
            *part = Bytes::copy_from_slice(part);
        }
    }
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
