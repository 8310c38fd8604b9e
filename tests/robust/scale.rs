//! A large topology comes back.

use std::time::Instant;

use lepus::ExchangeKind;
use tokio::sync::mpsc;

use crate::case::test;
use crate::tools::{Patient, within};
use crate::wire::methods;

const BINDINGS: usize = 10_000;
const CONSUMERS: usize = 1_000;
const QUEUES: usize = 100;

const CHANNEL_OPEN_OK: (u16, u16) = (20, 11);
const CONSUME_OK: (u16, u16) = (60, 21);

#[test]
fn ten_thousand_bindings_and_a_thousand_consumers_come_back() {
    test(async |t| {
        let mut patient = Patient::new(t).await;
        let started = Instant::now();
        let exchange_name = t.name();
        let mut channels = Vec::new();
        for _ in 0..10 {
            channels.push(patient.channel().await);
        }
        let mut queues = Vec::new();
        for channel in channels.iter().cycle().take(QUEUES) {
            let exchange = channel.declare_exchange(&exchange_name, ExchangeKind::Direct).await.unwrap();
            let queue = channel.declare_queue(t.name()).transient().exclusive().await.unwrap();
            queues.push((exchange, queue));
        }
        let (taken, mut arrived) = mpsc::unbounded_channel();
        let mut binding = tokio::task::JoinSet::new();
        for (number, (exchange, queue)) in queues.iter().cloned().enumerate() {
            let taken = taken.clone();
            binding.spawn(async move {
                for key in (number..BINDINGS).step_by(QUEUES) {
                    queue.bind(&exchange, key.to_string()).await.unwrap();
                }
                for _ in 0..CONSUMERS / QUEUES {
                    let mut consumer = queue.consume().prefetch(10).await.unwrap();
                    let taken = taken.clone();
                    // to the connection's end
                    tokio::spawn(async move {
                        while let Some(delivery) = consumer.next().await {
                            let delivery = delivery.unwrap();
                            taken.send(delivery.body_str().unwrap().parse::<usize>().unwrap()).unwrap();
                            delivery.ack().unwrap();
                        }
                    });
                }
            });
        }
        while let Some(bound) = binding.join_next().await {
            bound.unwrap();
        }
        println!("declared in {:.2?}", started.elapsed());

        let lost = Instant::now();
        patient.cut().await;
        println!("{BINDINGS} bindings and {CONSUMERS} consumers came back in {:.2?}", lost.elapsed());
        let unrestored = patient.restored().await;
        assert!(unrestored.is_empty(), "{} are missing, such as {}", unrestored.len(), unrestored[0]);
        for (_, queue) in &queues {
            let count = channels[0].declare_queue(queue.name()).passive().await.unwrap().consumer_count();
            assert_eq!(usize::try_from(count).unwrap(), CONSUMERS / QUEUES);
        }
        // through each binding, once
        let channel = patient.other.channel().await.unwrap();
        let exchange = channel.exchange(&exchange_name).unwrap();
        for key in 0..BINDINGS {
            drop(exchange.enqueue(key.to_string(), key.to_string()).mandatory().await.unwrap());
        }
        channel.wait_for_confirms().await.unwrap();
        let mut keys = Vec::new();
        for _ in 0..BINDINGS {
            keys.push(within("a delivery", arrived.recv()).await.unwrap());
        }
        keys.sort_unstable();
        assert!(keys.into_iter().eq(0..BINDINGS));
    });
}

/// Each of them closes the channel, and with it the consumers that were started before.
#[test]
fn what_a_restore_costs_grows_with_the_consumers_whose_queues_are_gone() {
    const PAIRS: usize = 20;
    test(async |t| {
        let mut patient = Patient::new(t).await;
        let others = patient.other.channel().await.unwrap();
        let channel = patient.channel().await;
        let (mut consumers, mut gone) = (Vec::new(), Vec::new());
        for _ in 0..PAIRS {
            let stays = channel.declare_queue(t.name()).await.unwrap();
            let goes = others.declare_queue(t.name()).await.unwrap();
            consumers.push(stays.consume().await.unwrap());
            consumers.push(channel.queue(goes.name()).unwrap().consume().await.unwrap());
            gone.push(goes);
        }
        patient.lose().await;
        for queue in gone {
            queue.delete().await.unwrap();
        }
        assert_eq!(patient.recover().await.len(), PAIRS);
        let said = patient.relay.recorded().pop().unwrap();
        let answers: Vec<_> = methods(&said).into_iter().map(|sent| sent.id).collect();
        let last = answers.iter().rposition(|id| *id == CONSUME_OK).unwrap();
        // what comes later belongs to those that are tried again on their own
        let count = |wanted| answers[..=last].iter().filter(|id| **id == wanted).count();
        let (started, opened) = (count(CONSUME_OK), count(CHANNEL_OPEN_OK));
        assert!(started <= PAIRS + 1, "{started} consumers were started");
        assert!(opened <= PAIRS + 3, "{opened} channels were opened");
    });
}
