//! Faults of other clients, by their number in the list of known faults: consumers, acks, channels.

use std::time::Duration;

use lepus::robust::{Entity, Event};
use lepus::{ErrorKind, ExchangeKind, Settled};

use crate::case::test;
use crate::relay::{Direction, Fault};
use crate::tools::{Patient, arrived, at, next, take, within};

/// 1: the answer to a consume comes after the call's time is over, during the recovery: nobody reads from the
/// consumer that the broker has.
#[test]
fn f1_an_answer_that_comes_too_late_leaves_no_consumer_behind() {
    test(async |t| {
        let limit = Duration::from_millis(150);
        let patient = Patient::with(t, |options| options.rpc_timeout(limit), Clone::clone).await;
        let channel = patient.channel().await;
        let name = t.name();
        let queue = channel.declare_queue(&name).await.unwrap();
        let mut consumer = queue.consume().await.unwrap();
        patient.cut().await;
        channel.qos(1).await.unwrap();
        let all = patient.relay.counts().traffic[1].to_client;
        // the last answers of the recovery
        for offset in (0..100).step_by(12) {
            patient.relay.next(at(Direction::ToClient, all - 120 + offset, Fault::Pause(limit * 2)));
            let before = patient.relay.counts().connections();
            patient.relay.cut();
            patient.back(before).await;
            for body in ["1", "2", "3"] {
                patient.publish("", &name, body).await.unwrap();
                assert_eq!(take(&mut consumer).await, body);
            }
            arrived(&channel).await;
            within("one consumer", async { while patient.consumers(&name).await != Some(1) {} }).await;
        }
    });
}

/// 9: an ack of a delivery from before the loss reaches the broker, as a tag that is another message's, or as 0
/// with `multiple`, which is all of them.
#[test]
fn f9_stale_acks_stay_here() {
    test(async |t| {
        let patient = Patient::new(t).await;
        let channel = patient.channel().await;
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let mut consumer = queue.consume().prefetch(10).await.unwrap();
        let mut stale = Vec::new();
        for body in ["1", "2", "3", "4"] {
            channel.default_exchange().publish(queue.name(), body).await.unwrap();
            stale.push(next(&mut consumer).await);
        }
        patient.cut().await;
        let mut fresh = Vec::new();
        for _ in 0..4 {
            let delivery = next(&mut consumer).await;
            assert!(delivery.redelivered());
            fresh.push(delivery);
        }
        let [one, two, three, four]: [_; 4] = stale.try_into().unwrap();
        for result in [one.ack_multiple(), two.nack_multiple(false), three.reject(false), four.ack()] {
            assert_eq!(result.unwrap(), Settled::Stale);
        }
        assert_eq!(patient.connection.counters().stale_acks, 4);
        arrived(&channel).await;
        // the broker still waits for the acks of all four
        drop(fresh);
        patient.cut().await;
        for body in ["1", "2", "3", "4"] {
            assert_eq!(take(&mut consumer).await, body);
        }
        patient.nothing_was_closed();
    });
}

/// 10: of two consumers with the same tag on two channels only one comes back.
#[test]
fn f10_the_same_tag_on_two_channels_is_two_consumers() {
    test(async |t| {
        let patient = Patient::new(t).await;
        let mut consumers = Vec::new();
        for _ in 0..2 {
            let queue = patient.channel().await.declare_queue(t.name()).await.unwrap();
            let consumer = queue.consume().tag("same").await.unwrap();
            consumers.push((queue, consumer));
        }
        patient.cut().await;
        for (queue, consumer) in &mut consumers {
            patient.publish("", queue.name().as_str().unwrap(), "x").await.unwrap();
            assert_eq!(take(consumer).await, "x");
            assert_eq!(consumer.tag().as_str().unwrap(), "same");
        }
    });
}

/// 11: the next recovery of the connection brings back what was closed.
#[test]
fn f11_a_closed_channel_stays_closed() {
    test(async |t| {
        let patient = Patient::new(t).await;
        let (kept, closed) = (patient.channel().await, patient.channel().await);
        let name = t.name();
        let queue = closed.declare_queue(&name).await.unwrap();
        let mut ended = queue.consume().await.unwrap();
        closed.close().await.unwrap();
        assert!(ended.next().await.is_none());
        let mut cancelled = kept.queue(&name).unwrap().consume().await.unwrap();
        cancelled.cancel().await.unwrap();
        drop(kept.queue(&name).unwrap().consume().await.unwrap());
        within("no consumer", async { while patient.consumers(&name).await != Some(0) {} }).await;
        patient.cut().await;
        assert_eq!(patient.consumers(&name).await, Some(0));
        assert!(closed.declare_queue("").await.is_err_and(|error| error.kind() == ErrorKind::Closed));
    });
}

