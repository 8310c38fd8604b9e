//! E. Closing, calls and their ends, blocking, flow.

use std::time::{Duration, Instant};

use lepus::protocol::{Method, basic, channel, connection, queue};
use lepus::{ErrorKind, Origin, Scope};

use crate::peer::*;

/// The server's close of a channel.
fn not_found() -> channel::Close {
    channel::Close {
        reply_code: 404,
        reply_text: short("NOT_FOUND - no queue 'q'"),
        class_id: 50,
        method_id: 30,
    }
}

#[tokio::test]
async fn e4_a_close_of_the_server_is_answered_before_user_code_runs() {
    let tune = connection::Tune { channel_max: 1, ..TUNE };
    let (mut server, connection) = connected_with(tune, |options| options).await;
    let channel = open(&mut server, &connection, 1).await;
    let queue = channel.queue("q").unwrap();
    let (purged, ()) = both(queue.purge(), async {
        server.receive::<queue::Purge>(1).await;
        server.send(1, not_found()).await;
        server.expect(1, channel::CloseOk).await;
    })
    .await;
    let error = purged.unwrap_err();
    assert_eq!(
        (error.kind(), error.origin(), error.scope(), error.reply_code()),
        (ErrorKind::ChannelClosed, Origin::Peer, Scope::Channel, Some(404))
    );
    assert!(error.to_string().contains("queue.purge"), "{error}");
    assert_eq!(channel.closed().await.reply_code(), Some(404));
    // the only number there is
    let again = open(&mut server, &connection, 1).await;
    nothing_else(&mut server, &again).await;
    assert_eq!(channel.qos(1).await.unwrap_err().reply_code(), Some(404));
}

#[tokio::test]
async fn e5_a_number_is_not_used_again_before_close_ok() {
    let tune = connection::Tune { channel_max: 1, ..TUNE };
    let (mut server, connection) = connected_with(tune, |options| options).await;
    let channel = open(&mut server, &connection, 1).await;
    let (closed, ()) = both(channel.close(), async {
        server.receive::<channel::Close>(1).await;
        let error = connection.channel().await.unwrap_err();
        assert_eq!((error.kind(), error.scope()), (ErrorKind::NoFreeChannel, Scope::Call));
        server.send(1, channel::CloseOk).await;
    })
    .await;
    closed.unwrap();
    open(&mut server, &connection, 1).await;
}

#[tokio::test]
async fn e6_what_comes_between_close_and_close_ok_is_discarded() {
    let (mut server, connection, channel, mut consumer) = with_consumer().await;
    let (closed, ()) = both(channel.close(), async {
        server.receive::<channel::Close>(1).await;
        let late = [
            delivery(1, "c", 1, b"late"),
            method(1, &basic::Ack { delivery_tag: 1, multiple: false }),
            method(1, &queue::PurgeOk::default()),
            method(1, &channel::CloseOk),
        ];
        server.write(&late.concat()).await;
    })
    .await;
    closed.unwrap();
    assert!(within("the end of the stream", consumer.next()).await.is_none());
    let other = open(&mut server, &connection, 2).await;
    nothing_else(&mut server, &other).await;
}

#[tokio::test]
async fn e6_what_comes_for_the_last_incarnation_of_a_channel_is_discarded() {
    let tune = connection::Tune { channel_max: 1, ..TUNE };
    let (mut server, connection) = connected_with(tune, |options| options).await;
    let channel = open(&mut server, &connection, 1).await;
    let _consumer = consumer(&mut server, &channel, "c").await;
    server.send(1, not_found()).await;
    server.expect(1, channel::CloseOk).await;
    within("the channel to end", channel.closed()).await;
    let stray =
        [delivery(1, "c", 1, b"stray"), method(1, &basic::Ack { delivery_tag: 1, multiple: false })].concat();
    server.write(&stray).await;
    let (again, ()) = both(connection.channel(), async {
        server.expect(1, channel::Open).await;
        server.write(&stray).await;
        server.send(1, channel::OpenOk).await;
        server.receive::<lepus::protocol::confirm::Select>(1).await;
        server.send(1, lepus::protocol::confirm::SelectOk).await;
    })
    .await;
    nothing_else(&mut server, &again.unwrap()).await;
}

