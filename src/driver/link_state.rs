//! What users, reader and writer of one connection share, and the one lock of the hot path.
//!
//! Lock and wake rules:
//! - The session's lock is held for short, bounded work only: never over an await, a system call, a wake
//!   or user code. It is never held together with a consumer queue's lock.
//! - Who writes holds the [`Pipe`]; while nobody does it lies beside the session, under the same lock.
//! - Whoever makes the outgoing buffer non-empty while the pipe lies there wakes the writer, after unlocking,
//!   unless the writer gathers ([`Turn::Gather`]): then it looks by itself. Whoever is about to wait for the server
//!   wakes it all the same, or writes.
//! - Whoever fills a batch ([`Urgency`]) while the pipe lies there takes it and writes, after unlocking.
//! - Whoever gives the pipe back looks whether more waits meanwhile, under the same lock.
//! - Whoever takes the buffer wakes waiting publishers.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::budget::Budget;
use super::delivery_queue::End;
use super::dial::WriteHalf;
use super::faults;
use super::pipe::Pipe;
use super::pulse::Pulse;
use super::server::Server;
use super::waiters::Driver;
use crate::codec::ShortStr;
use crate::codec::generated::connection;
use crate::error::Error;
use crate::mux::channel_state::Ended;
use crate::mux::heartbeat::Heartbeat;
use crate::mux::session::{Refusal, Session};
use crate::mux::violation::Violation;

/// Limits that the user chose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Publishers wait while this many bytes wait to be written.
    pub outgoing: usize,
    /// Reading pauses while this many bytes of unbounded deliveries wait.
    pub incoming: usize,
    /// Publishers wait while so many publishes of their channel are not confirmed.
    pub unconfirmed: usize,
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
    /// The writer looks again in a moment, without being woken; see [`writer`](super::writer).
    gathering: bool,
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

    /// Whether so much waits that it pays to write it at once, whoever notices.
    fn is_full(&self) -> bool {
        self.session.out.len() >= Urgency::Soon.batch()
    }

    /// Takes the pipe, loaded, if it lies there with nothing unfinished in it, and something is to be
    /// written.
    fn load_pipe(&mut self) -> Option<Box<Pipe>> {
        let pipe = self.pipe.as_mut().filter(|pipe| !pipe.is_unfinished())?;
        if self.session.out.is_empty() {
            return None;
        }
        pipe.load(&mut self.session.out);
        self.pipe.take()
    }

    /// Like [`load_pipe`](Self::load_pipe) for the writer, which also goes on with what is unfinished: it can wait until
    /// the socket takes more.
    fn take_pipe(&mut self) -> Option<Box<Pipe>> {
        if self.pipe.as_ref().is_some_and(|pipe| pipe.is_unfinished()) {
            self.pipe.take()
        } else {
            self.load_pipe()
        }
    }
}

/// If at least so many bytes were appended while the writer wrote a batch, more is about to come: then the
/// writer lets it gather.
const GATHER_FROM: usize = 1 << 10;

/// The writer goes on gathering while at least so many bytes come in a [`Turn::Gather`].
const BUSY: u64 = 4 << 10;

/// Of so many channels an error says what was not confirmed.
const SHOWN: usize = 8;

/// What the writer does next.
pub(crate) enum Turn {
    /// Writes this.
    Write(Box<Pipe>),
    /// Looks again in a millisecond, unless it is woken: publishers are busy, and write by themselves whenever a
    /// batch is full. Nobody wakes the writer just because there is something to write.
    Gather,
    /// Waits until it is woken.
    Idle,
}

/// When what a command appended is to be written. The writer takes whatever has gathered until it gets to it;
/// but whoever appends beyond a limit, while nobody writes, writes at once, in the own task: the bytes are still
/// in that core's cache then, and the other cores are left to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Nobody waits for an answer: the most for each system call that stays in the core's cache.
    Soon,
    /// Confirms will come: early enough that they come while more is published.
    Confirmed,
    /// The caller will wait for the answer anyway, so this saves waking another task.
    Now,
}

impl Urgency {
    /// From how many waiting bytes on the caller writes.
    const fn batch(self) -> usize {
        match self {
            Self::Soon => 96 << 10,
            Self::Confirmed => 32 << 10,
            Self::Now => 1,
        }
    }
}