/// 17: the broker closes the channel, and nobody hears of it. With an ack that took too long: `tests/rabbitmq`.
#[test]
fn f17_a_channel_that_the_broker_closes_is_told_and_comes_back() {
    test(async |t| {
        let mut patient = Patient::new(t).await;
        let channel = patient.channel().await;
        let name = t.name();
        let queue = channel.declare_queue(&name).await.unwrap();
        let mut consumer = queue.consume().prefetch(5).await.unwrap();
        channel.default_exchange().publish(queue.name(), "held").await.unwrap();
        let held = next(&mut consumer).await;
        let error = channel.declare_queue(&name).argument("x-max-length", 1).await.unwrap_err();
        assert_eq!(error.reply_code(), Some(406), "it reaches whoever caused it");
        let told = patient
            .event(|event| match event {
                Event::ChannelClosed { error } => Some(error),
                _ => None,
            })
            .await;
        assert_eq!(told.reply_code(), Some(406));
        let again = next(&mut consumer).await;
        assert_eq!((again.body_str(), again.redelivered()), (Some("held"), true));
        assert_eq!(held.ack().unwrap(), Settled::Stale);
        again.ack().unwrap();
        within("a confirm", channel.default_exchange().publish(queue.name(), "new")).await.unwrap();
        assert_eq!(take(&mut consumer).await, "new");
        assert_eq!(patient.consumers(&name).await, Some(1));
        // what was refused is not recorded
        patient.cut().await;
        assert!(patient.restored().await.is_empty());
        assert_eq!(patient.consumers(&name).await, Some(1));
    });
}

/// 18: a consumer that cannot be started again dangles, or is forgotten for ever.
#[test]
fn f18_a_consumer_whose_queue_is_missing_is_told_and_comes_back_with_it() {
    test(async |t| {
        let mut patient = Patient::new(t).await;
        let others = patient.other.channel().await.unwrap();
        let name = t.name();
        others.declare_queue(&name).await.unwrap();
        let channel = patient.channel().await;
        let mut consumer = channel.queue(&name).unwrap().consume().tag("mine").await.unwrap();
        patient.lose().await;
        others.queue(&name).unwrap().delete().await.unwrap();
        let unrestored = patient.recover().await;
        assert_eq!(unrestored.len(), 1, "{unrestored:?}");
        let entity = Entity::Consumer {
            queue: others.queue(&name).unwrap().name().clone(),
            tag: "mine".try_into().unwrap(),
        };
        assert_eq!(unrestored[0].entity, entity);
        assert_eq!(unrestored[0].error.reply_code(), Some(404));
        others.declare_queue(&name).await.unwrap();
        patient.publish("", &name, "x").await.unwrap();
        assert_eq!(take(&mut consumer).await, "x");
        assert_eq!(patient.consumers(&name).await, Some(1));
    });
}

/// 21: a channel is restored twice: its consumer's tag is in use.
#[test]
fn f21_losses_in_quick_succession_restore_a_channel_once() {
    test(async |t| {
        let patient = Patient::new(t).await;
        let name = t.name();
        let channel = patient.channel().await;
        let queue = channel.declare_queue(&name).await.unwrap();
        let mut consumer = queue.consume().tag("mine").await.unwrap();
        for milliseconds in [0, 1, 2, 4, 8, 16] {
            let before = patient.relay.counts().connections();
            patient.relay.cut();
            patient.relay.until(|counts| counts.connections() > before).await.unwrap();
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            patient.cut().await;
            let body = milliseconds.to_string();
            patient.publish("", &name, body.clone()).await.unwrap();
            assert_eq!(take(&mut consumer).await, body);
            arrived(&channel).await;
            within("one consumer", async { while patient.consumers(&name).await != Some(1) {} }).await;
        }
        patient.nothing_was_closed();
    });
}

/// 22: a cancel by the server is ignored, and queues vanish.
#[test]
fn f22_a_consumer_that_the_server_cancels_comes_back_with_its_queue() {
    test(async |t| {
        let patient = Patient::new(t).await;
        let name = t.name();
        let channel = patient.channel().await;
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Topic).await.unwrap();
        let queue = channel.declare_queue(&name).await.unwrap();
        queue.bind(&exchange, "a").await.unwrap();
        let mut consumer = queue.consume().await.unwrap();
        let others = patient.other.channel().await.unwrap();
        for body in ["1", "2"] {
            others.queue(&name).unwrap().delete().await.unwrap();
            others.declare_queue(&name).await.unwrap();
            patient.publish("", &name, body).await.unwrap();
            assert_eq!(take(&mut consumer).await, body);
            arrived(&channel).await;
            patient.cut().await;
            // with the binding, which went with the queue
            patient.publish(exchange.name().as_str().unwrap(), "a", "through it").await.unwrap();
            assert_eq!(take(&mut consumer).await, "through it");
            arrived(&channel).await;
        }
    });
}
