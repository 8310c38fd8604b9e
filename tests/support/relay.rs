//! A TCP relay that fails on command: it stands between a client and a broker.
//!
//! [`Relay::next`] plans what becomes of connections that are still to come, at an exact byte; the other
//! methods act at once, on all connections that there are. [`Relay::counts`] tells what happened, and
//! [`Relay::until`] waits for it.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

/// After a cut a side that does not close by itself is dropped after this time.
const LINGER: Duration = Duration::from_secs(1);

/// Which way bytes flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToBroker,
    ToClient,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Both sides read an end of file.
    Cut,
    /// Both sides get a reset.
    Reset,
    /// Nothing is forwarded any more, and nothing is closed, until [`Relay::resume`].
    Stall,
    /// Nothing is forwarded for a time.
    Pause(Duration),
}

/// A fault that happens when exactly so many bytes of a connection have been forwarded in a direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trigger {
    pub(crate) direction: Direction,
    pub(crate) offset: u64,
    pub(crate) fault: Fault,
}

/// How many bytes a connection has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) to_broker: u64,
    pub(crate) to_client: u64,
}

/// What has happened so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// One for each connection that came, in their order.
    pub(crate) traffic: Vec<Traffic>,
    /// Faults that happened to a connection: planned or ordered.
    pub(crate) faults: usize,
    /// Connections that have ended.
    pub(crate) ended: usize,
}

impl Counts {
    /// How many connections came.
    pub(crate) fn connections(&self) -> usize {
        self.traffic.len()
    }
}

/// What all connections with a number below the given one shall do.
#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    cut: usize,
    reset: usize,
    stall: usize,
    resume: usize,
    spare: usize,
    delay: Duration,
}

/// What the relay and its tasks share.
#[derive(Debug)]
struct Shared {
    target: Mutex<SocketAddr>,
    /// What is planned for the connections that come next.
    plan: Mutex<VecDeque<Option<Trigger>>>,
    /// Whether connections are accepted, and whether they really are.
    open: watch::Sender<bool>,
    opened: watch::Sender<bool>,
    orders: watch::Sender<Orders>,
    counts: watch::Sender<Counts>,
    /// What each connection has carried to the client, if somebody wants to know.
    recorded: Mutex<Option<Vec<Vec<u8>>>>,
}

