//! Who works meanwhile.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lepus::{Connection, Consumer};
use lepus::{Error, ErrorKind, Exchange, Message, Settled};
use tokio::sync::watch;

/// How many messages a producer has under way at most.
const UNDER_WAY: usize = 50;
/// The pace of a producer.
const PACE: Duration = Duration::from_millis(2);

/// What a producer has done so far.
#[derive(Debug, Default)]
pub(crate) struct Produced {
    pub(crate) sent: AtomicU64,
    pub(crate) confirmed: AtomicU64,
    pub(crate) stop: AtomicBool,
}

/// Publishes `producer:number` at a steady pace until it is told to stop, and then waits for the last confirms.
/// Returns the numbers that the broker refused.
pub(crate) async fn produce(
    id: usize,
    exchange: Exchange,
    key: String,
    done: Arc<Produced>,
) -> Result<Vec<u64>, Error> {
    let (mut under_way, mut refused, mut number) = (VecDeque::new(), Vec::new(), 0);
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let stop = done.stop.load(Ordering::Relaxed);
        if !stop {
            pace.tick().await;
            number += 1;
            let message = Message::new(format!("{id}:{number}")).message_id(format!("{id}:{number}"));
            under_way.push_back((number, exchange.enqueue(&key, message).await?));
            done.sent.store(number, Ordering::Relaxed);
        }
        while under_way.len() > if stop { 0 } else { UNDER_WAY } {
            let Some((number, confirm)) = under_way.pop_front() else { break };
            match confirm.await {
                Ok(()) => drop(done.confirmed.fetch_add(1, Ordering::Relaxed)),
                // as a broker may that is about to stop; the message does not count as sent
                Err(error) if error.kind() == ErrorKind::Nacked => refused.push(number),
                Err(error) => return Err(error),
            }
        }
        if stop {
            return Ok(refused);
        }
    }
}

/// What a consumer has got.
#[derive(Debug, Default)]
pub(crate) struct Consumed {
    /// How often each number of each producer came.
    pub(crate) times: HashMap<(usize, u64), u32>,
    /// The highest number of each producer.
    pub(crate) highest: HashMap<usize, u64>,
    /// Came neither redelivered nor published again: the original. A broker that is slow to read what a lost connection
    /// has left may hand it out after the copy that was published again.
    pub(crate) originals: HashSet<(usize, u64)>,
    /// Came twice as the original.
    pub(crate) unmarked: Vec<(usize, u64)>,
    /// Came for the first time after a later one, although never delivered to anybody nor published again.
    pub(crate) disordered: Vec<(usize, u64)>,
    pub(crate) stale: u64,
}

/// Takes and acknowledges until the stream ends.
pub(crate) async fn consume(mut consumer: Consumer, got: watch::Sender<Consumed>) -> Result<(), Error> {
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        let text = delivery.body_str().unwrap();
        let (producer, number) = text.split_once(':').unwrap();
        let id = (producer.parse().unwrap(), number.parse().unwrap());
        let marked = delivery.redelivered() || delivery.is_republished();
        let stale = u64::from(delivery.ack()? == Settled::Stale);
        got.send_modify(|got| {
            let times = got.times.entry(id).or_default();
            *times += 1;
            let highest = got.highest.entry(id.0).or_default();
            let first = *times == 1;
            if !marked && !got.originals.insert(id) {
                got.unmarked.push(id);
            } else if !marked && first && *highest > id.1 {
                got.disordered.push(id);
            }
            *highest = id.1.max(*highest);
            got.stale += stale;
        });
    }
    Ok(())
}

/// Waits until a consumer has got everything that is confirmed, and tells how much is missing when that takes too
/// long.
pub(crate) async fn complete(
    got: &mut watch::Receiver<Consumed>,
    confirmed: &[(usize, u64)],
    limit: Duration,
) -> usize {
    let missing = |got: &Consumed| confirmed.iter().filter(|id| !got.times.contains_key(id)).count();
    let all_came = tokio::time::timeout(limit, got.wait_for(|got| missing(got) == 0)).await.is_ok();
    if all_came { 0 } else { missing(&got.borrow()) }
}

/// A connection's consumer of a queue that is bound to the exchange.
pub(crate) async fn consumer(connection: &Connection, queue: &str, exchange: &str, key: &str) -> Consumer {
    let channel = connection.channel().await.unwrap();
    let exchange = channel.declare_exchange(exchange, lepus::ExchangeKind::Topic).await.unwrap();
    let queue = channel.declare_queue(queue).await.unwrap();
    queue.bind(&exchange, key).await.unwrap();
    queue.consume().prefetch(100).await.unwrap()
}
