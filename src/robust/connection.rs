//! A connection that outlives the network.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::channel::OpenChannel;
use super::event::{Counters, Events};
use super::shared::{Handle, Shared, before, closed};
use crate::client::{Blocked, ConnectOptions};
use crate::codec::{FieldTable, ShortStr};
use crate::error::{Error, ErrorKind, Origin, Result};

/// Connects to the broker at a URI such as `amqp://guest:guest@127.0.0.1/`, and connects again whenever that is lost.
/// See [`robust`](crate::robust).
///
/// The same as [`ConnectOptions::robust`] and [`Options::connect`](super::Options::connect), which see for errors.
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

/// A connection that outlives losses: a cheap handle, to be cloned and shared.
///
/// It stays open as long as something uses it: a clone, a channel, an exchange, a queue, a consumer. When the last of
/// these is dropped it closes in the background; [`close`](Self::close) closes it now and waits.
#[derive(Clone)]
pub struct Connection {
    handle: Arc<Handle>,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { handle: Arc::new(Handle { shared }) }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Opens a channel, with publisher confirms unless
    /// [`without_confirms`](OpenChannel::without_confirms) says otherwise.
    pub fn channel(&self) -> OpenChannel<'_> {
        OpenChannel::new(&self.handle)
    }

    /// Waits until there is a link with everything restored on it. At once while that is so.
    ///
    /// # Errors
    /// Why there will be none any more.
    ///
    /// # Cancel safety
    /// Cancel safe: put it into a [`timeout`](tokio::time::timeout) to wait for a limited time.
    pub async fn ready(&self) -> Result<()> {
        self.shared().up(None).await.map(drop)
    }

    /// Whether there is a link with everything restored on it.
    pub fn is_ready(&self) -> bool {
        self.shared().link().is_some_and(|(link, _)| link.is_open())
    }

    /// Whether the connection has not ended for good; it may wait for a link.
    pub fn is_open(&self) -> bool {
        !*self.shared().stop.borrow()
    }

    /// What happens to the connection from now on: losses, attempts, restores. The stream ends with the connection.
    ///
    /// ```no_run
    /// # async fn example(connection: &lepus::robust::Connection) {
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
        self.shared().events()
    }

    /// How often things happened so far.
    pub fn counters(&self) -> Counters {
        self.shared().counters()
    }

    /// Why the server takes no publishes at the moment, such as `low on memory`; `None` while it does.
    pub fn blocked(&self) -> Option<ShortStr> {
        self.shared().blocked.borrow().clone()
    }

    /// Watches whether the server takes publishes. Without a link, it does not block them.
    pub fn watch_blocked(&self) -> Blocked {
        Blocked::new(self.shared().blocked.subscribe())
    }

    /// What the server says of itself; `None` while there is no link.
    pub fn server_properties(&self) -> Option<FieldTable> {
        self.shared().link().map(|(link, _)| link.server_properties().clone())
    }

    /// Closes the connection: tells the server, and waits for its answer. Whoever waits for anything on it gets
    /// [`ErrorKind::Closed`]; consumers' streams end. While there is no link, no further attempt is made. The second
    /// time does nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the server does not answer in time; it is closed all the same.
    ///
    /// # Cancel safety
    /// Dropped before it is done, it closes in the background.
    pub async fn close(&self) -> Result<()> {
        let link = self.shared().end(&closed());
        let mut supervised = self.shared().supervised.subscribe();
        // both begin at once, so that the link closes also if nobody waits any longer: deliveries may hold it open
        let closing = async {
            match &link {
                Some(link) => link.close().await,
                None => Ok(()),
            }
        };
        // an attempt that is under way ends, too; an error is impossible: the sender is here
        let unsupervised = async { drop(supervised.wait_for(|supervised| !*supervised).await) };
        let (closed, ()) = tokio::join!(closing, unsupervised);
        match closed {
            Err(error) if error.kind() == ErrorKind::Timeout => Err(error),
            // lost at the last moment: closed as well
            _ => Ok(()),
        }
    }

    /// Closes the connection in order. Consumers stop, and what nobody has begun to work on goes back to the queues. Then
    /// this waits until everything that was delivered is acknowledged, or dropped, and everything that was published
    /// is confirmed; after a loss on the next link. Then, or when `limit` is over, it closes. It never takes longer than
    /// `limit`: a close that the server has not answered by then goes on in the background.
    ///
    /// Consumers' streams end, so whoever works on deliveries in a loop finishes by itself.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if the limit was over before all was done, with what was not; or as [`close`](Self::close).
    ///
    /// # Cancel safety
    /// Dropped before it is done, consumers have stopped, and the connection is open.
    pub async fn drain(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now().checked_add(limit);
        let drained = before(deadline, super::drain::drain(self.shared())).await;
        // before the close ends it all
        let left = drained.is_none().then(|| super::drain::left(self.shared()));
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

    /// Waits until the connection has ended for good, and tells why: [`ErrorKind::Closed`] after
    /// [`close`](Self::close), or what could not heal.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn closed(&self) -> Error {
        self.shared().ended().await
    }

    /// Gives the server a new secret, such as a renewed OAuth 2 token, before the old one expires; it is also used for
    /// later links. `reason` goes to the server's log.
    ///
    /// # Errors
    /// As [`Connection::update_secret`](crate::Connection::update_secret). While there is no link, none.
    ///
    /// # Cancel safety
    /// Later links use it, whether anybody waits or not.
    pub async fn update_secret(&self, new_secret: impl Into<Bytes>, reason: &str) -> Result<()> {
        let new_secret = new_secret.into();
        let password = String::from_utf8(new_secret.to_vec())
            .map_err(|_| Error::new(ErrorKind::Argument, "the secret is not a text"))?;
        self.shared().options().connect.set_password(password);
        match self.shared().link() {
            Some((link, _)) => match link.update_secret(new_secret, reason).await {
                // the next link has it from the start
                Err(_) if !link.is_open() && self.is_open() => Ok(()),
                updated => updated,
            },
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hosts, is_ready) = (self.shared().options().hosts.clone(), self.is_ready());
        f.debug_struct("Connection")
            .field("hosts", &hosts)
            .field("is_ready", &is_ready)
            .finish_non_exhaustive()
    }
}
