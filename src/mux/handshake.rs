//! The handshake: from the protocol header to an open connection.
//!
//! ```text
//! client                             server
//!   protocol header ────────────────>
//!                   <──────────────── start      AwaitStart
//!   start-ok        ────────────────>
//!                   <──────────────── tune       AwaitTune
//!   tune-ok, open   ────────────────>
//!                   <──────────────── open-ok    AwaitOpenOk
//! ```
//!
//! Each state is consumed by its transition. The server may close instead of any step.

use bytes::Bytes;
use thiserror::Error;

use super::sasl::{Credentials, Mechanism, SaslError};
use super::tune::{Agreed, Offer};
use super::violation::Violation;
use crate::codec::frame::{OVERHEAD, PROTOCOL_HEADER, put_method};
use crate::codec::generated::connection::{Close, CloseOk, Open, Start, StartOk};
use crate::codec::peer_text::PeerText;
use crate::codec::{FieldTable, FieldValue, Method, ShortStr};

/// What the client brings.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    /// In the order of preference.
    pub mechanisms: Vec<Mechanism>,
    pub credentials: Credentials,
    pub client_properties: FieldTable,
    pub vhost: ShortStr,
    pub offer: Offer,
}

/// An open connection.
#[derive(Clone, Debug)]
pub(crate) struct Established {
    pub agreed: Agreed,
    pub server_properties: FieldTable,
}

/// How far the handshake has come; tells what a lost connection probably means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing of the server has been understood yet.
    Start,
    /// Credentials were sent.
    Login,
    /// Credentials were accepted; the vhost was asked for.
    Open,
}

/// Why the handshake failed.
#[derive(Clone, Debug, Error)]
pub(crate) enum HandshakeError {
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error("offers AMQP {major}-{minor}, not 0-9-1: no credentials were sent")]
    Version { major: u8, minor: u8 },
    #[error("the server offers {offered}, and this client may only use {wanted}")]
    Mechanism { offered: String, wanted: String },
    #[error(transparent)]
    Sasl(#[from] SaslError),
    #[error("the server sent a challenge, which {0} cannot answer")]
    Challenge(&'static str),
    #[error(
        "start-ok would have {size} bytes with these client properties and credentials, the server accepts {limit}"
    )]
    StartOkTooLarge { size: usize, limit: usize },
    #[error("the server refused: {} {}", .0.reply_code, .0.reply_text)]
    Refused(Close),
}

/// The next thing that is expected from the server.
#[derive(Debug)]
pub(crate) enum Handshake {
    Start(AwaitStart),
    Tune(AwaitTune),
    OpenOk(AwaitOpenOk),
}

/// A step that succeeded.
#[derive(Debug)]
pub(crate) enum Step {
    More(Handshake),
    Done(Established),
}

/// The protocol header was sent.
#[derive(Debug)]
pub(crate) struct AwaitStart {
    hello: Hello,
}

/// start-ok was sent.
#[derive(Debug)]
pub(crate) struct AwaitTune {
    hello: Hello,
    mechanism: Mechanism,
    server_properties: FieldTable,
}

/// tune-ok and open were sent.
#[derive(Debug)]
pub(crate) struct AwaitOpenOk {
    established: Established,
}

impl Handshake {
    /// Begins: appends the protocol header.
    pub(crate) fn begin(hello: Hello, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(&PROTOCOL_HEADER);
        Self::Start(AwaitStart { hello })
    }

    /// Handles a method of channel 0, and appends what is to be sent: also when it fails.
    pub(crate) fn receive(self, method: Method, out: &mut Vec<u8>) -> Result<Step, HandshakeError> {
        if let Method::ConnectionClose(close) = method {
            put_method(out, 0, &CloseOk {});
            return Err(HandshakeError::Refused(close));
        }
        match (self, method) {
            (Self::Start(state), Method::ConnectionStart(start)) => state.start(start, out),
            (Self::Tune(state), Method::ConnectionSecure(_)) => {
                Err(HandshakeError::Challenge(state.mechanism.name()))
            }
            (Self::Tune(state), Method::ConnectionTune(tune)) => {
                let agreed = Agreed::new(state.hello.offer, &tune)?;
                put_method(out, 0, &agreed.tune_ok());
                put_method(out, 0, &Open { virtual_host: state.hello.vhost });
                let established = Established { agreed, server_properties: state.server_properties };
                Ok(Step::More(Self::OpenOk(AwaitOpenOk { established })))
            }
            (Self::OpenOk(state), Method::ConnectionOpenOk(_)) => Ok(Step::Done(state.established)),
            (_, method) => Err(Violation::Unexpected { channel: 0, method: method.id() }.into()),
        }
    }

