//! The session that is cut, and what must be true afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::time::Duration;

use lepus::robust::Event;
use lepus::{ConnectOptions, Connection, Delivery, ErrorKind, ExchangeKind, Message, Settled};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::broker::url;
use crate::relay::{Counts, Direction, Relay, Traffic, Trigger};
use crate::wire::{Sent, methods};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// How many messages a session publishes.
const MESSAGES: u32 = 8;

/// What happened in one session, or in many.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) traffic: Vec<Traffic>,
    pub(crate) cuts: usize,
    /// Messages that came again.
    pub(crate) duplicates: usize,
    pub(crate) republished: u64,
    pub(crate) stale: u64,
    pub(crate) renamed: usize,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: &Self) {
        self.cuts += other.cuts;
        self.duplicates += other.duplicates;
        self.republished += other.republished;
        self.stale += other.stale;
        self.renamed += other.renamed;
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cuts, duplicates, republished, stale, renamed, .. } = self;
        write!(
            f,
            "{cuts} cuts, {republished} messages republished, {duplicates} came again, {stale} stale acks, \
             {renamed} queues renamed"
        )
    }
}

/// Runs a session through a relay that does what the triggers say. An error is what went wrong.
pub(crate) async fn run(plain: &Connection, name: &str, triggers: &[Trigger]) -> Result<Outcome, String> {
    let name = format!("lepus.stairway.{:07}.{name}", std::process::id());
    let result = session(plain, &name, triggers).await;
    let cleaned = clean(plain, &name).await;
    result.and_then(|outcome| cleaned.map(|()| outcome)).map_err(|error| error.to_string())
}

async fn clean(plain: &Connection, name: &str) -> Result<()> {
    let channel = plain.channel().await?;
    channel.queue(name)?.delete().await?;
    channel.exchange(name)?.delete().await?;
    Ok(channel.close().await?)
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(what().into()) }
}

async fn session(plain: &Connection, name: &str, triggers: &[Trigger]) -> Result<Outcome> {
    let relay = Relay::to_broker(url()).await?;
    relay.record();
    for trigger in triggers {
        relay.next(*trigger);
    }
    let options = ConnectOptions::new(&relay.url(url()))?.robust().retry_first_connect();
    let connection = options.connect().await?;
    let mut events = connection.events();

    let channel = connection.channel().await?;
    let exchange = channel.declare_exchange(name, ExchangeKind::Headers).await?;
    // The next consumer gets nothing before the lost one's messages are back in their places: in order, then.
    let durable = channel.declare_queue(name).single_active_consumer().await?;
    let own = channel.declare_queue("").await?;
    // of these the first two differ only in their arguments
    durable.bind(&exchange, "").argument("kind", "one").await?;
    durable.bind(&exchange, "").argument("kind", "two").await?;
    own.bind(&exchange, "").argument("kind", "two").await?;
    let mut durable_taken = Taking::start(durable.consume().prefetch(3).await?);
    let mut own_taken = Taking::start(own.consume().prefetch(4).await?);

    // half of them one by one, the others all at once
    for number in 1..=MESSAGES / 2 {
        exchange.publish("", message(number)).mandatory().await?;
    }
    let mut confirms = Vec::new();
    for number in MESSAGES / 2 + 1..=MESSAGES {
        confirms.push(exchange.enqueue("", message(number)).mandatory().await?);
    }
    for confirm in confirms {
        confirm.await?;
    }
    durable_taken.hold.send_replace(false);
    own_taken.hold.send_replace(false);
    for number in 1..=MESSAGES {
        durable_taken.until(number).await?;
    }
    // answered after all acks have arrived
    channel.qos(5).await?;

    // what is due by now has happened, and the rest shall not
    let due = |counts: &Counts| {
        let due = triggers.iter().zip(&counts.traffic).filter(|(trigger, traffic)| {
            trigger.offset
                <= match trigger.direction {
                    Direction::ToBroker => traffic.to_broker,
                    Direction::ToClient => traffic.to_client,
                }
        });
        due.count()
    };
    relay.until(|counts| counts.faults >= due(counts) && counts.connections() > due(counts)).await?;
    relay.spare();
    relay.forget_plans();
    connection.ready().await?;
    let counts = relay.counts();

    probe(plain, name, own.name().as_str().unwrap_or_default(), &mut durable_taken, &mut own_taken).await?;
    // answered after the acks of the probes
    channel.qos(6).await?;
    let Traffic { to_broker, to_client } = relay.counts().traffic[counts.connections() - 1];
    ensure(counts.connections() == relay.counts().connections(), || "it connected once more".into())?;
    ensure(to_broker > 0 && to_client > 0, || "the probes went elsewhere".into())?;
    let counters = connection.counters();
    connection.close().await?;
    let queue = plain.channel().await?.declare_queue(name).passive().await?;
    ensure(queue.message_count() == 0, || {
        format!("{} messages were not acknowledged", queue.message_count())
    })?;

    let mut outcome = Outcome {
        cuts: counts.faults,
        duplicates: durable_taken.end().await? + own_taken.end().await?,
        republished: counters.republished,
        stale: counters.stale_acks,
        traffic: counts.traffic,
        renamed: 0,
    };
    while let Some(event) = events.next().await {
        match event {
            Event::Renamed { .. } => outcome.renamed += 1,
            Event::Restored { unrestored, .. } if !unrestored.is_empty() => {
                return Err(format!("not restored: {}", unrestored[0]).into());
            }
            Event::ChannelClosed { error } | Event::GaveUp { error } if error.kind() != ErrorKind::Closed => {
                return Err(error.into());
            }
            _ => {}
        }
    }
    for (number, to_client) in relay.recorded().iter().enumerate() {
        // the restore asks whether the exclusive queue of the lost connection is gone, and may be told: locked
        let code = methods(to_client).into_iter().filter_map(Sent::close_code).find(|code| *code != 405);
        ensure(code.is_none(), || format!("the broker closed a channel on connection {number}: {code:?}"))?;
    }
    Ok(outcome)
}

