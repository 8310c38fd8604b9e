//! The one error type: what went wrong, who started it, how far it reaches.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::codec::generated::constants::reply_name;
use crate::codec::{Method, MethodId};
use crate::mux::returns::Returned;

/// What every fallible operation of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed.
///
/// Cheap to clone: everybody who waits on a channel or connection gets the same error when it ends.
/// Never shows a password.
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
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    origin: Origin,
    scope: Scope,
    reply: Option<Reply>,
    text: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    returned: Option<Box<Returned>>,
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
    /// An argument breaks a limit of the protocol; nothing was sent.
    Argument,
    /// This crate, or what it was built with, does not do that; nothing was sent.
    Unsupported,
    /// The host was not found, or nothing accepts connections there.
    Connect,
    /// What listens there does not speak AMQP 0-9-1: TLS, HTTP, or another version of AMQP.
    NotAmqp,
    /// The server did not finish the handshake in time, or said nothing at all.
    HandshakeTimeout,
    /// The server refused the credentials, or offers none of the chosen mechanisms.
    Auth,
    /// The server refused the virtual host: it does not exist, or the user has no access.
    Vhost,
    /// The server closed the connection; see [`reply_code`](Error::reply_code).
    ConnectionClosed,
    /// The server closed the channel; see [`reply_code`](Error::reply_code).
    ChannelClosed,
    /// The network connection ended without a close.
    ConnectionLost,
    /// Nothing came from the server for twice the heartbeat interval.
    HeartbeatMissed,
    /// The server broke the protocol.
    Protocol,
    /// The server did not answer in time.
    Timeout,
    /// The user had closed the channel or connection.
    Closed,
    /// The server refused to take responsibility for a published message.
    Nacked,
    /// A mandatory message reached no queue and came back; see [`returned`](Error::returned).
    Returned,
    /// The server cancelled the consumer, for example because its queue was deleted.
    ConsumerCancelled,
    /// All channel numbers of the connection are in use.
    NoFreeChannel,
    /// The properties or headers of a received message cannot be read; its body can.
    Undecodable,
}

/// Who started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// This side: an argument, an option, a close.
    User,
    /// The server.
    Peer,
    /// What lies between.
    Network,
}

/// How far it reaches.
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
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        let (origin, scope) = kind.reach();
        Self(Arc::new(Inner {
            kind,
            origin,
            scope,
            reply: None,
            text: text.into(),
            source: None,
            returned: None,
        }))
    }

    pub(crate) fn with_source(self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.change(|inner| inner.source = Some(Arc::new(source)))
    }

    pub(crate) fn with_reply(self, code: u16, text: String, method: MethodId) -> Self {
        self.change(|inner| inner.reply = Some(Reply { code, text, method }))
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
            Self::Config => (Origin::User, Scope::Connection),
            Self::Argument | Self::Unsupported | Self::NoFreeChannel => (Origin::User, Scope::Call),
            Self::Connect | Self::ConnectionLost | Self::HeartbeatMissed => {
                (Origin::Network, Scope::Connection)
            }
            Self::NotAmqp
            | Self::HandshakeTimeout
            | Self::Auth
            | Self::Vhost
            | Self::ConnectionClosed
            | Self::Protocol => (Origin::Peer, Scope::Connection),
            Self::ChannelClosed => (Origin::Peer, Scope::Channel),
            Self::Timeout | Self::Nacked | Self::Returned | Self::ConsumerCancelled | Self::Undecodable => {
                (Origin::Peer, Scope::Call)
            }
            Self::Closed => (Origin::User, Scope::Channel),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)?;
        if let Some(Reply { code, text, method }) = &self.0.reply {
            write!(f, ": {code} ")?;
            // RabbitMQ puts the code's name in front of its text; other servers may not
            match reply_name(*code) {
                Some(name) if !text.starts_with(name) => write!(f, "{name} {text}")?,
                _ => f.write_str(text)?,
            }
            if *method != MethodId::NONE {
                write!(f, " (in answer to {})", Method::name(*method))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, origin, scope, source, .. } = &*self.0;
        let mut debug = f.debug_struct("Error");
        debug.field("kind", kind).field("origin", origin).field("scope", scope);
        debug.field("text", &self.to_string());
        if let Some(source) = source {
            debug.field("source", source);
        }
        debug.finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}
