//! E1 to E3, E11, E15: heartbeats, and what must not stop them. The only tests that take seconds.

use std::time::{Duration, Instant};

use lepus::protocol::{basic, connection};
use lepus::{ConnectOptions, Connection, ErrorKind, Origin};
use tokio::time::sleep;

use crate::peer::*;

const SECOND: connection::Tune = connection::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 1 };

/// A connection with a heartbeat interval of one second.
async fn beating(change: impl FnOnce(ConnectOptions) -> ConnectOptions) -> (Peer, Connection) {
    connected_with(SECOND, change).await
}

#[tokio::test]
async fn e1_an_idle_client_sends_a_heartbeat_each_half_interval() {
    let (mut server, _connection) = beating(|options| options).await;
    let begun = Instant::now();
    for _ in 0..3 {
        let beat = server.frame().await.unwrap();
        assert_eq!(beat, Frame { kind: HEARTBEAT, channel: 0, payload: Vec::new() });
    }
    let elapsed = begun.elapsed();
    assert!((Duration::from_millis(1200)..Duration::from_millis(1950)).contains(&elapsed), "{elapsed:?}");
}

#[tokio::test]
async fn e1_heartbeats_go_out_before_open_ok() {
    let listener = Listener::bind().await;
    let options = listener.options();
    let (connection, _server) = both(options.connect(), async {
        let mut server = listener.accept().await;
        server.login().await;
        server.send(0, SECOND).await;
        server.receive::<connection::TuneOk>(0).await;
        server.receive::<connection::Open>(0).await;
        assert_eq!(server.frame().await.unwrap().kind, HEARTBEAT);
        server.send(0, connection::OpenOk).await;
        server
    })
    .await;
    connection.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_heartbeats_go_out_while_user_code_holds_its_thread() {
    let (mut server, connection) = beating(|options| options).await;
    let channel = open(&mut server, &connection, 1).await;
    let mut consumer = consumer(&mut server, &channel, "c").await;
    server.write(&delivery(1, "c", 1, b"work")).await;
    let user = tokio::spawn(async move {
        let delivery = consumer.next().await.unwrap().unwrap();
        tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(1200)));
        delivery.ack().unwrap();
        consumer
    });
    for _ in 0..2 {
        assert_eq!(server.frame().await.unwrap().kind, HEARTBEAT);
    }
    server.receive::<basic::Ack>(1).await;
    within("the user", user).await.unwrap();
}

#[tokio::test]
async fn e2_a_silent_server_is_dead_after_two_intervals() {
    let (mut server, connection) = beating(|options| options).await;
    let channel = open(&mut server, &connection, 1).await;
    let mut consumer = consumer(&mut server, &channel, "c").await;
    let begun = Instant::now();
    let queue = channel.queue("q").unwrap();
    let waiting = async { tokio::join!(queue.purge(), consumer.next(), connection.closed()) };
    let ((purged, next, closed), ()) = both(waiting, async {
        server.next().await;
        // heartbeats, and no close: nobody is there to read it
        while let Some(frame) = server.frame().await {
            assert_eq!(frame.kind, HEARTBEAT);
        }
    })
    .await;
    let elapsed = begun.elapsed();
    assert!((Duration::from_millis(1900)..Duration::from_secs(4)).contains(&elapsed), "{elapsed:?}");
    for error in [purged.unwrap_err(), next.unwrap().unwrap_err(), closed] {
        assert_eq!((error.kind(), error.origin()), (ErrorKind::HeartbeatMissed, Origin::Network));
    }
}

#[tokio::test]
async fn e2_heartbeats_of_the_server_keep_it_alive() {
    let (mut server, connection) = beating(|options| options).await;
    for _ in 0..6 {
        sleep(Duration::from_millis(500)).await;
        server.write(&frame(HEARTBEAT, 0, &[])).await;
    }
    assert!(connection.is_open());
}

#[tokio::test]
async fn e3_the_slow_bytes_of_a_body_are_a_sign_of_life() {
    let (mut server, connection) = beating(|options| options).await;
    let channel = open(&mut server, &connection, 1).await;
    let mut consumer = consumer(&mut server, &channel, "c").await;
    let bytes = [deliver(1, "c", 1), header(1, 100), frame_head(BODY, 1, 100)].concat();
    server.write(&bytes).await;
    // one byte each half second, and never a whole frame
    for _ in 0..6 {
        sleep(Duration::from_millis(500)).await;
        server.write(b"x").await;
    }
    server.write(&[b"x".repeat(94), vec![0xCE]].concat()).await;
    assert_eq!(within("a delivery", consumer.next()).await.unwrap().unwrap().body().len(), 100);
}

#[tokio::test]
async fn d11_without_heartbeats_none_are_sent_and_none_are_missed() {
    let (mut server, connection) = connected_with(SECOND, |options| options.heartbeat(Duration::ZERO)).await;
    sleep(Duration::from_millis(2300)).await;
    assert!(connection.is_open());
    server.send(0, connection::Close { reply_code: 320, ..Default::default() }).await;
    assert_eq!(server.frame().await, Some(Frame { kind: METHOD, channel: 0, payload: vec![0, 10, 0, 51] }));
}

#[tokio::test]
async fn e15_reading_pauses_at_the_limit_while_heartbeats_go_out_and_goes_on() {
    let (mut server, connection) = beating(|options| options.incoming_limit(64 << 10)).await;
    let channel = open(&mut server, &connection, 1).await;
    let mut consumer = consumer_without_acks(&mut server, &channel, "c").await;
    // more than the sockets hold between them, so that writing it all needs a reader
    let (count, size) = (600, 100_000);
    let message = vec![7; size];
    let mut flood = Vec::new();
    for n in 1..=count {
        flood.extend(delivery(1, "c", n, &message));
    }
    let mut written = 0;
    while let Ok(Ok(more)) =
        tokio::time::timeout(Duration::from_secs(1), server.write_some(&flood[written..])).await
    {
        written += more;
        assert!(written < flood.len(), "reading never paused");
    }
    // it has stopped reading, for longer than a peer may be silent; but not sending
    for _ in 0..5 {
        assert_eq!(server.frame().await.unwrap().kind, HEARTBEAT);
    }
    assert!(connection.is_open());
    let (seen, ()) = both(
        async {
            let mut seen = 0;
            while seen < count {
                assert_eq!(consumer.next().await.unwrap().unwrap().body().len(), size);
                seen += 1;
            }
            seen
        },
        server.write(&flood[written..]),
    )
    .await;
    assert_eq!(seen, count);
}
