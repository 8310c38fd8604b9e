//! A broker without a port: connections over streams in memory, also on a paused clock.

use std::future::ready;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lepus::broker::{Broker, Keep};
use lepus::{ConnectOptions, ErrorKind};
use tokio::io::{AsyncReadExt, duplex};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};

const HOUR: Duration = Duration::from_secs(3600);

async fn without_port() -> Broker {
    Broker::options().without_port().start().await.unwrap()
}

fn options(broker: &Broker) -> ConnectOptions {
    ConnectOptions::new(&broker.url()).unwrap().connector(broker.connector())
}

#[test]
fn it_needs_no_sockets() {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let broker = without_port().await;
        assert_eq!(
            (broker.address(), broker.url().as_str()),
            (None, "amqp://guest:guest@broker.invalid/%2F")
        );
        let connection = options(&broker).connect().await.unwrap();
        let channel = connection.channel().await.unwrap();
        channel.declare_queue("jobs").await.unwrap();
        // more than waits in the stream
        channel.default_exchange().publish("jobs", vec![7; 1 << 20]).await.unwrap();
        let delivery = channel.queue("jobs").unwrap().get().await.unwrap().unwrap();
        assert_eq!(delivery.body().len(), 1 << 20);
        assert_eq!(broker.connections()[0].peer, None);
    });
}

#[tokio::test(start_paused = true)]
async fn a_connection_outlives_a_virtual_hour_by_its_heartbeats() {
    let broker = without_port().await;
    let connection = options(&broker).heartbeat(Duration::from_secs(10)).connect().await.unwrap();
    assert_eq!(connection.heartbeat(), Duration::from_secs(10));
    let channel = connection.channel().await.unwrap();
    sleep(HOUR).await;
    channel.declare_queue("jobs").await.unwrap();
    channel.default_exchange().publish("jobs", "late").await.unwrap();
    assert_eq!(broker.bodies("jobs"), ["late"]);
}

#[tokio::test(start_paused = true)]
async fn a_robust_connection_outlives_a_virtual_hour_and_a_restart() {
    let broker = without_port().await;
    let connection = options(&broker).heartbeat(Duration::from_secs(10)).robust().connect().await.unwrap();
    let channel = connection.channel().await.unwrap();
    let queue = channel.declare_queue("jobs").await.unwrap();
    let mut deliveries = queue.consume().await.unwrap();
    sleep(HOUR).await;
    assert_eq!(connection.counters().reconnects, 0);

    broker.stop().await;
    let exchange = channel.default_exchange();
    let published = tokio::spawn(async move { exchange.publish("jobs", "during the outage").await });
    sleep(HOUR).await;
    broker.restart(Keep::Durable).await.unwrap();
    let restarted = Instant::now();
    published.await.unwrap().unwrap();
    let delivery = deliveries.next().await.unwrap().unwrap();
    assert_eq!(delivery.body_str(), Some("during the outage"));
    delivery.ack().unwrap();
    // the longest pause after a long outage
    assert!(restarted.elapsed() <= Duration::from_secs(10));
    assert_eq!(connection.counters().reconnects, 1);
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed_in_virtual_time() {
    let broker = without_port().await;
    // a client that says nothing, and a server that does not
    let (mut client, ends) = duplex(1024);
    broker.serve(ends).unwrap();
    let began = Instant::now();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(began.elapsed().as_secs(), 10);

    let (client, _server) = duplex(1024);
    let client = Mutex::new(Some(client));
    let options = options(&broker).connector(move |_, _| ready(Ok(client.lock().unwrap().take().unwrap())));
    assert_eq!(options.connect().await.unwrap_err().kind(), ErrorKind::HandshakeTimeout);
    assert_eq!(began.elapsed().as_secs(), 20);
}

#[tokio::test]
async fn stopped_it_refuses_and_ends_what_it_serves() {
    let broker = without_port().await;
    let connection = options(&broker).connect().await.unwrap();
    broker.stop().await;
    assert_eq!(connection.closed().await.kind(), ErrorKind::ConnectionLost);
    let (_client, ends) = duplex(1024);
    assert_eq!(broker.serve(ends).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    let error = options(&broker).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains("broker.invalid:5672: nothing listens there"), "{error}");

    broker.restart(Keep::Durable).await.unwrap();
    let connection = options(&broker).connect().await.unwrap();
    broker.restart(Keep::Durable).await.unwrap();
    assert_eq!(connection.closed().await.kind(), ErrorKind::ConnectionLost);
    options(&broker).connect().await.unwrap();
}

#[tokio::test]
async fn dropped_it_refuses_and_ends_what_it_serves() {
    let broker = without_port().await;
    let options = options(&broker);
    let connection = options.connect().await.unwrap();
    drop(broker);
    assert_eq!(connection.closed().await.kind(), ErrorKind::ConnectionLost);
    assert_eq!(options.connect().await.unwrap_err().kind(), ErrorKind::Connect);
}

#[cfg(unix)]
#[tokio::test]
async fn a_broker_with_a_port_serves_other_streams_too() {
    use tokio::net::{UnixListener, UnixStream};

    let broker = Arc::new(Broker::start().await.unwrap());
    let path = std::env::temp_dir().join(format!("lepus.{}.socket", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let serving = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move {
            let (stream, _) = listener.accept().await.unwrap();
            broker.serve(stream).unwrap();
        }
    });
    let options = ConnectOptions::new("amqp://").unwrap().connector({
        let path = path.clone();
        move |_host, _port| UnixStream::connect(path.clone())
    });
    let over_unix = options.connect().await.unwrap();
    serving.await.unwrap();
    let over_tcp = lepus::connect(&broker.url()).await.unwrap();
    over_unix.channel().await.unwrap().declare_queue("jobs").await.unwrap();
    over_tcp.channel().await.unwrap().declare_queue("jobs").passive().await.unwrap();
    std::fs::remove_file(path).unwrap();
}
