//! A drain and publishes that wait, on both kinds of connection.

use std::time::{Duration, Instant};

use lepus::protocol::{basic, channel, connection};
use lepus::{Channel, Connection, ErrorKind};
use tokio::task::JoinHandle;

use crate::peer::*;

const REASON: &str = "low on memory";

/// A plain connection, or a robust one, with channel 1 open.
async fn either(robust: bool) -> (Peer, Connection, Channel) {
    let listener = Listener::bind().await;
    let options = listener.options();
    let connecting =
        async { if robust { options.robust().connect().await } else { options.connect().await } };
    let (connection, mut server) = both(connecting, async {
        let mut server = listener.accept().await;
        server.handshake(TUNE).await;
        server
    })
    .await;
    let connection = connection.unwrap();
    let channel = open(&mut server, &connection, 1).await;
    (server, connection, channel)
}

/// The server takes no publishes, and two wait.
async fn blocked(
    server: &mut Peer,
    connection: &Connection,
    channel: &Channel,
) -> [JoinHandle<lepus::Result<()>>; 2] {
    server.send(0, connection::Blocked { reason: short(REASON) }).await;
    let mut watched = connection.watch_blocked();
    if connection.blocked().is_none() {
        within("the news", watched.changed()).await;
    }
    let exchange = channel.default_exchange();
    let publish = |body: &'static str| {
        let exchange = exchange.clone();
        tokio::spawn(async move { exchange.publish("k", body).await })
    };
    let waiting = [publish("1"), publish("2")];
    // the one thread has polled both when it comes back here
    tokio::task::yield_now().await;
    waiting
}

/// The client's close, answered.
async fn close(server: &mut Peer, robust: bool) {
    if robust {
        server.receive::<channel::Close>(1).await;
    }
    server.receive::<connection::Close>(0).await;
    server.send(0, connection::CloseOk).await;
}

#[tokio::test]
async fn a_drain_says_how_many_publishes_were_not_handed_over_and_ends_in_time() {
    for robust in [false, true] {
        let (mut server, connection, channel) = either(robust).await;
        let waiting = blocked(&mut server, &connection, &channel).await;
        let (begun, limit) = (Instant::now(), Duration::from_millis(200));
        // the server answers nothing any more, also no close
        let error = within("the drain", connection.drain(limit)).await.unwrap_err();
        assert!(begun.elapsed() < limit * 4, "{:?}", begun.elapsed());
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let text = error.to_string();
        assert!(text.contains("2 publishes were not handed over"), "{text}");
        assert!(text.contains(REASON), "{text}");
        for publish in waiting {
            let error = within("a publish", publish).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Closed);
        }
    }
}

#[tokio::test]
async fn a_drain_waits_until_publishes_that_wait_are_confirmed() {
    for robust in [false, true] {
        let (mut server, connection, channel) = either(robust).await;
        let waiting = blocked(&mut server, &connection, &channel).await;
        let script = async {
            assert!(!waiting.iter().any(JoinHandle::is_finished));
            server.send(0, connection::Unblocked {}).await;
            for _ in 0..2 {
                server.receive_publish(1).await;
            }
            server.send(1, basic::Ack { delivery_tag: 2, multiple: true }).await;
            for publish in waiting {
                publish.await.unwrap().unwrap();
            }
            close(&mut server, robust).await;
        };
        both(connection.drain(Duration::from_secs(30)), script).await.0.unwrap();
    }
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_publish_that_was_given_up() {
    for robust in [false, true] {
        let (mut server, connection, channel) = either(robust).await;
        let waiting = blocked(&mut server, &connection, &channel).await;
        let script = async {
            for publish in waiting {
                publish.abort();
                assert!(publish.await.unwrap_err().is_cancelled());
            }
            close(&mut server, robust).await;
        };
        both(connection.drain(Duration::from_secs(30)), script).await.0.unwrap();
    }
}
