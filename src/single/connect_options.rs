//! How to connect: what the URI says, and more.

#[cfg(feature = "_tls")]
mod secured;
mod shown;
#[cfg(not(feature = "_tls"))]
mod unsecured;

use std::fmt;
use std::future::Future;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::queue_arguments::Collected;
use super::single_connection::SingleConnection;
use super::tally::Tally;
#[cfg(feature = "_tls")]
use super::tls::Tls;
use super::uri::{HostPort, TlsQuery, Uri, UriError};
use crate::codec::primitive::heartbeat_seconds;
use crate::codec::table::FieldError;
use crate::codec::{FieldTable, FieldValue, ShortStr};
use crate::driver::connector::{Connector, Transport};
use crate::driver::dial::Stream;
use crate::driver::link::Link;
use crate::driver::link_state::Limits;
use crate::driver::race::{Connected, Means, Progress, Race};
use crate::driver::server::Server;
use crate::error::{Error, ErrorKind, Origin, Result};
use crate::mux::handshake::Hello;
use crate::mux::sasl::{Credentials, Mechanism};
use crate::mux::tune::Offer;

/// The port of AMQP without TLS.
const PORT: u16 = 5672;

/// The port of AMQP with TLS.
const TLS_PORT: u16 = 5671;

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
/// Each setting has a getter, whose name begins with `get_`; only the password has none.
///
/// # URIs
/// A URI becomes options with [`new`](Self::new), [`FromStr`] or `TryFrom<&str>`; the default is `amqp://`.
/// [`Display`](fmt::Display) shows the URI without the password, for logs. What it shows parses again, to the
/// same options apart from the password. Settings that a URI cannot have, such as limits, are not shown.
///
/// ```
/// # fn main() -> lepus::Result<()> {
/// let options: lepus::ConnectOptions = "amqp://app:hush@broker.example/a%2Fb?heartbeat=10".parse()?;
/// assert_eq!(options.get_vhost(), "a/b");
/// assert_eq!(options.to_string(), "amqp://app@broker.example:5672/a%2Fb?heartbeat=10");
/// # Ok(())
/// # }
/// ```
///
/// `Debug` shows no password, either.
#[derive(Clone)]
pub struct ConnectOptions {
    /// At least one.
    servers: Vec<Server>,
    connector: Option<Connector>,
    #[cfg(feature = "_tls")]
    tls: Option<Tls>,
    connect_timeout: Duration,
    handshake_timeout: Duration,
    credentials: Credentials,
    mechanisms: Vec<Mechanism>,
    vhost: String,
    connection_name: Option<String>,
    client_properties: Collected,
    offer: Offer,
    /// Whether the heartbeat is one that the user wants.
    is_heartbeat_set: bool,
    limits: Limits,
}

impl ConnectOptions {
    /// Reads a URI: `amqp://user:password@host:port/vhost?key=value`, or with several hosts
    /// `amqp://user:password@host1:port1,host2:port2/vhost`.
    ///
    /// Everything may be left out: `amqp://` means user and password `guest`, host `localhost`, port 5672
    /// and vhost `/`. An empty path, as in `amqp://host/`, means the vhost `/`, too. All parts are
    /// percent-decoded: write a vhost `a/b` as `a%2Fb`. An IPv6 address stands in brackets. Several hosts are
    /// tried in their order: the next one as soon as one fails, or has not answered for 250 ms. A robust connection tries
    /// them again after each loss. The query may
    /// have `heartbeat` (seconds), `connection_timeout` (milliseconds), `channel_max`, `frame_max` and
    /// `auth_mechanism` (`plain`, `amqplain`, `external`, `anonymous`; several in the order of preference).
    ///
    /// `amqps://` means TLS, and port 5671. It has more parameters, as `RabbitMQ` defines them: `cacertfile` (without it the
    /// authorities count that the operating system trusts), `certfile` with `keyfile` (without a password in the URI they mean
    /// `auth_mechanism=external`), `server_name_indication` (a name, or `disable`). All files are in PEM form, and are read at
    /// each connect. `verify=verify_none` is refused: only a method of `Tls` turns verification off. So are
    /// `password`, `depth` and `fail_if_no_peer_cert=false`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the URI or a value in it is not valid, or a query parameter is unknown; the error says what
    /// to write instead, and does not repeat the URI.
    /// [`ErrorKind::Unsupported`] for `amqps` if the crate was built without TLS.
    pub fn new(uri: &str) -> Result<Self> {
        let uri: Uri = uri
            .parse()
            .map_err(|error: UriError| Error::new(ErrorKind::Config, format!("bad AMQP URI: {error}")))?;
        let query = uri.query;
        if !uri.tls && query.tls != TlsQuery::default() {
            let text = "bad AMQP URI: it has parameters of TLS, so begin it with amqps://";
            return Err(Error::new(ErrorKind::Config, text));
        }
        let default_port = if uri.tls { TLS_PORT } else { PORT };
        let server = |HostPort { host, port }| {
            Server::new(host.unwrap_or_else(|| "localhost".into()), port.unwrap_or(default_port))
        };
        let mut options = Self { servers: uri.hosts.into_iter().map(server).collect(), ..Self::default() };
        if uri.tls {
            options.read_tls(query.tls, uri.password.is_some())?;
        }
        let credentials = &mut options.credentials;
        replace(&mut credentials.user, uri.user);
        replace(&mut credentials.password, uri.password);
        replace(&mut options.vhost, uri.vhost);
        replace(&mut options.connect_timeout, query.connection_timeout);
        if !query.auth_mechanism.is_empty() {
            options.mechanisms = query.auth_mechanism;
        }
        replace(&mut options.offer.heartbeat, query.heartbeat);
        replace(&mut options.offer.channel_max, query.channel_max);
        Ok(match query.frame_max {
            Some(frame_max) => options.frame_max(frame_max),
            None => options,
        })
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

    /// The heartbeat interval to offer; unless set 60 s, and 20 s for a [robust](Self::robust) connection. What holds is the smaller of both
    /// sides' values; zero turns heartbeats off, whatever the server wants. After half the interval without
    /// a write a heartbeat is sent; after twice the interval without a byte the connection counts as lost.
    ///
    /// AMQP counts whole seconds, up to 65,535. A fraction is rounded up, and a longer interval is lowered to that.
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.offer.heartbeat = heartbeat_seconds(interval);
        self.is_heartbeat_set = true;
        self
    }