/// What is to be done for what was appended, once all locks are released.
#[must_use = "appended bytes may not be written before `Shared::write` is called"]
#[derive(Debug)]
pub(crate) enum Due {
    /// Somebody writes already, or is about to.
    Nothing,
    /// Wake the writer.
    Wake,
    /// Write this batch.
    Write(Box<Pipe>),
}

impl Due {
    /// Whether there is nothing to do.
    #[inline]
    pub(crate) const fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

/// The shared state of one connection.
pub(crate) struct Shared {
    pub server: Server,
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
    pub write_error: OnceLock<Arc<io::Error>>,
    /// What was not confirmed when the user closed the connection, or a channel in vain, for each channel.
    unconfirmed: Mutex<Vec<String>>,
    /// Whether it has ended: set after `failure`.
    has_ended: AtomicBool,
    /// Wakes tasks that wait for the end.
    ended: Notify,
    /// Why the server takes no publishes, while it does not.
    pub blocked: watch::Sender<Option<ShortStr>>,
    pub budget: Arc<Budget>,
    pub heartbeat: Heartbeat,
    /// When the server was last heard.
    pub pulse: Pulse,
    pub limits: Limits,
}

impl Shared {
    pub(crate) fn new(
        server: Server,
        session: Session<Driver>,
        stream: WriteHalf,
        heartbeat: Heartbeat,
        limits: Limits,
    ) -> Self {
        Self {
            server,
            core: Mutex::new(Core {
                session,
                pipe: Some(Box::new(Pipe::new(stream))),
                gathering: false,
                writer_ended: false,
            }),
            to_write: Notify::new(),
            credit: Notify::new(),
            written: Notify::new(),
            closing: Notify::new(),
            failure: OnceLock::new(),
            write_error: OnceLock::new(),
            unconfirmed: Mutex::default(),
            has_ended: AtomicBool::new(false),
            ended: Notify::new(),
            blocked: watch::Sender::new(None),
            budget: Arc::new(Budget::new(limits.incoming)),
            heartbeat,
            pulse: Pulse::new(),
            limits,
        }
    }

    /// The session, without waking anybody afterwards: for whoever appends nothing.
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock()
    }

    /// Runs a command under the lock, and wakes the writer if there is something new to write.
    pub(crate) fn with<T>(&self, command: impl FnOnce(&mut Session<Driver>) -> T) -> T {
        self.run(|session| (command(session), Urgency::Soon))
    }

    /// Runs a command under the lock, and sees to it that what it appended is written.
    #[inline]
    pub(crate) fn run<T>(&self, command: impl FnOnce(&mut Session<Driver>) -> (T, Urgency)) -> T {
        let (result, due) = self.append(command);
        self.write(due);
        result
    }

    /// Runs a command under the lock. What it appended is written by [`write`](Self::write), which the caller calls
    /// after releasing its own locks.
    #[inline]
    pub(crate) fn append<T>(&self, command: impl FnOnce(&mut Session<Driver>) -> (T, Urgency)) -> (T, Due) {
        let mut core = self.lock();
        let was_empty = core.out.is_empty();
        let (result, urgency) = command(&mut core);
        let pipe = if core.out.len() >= urgency.batch() { core.load_pipe() } else { None };
        // while somebody holds the pipe nobody needs to be woken: it is given back with another look
        let wake = was_empty && !core.gathering && !core.out.is_empty() && core.pipe.is_some();
        drop(core);
        let due = match pipe {
            Some(pipe) => Due::Write(pipe),
            None if wake => Due::Wake,
            None => Due::Nothing,
        };
        self.budget.reconsider();
        (result, due)
    }

    /// Does what is due after [`append`](Self::append). Not to be called under a lock: it may write to the socket.
    #[inline]
    pub(crate) fn write(&self, due: Due) {
        match due {
            Due::Nothing => {}
            Due::Wake => self.to_write.notify_one(),
            Due::Write(pipe) => self.write_now(pipe),
        }
    }

