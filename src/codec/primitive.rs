//! The primitive types that are more than a number: short strings and timestamps.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use thiserror::Error;

use super::peer_text::PeerText;

/// A name on the wire: at most 255 bytes, usually but not necessarily UTF-8.
///
/// Exchange, queue and routing key names, consumer tags, table keys and most properties are short
/// strings. `RabbitMQ` does not check that those which travel with a message are UTF-8, so neither
/// does this type. [`as_bytes`](Self::as_bytes) is exact. [`Display`](fmt::Display) and [`Debug`](fmt::Debug) are for people and safe for
/// a terminal or a log, whoever sent the text: they escape control characters, and replace what is not UTF-8.
///
/// It compares with `str`, `&str` and `String`, in both directions:
///
/// ```
/// # fn main() -> Result<(), lepus::TooLong> {
/// let name = lepus::ShortStr::try_from("jobs\n")?;
/// assert_eq!(name, "jobs\n");
/// assert_eq!(String::from("jobs\n"), name);
/// assert_eq!(name.to_string(), "jobs\\n");
/// # Ok(())
/// # }
/// ```
///
/// Wire layout: one length octet, then that many bytes (spec 4.2.5.3).
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShortStr(Bytes);

/// The error for a short string of more than 255 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a short string holds at most 255 bytes, this one has {length}")]
pub struct TooLong {
    /// How many bytes it has.
    pub length: usize,
}

impl From<Infallible> for TooLong {
    /// So that a [`ShortStr`] itself is taken wherever something that may be too long is.
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl ShortStr {
    /// The most bytes a short string can hold.
    pub const MAX: usize = 255;

    /// The empty string, which in many fields means "none" or "let the server choose".
    pub const fn empty() -> Self {
        Self(Bytes::new())
    }

    /// The exact bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The text; where it is not UTF-8, with replacement characters. Unlike [`Display`](fmt::Display), it has control
    /// characters as they came.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes it has; at most 255.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes, sharing the buffer that they are in.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// A copy that does not keep the buffer alive which it was read from.
    pub fn detach(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    fn new(bytes: Bytes) -> Result<Self, TooLong> {
        if bytes.len() > Self::MAX { Err(TooLong { length: bytes.len() }) } else { Ok(Self(bytes)) }
    }
}

impl TryFrom<Bytes> for ShortStr {
    type Error = TooLong;

    /// Takes the buffer without a copy.
    fn try_from(bytes: Bytes) -> Result<Self, TooLong> {
        Self::new(bytes)
    }
}

impl TryFrom<&[u8]> for ShortStr {
    type Error = TooLong;

    fn try_from(bytes: &[u8]) -> Result<Self, TooLong> {
        if bytes.len() > Self::MAX {
            return Err(TooLong { length: bytes.len() });
        }
        Ok(Self(Bytes::copy_from_slice(bytes)))
    }
}

impl TryFrom<&str> for ShortStr {
    type Error = TooLong;

    fn try_from(text: &str) -> Result<Self, TooLong> {
        text.as_bytes().try_into()
    }
}

impl TryFrom<String> for ShortStr {
    type Error = TooLong;

    fn try_from(text: String) -> Result<Self, TooLong> {
        Self::new(text.into())
    }
}

impl TryFrom<&String> for ShortStr {
    type Error = TooLong;

    fn try_from(text: &String) -> Result<Self, TooLong> {
        text.as_bytes().try_into()
    }
}

impl TryFrom<Vec<u8>> for ShortStr {
    type Error = TooLong;

    fn try_from(bytes: Vec<u8>) -> Result<Self, TooLong> {
        Self::new(bytes.into())
    }
}

impl From<&Self> for ShortStr {
    fn from(name: &Self) -> Self {
        name.clone()
    }
}

impl std::borrow::Borrow<[u8]> for ShortStr {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for ShortStr {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Compares with texts, in both directions.
macro_rules! eq_text {
    ($($text:ty),*) => {$(
        impl PartialEq<$text> for ShortStr {
            fn eq(&self, other: &$text) -> bool {
                self.0 == other.as_bytes()
            }
        }

        impl PartialEq<ShortStr> for $text {
            fn eq(&self, other: &ShortStr) -> bool {
                other == self
            }
        }
    )*};
}

eq_text!(str, &str, String);

impl fmt::Display for ShortStr {
    /// On one line: control characters are escaped, and what is not UTF-8 is replaced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&PeerText(&self.0).to_string())
    }
}

impl fmt::Debug for ShortStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

/// A point in time in whole seconds since the Unix epoch (spec 4.2.5.4), never milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The current time, or the epoch on a machine whose clock stands before it.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// As the system's time; `None` where the platform cannot represent it, since a peer may send
    /// anything up to `u64::MAX`. `SystemTime::from` saturates instead.
    pub fn to_system_time(self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.0))
    }
}

