//! The sockets: a listener if there is one, a task for each connection, and one for the timers.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep_until, timeout};

use crate::codec::frame::HEARTBEAT;

use super::broker_connection::{End, Phase};
use super::state::State;

/// How long a client may take to answer `connection.close`, and to read what was written before.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the last bytes may take to be read by the client.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// The most that one read brings, in bytes.
const READ: usize = 64 << 10;

/// A connection's task.
pub(super) type Served = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The other side of a connection.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Where from, over TCP.
    pub address: Option<SocketAddr>,
    /// Whom its certificate names.
    pub identity: Option<String>,
}

/// What all tasks of a broker share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Notify,
    /// Takes connections that do not come over the port; closed while the broker is stopped.
    door: Mutex<UnboundedSender<Served>>,
}

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self { state: Mutex::new(state), changed: Notify::new(), door: Mutex::new(unbounded_channel().0) }
    }

    /// Does something with the broker, at the time that it is.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        state.now = Instant::now();
        let result = change(&mut state);
        drop(state);
        self.changed.notify_waiters();
        result
    }

    /// Looks at the broker, and changes nothing.
    pub(super) fn look<T>(&self, at: impl FnOnce(&State) -> T) -> T {
        at(&self.lock())
    }

    /// Ends with the next change after the call.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Replaces the channel on which new streams arrive; the holder of the receiver serves them.
    pub(super) fn open_door(&self) -> UnboundedReceiver<Served> {
        let (sender, receiver) = unbounded_channel();
        *self.door.lock().unwrap_or_else(PoisonError::into_inner) = sender;
        receiver
    }

    /// Serves a stream. An error: the broker is stopped.
    pub(super) fn serve<T>(self: &Arc<Self>, stream: T) -> io::Result<()>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (reader, writer) = split(stream);
        self.take(Box::pin(serve(Arc::clone(self), reader, writer, Peer::default())))
    }

    /// Has the listener's task run a connection's. An error: the broker is stopped.
    pub(super) fn take(&self, served: Served) -> io::Result<()> {
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        door.send(served).map_err(|_| io::ErrorKind::ConnectionRefused.into())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // a panic of ours leaves nothing worse than a broker in disorder, for tests
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes connections until it is dropped, and with it all of them. `tls` takes those over TLS.
pub(super) async fn listen(
    shared: Arc<Shared>,
    listener: Option<TcpListener>,
    tls: Option<Served>,
    mut others: UnboundedReceiver<Served>,
) {
    let mut tasks = JoinSet::new();
    let timer = shared.look(|state| Arc::clone(&state.timer));
    tasks.spawn(keep_time(Arc::clone(&shared), timer));
    if let Some(tls) = tls {
        tasks.spawn(tls);
    }
    loop {
        tokio::select! {
            biased;
            Some(served) = others.recv() => drop(tasks.spawn(served)),
            accepted = accept(listener.as_ref()) => match accepted {
                Ok((stream, peer)) => {
                    // small replies must not wait; without it they are only slower
                    drop(stream.set_nodelay(true));
                    let (reader, writer) = stream.into_split();
                    let peer = Peer { address: Some(peer), identity: None };
                    tasks.spawn(serve(Arc::clone(&shared), reader, writer, peer));
                }
                // out of file descriptors: others will be free soon
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// The next connection over the port, if there is one.
async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Does what time brings.
async fn keep_time(shared: Arc<Shared>, timer: Arc<Notify>) {
    loop {
        let next = shared.look(State::next_deadline);
        tokio::select! {
            biased;
            () = timer.notified() => {}
            () = at(next) => {}
        }
        shared.with(State::tick);
        // if there is more work than is done at once
        yield_now().await;
    }
}

/// Waits for a moment that may never come.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Tells the broker when a connection is over, however its task ends.
struct Presence {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.shared.with(|state| state.lost(self.id));
    }
}

pub(super) async fn serve<R, W>(shared: Arc<Shared>, reader: R, writer: W, peer: Peer)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let wake = Arc::new(Notify::new());
    let (id, handshake_timeout) = shared.with(|state| {
        let id = state.connected(peer, Arc::clone(&wake));
        (id, state.options.handshake_timeout)
    });
    let presence = Presence { shared, id };
    let mut socket = Socket {
        shared: &presence.shared,
        id,
        reader,
        writer,
        input: BytesMut::new(),
        held_back: false,
        handshake_timeout,
        output: Vec::new(),
        written: 0,
        state: Snapshot { phase: Phase::Greeting, reading: true, heartbeat: 0, end: None },
        last_read: Instant::now(),
        last_written: Instant::now(),
        since: Instant::now(),
    };
    socket.run(&wake).await;
}

/// Bytes that were read or written, and how many.
enum Moved {
    In(io::Result<usize>),
    Out(io::Result<usize>),
}

/// What the socket's task needs to know of its connection.
#[derive(Clone, Copy, Debug)]
struct Snapshot {
    phase: Phase,
    reading: bool,
    heartbeat: u16,
    end: Option<End>,
}

struct Socket<'a, R, W> {
    shared: &'a Shared,
    id: u64,
    reader: R,
    writer: W,
    input: BytesMut,
    /// Whole frames are in the input, and are taken as soon as the connection is read again.
    held_back: bool,
    output: Vec<u8>,
    written: usize,
    state: Snapshot,
    handshake_timeout: Duration,
    last_read: Instant,
    last_written: Instant,
    /// When its phase, or its end, began.
    since: Instant,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Socket<'_, R, W> {
    async fn run(&mut self, wake: &Notify) {
        let mut write_first = false;
        loop {
            if !self.refresh() {
                return;
            }
            let idle = self.written == self.output.len();
            match self.state.end {
                Some(End::Cut) => return,
                Some(End::Flush) if idle => return self.part().await,
                _ => {}
            }
            let reading = self.state.reading;
            self.input.reserve(READ);
            let (heartbeat_due, silence_ends) = (self.heartbeat_due(), self.silence_ends());
            write_first = !write_first;
            let output = self.output.get(self.written..).unwrap_or_default();
            let mut read = pin!(self.reader.read_buf(&mut self.input));
            let mut write = pin!(self.writer.write(output));
            let read_or_write = poll_fn(|context| {
                // in turns, so that neither starves the other
                for asks_to_write in [write_first, !write_first] {
                    if !asks_to_write
                        && reading
                        && let Poll::Ready(read) = read.as_mut().poll(context)
                    {
                        return Poll::Ready(Moved::In(read));
                    }
                    if asks_to_write
                        && !idle
                        && let Poll::Ready(wrote) = write.as_mut().poll(context)
                    {
                        return Poll::Ready(Moved::Out(wrote));
                    }
                }
                Poll::Pending
            });
            tokio::select! {
                biased;
                moved = read_or_write => match moved {
                    Moved::In(Ok(0) | Err(_)) | Moved::Out(Ok(0) | Err(_)) => return,
                    Moved::In(Ok(count)) => {
                        self.last_read = Instant::now();
                        self.held_back =
                            self.shared.with(|state| state.take_read(self.id, count, &mut self.input));
                    }
                    Moved::Out(Ok(count)) => {
                        self.written += count;
                        self.last_written = Instant::now();
                    }
                },
                () = wake.notified() => {}
                () = at(heartbeat_due), if idle => self.output.extend_from_slice(&HEARTBEAT),
                () = at(silence_ends) => return,
            }
        }
    }

    /// Takes what is to be written, and what has changed; whether the connection is still there.
    fn refresh(&mut self) -> bool {
        let idle = self.written == self.output.len();
        if idle {
            self.written = 0;
            self.output.clear();
        }
        let before = self.state;
        let taken = self.shared.with(|state| {
            let connection = state.connections.get_mut(&self.id)?;
            let mut had_no_room = false;
            if idle && !connection.out.is_empty() {
                had_no_room = connection.is_full();
                std::mem::swap(&mut self.output, &mut connection.out);
                if let Some(left) = connection.cut_after {
                    let length = self.output.len() as u64;
                    connection.cut_after = Some(left.saturating_sub(length));
                    if left <= length {
                        self.output.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                        connection.end(End::Flush);
                    }
                }
            }
            self.state = Snapshot {
                phase: connection.phase,
                reading: connection.takes_input(),
                heartbeat: connection.heartbeat,
                end: connection.end,
            };
            if had_no_room {
                state.written(self.id);
            }
            if self.held_back && self.state.reading {
                self.held_back = state.take_input(self.id, &mut self.input);
            }
            Some(())
        });
        if self.state.phase != before.phase || self.state.end != before.end {
            self.since = Instant::now();
        }
        if self.state.reading && !before.reading {
            // nobody has listened: that was no silence
            self.last_read = Instant::now();
        }
        taken.is_some()
    }

    /// When a sign of life must be sent: at half the interval.
    fn heartbeat_due(&self) -> Option<Instant> {
        let interval = Duration::from_secs(self.state.heartbeat.into());
        (!interval.is_zero() && self.state.phase == Phase::Open).then(|| self.last_written + interval / 2)
    }

    /// When the client has been silent for too long. One that does not read is not cut while its heartbeats come.
    fn silence_ends(&self) -> Option<Instant> {
        let twice = 2 * Duration::from_secs(self.state.heartbeat.into());
        match self.state.phase {
            _ if self.state.end.is_some() => Some(self.since + PATIENCE),
            Phase::Closing => Some(self.since + PATIENCE),
            Phase::Open if twice.is_zero() => None,
            Phase::Open if self.state.reading => Some(self.last_read + twice),
            // what it says is not read before it has read: one that has vanished must go all the same
            Phase::Open => {
                (self.written < self.output.len()).then(|| self.last_written + twice.max(PATIENCE))
            }
            _ => self.since.checked_add(self.handshake_timeout),
        }
    }

    /// Lets the client read the last bytes before the socket goes.
    async fn part(&mut self) {
        if self.writer.shutdown().await.is_err() {
            return;
        }
        let rest = async {
            self.input.clear();
            while matches!(self.reader.read_buf(&mut self.input).await, Ok(count) if count > 0) {
                self.input.clear();
            }
        };
        // whoever does not close is closed
        drop(timeout(FAREWELL, rest).await);
    }
}
