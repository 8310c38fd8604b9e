//! A connection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::channel::ChannelBuilder;
use crate::codec::{FieldTable, ShortStr};
use crate::error::{Error, ErrorKind, Origin, Result};
use crate::mux::tune::Agreed;
use crate::robust::{Counters, Events, Options, RobustConnection};
use crate::single::{Blocked, ConnectOptions, SingleConnection, Status};

/// Connects to the broker at a URI such as `amqp://guest:guest@127.0.0.1/`.
///
/// The same as [`ConnectOptions::new`] and [`ConnectOptions::connect`], which see for the URI and errors.
///
/// ```no_run
/// # async fn example() -> lepus::Result<()> {
/// let connection = lepus::connect("amqp://guest:guest@127.0.0.1/").await?;
/// let channel = connection.channel().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the URI is not valid, the host cannot be reached, or the server refuses.
///
/// # Cancel safety
/// Cancel safe: dropped before it is done, it closes the socket.
///
/// # Panics
/// Outside of a tokio runtime with I/O and time enabled.
pub async fn connect(uri: &str) -> Result<Connection> {
    ConnectOptions::new(uri)?.connect().await
}

/// Connects to the broker at a URI such as `amqp://guest:guest@127.0.0.1/`, and connects again whenever that is lost.
/// See [`robust`](crate::robust).
///
/// The same as [`ConnectOptions::robust`] and [`Options::connect`], which see for errors.
///
/// ```no_run
/// # async fn example() -> lepus::Result<()> {
/// let connection = lepus::connect_robust("amqp://guest:guest@127.0.0.1/").await?;
/// let channel = connection.channel().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the URI is not valid, the host cannot be reached, or the server refuses.
///
/// # Cancel safety
/// Cancel safe: dropped before it is done, it closes the socket.
///
/// # Panics
/// Outside of a tokio runtime with I/O and time enabled.
pub async fn connect_robust(uri: &str) -> Result<Connection> {
    ConnectOptions::new(uri)?.robust().connect().await
}

impl ConnectOptions {
    /// Connects to the first host that takes the connection. Another host is tried unless one refuses user or vhost.
    ///
    /// # Errors
    /// Of the last host that was tried; its text has those of the others, too. [`ErrorKind::Connect`],
    /// [`ErrorKind::NotAmqp`], [`ErrorKind::HandshakeTimeout`], [`ErrorKind::Auth`], [`ErrorKind::Vhost`],
    /// [`ErrorKind::Protocol`], [`ErrorKind::ConnectionLost`] or, if the server has another reason to refuse,
    /// [`ErrorKind::ConnectionClosed`]; [`ErrorKind::Config`] if vhost, name or credentials break a limit of the protocol.
    ///
    /// # Cancel safety
    /// Cancel safe: dropped before it is done, it closes the socket.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    pub async fn connect(&self) -> Result<Connection> {
        let connection = self.connect_single(Arc::default()).await?;
        Ok(Connection { kind: Kind::Single(connection) })
    }
}

impl Options {
    /// Connects.
    ///
    /// # Errors
    /// Those of [`ConnectOptions::connect`], of the last host that was tried. With
    /// [`retry_first_connect`](Self::retry_first_connect) only those that cannot heal, such as a wrong
    /// password, or when all [`attempts`](Self::attempts) have failed.
    ///
    /// # Cancel safety
    /// Cancel safe: dropped before it is done, it closes the socket.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    pub async fn connect(&self) -> Result<Connection> {
        Ok(Connection { kind: Kind::Robust(self.connect_robust().await?) })
    }
}

/// A connection to a broker, plain or robust: a cheap handle, to be cloned and shared.
///
/// It stays open as long as something uses it: a clone, a channel, a consumer, a delivery. When the last
/// of these is dropped it closes in the background; [`close`](Self::close) closes it now and waits.
///
/// A plain connection ([`connect`]) ends with its socket. A robust one ([`connect_robust`]) connects again; each of its
/// sockets in turn is called a link.
#[derive(Clone)]
pub struct Connection {
    pub(super) kind: Kind,
}

/// The two ways to act.
#[derive(Clone)]
pub(super) enum Kind {
    Single(SingleConnection),
    Robust(RobustConnection),
}

