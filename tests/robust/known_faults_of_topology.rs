//! Faults of other clients, by their number in the list of known faults: what is declared and bound.

use std::time::Duration;

use lepus::robust::{self, Entity, Event, RestoreTopology};
use lepus::{ErrorKind, ExchangeKind, Message};

use crate::case::{Case, test};
use crate::relay::{Direction, Fault};
use crate::tools::{Patient, arrived, at, next, take, within};
use crate::wire::methods;

const CHANNEL_CLOSE_OK: (u16, u16) = (20, 41);

/// 5: the link is lost again in the middle of the recovery: consumers are skipped, and success is reported.
#[test]
fn f5_a_loss_during_the_recovery_starts_it_over() {
    test(async |t| {
        let patient = Patient::new(t).await;
        let channel = patient.channel().await;
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Topic).await.unwrap();
        let name = exchange.name().as_str().unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        queue.bind(&exchange, "a").await.unwrap();
        let mut consumer = queue.consume().await.unwrap();
        patient.cut().await;
        channel.qos(1).await.unwrap();
        let all = patient.relay.counts().traffic[1].to_client;
        for offset in (0..all).step_by(40) {
            patient.relay.next(at(Direction::ToClient, offset, Fault::Cut));
            let before = patient.relay.counts().connections();
            patient.relay.cut();
            // the first recovery may have taken more bytes (a queue still locked): answers make up for them
            while patient.relay.counts().connections() < before + 2 {
                within("an answer", channel.qos(1)).await.unwrap();
            }
            patient.back(before + 1).await;
            patient.publish(name, "a", "x").await.unwrap();
            assert_eq!(take(&mut consumer).await, "x");
        }
    });
}

/// 6: bindings of an auto-delete queue that is gone stay behind, and the recovery fails for ever.
#[test]
fn f6_an_auto_delete_queue_goes_with_its_bindings() {
    test(async |t| {
        let mut patient = Patient::new(t).await;
        let channel = patient.channel().await;
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Topic).await.unwrap();
        let name = t.name();
        let queue = channel.declare_queue(&name).auto_delete().await.unwrap();
        queue.bind(&exchange, "a").await.unwrap();
        let mut consumer = queue.consume().await.unwrap();
        consumer.cancel().await.unwrap();
        assert_eq!(patient.consumers(&name).await, None, "it went with its last consumer");
        for _ in 0..2 {
            patient.cut().await;
            let unrestored = patient.restored().await;
            assert!(unrestored.is_empty(), "{unrestored:?}");
            assert_eq!(patient.consumers(&name).await, None, "it stays away");
        }
    });
}

/// 7: a binding that was made on a channel that is closed since is lost.
#[test]
fn f7_a_binding_outlives_the_channel_it_was_made_on() {
    test(async |t| {
        let patient = Patient::new(t).await;
        let (first, second) = (patient.channel().await, patient.channel().await);
        let exchange = first.declare_exchange(t.name(), ExchangeKind::Topic).await.unwrap();
        let queue = first.declare_queue(t.name()).transient().exclusive().await.unwrap();
        queue.bind(&exchange, "a").await.unwrap();
        first.close().await.unwrap();
        patient.cut().await;
        patient.publish(exchange.name().as_str().unwrap(), "a", "x").await.unwrap();
        let mut consumer = second.queue(queue.name()).unwrap().consume().await.unwrap();
        assert_eq!(take(&mut consumer).await, "x");
    });
}

/// 8: renaming a server-named queue drops bindings, declares it twice, or goes round in circles.
#[test]
fn f8_a_server_named_queue_gets_a_new_name_everywhere() {
    test(async |t| {
        let mut patient = Patient::new(t).await;
        let channel = patient.channel().await;
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Topic).await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        let handle = queue.clone();
        for key in ["a", "b"] {
            queue.bind(&exchange, key).await.unwrap();
        }
        let mut consumer = queue.consume().await.unwrap();
        for _ in 0..3 {
            let name = queue.name().clone();
            patient.cut().await;
            let renamed = patient
                .event(|event| match event {
                    Event::Renamed { old, new } => Some((old, new)),
                    _ => None,
                })
                .await;
            assert_eq!(renamed, (name, handle.name().clone()));
            for key in ["a", "b"] {
                patient.publish(exchange.name().as_str().unwrap(), key, key).await.unwrap();
                assert_eq!(take(&mut consumer).await, key);
            }
            // a change of the queue after it was renamed
            queue.unbind(&exchange, "b").await.unwrap();
            queue.bind(&exchange, "b").await.unwrap();
        }
        patient.nothing_was_closed();
    });
}

