//! A network with long round trips, and one with black holes: in memory, on a paused clock.

use std::io;
use std::time::Duration;

use lepus::broker::{Broker, Keep};
use lepus::{ConnectOptions, Connection};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// A stream to a server, on which every byte takes `delay` in each direction.
fn delayed(server: DuplexStream, delay: Duration) -> DuplexStream {
    let (near, far) = duplex(1 << 20);
    let (near_read, near_write) = split(far);
    let (far_read, far_write) = split(server);
    tokio::spawn(forward(near_read, far_write, delay));
    tokio::spawn(forward(far_read, near_write, delay));
    near
}

async fn forward(
    mut from: impl AsyncRead + Send + Unpin + 'static,
    mut to: impl AsyncWrite + Unpin,
    delay: Duration,
) {
    let (sent, mut under_way) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let mut bytes = Vec::with_capacity(1 << 16);
            let read = from.read_buf(&mut bytes).await;
            if !matches!(read, Ok(1..)) || sent.send((Instant::now() + delay, bytes)).is_err() {
                return;
            }
        }
    });
    while let Some((due, bytes)) = under_way.recv().await {
        sleep_until(due).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    // nobody may be there any more
    let _ended: io::Result<()> = to.shutdown().await;
}

async fn without_port() -> Broker {
    Broker::options().without_port().start().await.unwrap()
}

/// The time until everything is back after a restart of the broker.
async fn restored(broker: &Broker, connection: &Connection) -> Duration {
    let began = Instant::now();
    broker.restart(Keep::Durable).await.unwrap();
    while connection.is_ready() {
        tokio::task::yield_now().await;
    }
    connection.ready().await.unwrap();
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn two_thousand_channels_come_back_within_two_seconds_of_a_slow_network() {
    const CHANNELS: u32 = 2000;
    let broker = without_port().await;
    let connector = broker.connector();
    let options = ConnectOptions::new(&broker.url()).unwrap().connector(move |host, port| {
        let server = connector(host, port).into_inner();
        std::future::ready(server.map(|server| delayed(server, Duration::from_millis(10))))
    });
    let connection = options.robust().connect().await.unwrap();
    let mut opening = tokio::task::JoinSet::new();
    for number in 0..CHANNELS {
        let connection = connection.clone();
        opening.spawn(async move {
            let channel = connection.channel().await.unwrap();
            channel.qos(7).await.unwrap();
            let queue = channel.declare_queue(format!("jobs.{number}")).await.unwrap();
            queue.consume().prefetch(5).await.unwrap()
        });
    }
    let consumers = opening.join_all().await;
    let took = restored(&broker, &connection).await;
    println!("{CHANNELS} channels came back in {took:.2?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    for number in [0, CHANNELS - 1] {
        let queue = broker.queue(&format!("jobs.{number}")).unwrap();
        assert_eq!(queue.consumers, 1);
    }
    drop(consumers);
}
