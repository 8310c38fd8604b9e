//! A run: who takes part, and how it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use lepus::broker::Broker;
use lepus::robust::{Backoff, Entity, Event, Events, Unrestored};
use lepus::{ConnectOptions, Error};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::careless;
use crate::consumers;
use crate::dice::Dice;
use crate::faults::Faults;
use crate::handlers;
use crate::leaver;
use crate::model::Model;
use crate::network::{Cut, Network};
use crate::passing::Passing;
use crate::publishers::{Publisher, audit};
use crate::topology::Builder;
use crate::trace::{Trace, log};
use crate::without_confirms;

pub(crate) use lepus::{Channel, Connection, Consumer, Exchange, Queue};

pub(crate) const EXCHANGE: &str = "orders";
pub(crate) const JOBS: &str = "jobs";
pub(crate) const NEWS: &str = "news";

/// The hosts of the network; not every client knows the second.
pub(crate) const HOST: &str = "broker.invalid";
pub(crate) const OTHER_HOST: &str = "other.host";

/// Whoever takes longer after everything has healed hangs; in virtual time.
const HANGS: Duration = Duration::from_secs(600);

/// How often everything is cut in the end, until all is restored: faults of replies may be left over.
const LAST_CUTS: usize = 12;

/// How far a run is.
const CHAOS: u8 = 0;
const HEALED: u8 = 1;
const OVER: u8 = 2;

/// What all have in common who take part.
pub(crate) struct World {
    pub(crate) broker: Arc<Broker>,
    pub(crate) network: Arc<Network>,
    pub(crate) trace: Arc<Trace>,
    model: Mutex<Model>,
    phase: AtomicU8,
    /// The broker reads nothing from the links that there are.
    pub(crate) deaf: AtomicBool,
    heard: Mutex<BTreeMap<&'static str, u64>>,
    set_up: Mutex<BTreeSet<&'static str>>,
    changed: Notify,
}

/// What a run has shown.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Empty if all is well.
    pub(crate) wrong: Vec<String>,
    pub(crate) trace: Arc<Trace>,
    pub(crate) virtual_time: Duration,
    /// Messages that were sent, confirmed, received, and received more than once.
    pub(crate) counts: [usize; 4],
    pub(crate) reconnects: u64,
}

impl World {
    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    /// Whether things go wrong.
    pub(crate) fn has_faults(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == CHAOS
    }

    /// Whether things go wrong, or are still to be cut for the last time.
    pub(crate) fn is_chaos(&self) -> bool {
        self.phase.load(Ordering::Relaxed) < OVER
    }

    pub(crate) fn heard(&self, who: &'static str, number: u64) {
        let mut heard = self.heard.lock().unwrap();
        let highest = heard.entry(who).or_default();
        *highest = number.max(*highest);
    }

    /// The highest number that somebody has heard.
    pub(crate) fn heard_by(&self, who: &'static str) -> u64 {
        self.heard.lock().unwrap().get(who).copied().unwrap_or_default()
    }

    /// Somebody is ready for what may happen.
    pub(crate) fn set_up(&self, who: &'static str) {
        self.set_up.lock().unwrap().insert(who);
        self.changed.notify_waiters();
    }

    async fn are_set_up(&self, count: usize) {
        while self.set_up.lock().unwrap().len() < count {
            self.changed.notified().await;
        }
    }
}

/// Runs a seed to its end.
pub(crate) async fn run(seed: u64, prints: bool) -> Outcome {
    // the clock is paused a moment after its timer has begun: from here on it stands on the timer's milliseconds
    sleep(Duration::from_millis(1)).await;
    let mut dice = Dice::new(seed);
    let trace = Arc::new(Trace::new(prints));
    let began = Instant::now();
    let broker = Broker::options().without_port().seed(seed).start().await.unwrap();
    let broker = Arc::new(broker);
    let network = Network::new(Arc::clone(&broker), Arc::clone(&trace), dice.fork());
    let world = Arc::new(World {
        broker,
        network,
        trace: Arc::clone(&trace),
        model: Mutex::default(),
        phase: AtomicU8::new(CHAOS),
        deaf: AtomicBool::new(false),
        heard: Mutex::default(),
        set_up: Mutex::default(),
        changed: Notify::new(),
    });
    let reconnects = play(&world, &mut dice).await;
    let model = world.model();
    Outcome {
        wrong: model.faults.clone(),
        counts: model.counts(),
        trace,
        virtual_time: began.elapsed(),
        reconnects,
    }
}

