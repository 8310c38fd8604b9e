//! Optional arguments of queues, exchanges, bindings and consumers.

use std::fmt;
use std::time::Duration;

use crate::codec::{FieldTable, FieldValue, ShortStr, Timestamp};
use crate::error::{Error, ErrorKind, Result};

/// Arguments as they are collected by a builder. The first mistake is kept and told when the builder is
/// awaited.
#[derive(Clone, Debug, Default)]
pub(crate) struct Collected {
    table: FieldTable,
    fault: Option<Error>,
}

impl Collected {
    pub(crate) fn set(
        &mut self,
        name: impl TryInto<ShortStr>,
        value: impl TryInto<FieldValue, Error: fmt::Display>,
    ) {
        let pair = short("an argument's name", name).and_then(|name| {
            let value = value.try_into().map_err(|error| {
                Error::new(ErrorKind::Argument, format!("the argument \"{name}\": {error}"))
            })?;
            Ok((name, value))
        });
        match pair {
            Ok((name, value)) => {
                // cannot fail: both have their types already
                drop(self.table.insert(name, value));
            }
            Err(error) => drop(self.fault.get_or_insert(error)),
        }
    }

    /// An argument whose value is the name of something.
    pub(crate) fn set_name(&mut self, argument: &'static str, name: impl TryInto<ShortStr>) {
        match short(argument, name) {
            Ok(name) => self.set(argument, &name),
            Err(error) => drop(self.fault.get_or_insert(error)),
        }
    }

    pub(crate) fn finish(self) -> Result<FieldTable> {
        self.fault.map_or(Ok(self.table), Err)
    }
}

/// A short string from what the user gave, or the error that names it.
pub(crate) fn short(what: &str, name: impl TryInto<ShortStr>) -> Result<ShortStr> {
    name.try_into().map_err(|_| {
        Error::new(
            ErrorKind::Argument,
            format!("{what} has more than 255 bytes, which is the most that AMQP allows"),
        )
    })
}

/// Milliseconds as an argument; what does not fit becomes the largest that does.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A number as an argument; what does not fit becomes the largest that does.
pub(crate) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Makes an enum whose variants are words of the protocol.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// The word that the server knows it by.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl From<$name> for FieldValue {
            fn from(word: $name) -> Self {
                word.as_str().into()
            }
        }

        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            /// The word that the server knows it by.
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        #[cfg(feature = "serde")]
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                const EXPECTED: &str = concat!("one of:" $(, " ", $word)*);
                crate::codec::serde_impls::parse_text(deserializer, EXPECTED, |word| match word {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(concat!("unknown word, expected ", "one of:" $(, " ", $word)*)),
                })
            }
        }
    };
}

words! {
    /// What kind of queue: argument `x-queue-type`.
    QueueType {
        /// On one node; the default, unless the virtual host has another.
        Classic = "classic",
        /// Replicated; survives the loss of a minority of nodes.
        Quorum = "quorum",
        /// An append-only log that consumers read from any place.
        Stream = "stream",
    }
}

words! {
    /// What happens to messages that a full queue has no room for: argument `x-overflow`.
    Overflow {
        /// The oldest message goes.
        DropHead = "drop-head",
        /// The new message is refused: its publisher gets a nack.
        RejectPublish = "reject-publish",
        /// Like [`RejectPublish`](Self::RejectPublish), and the message is dead-lettered.
        RejectPublishDlx = "reject-publish-dlx",
    }
}

words! {
    /// How sure dead-lettering is, in quorum queues: argument `x-dead-letter-strategy`.
    DeadLetterStrategy {
        /// A message can be lost on its way.
        AtMostOnce = "at-most-once",
        /// The queue keeps a message until the other queue has confirmed it.
        AtLeastOnce = "at-least-once",
    }
}

/// Where in a stream a consumer begins: argument `x-stream-offset`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamOffset {
    /// With the oldest message that is there.
    First,
    /// With the last chunk of messages that was written.
    Last,
    /// With what is published from now on.
    Next,
    /// With the message that has this offset.
    Offset(u64),
    /// With the messages that were published at this time or later.
    At(Timestamp),
}

impl From<StreamOffset> for FieldValue {
    fn from(offset: StreamOffset) -> Self {
        match offset {
            StreamOffset::First => "first".into(),
            StreamOffset::Last => "last".into(),
            StreamOffset::Next => "next".into(),
            StreamOffset::Offset(offset) => count(offset).into(),
            StreamOffset::At(time) => time.into(),
        }
    }
}
