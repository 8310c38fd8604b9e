//! The one error type: what went wrong, who started it, how far it reaches.

mod display;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::sync::Arc;

pub(crate) use self::display::ExchangeName;
use crate::codec::MethodId;
use crate::mux::incoming_return::Returned;

/// What every fallible operation of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed.
///
/// Cheap to clone: when a channel or connection ends, all pending calls on it get the same error. Later calls get it,
/// too, and their text begins with "closed earlier".
///
/// Never shows a password. Text from the server is shown on one line and cut after 255 bytes.
///
/// ```
/// # fn handle(error: lepus::Error) {
/// use lepus::{ErrorKind, Scope};
///
/// match error.kind() {
///     ErrorKind::Returned => { /* no queue was bound for the message */ }
///     _ if error.scope() == Scope::Connection => { /* connect again */ }
///     _ if error.reply_code() == Some(404) => { /* no such queue or exchange; the channel is closed */ }
///     _ => eprintln!("{error}"),
/// }
/// # }
/// ```
///
/// # Printing
/// [`Display`](std::fmt::Display) is one line: what happened, to what, and usually what to do. It does not repeat the
/// text of the [`source`](StdError::source), which may be the [`std::io::Error`] of the operating system. `{:#}` adds
/// the sources on the same line. [`Debug`](std::fmt::Debug), which Rust prints when `main` returns an error, shows the
/// text with the sources below it; `{:#?}` shows the fields.
///
/// # Kinds
/// The table has the usual origin and scope. They may differ for a particular error: ask [`origin`](Error::origin) and
/// [`scope`](Error::scope).
///
/// | kind | when it happens | origin | scope | what to do | an example |
/// |---|---|---|---|---|---|
/// | [`Config`](ErrorKind::Config) | The URI or an option is not valid. | `User` | `Connection` | Fix the URI or the option. | `bad AMQP URI: it has no scheme: begin it with amqp://` |
/// | [`Argument`](ErrorKind::Argument) | An argument exceeds a limit of the protocol; nothing was sent. | `User` | `Call` | Fix the argument. | `the routing key has 300 bytes, and AMQP allows at most 255` |
/// | [`Unsupported`](ErrorKind::Unsupported) | This crate or this kind of connection does not support the operation; nothing was sent. | `User` | `Call` | Use the alternative in the text. | `amqps: lepus was built without TLS; turn on its feature "tls" or "tls-ring"` |
/// | [`Connect`](ErrorKind::Connect) | The host was not found, or does not accept connections on the port. | `Network` | `Connection` | Check host, port and firewall, and that the server is running; try again. | `cannot connect to broker:5672: nothing listens there; check the port, and whether the server runs` |
/// | [`NotAmqp`](ErrorKind::NotAmqp) | The server speaks another protocol: TLS, HTTP, or another version of AMQP. No credentials were sent. | `Peer` | `Connection` | Fix the port or the scheme of the URI. | `broker:15672 is an HTTP server, not an AMQP server: check the port` |
/// | [`Tls`](ErrorKind::Tls) | No TLS connection could be agreed on: one side does not accept the certificate of the other, or they have no version in common. No credentials were sent. | `Peer` | `Connection` | Follow the text. | `no TLS with broker:5671: the server's certificate has expired, or the clock of this machine is wrong` |
/// | [`HandshakeTimeout`](ErrorKind::HandshakeTimeout) | The server did not complete the handshake in time, or sent nothing at all. | `Peer` | `Connection` | Check that the port is an AMQP port; try again. | `broker:5672 accepted the connection and then said nothing for 10 s` |
/// | [`Auth`](ErrorKind::Auth) | The server refused the credentials, or supports none of the chosen mechanisms. The origin is `Network` if it dropped the connection without a close. | `Peer` | `Connection` | Fix user and password. | `cannot log in to broker:5672 as user "app" (vhost "prod"), check user and password: 403 ACCESS_REFUSED` |
/// | [`Vhost`](ErrorKind::Vhost) | The server refused the virtual host: it does not exist, or the user has no access. | `Peer` | `Connection` | Create the vhost, or give the user permissions on it. | `cannot open vhost "prod" on broker:5672 as user "app", check its name, and the user's permissions on it: 530 NOT_ALLOWED` |
/// | [`ConnectionClosed`](ErrorKind::ConnectionClosed) | The server closed the connection. | `Peer` | `Connection` | Look at [`reply_code`](Error::reply_code): 320 is a shutdown, so connect again; most others are mistakes of the program. | `broker:5672 closed the connection: 320 CONNECTION_FORCED` |
/// | [`ChannelClosed`](ErrorKind::ChannelClosed) | The server closed the channel. | `Peer` | `Channel` | Look at [`reply_code`](Error::reply_code) and the text, then open another channel. | `the server closed channel 1: 404 NOT_FOUND - no queue 'jobs' in vhost '/'` |
/// | [`ConnectionLost`](ErrorKind::ConnectionLost) | The network connection broke. On a robust connection also: it is down at the moment (scope `Call`). | `Network` | `Connection` | Connect again, or use a robust connection. | `the connection to broker:5672 was lost: the other side ended it without a close (end of file)` |
/// | [`HeartbeatMissed`](ErrorKind::HeartbeatMissed) | The server sent nothing for two heartbeat intervals. | `Network` | `Connection` | Connect again; look for a server that hangs or a firewall that drops packets. | `nothing came from broker:5672 for 120 s, two heartbeat intervals: the server hangs, or the network is cut` |
/// | [`Protocol`](ErrorKind::Protocol) | The server violated the protocol. | `Peer` | `Connection` | Report it to the vendor of the server, or of a proxy in front of it. | `broker:5672 broke the protocol: unknown method 10,99 (class, method)` |
/// | [`NotSent`](ErrorKind::NotSent) | A publish was not handed over: its deadline has passed, or a robust connection has no link and was told not to wait. The message will never arrive. | `Network` | `Call` | Publish it again later. | `basic.publish to exchange "orders" with routing key "new": not sent within its deadline of 2 s; it is withdrawn and will not arrive` |
/// | [`Unconfirmed`](ErrorKind::Unconfirmed) | The deadline of a publish has passed after it was handed over. The message may have arrived, or may still arrive; it is not published again. | `Network` | `Call` | Find out whether it arrived, or publish it again where twice does no harm. | `the server did not confirm the message within its deadline of 2 s; it may arrive, and is not published again` |
/// | [`Timeout`](ErrorKind::Timeout) | An operation exceeded its time limit. The origin tells what it was waiting for: the server, the network, or `User` if the only cause is the caller's own limit. | `Peer` | `Call` | Check the server, or raise the limit in the text. | `queue.declare on channel 3: the server did not answer within 30 s` |
/// | [`Closed`](ErrorKind::Closed) | This program closed the channel or connection, or dropped its last handle. | `User` | `Channel` | Keep it open, or open another. | `this program closed the connection to broker:5672` |
/// | [`RuntimeEnded`](ErrorKind::RuntimeEnded) | The tokio runtime of the connection shut down while the program still used the connection. | `User` | `Connection` | Connect on a runtime that outlives the handles. | `the tokio runtime that drives the connection to broker:5672 was shut down` |
/// | [`Nacked`](ErrorKind::Nacked) | The server did not accept a published message. | `Peer` | `Call` | Publish it again later; check the queue's length limit. | `the server refused to take the message (basic.nack): its queue may be full` |
/// | [`Returned`](ErrorKind::Returned) | A mandatory message matched no queue, and the server returned it; see [`returned`](Error::returned). | `Peer` | `Call` | Declare a queue and bind it with the routing key. | `no queue took the message, and it came back (exchange "jobs", routing key "a.b"): 312 NO_ROUTE` |
/// | [`ConsumerCancelled`](ErrorKind::ConsumerCancelled) | The server cancelled the consumer, usually because its queue was deleted. | `Peer` | `Call` | Declare the queue again, and start the consumer again. | `the server cancelled consumer "ctag-1" on channel 3; its queue "jobs" may be gone` |
/// | [`NoFreeChannel`](ErrorKind::NoFreeChannel) | The connection has no free channel number. | `User` | `Call` | Close channels, or raise `channel_max` on both sides. | `all 2047 channels of the connection are open: close some, or raise channel_max` |
/// | [`Undecodable`](ErrorKind::Undecodable) | The properties or headers of a received message cannot be decoded. Its body is intact. | `Peer` | `Call` | Use the body alone, or reject the message. | `the message's properties cannot be read, its body can` |
/// | [`MessageTooLarge`](ErrorKind::MessageTooLarge) | A message is larger than [`message_limit`](crate::ConnectOptions::message_limit). It was rejected: the server dead-letters or drops it. | `Peer` | `Call` | Raise the limit, or look at who publishes such messages. | `a message of 20000 bytes for consumer "ctag-1" of queue "jobs" exceeds message_limit (10000 bytes), and was rejected` |
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    origin: Origin,
    scope: Scope,
    reply: Option<Reply>,
    text: Cow<'static, str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    returned: Option<Box<Returned>>,
    /// What failed before, such as the hosts that were tried first.
    others: Vec<Error>,
    /// Whether this ended the channel or connection before the call that gets it began.
    earlier: bool,
}

