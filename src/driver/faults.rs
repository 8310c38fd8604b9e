//! Faults of the layers below as errors for the user.
//!
//! Texts name the server, what happened, and where it helps what to do. They do not repeat the text of their source.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::link_call::Call;
use super::server::Server;
use crate::codec::generated::{channel, connection, constants};
use crate::codec::{MethodId, ShortStr};
use crate::error::{Error, ErrorKind, Origin, Scope};
use crate::mux::greeting::Mismatch;
use crate::mux::handshake::{HandshakeError, Hello, Stage};
use crate::mux::outgoing_publish::Unfit;
use crate::mux::sasl::Mechanism;
use crate::mux::session::Refusal;
use crate::mux::violation::Violation;

/// The server did not answer a call in time.
pub(crate) fn unanswered(call: Call, limit: Duration) -> Error {
    unanswered_with(call, limit, "")
}

/// The same, with more to say of it.
pub(crate) fn unanswered_with(call: Call, limit: Duration, more: &str) -> Error {
    let text = format!("{call}: the server did not answer within {} s{more}", limit.as_secs_f32());
    Error::new(ErrorKind::Timeout, text)
}

/// A call could not even be written in time, since so many bytes wait.
pub(crate) fn unsent(call: Call, limit: Duration, unwritten: usize) -> Error {
    let text = format!(
        "{call}: not written yet after {} s, and so not answered: {unwritten} bytes wait to be written, and the server or \
         the network is slow to take them",
        limit.as_secs_f32()
    );
    Error::new(ErrorKind::Timeout, text).with_origin(Origin::Network)
}

/// A call's turn did not come in time.
pub(crate) fn no_turn(call: Call, limit: Duration) -> Error {
    let text = format!(
        "{call}: not sent, because the server did not answer an earlier call there within {} s",
        limit.as_secs_f32()
    );
    Error::new(ErrorKind::Timeout, text)
}

/// A command that was refused before anything was sent.
pub(crate) fn refused(server: &Server, refusal: Refusal) -> Error {
    match refusal {
        Refusal::ConnectionClosed => closed_connection(server),
        Refusal::ChannelClosed => Error::new(ErrorKind::Closed, "this program closed the channel"),
        Refusal::NoFreeChannel { max } => Error::new(
            ErrorKind::NoFreeChannel,
            format!("all {max} channels of the connection are open: close some, or raise channel_max"),
        ),
        Refusal::TagInUse => Error::new(
            ErrorKind::Argument,
            "the channel already has a consumer with this tag: choose another",
        ),
        Refusal::Unread { bytes } => violation(server, &Violation::Unread { bytes }),
        Refusal::MethodTooLarge { size, limit } => Error::new(
            ErrorKind::Argument,
            format!("the arguments need a frame of {size} bytes, and the agreed frame_max is {limit}"),
        ),
        Refusal::Unfit(Unfit::Name { length }) => Error::new(
            ErrorKind::Argument,
            // an exchange that is too long never gets as far
            format!("the routing key has {length} bytes, and AMQP allows at most 255"),
        ),
        Refusal::Unfit(Unfit::Header { size, limit }) => Error::new(
            ErrorKind::Argument,
            format!(
                "the message's properties need a frame of {size} bytes, and the agreed frame_max is {limit}"
            ),
        ),
    }
}

/// This program closed the connection.
pub(crate) fn closed_connection(server: &Server) -> Error {
    Error::new(ErrorKind::Closed, format!("this program closed the connection to {server}"))
        .with_scope(Scope::Connection)
}

/// This program closed a channel.
pub(crate) fn closed_channel(id: u16) -> Error {
    Error::new(ErrorKind::Closed, format!("this program closed channel {id}"))
}

