//! The network between clients and the broker: links of two pipes each, which take time, are cut, or lose everything.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lepus::broker::Broker;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::dice::Dice;
use crate::trace::{Trace, log};

/// How a link ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Both ends see it at once; what is under way is lost.
    Both,
    /// The client sees it at once. What it has written arrives after this time, and only then the broker sees it, too.
    SeenByClient(Duration),
    /// The broker sees it at once. The client sees nothing, and what it writes is lost.
    SeenByBroker,
}

impl Cut {
    pub(crate) fn random(dice: &mut Dice) -> Self {
        match dice.below(4) {
            0 | 1 => Self::Both,
            2 => Self::SeenByClient(dice.millis(0, 4000)),
            _ => Self::SeenByBroker,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToBroker,
    ToClient,
}

/// A cut that waits for a byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) direction: Direction,
    /// So many bytes pass before it.
    pub(crate) after: u64,
    pub(crate) cut: Cut,
}

/// Whether a link was cut, for all who work on it. They are woken in their order, which a watch channel does not do.
#[derive(Debug, Default)]
struct Seen {
    cut: Mutex<Option<Cut>>,
    changed: Notify,
}

impl Seen {
    fn get(&self) -> Option<Cut> {
        *self.cut.lock().unwrap()
    }

    /// Waits for a cut.
    async fn until(&self, is: impl Fn(Cut) -> bool) {
        while !self.get().is_some_and(&is) {
            self.changed.notified().await;
        }
    }
}

#[derive(Debug)]
struct Link {
    /// Nothing arrives late.
    prompt: bool,
    seen: Arc<Seen>,
    /// Bytes that have passed, by direction.
    passed: [u64; 2],
    plan: Option<Plan>,
}

/// What a host does with new links. All hosts lead to the same broker, like the addresses of a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Host {
    #[default]
    Up,
    /// Nobody listens there.
    Refuses,
    /// Nothing answers before the host is up again.
    Silent,
    /// It accepts, and then says nothing.
    Mute,
}

#[derive(Debug)]
struct State {
    dice: Dice,
    next: u64,
    links: BTreeMap<u64, Link>,
    /// For the next link.
    plan: Option<Plan>,
    /// The most that a chunk takes, in milliseconds.
    latency: u64,
    /// Nothing passes.
    hole: bool,
    /// The hosts that are not up.
    hosts: BTreeMap<String, Host>,
}

/// The network.
#[derive(Debug)]
pub(crate) struct Network {
    broker: Arc<Broker>,
    trace: Arc<Trace>,
    state: Mutex<State>,
    /// Wakes what has fallen into the hole, or waits for a silent host.
    filled: Notify,
}

impl Network {
    pub(crate) fn new(broker: Arc<Broker>, trace: Arc<Trace>, mut dice: Dice) -> Arc<Self> {
        let latency = dice.pick(&[1, 5, 40]);
        let (links, hosts) = (BTreeMap::new(), BTreeMap::new());
        let state = State { dice, next: 1, links, plan: None, latency, hole: false, hosts };
        Arc::new(Self { broker, trace, state: Mutex::new(state), filled: Notify::new() })
    }

    /// A new link to the broker. On a `prompt` one nothing arrives late: what a client has told the broker must not
    /// overtake what it tells it on the next link.
    pub(crate) async fn connect(self: Arc<Self>, host: String, prompt: bool) -> io::Result<DuplexStream> {
        self.take_time().await;
        while self.host(&host) == Host::Silent {
            self.filled.notified().await;
        }
        match self.host(&host) {
            Host::Up | Host::Silent => {}
            Host::Refuses => return Err(io::ErrorKind::ConnectionRefused.into()),
            Host::Mute => return Ok(mute()),
        }
        let (size, id) = {
            let mut state = self.state.lock().unwrap();
            state.next += 1;
            (state.dice.pick(&[700, 5_000, 64 << 10]), state.next - 1)
        };
        let ((client, near), (far, end)) = (duplex(size), duplex(size));
        self.broker.serve(end)?;
        let seen = Arc::new(Seen::default());
        {
            let mut state = self.state.lock().unwrap();
            let plan = state.plan.take();
            state.links.insert(id, Link { prompt, seen: Arc::clone(&seen), passed: [0; 2], plan });
        }
        log!(self.trace, "network", "link {id} to {host}");
        let ((near_read, near_write), (far_read, far_write)) = (split(near), split(far));
        let pipe = Pipe { network: Arc::clone(&self), id, seen: Arc::clone(&seen) };
        let to_broker = pipe.clone().carry_to_broker(near_read, far_write);
        let to_client = pipe.carry_to_client(far_read, near_write);
        tokio::spawn(self.run(id, seen, to_broker, to_client));
        Ok(client)
    }

