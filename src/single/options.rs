//! How to connect: what the URI says, and more.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::arguments::Collected;
use super::single_connection::SingleConnection;
use super::tally::Tally;
use super::uri::{HostPort, Uri, UriError};
use crate::codec::primitive::heartbeat_seconds;
use crate::codec::table::FieldError;
use crate::codec::{FieldTable, FieldValue, ShortStr};
use crate::driver::connector::{Connector, Transport};
use crate::driver::link::{Address, Link};
use crate::driver::server::Server;
use crate::driver::shared::Limits;
use crate::error::{Error, ErrorKind, Origin, Result, Scope};
use crate::mux::handshake::Hello;
use crate::mux::sasl::{Credentials, Mechanism};
use crate::mux::tune::Offer;

/// The port of AMQP without TLS.
const PORT: u16 = 5672;

/// The least `frame_max` that is offered, in bytes: `RabbitMQ` from 4.1 on refuses less.
const FRAME_MAX_LEAST: u32 = 8192;

/// How and where to connect.
///
/// ```no_run
/// # async fn example() -> lepus::Result<()> {
/// use std::time::Duration;
///
/// let connection = lepus::ConnectOptions::new("amqp://guest:guest@127.0.0.1/")?
///     .connection_name("report service")
///     .heartbeat(Duration::from_secs(20))
///     .connect_timeout(Duration::from_secs(3))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// `Debug` shows no password.
#[derive(Clone)]
pub struct ConnectOptions {
    /// At least one.
    servers: Vec<Server>,
    connector: Option<Connector>,
    connect_timeout: Duration,
    handshake_timeout: Duration,
    credentials: Credentials,
    mechanisms: Vec<Mechanism>,
    vhost: String,
    connection_name: Option<String>,
    client_properties: Collected,
    offer: Offer,
    limits: Limits,
}

impl ConnectOptions {
    /// Reads a URI: `amqp://user:password@host:port/vhost?key=value`, or with several hosts
    /// `amqp://user:password@host1:port1,host2:port2/vhost`.
    ///
    /// Everything may be left out: `amqp://` means user and password `guest`, host `localhost`, port 5672
    /// and vhost `/`. An empty path, as in `amqp://host/`, means the vhost `/`, too. All parts are
    /// percent-decoded: write a vhost `a/b` as `a%2Fb`. An IPv6 address stands in brackets. Several hosts are
    /// tried in their order; a robust connection tries them again after each loss. The query may
    /// have `heartbeat` (seconds), `connection_timeout` (milliseconds), `channel_max`, `frame_max` and
    /// `auth_mechanism` (`plain`, `amqplain`, `external`, `anonymous`; several in the order of preference).
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the URI or a value in it is not valid, or a query parameter is unknown; the error says what
    /// to write instead, and does not repeat the URI.
    /// [`ErrorKind::Unsupported`] for `amqps`: this version has no TLS.
    pub fn new(uri: &str) -> Result<Self> {
        let uri: Uri = uri
            .parse()
            .map_err(|error: UriError| Error::new(ErrorKind::Config, format!("bad AMQP URI: {error}")))?;
        if uri.tls {
            let text = "amqps: this version of lepus has no TLS; use amqp:// and a port without TLS";
            return Err(Error::new(ErrorKind::Unsupported, text).with_scope(Scope::Connection));
        }
        let server = |HostPort { host, port }| {
            Server::new(host.unwrap_or_else(|| "localhost".into()), port.unwrap_or(PORT))
        };
        let query = uri.query;
        let mut options = Self {
            servers: uri.hosts.into_iter().map(server).collect(),
            connector: None,
            connect_timeout: query.connection_timeout.unwrap_or(Duration::from_secs(10)),
            handshake_timeout: Duration::from_secs(10),
            credentials: Credentials {
                user: uri.user.unwrap_or_else(|| "guest".into()),
                password: uri.password.unwrap_or_else(|| "guest".into()),
            },
            mechanisms: vec![Mechanism::Plain, Mechanism::AmqPlain],
            vhost: uri.vhost.unwrap_or_else(|| "/".into()),
            connection_name: None,
            client_properties: Collected::default(),
            offer: Offer { channel_max: 2047, frame_max: 128 << 10, heartbeat: 60 },
            limits: Limits {
                outgoing: 256 << 10,
                incoming: 16 << 20,
                unconfirmed: 1 << 20,
                message: 128 << 20,
                rpc_timeout: Duration::from_secs(30),
                close_timeout: Duration::from_secs(5),
            },
        };
        if !query.auth_mechanism.is_empty() {
            options.mechanisms = query.auth_mechanism;
        }
        if let Some(heartbeat) = query.heartbeat {
            options = options.heartbeat(Duration::from_secs(heartbeat.into()));
        }
        if let Some(channel_max) = query.channel_max {
            options = options.channel_max(channel_max);
        }
        if let Some(frame_max) = query.frame_max {
            options = options.frame_max(frame_max);
        }
        Ok(options)
    }