    /// How far it has come.
    pub(crate) const fn stage(&self) -> Stage {
        match self {
            Self::Start(_) => Stage::Start,
            Self::Tune(_) => Stage::Login,
            Self::OpenOk(_) => Stage::Open,
        }
    }

    /// The limits that hold for frames and heartbeats from here on, once they are agreed.
    pub(crate) const fn agreed(&self) -> Option<Agreed> {
        match self {
            Self::OpenOk(state) => Some(state.established.agreed),
            _ => None,
        }
    }
}

impl AwaitStart {
    fn start(self, start: Start, out: &mut Vec<u8>) -> Result<Step, HandshakeError> {
        let Self { hello } = self;
        // whatever speaks another version must not learn the credentials
        if (start.version_major, start.version_minor) != (0, 9) {
            let Start { version_major: major, version_minor: minor, .. } = start;
            return Err(HandshakeError::Version { major, minor });
        }
        let mechanism = choose(&hello.mechanisms, &start.mechanisms)?;
        let method = StartOk {
            client_properties: hello.client_properties.clone(),
            mechanism: short(mechanism.name()),
            response: mechanism.response(&hello.credentials)?,
            locale: short("en_US"),
        };
        let before = out.len();
        let size = put_method(out, 0, &method) + OVERHEAD;
        let limit = initial_frame_max(&start.server_properties);
        if size > limit {
            out.truncate(before);
            return Err(HandshakeError::StartOkTooLarge { size, limit });
        }
        let server_properties = start.server_properties;
        Ok(Step::More(Handshake::Tune(AwaitTune { hello, mechanism, server_properties })))
    }
}

/// Takes the first of ours that the server offers, in a list with spaces between.
fn choose(ours: &[Mechanism], offered: &Bytes) -> Result<Mechanism, HandshakeError> {
    let theirs = offered.split(|byte| *byte == b' ');
    let found = ours.iter().find(|ours| theirs.clone().any(|theirs| theirs == ours.name().as_bytes()));
    match found {
        Some(mechanism) => Ok(*mechanism),
        None => Err(HandshakeError::Mechanism {
            offered: PeerText(offered).to_string(),
            wanted: ours.iter().map(|mechanism| mechanism.name()).collect::<Vec<_>>().join(" "),
        }),
    }
}

/// What a server accepts before tune: `RabbitMQ` 8192 bytes from 4.1 on, 4096 before, as the protocol's
/// text says.
fn initial_frame_max(server_properties: &FieldTable) -> usize {
    let version = server_properties.get("version").and_then(FieldValue::as_str).unwrap_or_default();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let rabbitmq = server_properties.get("product").and_then(FieldValue::as_str) == Some("RabbitMQ");
    if rabbitmq && version >= (4, 1) { 8192 } else { 4096 }
}

