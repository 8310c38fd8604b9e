//! A connection.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use super::channel::OpenChannel;
use super::options::ConnectOptions;
use crate::codec::generated::{connection, constants};
use crate::codec::{FieldTable, ShortStr};
use crate::driver::link::Link;
use crate::error::{Error, ErrorKind, Result};

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

/// A connection to a broker: a cheap handle, to be cloned and shared.
///
/// It stays open as long as something uses it: a clone, a channel, a consumer, a delivery. When the last
/// of these is dropped it closes in the background; [`close`](Self::close) closes it now and waits.
#[derive(Clone)]
pub struct Connection {
    link: Arc<Link>,
}

impl Connection {
    pub(super) fn new(link: Link) -> Self {
        Self { link: Arc::new(link) }
    }

    /// Opens a channel, with publisher confirms unless
    /// [`without_confirms`](OpenChannel::without_confirms) says otherwise.
    pub fn channel(&self) -> OpenChannel<'_> {
        OpenChannel::new(&self.link)
    }

    /// Closes the connection: tells the server, and waits for its answer. Whoever waits for anything on
    /// the connection gets [`ErrorKind::Closed`]; consumers' streams end. The second time does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the server does not answer in time, as one that blocks publishers does
    /// not, or why the connection ended before the answer; it is closed all the same.
    ///
    /// # Cancel safety
    /// Dropped before it is done, it closes in the background.
    pub async fn close(&self) -> Result<()> {
        self.link.close(constants::REPLY_SUCCESS, ShortStr::empty()).await
    }

    /// Ends the connection at once, for this reason, without waiting for the server's answer.
    pub(crate) fn give_up(&self, error: Error) {
        self.link.give_up(error);
    }

    /// Waits until the connection has ended, and tells why: [`ErrorKind::Closed`] after
    /// [`close`](Self::close).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn closed(&self) -> Error {
        self.link.shared.ended().await;
        self.link.shared.end_reason()
    }

    /// The host and port that it is with.
    pub(crate) fn server(&self) -> (&str, u16) {
        let server = &self.link.shared.server;
        (&server.host, server.port)
    }

    /// Whether calls are still accepted.
    pub fn is_open(&self) -> bool {
        self.link.shared.lock().is_open()
    }

    /// Why the server takes no publishes at the moment, such as `low on memory`; `None` while it does.
    /// Publishers wait meanwhile, and go on by themselves.
    pub fn blocked(&self) -> Option<ShortStr> {
        self.link.shared.blocked.borrow().clone()
    }

    /// Watches whether the server takes publishes.
    pub fn watch_blocked(&self) -> Blocked {
        Blocked::new(self.link.shared.blocked.subscribe())
    }

    /// Gives the server a new secret, such as a renewed OAuth 2 token, before the old one expires.
    /// `reason` goes to the server's log.
    ///
    /// # Errors
    /// When the server refuses it: then it closes the connection.
    ///
    /// # Cancel safety
    /// Once it was sent, the server acts on it, whether anybody waits or not.
    pub async fn update_secret(&self, new_secret: impl Into<Bytes>, reason: &str) -> Result<()> {
        let reason = ShortStr::try_from(reason)
            .map_err(|error| Error::new(ErrorKind::Argument, format!("the reason: {error}")))?;
        let method = connection::UpdateSecret { new_secret: new_secret.into(), reason };
        self.link.update_secret(&method).await
    }

    /// What the server says of itself: `product`, `version`, `cluster_name`, `capabilities`, …
    pub fn server_properties(&self) -> &FieldTable {
        &self.link.server_properties
    }

    /// The highest channel number, as agreed with the server.
    pub fn channel_max(&self) -> u16 {
        self.link.agreed.channel_max
    }

    /// The size of the largest frame in bytes, as agreed with the server.
    pub fn frame_max(&self) -> u32 {
        self.link.agreed.frame_max
    }

    /// The heartbeat interval in seconds, as agreed with the server; 0 if there are no heartbeats.
    pub fn heartbeat(&self) -> u16 {
        self.link.agreed.heartbeat
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = self.server();
        let mut debug = f.debug_struct("Connection");
        debug
            .field("host", &host)
            .field("port", &port)
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}

/// Watches whether the server takes publishes; see [`Connection::watch_blocked`].
#[derive(Clone, Debug)]
pub struct Blocked(watch::Receiver<Option<ShortStr>>);

impl Blocked {
    pub(crate) fn new(blocked: watch::Receiver<Option<ShortStr>>) -> Self {
        Self(blocked)
    }

    /// Waits for the next change, and returns the reason, or `None` if publishes are taken again. Quick
    /// changes in between may be missed; the last one is not. After the connection's end: waits for ever.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn changed(&mut self) -> Option<ShortStr> {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.0.borrow_and_update().clone()
    }
}