    /// Runs both pipes of a link as long as it lives.
    async fn run(
        self: Arc<Self>,
        id: u64,
        seen: Arc<Seen>,
        to_broker: impl Future<Output = ()>,
        to_client: impl Future<Output = ()>,
    ) {
        tokio::select! {
            biased;
            () = seen.until(|cut| cut == Cut::Both) => {}
            _ = async { tokio::join!(to_broker, to_client) } => {}
        }
        self.state.lock().unwrap().links.remove(&id);
        log!(self.trace, "network", "link {id} is gone");
    }

    /// How many links there are.
    pub(crate) fn links(&self) -> Vec<u64> {
        self.state.lock().unwrap().links.keys().copied().collect()
    }

    pub(crate) fn cut(&self, id: u64, mut cut: Cut) {
        if let Some(link) = self.state.lock().unwrap().links.get(&id) {
            if link.prompt && matches!(cut, Cut::SeenByClient(_)) {
                cut = Cut::Both;
            }
            // the first one counts, but nothing outlives a cut that both see
            let mut now = link.seen.cut.lock().unwrap();
            if now.is_none() || cut == Cut::Both {
                *now = Some(cut);
                link.seen.changed.notify_waiters();
            }
        }
    }

    /// A cut of a link, some bytes from now.
    pub(crate) fn plan(&self, id: u64, mut plan: Plan) {
        if let Some(link) = self.state.lock().unwrap().links.get_mut(&id) {
            plan.after += link.passed[plan.direction as usize];
            link.plan = Some(plan);
        }
    }

    /// A cut of the next link.
    pub(crate) fn plan_next(&self, plan: Option<Plan>) {
        self.state.lock().unwrap().plan = plan;
    }

    /// Whether nothing passes any more.
    pub(crate) fn swallow(&self, all: bool) {
        self.state.lock().unwrap().hole = all;
        // in their order; a watch channel would wake them at random
        self.filled.notify_waiters();
    }

    fn host(&self, name: &str) -> Host {
        self.state.lock().unwrap().hosts.get(name).copied().unwrap_or_default()
    }

    /// From now on a host does this with new links.
    pub(crate) fn set_host(&self, name: &str, host: Host) {
        self.state.lock().unwrap().hosts.insert(name.to_owned(), host);
        self.filled.notify_waiters();
    }

    /// No planned cut happens any more, and all hosts are up.
    pub(crate) fn heal(&self) {
        self.state.lock().unwrap().hosts.clear();
        self.swallow(false);
        let mut state = self.state.lock().unwrap();
        state.plan = None;
        state.links.values_mut().for_each(|link| link.plan = None);
    }

    fn delay(&self) -> Duration {
        let mut state = self.state.lock().unwrap();
        let most = state.latency;
        state.dice.millis(0, most + 1)
    }

    /// The time that a chunk takes, and that of the hole that it falls into.
    async fn take_time(&self) {
        sleep(self.delay()).await;
        self.whole().await;
    }

    async fn whole(&self) {
        while self.state.lock().unwrap().hole {
            self.filled.notified().await;
        }
    }