async fn play(world: &Arc<World>, dice: &mut Dice) -> u64 {
    let limit = dice.pick(&[3_000, 60_000, 64 << 20]);
    let connections = connect(world, dice, limit).await;
    let [publishing, consuming, building] = [0, 1, 2].map(|role| &connections[role % connections.len()]);
    let mut cast = Cast { world, tasks: Vec::new() };
    world.model().consuming = Some(consuming.clone());

    if dice.percent(60) {
        cast.add("worker", consumers::work(Arc::clone(world), consuming.clone(), dice.fork()));
    } else {
        cast.add("worker", handlers::work(Arc::clone(world), consuming.clone(), dice.fork()));
    }
    cast.add("listener", consumers::listen(Arc::clone(world), consuming.clone()));
    cast.add("reader", consumers::read_notes(Arc::clone(world), consuming.clone()));
    world.are_set_up(cast.tasks.len()).await;
    let readers = std::mem::take(&mut cast.tasks);

    let numbers: Vec<_> = (1..=1 + dice.below(2)).collect();
    for number in &numbers {
        let publisher = Publisher {
            number: *number,
            connection: publishing.clone(),
            world: Arc::clone(world),
            dice: dice.fork(),
        };
        cast.add(&format!("publisher {number}"), publisher.run());
    }
    cast.add("writer", consumers::write(Arc::clone(world), building.clone(), dice.fork()));
    cast.add("careless", careless::blunder(Arc::clone(world), publishing.clone(), dice.fork()));
    cast.add("leaver", leaver::visit(Arc::clone(world), dice.fork()));
    let carefree = without_confirms::publish(Arc::clone(world), publishing.clone(), dice.fork());
    cast.add("carefree", carefree);
    tokio::spawn(audit(Arc::clone(world), numbers, limit));
    let builder = Builder::new(Arc::clone(world), building.clone(), dice.fork());
    let builder = tokio::spawn(builder.run());
    let passing = Passing {
        world: Arc::clone(world),
        connection: building.clone(),
        dice: dice.fork(),
        gone: Vec::new(),
        stays: None,
    };
    let passing = tokio::spawn(passing.run());

    let faults = Faults { world: Arc::clone(world), dice: dice.fork() };
    faults.run(1 + dice.below(10)).await;
    world.phase.store(HEALED, Ordering::Relaxed);
    let builder = finished(world, "builder", builder).await;
    let passing = finished(world, "passing", passing).await;
    let unsure = |entity: &Entity| builder.as_ref().is_some_and(|builder| builder.is_unsure(entity));
    restore_for_the_last_time(world, &connections, unsure).await;
    builder.iter().for_each(Builder::check);
    if let Some(passing) = &passing {
        passing.check().await;
    }

    world.phase.store(OVER, Ordering::Relaxed);
    cast.end().await;
    arrive(world).await;
    let reconnects = connections.iter().map(|connection| connection.counters().reconnects).sum();
    for connection in connections {
        match timeout(HANGS, connection.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => world.model().wrong(format!("closing: {error:#}")),
            Err(_) => world.model().wrong("closing hangs"),
        }
    }
    cast.tasks = readers;
    cast.end().await;
    vanish(world).await;
    reconnects
}

/// What somebody has brought whose part ends before the last restore.
async fn finished<T>(world: &World, name: &str, task: JoinHandle<Result<T, Error>>) -> Option<T> {
    let text = match timeout(HANGS, task).await {
        Ok(Ok(Ok(done))) => return Some(done),
        Ok(Ok(Err(error))) => format!("the {name} failed: {error:#}"),
        Ok(Err(panic)) => format!("the {name} panicked: {panic}"),
        Err(_) => format!("the {name} hangs"),
    };
    world.model().wrong(text);
    None
}

/// One connection for everything, or one for each role.
async fn connect(world: &Arc<World>, dice: &mut Dice, limit: usize) -> Vec<Connection> {
    let count = if dice.percent(30) { 1 } else { 3 };
    let several = dice.percent(50);
    let mut connections = Vec::new();
    for _ in 0..count {
        // with the builder on it
        let prompt = connections.len() + 1 == count;
        let options = options(world, dice, prompt);
        let backoff = Backoff::new().seed(dice.next());
        let mut robust = options.robust().backoff(backoff).unconfirmed_limit(limit);
        if several {
            robust = robust.host(OTHER_HOST, 5672);
        }
        connections.push(robust.connect().await.unwrap());
    }
    connections
}

