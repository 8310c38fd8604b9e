//! Returned messages, and how one is recognised.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;

use crate::codec::content::decode_properties;
use crate::codec::{DecodeError, Properties, ShortStr};

/// A message that came back in `basic.return`.
#[derive(Clone, PartialEq)]
pub(crate) struct Returned {
    pub code: u16,
    pub text: ShortStr,
    pub exchange: ShortStr,
    pub routing_key: ShortStr,
    /// Property flags and properties, as they came.
    pub properties: Bytes,
    pub body: Bytes,
}

/// What tells mandatory messages on one channel apart: exchange, routing key, message id, correlation
/// id and body. Messages that share all of these are alike to the user too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) fn new(
        exchange: &[u8],
        routing_key: &[u8],
        properties: Option<&Properties>,
        body: &[u8],
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        exchange.hash(&mut hasher);
        routing_key.hash(&mut hasher);
        let ids = properties.map(|properties| (&properties.message_id, &properties.correlation_id));
        ids.unwrap_or((&None, &None)).hash(&mut hasher);
        body.hash(&mut hasher);
        Self(hasher.finish())
    }
}

impl Returned {
    /// The properties.
    pub(crate) fn properties(&self) -> Result<Properties, DecodeError> {
        decode_properties(&self.properties)
    }

    /// What its publish is recognised by. Unreadable properties count as none: no publish of ours has such.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let properties = self.properties().unwrap_or_default();
        Fingerprint::new(self.exchange.as_bytes(), self.routing_key.as_bytes(), Some(&properties), &self.body)
    }
}

impl fmt::Debug for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Returned")
            .field("code", &self.code)
            .field("text", &self.text)
            .field("exchange", &self.exchange)
            .field("routing_key", &self.routing_key)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish_non_exhaustive()
    }
}