    /// A name for the connection, which the server shows in its lists and its log.
    pub fn connection_name(mut self, name: impl Into<String>) -> Self {
        self.connection_name = Some(name.into());
        self
    }

    /// A further client property, beside `product`, `version`, `platform`, `connection_name` and
    /// `capabilities`.
    ///
    /// A name of more than 255 bytes, or an integer that does not fit into an `i64`, is an error when it connects.
    pub fn client_property(
        mut self,
        name: impl TryInto<ShortStr>,
        value: impl TryInto<FieldValue, Error: fmt::Display>,
    ) -> Self {
        self.client_properties.set(name, value);
        self
    }

    /// User and password.
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Credentials { user: user.into(), password: password.into() };
        self
    }

    /// The ways to log in, in the order of preference; the first that the server offers is taken.
    /// `PLAIN`, then `AMQPLAIN` unless set.
    pub fn mechanisms(mut self, mechanisms: impl IntoIterator<Item = Mechanism>) -> Self {
        self.mechanisms = mechanisms.into_iter().collect();
        self
    }

    /// The virtual host; at most 255 bytes.
    pub fn vhost(mut self, vhost: impl Into<String>) -> Self {
        self.vhost = vhost.into();
        self
    }

    /// The heartbeat interval to offer; 60 s unless set. What holds is the smaller of both
    /// sides' values; zero turns heartbeats off, whatever the server wants. After half the interval without
    /// a write a heartbeat is sent; after twice the interval without a byte the connection counts as lost.
    ///
    /// AMQP counts whole seconds, up to 65,535. A fraction is rounded up, and a longer interval is lowered to that.
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.offer.heartbeat = heartbeat_seconds(interval);
        self
    }

    /// The most channels to offer; 2047 unless set, 0 for as many as the server allows.
    pub fn channel_max(mut self, channels: u16) -> Self {
        self.offer.channel_max = channels;
        self
    }

    /// The largest frame to offer, in bytes; 131,072 unless set, 0 for as large as the server allows.
    /// Less than 8,192 is raised to that: current servers refuse it.
    pub fn frame_max(mut self, bytes: u32) -> Self {
        self.offer.frame_max = if bytes == 0 { 0 } else { bytes.max(FRAME_MAX_LEAST) };
        self
    }

    /// Has connections made by a function, in place of looking up the host and connecting over TCP: through a proxy, over a
    /// Unix socket, or to a broker in memory. It is given host and port, and yields the stream to speak AMQP over.
    ///
    /// It is called for each attempt to connect to a host; a robust connection calls it again after each loss. It has
    /// [`connect_timeout`](Self::connect_timeout) for each call. Its error becomes the source of one with
    /// [`ErrorKind::Connect`] that names the host.
    ///
    /// ```no_run
    /// # #[cfg(unix)]
    /// # async fn example() -> lepus::Result<()> {
    /// use tokio::net::UnixStream;
    ///
    /// let connection = lepus::ConnectOptions::new("amqp://guest:guest@localhost/")?
    ///     .connector(|_host, _port| UnixStream::connect("/run/rabbitmq.sock"))
    ///     .connect()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connector<F, T>(mut self, connect: impl Fn(&str, u16) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<T>> + Send + 'static,
        T: Transport,
    {
        self.connector = Some(Connector::new(connect));
        self
    }

    /// How long connecting to one address of the host may take; 10 s unless set.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long the handshake may take after that; 10 s unless set.
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.handshake_timeout = limit;
        self
    }

    /// How long a call waits for the server's answer, and before that for the answers to earlier calls on
    /// its channel; 30 s unless set, zero for ever. It does not limit the wait for a confirm.
    pub fn rpc_timeout(mut self, limit: Duration) -> Self {
        self.limits.rpc_timeout = limit;
        self
    }

    /// How long closing a channel or the connection may take; 5 s unless set.
    pub fn close_timeout(mut self, limit: Duration) -> Self {
        self.limits.close_timeout = limit;
        self
    }

    /// Publishers wait while this many bytes wait to be written; 256 KiB unless set. Memory for outgoing
    /// messages stays below twice this, plus one message. A message beyond 256 KiB is written in turns: small ones of
    /// other channels do not wait for it.
    ///
    /// Acks, and answers that the server asks for, cannot be held back. If 64 times as many bytes of them wait, and at least
    /// 1 MiB, because the server does not read, the connection ends with [`ErrorKind::Protocol`].
    pub fn outgoing_limit(mut self, bytes: usize) -> Self {
        self.limits.outgoing = bytes.max(1);
        self
    }

    /// Reading pauses while this many bytes wait for consumers that no prefetch limit bounds, or four times as many for
    /// those that one does; 16 MiB unless set. What a consumer takes together counts until all of it was handed out. While
    /// a call or a confirm is awaited reading goes on, up to four times as much.
    pub fn incoming_limit(mut self, bytes: usize) -> Self {
        self.limits.incoming = bytes;
        self
    }

    /// Publishers wait while this many publishes of their channel are not confirmed; 1,048,576 unless set. A publish
    /// that was confirmed before an older one counts until that is confirmed, too. Each takes at most 80 bytes: so this
    /// bounds the memory for confirms of each channel.
    pub fn unconfirmed_messages(mut self, messages: usize) -> Self {
        self.limits.unconfirmed = messages.max(1);
        self
    }

    /// The largest message that is accepted, in bytes; 128 MiB unless set. A server that announces a
    /// larger one has broken the agreement, and loses the connection.
    pub fn message_limit(mut self, bytes: u64) -> Self {
        self.limits.message = bytes;
        self
    }

    /// Connects to the first host that takes the connection. Another host is tried unless one refuses user or vhost.
    pub(crate) async fn connect_single(&self, tally: Arc<Tally>) -> Result<SingleConnection> {
        let hello = self.hello()?;
        let mut failed = Vec::new();
        for server in &self.servers {
            let address = Address {
                server: server.clone(),
                connector: self.connector.clone(),
                connect_timeout: self.connect_timeout,
                handshake_timeout: self.handshake_timeout,
            };
            match Link::connect(&address, hello.clone(), self.limits).await {
                Ok(link) => return Ok(SingleConnection::new(link, tally)),
                // the next host would say the same: they are of one cluster
                Err(error) if is_refusal(&error) => return Err(error.after(failed)),
                Err(error) => failed.push(error),
            }
        }
        let last =
            failed.pop().unwrap_or_else(|| Error::new(ErrorKind::Config, "there is no host to connect to"));
        Err(last.after(failed))
    }

    /// The hosts and ports to connect to.
    pub(crate) fn hosts(&self) -> Vec<(String, u16)> {
        self.servers.iter().map(|server| (server.host.clone(), server.port)).collect()
    }

    /// The same for just this host, whose loss somebody else logs.
    pub(crate) fn at(&self, host: impl Into<String>, port: u16) -> Self {
        let server = Server { quiet: true, ..Server::new(host.into(), port) };
        Self { servers: vec![server], ..self.clone() }
    }

    /// How long a call may take; `None` for ever.
    pub(crate) fn call_limit(&self) -> Option<Duration> {
        Some(self.limits.rpc_timeout).filter(|limit| !limit.is_zero())
    }

    /// The same, with another password.
    pub(crate) fn set_password(&mut self, password: String) {
        self.credentials.password = password;
    }

    fn hello(&self) -> Result<Hello> {
        let vhost = ShortStr::try_from(&self.vhost)
            .map_err(|error| Error::new(ErrorKind::Config, format!("the vhost: {error}")))?;
        Ok(Hello {
            mechanisms: self.mechanisms.clone(),
            credentials: self.credentials.clone(),
            client_properties: self.all_client_properties()?,
            vhost,
            offer: self.offer,
        })
    }

    fn all_client_properties(&self) -> Result<FieldTable> {
        let more = self.client_properties.clone().finish()?;
        let fill = || {
            let mut capabilities = FieldTable::new();
            for capability in [
                "publisher_confirms",
                "exchange_exchange_bindings",
                "basic.nack",
                "consumer_cancel_notify",
                "connection.blocked",
                "authentication_failure_close",
            ] {
                capabilities.insert(capability, true)?;
            }
            let mut properties = FieldTable::new();
            properties.insert("product", "lepus")?;
            properties.insert("version", env!("CARGO_PKG_VERSION"))?;
            properties.insert("platform", concat!("Rust, ", env!("CARGO_PKG_RUST_VERSION"), " or later"))?;
            if let Some(name) = &self.connection_name {
                properties.insert("connection_name", name.clone())?;
            }
            for (name, value) in more.iter() {
                properties.insert(name, value.clone())?;
            }
            properties.insert("capabilities", capabilities)?;
            Ok::<_, FieldError>(properties)
        };
        fill().map_err(|error| Error::new(ErrorKind::Config, format!("the client properties: {error}")))
    }
}

/// Whether the server itself refused the login or the vhost.
fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Auth | ErrorKind::Vhost) && error.origin() == Origin::Peer
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("hosts", &self.hosts())
            .field("connector", &self.connector)
            .field("credentials", &self.credentials)
            .field("vhost", &self.vhost)
            .field("connection_name", &self.connection_name)
            .field("offer", &self.offer)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
