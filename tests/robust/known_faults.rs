//! Faults of other clients, by their number in the list of known faults: connecting, closing, publishing.

use std::time::Duration;

use lepus::robust::Event;
use lepus::{ErrorKind, Message};

use crate::case::test;
use crate::relay::{Direction, Fault};
use crate::tools::{Patient, arrived, at, next, take, within};

/// 2: a callback of the recovery that declares deadlocks it.
#[test]
fn f2_whoever_hears_of_a_loss_may_declare() {
    test(async |t| {
        let patient = Patient::new(t).await;
        let channel = patient.channel().await;
        let name = t.name();
        let mut events = patient.connection.events();
        let listener = tokio::spawn({
            let (channel, name) = (channel.clone(), name.clone());
            async move {
                while let Some(event) = events.next().await {
                    if matches!(event, Event::Lost { .. } | Event::Attempt { .. } | Event::Restored { .. }) {
                        channel.declare_queue(&name).await.unwrap();
                    }
                    if matches!(event, Event::Restored { .. }) {
                        break;
                    }
                }
            }
        });
        patient.cut().await;
        within("the listener", listener).await.unwrap();
        assert_eq!(patient.consumers(&name).await, Some(0));
    });
}

/// 3: publishes hang after a restart of the broker, with confirms for ever.
#[test]
fn f3_a_publish_whose_confirm_was_lost_is_confirmed_later() {
    test(async |t| {
        let mut patient = Patient::new(t).await;
        let channel = patient.channel().await;
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let exchange = channel.default_exchange();
        exchange.publish(queue.name(), "before").await.unwrap();
        patient.relay.stall();
        let under_way = exchange.enqueue(queue.name(), "under way").await.unwrap();
        patient.lose().await;
        let during = exchange.publish(queue.name(), "during");
        let (during, under_way, ()) = tokio::join!(during, under_way, async {
            assert!(patient.recover().await.is_empty());
        });
        under_way.unwrap();
        during.unwrap();
        within("a confirm", exchange.publish(queue.name(), "after")).await.unwrap();
        let mut consumer = queue.consume().await.unwrap();
        for body in ["before", "under way", "during", "after"] {
            let delivery = next(&mut consumer).await;
            assert_eq!(delivery.body_str(), Some(body));
            assert_eq!(delivery.is_republished(), body == "under way");
            delivery.ack().unwrap();
        }
    });
}

/// 4: after a reconnect attempt that failed, the second outage is never recovered from.
#[test]
fn f4_failed_attempts_do_not_spoil_later_recoveries() {
    test(async |t| {
        let mut patient = Patient::new(t).await;
        let channel = patient.channel().await;
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let mut consumer = queue.consume().await.unwrap();
        for round in ["1", "2", "3"] {
            for offset in [0, 300] {
                patient.relay.next(at(Direction::ToClient, offset, Fault::Cut));
                patient.relay.next(at(Direction::ToBroker, offset, Fault::Reset));
            }
            patient.relay.cut();
            for _ in 0..4 {
                patient.event(|event| matches!(event, Event::Failed { .. }).then_some(())).await;
            }
            assert!(patient.restored().await.is_empty());
            patient.publish("", queue.name().as_str().unwrap(), round).await.unwrap();
            assert_eq!(take(&mut consumer).await, round);
            arrived(&channel).await;
        }
        assert_eq!(patient.connection.counters().reconnects, 3);
    });
}

/// 12: with a full TCP window the loss is never noticed.
#[test]
fn f12_a_full_window_is_noticed() {
    test(async |t| {
        let patient =
            Patient::with(t, |options| options.heartbeat(Duration::from_secs(1)), Clone::clone).await;
        let channel = patient.channel().await;
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let exchange = channel.default_exchange();
        let before = patient.relay.counts().connections();
        patient.relay.stall();
        // more than the sockets' buffers take
        let publishing = async {
            for _ in 0..200 {
                drop(exchange.enqueue(queue.name(), vec![0; 64 * 1024]).await.unwrap());
            }
            channel.wait_for_confirms().await.unwrap();
        };
        within("all confirms", async { tokio::join!(publishing, patient.back(before)) }).await;
        let count = channel.declare_queue(queue.name()).passive().await.unwrap().message_count();
        assert!(count >= 200, "{count} of 200 are there");
    });
}

