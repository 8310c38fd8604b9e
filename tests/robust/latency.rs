//! A network with long round trips, and one with black holes: in memory, on a paused clock.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lepus::broker::{Broker, Keep};
use lepus::robust::Event;
use lepus::{ConnectOptions, Connection};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

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

/// A broker at `broker.invalid` and a host before it that swallows packets, and who was asked for.
fn behind_a_black_hole(broker: &Broker) -> (ConnectOptions, Arc<Mutex<Vec<String>>>) {
    let (connector, asked) = (broker.connector(), Arc::new(Mutex::new(Vec::new())));
    let options = ConnectOptions::new("amqp://hole.invalid,broker.invalid").unwrap().connector({
        let asked = Arc::clone(&asked);
        move |host: &str, port| {
            asked.lock().unwrap().push(host.to_owned());
            let connecting = (host == "broker.invalid").then(|| connector(host, port));
            async {
                match connecting {
                    Some(connecting) => connecting.await,
                    None => std::future::pending().await,
                }
            }
        }
    });
    (options, asked)
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_costs_a_quarter_of_a_second_once() {
    let broker = without_port().await;
    let (options, asked) = behind_a_black_hole(&broker);
    let began = Instant::now();
    options.connect().await.unwrap();
    assert_eq!(began.elapsed().as_millis(), 250);
    let connection = options.robust().connect().await.unwrap();
    assert_eq!(began.elapsed().as_millis(), 500);
    asked.lock().unwrap().clear();

    let took = restored(&broker, &connection).await;
    assert!(took < Duration::from_millis(100), "{took:?}");
    // asked again if the broker had not restarted yet
    assert_eq!(asked.lock().unwrap()[0], "broker.invalid");
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_does_not_keep_a_host_that_restarts_waiting() {
    let broker = without_port().await;
    let (options, _) = behind_a_black_hole(&broker);
    let connection = options.robust().connect().await.unwrap();
    let mut events = connection.events();
    broker.stop().await;
    sleep(Duration::from_secs(3)).await;
    let restarted = Instant::now();
    broker.restart(Keep::Durable).await.unwrap();
    connection.ready().await.unwrap();
    assert!(restarted.elapsed() < Duration::from_millis(800), "{:?}", restarted.elapsed());
    // the silent host counts as one attempt, which goes on
    let mut attempts = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Attempt { number, host, .. } => attempts.push((number, host)),
            Event::Failed { number, host, error, .. } => {
                assert_eq!(attempts.get(number as usize - 1), Some(&(number, host)), "{error}");
            }
            Event::Restored { .. } => break,
            _ => {}
        }
    }
    assert_eq!(attempts.iter().filter(|(_, host)| host == "hole.invalid").count(), 1, "{attempts:?}");
}

/// The kernel drops what comes for a listener whose backlog is full.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_address_that_swallows_packets_is_raced() {
    let broker = Broker::start().await.unwrap();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let hole = socket.listen(0).unwrap();
    let address = hole.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) =
        timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(address)).await
    {
        queued.push(stream);
    }
    let uri = format!("amqp://{address},{}", broker.address().unwrap());
    let began = Instant::now();
    let connection = ConnectOptions::new(&uri).unwrap().robust().connect().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let took = restored(&broker, &connection).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}
