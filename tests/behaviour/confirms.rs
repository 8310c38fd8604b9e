//! Publisher confirms.

use lepus::{Confirm, ErrorKind, ExchangeKind, Message, Overflow};
use tokio::task::JoinSet;

use crate::case::test;
use crate::tools::{closed_the_channel, fill, next, numbers, text, until};

#[test]
fn a_confirmed_message_is_in_the_queue() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        channel.default_exchange().publish(queue.name(), "x").await.unwrap();
        assert_eq!(queue.get().no_ack().await.unwrap().unwrap().body(), b"x");
    });
}

#[test]
fn what_reaches_no_queue_is_confirmed_unless_mandatory() {
    test(async |t| {
        let channel = t.channel().await;
        channel.default_exchange().publish(t.name(), "x").await.unwrap();
    });
}

#[test]
fn pipelined_confirms_come_for_each_message() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        let exchange = channel.default_exchange();
        let mut confirms: Vec<Confirm> = Vec::new();
        for number in numbers(1, 1000) {
            confirms.push(exchange.enqueue(queue.name(), number).await.unwrap());
        }
        let tags: Vec<u64> = confirms.iter().filter_map(Confirm::delivery_tag).collect();
        assert_eq!(tags, (1..=1000).collect::<Vec<u64>>());
        // in another order than they were sent in
        for confirm in confirms.into_iter().rev() {
            confirm.await.unwrap();
        }
        let declared = channel.declare_queue(queue.name()).passive().await.unwrap();
        assert_eq!(declared.message_count(), 1000);
    });
}

#[test]
fn waiting_for_all_confirms_waits_for_all() {
    test(async |t| {
        let channel = t.channel().await;
        channel.wait_for_confirms().await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        for _ in 0..3 {
            fill(&queue, &channel, numbers(1, 500)).await;
        }
        let declared = channel.declare_queue(queue.name()).passive().await.unwrap();
        assert_eq!(declared.message_count(), 1500);
    });
}

#[test]
fn publishers_on_one_channel_do_not_mix() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        let mut publishers = JoinSet::new();
        for publisher in 0..8 {
            let (exchange, queue) = (channel.default_exchange(), queue.clone());
            publishers.spawn(async move {
                for number in 0..100 {
                    let body = format!("{publisher} {number} ").repeat(500);
                    exchange.publish(queue.name(), body).await.unwrap();
                }
            });
        }
        let mut consumer = queue.consume().await.unwrap();
        let mut expected = [0; 8];
        for _ in 0..800 {
            let delivery = next(&mut consumer).await;
            let body = text(&delivery);
            let mut words = body.split(' ');
            let publisher: usize = words.next().unwrap().parse().unwrap();
            let number: u32 = words.next().unwrap().parse().unwrap();
            assert_eq!(body, format!("{publisher} {number} ").repeat(500));
            assert_eq!(number, expected[publisher], "each publisher's messages keep their order");
            expected[publisher] += 1;
            delivery.ack().unwrap();
        }
        while let Some(done) = publishers.join_next().await {
            done.unwrap();
        }
    });
}

#[test]
fn a_full_queue_nacks() {
    test(async |t| {
        let channel = t.channel().await;
        let declare = channel.declare_queue("").max_length(2).overflow(Overflow::RejectPublish);
        let queue = declare.await.unwrap();
        let exchange = channel.default_exchange();
        let mut results = Vec::new();
        for number in numbers(1, 4) {
            results.push(exchange.publish(queue.name(), number).await.map_err(|error| error.kind()));
        }
        assert_eq!(results, [Ok(()), Ok(()), Err(ErrorKind::Nacked), Err(ErrorKind::Nacked)]);
        assert!(channel.is_open());

        // also where the confirm was dropped
        drop(exchange.enqueue(queue.name(), "5").await.unwrap());
        assert_eq!(channel.wait_for_confirms().await.unwrap_err().kind(), ErrorKind::Nacked);
        channel.wait_for_confirms().await.unwrap();
    });
}

#[test]
fn a_channel_error_fails_all_that_is_unconfirmed() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        let missing = channel.exchange(t.name()).unwrap();
        let exchange = channel.default_exchange();
        exchange.publish(queue.name(), "confirmed before").await.unwrap();
        let mut confirms = vec![missing.enqueue("x", "x").await.unwrap()];
        // what follows a fatal method the broker ignores; the channel may be seen to end meanwhile
        for number in numbers(1, 50) {
            match exchange.enqueue(queue.name(), number).await {
                Ok(confirm) => confirms.push(confirm),
                Err(error) => assert_eq!(error.reply_code(), Some(404)),
            }
        }
        let waiting = channel.wait_for_confirms().await;
        for confirm in confirms {
            closed_the_channel(confirm.await, 404, "no exchange");
        }
        closed_the_channel(waiting, 404, "no exchange");
    });
}

#[test]
fn a_confirm_that_came_before_the_end_is_told_after_it() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = t.shared_queue(&channel).await;
        let exchange = channel.default_exchange();
        let first = exchange.enqueue(queue.name(), "1").await.unwrap();
        exchange.publish(queue.name(), "2").await.unwrap();
        // an answered call, so that the first confirm has come, too, whatever the order of confirms
        channel.declare_queue(queue.name()).passive().await.unwrap();
        channel.wait_for_confirms().await.unwrap();
        channel.close().await.unwrap();
        first.await.unwrap();
    });
}

#[test]
fn a_channel_without_confirms_tells_nothing_and_arrives() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().without_confirms().await.unwrap();
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Fanout).await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        queue.bind(&exchange, "").await.unwrap();
        let mut consumer = queue.consume().no_ack().await.unwrap();
        let confirm = exchange.enqueue("", Message::new("1")).await.unwrap();
        assert_eq!(confirm.delivery_tag(), None);
        confirm.await.unwrap();
        exchange.publish("", "2").await.unwrap();
        channel.wait_for_confirms().await.unwrap();
        assert_eq!(next(&mut consumer).await.body(), b"1");
        assert_eq!(next(&mut consumer).await.body(), b"2");
    });
}

#[test]
fn closing_with_publishes_under_way_tells_each_of_them() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = t.shared_queue(&channel).await;
        let exchange = channel.default_exchange();
        let mut confirms = Vec::new();
        for number in numbers(1, 200) {
            confirms.push(exchange.enqueue(queue.name(), number).await.unwrap());
        }
        connection.close().await.unwrap();
        for confirm in confirms {
            if let Err(error) = confirm.await {
                assert_eq!(error.kind(), ErrorKind::Closed);
            }
        }
        // what was handed over was written before the close; the queue may get it a little later
        until(&t.connect().await, &queue, |ready, _| ready == 200).await;
    });
}