/// The server broke the protocol.
pub(crate) fn violation(server: &Server, violation: &Violation) -> Error {
    Error::new(ErrorKind::Protocol, format!("{server} broke the protocol: {violation}"))
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
pub(crate) fn connection_closed(server: &Server, close: &connection::Close) -> Error {
    with_close(Error::new(ErrorKind::ConnectionClosed, format!("{server} closed the connection")), close)
}

/// The server closed a channel.
pub(crate) fn channel_closed(id: u16, close: &channel::Close) -> Error {
    let method = MethodId::new(close.class_id, close.method_id);
    Error::new(ErrorKind::ChannelClosed, format!("the server closed channel {id}")).with_reply(
        close.reply_code,
        close.reply_text.to_string_lossy().into_owned(),
        method,
    )
}

fn with_close(error: Error, close: &connection::Close) -> Error {
    let method = MethodId::new(close.class_id, close.method_id);
    error.with_reply(close.reply_code, close.reply_text.to_string_lossy().into_owned(), method)
}

// Without a word of the server's.

/// The connection ended without a close: end of file, or a reset.
pub(crate) fn lost(server: &Server, source: Option<Arc<io::Error>>) -> Error {
    if source.as_deref().is_some_and(is_runtime_ended) {
        return runtime_ended(server);
    }
    let how = how(source.as_deref());
    caused(
        Error::new(ErrorKind::ConnectionLost, format!("the connection to {server} was lost: {how}")),
        source,
    )
}

fn caused(error: Error, source: Option<Arc<io::Error>>) -> Error {
    match source {
        Some(source) => error.with_shared_source(source),
        None => error,
    }
}

/// How a connection was lost, in other words than the operating system's. `None`: end of file.
pub(super) fn how(source: Option<&io::Error>) -> &'static str {
    match source.map(io::Error::kind) {
        None => "the other side ended it without a close (end of file)",
        Some(io::ErrorKind::ConnectionReset) => "the other side, or a firewall or proxy between, reset it",
        Some(io::ErrorKind::BrokenPipe) => "the other side had ended it before this side wrote",
        Some(io::ErrorKind::ConnectionAborted) => "this machine gave it up",
        Some(io::ErrorKind::TimedOut) => "the other side does not confirm what is sent to it",
        Some(
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown,
        ) => "the network has no way there any more",
        Some(io::ErrorKind::UnexpectedEof) => "it broke off in the middle",
        Some(_) => "reading or writing failed",
    }
}

/// Nothing came for two heartbeat intervals.
pub(crate) fn silent(server: &Server, heartbeat: u16) -> Error {
    let seconds = 2 * u32::from(heartbeat);
    let text = format!(
        "nothing came from {server} for {seconds} s, two heartbeat intervals: the server hangs, or the network is cut"
    );
    Error::new(ErrorKind::HeartbeatMissed, text)
}

/// The task that reads is gone before the connection has ended.
pub(crate) fn runtime_ended(server: &Server) -> Error {
    let text = if std::thread::panicking() {
        format!(
            "the task that drives the connection to {server} panicked: a fault of lepus, please report it"
        )
    } else {
        format!("the tokio runtime that drives the connection to {server} was shut down")
    };
    Error::new(ErrorKind::RuntimeEnded, text)
}

/// Whether tokio says that its runtime is being shut down. Only newer versions than the crate's least have a function
/// for that.
fn is_runtime_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other
        && error.raw_os_error().is_none()
        && error.to_string().contains("is being shutdown")
}

// Dialling.

/// The host was not found.
pub(crate) fn not_found(server: &Server, source: Option<io::Error>) -> Error {
    let text =
        format!("cannot connect to {server}: the host name was not found; check its spelling and the DNS");
    caused(Error::new(ErrorKind::Connect, text), source.map(Arc::new))
}

/// The host's addresses were not found in time.
pub(crate) fn slow_lookup(server: &Server, limit: Duration) -> Error {
    let limit = limit.as_secs_f32();
    let text = format!(
        "cannot connect to {server}: looking up the host name took longer than {limit} s; check the DNS"
    );
    Error::new(ErrorKind::Connect, text)
}

