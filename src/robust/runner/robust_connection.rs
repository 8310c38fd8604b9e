//! A connection that outlives the network.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::robust_channel::RobustChannel;
use super::robust_state::{Handle, Shared, closed};
use crate::codec::{FieldTable, ShortStr};
use crate::error::{Error, ErrorKind, Result};
use crate::mux::tune::Agreed;
use crate::protocol::{Arguments, connection, constants};
use crate::robust::event::{Counters, Events};
use crate::single::{Blocked, Status};

/// A connection that outlives losses. It closes in the background when the last handle of it, and of its channels and
/// consumers, is dropped.
#[derive(Clone)]
pub(crate) struct RobustConnection {
    handle: Arc<Handle>,
}

impl RobustConnection {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { handle: Arc::new(Handle { shared }) }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    pub(crate) async fn channel(&self, confirms: bool) -> Result<RobustChannel> {
        RobustChannel::open(&self.handle, confirms).await
    }

    /// Waits until there is a link with everything restored on it.
    pub(crate) async fn ready(&self) -> Result<()> {
        self.shared().up(None).await.map(drop)
    }

    /// Whether there is a link with everything restored on it, and calls are answered.
    pub(crate) fn is_ready(&self) -> bool {
        let shared = self.shared();
        shared.link().is_some_and(|link| link.is_ready()) && shared.unanswered.lasts().is_none()
    }

    /// Whether the connection has not ended for good; it may wait for a link.
    pub(crate) fn is_open(&self) -> bool {
        !*self.shared().stop.borrow()
    }

    /// Where it connects to.
    pub(crate) fn hosts(&self) -> Vec<(String, u16)> {
        self.shared().options().hosts.clone()
    }

    pub(crate) fn events(&self) -> Events {
        self.shared().events()
    }

    pub(crate) fn status(&self) -> Status {
        self.shared().status()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.shared().counters()
    }

    pub(crate) fn blocked(&self) -> Option<ShortStr> {
        self.shared().blocked.borrow().clone()
    }

    pub(crate) fn watch_blocked(&self) -> Blocked {
        Blocked::new(self.shared().blocked.subscribe())
    }

    /// What the server says of itself, and what was agreed with it: on the link, or the last one.
    pub(crate) fn agreement(&self) -> (FieldTable, Agreed) {
        self.shared().lock().agreement.clone()
    }

    /// Closes the connection for good. Dropped before it is done, it closes in the background.
    pub(crate) async fn close(&self) -> Result<()> {
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
            // lost at this very moment: it is closed
            _ => Ok(()),
        }
    }

    /// Stops all consumers, and waits until what they have delivered is acknowledged or dropped, and what was published is
    /// handed over and confirmed.
    pub(crate) async fn drain(&self) {
        super::robust_drain::drain(self.shared()).await;
    }

    /// What a drain would still wait for, for the text of an error.
    pub(crate) fn left(&self) -> String {
        super::robust_drain::left(self.shared())
    }

    /// Waits until the connection has ended for good, and tells why.
    pub(crate) async fn closed(&self) -> Error {
        self.shared().ended().await
    }

    /// Gives the server a new secret, and later links once the server has taken it. Without a link, or if that is lost
    /// before the server has answered, the next login tells whether it is right.
    pub(crate) async fn update_secret(&self, new_secret: Bytes, reason: &str) -> Result<()> {
        let password = String::from_utf8(new_secret.to_vec())
            .map_err(|_| Error::new(ErrorKind::Argument, "the secret is not a text"))?;
        if let Some(link) = self.shared().link()
            && let Err(error) = link.update_secret(new_secret, reason).await
            && (link.is_open() || is_secret_refused(&error) || !self.is_open())
        {
            return Err(error);
        }
        self.shared().options().connect.set_password(password);
        Ok(())
    }
}

/// Whether the server closed the connection because of the secret, and not for another reason at that moment.
fn is_secret_refused(error: &Error) -> bool {
    error.kind() == ErrorKind::ConnectionClosed
        && (error.method() == Some(<connection::UpdateSecret as Arguments>::ID)
            || error.reply_code() == Some(constants::NOT_ALLOWED))
}

impl fmt::Debug for RobustConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RobustConnection").field("hosts", &self.hosts()).finish_non_exhaustive()
    }
}
