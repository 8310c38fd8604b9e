//! What users, reader and writer of one connection share, and the one lock of the hot path.
//!
//! Lock and wake rules:
//! - The session's lock is held for short, bounded work only: never over an await, a system call, a wake
//!   or user code. It is never held together with a consumer queue's lock.
//! - Who writes holds the [`Pipe`]; while nobody does it lies beside the session, under the same lock.
//! - Whoever makes the outgoing buffer non-empty while the pipe lies there wakes the writer, after unlocking.
//! - Whoever gives the pipe back looks whether more waits meanwhile, under the same lock.
//! - Whoever takes the buffer wakes waiting publishers.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::budget::Budget;
use super::dial::WriteHalf;
use super::faults;
use super::pipe::Pipe;
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

/// What the lock guards.
#[derive(Debug)]
pub(crate) struct Core {
    session: Session<Driver>,
    /// `None` while somebody writes, and after the end.
    pipe: Option<Box<Pipe>>,
    /// The writer has ended: a pipe that is given back now closes.
    writer_ended: bool,
}

impl Deref for Core {
    type Target = Session<Driver>;

    fn deref(&self) -> &Session<Driver> {
        &self.session
    }
}

impl DerefMut for Core {
    fn deref_mut(&mut self) -> &mut Session<Driver> {
        &mut self.session
    }
}

impl Core {
    /// Whether nothing waits to be written, and nobody is writing.
    fn is_written(&self) -> bool {
        self.session.out.is_empty() && self.pipe.as_ref().is_some_and(|pipe| !pipe.is_unfinished())
    }

    /// Takes the pipe, loaded, if it lies there and something is to be written.
    fn load_pipe(&mut self) -> Option<Box<Pipe>> {
        let pipe = self.pipe.as_mut()?;
        if !pipe.is_unfinished() {
            if self.session.out.is_empty() {
                return None;
            }
            pipe.load(&mut self.session.out);
        }
        self.pipe.take()
    }
}

/// When what a command appended is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// By the writer, with whatever gathers until it gets to it: the most for each system call.
    Soon,
    /// At once, in the caller's task, if nobody is writing: for a caller that will wait for the answer
    /// anyway, this saves waking another task.
    Now,
}

/// The shared state of one connection.
#[derive(Debug)]
pub(crate) struct Shared {
    core: Mutex<Core>,
    /// Wakes the writer.
    pub to_write: Notify,
    /// Wakes publishers that wait.
    pub credit: Notify,
    /// Wakes whoever waits until everything is written.
    written: Notify,
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
    pub(crate) fn new(
        session: Session<Driver>,
        stream: WriteHalf,
        heartbeat: Heartbeat,
        limits: Limits,
    ) -> Self {
        Self {
            core: Mutex::new(Core { session, pipe: Some(Box::new(Pipe::new(stream))), writer_ended: false }),
            to_write: Notify::new(),
            credit: Notify::new(),
            written: Notify::new(),
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
    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a command under the lock, and wakes the writer if there is something new to write.
    pub(crate) fn with<T>(&self, command: impl FnOnce(&mut Session<Driver>) -> T) -> T {
        self.run(|session| (command(session), Urgency::Soon))
    }

    /// Runs a command under the lock, and sees to it that what it appended is written.
    pub(crate) fn run<T>(&self, command: impl FnOnce(&mut Session<Driver>) -> (T, Urgency)) -> T {
        let mut core = self.lock();
        let was_empty = core.out.is_empty();
        let (result, urgency) = command(&mut core);
        let pipe = if urgency == Urgency::Now { core.load_pipe() } else { None };
        // while somebody holds the pipe nobody needs to be woken: it is given back with another look
        let wake = was_empty && !core.out.is_empty() && core.pipe.is_some();
        drop(core);
        if let Some(pipe) = pipe {
            self.write_now(pipe);
        } else if wake {
            self.to_write.notify_one();
        }
        self.budget.reconsider();
        result
    }

    /// Writes what goes at once; the writer does the rest.
    fn write_now(&self, mut pipe: Box<Pipe>) {
        self.credit.notify_waiters();
        let written = pipe.poll_write(&mut Context::from_waker(Waker::noop()));
        let mut core = self.lock();
        let more = pipe.is_unfinished() || !core.out.is_empty() || self.failure().is_some();
        let late = if core.writer_ended { Some(pipe) } else { core.pipe.replace(pipe) };
        drop(core);
        drop(late);
        if more {
            self.to_write.notify_one();
        } else {
            self.written.notify_waiters();
        }
        if let Poll::Ready(Err(error)) = written {
            self.write_failed(error);
        }
    }

    /// Gives the pipe back, if there is one to give, and takes it again if something is to be written.
    pub(crate) fn exchange_pipe(&self, back: Option<Box<Pipe>>) -> Option<Box<Pipe>> {
        let mut core = self.lock();
        if back.is_some() {
            core.pipe = back;
        }
        let pipe = core.load_pipe();
        drop(core);
        if pipe.is_some() {
            // while this batch is written, the next one is encoded
            self.credit.notify_waiters();
        } else {
            self.written.notify_waiters();
        }
        pipe
    }

    /// Waits until everything that was appended is written, or the connection has ended. Cancel safe.
    pub(crate) async fn flush(&self) {
        loop {
            let mut written = std::pin::pin!(self.written.notified());
            written.as_mut().enable();
            self.run(|_| ((), Urgency::Now));
            if self.failure().is_some() || self.is_written() {
                return;
            }
            written.await;
        }
    }

    /// Whether nothing waits to be written, and nobody is writing.
    fn is_written(&self) -> bool {
        self.lock().is_written()
    }

    /// Whether the connection has ended, and everything is written.
    pub(crate) fn is_finished(&self) -> bool {
        let core = self.lock();
        core.session.is_closed() && core.is_written()
    }

    /// Takes the pipe for good: the writer ends.
    pub(crate) fn remove_pipe(&self) -> Option<Box<Pipe>> {
        let mut core = self.lock();
        core.writer_ended = true;
        core.pipe.take()
    }

    /// Appends a heartbeat if nothing was written for half the interval, and gives back what memory an
    /// idle connection does not need. Returns when something was last written.
    pub(crate) fn heartbeat_if_idle(&self) -> Instant {
        let now = Instant::now();
        let mut core = self.lock();
        // somebody is writing
        let Some(pipe) = &mut core.pipe else { return now };
        let last_write = pipe.last_write;
        pipe.release();
        let due = self.heartbeat.send_at(last_write.into_std());
        if due.is_some_and(|due| due <= now.into_std()) {
            core.out.release();
            core.heartbeat();
            return now;
        }
        last_write
    }

    /// Nothing can be written any more. The reader ends the connection, once it has seen what the server
    /// says.
    pub(crate) fn write_failed(&self, error: io::Error) {
        drop(self.write_error.set(error));
        self.closing.notify_one();
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
        self.written.notify_waiters();
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
