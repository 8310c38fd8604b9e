//! What works over TLS: everything.

use std::time::Duration;

use lepus::broker::{Broker, Keep};
use lepus::robust::Event;
use lepus::{ConnectOptions, Connection, Message, Tls};
use tokio::net::TcpStream;

use crate::tools::{broker, trusting};

/// Publishes messages of several sizes and consumes them.
async fn work(connection: &Connection) {
    let channel = connection.channel().await.unwrap();
    let queue = channel.declare_queue("").await.unwrap();
    let bodies = [1, 1000, 16_384, 100_000, 2_000_000].map(|size| vec![b'x'; size]);
    for body in &bodies {
        channel.default_exchange().publish(queue.name(), Message::new(body.clone())).await.unwrap();
    }
    let mut deliveries = queue.consume().prefetch(10).await.unwrap();
    for body in &bodies {
        let delivery = deliveries.next().await.unwrap().unwrap();
        assert!(delivery.body() == body, "a body of {} bytes", body.len());
        delivery.ack().unwrap();
    }
}

#[tokio::test]
async fn messages_of_all_sizes_travel_over_tls() {
    let broker = broker().await;
    let connection = trusting(&broker).connect().await.unwrap();
    work(&connection).await;
    connection.close().await.unwrap();
}

#[tokio::test]
async fn nothing_is_installed_for_the_whole_process() {
    let broker = broker().await;
    trusting(&broker).connect().await.unwrap();
    assert!(tokio_rustls::rustls::crypto::CryptoProvider::get_default().is_none());
}

#[tokio::test]
async fn many_publishers_share_a_connection_over_tls() {
    let broker = broker().await;
    let connection = trusting(&broker).connect().await.unwrap();
    let publish = async |number: usize| {
        let channel = connection.channel().await.unwrap();
        let queue = channel.declare_queue(format!("q{number}")).await.unwrap();
        for _ in 0..2000 {
            drop(channel.default_exchange().enqueue(queue.name(), "0123456789abcdef").await.unwrap());
        }
        channel.wait_for_confirms().await.unwrap();
    };
    tokio::join!(publish(1), publish(2), publish(3));
    for number in 1..=3 {
        assert_eq!(broker.queue(&format!("q{number}")).unwrap().ready, 2000);
    }
}

#[tokio::test]
async fn a_broker_with_tls_takes_plain_clients_too() {
    let broker = broker().await;
    work(&lepus::connect(&broker.url()).await.unwrap()).await;
}

#[tokio::test]
async fn tls_runs_over_the_streams_of_a_connector() {
    let broker = broker().await;
    let address = broker.tls_address().unwrap();
    let options = ConnectOptions::new("amqps://localhost")
        .unwrap()
        .tls(Tls::new().ca_pem(broker.ca_pem()))
        .connector(move |host, port| {
            assert_eq!((host, port), ("localhost", 5671));
            TcpStream::connect(address)
        });
    work(&options.connect().await.unwrap()).await;
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_robust_connection_over_tls_in_virtual_time_survives_an_hour_of_outage() {
    let broker = Broker::options().tls().without_port().start().await.unwrap();
    let tls = Tls::new().ca_pem(broker.ca_pem()).server_name("localhost");
    let options = ConnectOptions::new(&broker.tls_url()).unwrap().tls(tls).connector(broker.tls_connector());
    let connection = options.robust().connect().await.unwrap();
    let channel = connection.channel().await.unwrap();
    channel.declare_queue("jobs").await.unwrap();
    broker.stop().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    broker.restart(Keep::Durable).await.unwrap();
    channel.default_exchange().publish("jobs", "one").await.unwrap();
    assert_eq!(broker.bodies("jobs"), ["one"]);
}

#[tokio::test]
async fn a_robust_connection_over_tls_comes_back_after_a_cut() {
    let broker = broker().await;
    let connection = trusting(&broker).robust().connect().await.unwrap();
    let mut events = connection.events();
    let channel = connection.channel().await.unwrap();
    let queue = channel.declare_queue("jobs").await.unwrap();
    let mut deliveries = queue.consume().prefetch(1).await.unwrap();
    for round in 0..3 {
        broker.cut();
        channel.default_exchange().publish("jobs", format!("{round}")).await.unwrap();
        loop {
            let delivery = deliveries.next().await.unwrap().unwrap();
            let is_new = delivery.body_str() == Some(&*round.to_string());
            // the ack before may have gone with the link, and its message comes again
            delivery.ack().unwrap();
            if is_new {
                break;
            }
        }
    }
    let mut restored = 0;
    while restored < 3 {
        restored += usize::from(matches!(events.next().await.unwrap(), Event::Restored { .. }));
    }
}

#[tokio::test]
async fn the_tls_port_stays_the_same_over_a_restart() {
    let broker = broker().await;
    let before = broker.tls_address().unwrap();
    broker.stop().await;
    broker.restart(Keep::Durable).await.unwrap();
    assert_eq!(broker.tls_address(), Some(before));
    work(&trusting(&broker).connect().await.unwrap()).await;
}