    /// The heartbeat of a robust connection, unless the user has set one.
    pub(crate) fn default_heartbeat(mut self, interval: Duration) -> Self {
        if !self.is_heartbeat_set {
            self.offer.heartbeat = heartbeat_seconds(interval);
        }
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
    /// [`connect_timeout`](Self::connect_timeout) for each call. While it is silent for more than 250 ms, it is called for the
    /// next host, too, and the stream that comes first is taken. Its error becomes the source of one with
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

    /// How long connecting to one address of the host may take; 10 s unless set. Once an address has been silent for 250 ms,
    /// the next one is tried at the same time.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long the handshake may take after that; 10 s unless set. With TLS its handshake may take so long, too.
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.handshake_timeout = limit;
        self
    }

    /// How long a call waits for the server's answer, and before that for the answers to earlier calls on
    /// its channel; 30 s unless set, zero for ever. It does not limit the wait for a confirm.
    ///
    /// Later calls on the channel wait behind one that was not answered. So a robust connection then opens the channel again, and
    /// connects again when the server has not answered two calls in a row; not while it blocks publishers.
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

    /// The largest message that is accepted, in bytes; 128 MiB unless set. The body of a larger one is dropped as it arrives, and
    /// the message is rejected without requeueing: the server dead-letters it where its queue says so, and drops it
    /// otherwise. In place of the delivery the consumer, or the `get`, receives an error with
    /// [`ErrorKind::MessageTooLarge`]. A published message above the limit that comes back as unroutable ends the connection.
    pub fn message_limit(mut self, bytes: u64) -> Self {
        self.limits.message = bytes;
        self
    }

    /// Connects to the first host that takes the connection. Another host is tried unless one refuses user or vhost.
    pub(crate) async fn connect_single(&self, tally: Arc<Tally>) -> Result<SingleConnection> {
        let mut race = self.race();
        for server in &self.servers {
            race.add(server, None);
        }
        let mut failed = Vec::new();
        while let Some(progress) = race.next().await {
            match progress {
                Progress::Started(_) | Progress::Stalled => {}
                // the next host would say the same: they are of one cluster
                Progress::Failed(_, error) if is_refusal(&error) => return Err(error.after(failed)),
                Progress::Failed(_, error) => failed.push(error),
                Progress::Connected(Connected { server, stream, .. }) => {
                    match self.log_in(&server, stream, Arc::clone(&tally)).await {
                        Ok(connection) => return Ok(connection),
                        Err(error) => race.failed(&server, error),
                    }
                }
            }
        }
        let last =
            failed.pop().unwrap_or_else(|| Error::new(ErrorKind::Config, "there is no host to connect to"));
        Err(last.after(failed))
    }

    /// A race between hosts, without any so far.
    pub(crate) fn race(&self) -> Race {
        let (connector, connect_timeout) = (self.connector.clone(), self.connect_timeout);
        Race::new(Means { connector, connect_timeout })
    }

    /// Performs the handshake over a stream, before it that of TLS.
    pub(crate) async fn log_in(
        &self,
        server: &Server,
        stream: Stream,
        tally: Arc<Tally>,
    ) -> Result<SingleConnection> {
        let stream = self.secured(stream, server).await?;
        let link = Link::over(stream, server, self.hello()?, self.handshake_timeout, self.limits).await?;
        Ok(SingleConnection::new(link, tally))
    }

