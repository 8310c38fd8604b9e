//! The client goes on at another node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lepus::{ConnectOptions, ErrorKind};
use lepus::{Connection, Consumer};
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::timeout;

use crate::cluster::Cluster;

/// Longer than an election and a recovery may take.
const HANGS: Duration = Duration::from_secs(30);
/// How long a publisher waits after its message was refused.
const REFUSED: Duration = Duration::from_millis(50);
const QUEUE: &str = "numbers";

/// A connection to the first node, which knows the others.
async fn connect(cluster: &Cluster) -> Connection {
    let [first, others @ ..] = &cluster.nodes[..] else { panic!() };
    let addresses = others.iter().map(|node| (node.address().ip().to_string(), node.address().port()));
    let options = ConnectOptions::new(&first.url).unwrap().robust().hosts(addresses);
    options.connect().await.unwrap()
}

/// Publishes numbers one after the other until it is told to stop; returns those that were confirmed.
async fn publish(connection: Connection, last: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> BTreeSet<u64> {
    let mut confirmed = BTreeSet::new();
    let (mut number, mut channel) = (0, connection.channel().await.unwrap());
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        match channel.default_exchange().publish(QUEUE, number.to_string()).mandatory().await {
            Ok(()) => {
                confirmed.insert(number);
            }
            // A quorum queue without a leader takes nothing. RabbitMQ 3.10 then goes on to refuse what comes on the
            // same channel, until the old leader's node is back.
            Err(error) if error.kind() == ErrorKind::Nacked => {
                tokio::time::sleep(REFUSED).await;
                channel = connection.channel().await.unwrap();
            }
            Err(error) => panic!("{number}: {error}"),
        }
        last.store(number, Ordering::Relaxed);
    }
    confirmed
}

/// Takes numbers until the stream ends.
async fn consume(mut consumer: Consumer, seen: watch::Sender<BTreeSet<u64>>) {
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery.unwrap();
        let number = delivery.body_str().unwrap().parse().unwrap();
        seen.send_if_modified(|seen| seen.insert(number));
        delivery.ack().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs RabbitMQ: starts three nodes of its own"]
async fn nothing_confirmed_is_lost_when_the_node_is_killed() {
    let mut cluster = block_in_place(|| Cluster::start(3));
    let (publisher, subscriber) = (connect(&cluster).await, connect(&cluster).await);
    let channel = publisher.channel().await.unwrap();
    channel.declare_queue(QUEUE).quorum().await.unwrap();
    let (last, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let publishing = tokio::spawn(publish(publisher.clone(), Arc::clone(&last), Arc::clone(&stop)));
    let queue = subscriber.channel().await.unwrap().queue(QUEUE).unwrap();
    let seen = watch::Sender::default();
    let mut arrived = seen.subscribe();
    let consuming = tokio::spawn(consume(queue.consume().prefetch(20).await.unwrap(), seen));

    // first the node that both are on and that leads the queue; then, with the first one back, the second
    for node in [0, 1] {
        let some = last.load(Ordering::Relaxed) + 100;
        arrived.wait_for(|seen| seen.last().is_some_and(|last| *last > some)).await.unwrap();
        block_in_place(|| cluster.nodes[node].kill());
        let (killed, before) = (Instant::now(), last.load(Ordering::Relaxed));
        let newer = arrived.wait_for(|seen| seen.last().is_some_and(|last| *last > before + 1));
        timeout(HANGS, newer).await.expect("nothing comes any more").unwrap();
        println!("node {node} killed: the next message after {:.0?}", killed.elapsed());
        block_in_place(|| cluster.nodes[node].up().unwrap());
    }

    stop.store(true, Ordering::Relaxed);
    let confirmed = timeout(HANGS, publishing).await.expect("the publisher hangs").unwrap();
    let all_came = timeout(HANGS, arrived.wait_for(|seen| confirmed.is_subset(seen))).await.is_ok();
    assert!(all_came, "{} confirmed and lost", confirmed.difference(&arrived.borrow()).count());
    println!("{} confirmed, all received; {:?}", confirmed.len(), publisher.counters());
    assert!(publisher.counters().reconnects >= 1 && subscriber.counters().reconnects >= 1);
    for connection in [publisher, subscriber] {
        connection.close().await.unwrap();
    }
    consuming.await.unwrap();
}
