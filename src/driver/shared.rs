//! What users, reader and writer of one connection share, and the one lock of the hot path.
//!
//! Lock and wake rules:
//! - The session's lock is held for short, bounded work only: never over an await, a system call, a wake
//!   or user code. It is never held together with a consumer queue's lock.
//! - Whoever makes the outgoing buffer non-empty wakes the writer, after unlocking.
//! - The writer wakes waiting publishers each time it has taken the buffer.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::budget::Budget;
use super::faults;
use super::waiters::Driver;
use crate::codec::ShortStr;
use crate::codec::generated::connection;
use crate::error::{Error, ErrorKind, Scope};
use crate::mux::channel::Ended;
use crate::mux::heartbeat::Heartbeat;
use crate::mux::session::{Refusal, Session};

/// Limits that the user chose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Publishers wait while this many bytes wait to be written.
    pub outgoing: usize,
    /// Reading pauses while this many bytes of unbounded deliveries wait.
    pub incoming: usize,
    /// The largest body that is accepted, in bytes.
    pub message: u64,
    /// How long a call waits for its reply; zero: for ever.
    pub rpc_timeout: Duration,
    /// How long closing may take.
    pub close_timeout: Duration,
}

/// The shared state of one connection.
#[derive(Debug)]
pub(crate) struct Shared {
    session: Mutex<Session<Driver>>,
    /// Wakes the writer.
    pub to_write: Notify,
    /// Wakes publishers that wait.
    pub credit: Notify,
    /// Wakes the reader, to notice that the connection is closing.
    pub closing: Notify,
    /// Why the connection has ended.
    failure: OnceLock<Error>,
    /// Why nothing can be written any more.
    pub write_error: OnceLock<io::Error>,
    /// Whether it has ended: set after `failure`.
    ended: watch::Sender<bool>,
    /// Why the server takes no publishes, while it does not.
    pub blocked: watch::Sender<Option<ShortStr>>,
    pub budget: Arc<Budget>,
    pub heartbeat: Heartbeat,
    pub limits: Limits,
}

impl Shared {
    pub(crate) fn new(session: Session<Driver>, heartbeat: Heartbeat, limits: Limits) -> Self {
        Self {
            session: Mutex::new(session),
            to_write: Notify::new(),
            credit: Notify::new(),
            closing: Notify::new(),
            failure: OnceLock::new(),
            write_error: OnceLock::new(),
            ended: watch::Sender::new(false),
            blocked: watch::Sender::new(None),
            budget: Arc::new(Budget::new(limits.incoming)),
            heartbeat,
            limits,
        }
    }

    /// The session, without waking anybody afterwards: for whoever appends nothing.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Session<Driver>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a command under the lock, and wakes the writer if there is something new to write.
    pub(crate) fn with<T>(&self, command: impl FnOnce(&mut Session<Driver>) -> T) -> T {
        let mut session = self.lock();
        let was_empty = session.out.is_empty();
        let result = command(&mut session);
        let wake = was_empty && !session.out.is_empty();
        drop(session);
        if wake {
            self.to_write.notify_one();
        }
        self.budget.reconsider();
        result
    }

    /// Ends the connection for everybody who waits, with the first error that is given. With a `close`, the
    /// server is told why.
    pub(crate) fn fail(&self, error: Error, close: Option<&connection::Close>) {
        let error = self.failure.get_or_init(|| error).clone();
        let (ended, waiters) = self.with(|session| session.fail(close));
        end_channels(ended, &error);
        for waiter in waiters {
            waiter.complete(Err(error.clone()));
        }
        self.ended.send_replace(true);
        self.blocked.send_replace(None);
        self.credit.notify_waiters();
        self.to_write.notify_one();
        self.closing.notify_one();
    }

    /// Begins an orderly close; the reader sees it through.
    pub(crate) fn close(&self, close: &connection::Close) -> Result<(), Refusal> {
        let ended = self.with(|session| session.close(close, None))?;
        end_channels(ended, &closed_by_user());
        self.credit.notify_waiters();
        self.closing.notify_one();
        Ok(())
    }

    /// Why the connection has ended, if it has.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }

    /// Waits until the connection has ended. Cancel safe.
    pub(crate) async fn ended(&self) {
        // the sender lives as long as `self`, so this cannot fail
        drop(self.ended.subscribe().wait_for(|ended| *ended).await);
    }

    /// The error for a refused command of a channel or the connection.
    pub(crate) fn refused(&self, refusal: Refusal) -> Error {
        match (refusal, self.failure()) {
            (Refusal::ConnectionClosed | Refusal::ChannelClosed, Some(failure)) => failure.clone(),
            (Refusal::ConnectionClosed, None) => closed_by_user(),
            (refusal, _) => faults::refused(refusal),
        }
    }
}

/// The error after a close by the user.
pub(crate) fn closed_by_user() -> Error {
    Error::new(ErrorKind::Closed, "the connection was closed").with_scope(Scope::Connection)
}

/// Tells everybody who waits on channels that have ended.
pub(crate) fn end_channels(ended: Vec<Ended<Driver>>, error: &Error) {
    for Ended { channel, replies, confirms } in ended {
        channel.end(error.clone(), confirms);
        for waiter in replies {
            waiter.complete(Err(error.clone()));
        }
    }
}
