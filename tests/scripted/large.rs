//! A large message on its way to a server that reads slowly, or not at all.

use std::time::{Duration, Instant};

use lepus::protocol::{basic, channel, connection, queue};
use lepus::{ErrorKind, Origin};

use crate::peer::*;

/// More than sockets buffer.
const LARGE: usize = 40 << 20;

/// A connection with two channels whose calls may take so long.
async fn two_channels(limit: Duration) -> (Peer, lepus::Connection, lepus::Channel, lepus::Channel) {
    let (mut server, connection) =
        connected_with(TUNE, |options| options.rpc_timeout(limit).close_timeout(limit)).await;
    let one = open(&mut server, &connection, 1).await;
    let two = open(&mut server, &connection, 2).await;
    (server, connection, one, two)
}

/// Reads the large message of channel 1 up to its end, and hands what other channels say in between to `other`.
async fn read_large(server: &mut Peer, mut other: impl AsyncFnMut(&mut Peer, Frame, usize)) {
    server.receive::<basic::Publish>(1).await;
    let mut size = 0;
    while size < LARGE {
        let frame = server.next().await;
        match (frame.channel, frame.kind) {
            (1, HEADER) => assert_eq!(size, 0),
            (1, kind) => {
                assert_eq!(kind, BODY, "nothing of its own channel may come between its frames");
                assert!(frame.payload.iter().all(|byte| *byte == 7));
                size += frame.payload.len();
            }
            _ => other(server, frame, size).await,
        }
    }
    assert_eq!(size, LARGE);
}

#[tokio::test]
async fn a_large_message_yields_to_other_channels_and_stays_whole() {
    let (mut server, _connection, one, two) = two_channels(Duration::from_secs(10)).await;
    let mut consumer = consumer(&mut server, &two, "c").await;
    server.write(&delivery(2, "c", 1, b"m")).await;
    let delivery = within("a delivery", consumer.next()).await.unwrap().unwrap();
    let exchange = one.default_exchange();
    let confirm = exchange.enqueue("large", vec![7; LARGE]).await.unwrap();
    // behind it on its own channel, and on another one
    let small = exchange.enqueue("small", "behind").into_future();
    let client = async {
        delivery.ack().unwrap();
        let declared = two.declare_queue("q").into_future();
        let other = two.default_exchange();
        let (declared, published) = tokio::join!(declared, other.publish("k", "quick"));
        declared.unwrap();
        published.unwrap();
        small.await.unwrap().await.unwrap();
        confirm.await.unwrap();
    };
    let script = async {
        let mut seen = Vec::new();
        read_large(&mut server, async |server, frame, size| {
            assert!(size < LARGE / 2, "{frame:?} came after {size} bytes");
            let id = frame.payload.get(..4).map(|id| (id[1], id[3]));
            seen.push(id);
            match (frame.kind, id) {
                // queue.declare
                (METHOD, Some((50, 10))) => {
                    server.send(2, queue::DeclareOk { queue: short("q"), ..Default::default() }).await;
                }
                (BODY, _) => {
                    assert_eq!(frame.payload, b"quick");
                    server.send(2, basic::Ack { delivery_tag: 1, multiple: false }).await;
                }
                _ => {}
            }
        })
        .await;
        assert!(seen.contains(&Some((60, 80))), "the ack passed, too: {seen:?}");
        assert_eq!(server.receive_publish(1).await.body, b"behind");
        server.send(1, basic::Ack { delivery_tag: 2, multiple: true }).await;
    };
    both(client, script).await;
}

#[tokio::test]
async fn a_call_that_was_never_written_says_so_and_does_not_blame_the_server() {
    let (server, _connection, one, two) = two_channels(Duration::from_millis(300)).await;
    let _confirm = one.default_exchange().enqueue("large", vec![7; LARGE]).await.unwrap();
    for channel in [&one, &two] {
        let error = within("the call", channel.declare_queue("q").into_future()).await.unwrap_err();
        assert_eq!((error.kind(), error.origin()), (ErrorKind::Timeout, Origin::Network), "{error}");
        assert!(error.to_string().contains("not written yet"), "{error}");
    }
    drop(server);
}

#[tokio::test]
async fn a_call_that_was_written_and_not_answered_blames_the_server() {
    let (mut server, _connection, _one, two) = two_channels(Duration::from_millis(300)).await;
    let error = within("the call", two.declare_queue("q").into_future()).await.unwrap_err();
    assert_eq!((error.kind(), error.origin()), (ErrorKind::Timeout, Origin::Peer), "{error}");
    server.receive::<queue::Declare>(2).await;
}

#[tokio::test]
async fn a_close_waits_for_a_large_message_that_is_being_written() {
    let (mut server, connection, one, _two) = two_channels(Duration::from_secs(10)).await;
    let confirm = one.default_exchange().enqueue("large", vec![7; LARGE]).await.unwrap();
    let (closed, ()) = both(connection.close(), async {
        read_large(&mut server, async |_, frame, _| panic!("{frame:?}")).await;
        server.receive::<connection::Close>(0).await;
        server.send(0, connection::CloseOk).await;
        server.expect_end().await;
    })
    .await;
    closed.unwrap();
    assert_eq!(confirm.await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_close_that_is_given_up_says_what_was_not_written_and_not_confirmed() {
    let (server, connection, one, two) = two_channels(Duration::from_millis(300)).await;
    drop(two.default_exchange().enqueue("k", "m").await.unwrap());
    drop(one.default_exchange().enqueue("large", vec![7; LARGE]).await.unwrap());
    let begun = Instant::now();
    let error = within("the close", connection.close()).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let text = error.to_string();
    assert!(text.contains("bytes were not written"), "{text}");
    assert!(
        text.contains("publishes not confirmed: 1 on channel 1 (delivery tags 1 to 1), 1 on channel 2"),
        "{text}"
    );
    drop(server);
}

#[tokio::test]
async fn a_close_while_the_server_blocks_says_what_was_not_confirmed() {
    let (mut server, connection, one, _two) = two_channels(Duration::from_millis(300)).await;
    let exchange = one.default_exchange();
    for _ in 0..3 {
        drop(exchange.enqueue("k", "m").await.unwrap());
        server.receive_publish(1).await;
    }
    server.send(1, basic::Ack { delivery_tag: 2, multiple: false }).await;
    server.send(0, connection::Blocked { reason: short("low on memory") }).await;
    let mut blocked = connection.watch_blocked();
    if connection.blocked().is_none() {
        within("the news", blocked.changed()).await;
    }
    let channel = within("the channel's close", one.close()).await.unwrap_err();
    let connection = within("the close", connection.close()).await.unwrap_err();
    for text in [channel.to_string(), connection.to_string()] {
        assert!(text.contains("publishes not confirmed: 2 on channel 1 (delivery tags 1 to 3)"), "{text}");
        assert!(text.contains("low on memory"), "{text}");
    }
}

#[tokio::test]
async fn after_the_server_closed_a_channel_its_large_message_is_finished_before_close_ok() {
    let (mut server, connection, one, _two) = two_channels(Duration::from_secs(10)).await;
    let confirm = one.default_exchange().enqueue("large", vec![7; LARGE]).await.unwrap();
    // half a message, and then a method, would end the connection (505)
    let script = async {
        server.send(1, channel::Close { reply_code: 404, ..Default::default() }).await;
        read_large(&mut server, async |_, frame, _| panic!("{frame:?}")).await;
        server.expect(1, channel::CloseOk).await;
    };
    let (confirmed, ()) = both(confirm, script).await;
    assert_eq!(confirmed.unwrap_err().reply_code(), Some(404));
    assert!(connection.is_open());
}
