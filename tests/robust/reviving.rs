//! Consumers that the server cancels or refuses, and that come back.

use std::time::Duration;

use lepus::robust::{Event, Events};
use lepus::{Consumer, Delivery, ErrorKind};
use tokio::sync::mpsc;

use crate::case::test;
use crate::through::{Through, soon};
use crate::tools::Patient;
use crate::wire::{Sent, methods};

/// Hands out what consumers get.
fn pump(consumer: Consumer, deliveries: &mpsc::UnboundedSender<Delivery>) {
    let deliveries = deliveries.clone();
    let mut consumer = consumer;
    tokio::spawn(async move {
        while let Some(Ok(delivery)) = consumer.next().await {
            drop(deliveries.send(delivery));
        }
    });
}

async fn restored(events: &mut Events) -> String {
    soon(async {
        loop {
            match events.next().await.expect("the events have ended") {
                Event::ConsumerRestored { tag, .. } => return tag.to_string(),
                Event::ConsumerGaveUp { error, .. } => panic!("{error}"),
                _ => {}
            }
        }
    })
    .await
}

#[test]
fn many_cancelled_consumers_come_back_on_their_own_channel() {
    const CONSUMERS: usize = 30;
    test(async |t| {
        let mut patient = Patient::with(t, |options| options.channel_max(10), Clone::clone).await;
        let channel = patient.channel().await;
        let others = patient.other.channel().await.unwrap();
        let (told, mut deliveries) = mpsc::unbounded_channel();
        let mut names = Vec::new();
        for number in 0..CONSUMERS {
            let name = t.name();
            others.declare_queue(&name).await.unwrap();
            let queue = channel.queue(&name).unwrap();
            pump(queue.consume().tag(format!("c{number}")).await.unwrap(), &told);
            names.push(name);
        }
        for name in &names {
            others.queue(name).unwrap().delete().await.unwrap();
        }
        for _ in 0..CONSUMERS {
            patient.event(|event| matches!(event, Event::ConsumerCancelled { .. }).then_some(())).await;
        }
        for name in &names {
            others.declare_queue(name).await.unwrap();
        }
        let mut back = std::collections::BTreeSet::new();
        for _ in 0..CONSUMERS {
            back.insert(restored(&mut patient.events).await);
        }
        assert_eq!(back.len(), CONSUMERS);
        for name in &names {
            assert_eq!(patient.consumers(name).await, Some(1));
            patient.publish("", name, "x").await.unwrap();
            soon(deliveries.recv()).await.unwrap().ack().unwrap();
        }
        // they hold no channels of their own
        for _ in 0..8 {
            std::mem::forget(patient.channel().await);
        }
    });
}

#[test]
fn the_tags_of_a_revived_consumer_are_those_of_its_channel() {
    test(async |t| {
        let patient = Patient::new(t).await;
        let channel = patient.channel().await;
        patient.cut().await;
        let name = t.name();
        let others = patient.other.channel().await.unwrap();
        others.declare_queue(&name).await.unwrap();
        let mut consumer = channel.queue(&name).unwrap().consume().await.unwrap();
        others.queue(&name).unwrap().delete().await.unwrap();
        others.declare_queue(&name).await.unwrap();
        patient.publish("", &name, "1").await.unwrap();
        let delivery = soon(consumer.next()).await.unwrap().unwrap();
        assert_eq!(channel.ack(delivery.delivery_tag()).unwrap(), lepus::Settled::Sent);
        channel.qos(10).await.unwrap();
        drop(consumer);
        let left = soon(async {
            loop {
                let asked = others.declare_queue(&name).passive().await.unwrap();
                if asked.consumer_count() == 0 {
                    return asked.message_count();
                }
            }
        });
        assert_eq!(left.await, 0);
    });
}

#[test]
fn a_consumer_waits_for_an_exclusive_one_without_a_close_of_its_channel() {
    test(async |t| {
        let mut patient = Patient::new(t).await;
        let name = t.name();
        let others = patient.other.channel().await.unwrap();
        others.declare_queue(&name).await.unwrap();
        let channel = patient.channel().await;
        let mut consumer = channel.queue(&name).unwrap().consume().await.unwrap();
        patient.lose().await;
        let mut rival = loop {
            match patient.other.channel().await.unwrap().queue(&name).unwrap().consume().exclusive().await {
                Ok(rival) => break rival,
                // the broker has not noticed the loss yet
                Err(error) => assert_eq!(error.reply_code(), Some(403)),
            }
        };
        let unrestored = patient.recover().await;
        assert_eq!(unrestored[0].error.reply_code(), Some(403));
        let mut events = patient.connection.events();
        let refused = || {
            let said = patient.relay.recorded();
            let codes = said.iter().flat_map(|said| methods(said)).filter_map(Sent::close_code);
            codes.filter(|code| *code == 403).count()
        };
        let attempts = async {
            while refused() < 4 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon(attempts).await;
        rival.cancel().await.unwrap();
        let back = soon(async {
            loop {
                match events.next().await.unwrap() {
                    Event::ConsumerRestored { .. } => return,
                    Event::ChannelClosed { error } => panic!("{error}"),
                    _ => {}
                }
            }
        });
        back.await;
        patient.publish("", &name, "x").await.unwrap();
        soon(consumer.next()).await.unwrap().unwrap().ack().unwrap();
    });
}

#[test]
fn a_waiting_consumer_ends_with_its_channel() {
    test(async |t| {
        let robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let mut consumer = queue.consume().await.unwrap();
        queue.delete().await.unwrap();
        let waiting = tokio::spawn(async move { consumer.next().await });
        let mut robust = robust;
        robust.event(|event| matches!(event, Event::ConsumerCancelled { .. }).then_some(())).await;
        channel.close().await.unwrap();
        assert!(soon(waiting).await.unwrap().is_none());
        assert_eq!(channel.declare_queue(t.name()).await.unwrap_err().kind(), ErrorKind::Closed);
    });
}
