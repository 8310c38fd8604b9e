//! What a restart keeps.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lepus::broker::{Broker, Keep};
use lepus::{ErrorKind, ExchangeKind, Message};

use crate::tools::{open, test};

/// Durable and transient ones of everything.
async fn declare(broker: &Broker) {
    let (connection, channel) = open(broker).await;
    let durable = channel.declare_exchange("durable", ExchangeKind::Topic).await.unwrap();
    let transient = channel.declare_exchange("transient", ExchangeKind::Topic).transient().await.unwrap();
    let jobs = channel.declare_queue("jobs").durable().max_priority(3).await.unwrap();
    let notes = channel.declare_queue("notes").transient().await.unwrap();
    jobs.bind(&durable, "job.*").await.unwrap();
    jobs.bind(&transient, "job.*").await.unwrap();
    notes.bind(&durable, "note.*").await.unwrap();
    for (key, body) in [("job.one", "1"), ("job.two", "2"), ("note.one", "3")] {
        durable.publish(key, body).await.unwrap();
    }
    durable.publish("job.three", Message::new("transient").transient()).await.unwrap();
    // an unacknowledged message is kept as one that is ready
    drop(jobs.get().await.unwrap().unwrap().into_incoming());
    connection.close().await.unwrap();
}

#[test]
fn a_restart_keeps_what_is_durable() {
    test(async |broker| {
        declare(&broker).await;
        let (before, address) = (broker.queue("jobs").unwrap(), broker.address());
        broker.restart(Keep::Durable).await.unwrap();

        assert_eq!(broker.address(), address);
        assert_eq!(broker.bodies("jobs"), ["1", "2"]);
        assert_eq!(broker.queue("jobs").unwrap().arguments, before.arguments);
        assert_eq!(broker.queue("notes"), None);
        let exchanges = broker.exchanges();
        assert!(exchanges.iter().any(|exchange| exchange.name == "durable"));
        assert!(exchanges.iter().all(|exchange| exchange.name != "transient"));
        let bindings = broker.bindings();
        let [binding] = bindings.as_slice() else { panic!("{bindings:?}") };
        assert_eq!((binding.source.as_str(), binding.destination.as_str()), ("durable", "jobs"));

        // and it works
        let (_connection, channel) = open(&broker).await;
        channel.exchange("durable").unwrap().publish("job.four", "4").await.unwrap();
        assert_eq!(broker.bodies("jobs"), ["1", "2", "4"]);
        let first = channel.queue("jobs").unwrap().get().await.unwrap().unwrap();
        assert!(first.redelivered());
        first.ack().unwrap();
    });
}

#[test]
fn a_restart_that_keeps_nothing_leaves_a_new_broker() {
    test(async |broker| {
        declare(&broker).await;
        broker.restart(Keep::Nothing).await.unwrap();
        assert!(broker.queues().is_empty() && broker.bindings().is_empty());
        assert!(broker.exchanges().iter().all(|exchange| exchange.name.starts_with("amq.")));
        assert_eq!(broker.memory(), 0);
        let (_connection, channel) = open(&broker).await;
        channel.declare_queue("jobs").await.unwrap();
    });
}

#[test]
fn a_stopped_broker_refuses_connections_until_it_starts_again() {
    test(async |broker| {
        let (connection, _channel) = open(&broker).await;
        broker.stop().await;
        assert_eq!(connection.closed().await.kind(), ErrorKind::ConnectionLost);
        assert!(broker.connections().is_empty());
        assert_eq!(lepus::connect(&broker.url()).await.unwrap_err().kind(), ErrorKind::Connect);
        // once is enough
        broker.stop().await;
        broker.restart(Keep::Durable).await.unwrap();
        let _connection = open(&broker).await;
    });
}

#[test]
fn faults_outlive_a_restart() {
    test(async |broker| {
        broker.stop().await;
        broker.refuse_logins(true);
        broker.restart(Keep::Durable).await.unwrap();
        assert_eq!(lepus::connect(&broker.url()).await.unwrap_err().kind(), ErrorKind::Auth);
        broker.refuse_logins(false);
        let _connection = open(&broker).await;
    });
}

#[test]
fn the_port_of_a_stopped_broker_is_kept() {
    test(async |broker| {
        broker.stop().await;
        // whoever asks for any port gets another one
        let others: Vec<_> =
            (0..1000).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
        assert!(others.iter().all(|other| other.local_addr().ok() != broker.address()));
        broker.restart(Keep::Durable).await.unwrap();
        let _connection = open(&broker).await;
    });
}

#[test]
fn stops_and_restarts_wait_for_each_other() {
    test(async |broker| {
        let broker = Arc::new(broker);
        for _ in 0..20 {
            let tasks = [(); 4].map(|()| {
                let broker = Arc::clone(&broker);
                tokio::spawn(async move { broker.restart(Keep::Nothing).await })
            });
            for task in tasks {
                task.await.unwrap().unwrap();
            }
        }
        let _connection = open(&broker).await;
        tokio::join!(broker.stop(), broker.stop());
        assert_eq!(lepus::connect(&broker.url()).await.unwrap_err().kind(), ErrorKind::Connect);
    });
}

#[test]
fn leases_start_anew_with_a_restart() {
    test(async |broker| {
        let (connection, channel) = open(&broker).await;
        let lease = Duration::from_millis(300);
        channel.declare_queue("jobs").expires(lease).await.unwrap();
        connection.close().await.unwrap();
        broker.stop().await;
        tokio::time::sleep(lease * 2).await;
        let restarted = Instant::now();
        broker.restart(Keep::Durable).await.unwrap();
        assert!(broker.queue("jobs").is_some());
        broker.until(|broker| broker.queue("jobs").is_none()).await;
        assert!(restarted.elapsed() >= lease);
    });
}

#[test]
fn a_robust_connection_outlives_a_restart() {
    test(async |broker| {
        let connection = lepus::connect_robust(&broker.url()).await.unwrap();
        let channel = connection.channel().await.unwrap();
        let queue = channel.declare_queue("jobs").await.unwrap();
        let mut deliveries = queue.consume().await.unwrap();
        for (number, keep) in [Keep::Durable, Keep::Nothing].into_iter().enumerate() {
            broker.restart(keep).await.unwrap();
            channel.default_exchange().publish("jobs", number.to_string()).await.unwrap();
            let delivery = deliveries.next().await.unwrap().unwrap();
            assert_eq!(delivery.body_str(), Some(number.to_string().as_str()));
            delivery.ack().unwrap();
            channel.wait_for_confirms().await.unwrap();
        }
        assert_eq!(connection.counters().reconnects, 2);
    });
}

#[test]
fn a_dropped_broker_is_gone() {
    test(async |broker| {
        let (connection, _channel) = open(&broker).await;
        let url = broker.url();
        drop(broker);
        assert_eq!(connection.closed().await.kind(), ErrorKind::ConnectionLost);
        assert!(lepus::connect(&url).await.is_err());
    });
}

#[test]
fn brokers_of_one_process_do_not_meet() {
    test(async |one| {
        let two = Broker::start().await.unwrap();
        let (_first, channel) = open(&one).await;
        channel.declare_queue("jobs").await.unwrap();
        assert_ne!(one.address(), two.address());
        assert!(two.queues().is_empty() && two.connections().is_empty());
        let (second, _channel) = open(&two).await;
        one.cut();
        assert_eq!(channel.closed().await.kind(), ErrorKind::ConnectionLost);
        assert!(second.is_open());
    });
}