    /// For whoever is about to wait for the server: what waits to be written must not wait for more to
    /// gather.
    pub(crate) fn push(&self, core: MutexGuard<'_, Core>) {
        let wake = core.gathering && core.pipe.is_some() && !core.out.is_empty();
        drop(core);
        if wake {
            self.to_write.notify_one();
        }
    }

    /// Writes what goes at once; the writer does the rest.
    fn write_now(&self, mut pipe: Box<Pipe>) {
        self.credit.notify_waiters();
        let written = pipe.poll_write(&mut Context::from_waker(Waker::noop()));
        let mut core = self.lock();
        let rest = pipe.is_unfinished() || core.is_full() || self.failure().is_some();
        let more = rest || !core.out.is_empty();
        let wake = rest || (more && !core.gathering);
        let late = if core.writer_ended { Some(pipe) } else { core.pipe.replace(pipe) };
        drop(core);
        drop(late);
        if wake {
            self.to_write.notify_one();
        }
        if !more {
            self.written.notify_waiters();
        }
        if let Poll::Ready(Err(error)) = written {
            self.write_failed(error);
        }
    }

    /// What the writer does next. It gives the pipe `back`, if it has written.
    pub(crate) fn next_turn(&self, back: Option<Box<Pipe>>) -> Turn {
        let mut core = self.lock();
        if back.is_some() {
            core.pipe = back;
            let waits = core.out.len();
            core.gathering |= waits >= GATHER_FROM;
            if core.gathering && waits < Urgency::Soon.batch() && core.is_open() {
                let all = core.is_written();
                drop(core);
                if all {
                    self.written.notify_waiters();
                }
                return Turn::Gather;
            }
        }
        let (pipe, gathering) = (core.take_pipe(), core.gathering);
        drop(core);
        match pipe {
            Some(pipe) => {
                // while this batch is written, the next one is encoded
                self.credit.notify_waiters();
                Turn::Write(pipe)
            }
            None if gathering => Turn::Gather,
            None => {
                self.written.notify_waiters();
                Turn::Idle
            }
        }
    }