/// 13: one thing that cannot be restored takes its channel along, and what was restored on it before.
#[test]
fn f13_what_cannot_be_restored_is_told_and_the_rest_goes_on() {
    test(async |t| {
        let mut patient = Patient::new(t).await;
        let channel = patient.channel().await;
        let spoilt = channel.declare_exchange(t.name(), ExchangeKind::Topic).await.unwrap();
        let gone = channel.queue(t.name()).unwrap();
        let others = patient.other.channel().await.unwrap();
        others.declare_queue(gone.name()).await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        gone.bind(&spoilt, "a").await.unwrap();
        queue.bind(&spoilt, "b").await.unwrap();
        let mut consumer = queue.consume().await.unwrap();

        patient.lose().await;
        others.exchange(spoilt.name()).unwrap().delete().await.unwrap();
        others.declare_exchange(spoilt.name(), ExchangeKind::Direct).await.unwrap();
        others.queue(gone.name()).unwrap().delete().await.unwrap();
        let unrestored = patient.recover().await;
        assert_eq!(unrestored.len(), 2, "{unrestored:?}");
        assert_eq!(unrestored[0].entity, Entity::Exchange { name: spoilt.name().clone() });
        assert_eq!(unrestored[0].error.reply_code(), Some(406));
        let binding = Entity::QueueBinding {
            queue: gone.name().clone(),
            exchange: spoilt.name().clone(),
            routing_key: "a".try_into().unwrap(),
        };
        assert_eq!(unrestored[1].entity, binding);
        assert_eq!(unrestored[1].error.reply_code(), Some(404));
        // the exchange is there, of whatever kind, and so the other binding is
        patient.publish(spoilt.name().as_str().unwrap(), "b", "x").await.unwrap();
        assert_eq!(take(&mut consumer).await, "x");
    });
}

/// 13: what could not be restored waits for the next loss, although the reason has gone.
#[test]
fn f13_what_was_refused_comes_back_as_soon_as_the_broker_accepts_it() {
    test(async |t| {
        let mut patient = Patient::new(t).await;
        let channel = patient.channel().await;
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Topic).await.unwrap();
        let theirs = channel.queue(t.name()).unwrap();
        let others = patient.other.channel().await.unwrap();
        others.declare_queue(theirs.name()).await.unwrap();
        theirs.bind(&exchange, "a").await.unwrap();

        patient.lose().await;
        others.exchange(exchange.name()).unwrap().delete().await.unwrap();
        others.declare_exchange(exchange.name(), ExchangeKind::Direct).await.unwrap();
        others.queue(theirs.name()).unwrap().delete().await.unwrap();
        let unrestored = patient.recover().await;
        assert_eq!(unrestored.len(), 2, "{unrestored:?}");

        others.exchange(exchange.name()).unwrap().delete().await.unwrap();
        others.declare_queue(theirs.name()).await.unwrap();
        let mut back = Vec::new();
        while back.len() < 2 {
            let entity = patient
                .event(|event| match event {
                    Event::EntityRestored { entity } => Some(entity),
                    _ => None,
                })
                .await;
            back.push(entity);
        }
        for refused in unrestored {
            assert!(back.contains(&refused.entity), "{refused} is not among {back:?}");
        }
        patient.publish(exchange.name().as_str().unwrap(), "a", "x").await.unwrap();
        assert_eq!(patient.connection.counters().reconnects, 1);
    });
}

/// What a queue of this name does after it has expired while the link was away: whether it is declared again.
async fn comes_back_after_it_has_expired(
    t: &Case,
    restored: impl FnOnce(&robust::Options) -> robust::Options,
    is_consumed: bool,
) -> bool {
    let mut patient = Patient::with(t, |options| options, restored).await;
    let channel = patient.channel().await;
    let name = t.name();
    let queue = channel.declare_queue(&name).expires(Duration::from_millis(300)).await.unwrap();
    let consumer = if is_consumed { Some(queue.consume().await.unwrap()) } else { None };
    patient.lose().await;
    // asking counts as use of the queue, so the next question waits for longer than the queue lives
    while patient.consumers(&name).await.is_some() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(patient.recover().await.is_empty());
    let is_back = patient.consumers(&name).await.is_some();
    drop(consumer);
    is_back
}

#[test]
fn an_expired_queue_comes_back_if_it_is_consumed_from_or_all_are_to_come_back() {
    test(async |t| {
        let usual = robust::Options::clone;
        assert!(!comes_back_after_it_has_expired(t, usual, false).await);
        assert!(comes_back_after_it_has_expired(t, usual, true).await);
        let all = |options: &robust::Options| options.clone().restore_topology(RestoreTopology::All);
        assert!(comes_back_after_it_has_expired(t, all, false).await);
    });
}

/// 14: the broker still holds, and then deletes, the lost connection's queue while the client declares it again.
#[test]
fn f14_an_exclusive_queue_comes_back_although_the_old_link_lingers() {
    test(async |t| {
        let mut patient =
            Patient::with(t, |options| options.heartbeat(Duration::from_secs(1)), Clone::clone).await;
        let channel = patient.channel().await;
        let name = t.name();
        let queue = channel.declare_queue(&name).transient().exclusive().await.unwrap();
        let mut consumer = queue.consume().await.unwrap();
        // neither side hears of the other's end
        patient.relay.stall();
        let unrestored = patient.restored().await;
        assert!(unrestored.is_empty(), "{unrestored:?}");
        patient.publish("", &name, "x").await.unwrap();
        assert_eq!(take(&mut consumer).await, "x");
    });
}

