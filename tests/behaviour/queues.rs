//! Queues: get, purge, counts, limits, kinds.

use std::time::Duration;

use lepus::{DeadLetterStrategy, Message, Overflow, QueueType};

use crate::case::test;
use crate::tools::{bodies, fill, next, numbers, take, until};

#[test]
fn get_takes_one_message_or_none() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        assert!(queue.get().await.unwrap().is_none());
        fill(&queue, &channel, numbers(1, 3)).await;
        let first = queue.get().await.unwrap().unwrap();
        assert_eq!((first.body(), first.message_count()), (b"1".as_slice(), 2));
        assert!(!first.redelivered() && first.consumer_tag().is_empty());
        first.nack(true).unwrap();
        let again = queue.get().await.unwrap().unwrap();
        assert!(again.redelivered());
        again.ack().unwrap();
        assert_eq!(queue.get().no_ack().await.unwrap().unwrap().body(), b"2");
        assert_eq!(queue.get().no_ack().await.unwrap().unwrap().message_count(), 0);
        assert!(queue.get().await.unwrap().is_none());
    });
}

#[test]
fn purge_drops_what_is_ready_and_nothing_else() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        fill(&queue, &channel, numbers(1, 5)).await;
        let out = queue.get().await.unwrap().unwrap();
        assert_eq!(queue.purge().await.unwrap(), 4);
        assert_eq!(queue.purge().await.unwrap(), 0);
        out.nack(true).unwrap();
        assert_eq!(queue.get().await.unwrap().unwrap().body(), b"1");
    });
}

#[test]
fn a_declare_tells_how_many_messages_and_consumers_there_are() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = t.shared_queue(&channel).await;
        fill(&queue, &channel, numbers(1, 3)).await;
        let _consumer = queue.consume().prefetch(1).await.unwrap();
        let (messages, consumers) = {
            let declared = channel.declare_queue(queue.name()).await.unwrap();
            (declared.message_count(), declared.consumer_count())
        };
        // one is out, or about to be
        assert!((2..=3).contains(&messages), "{messages}");
        assert_eq!(consumers, 1);
        until(&t.connect().await, &queue, |ready, consumers| (ready, consumers) == (2, 1)).await;
    });
}

#[test]
fn a_full_queue_drops_its_head() {
    test(async |t| {
        let channel = t.channel().await;
        let declare = channel.declare_queue("").max_length(2).overflow(Overflow::DropHead);
        let queue = declare.await.unwrap();
        fill(&queue, &channel, numbers(1, 5)).await;
        let mut consumer = queue.consume().await.unwrap();
        assert_eq!(bodies(&take(&mut consumer, 2).await), ["4", "5"]);
    });
}

#[test]
fn messages_expire_by_queue_and_by_message() {
    test(async |t| {
        let channel = t.channel().await;
        let dead = channel.declare_queue("").await.unwrap();
        let name = dead.name().to_string();
        let mut letters = dead.consume().await.unwrap();
        let declare = channel.declare_queue("").message_ttl(Duration::from_millis(1));
        let short = declare.dead_letter_to("").dead_letter_routing_key(name.clone()).await.unwrap();
        fill(&short, &channel, ["by queue".into()]).await;
        assert_eq!(next(&mut letters).await.body(), b"by queue");

        let declare = channel.declare_queue("").dead_letter_to("").dead_letter_routing_key(name);
        let long = declare.await.unwrap();
        let message = Message::new("by message").expiration(Duration::from_millis(1));
        channel.default_exchange().publish(long.name(), message).await.unwrap();
        assert_eq!(next(&mut letters).await.body(), b"by message");
    });
}

#[test]
fn what_expires_behind_another_message_is_not_delivered() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        let exchange = channel.default_exchange();
        exchange.publish(queue.name(), "stays").await.unwrap();
        let message = Message::new("goes").expiration(Duration::from_millis(1));
        exchange.publish(queue.name(), message).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        exchange.publish(queue.name(), "stays, too").await.unwrap();
        let mut consumer = queue.consume().await.unwrap();
        assert_eq!(bodies(&take(&mut consumer, 2).await), ["stays", "stays, too"]);
    });
}

#[test]
fn priorities_go_first() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").max_priority(5).await.unwrap();
        for (priority, body) in [(0, "last"), (5, "first"), (3, "second")] {
            let message = Message::new(body).priority(priority);
            channel.default_exchange().publish(queue.name(), message).await.unwrap();
        }
        let mut consumer = queue.consume().await.unwrap();
        assert_eq!(bodies(&take(&mut consumer, 3).await), ["first", "second", "last"]);
    });
}

#[test]
fn one_consumer_is_active_and_the_next_takes_over() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").single_active_consumer().await.unwrap();
        let mut active = queue.consume().await.unwrap();
        let mut standby = queue.consume().await.unwrap();
        fill(&queue, &channel, numbers(1, 2)).await;
        for delivery in take(&mut active, 2).await {
            delivery.ack().unwrap();
        }
        drop(active);
        fill(&queue, &channel, ["3".into()]).await;
        assert_eq!(bodies(&take(&mut standby, 1).await), ["3"]);
    });
}

#[test]
fn a_quorum_queue_counts_what_is_given_back() {
    test(async |t| {
        let channel = t.channel().await;
        let dead = channel.declare_queue("").await.unwrap();
        let name = dead.name().to_string();
        let queue = channel
            .declare_queue(t.name())
            .quorum()
            .delivery_limit(2)
            .dead_letter_to("")
            .dead_letter_routing_key(name)
            .dead_letter_strategy(DeadLetterStrategy::AtMostOnce)
            .await
            .unwrap();
        fill(&queue, &channel, ["x".into()]).await;
        let mut consumer = queue.consume().prefetch(1).await.unwrap();
        for given_back in 0..=2_i64 {
            let delivery = next(&mut consumer).await;
            let headers = delivery.properties().unwrap().headers.unwrap_or_default();
            let count = headers.get("x-delivery-count").cloned();
            assert_eq!(count, (given_back > 0).then(|| given_back.into()));
            delivery.reject(true).unwrap();
        }
        let mut letters = dead.consume().await.unwrap();
        assert_eq!(next(&mut letters).await.body(), b"x");
    });
}

#[test]
fn a_quorum_queue_confirms_in_the_thousands() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue(t.name()).queue_type(QueueType::Quorum).await.unwrap();
        fill(&queue, &channel, numbers(1, 3000)).await;
        let mut consumer = queue.consume().prefetch(500).await.unwrap();
        for number in numbers(1, 3000) {
            let delivery = next(&mut consumer).await;
            assert_eq!(delivery.body(), number.as_bytes());
            delivery.ack().unwrap();
        }
    });
}