/// A short string from one of our own constants.
fn short(text: &'static str) -> ShortStr {
    ShortStr::try_from(Bytes::from_static(text.as_bytes())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::generated::connection::{OpenOk, Secure, Tune};

    fn hello(mechanisms: &[Mechanism]) -> Hello {
        Hello {
            mechanisms: mechanisms.to_vec(),
            credentials: Credentials { user: "guest".into(), password: "guest".into() },
            client_properties: FieldTable::new(),
            vhost: short("/"),
            offer: Offer { channel_max: 2047, frame_max: 131_072, heartbeat: 60 },
        }
    }

    fn start(mechanisms: &'static str) -> Method {
        Method::ConnectionStart(Start {
            version_minor: 9,
            mechanisms: Bytes::from_static(mechanisms.as_bytes()),
            locales: Bytes::from_static(b"en_US"),
            ..Start::default()
        })
    }

    fn more(step: Result<Step, HandshakeError>) -> Handshake {
        match step {
            Ok(Step::More(next)) => next,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_whole_handshake_writes_the_protocols_bytes() {
        let mut out = Vec::new();
        let state = Handshake::begin(hello(&[Mechanism::Plain]), &mut out);
        assert_eq!(out, b"AMQP\0\0\x09\x01");
        let state = more(state.receive(start("AMQPLAIN PLAIN"), &mut out));
        out.clear();
        let tune = Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 };
        let state = more(state.receive(Method::ConnectionTune(tune), &mut out));
        // the vectors of the protocol: tune-ok, then open "/"
        let tune_ok = b"\x01\0\0\0\0\0\x0c\0\x0a\0\x1f\x07\xff\0\x02\0\0\0\x3c\xce";
        let open = b"\x01\0\0\0\0\0\x08\0\x0a\0\x28\x01/\0\0\xce";
        assert_eq!(out, [tune_ok.as_slice(), open.as_slice()].concat());
        let done = state.receive(Method::ConnectionOpenOk(OpenOk {}), &mut out);
        assert!(matches!(done, Ok(Step::Done(_))));
    }

    #[test]
    fn d6_a_mechanism_that_is_not_offered_is_a_local_error() {
        let mut out = Vec::new();
        let state = Handshake::begin(hello(&[Mechanism::External]), &mut out);
        out.clear();
        let error = state.receive(start("PLAIN AMQPLAIN"), &mut out).unwrap_err();
        assert!(error.to_string().contains("PLAIN AMQPLAIN"), "{error}");
        assert!(out.is_empty());
    }

    #[test]
    fn d7_a_challenge_is_refused_not_looped() {
        let mut out = Vec::new();
        let state = Handshake::begin(hello(&[Mechanism::Plain]), &mut out);
        let state = more(state.receive(start("PLAIN"), &mut out));
        let error = state.receive(Method::ConnectionSecure(Secure::default()), &mut out).unwrap_err();
        assert!(matches!(error, HandshakeError::Challenge("PLAIN")));
    }

    #[test]
    fn d8_a_refused_vhost_carries_code_and_text_and_is_answered() {
        let mut out = Vec::new();
        let state = Handshake::begin(hello(&[Mechanism::Plain]), &mut out);
        let state = more(state.receive(start("PLAIN"), &mut out));
        let state = more(state.receive(Method::ConnectionTune(Tune::default()), &mut out));
        out.clear();
        let close = Close { reply_code: 530, reply_text: short("NOT_ALLOWED"), ..Close::default() };
        let error = state.receive(Method::ConnectionClose(close.clone()), &mut out).unwrap_err();
        assert!(matches!(error, HandshakeError::Refused(refused) if refused == close));
        assert_eq!(out, b"\x01\0\0\0\0\0\x04\0\x0a\0\x33\xce");
    }

    #[test]
    fn d9_a_start_ok_that_does_not_fit_is_a_local_error_with_its_size() {
        let mut hello = hello(&[Mechanism::Plain]);
        hello.credentials.password = "x".repeat(5000);
        let mut out = Vec::new();
        let state = Handshake::begin(hello.clone(), &mut out);
        out.clear();
        let error = state.receive(start("PLAIN"), &mut out).unwrap_err();
        assert!(matches!(error, HandshakeError::StartOkTooLarge { limit: 4096, .. }), "{error}");
        assert!(out.is_empty());
        let mut server_properties = FieldTable::new();
        server_properties.insert("product", "RabbitMQ").unwrap();
        server_properties.insert("version", "4.1.0").unwrap();
        assert_eq!(initial_frame_max(&server_properties), 8192);
    }

    #[test]
    fn b20_another_method_than_the_expected_one_is_refused() {
        let state = Handshake::begin(hello(&[Mechanism::Plain]), &mut Vec::new());
        let error = state.receive(Method::ConnectionOpenOk(OpenOk {}), &mut Vec::new()).unwrap_err();
        assert!(matches!(error, HandshakeError::Violation(Violation::Unexpected { .. })));
    }
}