fn message(number: u32) -> Message {
    Message::new(number.to_string()).header("kind", if number.is_multiple_of(2) { "two" } else { "one" })
}

/// How long the broker may need to notice a loss.
const CLEARED: Duration = Duration::from_secs(5);

/// The broker has the topology, once.
async fn probe(
    plain: &Connection,
    name: &str,
    own: &str,
    durable_taken: &mut Taking,
    own_taken: &mut Taking,
) -> Result<()> {
    let channel = plain.channel().await?;
    channel.declare_exchange(name, ExchangeKind::Headers).passive().await?;
    let one_consumer = async {
        // the broker may still count the lost one
        while channel.declare_queue(name).passive().await?.consumer_count() != 1 {}
        Ok::<_, lepus::Error>(())
    };
    timeout(CLEARED, one_consumer).await.map_err(|_| "not just one consumer")??;
    let locked = plain.channel().await?.declare_queue(own).passive().await.err().and_then(|e| e.reply_code());
    ensure(locked == Some(405), || format!("the exclusive queue '{own}': {locked:?}"))?;
    let exchange = channel.exchange(name)?;
    let two = MESSAGES + 2;
    for number in [MESSAGES + 1, two] {
        exchange.publish("", message(number)).mandatory().await?;
        durable_taken.until(number).await?;
    }
    own_taken.until(two).await?;
    let three = Message::new("nobody").header("kind", "three");
    let returned = exchange.publish("", three).mandatory().await.err().map(|error| error.kind());
    ensure(returned == Some(ErrorKind::Returned), || format!("a binding too many: {returned:?}"))?;
    Ok(channel.close().await?)
}

/// A consumer that takes and acknowledges in a task of its own. While it holds, it acknowledges each message only
/// when the next one comes, so that some acks are stale after a cut.
struct Taking {
    numbers: mpsc::UnboundedReceiver<u32>,
    seen: BTreeSet<u32>,
    hold: watch::Sender<bool>,
    task: JoinHandle<Result<usize>>,
}

impl Taking {
    fn start(consumer: lepus::Consumer) -> Self {
        let (taken, numbers) = mpsc::unbounded_channel();
        let hold = watch::Sender::new(true);
        let task = tokio::spawn(take(consumer, taken, hold.subscribe()));
        Self { numbers, seen: BTreeSet::new(), hold, task }
    }

    /// Waits until this number was taken and acknowledged.
    async fn until(&mut self, number: u32) -> Result<()> {
        while !self.seen.contains(&number) {
            let Some(number) = self.numbers.recv().await else {
                let again = (&mut self.task).await??;
                return Err(format!("the stream ended before {number} came; {again} came again").into());
            };
            self.seen.insert(number);
        }
        Ok(())
    }

    /// The task's result: how many came twice.
    async fn end(self) -> Result<usize> {
        drop(self.hold);
        self.task.await?
    }
}

/// Takes to the end of the stream, and tells how many came twice.
async fn take(
    mut consumer: lepus::Consumer,
    taken: mpsc::UnboundedSender<u32>,
    mut hold: watch::Receiver<bool>,
) -> Result<usize> {
    let (mut seen, mut again, mut kept) = (BTreeMap::<u32, u32>::new(), 0, None::<(u32, Delivery)>);
    loop {
        let delivery = tokio::select! {
            biased;
            delivery = consumer.next() => match delivery {
                Some(delivery) => Some(delivery?),
                None => return Ok(again),
            },
            Ok(_) = hold.wait_for(|hold| !hold), if kept.is_some() => None,
        };
        if let Some((number, delivery)) = kept.take()
            && acknowledged(delivery)?
        {
            // nobody waits for it any more
            taken.send(number).ok();
        }
        let Some(delivery) = delivery else { continue };
        let number: u32 = delivery.body_str().unwrap_or_default().parse()?;
        if let Some(times) = seen.get(&number) {
            let marked = delivery.redelivered() || delivery.is_republished();
            ensure(marked, || format!("{number} came {} times, unmarked", times + 1))?;
            again += 1;
        } else if let Some((last, _)) = seen.last_key_value() {
            ensure(*last < number, || format!("{number} came for the first time after {last}"))?;
        }
        *seen.entry(number).or_default() += 1;
        kept = Some((number, delivery));
    }
}

/// Whether the ack was accepted; it may be stale.
fn acknowledged(delivery: Delivery) -> Result<bool> {
    Ok(delivery.ack()? == Settled::Sent)
}
