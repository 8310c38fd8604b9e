//! What a connection says of its health.

use std::time::Duration;

use lepus::broker::{Broker, Keep};
use lepus::protocol::connection;
use lepus::{ConnectOptions, ConnectionState, ErrorKind};
use tokio::time::{Instant, sleep};

use crate::case::test;
use crate::peer::{Listener, TUNE, both};

#[tokio::test(start_paused = true)]
async fn the_status_tells_state_and_load() {
    let broker = Broker::options().without_port().start().await.unwrap();
    let options = ConnectOptions::new(&broker.url()).unwrap().connector(broker.connector());
    let (plain, robust) = (options.connect().await.unwrap(), options.robust().connect().await.unwrap());
    let heartbeats = [&plain, &robust].map(|connection| connection.heartbeat().as_secs());
    assert_eq!(heartbeats, [60, 20]);
    let mut kept = Vec::new();
    for connection in [&plain, &robust] {
        let channel = connection.channel().await.unwrap();
        let queue = channel.declare_queue("jobs").await.unwrap();
        kept.push(queue.consume().await.unwrap());
        sleep(Duration::from_secs(100)).await;
        let status = connection.status();
        assert_eq!((status.state, status.consumers), (ConnectionState::Ready, 1));
        assert!(status.since >= Duration::from_secs(100) && status.last_error.is_none());
        broker.stop_reading(true);
        drop(channel.default_exchange().enqueue("jobs", "1").await.unwrap());
        let status = connection.status();
        assert_eq!(status.unconfirmed_messages, 1, "{status}");
        broker.stop_reading(false);
        channel.wait_for_confirms().await.unwrap();
        assert_eq!(connection.status().unconfirmed_messages, 0);
    }
    let shown = robust.status().to_string();
    assert!(shown.contains("ready for 200 s, 0 unconfirmed messages (0 bytes), 1 consumers"), "{shown}");

    broker.stop().await;
    sleep(Duration::from_secs(5)).await;
    let (ended, down) = (plain.status(), robust.status());
    assert_eq!((ended.state, down.state), (ConnectionState::Ended, ConnectionState::Connecting));
    assert_eq!((ended.since.as_secs(), down.since.as_secs()), (5, 5));
    let kinds = [ended, down].map(|status| status.last_error.unwrap().kind());
    assert_eq!(kinds, [ErrorKind::ConnectionLost, ErrorKind::Connect]);
    broker.restart(Keep::Durable).await.unwrap();
    robust.ready().await.unwrap();
    assert_eq!(robust.status().state, ConnectionState::Ready);
    robust.close().await.unwrap();
    assert_eq!(robust.status().state, ConnectionState::Ended);
}

#[test]
fn a_silent_link_is_not_ready() {
    test(async |_| {
        for is_robust in [false, true] {
            let listener = Listener::bind().await;
            let options = listener.options();
            let connect =
                async { if is_robust { options.robust().connect().await } else { options.connect().await } };
            let (connection, mut server) = both(connect, async {
                let mut server = listener.accept().await;
                server.handshake(connection::Tune { heartbeat: 1, ..TUNE }).await;
                server
            })
            .await;
            let connection = connection.unwrap();
            let began = Instant::now();
            assert!(connection.is_ready());
            while connection.is_ready() {
                sleep(Duration::from_millis(10)).await;
            }
            assert!((900..1900).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
            assert!(connection.is_open());
            assert_eq!(connection.status().state, ConnectionState::Silent);
            // a heartbeat
            server.write(&[8, 0, 0, 0, 0, 0, 0, 0xce]).await;
            while !connection.is_ready() {
                sleep(Duration::from_millis(1)).await;
            }
        }
    });
}
