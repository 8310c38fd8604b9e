//! A. What is wrong with frames and sockets.

use lepus::protocol::{basic, connection, queue};
use lepus::{Error, ErrorKind, Message, Origin, Scope};

use crate::peer::*;

/// Sends bytes to a client that waits for the answer to a call. It must give up with this code, tell so
/// to whoever waits, and say and do nothing else.
pub(crate) async fn refused(bytes: &[u8], code: u16) -> Error {
    let (mut server, connection, channel) = with_channel().await;
    let queue = channel.queue("q").unwrap();
    let script = async {
        server.receive::<queue::Purge>(1).await;
        server.write(bytes).await;
        server.expect_refusal(code).await;
    };
    let (purged, ()) = both(queue.purge(), script).await;
    let error = purged.unwrap_err();
    assert_eq!(
        (error.kind(), error.origin(), error.scope()),
        (ErrorKind::Protocol, Origin::Peer, Scope::Connection),
        "{error}"
    );
    let closed = within("the connection to end", connection.closed()).await;
    assert_eq!(closed.to_string(), error.to_string());
    assert!(!connection.is_open());
    error
}

#[tokio::test]
async fn a1_a_body_frame_of_four_gigabytes_is_refused_before_its_payload() {
    let error = refused(&frame_head(BODY, 1, u32::MAX), 501).await;
    assert!(error.to_string().contains("4294967295"), "{error}");
}

