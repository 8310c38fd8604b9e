//! Routing keys of messages.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use crate::codec::ShortStr;

/// A routing key to publish with: at most 255 bytes. Borrowed keys cost nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct RoutingKey<'a>(Key<'a>);

#[derive(Clone, PartialEq, Eq)]
enum Key<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

impl RoutingKey<'_> {
    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Key::Borrowed(key) => key,
            Key::Owned(key) => key,
        }
    }

    /// One that borrows nothing.
    pub(crate) fn detach(&self) -> RoutingKey<'static> {
        RoutingKey(Key::Owned(match &self.0 {
            Key::Borrowed(key) => Bytes::copy_from_slice(key),
            Key::Owned(key) => key.clone(),
        }))
    }
}

impl fmt::Debug for RoutingKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.as_bytes()), f)
    }
}

impl<'a> From<&'a str> for RoutingKey<'a> {
    #[inline]
    fn from(key: &'a str) -> Self {
        Self(Key::Borrowed(key.as_bytes()))
    }
}

impl<'a> From<&'a String> for RoutingKey<'a> {
    #[inline]
    fn from(key: &'a String) -> Self {
        Self(Key::Borrowed(key.as_bytes()))
    }
}

impl<'a> From<&'a [u8]> for RoutingKey<'a> {
    #[inline]
    fn from(key: &'a [u8]) -> Self {
        Self(Key::Borrowed(key))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for RoutingKey<'a> {
    #[inline]
    fn from(key: &'a [u8; N]) -> Self {
        key.as_slice().into()
    }
}

impl<'a> From<&'a ShortStr> for RoutingKey<'a> {
    #[inline]
    fn from(key: &'a ShortStr) -> Self {
        Self(Key::Borrowed(key.as_bytes()))
    }
}

impl From<String> for RoutingKey<'_> {
    #[inline]
    fn from(key: String) -> Self {
        Self(Key::Owned(key.into()))
    }
}

impl From<ShortStr> for RoutingKey<'_> {
    #[inline]
    fn from(key: ShortStr) -> Self {
        Self(Key::Owned(key.into_bytes()))
    }
}

impl<'a> From<Cow<'a, str>> for RoutingKey<'a> {
    #[inline]
    fn from(key: Cow<'a, str>) -> Self {
        match key {
            Cow::Borrowed(key) => key.into(),
            Cow::Owned(key) => key.into(),
        }
    }
}

impl<'a> From<&'a Cow<'_, str>> for RoutingKey<'a> {
    #[inline]
    fn from(key: &'a Cow<'_, str>) -> Self {
        Self(Key::Borrowed(key.as_bytes()))
    }
}