/// What a server says when it closes something.
#[derive(Clone)]
struct Reply {
    code: u16,
    text: String,
    method: MethodId,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The URI or an option is not valid.
    Config,
    /// An argument exceeds a limit of the protocol; nothing was sent.
    Argument,
    /// This crate or this kind of connection does not support the operation; nothing was sent.
    Unsupported,
    /// The host was not found, or does not accept connections on the port.
    Connect,
    /// The server speaks another protocol: TLS, HTTP, or another version of AMQP.
    NotAmqp,
    /// One side does not accept the certificate of the other, or they have no version of TLS in common.
    Tls,
    /// The server did not complete the handshake in time, or sent nothing at all.
    HandshakeTimeout,
    /// The server refused the credentials, or supports none of the chosen mechanisms.
    Auth,
    /// The server refused the virtual host: it does not exist, or the user has no access.
    Vhost,
    /// The server closed the connection; see [`reply_code`](Error::reply_code).
    ConnectionClosed,
    /// The server closed the channel; see [`reply_code`](Error::reply_code).
    ChannelClosed,
    /// The network connection broke.
    ConnectionLost,
    /// The server sent nothing for two heartbeat intervals.
    HeartbeatMissed,
    /// The server violated the protocol.
    Protocol,
    /// A publish was not handed over in time, and will never arrive.
    NotSent,
    /// A publish was handed over and not confirmed in time: it may have arrived.
    Unconfirmed,
    /// An operation exceeded its time limit.
    Timeout,
    /// This program closed the channel or connection, or dropped its last handle.
    Closed,
    /// The tokio runtime of the connection shut down.
    RuntimeEnded,
    /// The server did not accept a published message.
    Nacked,
    /// A mandatory message matched no queue, and the server returned it; see [`returned`](Error::returned).
    Returned,
    /// The server cancelled the consumer, usually because its queue was deleted.
    ConsumerCancelled,
    /// The connection has no free channel number.
    NoFreeChannel,
    /// The properties or headers of a received message cannot be decoded. Its body is intact.
    Undecodable,
    /// A received message is larger than the limit; it was rejected.
    MessageTooLarge,
}