#[tokio::test]
async fn a2_four_gigabytes_are_refused_before_tune_too() {
    let listener = Listener::bind().await;
    let options = listener.options();
    let (result, ()) = both(options.connect(), async {
        let mut server = listener.accept().await;
        server.greet().await;
        server.write(&frame_head(BODY, 1, u32::MAX)).await;
        server.expect_refusal(501).await;
    })
    .await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn a2_a_start_of_more_than_a_minimal_frame_is_accepted() {
    let listener = Listener::bind().await;
    let options = listener.options();
    let (result, _server) = both(options.connect(), async {
        let mut server = listener.accept().await;
        server.greet().await;
        let mut large = start("PLAIN");
        large.server_properties.insert("motd", "x".repeat(100_000)).unwrap();
        server.send(0, large).await;
        server.receive::<connection::StartOk>(0).await;
        server.send(0, TUNE).await;
        server.receive::<connection::TuneOk>(0).await;
        server.receive::<connection::Open>(0).await;
        server.send(0, connection::OpenOk).await;
        server
    })
    .await;
    assert!(result.unwrap().server_properties().get("motd").is_some());
}

#[tokio::test]
async fn a3_a_body_frame_may_fill_frame_max_and_not_exceed_it() {
    let (mut server, connection) =
        connected_with(connection::Tune { frame_max: 8192, ..TUNE }, |options| options).await;
    assert_eq!(connection.frame_max(), 8192);
    let channel = open(&mut server, &connection, 1).await;
    let mut consumer = consumer(&mut server, &channel, "c").await;
    server.write(&delivery(1, "c", 1, &[7; 8192 - 8])).await;
    let first = within("a delivery", consumer.next()).await.unwrap().unwrap();
    assert_eq!(first.body().len(), 8184);
    server.write(&[deliver(1, "c", 2), header(1, 8185), frame_head(BODY, 1, 8185)].concat()).await;
    server.expect_refusal(501).await;
    let end = within("the end of the stream", consumer.next()).await.unwrap();
    assert_eq!(end.unwrap_err().kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn a4_a_header_frame_may_exceed_frame_max_up_to_a_limit_of_its_own() {
    let (mut server, connection) =
        connected_with(connection::Tune { frame_max: 8192, ..TUNE }, |options| options).await;
    let channel = open(&mut server, &connection, 1).await;
    let mut consumer = consumer(&mut server, &channel, "c").await;
    let message = Message::new("body").header("padding", "x".repeat(20_000));
    let mut properties = Vec::new();
    message.properties().encode(&mut properties);
    server
        .write(&[deliver(1, "c", 1), raw_header(1, 60, 0, 4, &properties), body(1, b"body")].concat())
        .await;
    let delivery = within("a delivery", consumer.next()).await.unwrap().unwrap();
    assert_eq!(delivery.to_message().unwrap(), message);
    server.write(&[deliver(1, "c", 2), frame_head(HEADER, 1, (1 << 20) + 1)].concat()).await;
    server.expect_refusal(501).await;
}

#[tokio::test]
async fn a5_behind_a_wrong_frame_end_nothing_is_interpreted() {
    let mut bytes = method(1, &queue::PurgeOk { message_count: 3 });
    *bytes.last_mut().unwrap() = 0xCD;
    bytes.extend(method(1, &queue::PurgeOk { message_count: 4 }));
    refused(&bytes, 501).await;
}

#[tokio::test]
async fn a6_unknown_frame_types_are_refused() {
    for kind in [0, 4, 9] {
        refused(&frame(kind, 0, &[]), 501).await;
    }
}

#[tokio::test]
async fn a7_frames_that_are_too_short_for_their_type_are_refused() {
    for length in 0..4 {
        refused(&frame(METHOD, 1, &[0, 60, 0][..length.min(3)]), 501).await;
    }
    refused(&frame(HEADER, 1, &[0; 13]), 501).await;
}

#[tokio::test]
async fn a8_a_frame_on_a_channel_that_was_never_opened_is_refused() {
    for channel in [2, 2047, 2048, 65_535] {
        refused(&method(channel, &queue::PurgeOk::default()), 504).await;
    }
    refused(&deliver(2, "c", 1), 504).await;
    refused(&header(2, 1), 504).await;
    refused(&body(2, b"x"), 504).await;
}

#[tokio::test]
async fn a9_late_frames_of_a_closed_channel_are_dropped() {
    let (mut server, connection, channel) = with_channel().await;
    let other = open(&mut server, &connection, 2).await;
    let (closed, ()) = both(channel.close(), async {
        server.receive::<lepus::protocol::channel::Close>(1).await;
        server.send(1, lepus::protocol::channel::CloseOk).await;
    })
    .await;
    closed.unwrap();
    let late = [
        delivery(1, "c", 1, b"late"),
        method(1, &basic::Ack { delivery_tag: 1, multiple: false }),
        header(1, 1),
        body(1, b"x"),
    ];
    server.write(&late.concat()).await;
    nothing_else(&mut server, &other).await;
}

#[tokio::test]
async fn a10_heartbeats_belong_on_channel_0_and_are_empty() {
    refused(&frame(HEARTBEAT, 1, &[]), 505).await;
    refused(&frame(HEARTBEAT, 0, &[0]), 501).await;
}

/// A session with something of everything, and what the client saw of it.
async fn session(dribbles: bool) -> Vec<String> {
    let listener = Listener::bind().await;
    let options = listener.options();
    let (connection, mut server) = both(options.connect(), async {
        let mut server = listener.accept().await;
        if dribbles {
            server.dribble();
        }
        server.handshake(TUNE).await;
        server
    })
    .await;
    let connection = connection.unwrap();
    let channel = open(&mut server, &connection, 1).await;
    let mut consumer = consumer(&mut server, &channel, "c").await;
    let mut seen = Vec::new();
    let mut bytes = frame(HEARTBEAT, 0, &[]);
    bytes.extend(delivery(1, "c", 1, b"one"));
    bytes.extend(delivery(1, "c", 2, b""));
    bytes.extend([deliver(1, "c", 3), header(1, 6), body(1, b"th"), body(1, b"r"), body(1, b"ee!")].concat());
    server.write(&bytes).await;
    for _ in 0..3 {
        let delivery = within("a delivery", consumer.next()).await.unwrap().unwrap();
        seen.push(format!("{delivery:?} {:?} {:?}", delivery.properties(), delivery.body()));
    }
    let exchange = channel.default_exchange();
    let (published, ()) = both(exchange.publish("nowhere", "lost").mandatory(), async {
        let published = server.receive_publish(1).await;
        let back = returned(1, "nowhere", &published.properties, &published.body);
        let ack = method(1, &basic::Ack { delivery_tag: 1, multiple: false });
        server.write(&[back, ack].concat()).await;
    })
    .await;
    seen.push(format!("{published:?}"));
    server
        .send(0, connection::Close { reply_code: 320, reply_text: short("bye"), ..Default::default() })
        .await;
    server.receive::<connection::CloseOk>(0).await;
    // its text names the port, which is another one each time
    seen.push(format!("{:?}", within("the end", connection.closed()).await.reply_text()));
    seen
}

#[tokio::test]
async fn a11_a_whole_session_byte_by_byte_is_the_same_as_in_large_pieces() {
    assert_eq!(session(true).await, session(false).await);
}

#[tokio::test]
async fn a11_a_thousand_frames_in_one_write_all_arrive() {
    let (mut server, _connection, channel) = with_channel().await;
    let queue = channel.queue("q").unwrap();
    let (consumer, _) = both(queue.consume().tag("c").prefetch(400), server.start_consumer(1, "c")).await;
    let mut consumer = consumer.unwrap();
    let bytes: Vec<u8> = (1..=400).flat_map(|n: u64| delivery(1, "c", n, &n.to_be_bytes())).collect();
    server.write(&bytes).await;
    for n in 1..=400_u64 {
        let delivery = within("a delivery", consumer.next()).await.unwrap().unwrap();
        assert_eq!((delivery.delivery_tag(), delivery.body()), (n, &n.to_be_bytes()[..]));
    }
}

/// Ends the connection behind these bytes; everybody who waits must hear of it.
async fn lost_behind(bytes: &[u8]) {
    let (mut server, connection, channel, mut consumer) = with_consumer().await;
    let (queue, exchange) = (channel.queue("q").unwrap(), channel.default_exchange());
    let script = async {
        server.receive_publish(1).await;
        server.receive::<queue::Purge>(1).await;
        server.write(bytes).await;
        server.end().await;
        server.expect_end().await;
    };
    let waiting = async {
        tokio::join!(
            exchange.publish("k", "unconfirmed"),
            queue.purge(),
            consumer.next(),
            channel.closed(),
            connection.closed()
        )
    };
    let ((published, purged, next, channel_closed, closed), ()) = both(waiting, script).await;
    let errors =
        [published.unwrap_err(), purged.unwrap_err(), next.unwrap().unwrap_err(), channel_closed, closed];
    for error in errors {
        assert_eq!(
            (error.kind(), error.origin(), error.scope()),
            (ErrorKind::ConnectionLost, Origin::Network, Scope::Connection)
        );
    }
    assert!(consumer.next().await.is_none());
}

#[tokio::test]
async fn a12_everybody_who_waits_hears_of_a_lost_connection() {
    lost_behind(b"").await;
}

#[tokio::test]
async fn a12_a_connection_lost_in_the_middle_of_a_frame_is_no_different() {
    lost_behind(&frame_head(METHOD, 1, 100)).await;
    lost_behind(&[deliver(1, "c", 1), header(1, 10), body(1, b"half")].concat()).await;
}

/// Answers the protocol header with these bytes: no AMQP server of the right version does.
async fn greeted_with(bytes: &[u8]) -> Error {
    let listener = Listener::bind().await;
    let options = listener.options();
    let (result, ()) = both(options.connect(), async {
        let mut server = listener.accept().await;
        server.greet().await;
        server.write(bytes).await;
        server.expect_end().await;
    })
    .await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAmqp, "{error}");
    error
}

#[tokio::test]
async fn a13_another_version_of_the_protocol_is_named() {
    let error = greeted_with(b"AMQP\x00\x00\x09\x01").await;
    assert!(error.to_string().contains("asks for AMQP 0-9-1, which is what it was sent"), "{error}");
    let error = greeted_with(b"AMQP\x03\x01\x00\x00").await;
    assert!(error.to_string().contains("it asks for AMQP 1.0 with SASL"), "{error}");
    let error = greeted_with(b"AMQP\x07\x01\x02\x03").await;
    assert!(error.to_string().contains("with the header AMQP 7 1 2 3"), "{error}");
}

#[tokio::test]
async fn a14_tls_and_http_are_named() {
    assert!(greeted_with(&[0x15, 3]).await.to_string().contains("TLS"));
    assert!(greeted_with(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.to_string().contains("HTTP"));
}

#[tokio::test]
async fn a15_a_server_that_says_nothing_is_given_up() {
    let listener = Listener::bind().await;
    let options = listener.options().handshake_timeout(std::time::Duration::from_millis(100));
    let (result, ()) = both(options.connect(), async {
        let mut server = listener.accept().await;
        server.greet().await;
        server.expect_end().await;
    })
    .await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::HandshakeTimeout);
}