/// 15: a publish during the recovery goes out before its channel is open.
#[test]
fn f15_publishes_wait_until_the_channel_is_back() {
    test(async |t| {
        let patient = Patient::new(t).await;
        let channel = patient.channel().await;
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let publisher = tokio::spawn({
            let (exchange, queue) = (channel.default_exchange(), queue.clone());
            async move {
                for number in 0..300 {
                    drop(exchange.enqueue(queue.name(), number.to_string()).await.unwrap());
                    tokio::task::yield_now().await;
                }
            }
        });
        patient.relay.delay(Duration::from_millis(2));
        for _ in 0..5 {
            patient.cut().await;
        }
        within("the publisher", publisher).await.unwrap();
        within("the confirms", channel.wait_for_confirms()).await.unwrap();
        patient.nothing_was_closed();
    });
}

/// 16: a close during the negotiation and overlapping recoveries leave the client offline for ever.
#[test]
fn f16_losses_in_the_handshake_do_not_pile_up() {
    test(async |t| {
        let patient = Patient::new(t).await;
        let queue = patient.channel().await.declare_queue(t.name()).await.unwrap();
        let mut consumer = queue.consume().await.unwrap();
        let before = patient.relay.counts().connections();
        let offsets = [1, 8, 100, 400, 500, 520, 540];
        for offset in offsets {
            patient.relay.next(at(Direction::ToClient, offset, Fault::Cut));
        }
        patient.relay.cut();
        patient.back(before + offsets.len()).await;
        patient.publish("", queue.name().as_str().unwrap(), "x").await.unwrap();
        assert_eq!(take(&mut consumer).await, "x");
        // one link, not several
        let counts = patient.relay.counts();
        assert_eq!(counts.connections(), before + offsets.len() + 1);
        patient.relay.until(|counts| counts.ended == before + offsets.len()).await.unwrap();
    });
}

/// 19: a close races a reconnect.
#[test]
fn f19_a_close_ends_the_reconnecting() {
    test(async |t| {
        for delay in [0, 1, 3, 10, 30] {
            let patient = Patient::new(t).await;
            let queue = patient.channel().await.declare_queue("").await.unwrap();
            let mut consumer = queue.consume().await.unwrap();
            patient.relay.delay(Duration::from_millis(1));
            patient.relay.cut();
            tokio::time::sleep(Duration::from_millis(delay)).await;
            within("the close", patient.connection.close()).await.unwrap();
            assert!(within("the stream's end", consumer.next()).await.is_none());
            assert_eq!(patient.connection.closed().await.kind(), ErrorKind::Closed);
            // one that was under way may still be seen; every link that came ends, and no other comes
            tokio::time::sleep(Duration::from_millis(50)).await;
            patient.relay.until(|counts| counts.ended == counts.connections()).await.unwrap();
            let connections = patient.relay.counts().connections();
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(patient.relay.counts().connections(), connections);
        }
        // and while nothing can be connected to
        let mut patient = Patient::new(t).await;
        patient.lose().await;
        within("the close", patient.connection.close()).await.unwrap();
    });
}

/// 20: returned messages that are told apart by their id hang when two have the same.
#[test]
fn f20_returned_messages_that_are_alike_come_back_both() {
    test(async |t| {
        let mut patient = Patient::new(t).await;
        let channel = patient.channel().await;
        let exchange = channel.default_exchange();
        let nowhere = t.name();
        let message = || Message::new("x").message_id("same");
        patient.relay.stall();
        let one = exchange.enqueue(&nowhere, message()).mandatory().await.unwrap();
        let two = exchange.enqueue(&nowhere, message()).mandatory().await.unwrap();
        patient.lose().await;
        patient.recover().await;
        for confirm in [one, two] {
            let error = within("a return", confirm).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Returned, "{error}");
        }
    });
}

/// 24: the recovery says "ready" before the topology is back.
#[test]
fn f24_ready_is_when_everything_is_back() {
    test(async |t| {
        let patient = Patient::new(t).await;
        let channel = patient.channel().await;
        let queues = [t.name(), t.name(), t.name()];
        let mut consumers = Vec::new();
        for queue in &queues {
            let queue = channel.declare_queue(queue).transient().exclusive().await;
            consumers.push(queue.unwrap().consume().await.unwrap());
        }
        patient.relay.delay(Duration::from_millis(10));
        for _ in 0..3 {
            let before = patient.relay.counts().connections();
            patient.relay.cut();
            patient.relay.until(|counts| counts.connections() > before).await.unwrap();
            assert!(!patient.connection.is_ready());
            patient.connection.ready().await.unwrap();
            for (queue, consumer) in queues.iter().zip(&mut consumers) {
                patient.publish("", queue, "x").await.unwrap();
                assert_eq!(take(consumer).await, "x");
            }
        }
    });
}