/// Who started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// This side: an argument, an option, a close.
    User,
    /// The server.
    Peer,
    /// The network between, or the other host's operating system.
    Network,
}

/// How far it reaches. Nothing lies between a channel and its connection, so these three are all there will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Only this call: channel and connection go on.
    Call,
    /// The channel is gone, with its consumers and unacknowledged deliveries; the connection goes on.
    Channel,
    /// The connection is gone, or never came to be.
    Connection,
}

impl Error {
    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Who started it.
    pub fn origin(&self) -> Origin {
        self.0.origin
    }

    /// How far it reaches.
    pub fn scope(&self) -> Scope {
        self.0.scope
    }

    /// The code that the server gave, such as 404 or 406 (spec 1.2). See [`protocol::constants`].
    ///
    /// [`protocol::constants`]: crate::protocol::constants
    pub fn reply_code(&self) -> Option<u16> {
        self.0.reply.as_ref().map(|reply| reply.code)
    }

    /// The text that the server gave with the code; where it is not UTF-8, with replacement characters.
    pub fn reply_text(&self) -> Option<&str> {
        self.0.reply.as_ref().map(|reply| reply.text.as_str())
    }

    /// The method that the server blames, if it names one.
    pub fn method(&self) -> Option<MethodId> {
        self.0.reply.as_ref().map(|reply| reply.method).filter(|method| *method != MethodId::NONE)
    }

    pub(crate) fn returned_message(&self) -> Option<&Returned> {
        self.0.returned.as_deref()
    }