impl Connection {
    /// Opens a channel, with publisher confirms unless
    /// [`without_confirms`](ChannelBuilder::without_confirms) says otherwise.
    pub fn channel(&self) -> ChannelBuilder<'_> {
        ChannelBuilder::new(self)
    }

    /// Waits until there is a link with everything restored on it. At once while that is so, and on a plain connection.
    ///
    /// # Errors
    /// Why there will be none any more.
    ///
    /// # Cancel safety
    /// Cancel safe: put it into a [`timeout`](tokio::time::timeout) to wait for a limited time.
    pub async fn ready(&self) -> Result<()> {
        match &self.kind {
            Kind::Single(connection) if connection.is_open() => Ok(()),
            Kind::Single(connection) => Err(connection.closed().await.earlier()),
            Kind::Robust(connection) => connection.ready().await,
        }
    }

    /// Whether there is a link with everything restored on it, and the server was heard within a heartbeat interval: with
    /// heartbeats off silence does not count.
    pub fn is_ready(&self) -> bool {
        match &self.kind {
            Kind::Single(connection) => connection.is_ready(),
            Kind::Robust(connection) => connection.is_ready(),
        }
    }

    /// Whether the connection has not ended for good. A robust one may wait for a link.
    pub fn is_open(&self) -> bool {
        match &self.kind {
            Kind::Single(connection) => connection.is_open(),
            Kind::Robust(connection) => connection.is_open(),
        }
    }

    /// What happens to the connection from now on: losses, attempts, restores. The stream ends with the connection. A plain
    /// connection tells when the server blocks publishers, and as the last event, unless this program closed it, why it
    /// ended: [`Event::GaveUp`](crate::robust::Event::GaveUp).
    ///
    /// ```no_run
    /// # async fn example(connection: &lepus::Connection) {
    /// use lepus::robust::Event;
    ///
    /// let mut events = connection.events();
    /// while let Some(event) = events.next().await {
    ///     match event {
    ///         Event::Lost { error } => eprintln!("lost: {error}"),
    ///         Event::Restored { took, unrestored } => {
    ///             eprintln!("back after {took:?}");
    ///             unrestored.iter().for_each(|missing| eprintln!("but for {missing}"));
    ///         }
    ///         _ => {}
    ///     }
    /// }
    /// # }
    /// ```
    pub fn events(&self) -> Events {
        match &self.kind {
            Kind::Single(connection) => Events::of_single(connection),
            Kind::Robust(connection) => connection.events(),
        }
    }

    /// How the connection is, for a health endpoint. It counts over all channels, so it is not for a hot path.
    ///
    /// ```no_run
    /// # fn example(connection: &lepus::Connection) {
    /// println!("{}", connection.status()); // ready for 12 s, 3 unconfirmed messages (96 bytes), 2 consumers
    /// # }
    /// ```
    pub fn status(&self) -> Status {
        match &self.kind {
            Kind::Single(connection) => connection.status(),
            Kind::Robust(connection) => connection.status(),
        }
    }

    /// How often things happened so far. On a plain connection, nothing of what is counted ever does.
    pub fn counters(&self) -> Counters {
        match &self.kind {
            Kind::Single(_) => Counters::default(),
            Kind::Robust(connection) => connection.counters(),
        }
    }

    /// Why the server takes no publishes at the moment, such as `low on memory`; `None` while it does.
    /// Publishers wait meanwhile, and go on by themselves.
    pub fn blocked(&self) -> Option<ShortStr> {
        match &self.kind {
            Kind::Single(connection) => connection.blocked(),
            Kind::Robust(connection) => connection.blocked(),
        }
    }

    /// Watches whether the server takes publishes. Without a link, it does not block them.
    pub fn watch_blocked(&self) -> Blocked {
        match &self.kind {
            Kind::Single(connection) => connection.watch_blocked(),
            Kind::Robust(connection) => connection.watch_blocked(),
        }
    }

    /// What the server says of itself: `product`, `version`, `cluster_name`, `capabilities`, … While there is no link, what
    /// the last one's server said.
    pub fn server_properties(&self) -> FieldTable {
        match &self.kind {
            Kind::Single(connection) => connection.server_properties().clone(),
            Kind::Robust(connection) => connection.agreement().0,
        }
    }

    /// The highest channel number, as agreed with the server on this link or the last one.
    pub fn channel_max(&self) -> u16 {
        self.agreed().channel_max
    }

    /// The size of the largest frame in bytes, as agreed with the server on this link or the last one.
    pub fn frame_max(&self) -> u32 {
        self.agreed().frame_max
    }

    /// The heartbeat interval, as agreed with the server on this link or the last one; in whole seconds, and zero if there
    /// are no heartbeats.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.agreed().heartbeat.into())
    }

    fn agreed(&self) -> Agreed {
        match &self.kind {
            Kind::Single(connection) => connection.agreed(),
            Kind::Robust(connection) => connection.agreement().1,
        }
    }

    /// Closes the connection and waits for the server's answer. Pending operations on it fail with
    /// [`ErrorKind::Closed`]; consumers' streams end. While a robust connection has no link, no further
    /// attempt is made. The second time does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the server does not answer in time, as one that blocks publishers does
    /// not. On a plain connection also why it ended before the answer. It is closed all the same.
    ///
    /// # Cancel safety
    /// Dropped before it is done, it closes in the background.
    pub async fn close(&self) -> Result<()> {
        match &self.kind {
            Kind::Single(connection) => connection.close().await,
            Kind::Robust(connection) => connection.close().await,
        }
    }

    /// Ends in order, for at most `limit`: consumers are cancelled and give back what they have not handed out. Then
    /// this waits until everything that was delivered is acknowledged, or dropped, and everything that was published
    /// is handed over and confirmed; on a robust connection after a loss on the next link. That includes publishes that
    /// wait for a link or for room, whose futures somebody has polled. Then, or when `limit` is over, it closes. It
    /// never takes longer than `limit`: a close that the server has not answered by then goes on in the background.
    ///
    /// Consumers' streams end, so whoever works on deliveries in a loop finishes by itself. On a plain connection a
    /// consumer still hands out what it has taken from the connection in one go, which is at most its prefetch.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the limit was over before all was done, with what was not; or as [`close`](Self::close).
    ///
    /// # Cancel safety
    /// Dropped before it is done, consumers have stopped, and the connection is open.
    pub async fn drain(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now().checked_add(limit);
        let drained = before(deadline, self.finish_work()).await;
        // before the close ends it all
        let left = drained.is_none().then(|| self.left());
        let closed = before(deadline, self.close()).await;
        let limit = limit.as_secs_f32();
        let text = match (left, closed) {
            (Some(left), _) => format!("drain: not done within {limit} s: {left}"),
            (None, Some(closed)) => return closed,
            (None, None) => format!(
                "drain: all was acknowledged and confirmed, but the server did not answer connection.close within {limit} s"
            ),
        };
        Err(Error::new(ErrorKind::Timeout, text).with_origin(Origin::User))
    }

    async fn finish_work(&self) {
        match &self.kind {
            Kind::Single(connection) => connection.drain().await,
            Kind::Robust(connection) => connection.drain().await,
        }
    }

    fn left(&self) -> String {
        match &self.kind {
            Kind::Single(connection) => connection.left(),
            Kind::Robust(connection) => connection.left(),
        }
    }

    /// Waits until the connection has ended for good, and tells why: [`ErrorKind::Closed`] after
    /// [`close`](Self::close), or what could not heal.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn closed(&self) -> Error {
        match &self.kind {
            Kind::Single(connection) => connection.closed().await,
            Kind::Robust(connection) => connection.closed().await,
        }
    }

    /// Gives the server a new secret, such as a renewed OAuth 2 token, before the old one expires. `reason` goes to the
    /// server's log. A robust connection uses it for later links, too, once the server has taken it; while it has no link,
    /// or if the link is lost before the answer, it returns at once and uses it for the next login.
    ///
    /// # Errors
    /// When the server refuses it: then it closes the connection, and a robust one connects again with the old secret.
    ///
    /// # Cancel safety
    /// Once it was sent, the server acts on it, whether anybody waits or not.
    pub async fn update_secret(&self, new_secret: impl Into<Bytes>, reason: &str) -> Result<()> {
        match &self.kind {
            Kind::Single(connection) => connection.update_secret(new_secret.into(), reason).await,
            Kind::Robust(connection) => connection.update_secret(new_secret.into(), reason).await,
        }
    }
}

/// Waits for a future until the deadline; `None` if it was too late.
async fn before<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, future).await.ok(),
        // one that lies too far ahead is none
        None => Some(future.await),
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Connection");
        match &self.kind {
            Kind::Single(connection) => {
                let (host, port) = connection.server();
                debug.field("host", &host).field("port", &port);
            }
            Kind::Robust(connection) => {
                debug.field("hosts", &connection.hosts());
            }
        }
        debug.field("is_ready", &self.is_ready()).finish_non_exhaustive()
    }
}
