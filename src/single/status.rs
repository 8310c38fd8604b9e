//! What a connection says of its health.

use std::fmt;
use std::time::Duration;

use crate::codec::ShortStr;
use crate::error::Error;

/// What a connection does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectionState {
    /// There is no link; a robust connection tries to connect.
    Connecting,
    /// There is a new link, and a robust connection brings everything back on it.
    Restoring,
    /// It works.
    Ready,
    /// There is a link, but nothing came from the server for longer than a heartbeat interval. After two intervals the link
    /// counts as lost.
    Silent,
    /// The server did not answer a call in time. A robust connection waits until everything that is under way on the call's
    /// channel is confirmed, and then opens that channel again; see
    /// [`Event::ChannelClosed`](crate::robust::Event::ChannelClosed).
    Unresponsive,
    /// It has ended for good.
    Ended,
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Restoring => "restoring",
            Self::Ready => "ready",
            Self::Silent => "silent",
            Self::Unresponsive => "unresponsive",
            Self::Ended => "ended",
        })
    }
}

/// How a connection is, for a health endpoint or a log; see [`Connection::status`](crate::Connection::status).
///
/// `Display` gives one line, such as `ready for 12 s, 3 unconfirmed messages, 2 consumers`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// What the connection does.
    pub state: ConnectionState,
    /// For how long it has been in that state.
    pub since: Duration,
    /// Why the server takes no publishes at the moment, such as `low on memory`; `None` while it does.
    pub blocked: Option<ShortStr>,
    /// How many messages wait for their confirm.
    pub unconfirmed_messages: usize,
    /// How many bytes of messages a robust connection keeps to publish them again, with some for each message's
    /// administration. `None` on a plain connection, which keeps none.
    pub unconfirmed_bytes: Option<usize>,
    /// How many consumers have not ended. On a robust connection, those that wait to be restored are among them.
    pub consumers: usize,
    /// Why the last link was lost, the last attempt to connect failed, or the last call that was not answered; kept after a restore. `None` if nothing failed so
    /// far, and when this program closed the connection.
    pub last_error: Option<Error>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {} s", self.state, self.since.as_secs())?;
        if let Some(reason) = &self.blocked {
            write!(f, ", the server blocks publishers ({reason})")?;
        }
        write!(f, ", {} unconfirmed messages", self.unconfirmed_messages)?;
        if let Some(bytes) = self.unconfirmed_bytes {
            write!(f, " ({bytes} bytes)")?;
        }
        write!(f, ", {} consumers", self.consumers)?;
        match &self.last_error {
            Some(error) => write!(f, ", last error: {error}"),
            None => Ok(()),
        }
    }
}
