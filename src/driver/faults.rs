//! Faults of the layers below as errors for the user.

use std::io;

use crate::codec::generated::{channel, connection, constants};
use crate::codec::{MethodId, ShortStr};
use crate::error::{Error, ErrorKind, Origin};
use crate::mux::greeting::Mismatch;
use crate::mux::handshake::{HandshakeError, Stage};
use crate::mux::publish::Unfit;
use crate::mux::session::Refusal;
use crate::mux::violation::Violation;

/// A command that was refused before anything was sent.
pub(crate) fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::ConnectionClosed => Error::new(ErrorKind::Closed, "the connection was closed"),
        Refusal::ChannelClosed => Error::new(ErrorKind::Closed, "the channel was closed"),
        Refusal::NoFreeChannel { max } => {
            Error::new(ErrorKind::NoFreeChannel, format!("all {max} channels of the connection are open"))
        }
        Refusal::Unread { bytes } => violation(Violation::UnreadAcks { bytes }),
        Refusal::TagInUse => {
            Error::new(ErrorKind::Argument, "the channel already has a consumer with this tag")
        }
        Refusal::MethodTooLarge { size, limit } => Error::new(
            ErrorKind::Argument,
            format!("the arguments need a frame of {size} bytes, and the agreed frame_max is {limit}"),
        ),
        Refusal::Unfit(Unfit::Name { length }) => Error::new(
            ErrorKind::Argument,
            format!("an exchange or routing key of {length} bytes: at most 255 are possible"),
        ),
        Refusal::Unfit(Unfit::Header { size, limit }) => Error::new(
            ErrorKind::Argument,
            format!(
                "the message's properties need a frame of {size} bytes, and the agreed frame_max is {limit}"
            ),
        ),
    }
}

/// The server broke the protocol.
pub(crate) fn violation(violation: Violation) -> Error {
    Error::new(ErrorKind::Protocol, format!("the server broke the protocol: {violation}"))
        .with_source(violation)
}

/// What the server is told when it broke the protocol.
pub(crate) fn close_for(violation: &Violation) -> connection::Close {
    let mut text = violation.to_string();
    // the text holds no input of the peer's, so it is ASCII; a reply text has at most 255 bytes
    text.truncate(ShortStr::MAX);
    let MethodId { class, method } = violation.method();
    connection::Close {
        reply_code: violation.reply_code(),
        reply_text: ShortStr::try_from(text).unwrap_or_default(),
        class_id: class,
        method_id: method,
    }
}

/// The server closed the connection.
pub(crate) fn connection_closed(close: &connection::Close) -> Error {
    with_close(Error::new(ErrorKind::ConnectionClosed, "the server closed the connection"), close)
}

/// The server closed a channel.
pub(crate) fn channel_closed(close: &channel::Close) -> Error {
    let method = MethodId::new(close.class_id, close.method_id);
    Error::new(ErrorKind::ChannelClosed, "the server closed the channel").with_reply(
        close.reply_code,
        close.reply_text.to_string(),
        method,
    )
}

fn with_close(error: Error, close: &connection::Close) -> Error {
    let method = MethodId::new(close.class_id, close.method_id);
    error.with_reply(close.reply_code, close.reply_text.to_string(), method)
}

/// The connection ended without a close: end of file, or a reset.
pub(crate) fn lost(source: Option<io::Error>) -> Error {
    let error = Error::new(ErrorKind::ConnectionLost, "the connection was lost");
    match source {
        Some(source) => error.with_source(source),
        None => error,
    }
}

/// The handshake failed on a reason that the protocol knows.
pub(crate) fn handshake(error: HandshakeError, stage: Stage) -> Error {
    match error {
        HandshakeError::Violation(fault) => violation(fault),
        HandshakeError::Refused(close) => refused_at(stage, &close),
        HandshakeError::Mechanism { .. } | HandshakeError::Challenge(_) => {
            Error::new(ErrorKind::Auth, error.to_string())
        }
        HandshakeError::Sasl(_) | HandshakeError::StartOkTooLarge { .. } => {
            Error::new(ErrorKind::Config, error.to_string())
        }
    }
}

fn refused_at(stage: Stage, close: &connection::Close) -> Error {
    let (kind, text) = match (stage, close.reply_code) {
        (Stage::Login, constants::ACCESS_REFUSED) => (ErrorKind::Auth, "the server refused the login"),
        (Stage::Open, constants::NOT_ALLOWED | constants::NOT_FOUND | constants::INVALID_PATH) => {
            (ErrorKind::Vhost, "the server refused the virtual host")
        }
        _ => (ErrorKind::ConnectionClosed, "the server closed the connection during the handshake"),
    };
    with_close(Error::new(kind, text), close)
}

/// The connection ended in the middle of the handshake.
pub(crate) fn lost_in_handshake(stage: Stage, source: Option<io::Error>) -> Error {
    match stage {
        // what a server does that cannot send a close for a failed login
        Stage::Login => Error::new(
            ErrorKind::Auth,
            "the server dropped the connection after the login: probably it refused the credentials",
        )
        // or else the network did; a server that refuses can say so
        .with_origin(Origin::Network),
        Stage::Start | Stage::Open => {
            let error = Error::new(ErrorKind::ConnectionLost, "the connection was lost during the handshake");
            match source {
                Some(source) => error.with_source(source),
                None => error,
            }
        }
    }
}

/// What listens there speaks something else.
pub(crate) fn mismatch(mismatch: Mismatch) -> Error {
    let text = match mismatch {
        Mismatch::Version([id, major, minor, revision]) => {
            format!("the server wants AMQP {id}-{major}-{minor}-{revision}, not 0-9-1")
        }
        Mismatch::Tls => "the server speaks TLS on this port: use amqps, or the port without TLS".into(),
        Mismatch::Http => "an HTTP server answers on this port, not an AMQP server".into(),
    };
    Error::new(ErrorKind::NotAmqp, text)
}