    /// The writer has gathered for a while, since there were `before` bytes in all. Goes on gathering only if it
    /// pays. Returns how many bytes there are now.
    pub(crate) fn gathered(&self, before: u64) -> u64 {
        let mut core = self.lock();
        // somebody else writes
        let Some(pipe) = &core.pipe else { return before };
        let total = pipe.total.wrapping_add(core.out.len() as u64);
        core.gathering = total.wrapping_sub(before) >= BUSY;
        total
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

    /// Whether what a channel handed over after this batch, and before any other, was written.
    pub(crate) fn is_sent(&self, channel: u16, after: u64) -> bool {
        let core = self.lock();
        let out = &core.session.out;
        let ahead = out.taken().wrapping_sub(after);
        // the batch that was taken last may still be under way
        let last_is_written = core.pipe.as_ref().is_some_and(|pipe| !pipe.is_unfinished());
        !out.is_in_lane(channel) && (ahead > 1 || (ahead == 1 && last_is_written))
    }

    /// How many bytes have not been written, as far as is known: what a writing task has in hand does not count.
    pub(crate) fn unwritten(&self) -> usize {
        let core = self.lock();
        core.session.out.len() + core.pipe.as_ref().map_or(0, |pipe| pipe.rest())
    }

    /// What an orderly close that was given up leaves undone, for the error's text.
    pub(crate) fn left_undone(&self) -> String {
        self.left(self.unwritten(), &self.unconfirmed.lock())
    }

    /// The same for a channel whose close was not answered. The connection's close tells of it, too.
    pub(crate) fn left_by_channel(&self, id: u16, unsettled: Option<(usize, u64, u64)>) -> String {
        let unconfirmed: Vec<_> = unsettled.map(|unsettled| unconfirmed(id, unsettled)).into_iter().collect();
        self.unconfirmed.lock().extend(unconfirmed.iter().cloned());
        self.left(0, &unconfirmed)
    }

    fn left(&self, unwritten: usize, unconfirmed: &[String]) -> String {
        let mut left = vec![String::new()];
        if unwritten > 0 {
            left.push(format!("{unwritten} bytes were not written"));
        }
        if !unconfirmed.is_empty() {
            let shown = unconfirmed.get(..SHOWN).unwrap_or(unconfirmed);
            left.push(format!("publishes not confirmed: {}", shown.join(", ")));
        }
        if let Some(reason) = &*self.blocked.borrow() {
            left.push(format!("the server blocks publishers ({reason})"));
        }
        left.join("; ")
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
        drop(self.write_error.set(Arc::new(error)));
        self.closing.notify_one();
    }

    /// Ends the connection for everybody who waits, with the first error that is given. With a `close`, the
    /// server is told why.
    pub(crate) fn fail(&self, error: Error, close: Option<&connection::Close>) {
        if self.failure.set(error.clone()).is_ok() {
            self.pulse.end();
            self.server.log_end(&error);
        }
        let error = self.failure().cloned().unwrap_or(error);
        let (ended, waiters) = self.with(|session| session.fail(close));
        end_channels(ended, &error);
        for waiter in waiters {
            waiter.complete(Err(error.clone()));
        }
        self.has_ended.store(true, Ordering::Release);
        self.ended.notify_waiters();
        self.blocked.send_replace(None);
        self.credit.notify_waiters();
        self.written.notify_waiters();
        self.to_write.notify_one();
        self.closing.notify_one();
    }

    /// The server does not read, and so many bytes of acks wait: gives the connection up, and tells why.
    #[cold]
    pub(crate) fn unread(&self, bytes: usize) -> Error {
        let violation = Violation::Unread { bytes };
        let close = faults::close_for(&violation);
        self.fail(faults::violation(&self.server, &violation), Some(&close));
        self.end_reason()
    }

    /// Begins an orderly close; the reader sees it through.
    pub(crate) fn close(&self, close: &connection::Close) -> Result<(), Refusal> {
        let ended = self.with(|session| session.close(close, None))?;
        let unsettled = ended.iter().filter_map(|ended| {
            let id = ended.channel.key.id.get();
            Some(unconfirmed(id, ended.confirms.as_ref()?.unsettled()?))
        });
        self.unconfirmed.lock().extend(unsettled);
        end_channels(ended, &faults::closed_connection(&self.server));
        self.credit.notify_waiters();
        self.closing.notify_one();
        Ok(())
    }

    /// Why the connection has ended, if it has.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }

    /// The same, for whoever has found that it has.
    pub(crate) fn end_reason(&self) -> Error {
        self.failure().cloned().unwrap_or_else(|| faults::lost(&self.server, None))
    }

    /// For how long nothing has come, if that is longer than a heartbeat interval.
    pub(crate) fn silence(&self) -> Option<Duration> {
        let silence = self.pulse.silence();
        self.heartbeat.interval().filter(|interval| silence > *interval).map(|_| silence)
    }

    /// Waits until the connection has ended. Cancel safe.
    pub(crate) async fn ended(&self) {
        let ended = self.ended.notified();
        // looked at after that began to listen, so that the end is not missed
        if !self.has_ended.load(Ordering::Acquire) {
            ended.await;
        }
    }

    /// The error for a refused command of a channel or the connection.
    pub(crate) fn refused(&self, refusal: Refusal) -> Error {
        match (refusal, self.failure()) {
            (Refusal::ConnectionClosed | Refusal::ChannelClosed, Some(failure)) => failure.earlier(),
            (refusal, _) => faults::refused(&self.server, refusal),
        }
    }
}

impl fmt::Debug for Shared {
    /// Nothing of what waits to be written: bodies, or a new secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("server", &self.server).finish_non_exhaustive()
    }
}

/// What is not confirmed on a channel: how many publishes, from the first to the last.
fn unconfirmed(id: u16, (count, first, last): (usize, u64, u64)) -> String {
    format!("{count} on channel {id} (delivery tags {first} to {last})")
}

/// Tells everybody who waits on channels that have ended.
pub(crate) fn end_channels(ended: Vec<Ended<Driver>>, error: &Error) {
    for Ended { channel, replies, consumers, confirms } in ended {
        channel.end(error.clone(), confirms);
        for waiter in replies {
            waiter.complete(Err(error.clone()));
        }
        for queue in consumers {
            // the server takes back what was not acknowledged, together with the channel
            queue.end(End::Failed(error.clone()));
        }
    }
}
