//! What plain and robust connections have in common: each test runs on both.

use std::time::Duration;

use lepus::robust::Event;
use lepus::{Channel, ConnectOptions, Connection, ErrorKind, ExchangeKind, Message, Queue, Settled};

use crate::broker::url;
use crate::case::test;
use crate::tools::{bodies, fill, is_missing, next, now, numbers, take, text, until};

async fn both_kinds() -> [Connection; 2] {
    [lepus::connect(url()).await.unwrap(), lepus::connect_robust(url()).await.unwrap()]
}

/// A queue with the messages "1" to `last`.
async fn filled(connection: &Connection, last: u32) -> (Channel, Queue) {
    let channel = connection.channel().await.unwrap();
    let queue = channel.declare_queue("").await.unwrap();
    fill(&queue, &channel, numbers(1, last)).await;
    (channel, queue)
}

/// A function of a library that knows nothing of the kind.
async fn setup(channel: &Channel) -> lepus::Result<Queue> {
    let queue = channel.declare_queue("").await?;
    queue.bind(&channel.exchange("amq.topic")?, "a.*").await?;
    Ok(queue)
}

#[test]
fn one_function_sets_up_either_kind() {
    test(async |t| {
        for connection in both_kinds().await {
            let channel = connection.channel().await.unwrap();
            let queue = setup(&channel).await.unwrap();
            channel.exchange("amq.topic").unwrap().publish("a.b", "x").await.unwrap();
            assert_eq!(queue.get().await.unwrap().unwrap().body_str(), Some("x"));
            let exchange = channel.declare_exchange(t.name(), ExchangeKind::Fanout).await.unwrap();
            exchange.delete().await.unwrap();
            assert!(connection.is_ready() && connection.is_open());
            connection.ready().await.unwrap();
            assert!(connection.channel_max() > 0 && connection.frame_max() >= 8192);
            assert!(connection.server_properties().get("product").is_some());
            assert_eq!(connection.counters().reconnects, 0);
            connection.close().await.unwrap();
            assert_eq!(connection.ready().await.unwrap_err().kind(), ErrorKind::Closed);
            assert!(!connection.is_ready());
        }
    });
}

#[test]
fn deliveries_are_settled_by_number_and_in_parts() {
    test(async |_| {
        for connection in both_kinds().await {
            let (channel, queue) = filled(&connection, 5).await;
            let mut consumer = queue.consume().await.unwrap();
            let tags: Vec<_> =
                take(&mut consumer, 4).await.iter().map(lepus::Delivery::delivery_tag).collect();
            assert_eq!(channel.ack(tags[0]).unwrap(), Settled::Sent);
            channel.reject(tags[1], false).unwrap();
            channel.nack(tags[2], false).unwrap();
            channel.nack(tags[3], true).unwrap();
            let (message, acker) = next(&mut consumer).await.into_parts();
            assert_eq!((message.body(), message.delivery_tag()), (&b"5"[..], acker.delivery_tag()));
            drop(message);
            std::thread::spawn(move || acker.ack().unwrap()).join().unwrap();
            let again = next(&mut consumer).await;
            assert_eq!((again.body_str(), again.redelivered()), (Some("4"), true));
            again.ack().unwrap();
            drop(consumer);
            until(&connection, &queue, |ready, consumers| (ready, consumers) == (0, 0)).await;
        }
    });
}

#[test]
fn a_consumer_is_cancelled_by_its_tag() {
    test(async |_| {
        for connection in both_kinds().await {
            let channel = connection.channel().await.unwrap();
            let queue = channel.declare_queue("").await.unwrap();
            let mut consumer = queue.consume().tag("mine").await.unwrap();
            assert!(!channel.cancel("other").await.unwrap());
            assert!(channel.cancel("mine").await.unwrap());
            assert!(consumer.next().await.is_none());
            assert!(!channel.cancel("mine").await.unwrap());
        }
    });
}

#[test]
fn a_paused_consumer_gives_back_what_waits_and_goes_on_with_another_prefetch() {
    test(async |_| {
        for connection in both_kinds().await {
            let (_channel, queue) = filled(&connection, 6).await;
            let mut consumer = queue.consume().prefetch(4).await.unwrap();
            let first = next(&mut consumer).await;
            assert_eq!(text(&first), "1");
            consumer.pause().await.unwrap();
            assert!(consumer.is_paused());
            // only the one that was handed out is not back
            until(&connection, &queue, |ready, consumers| (ready, consumers) == (5, 0)).await;
            assert!(now(consumer.next()).await.is_none());
            consumer.set_prefetch(2).await.unwrap();
            assert!(consumer.is_paused());
            consumer.resume().await.unwrap();
            let two = take(&mut consumer, 2).await;
            assert_eq!(bodies(&two), ["2", "3"]);
            until(&connection, &queue, |ready, consumers| (ready, consumers) == (3, 1)).await;
            consumer.set_prefetch(5).await.unwrap();
            assert!(!consumer.is_paused());
            assert_eq!(bodies(&take(&mut consumer, 3).await), ["4", "5", "6"]);
            first.ack().unwrap();
        }
    });
}