    /// A new error of this crate. The layers below the client and the client itself make all errors here.
    pub(crate) fn new(kind: ErrorKind, text: impl Into<Cow<'static, str>>) -> Self {
        let (origin, scope) = kind.reach();
        Self(Arc::new(Inner {
            kind,
            origin,
            scope,
            reply: None,
            text: text.into(),
            source: None,
            returned: None,
            others: Vec::new(),
            earlier: false,
        }))
    }

    /// With its cause, whose text this error's own text must not repeat.
    pub(crate) fn with_source(self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.with_shared_source(Arc::new(source))
    }

    /// Like [`with_source`](Self::with_source), for a cause that others have, too.
    pub(crate) fn with_shared_source(self, source: Arc<dyn StdError + Send + Sync>) -> Self {
        self.change(|inner| inner.source = Some(source))
    }

    /// With what failed before it, in that order.
    pub(crate) fn after(self, others: Vec<Self>) -> Self {
        if others.is_empty() { self } else { self.change(|inner| inner.others = others) }
    }

    /// The same for a call that began after the end: it must not take an old failure for its own. What this program did
    /// itself reads the same before and after.
    pub(crate) fn earlier(&self) -> Self {
        match self.0.kind {
            ErrorKind::Closed | ErrorKind::RuntimeEnded => self.clone(),
            _ => self.clone().change(|inner| inner.earlier = true),
        }
    }

    pub(crate) fn with_reply(self, code: u16, text: String, method: MethodId) -> Self {
        self.change(|inner| inner.reply = Some(Reply { code, text, method }))
    }

    /// With more to say, behind its text.
    pub(crate) fn with_more(self, more: &str) -> Self {
        self.change(|inner| inner.text.to_mut().push_str(more))
    }

    pub(crate) fn with_scope(self, scope: Scope) -> Self {
        self.change(|inner| inner.scope = scope)
    }

    pub(crate) fn with_origin(self, origin: Origin) -> Self {
        self.change(|inner| inner.origin = origin)
    }

