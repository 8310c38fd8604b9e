//! The header of a content, with its properties.

use bytes::{BufMut, Bytes};

use crate::codec::content::{ContentHeader as Fixed, PROPERTIES_AT, decode_properties};
use crate::codec::{DecodeError, Properties};

/// What stands between a method that carries a content and the content's body.
///
/// Wire layout of the payload (spec 4.2.6.1): class and weight in two octets each, the size of the body in eight, the
/// property flags in two, then the properties that are present.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ContentHeader {
    /// The class of the method before it: 60, which is `basic`. Others are not refused.
    pub class: u16,
    /// How many bytes of body the sender announces. They come in as many body frames as it takes; none if this is 0.
    pub body_size: u64,
    /// The properties of the message.
    pub properties: Properties,
}

impl ContentHeader {
    /// The header of a message of class `basic` with a body of this many bytes.
    pub const fn new(body_size: u64, properties: Properties) -> Self {
        Self { class: crate::codec::generated::basic::CLASS_ID, body_size, properties }
    }

    /// Reads the payload of a header frame. Strings share its buffer. The weight, which has no meaning, and octets behind
    /// the properties are ignored, as `RabbitMQ` does.
    ///
    /// # Errors
    /// When the payload ends too early, or holds a table that cannot be read. The body size of a header whose
    /// properties cannot be read stands in octets 4 to 11 all the same: the body that follows is not affected.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let Fixed { class, body_size } = Fixed::from_payload(payload)?;
        let properties = decode_properties(&payload.slice(PROPERTIES_AT..))?;
        Ok(Self { class, body_size, properties })
    }

    /// Appends the payload of a header frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(self.class);
        out.put_u16(0);
        out.put_u64(self.body_size);
        self.properties.encode(out);
    }
}