/// Connecting to an address failed, or the user's connector did if there is none; without a source it took too long.
pub(crate) fn not_connected(
    server: &Server,
    at: Option<SocketAddr>,
    limit: Duration,
    source: Option<io::Error>,
) -> Error {
    let why = match source.as_ref().map(io::Error::kind) {
        None => format!("no answer within {} s; check the address and firewalls", limit.as_secs_f32()),
        Some(io::ErrorKind::ConnectionRefused) => {
            "nothing listens there; check the port, and whether the server runs".into()
        }
        Some(io::ErrorKind::TimedOut) => "no answer; check the address and firewalls".into(),
        Some(
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown,
        ) => "there is no way to it; check the network".into(),
        Some(io::ErrorKind::PermissionDenied) => "this system does not permit it".into(),
        Some(io::ErrorKind::AddrNotAvailable) => {
            "this machine has no local address or port left for it".into()
        }
        Some(_) if at.is_none() => "the connector reports an error".into(),
        Some(_) => "the operating system reports an error".into(),
    };
    // of a name the address, of an address nothing new
    let address = match at {
        Some(at) if server.host.parse() != Ok(at.ip()) => format!(" ({})", at.ip()),
        _ => String::new(),
    };
    let error = Error::new(ErrorKind::Connect, format!("cannot connect to {server}{address}: {why}"));
    caused(error, source.map(Arc::new))
}

// The handshake.

/// Who logs in where.
#[derive(Clone, Debug)]
pub(crate) struct Login<'a> {
    pub server: &'a Server,
    /// `None`: the mechanism sends no name.
    user: Option<String>,
    vhost: ShortStr,
}

impl<'a> Login<'a> {
    pub(crate) fn new(server: &'a Server, hello: &Hello) -> Self {
        let named = [Mechanism::Plain, Mechanism::AmqPlain];
        let sends_user = hello.mechanisms.iter().any(|mechanism| named.contains(mechanism));
        let user = sends_user.then(|| hello.credentials.user.clone());
        Self { server, user, vhost: hello.vhost.clone() }
    }

    fn user(&self) -> String {
        self.user.as_ref().map_or_else(|| "this client".into(), |user| format!("user \"{user}\""))
    }

    /// `RabbitMQ` has a user that it lets in from nowhere else than its own machine, and does not say so.
    fn hint(&self) -> &'static str {
        let is_local = self.server.host == "localhost"
            || self.server.host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        match &self.user {
            Some(user) if user == "guest" && !is_local => {
                "; RabbitMQ lets \"guest\" in only from its own machine, unless it is told otherwise"
            }
            _ => "",
        }
    }

    /// It failed on a reason that the protocol knows.
    pub(crate) fn failed(&self, error: HandshakeError, stage: Stage) -> Error {
        let server = self.server;
        match error {
            HandshakeError::Violation(fault) => violation(server, &fault),
            HandshakeError::Refused(close) => self.refused(stage, &close),
            HandshakeError::Version { .. } => Error::new(ErrorKind::NotAmqp, format!("{server} {error}")),
            HandshakeError::Mechanism { .. } | HandshakeError::Challenge(_) => {
                Error::new(ErrorKind::Auth, format!("no login at {server}: {error}"))
            }
            HandshakeError::Sasl(_) | HandshakeError::StartOkTooLarge { .. } => {
                Error::new(ErrorKind::Config, format!("no login at {server}: {error}"))
            }
        }
    }

    fn refused(&self, stage: Stage, close: &connection::Close) -> Error {
        let Self { server, vhost, .. } = self;
        let user = self.user();
        let (kind, text) = match (stage, close.reply_code) {
            (Stage::Login, constants::ACCESS_REFUSED) => {
                let advice =
                    if self.user.is_some() { "check user and password" } else { "check the certificate" };
                let hint = self.hint();
                let text = format!("cannot log in to {server} as {user} (vhost \"{vhost}\"), {advice}{hint}");
                (ErrorKind::Auth, text)
            }
            (Stage::Open, constants::NOT_ALLOWED | constants::NOT_FOUND | constants::INVALID_PATH) => {
                let advice = if vhost.to_string().to_ascii_lowercase().contains("%2f") {
                    "its '/' was percent-encoded twice"
                } else {
                    "check its name, and the user's permissions on it"
                };
                (ErrorKind::Vhost, format!("cannot open vhost \"{vhost}\" on {server} as {user}, {advice}"))
            }
            _ => (
                ErrorKind::ConnectionClosed,
                format!(
                    "{server} closed the connection during the handshake of {user} for vhost \"{vhost}\""
                ),
            ),
        };
        with_close(Error::new(kind, text), close)
    }

    /// The connection ended in the middle of it.
    pub(crate) fn lost(&self, stage: Stage, source: Option<io::Error>) -> Error {
        let Self { server, .. } = self;
        let how = how(source.as_ref());
        let error = match stage {
            // what a server does that cannot send a close for a failed login
            Stage::Login => {
                let (user, hint) = (self.user(), self.hint());
                let text = format!(
                    "the connection to {server} was lost right after the login of {user}, which may mean that the \
                     server refused it: {how}{hint}"
                );
                // or else the network did; a server that refuses can say so
                Error::new(ErrorKind::Auth, text).with_origin(Origin::Network)
            }
            Stage::Start | Stage::Open => Error::new(
                ErrorKind::ConnectionLost,
                format!("the connection to {server} was lost during the handshake: {how}"),
            ),
        };
        caused(error, source.map(Arc::new))
    }

    /// It took too long. `None`: the server has said nothing at all.
    pub(crate) fn late(&self, stage: Option<Stage>, limit: Duration) -> Error {
        let (server, limit) = (self.server, limit.as_secs_f32());
        let text = match stage {
            None => format!(
                "{server} accepted the connection and then said nothing for {limit} s: is that the port of an AMQP \
                 server, and does the server run well?"
            ),
            Some(Stage::Start) => format!("{server} did not finish its first frame within {limit} s"),
            Some(Stage::Login) => {
                format!("{server} did not answer the login of {} within {limit} s", self.user())
            }
            Some(Stage::Open) => {
                format!("{server} did not open the vhost \"{}\" within {limit} s", self.vhost)
            }
        };
        Error::new(ErrorKind::HandshakeTimeout, text)
    }
}