#[test]
fn without_acks_a_pause_loses_nothing() {
    test(async |_| {
        for connection in both_kinds().await {
            let (channel, queue) = filled(&connection, 20).await;
            let mut consumer = queue.consume().no_ack().await.unwrap();
            assert_eq!(text(&next(&mut consumer).await), "1");
            consumer.pause().await.unwrap();
            fill(&queue, &channel, numbers(21, 30)).await;
            consumer.resume().await.unwrap();
            let rest = bodies(&take(&mut consumer, 29).await);
            assert_eq!(rest, numbers(2, 30).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_drain_waits_for_acks_and_confirms_and_ends_streams() {
    test(async |_| {
        for connection in both_kinds().await {
            let (_channel, queue) = filled(&connection, 1).await;
            let mut consumer = queue.consume().await.unwrap();
            let delivery = next(&mut consumer).await;
            let draining = tokio::spawn({
                let connection = connection.clone();
                async move { connection.drain(Duration::from_secs(30)).await }
            });
            assert!(consumer.next().await.is_none());
            drop(consumer);
            assert!(!draining.is_finished());
            delivery.ack().unwrap();
            draining.await.unwrap().unwrap();
            assert!(!connection.is_open());
        }
    });
}

#[test]
fn a_drain_says_what_was_not_done_in_time() {
    test(async |_| {
        for connection in both_kinds().await {
            let (_channel, queue) = filled(&connection, 1).await;
            let mut consumer = queue.consume().await.unwrap();
            let held = next(&mut consumer).await;
            let error = connection.drain(Duration::from_millis(50)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
            let text = error.to_string();
            assert!(text.contains("1 consumer has deliveries that are not acknowledged"), "{text}");
            drop(held);
        }
    });
}

#[test]
fn a_drain_includes_publishes_that_wait_for_room() {
    test(async |_| {
        let options = ConnectOptions::new(url()).unwrap().unconfirmed_messages(1);
        let kinds = [options.connect().await.unwrap(), options.robust().connect().await.unwrap()];
        for connection in kinds {
            let (channel, queue) = filled(&connection, 0).await;
            let exchange = channel.default_exchange();
            let publishes = (0..20).map(|_| exchange.publish(queue.name(), "x"));
            let mut publishes: Vec<_> = publishes.map(Box::pin).collect();
            // each but the first waits until those before it are confirmed, and nobody drops or awaits it meanwhile
            for publish in &mut publishes {
                drop(now(publish.as_mut()).await);
            }
            let publishing = async {
                for publish in publishes {
                    publish.await.unwrap();
                }
            };
            let (drained, ()) = tokio::join!(connection.drain(Duration::from_secs(30)), publishing);
            drained.unwrap();
        }
    });
}

#[test]
fn a_delivery_tells_when_it_goes_stale() {
    test(async |_| {
        for connection in both_kinds().await {
            let (channel, queue) = filled(&connection, 3).await;
            let mut consumer = queue.consume().prefetch(2).await.unwrap();
            let held = next(&mut consumer).await;
            assert!(!held.is_stale() && now(held.stale()).await.is_none());
            // the server cancels the consumer, and then closes the channel of a message that was fetched
            let fetched = queue.get().await.unwrap().unwrap();
            connection.channel().await.unwrap().queue(queue.name()).unwrap().delete().await.unwrap();
            held.stale().await;
            assert!(held.is_stale() && !fetched.is_stale());
            let (_, acker) = fetched.into_parts();
            let missing = channel.declare_queue("there is no such queue").passive().await;
            assert!(is_missing(missing));
            acker.stale().await;
            assert!(acker.is_stale());
        }
    });
}

#[test]
fn events_end_with_the_connection() {
    test(async |t| {
        for connection in both_kinds().await {
            let mut events = connection.events();
            connection.close().await.unwrap();
            assert!(events.next().await.is_none());
        }
        // the server's close is the last event of a plain connection
        let connection = t.connect().await;
        let mut events = connection.events();
        let channel = connection.channel().await.unwrap();
        drop(channel.call(lepus::protocol::basic::Qos { prefetch_size: 1, ..Default::default() }).await);
        match events.next().await {
            Some(Event::GaveUp { error }) => assert_eq!(error.reply_code(), Some(540)),
            other => panic!("{other:?}"),
        }
        assert!(events.next().await.is_none());
    });
}

#[test]
fn transactions_are_for_plain_connections() {
    test(async |_| {
        let [plain, robust] = both_kinds().await;
        plain.channel().without_confirms().await.unwrap().tx_select().await.unwrap();
        let error = robust.channel().without_confirms().await.unwrap().tx_select().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    });
}

#[test]
fn a_deadline_that_is_kept_changes_nothing() {
    test(async |_| {
        for connection in both_kinds().await {
            let channel = connection.channel().await.unwrap();
            let queue = channel.declare_queue("").await.unwrap();
            let exchange = channel.default_exchange();
            let limit = Duration::from_secs(30);
            exchange.publish(queue.name(), "1").deadline(limit).await.unwrap();
            exchange.enqueue(queue.name(), "2").deadline(limit).await.unwrap().await.unwrap();
            exchange.publish(queue.name(), Message::new("3")).deadline(Duration::MAX).await.unwrap();
            let error = exchange.publish("nobody", "4").mandatory().deadline(limit).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Returned);
        }
    });
}