impl From<Timestamp> for SystemTime {
    /// A time that the platform cannot represent becomes the last whole second that it can; on Unix that is
    /// `i64::MAX` seconds after the epoch. [`to_system_time`](Timestamp::to_system_time) tells such a time apart.
    fn from(time: Timestamp) -> Self {
        // no constant has the platform's last second, so it is built up from its highest bit down
        let add_bit = |last: Timestamp, bit: u32| {
            let next = Timestamp(last.0 | (1 << bit));
            if next.to_system_time().is_some() { next } else { last }
        };
        let latest = || (0..u64::BITS).rev().fold(Timestamp(0), add_bit).to_system_time();
        time.to_system_time().or_else(latest).unwrap_or(Self::UNIX_EPOCH)
    }
}

impl From<SystemTime> for Timestamp {
    /// Cuts to whole seconds; a time before the epoch becomes the epoch.
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs()))
    }
}

/// A heartbeat interval as the protocol has it, in whole seconds: rounded up, so that only zero means none, and at most
/// 65,535.
pub(crate) fn heartbeat_seconds(interval: Duration) -> u16 {
    let seconds = interval.as_secs().saturating_add((interval.subsec_nanos() > 0).into());
    u16::try_from(seconds).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_string_counts_bytes_not_characters() {
        assert!(ShortStr::try_from("ä".repeat(127)).is_ok());
        assert_eq!(ShortStr::try_from("ä".repeat(128)), Err(TooLong { length: 256 }));
        assert_eq!(ShortStr::try_from([0; 256].as_slice()), Err(TooLong { length: 256 }));
    }

    #[test]
    fn a_short_string_compares_with_texts_in_both_directions() {
        let name = ShortStr::try_from("a\n").unwrap();
        let (text, owned) = ("a\n", String::from("a\n"));
        assert!(name == text && name == owned && name == *text);
        assert!(text == name && owned == name && *text == name);
        assert!(name != "a" && String::new() != name);
    }

    #[test]
    fn a_short_string_from_a_peer_is_safe_to_print() {
        let name = ShortStr::try_from(b"\x1b[2J\n\x7f\xff\xc2\x9b".as_slice()).unwrap();
        assert_eq!(name.to_string(), "\\u{1b}[2J\\n\\u{7f}\u{fffd}\\u{9b}");
        assert_eq!(name.to_string_lossy(), "\x1b[2J\n\x7f\u{fffd}\u{9b}");
        assert!(!format!("{name:?}").contains(char::is_control));
        assert_eq!(format!("{:>3}|{:<3}|", ShortStr::empty(), ShortStr::try_from("é").unwrap()), "   |é  |");
    }

    #[test]
    fn b16_the_largest_timestamp_does_not_overflow() {
        assert_eq!(Timestamp(u64::MAX).to_system_time(), None);
        assert_eq!(Timestamp(1).to_system_time(), SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(1)));
    }

    #[test]
    fn a_heartbeat_is_rounded_up_to_seconds_and_clamped() {
        let seconds = [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_secs(1),
            Duration::from_millis(1001),
            Duration::from_millis(65_535_001),
            Duration::MAX,
        ]
        .map(heartbeat_seconds);
        assert_eq!(seconds, [0, 1, 1, 2, u16::MAX, u16::MAX]);
    }

    #[test]
    fn a_timestamp_becomes_a_system_time_and_saturates() {
        assert_eq!(SystemTime::from(Timestamp(1)), SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        let last = SystemTime::from(Timestamp(u64::MAX));
        assert_eq!(last.checked_add(Duration::from_secs(1)), None);
        assert_eq!(SystemTime::from(Timestamp::from(last)), last);
        let now = Timestamp::now();
        assert_eq!(Timestamp::from(SystemTime::from(now)), now);
    }
}