/// What a client connects with. On a `prompt` link nothing arrives late.
pub(crate) fn options(world: &World, dice: &mut Dice, prompt: bool) -> ConnectOptions {
    let network = Arc::clone(&world.network);
    ConnectOptions::new(&world.broker.url())
        .unwrap()
        .connector(move |host, _port| Arc::clone(&network).connect(host.to_owned(), prompt))
        .heartbeat(Duration::from_secs(dice.pick(&[2, 5, 20])))
        .frame_max(dice.pick(&[8192, 131_072]))
        .connect_timeout(Duration::from_secs(2))
        .handshake_timeout(Duration::from_secs(3))
        .rpc_timeout(Duration::from_secs(5))
        .close_timeout(Duration::from_secs(2))
}

/// All links are cut, until everything is restored on the next, but for bindings of what their user is unsure of: they stay
/// recorded, and cannot be restored if it is gone.
async fn restore_for_the_last_time(
    world: &World,
    connections: &[Connection],
    unsure: impl Fn(&Entity) -> bool,
) {
    let mut unrestored = Vec::new();
    for _ in 0..LAST_CUTS {
        let listeners: Vec<_> = connections.iter().map(Connection::events).collect();
        for id in world.network.links() {
            world.network.cut(id, Cut::Both);
        }
        unrestored.clear();
        for mut events in listeners {
            match timeout(HANGS, restored(&mut events)).await {
                Ok(Ok(missing)) => unrestored.extend(missing),
                Ok(Err(text)) => return world.model().wrong(text),
                Err(_) => return world.model().wrong("nothing is restored"),
            }
        }
        let list: Vec<_> = unrestored.iter().map(ToString::to_string).collect();
        log!(world.trace, "world", "restored but for {list:?}");
        unrestored.retain(|unrestored: &Unrestored| !unsure(&unrestored.entity));
        if unrestored.is_empty() {
            return;
        }
    }
    world.model().wrong(format!("never restored: {unrestored:?}"));
}

/// What could not be restored, the next time that the rest is.
async fn restored(events: &mut Events) -> Result<Vec<Unrestored>, String> {
    loop {
        match events.next().await {
            Some(Event::Restored { unrestored, .. }) => {
                return Ok(unrestored);
            }
            Some(Event::GaveUp { error }) => return Err(format!("gave up: {error:#}")),
            Some(_) => {}
            None => return Err("a connection has ended".into()),
        }
    }
}

/// Waits until all that was confirmed has arrived.
async fn arrive(world: &World) {
    let deadline = Instant::now() + HANGS;
    while !world.model().missing().is_empty() {
        if Instant::now() > deadline {
            let missing = world.model().missing();
            return world.model().wrong(format!("confirmed and lost: {missing:?}"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until only the broker's own two tasks are left.
async fn vanish(world: &World) {
    let deadline = Instant::now() + HANGS;
    loop {
        let (connections, tasks) =
            (world.broker.connections(), Handle::current().metrics().num_alive_tasks());
        if connections.is_empty() && tasks <= 2 {
            return;
        }
        if Instant::now() > deadline {
            let text = format!("after the end there are {tasks} tasks, and the connections {connections:?}");
            return world.model().wrong(text);
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Those who take part, until they are done.
struct Cast<'a> {
    world: &'a World,
    tasks: Vec<(String, JoinHandle<Result<(), Error>>)>,
}

impl Cast<'_> {
    fn add(&mut self, name: &str, part: impl Future<Output = Result<(), Error>> + Send + 'static) {
        self.tasks.push((name.to_owned(), tokio::spawn(part)));
    }

    /// All must come to an end.
    async fn end(&mut self) {
        let deadline = Instant::now() + HANGS;
        for (name, mut task) in self.tasks.drain(..) {
            let text = match timeout_at(deadline, &mut task).await {
                Ok(Ok(Ok(()))) => continue,
                Ok(Ok(Err(error))) => format!("the {name} failed: {error:#}"),
                Ok(Err(panic)) => format!("the {name} panicked: {panic}"),
                Err(_) => format!("the {name} hangs"),
            };
            task.abort();
            self.world.model().wrong(text);
        }
    }
}
