//! The faults, and the tally.

use std::env;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lepus::Connection;
use lepus::ExchangeKind;
use lepus::broker::Broker;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

use crate::control::own_node;
use crate::dice::Dice;
use crate::relay::Relay;
use crate::roles::{Consumed, Produced, complete, consume, consumer, produce};
use crate::victim::Victim;

const PRODUCERS: usize = 2;
/// Whoever takes longer after the last fault hangs.
const HANGS: Duration = Duration::from_secs(30);
/// Longer than any recovery may take.
const TOO_LONG: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
enum Chaos {
    Cut,
    Reset,
    Stall,
    Refuse,
    CloseAll,
    StopApp,
    Kill,
}

const ALL: [Chaos; 7] =
    [Chaos::Cut, Chaos::Reset, Chaos::Stall, Chaos::Refuse, Chaos::CloseAll, Chaos::StopApp, Chaos::Kill];

impl Chaos {
    /// Happens, and returns when it is over.
    async fn happen(self, relay: &Relay, victim: &mut Victim, dice: &mut Dice) {
        match self {
            Self::Cut => relay.cut(),
            Self::Reset => relay.reset(),
            Self::Stall => {
                relay.stall();
                sleep(dice.millis(100, 800)).await;
                relay.resume();
            }
            Self::Refuse => {
                relay.refuse().await.unwrap();
                relay.cut();
                sleep(dice.millis(100, 1500)).await;
                relay.accept().await.unwrap();
            }
            Self::CloseAll => victim.close_all_connections(),
            Self::StopApp => victim.restart().await,
            Self::Kill => victim.kill_and_start(dice.millis(100, 800)).await,
        }
    }
}

/// The time until a message arrives that was not sent before now.
async fn recovered(got: &mut watch::Receiver<Consumed>, producers: &[Arc<Produced>]) -> Option<Duration> {
    let (over, sent): (_, Vec<_>) =
        (Instant::now(), producers.iter().map(|done| done.sent.load(Ordering::Relaxed)).collect());
    let newer = |got: &Consumed| {
        sent.iter().enumerate().any(|(id, sent)| got.highest.get(&id).is_some_and(|highest| highest > sent))
    };
    timeout(HANGS, got.wait_for(newer)).await.ok().map(|_| over.elapsed())
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

async fn connect(url: &str) -> Connection {
    lepus::connect_robust(url).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_confirmed_is_lost_whatever_happens() {
    let broker = Broker::start().await.unwrap();
    chaos(Victim::Embedded(broker), 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs RabbitMQ: kills a node of its own"]
async fn nothing_confirmed_is_lost_whatever_happens_to_a_node() {
    chaos(Victim::Node(block_in_place(own_node)), 15).await;
}

async fn chaos(mut victim: Victim, seconds: u64) {
    let seconds = number("LEPUS_CHAOS_SECONDS").unwrap_or(seconds);
    let seed = number("LEPUS_CHAOS_SEED").unwrap_or_else(Dice::seed);
    println!("{seconds} s with LEPUS_CHAOS_SEED={seed}");
    let mut dice = Dice::new(seed);
    let relay = Relay::start(victim.address()).await.unwrap();
    let url = relay.url(&victim.url());

    // one connection for each role
    let connections = [connect(&url).await, connect(&url).await, connect(&url).await, connect(&url).await];
    let mut consumers = Vec::new();
    for (queue, connection) in ["durable", ""].into_iter().zip(&connections) {
        let consumer = consumer(connection, queue, "chaos", "#").await;
        let got = watch::Sender::default();
        let (sender, receiver) = (got.clone(), got.subscribe());
        consumers.push((tokio::spawn(consume(consumer, sender)), receiver));
    }
    let mut producers = Vec::new();
    let done: Vec<Arc<Produced>> = (0..PRODUCERS).map(|_| Arc::default()).collect();
    for (id, (done, connection)) in done.iter().zip(&connections[2..]).enumerate() {
        let channel = connection.channel().await.unwrap();
        let exchange = channel.declare_exchange("chaos", ExchangeKind::Topic).await.unwrap();
        producers.push(tokio::spawn(produce(id, exchange, format!("producer.{id}"), Arc::clone(done))));
    }

    let deadline = Instant::now() + Duration::from_secs(seconds);
    let (mut times, mut round) = (Vec::new(), Vec::new());
    // each of them at least once
    while Instant::now() < deadline || times.len() < ALL.len() * consumers.len() {
        if round.is_empty() {
            round.extend(ALL);
            dice.shuffle(&mut round);
        }
        let chaos = round.pop().unwrap();
        sleep(dice.millis(50, 600)).await;
        chaos.happen(&relay, &mut victim, &mut dice).await;
        let [(_, durable), (_, own)] = &mut consumers[..] else { panic!() };
        let (durable, own) = tokio::join!(recovered(durable, &done), recovered(own, &done));
        let [durable, own] = [("durable", durable), ("exclusive", own)].map(|(role, time)| {
            time.unwrap_or_else(|| panic!("after {chaos:?} the {role} consumer got nothing any more"))
        });
        println!("{chaos:?}: the next message after {durable:.0?} and {own:.0?}");
        times.extend([durable, own]);
    }

    for done in &done {
        done.stop.store(true, Ordering::Relaxed);
    }
    let (mut confirmed, mut refused_total) = (Vec::new(), 0);
    for (id, producer) in producers.into_iter().enumerate() {
        let refused = timeout(HANGS, producer).await.expect("a producer hangs").unwrap().unwrap();
        refused_total += refused.len();
        let sent = done[id].sent.load(Ordering::Relaxed);
        confirmed.extend((1..=sent).filter(|number| !refused.contains(number)).map(|number| (id, number)));
    }
    let counted: u64 = done.iter().map(|done| done.confirmed.load(Ordering::Relaxed)).sum();
    assert_eq!(counted, u64::try_from(confirmed.len()).unwrap());
    let lost = complete(&mut consumers[0].1, &confirmed, HANGS).await;
    for connection in &connections {
        connection.close().await.unwrap();
    }
    for (task, _) in &mut consumers {
        task.await.unwrap().unwrap();
    }

    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    let got = consumers[0].1.borrow();
    let duplicates: u32 = got.times.values().map(|times| times - 1).sum();
    let counters = connections.iter().map(Connection::counters);
    let (reconnects, republished) =
        counters.fold((0, 0), |sum, counters| (sum.0 + counters.reconnects, sum.1 + counters.republished));
    println!(
        "{} faults: {} confirmed, {refused_total} refused, {} received, {duplicates} duplicates, {lost} lost; \
         {reconnects} reconnects, {republished} republished, {} stale acks; \
         from a fault's end to the next message: median {median:.0?}, worst {worst:.0?}",
        times.len() / consumers.len(),
        confirmed.len(),
        got.times.len(),
        got.stale,
    );
    assert_eq!(lost, 0, "confirmed and lost");
    assert!(got.unmarked.is_empty(), "came twice, without a mark: {:?}", got.unmarked);
    assert!(got.disordered.is_empty(), "first came after later ones: {:?}", got.disordered);
    assert!(worst < TOO_LONG, "a recovery took {worst:?}");
}