/// 23: a queue or an exchange that was deleted, or a binding that was undone, comes back.
#[test]
fn f23_what_was_deleted_stays_away() {
    test(async |t| {
        let patient = Patient::new(t).await;
        let channel = patient.channel().await;
        let (name, source_name) = (t.name(), t.name());
        let exchange = channel.declare_exchange(&name, ExchangeKind::Topic).await.unwrap();
        let source = channel.declare_exchange(&source_name, ExchangeKind::Topic).await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        for key in ["kept", "undone"] {
            queue.bind(&exchange, key).await.unwrap();
            exchange.bind(&source, key).await.unwrap();
        }
        queue.unbind(&exchange, "undone").await.unwrap();
        exchange.unbind(&source, "undone").await.unwrap();
        let deleted_queue = channel.declare_queue(t.name()).await.unwrap();
        let deleted_exchange = channel.declare_exchange(t.name(), ExchangeKind::Topic).await.unwrap();
        deleted_queue.bind(&deleted_exchange, "x").await.unwrap();
        deleted_exchange.bind(&source, "x").await.unwrap();
        deleted_queue.delete().await.unwrap();
        deleted_exchange.delete().await.unwrap();
        let mut consumer = queue.consume().await.unwrap();
        for _ in 0..2 {
            patient.cut().await;
            for from in [&name, &source_name] {
                patient.publish(from, "kept", from.clone()).await.unwrap();
                assert_eq!(take(&mut consumer).await, *from);
                let undone = patient.publish(from, "undone", "x").await.unwrap_err();
                assert_eq!(undone.kind(), ErrorKind::Returned);
            }
            assert_eq!(patient.consumers(deleted_queue.name().as_str().unwrap()).await, None);
            assert!(!patient.has_exchange(deleted_exchange.name().as_str().unwrap()).await);
        }
    });
}

/// 23: bindings that differ only in their arguments, or their destination, collapse into one.
#[test]
fn f23_bindings_differ_by_all_their_parts() {
    test(async |t| {
        let patient = Patient::new(t).await;
        let channel = patient.channel().await;
        let source = channel.declare_exchange(t.name(), ExchangeKind::Headers).await.unwrap();
        let mut consumers = Vec::new();
        for _ in 0..2 {
            let exchange =
                channel.declare_exchange(t.name(), ExchangeKind::Fanout).transient().await.unwrap();
            let queue = channel.declare_queue("").await.unwrap();
            queue.bind(&exchange, "").await.unwrap();
            for colour in ["red", "blue"] {
                exchange.bind(&source, "").argument("colour", colour).await.unwrap();
                queue.bind(&source, "").argument("shade", colour).await.unwrap();
            }
            consumers.push(queue.consume().await.unwrap());
        }
        patient.cut().await;
        for header in ["colour", "shade"] {
            for colour in ["red", "blue"] {
                let message = Message::new(colour).header(header, colour);
                patient.publish(source.name().as_str().unwrap(), "", message).await.unwrap();
                for consumer in &mut consumers {
                    let delivery = next(consumer).await;
                    assert_eq!(delivery.body_str(), Some(colour));
                    assert!(delivery.headers().unwrap().get(header).is_some());
                    delivery.ack().unwrap();
                }
            }
        }
    });
}

/// 25: bindings are recorded again at each replay, so that the list doubles at every reconnect.
#[test]
fn f25_a_recovery_is_as_long_as_the_one_before() {
    test(async |t| {
        let patient = Patient::new(t).await;
        let channel = patient.channel().await;
        let exchange = channel.declare_exchange(t.name(), ExchangeKind::Topic).await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        // declared and bound twice is once
        for key in ["a", "b", "a", "b"] {
            channel.declare_queue(queue.name()).await.unwrap();
            queue.bind(&exchange, key).await.unwrap();
        }
        let _consumer = queue.consume().tag("one").await.unwrap();
        for _ in 0..5 {
            patient.cut().await;
            arrived(&channel).await;
        }
        let mut recoveries = patient.relay.recorded().into_iter().map(|said| {
            let mut answers: Vec<_> = methods(&said).into_iter().map(|sent| sent.id).collect();
            // that of a channel for the recovery may come later
            answers.retain(|answer| *answer != CHANNEL_CLOSE_OK);
            answers
        });
        // in the first one the channel had no prefetch count yet
        let (_session, _first, second) = (recoveries.next(), recoveries.next(), recoveries.next().unwrap());
        assert!(second.len() > 5 && recoveries.all(|recovery| recovery == second));
    });
}