    /// Bytes are about to pass: how many of them do, and what happens then.
    fn pass(&self, id: u64, direction: Direction, bytes: &[u8]) -> (usize, Option<Cut>) {
        let mut state = self.state.lock().unwrap();
        let Some(link) = state.links.get_mut(&id) else { return (0, None) };
        let passed = &mut link.passed[direction as usize];
        let count = u64::try_from(bytes.len()).unwrap();
        let plan = link.plan.filter(|plan| plan.direction == direction && *passed + count >= plan.after);
        let (taken, cut) = match plan {
            // the broker gets what follows, too, without a gap
            Some(Plan { direction: Direction::ToBroker, cut: cut @ Cut::SeenByClient(_), .. }) => {
                (count, Some(cut))
            }
            Some(plan) => (plan.after.saturating_sub(*passed), Some(plan.cut)),
            None => (count, None),
        };
        *passed += taken;
        if cut.is_some() {
            link.plan = None;
        }
        let taken = usize::try_from(taken).unwrap();
        self.trace.passed(id, direction as u8, &bytes[..taken]);
        (taken, cut)
    }
}

/// What the two directions of a link know.
#[derive(Clone)]
struct Pipe {
    network: Arc<Network>,
    id: u64,
    seen: Arc<Seen>,
}

impl Pipe {
    /// What the client writes goes to the broker; after some cuts late, or nowhere.
    async fn carry_to_broker(self, mut from: ReadHalf<DuplexStream>, to: WriteHalf<DuplexStream>) {
        let (mut buffer, mut to, mut late) = (vec![0; 16 << 10], Some(to), false);
        loop {
            let read = tokio::select! {
                biased;
                () = self.seen.until(|cut| cut == Cut::SeenByBroker), if to.is_some() => {
                    close(to.take()).await;
                    continue;
                }
                read = from.read(&mut buffer) => read,
            };
            let count = read.unwrap_or(0);
            self.network.take_time().await;
            let cut = self.seen.get();
            if let Some(Cut::SeenByClient(time)) = cut
                && !late
            {
                late = true;
                sleep(time).await;
            }
            if count == 0 {
                return close(to).await;
            }
            if !self.pass(Direction::ToBroker, to.as_mut(), &buffer[..count]).await {
                to = None;
            }
        }
    }

    /// What the broker writes goes to the client, until the link is cut.
    async fn carry_to_client(self, mut from: ReadHalf<DuplexStream>, to: WriteHalf<DuplexStream>) {
        let (mut buffer, mut to) = (vec![0; 16 << 10], Some(to));
        loop {
            let read = tokio::select! {
                biased;
                () = self.seen.until(|_| true) => break,
                read = from.read(&mut buffer) => read,
            };
            let count = read.unwrap_or(0);
            self.network.take_time().await;
            if count == 0 || self.seen.get().is_some() {
                break;
            }
            if !self.pass(Direction::ToClient, to.as_mut(), &buffer[..count]).await {
                break;
            }
        }
        // the client sees nothing of what only the broker sees
        if self.seen.get() != Some(Cut::SeenByBroker) {
            close(to.take()).await;
        }
    }

    /// Passes bytes on, up to a planned cut. Whether there is anybody to take more.
    async fn pass(
        &self,
        direction: Direction,
        to: Option<&mut WriteHalf<DuplexStream>>,
        bytes: &[u8],
    ) -> bool {
        let (taken, cut) = self.network.pass(self.id, direction, bytes);
        let passed = match to {
            Some(to) => to.write_all(&bytes[..taken]).await.is_ok(),
            None => false,
        };
        if let Some(cut) = cut {
            log!(self.network.trace, "network", "link {} reaches its planned cut: {cut:?}", self.id);
            self.network.cut(self.id, cut);
        }
        passed
    }
}

/// A stream whose other end reads, and never says anything.
fn mute() -> DuplexStream {
    let (client, mut end) = duplex(1 << 10);
    tokio::spawn(async move { tokio::io::copy(&mut end, &mut tokio::io::sink()).await });
    client
}

async fn close(to: Option<WriteHalf<DuplexStream>>) {
    if let Some(mut to) = to {
        // an error: the other end is gone
        drop(to.shutdown().await);
    }
}