    /// The hosts and ports to connect to.
    pub(crate) fn hosts(&self) -> Vec<(String, u16)> {
        self.servers.iter().map(|server| (server.host.clone(), server.port)).collect()
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

/// What was set.
impl ConnectOptions {
    /// The hosts and their ports, in the order in which they are tried.
    pub fn get_hosts(&self) -> impl Iterator<Item = (&str, u16)> {
        self.servers.iter().map(|server| (server.host.as_str(), server.port))
    }

    /// The user to log in as.
    pub fn get_user(&self) -> &str {
        &self.credentials.user
    }

    /// See [`vhost`](Self::vhost).
    pub fn get_vhost(&self) -> &str {
        &self.vhost
    }

    /// See [`connection_name`](Self::connection_name).
    pub fn get_connection_name(&self) -> Option<&str> {
        self.connection_name.as_deref()
    }

    /// See [`mechanisms`](Self::mechanisms).
    pub fn get_mechanisms(&self) -> &[Mechanism] {
        &self.mechanisms
    }

    /// See [`heartbeat`](Self::heartbeat).
    pub fn get_heartbeat(&self) -> Duration {
        Duration::from_secs(self.offer.heartbeat.into())
    }

    /// See [`channel_max`](Self::channel_max).
    pub fn get_channel_max(&self) -> u16 {
        self.offer.channel_max
    }

    /// In bytes; see [`frame_max`](Self::frame_max).
    pub fn get_frame_max(&self) -> u32 {
        self.offer.frame_max
    }

    /// See [`connect_timeout`](Self::connect_timeout).
    pub fn get_connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// See [`handshake_timeout`](Self::handshake_timeout).
    pub fn get_handshake_timeout(&self) -> Duration {
        self.handshake_timeout
    }

    /// See [`rpc_timeout`](Self::rpc_timeout).
    pub fn get_rpc_timeout(&self) -> Duration {
        self.limits.rpc_timeout
    }

    /// See [`close_timeout`](Self::close_timeout).
    pub fn get_close_timeout(&self) -> Duration {
        self.limits.close_timeout
    }

    /// In bytes; see [`outgoing_limit`](Self::outgoing_limit).
    pub fn get_outgoing_limit(&self) -> usize {
        self.limits.outgoing
    }

    /// In bytes; see [`incoming_limit`](Self::incoming_limit).
    pub fn get_incoming_limit(&self) -> usize {
        self.limits.incoming
    }

    /// See [`unconfirmed_messages`](Self::unconfirmed_messages).
    pub fn get_unconfirmed_messages(&self) -> usize {
        self.limits.unconfirmed
    }

    /// In bytes; see [`message_limit`](Self::message_limit).
    pub fn get_message_limit(&self) -> u64 {
        self.limits.message
    }
}

impl Default for ConnectOptions {
    /// Those of `amqp://`: user and password `guest`, host `localhost`, port 5672, vhost `/`.
    fn default() -> Self {
        Self {
            servers: vec![Server::new("localhost".into(), PORT)],
            connector: None,
            #[cfg(feature = "_tls")]
            tls: None,
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            credentials: Credentials { user: "guest".into(), password: "guest".into() },
            mechanisms: vec![Mechanism::Plain, Mechanism::AmqPlain],
            vhost: "/".into(),
            connection_name: None,
            client_properties: Collected::default(),
            offer: Offer { channel_max: 2047, frame_max: 128 << 10, heartbeat: 60 },
            is_heartbeat_set: false,
            limits: Limits {
                outgoing: 256 << 10,
                incoming: 16 << 20,
                unconfirmed: 1 << 20,
                message: 128 << 20,
                rpc_timeout: Duration::from_secs(30),
                close_timeout: Duration::from_secs(5),
            },
        }
    }
}

impl FromStr for ConnectOptions {
    type Err = Error;

    /// The same as [`new`](Self::new).
    fn from_str(uri: &str) -> Result<Self> {
        Self::new(uri)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for ConnectOptions {
    /// From a URI, as [`new`](Self::new). The error does not repeat the URI, but some formats quote the line that it is in.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        crate::codec::serde_impls::parse_text(deserializer, "an AMQP URI", Self::new)
    }
}

impl TryFrom<&str> for ConnectOptions {
    type Error = Error;

    /// The same as [`new`](Self::new).
    fn try_from(uri: &str) -> Result<Self> {
        Self::new(uri)
    }
}

/// Sets what was said, and leaves the default otherwise.
fn replace<T>(default: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *default = said;
    }
}

/// Whether the server itself refused the login or the vhost.
fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Auth | ErrorKind::Vhost) && error.origin() == Origin::Peer
}