#[tokio::test]
async fn e7_both_sides_may_close_a_channel_at_once() {
    let (mut server, connection, channel) = with_channel().await;
    let (closed, ()) = both(channel.close(), async {
        server.receive::<channel::Close>(1).await;
        server.send(1, not_found()).await;
        server.expect(1, channel::CloseOk).await;
        server.send(1, channel::CloseOk).await;
    })
    .await;
    closed.unwrap();
    assert_eq!(channel.closed().await.kind(), ErrorKind::Closed);
    let other = open(&mut server, &connection, 2).await;
    nothing_else(&mut server, &other).await;
}

#[tokio::test]
async fn e7_both_sides_may_close_the_connection_at_once() {
    let (mut server, connection) = connected().await;
    let (closed, ()) = both(connection.close(), async {
        server.receive::<connection::Close>(0).await;
        server.send(0, connection::Close { reply_code: 320, ..Default::default() }).await;
        server.expect(0, connection::CloseOk).await;
        server.send(0, connection::CloseOk).await;
        server.expect_end().await;
    })
    .await;
    closed.unwrap();
    assert_eq!(connection.closed().await.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn e8_a_call_fails_at_once_when_its_channel_or_connection_is_closed() {
    for whole_connection in [false, true] {
        let (mut server, connection, channel) = with_channel().await;
        let queue = channel.queue("q").unwrap();
        let script = async {
            server.receive::<queue::Purge>(1).await;
            if whole_connection {
                let (closed, ()) = tokio::join!(connection.close(), async {
                    server.receive::<connection::Close>(0).await;
                    server.send(0, connection::CloseOk).await;
                });
                closed.unwrap();
            } else {
                let (closed, ()) = tokio::join!(channel.close(), async {
                    server.receive::<channel::Close>(1).await;
                    server.send(1, channel::CloseOk).await;
                });
                closed.unwrap();
            }
        };
        // the second waits for its turn behind the first
        let calls = async { tokio::join!(queue.purge(), channel.qos(1)) };
        let ((purged, qos), ()) = both(calls, script).await;
        for error in [purged.unwrap_err(), qos.unwrap_err()] {
            let scope = if whole_connection { Scope::Connection } else { Scope::Channel };
            assert_eq!((error.kind(), error.scope()), (ErrorKind::Closed, scope), "{error}");
        }
    }
}

#[tokio::test]
async fn e9_close_ok_is_success_and_the_second_close_does_nothing() {
    let (mut server, connection, channel) = with_channel().await;
    let (closed, ()) = both(channel.close(), async {
        server.expect(1, channel::Close { reply_code: 200, ..Default::default() }).await;
        server.send(1, channel::CloseOk).await;
    })
    .await;
    closed.unwrap();
    within("a second close", channel.close()).await.unwrap();
    let (closed, ()) = both(connection.close(), async {
        server.expect(0, connection::Close { reply_code: 200, ..Default::default() }).await;
        server.send(0, connection::CloseOk).await;
        server.expect_end().await;
    })
    .await;
    closed.unwrap();
    within("a second close", connection.close()).await.unwrap();
    let error = connection.channel().await.unwrap_err();
    assert_eq!((error.kind(), error.scope()), (ErrorKind::Closed, Scope::Connection));
}

#[tokio::test]
async fn e10_close_returns_in_time_though_a_blocked_server_never_answers() {
    let (mut server, connection) =
        connected_with(TUNE, |options| options.close_timeout(Duration::from_millis(200))).await;
    let channel = open(&mut server, &connection, 1).await;
    server.send(0, connection::Blocked { reason: short("low on memory") }).await;
    let mut blocked = connection.watch_blocked();
    if connection.blocked().is_none() {
        within("the news", blocked.changed()).await;
    }
    let begun = Instant::now();
    let error = within("the channel's close", channel.close()).await.unwrap_err();
    assert_eq!((error.kind(), error.scope()), (ErrorKind::Timeout, Scope::Channel));
    let error = within("the connection's close", connection.close()).await.unwrap_err();
    assert_eq!((error.kind(), error.scope()), (ErrorKind::Timeout, Scope::Connection));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    server.receive::<channel::Close>(1).await;
    server.receive::<connection::Close>(0).await;
    server.expect_end().await;
}

#[tokio::test]
async fn consumers_end_with_their_channel_though_the_server_never_answers_its_close() {
    let (mut server, connection) =
        connected_with(TUNE, |options| options.close_timeout(Duration::from_millis(200))).await;
    let channel = open(&mut server, &connection, 1).await;
    let mut consumer = consumer(&mut server, &channel, "c").await;
    let error = within("the channel's close", channel.close()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(within("the end of the stream", consumer.next()).await.is_none());
    assert!(connection.is_open());
}

#[tokio::test]
async fn e11_publishers_wait_while_the_server_blocks_and_go_on_by_themselves() {
    let (mut server, connection, channel) = with_channel().await;
    let mut watch = connection.watch_blocked();
    server.send(0, connection::Blocked { reason: short("low on disk") }).await;
    assert_eq!(within("the news", watch.changed()).await.unwrap(), "low on disk");
    assert_eq!(connection.blocked().unwrap(), "low on disk");
    let exchange = channel.default_exchange();
    let (published, ()) = both(exchange.publish("k", "late"), async {
        // one that gives up meanwhile is never sent
        let waiting = tokio::time::timeout(Duration::from_millis(50), exchange.publish("k", "never")).await;
        assert!(waiting.is_err());
        nothing_else(&mut server, &channel).await;
        server.send(0, connection::Unblocked).await;
        assert_eq!(server.receive_publish(1).await.body, b"late");
        server.send(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
    })
    .await;
    published.unwrap();
    assert_eq!(within("the news", watch.changed()).await, None);
    assert_eq!(connection.blocked(), None);
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn e11_publishers_that_wait_hear_of_the_end() {
    let (mut server, connection, channel) = with_channel().await;
    let mut watch = connection.watch_blocked();
    server.send(0, connection::Blocked { reason: short("low on disk") }).await;
    within("the news", watch.changed()).await;
    let exchange = channel.default_exchange();
    let (published, ()) = both(exchange.publish("k", "m"), async {
        server.send(1, channel::Close { reply_code: 404, ..Default::default() }).await;
        server.expect(1, channel::CloseOk).await;
    })
    .await;
    assert_eq!(published.unwrap_err().reply_code(), Some(404));
    let other = open(&mut server, &connection, 2).await;
    let exchange = other.default_exchange();
    let (published, ()) = both(exchange.publish("k", "m"), server.end()).await;
    assert_eq!(published.unwrap_err().kind(), ErrorKind::ConnectionLost);
    assert_eq!(connection.blocked(), None);
}

#[tokio::test]
async fn e12_when_the_server_closes_the_connection_everybody_hears_it_once() {
    let (mut server, connection, channel, mut consumer) = with_consumer().await;
    let other = open(&mut server, &connection, 2).await;
    let (queue, exchange) = (other.queue("q").unwrap(), channel.default_exchange());
    let confirm = exchange.enqueue("k", "unconfirmed").await.unwrap();
    let waiting = async {
        tokio::join!(
            confirm,
            queue.get(),
            consumer.next(),
            channel.closed(),
            other.closed(),
            connection.closed()
        )
    };
    let ((confirm, got, next, one, two, closed), ()) = both(waiting, async {
        server.receive_publish(1).await;
        server.receive::<basic::Get>(2).await;
        let reply_text = short("CONNECTION_FORCED - Closed via management plugin");
        server.send(0, connection::Close { reply_code: 320, reply_text, ..Default::default() }).await;
        server.expect(0, connection::CloseOk).await;
        server.expect_end().await;
    })
    .await;
    let errors = [confirm.unwrap_err(), got.unwrap_err(), next.unwrap().unwrap_err(), one, two, closed];
    for error in errors {
        assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ConnectionClosed, Some(320)));
        assert_eq!(error.reply_text(), Some("CONNECTION_FORCED - Closed via management plugin"));
    }
    assert!(consumer.next().await.is_none());
}

#[tokio::test]
async fn e13_flow_stops_content_on_its_channel_and_nothing_else() {
    let (mut server, connection, channel) = with_channel().await;
    let other = open(&mut server, &connection, 2).await;
    server.send(1, channel::Flow { active: false }).await;
    server.expect(1, channel::FlowOk { active: false }).await;
    let (exchange, free) = (channel.default_exchange(), other.default_exchange());
    let (published, ()) = both(exchange.publish("k", "waits"), async {
        drop(free.enqueue("k", "goes").await.unwrap());
        assert_eq!(server.receive_publish(2).await.body, b"goes");
        nothing_else(&mut server, &channel).await;
        server.send(1, channel::Flow { active: true }).await;
        server.expect(1, channel::FlowOk { active: true }).await;
        assert_eq!(server.receive_publish(1).await.body, b"waits");
        server.send(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
    })
    .await;
    published.unwrap();
}

#[tokio::test]
async fn e14_the_last_handle_of_a_channel_closes_it() {
    let (mut server, connection, channel) = with_channel().await;
    let copy = channel.clone();
    drop(channel);
    nothing_else(&mut server, &copy).await;
    drop(copy);
    server.expect(1, channel::Close { reply_code: 200, ..Default::default() }).await;
    server.send(1, channel::CloseOk).await;
    open(&mut server, &connection, 2).await;
}

#[tokio::test]
async fn e14_the_last_handle_of_a_connection_closes_it() {
    let (mut server, connection, channel, mut consumer) = with_consumer().await;
    drop((connection, channel));
    server.write(&delivery(1, "c", 1, b"still there")).await;
    let delivery = within("a delivery", consumer.next()).await.unwrap().unwrap();
    drop(consumer);
    server.receive::<basic::Cancel>(1).await;
    // the delivery still needs the channel
    delivery.ack().unwrap();
    server.expect(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
    server.receive::<channel::Close>(1).await;
    server.receive::<connection::Close>(0).await;
    server.send(0, connection::CloseOk).await;
    server.expect_end().await;
}

#[tokio::test]
async fn e14_a_dropped_connection_closes_its_socket_though_nobody_answers() {
    let (mut server, connection) =
        connected_with(TUNE, |options| options.close_timeout(Duration::from_millis(100))).await;
    drop(connection);
    server.receive::<connection::Close>(0).await;
    server.expect_end().await;
}

#[tokio::test]
async fn e15_a_consumer_that_takes_nothing_stops_nobody() {
    let (mut server, connection, channel) = with_channel().await;
    let queue = channel.queue("q").unwrap();
    // without a limit
    let (idle, _) = both(queue.consume().tag("c").prefetch(0), server.start_consumer(1, "c")).await;
    let _idle = idle.unwrap();
    let _returns = channel.returns();
    let other = open(&mut server, &connection, 2).await;
    let mut busy = consumer(&mut server, &other, "d").await;
    let mut bytes = Vec::new();
    for n in 1..=2000 {
        bytes.extend(delivery(1, "c", n, b"unlooked-at"));
        bytes.extend(returned(1, "nowhere", &lepus::Properties::default(), b"unlooked-at"));
    }
    bytes.extend(delivery(2, "d", 1, b"mine"));
    server.write(&bytes).await;
    assert_eq!(within("a delivery", busy.next()).await.unwrap().unwrap().body(), b"mine");
    nothing_else(&mut server, &channel).await;
    nothing_else(&mut server, &other).await;
}

#[tokio::test]
async fn the_answer_to_a_dropped_call_is_not_taken_for_the_next_ones() {
    let (mut server, _connection, channel) = with_channel().await;
    let queue = channel.queue("q").unwrap();
    let dropped = tokio::time::timeout(Duration::from_millis(50), queue.purge()).await;
    assert!(dropped.is_err());
    let (purged, ()) = both(queue.purge(), async {
        server.receive::<queue::Purge>(1).await;
        server.send(1, queue::PurgeOk { message_count: 1 }).await;
        server.receive::<queue::Purge>(1).await;
        server.send(1, queue::PurgeOk { message_count: 2 }).await;
    })
    .await;
    assert_eq!(purged.unwrap(), 2);
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn a_call_that_is_dropped_before_its_turn_is_not_sent() {
    let (mut server, _connection, channel) = with_channel().await;
    let queue = channel.queue("q").unwrap();
    let (purged, ()) = both(queue.purge(), async {
        let dropped = tokio::time::timeout(Duration::from_millis(50), channel.qos(9)).await;
        assert!(dropped.is_err());
        server.receive::<queue::Purge>(1).await;
        server.send(1, queue::PurgeOk { message_count: 1 }).await;
    })
    .await;
    purged.unwrap();
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn a_lost_reply_hangs_neither_its_caller_nor_the_next() {
    let (mut server, connection) =
        connected_with(TUNE, |options| options.rpc_timeout(Duration::from_millis(200))).await;
    let channel = open(&mut server, &connection, 1).await;
    let queue = channel.queue("q").unwrap();
    for _ in 0..2 {
        let error = within("a time-out", queue.purge()).await.unwrap_err();
        assert_eq!((error.kind(), error.scope()), (ErrorKind::Timeout, Scope::Call));
    }
    // only the first of the two was sent: the other one waited for its turn
    server.receive::<queue::Purge>(1).await;
    // other channels go on, and this one does once the answer has come
    let other = open(&mut server, &connection, 2).await;
    nothing_else(&mut server, &other).await;
    server.send(1, queue::PurgeOk { message_count: 1 }).await;
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn a_dropped_open_closes_its_channel_again() {
    let (mut server, connection) = connected().await;
    let dropped = tokio::time::timeout(Duration::from_millis(50), async { connection.channel().await }).await;
    assert!(dropped.is_err());
    server.expect(1, channel::Open).await;
    server.receive::<channel::Close>(1).await;
    server.send(1, channel::OpenOk).await;
    server.send(1, channel::CloseOk).await;
    let channel = open(&mut server, &connection, 2).await;
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn a_new_secret_is_given_and_refused() {
    let (mut server, connection) = connected().await;
    let (updated, ()) = both(connection.update_secret("new token", "expires"), async {
        let method = connection::UpdateSecret { new_secret: "new token".into(), reason: short("expires") };
        server.expect(0, method).await;
        server.send(0, connection::Blocked { reason: short("by the way") }).await;
        server.send(0, connection::UpdateSecretOk).await;
    })
    .await;
    updated.unwrap();
    let (updated, ()) = both(connection.update_secret("bad token", "expires"), async {
        server.receive::<connection::UpdateSecret>(0).await;
        server.send(0, connection::Close { reply_code: 530, ..Default::default() }).await;
        server.expect(0, connection::CloseOk).await;
    })
    .await;
    let error = updated.unwrap_err();
    assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ConnectionClosed, Some(530)));
    assert!(!format!("{error:?}").contains("token"));
}

#[tokio::test]
async fn no_connection_shows_in_debug_what_waits_to_be_written() {
    let (server, connection) = connected().await;
    let text = format!("{connection:?}");
    assert!(text.starts_with("Connection { host: \"127.0.0.1\", port: "), "{text}");
    assert!(text.len() < 100, "{text}");
    drop(server);
}

#[test]
fn no_method_shows_its_secrets_in_debug() {
    let secret = || bytes::Bytes::from_static(b"hush-hush");
    let shown = [
        format!("{:?}", connection::UpdateSecret { new_secret: secret(), reason: short("expires") }),
        format!("{:?}", connection::StartOk { response: secret(), ..Default::default() }),
        format!("{:?}", connection::Secure { challenge: secret() }),
        format!("{:?}", Method::from(connection::SecureOk { response: secret() })),
    ];
    for text in shown {
        assert!(text.contains("***") && !text.contains("hush") && !text.contains("104"), "{text}");
    }
}

#[tokio::test]
async fn the_answer_to_a_dropped_update_secret_is_not_taken_for_the_next_ones() {
    let (mut server, connection, channel) = with_channel().await;
    let dropped = tokio::time::timeout(Duration::from_millis(50), connection.update_secret("1", "")).await;
    assert!(dropped.is_err());
    let (updated, ()) = both(connection.update_secret("2", ""), async {
        server.receive::<connection::UpdateSecret>(0).await;
        server.send(0, connection::UpdateSecretOk).await;
        server.receive::<connection::UpdateSecret>(0).await;
        server.send(0, connection::UpdateSecretOk).await;
    })
    .await;
    updated.unwrap();
    nothing_else(&mut server, &channel).await;
}