/// The relay. Dropped, it cuts all connections and accepts no more.
#[derive(Debug)]
pub(crate) struct Relay {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Relay {
    /// Starts to listen on a free port of the loopback interface, and forwards to `target`.
    pub(crate) async fn start(target: SocketAddr) -> io::Result<Self> {
        // bound, but not listening: it keeps the port while connections are refused
        let port = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = port.local_addr()?;
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            plan: Mutex::default(),
            open: watch::Sender::new(true),
            opened: watch::Sender::new(false),
            orders: watch::Sender::default(),
            counts: watch::Sender::default(),
            recorded: Mutex::default(),
        });
        let mut opened = shared.opened.subscribe();
        tokio::spawn(accept(Arc::clone(&shared), port, address));
        until(&mut opened, |opened| *opened).await?;
        Ok(Self { shared, address })
    }

    /// Starts a relay to the broker that an AMQP URL names.
    pub(crate) async fn to_broker(url: &str) -> io::Result<Self> {
        let authority = authority(url);
        let host = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:5672") };
        let target = tokio::net::lookup_host(&host).await?.find(SocketAddr::is_ipv4);
        Self::start(target.ok_or_else(|| io::Error::other(format!("no address for {host}")))?).await
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// An AMQP URL with this relay in the place of the broker.
    pub(crate) fn url(&self, broker: &str) -> String {
        broker.replacen(authority(broker), &self.address.to_string(), 1)
    }

    /// Where connections that come from now on are forwarded to.
    pub(crate) fn forward_to(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Plans a fault for the next connection without a plan, or with `None`, that nothing happens to it.
    pub(crate) fn next(&self, trigger: impl Into<Option<Trigger>>) {
        self.shared.plan.lock().unwrap_or_else(PoisonError::into_inner).push_back(trigger.into());
    }

    /// Takes back what is planned for connections that have not come yet.
    pub(crate) fn forget_plans(&self) {
        self.shared.plan.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whatever was planned does not happen to the connections that there are, unless it has happened.
    pub(crate) fn spare(&self) {
        self.order(|orders, connections| orders.spare = connections);
    }

    /// Keeps from now on what the broker says.
    pub(crate) fn record(&self) {
        *self.shared.recorded.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
    }

    /// What the broker has said, on one connection after the other.
    pub(crate) fn recorded(&self) -> Vec<Vec<u8>> {
        self.shared.recorded.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
    }

    /// Ends all connections: both sides read an end of file.
    pub(crate) fn cut(&self) {
        self.order(|orders, connections| orders.cut = connections);
    }

    /// Resets all connections.
    pub(crate) fn reset(&self) {
        self.order(|orders, connections| orders.reset = connections);
    }

    /// Forwards nothing on the connections that there are; new ones are not concerned.
    pub(crate) fn stall(&self) {
        self.order(|orders, connections| orders.stall = connections);
    }

    /// Goes on forwarding on all connections.
    pub(crate) fn resume(&self) {
        self.order(|orders, connections| {
            orders.stall = 0;
            orders.resume = connections;
        });
    }

    /// Delays whatever is forwarded on any connection from now on; zero: no more.
    pub(crate) fn delay(&self, delay: Duration) {
        self.order(|orders, _| orders.delay = delay);
    }

    /// Refuses new connections from now on, as a port does that nothing listens on.
    pub(crate) async fn refuse(&self) -> io::Result<()> {
        self.shared.open.send_replace(false);
        until(&mut self.shared.opened.subscribe(), |opened| !*opened).await
    }

    /// Accepts connections again.
    pub(crate) async fn accept(&self) -> io::Result<()> {
        self.shared.open.send_replace(true);
        until(&mut self.shared.opened.subscribe(), |opened| *opened).await
    }

    /// What has happened so far.
    pub(crate) fn counts(&self) -> Counts {
        self.shared.counts.borrow().clone()
    }

    /// Waits until this has happened.
    pub(crate) async fn until(&self, happened: impl FnMut(&Counts) -> bool) -> io::Result<()> {
        until(&mut self.shared.counts.subscribe(), happened).await
    }

    fn order(&self, order: impl FnOnce(&mut Orders, usize)) {
        let connections = self.shared.counts.borrow().connections();
        self.shared.orders.send_modify(|orders| order(orders, connections));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.open.send_replace(false);
        self.shared.orders.send_modify(|orders| orders.cut = usize::MAX);
    }
}

/// The host and port of a URL.
fn authority(url: &str) -> &str {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = after_scheme.split(['/', '?']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// Waits until a watched value is as it should be.
async fn until<T>(values: &mut watch::Receiver<T>, holds: impl FnMut(&T) -> bool) -> io::Result<()> {
    values.wait_for(holds).await.map(drop).map_err(|_| io::Error::other("the relay is gone"))
}

/// A socket with this address.
fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Accepts connections while that is wanted.
async fn accept(shared: Arc<Shared>, port: TcpSocket, address: SocketAddr) -> io::Result<()> {
    let mut open = shared.open.subscribe();
    loop {
        until(&mut open, |open| *open).await?;
        let listener = bound(address)?.listen(1024)?;
        shared.opened.send_replace(true);
        while let Some(accepted) = accept_one(&listener, &mut open).await {
            let Ok(client) = accepted else { continue };
            let trigger =
                shared.plan.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or_default();
            let mut number = 0;
            shared.counts.send_modify(|counts| {
                number = counts.traffic.len();
                counts.traffic.push(Traffic::default());
            });
            let orders = shared.orders.subscribe();
            tokio::spawn(Link { shared: Arc::clone(&shared), number, trigger, orders }.run(client));
        }
        drop(listener);
        shared.opened.send_replace(false);
        if shared.orders.borrow().cut == usize::MAX {
            drop(port);
            return Ok(());
        }
    }
}

/// The next connection; `None` when they shall be refused.
async fn accept_one(
    listener: &TcpListener,
    open: &mut watch::Receiver<bool>,
) -> Option<io::Result<TcpStream>> {
    tokio::select! {
        biased;
        _ = until(open, |open| !*open) => None,
        accepted = listener.accept() => Some(accepted.map(|(stream, _)| stream)),
    }
}

/// One connection.
struct Link {
    shared: Arc<Shared>,
    number: usize,
    trigger: Option<Trigger>,
    orders: watch::Receiver<Orders>,
}

/// How a connection ends before its peers end it.
enum End {
    Cut,
    Reset,
    /// One side failed by itself.
    Failed,
}

/// Both ends of the two sockets.
struct Pipe {
    direction: Direction,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
}

impl Link {
    async fn run(self, client: TcpStream) {
        let target = *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner);
        match TcpStream::connect(target).await {
            Ok(broker) => self.forward(client, broker).await,
            // as if the client had asked the broker itself, and that had gone in this moment
            Err(_) => drop(client.set_zero_linger()),
        }
        self.shared.counts.send_modify(|counts| counts.ended += 1);
    }

    async fn forward(&self, client: TcpStream, broker: TcpStream) {
        drop(client.set_nodelay(true));
        drop(broker.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_broker, to_broker) = broker.into_split();
        let mut to_broker = Pipe { direction: Direction::ToBroker, from: from_client, to: to_broker };
        let mut to_client = Pipe { direction: Direction::ToClient, from: from_broker, to: to_client };
        let stalled = watch::Sender::new(false);
        let end = tokio::select! {
            biased;
            end = self.ordered() => Err(end),
            end = async {
                tokio::try_join!(self.pump(&mut to_broker, &stalled), self.pump(&mut to_client, &stalled))
            } => end,
        };
        match end {
            Ok(_) | Err(End::Failed) => {}
            Err(End::Cut) => {
                for pipe in [&mut to_broker, &mut to_client] {
                    drop(pipe.to.shutdown().await);
                }
                self.happened();
                // a socket that closes with bytes unread resets: so they are read
                drop(timeout(LINGER, async { tokio::join!(to_broker.drain(), to_client.drain()) }).await);
            }
            Err(End::Reset) => {
                for Pipe { from, to, .. } in [to_broker, to_client] {
                    drop(to.as_ref().set_zero_linger());
                    // dropped, it would say a proper end before the socket is closed
                    to.forget();
                    drop(from);
                }
                self.happened();
            }
        }
    }

    /// Waits for an order to end.
    async fn ordered(&self) -> End {
        let mut orders = self.orders.clone();
        loop {
            let Orders { cut, reset, .. } = *orders.borrow_and_update();
            if self.number < reset {
                return End::Reset;
            }
            if self.number < cut || orders.changed().await.is_err() {
                return End::Cut;
            }
        }
    }

    /// Forwards one direction up to its end.
    async fn pump(&self, pipe: &mut Pipe, stalled: &watch::Sender<bool>) -> Result<(), End> {
        let mut buffer = vec![0; 64 * 1024];
        let mut trigger = self.trigger.filter(|trigger| trigger.direction == pipe.direction);
        let mut forwarded = 0_u64;
        loop {
            if let Some(due) = trigger.take_if(|trigger| trigger.offset <= forwarded)
                && self.number >= self.orders.borrow().spare
            {
                match due.fault {
                    Fault::Cut => return Err(End::Cut),
                    Fault::Reset => return Err(End::Reset),
                    Fault::Stall => {
                        stalled.send_replace(true);
                        self.happened();
                    }
                    Fault::Pause(time) => {
                        self.happened();
                        tokio::time::sleep(time).await;
                    }
                }
            }
            self.flowing(stalled).await?;
            let most = trigger.map_or(u64::MAX, |trigger| trigger.offset - forwarded);
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..most).unwrap_or_default();
            let read = pipe.from.read(part).await.map_err(|_| End::Failed)?;
            if read == 0 {
                drop(pipe.to.shutdown().await);
                return Ok(());
            }
            let delay = self.flowing(stalled).await?;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let part = part.get(..read).unwrap_or_default();
            forwarded += u64::try_from(read).unwrap_or_default();
            // before the other side can know
            self.count(pipe.direction, part);
            pipe.to.write_all(part).await.map_err(|_| End::Failed)?;
        }
    }

    fn count(&self, direction: Direction, part: &[u8]) {
        let bytes = u64::try_from(part.len()).unwrap_or_default();
        self.shared.counts.send_modify(|counts| {
            if let Some(traffic) = counts.traffic.get_mut(self.number) {
                match direction {
                    Direction::ToBroker => traffic.to_broker += bytes,
                    Direction::ToClient => traffic.to_client += bytes,
                }
            }
        });
        let mut recorded = self.shared.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Direction::ToClient, Some(recorded)) = (direction, &mut *recorded) {
            if recorded.len() <= self.number {
                recorded.resize_with(self.number + 1, Vec::new);
            }
            recorded.iter_mut().skip(self.number).take(1).for_each(|bytes| bytes.extend_from_slice(part));
        }
    }

    /// Waits while this connection is stalled. Returns the delay that is ordered.
    async fn flowing(&self, stalled: &watch::Sender<bool>) -> Result<Duration, End> {
        let mut orders = self.orders.clone();
        let mut stalled = stalled.subscribe();
        loop {
            let Orders { stall, resume, delay, .. } = *orders.borrow_and_update();
            let by_itself = *stalled.borrow_and_update() && self.number >= resume;
            if self.number >= stall && !by_itself {
                return Ok(delay);
            }
            let changed = tokio::select! {
                changed = orders.changed() => changed,
                changed = stalled.changed() => changed,
            };
            changed.map_err(|_| End::Failed)?;
        }
    }

    fn happened(&self) {
        self.shared.counts.send_modify(|counts| counts.faults += 1);
    }
}

impl Pipe {
    /// Reads to the end, without a look.
    async fn drain(&mut self) {
        let mut buffer = [0; 4096];
        while self.from.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    }
}
