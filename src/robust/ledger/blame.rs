//! Which message the server means when it closes a channel or the connection.
//!
//! `RabbitMQ` closes the channel, or the connection, when it does not accept a message, and names what it dislikes in its
//! text, not the message. A text that names nothing makes every message under way a suspect: see
//! [`Publishes`](super::publishes::Publishes).

use crate::codec::Properties;
use crate::error::{Error, ErrorKind};
use crate::protocol::{Arguments, MethodId, basic, constants};

/// What the server blames for a message that it does not accept.
const PUBLISH: MethodId = <basic::Publish as Arguments>::ID;

/// Whom an error accuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::robust) enum Blame {
    /// No message.
    Nobody,
    /// The messages that this fits.
    Named(Trait),
    /// Some message that was under way.
    Somebody,
}

/// What the server's text says of the messages that it refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::robust) enum Trait {
    /// Those to this exchange, or one whose name begins so where the text is cut short; with this key, if one is named.
    Exchange {
        name: String,
        is_whole: bool,
        routing_key: Option<String>,
    },
    /// Those whose body has so many bytes.
    BodyLength(usize),
    UserId(String),
    Expiration(String),
}

/// A message, as far as it can be blamed.
pub(in crate::robust) struct Accused<'a> {
    pub exchange: &'a [u8],
    pub routing_key: &'a [u8],
    pub body_length: usize,
    pub properties: &'a dyn Fn() -> Option<Properties>,
}

impl Blame {
    /// Whom this error accuses.
    pub(in crate::robust) fn of(error: &Error) -> Self {
        let closed = matches!(error.kind(), ErrorKind::ChannelClosed | ErrorKind::ConnectionClosed);
        // a shutdown, or a close by an operator
        if !closed || error.reply_code() == Some(constants::CONNECTION_FORCED) {
            return Self::Nobody;
        }
        match error.method() {
            None | Some(PUBLISH) => {}
            // it names another cause
            Some(_) => return Self::Nobody,
        }
        match Trait::named_in(error.reply_text().unwrap_or_default()) {
            Some(named) => Self::Named(named),
            // a channel closes without a method also for a delivery that is not acknowledged in time
            None if error.method().is_none() && error.kind() == ErrorKind::ChannelClosed => Self::Nobody,
            None => Self::Somebody,
        }
    }
}

impl Trait {
    fn named_in(text: &str) -> Option<Self> {
        if let Some(rest) = behind(text, "message size ") {
            return Some(Self::BodyLength(rest.split(' ').next()?.parse().ok()?));
        }
        if let Some(rest) = behind(text, "user_id property set to '") {
            return Some(Self::UserId(quoted(rest)?.to_owned()));
        }
        if let Some(rest) = behind(text, "invalid expiration '") {
            return Some(Self::Expiration(quoted(rest)?.to_owned()));
        }
        let rest = behind(text, "exchange '")?;
        let (name, is_whole) = match quoted(rest) {
            Some(name) => (name, true),
            None => (rest, false),
        };
        // what permissions call the default exchange
        let name = if name == "amq.default" { "" } else { name };
        let routing_key = behind(text, "access to topic '").and_then(quoted).map(str::to_owned);
        Some(Self::Exchange { name: name.to_owned(), is_whole, routing_key })
    }

    /// Whether this message is meant.
    pub(in crate::robust) fn fits(&self, accused: &Accused<'_>) -> bool {
        let properties = || (accused.properties)().unwrap_or_default();
        match self {
            Self::Exchange { name, is_whole, routing_key } => {
                let exchange = String::from_utf8_lossy(accused.exchange);
                let same = if *is_whole { exchange == name.as_str() } else { exchange.starts_with(name) };
                let key = String::from_utf8_lossy(accused.routing_key);
                same && routing_key.as_ref().is_none_or(|named| key == named.as_str())
            }
            Self::BodyLength(length) => accused.body_length == *length,
            Self::UserId(user) => properties().user_id.is_some_and(|own| own == *user),
            Self::Expiration(value) => properties().expiration.is_some_and(|own| own == *value),
        }
    }
}

fn behind<'a>(text: &'a str, words: &str) -> Option<&'a str> {
    text.split_once(words).map(|(_, rest)| rest)
}

/// What stands before the closing quote.
fn quoted(text: &str) -> Option<&str> {
    text.split_once('\'').map(|(quoted, _)| quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Option<Trait> {
        Trait::named_in(text)
    }

    fn exchange(name: &str, is_whole: bool, routing_key: Option<&str>) -> Trait {
        let routing_key = routing_key.map(str::to_owned);
        Trait::Exchange { name: name.into(), is_whole, routing_key }
    }

    #[test]
    fn the_texts_of_rabbitmq_name_what_they_refuse() {
        assert_eq!(
            named("NOT_FOUND - no exchange 'orders' in vhost '/'"),
            Some(exchange("orders", true, None))
        );
        assert_eq!(
            named(
                "ACCESS_REFUSED - write access to exchange 'amq.default' in vhost '/' refused for user 'u'"
            ),
            Some(exchange("", true, None))
        );
        assert_eq!(
            named("ACCESS_REFUSED - write access to topic 'a.b' in exchange 'events' in vhost '/' refused"),
            Some(exchange("events", true, Some("a.b")))
        );
        assert_eq!(named("NOT_FOUND - no exchange 'a-very-lo"), Some(exchange("a-very-lo", false, None)));
        assert_eq!(
            named("PRECONDITION_FAILED - message size 17825792 is larger than configured max size 16777216"),
            Some(Trait::BodyLength(17_825_792))
        );
        assert_eq!(
            named("PRECONDITION_FAILED - user_id property set to 'eve' but authenticated user was 'guest'"),
            Some(Trait::UserId("eve".into()))
        );
        assert_eq!(
            named("PRECONDITION_FAILED - invalid expiration 'soon': {leftover_string,<<\"soon\">>}"),
            Some(Trait::Expiration("soon".into()))
        );
        assert_eq!(named("INTERNAL_ERROR"), None);
    }

    #[test]
    fn a_message_fits_what_it_has() {
        let properties =
            || Some(Properties { user_id: Some("eve".try_into().unwrap()), ..Properties::default() });
        let accused =
            Accused { exchange: b"orders", routing_key: b"new", body_length: 10, properties: &properties };
        let fits = |named: Trait| named.fits(&accused);
        assert!(fits(exchange("orders", true, None)) && fits(exchange("ord", false, None)));
        assert!(!fits(exchange("ord", true, None)) && !fits(exchange("orders", true, Some("old"))));
        assert!(Trait::BodyLength(10).fits(&accused) && !Trait::BodyLength(11).fits(&accused));
        assert!(Trait::UserId("eve".into()).fits(&accused));
        assert!(!Trait::Expiration("1".into()).fits(&accused));
    }
}