/// What listens there speaks something else.
pub(crate) fn mismatch(server: &Server, mismatch: Mismatch) -> Error {
    let text = match mismatch {
        Mismatch::Version([0, 0, 9, 1]) => format!(
            "{server} refused the protocol header and asks for AMQP 0-9-1, which is what it was sent: something between \
             may change the bytes, such as a proxy"
        ),
        Mismatch::Version(header) => {
            format!("{server} does not speak AMQP 0-9-1, it asks for {}", version(header))
        }
        Mismatch::Tls => format!("{server} speaks TLS on this port: use amqps, or the port without TLS"),
        Mismatch::Http => format!("{server} is an HTTP server, not an AMQP server: check the port"),
    };
    Error::new(ErrorKind::NotAmqp, text)
}

/// The version that a protocol header asks for, as people call it.
fn version(header: [u8; 4]) -> String {
    let name = match header {
        [0, 1, 0, 0] => "AMQP 1.0",
        [2, 1, 0, 0] => "AMQP 1.0 with TLS",
        [3, 1, 0, 0] => "AMQP 1.0 with SASL",
        [1, 1, 0, 10] => "AMQP 0-10",
        [1, 1, 0, 9] => "AMQP 0-9",
        [1, 1, 8, 0] => "AMQP 0-8",
        [id, major, minor, revision] => {
            return format!("an unknown version, with the header AMQP {id} {major} {minor} {revision}");
        }
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::codec::generated::basic;
    use crate::codec::{Arguments, DecodeError, FieldTable};
    use crate::mux::sasl::{Credentials, SaslError};
    use crate::mux::tune::Offer;

    fn hello(user: &str) -> Hello {
        Hello {
            mechanisms: vec![Mechanism::Plain],
            credentials: Credentials { user: user.into(), password: "hush-hush".into() },
            client_properties: FieldTable::new(),
            vhost: ShortStr::try_from("v").unwrap(),
            offer: Offer { channel_max: 1, frame_max: 8192, heartbeat: 60 },
        }
    }

    /// Every kind of error of the operating system that has words of its own, and one that has none.
    fn system_errors() -> Vec<io::Error> {
        [104, 32, 103, 110, 113, 101, 100, 111, 13, 99, 5].map(io::Error::from_raw_os_error).into()
    }

    /// One error of each constructor here.
    fn all() -> Vec<Error> {
        let server = Server::new("broker".into(), 5672);
        let (second, at) = (Duration::from_secs(1), SocketAddr::from(([127, 0, 0, 1], 5672)));
        let call = Call { method: basic::Get::ID, channel: 3 };
        let close = connection::Close { reply_code: 403, ..connection::Close::default() };
        let hello = hello("guest");
        let login = Login::new(&server, &hello);
        let fault = Violation::Decode { method: MethodId::NONE, error: DecodeError::Truncated };
        let mut errors = vec![
            unanswered(call, second),
            no_turn(call, second),
            closed_connection(&server),
            closed_channel(1),
            violation(&server, &fault),
            connection_closed(&server, &close),
            channel_closed(1, &channel::Close { reply_code: 404, ..channel::Close::default() }),
            lost(&server, None),
            silent(&server, 60),
            runtime_ended(&server),
            not_found(&server, None),
            slow_lookup(&server, second),
            not_connected(&server, Some(at), second, None),
            not_connected(&server, None, second, None),
            login.failed(fault.into(), Stage::Start),
            login.failed(HandshakeError::Version { major: 0, minor: 8 }, Stage::Start),
            login.failed(HandshakeError::Mechanism { offered: "X".into(), wanted: "Y".into() }, Stage::Start),
            login.failed(HandshakeError::Challenge("PLAIN"), Stage::Login),
            login.failed(SaslError::Nul.into(), Stage::Start),
            login.failed(HandshakeError::StartOkTooLarge { size: 5000, limit: 4096 }, Stage::Start),
        ];
        errors.extend([0, 1, 3].map(|id| mismatch(&server, Mismatch::Version([id, 1, 0, 0]))));
        errors.extend([Mismatch::Tls, Mismatch::Http].map(|found| mismatch(&server, found)));
        for stage in [Stage::Start, Stage::Login, Stage::Open] {
            errors.push(login.failed(HandshakeError::Refused(close.clone()), stage));
            errors.push(login.lost(stage, None));
            errors.push(login.late(Some(stage), second));
            errors.extend(system_errors().into_iter().map(|error| login.lost(stage, Some(error))));
        }
        errors.push(login.late(None, second));
        for error in system_errors() {
            errors.push(not_found(&server, Some(io::Error::new(error.kind(), error.to_string()))));
            errors.push(lost(&server, Some(Arc::new(io::Error::new(error.kind(), error.to_string())))));
            errors.push(not_connected(
                &server,
                None,
                second,
                Some(io::Error::new(error.kind(), error.to_string())),
            ));
            errors.push(not_connected(&server, Some(at), second, Some(error)));
        }
        errors
    }

    #[test]
    fn no_text_repeats_the_text_of_its_source() {
        for error in all() {
            let mut text = error.to_string();
            let mut below = error.source();
            while let Some(source) = below {
                let shown = source.to_string();
                assert!(!text.to_lowercase().contains(&shown.to_lowercase()), "{text:?} repeats {shown:?}");
                text = shown;
                below = source.source();
            }
        }
    }

    #[test]
    fn every_error_of_a_connection_names_the_server_or_the_channel_and_no_password() {
        for error in all() {
            let text = error.to_string();
            let place = ["broker:5672", "channel", "this program"].iter().any(|place| text.contains(place));
            assert!(place, "{text}");
            assert!(!format!("{error:?} {error:#?}").contains("hush"), "{text}");
            assert!(!text.contains("  ") && !text.contains('\n') && text.len() < 320, "{text}");
        }
    }

    #[test]
    fn the_default_user_is_told_why_a_remote_server_refuses_it() {
        for (host, user, hinted) in [
            ("broker", "guest", true),
            ("broker", "app", false),
            ("localhost", "guest", false),
            ("127.0.0.1", "guest", false),
            ("::1", "guest", false),
        ] {
            let (server, hello) = (Server::new(host.into(), 5672), hello(user));
            let close = connection::Close { reply_code: 403, ..connection::Close::default() };
            let error = Login::new(&server, &hello).failed(HandshakeError::Refused(close), Stage::Login);
            assert_eq!(error.to_string().contains("from its own machine"), hinted, "{error}");
        }
    }

    #[test]
    fn tokios_word_for_its_own_end_is_no_loss() {
        let tokio = io::Error::other("A Tokio 1.x context was found, but it is being shutdown.");
        let error = lost(&Server::new("h".into(), 1), Some(Arc::new(tokio)));
        assert_eq!((error.kind(), error.origin()), (ErrorKind::RuntimeEnded, Origin::User));
    }
}