    pub(crate) fn with_returned(self, returned: Box<Returned>) -> Self {
        self.change(|inner| inner.returned = Some(returned))
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl ErrorKind {
    /// Who starts errors of this kind, and how far they reach, unless the place that makes one knows better.
    const fn reach(self) -> (Origin, Scope) {
        match self {
            Self::Config | Self::RuntimeEnded => (Origin::User, Scope::Connection),
            Self::Argument | Self::Unsupported | Self::NoFreeChannel => (Origin::User, Scope::Call),
            Self::Connect | Self::ConnectionLost | Self::HeartbeatMissed => {
                (Origin::Network, Scope::Connection)
            }
            Self::NotAmqp
            | Self::Tls
            | Self::HandshakeTimeout
            | Self::Auth
            | Self::Vhost
            | Self::ConnectionClosed
            | Self::Protocol => (Origin::Peer, Scope::Connection),
            Self::NotSent | Self::Unconfirmed => (Origin::Network, Scope::Call),
            Self::ChannelClosed => (Origin::Peer, Scope::Channel),
            Self::Timeout
            | Self::Nacked
            | Self::Returned
            | Self::ConsumerCancelled
            | Self::Undecodable
            | Self::MessageTooLarge => (Origin::Peer, Scope::Call),
            Self::Closed => (Origin::User, Scope::Channel),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This file's text, which has the documented table.
    const OWN: &str = include_str!("error.rs");

    /// The variants, as they stand in the source.
    fn kinds() -> Vec<&'static str> {
        let body = OWN.split_once("pub enum ErrorKind {").unwrap().1.split_once("\n}").unwrap().0;
        body.lines()
            .filter_map(|line| line.trim().strip_suffix(','))
            .filter(|line| !line.contains(' '))
            .collect()
    }

    #[test]
    fn every_error_kind_is_in_the_documented_table() {
        let rows: Vec<Vec<_>> = OWN
            .lines()
            .filter_map(|line| line.strip_prefix("/// | [`"))
            .map(|row| row.split(" | ").map(str::trim).collect())
            .collect();
        let documented: Vec<_> = rows.iter().map(|row| row[0].split_once('`').unwrap().0).collect();
        let kinds = kinds();
        assert!(kinds.len() > 20, "{kinds:?}");
        for kind in &kinds {
            assert!(documented.contains(kind), "{kind} is not in the table");
        }
        assert_eq!(documented.len(), kinds.len(), "a row is there twice, or of no kind: {documented:?}");
        for row in &rows {
            assert!(row.len() == 6 && row.iter().all(|cell| cell.len() > 2), "{row:?}");
        }
    }

    #[test]
    fn the_table_has_the_usual_origin_and_scope() {
        for kind in ALL {
            let (origin, scope) = kind.reach();
            let row = OWN.lines().find(|line| line.starts_with(&format!("/// | [`{kind:?}`]"))).unwrap();
            assert!(row.contains(&format!(" | `{origin:?}` | `{scope:?}` | ")), "{row}");
        }
        assert_eq!(ALL.map(|kind| format!("{kind:?}")).to_vec(), kinds());
    }

    const ALL: [ErrorKind; 25] = [
        ErrorKind::Config,
        ErrorKind::Argument,
        ErrorKind::Unsupported,
        ErrorKind::Connect,
        ErrorKind::NotAmqp,
        ErrorKind::Tls,
        ErrorKind::HandshakeTimeout,
        ErrorKind::Auth,
        ErrorKind::Vhost,
        ErrorKind::ConnectionClosed,
        ErrorKind::ChannelClosed,
        ErrorKind::ConnectionLost,
        ErrorKind::HeartbeatMissed,
        ErrorKind::Protocol,
        ErrorKind::NotSent,
        ErrorKind::Unconfirmed,
        ErrorKind::Timeout,
        ErrorKind::Closed,
        ErrorKind::RuntimeEnded,
        ErrorKind::Nacked,
        ErrorKind::Returned,
        ErrorKind::ConsumerCancelled,
        ErrorKind::NoFreeChannel,
        ErrorKind::Undecodable,
        ErrorKind::MessageTooLarge,
    ];

    #[test]
    fn debug_is_the_text_and_its_sources_like_main_prints_it() {
        let io = std::io::Error::from_raw_os_error(111);
        let error =
            Error::new(ErrorKind::Connect, "cannot connect to h:1: nothing listens there").with_source(io);
        let why = error.to_string();
        assert_eq!(why, "cannot connect to h:1: nothing listens there");
        let error = Error::new(ErrorKind::Timeout, "no connection within 2 s").with_source(error);
        let system = std::io::Error::from_raw_os_error(111).to_string();
        assert_eq!(
            format!("{error:?}"),
            format!("no connection within 2 s\n\nCaused by:\n    {why}\n    {system}")
        );
        assert_eq!(format!("{error:#}"), format!("no connection within 2 s: {why}: {system}"));
        let fields = format!("{error:#?}");
        assert!(fields.contains("kind: Timeout") && fields.contains("origin: Peer"), "{fields}");
        assert_eq!(format!("{:?}", Error::new(ErrorKind::Closed, "closed")), "closed");
    }

    #[test]
    fn what_failed_before_follows_the_last_error() {
        let first = Error::new(ErrorKind::Connect, "a: refused");
        let error = Error::new(ErrorKind::Connect, "b: refused").after(vec![first]);
        assert_eq!(error.to_string(), "b: refused; before that: a: refused");
    }

    #[test]
    fn a_later_call_is_told_that_the_end_came_earlier() {
        let closed = Error::new(ErrorKind::ChannelClosed, "the server closed channel 1").with_reply(
            404,
            "NOT_FOUND - no queue".into(),
            MethodId::new(50, 10),
        );
        let told = closed.earlier();
        assert_eq!(
            told.to_string(),
            "closed earlier: the server closed channel 1: 404 NOT_FOUND - no queue (in answer to queue.declare)"
        );
        assert_eq!((told.kind(), told.reply_code()), (ErrorKind::ChannelClosed, Some(404)));
        assert_eq!(told.earlier().to_string(), told.to_string());
        assert_eq!(Error::new(ErrorKind::Closed, "closed").earlier().to_string(), "closed");
    }

    #[test]
    fn a_reply_text_cannot_forge_lines_and_an_unknown_method_is_named_by_numbers() {
        let error = Error::new(ErrorKind::ConnectionClosed, "the server closed the connection").with_reply(
            541,
            "a\nb".into(),
            MethodId::new(99, 1),
        );
        assert_eq!(
            error.to_string(),
            "the server closed the connection: 541 INTERNAL_ERROR a\\nb (in answer to method 99,1)"
        );
        assert_eq!(error.reply_text(), Some("a\nb"));
    }
}
