//! How many deliveries may be out.

use lepus::{Consumer, Queue};

use crate::case::test;
use crate::tools::{bodies, fill, now, numbers, take, until};

#[test]
fn each_consumer_has_its_own_limit() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        let mut three = queue.consume().prefetch(3).await.unwrap();
        let mut five = queue.consume().prefetch(5).await.unwrap();
        fill(&queue, &channel, numbers(1, 20)).await;
        let held = (take(&mut three, 3).await, take(&mut five, 5).await);
        until(&connection, &queue, |ready, _| ready == 12).await;
        assert!(now(three.next()).await.is_none() && now(five.next()).await.is_none());

        // an ack lets one more through, for its own consumer
        held.0.into_iter().next().unwrap().ack().unwrap();
        assert_eq!(take(&mut three, 1).await.len(), 1);
        until(&connection, &queue, |ready, _| ready == 11).await;
        assert!(now(five.next()).await.is_none());
    });
}

#[test]
fn many_consumers_on_one_queue_share_the_work() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        let mut consumers: Vec<Consumer> = Vec::new();
        for _ in 0..4 {
            consumers.push(queue.consume().prefetch(20).await.unwrap());
        }
        fill(&queue, &channel, numbers(1, 80)).await;
        let mut all = Vec::new();
        for consumer in &mut consumers {
            all.extend(bodies(&take(consumer, 20).await));
        }
        all.sort_unstable_by_key(|body| body.parse::<u32>().unwrap());
        assert_eq!(all, numbers(1, 80).collect::<Vec<_>>());
    });
}

/// Takes `count` deliveries; no more come, and `left` are left in the queue.
async fn out_at_once(queue: &Queue, consumer: &mut Consumer, count: usize, left: u32) {
    let held = take(consumer, count).await;
    assert!(now(consumer.next()).await.is_none());
    assert_eq!(queue.purge().await.unwrap(), left);
    drop(held);
}

#[test]
fn the_channel_says_what_the_consumer_does_not() {
    test(async |t| {
        let channel = t.channel().await;
        let [unset, set] =
            [channel.declare_queue("").await.unwrap(), channel.declare_queue("").await.unwrap()];
        fill(&unset, &channel, numbers(1, 300)).await;
        let mut consumer = unset.consume().await.unwrap();
        out_at_once(&unset, &mut consumer, 250, 50).await;

        channel.qos(7).await.unwrap();
        fill(&set, &channel, numbers(1, 30)).await;
        let mut consumer = set.consume().await.unwrap();
        out_at_once(&set, &mut consumer, 7, 23).await;
    });
}

#[test]
fn zero_is_no_limit() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        fill(&queue, &channel, numbers(1, 3000)).await;
        let mut consumer = queue.consume().prefetch(0).await.unwrap();
        out_at_once(&queue, &mut consumer, 3000, 0).await;
    });
}
