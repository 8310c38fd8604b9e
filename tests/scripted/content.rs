//! C. What is wrong with contents.

use std::time::Duration;

use lepus::protocol::{basic, channel, connection, queue};
use lepus::{ErrorKind, Properties, ShortStr};

use crate::framing::refused;
use crate::peer::*;

#[tokio::test]
async fn c1_a_content_does_not_begin_with_its_header_or_body() {
    refused(&header(1, 3), 505).await;
    refused(&body(1, b"abc"), 505).await;
    refused(&[deliver(1, "c", 1), body(1, b"abc")].concat(), 505).await;
}

#[tokio::test]
async fn c2_a_method_in_the_middle_of_a_content_is_refused() {
    let answer = method(1, &queue::PurgeOk { message_count: 3 });
    refused(&[deliver(1, "c", 1), answer.clone()].concat(), 505).await;
    refused(&[deliver(1, "c", 1), header(1, 3), answer].concat(), 505).await;
    refused(&[deliver(1, "c", 1), deliver(1, "c", 2)].concat(), 505).await;
}

#[tokio::test]
async fn c2_c3_a_channel_may_be_closed_in_the_middle_of_a_content() {
    for begun in [deliver(1, "c", 1), [deliver(1, "c", 1), header(1, 10), body(1, b"half")].concat()] {
        let (mut server, connection, channel, mut consumer) = with_consumer().await;
        let close = channel::Close { reply_code: 406, reply_text: short("no"), ..Default::default() };
        server.write(&[begun, method(1, &close)].concat()).await;
        server.expect(1, channel::CloseOk).await;
        let error = within("the end of the stream", consumer.next()).await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ChannelClosed, Some(406)));
        assert!(consumer.next().await.is_none());
        assert!(!channel.is_open());
        let other = open(&mut server, &connection, 2).await;
        nothing_else(&mut server, &other).await;
    }
}

#[tokio::test]
async fn c3_the_connection_may_be_closed_in_the_middle_of_a_content() {
    let (mut server, _connection, _channel, mut consumer) = with_consumer().await;
    let close = connection::Close { reply_code: 320, ..Default::default() };
    server.write(&[deliver(1, "c", 1), header(1, 10), body(1, b"half"), method(0, &close)].concat()).await;
    server.expect(0, connection::CloseOk).await;
    server.expect_end().await;
    let error = within("the end of the stream", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ConnectionClosed, Some(320)));
}

#[tokio::test]
async fn c4_a_header_of_another_class_is_refused_and_the_weight_is_ignored() {
    refused(&[deliver(1, "c", 1), raw_header(1, 50, 0, 0, &[0, 0])].concat(), 505).await;
    let (mut server, _connection, _channel, mut consumer) = with_consumer().await;
    server.write(&[deliver(1, "c", 1), raw_header(1, 60, 7, 1, &[0, 0]), body(1, b"x")].concat()).await;
    assert_eq!(within("a delivery", consumer.next()).await.unwrap().unwrap().body(), b"x");
}

#[tokio::test]
async fn c5_an_enormous_returned_body_is_refused_when_it_is_announced() {
    let returned = method(1, &basic::Return { reply_code: 312, ..basic::Return::default() });
    let error = refused(&[returned, header(1, 1 << 63)].concat(), 501).await;
    assert!(error.to_string().contains("9223372036854775808"), "{error}");
}

async fn peer_consumer(server: &mut Peer, channel: &lepus::Channel) -> lepus::Consumer {
    consumer(server, channel, "c").await
}

#[tokio::test]
async fn c5_the_limit_on_bodies_is_the_users() {
    let (mut server, connection) = connected_with(TUNE, |options| options.message_limit(10)).await;
    let channel = open(&mut server, &connection, 1).await;
    let mut consumer = peer_consumer(&mut server, &channel).await;
    server.write(&delivery(1, "c", 1, &[1; 10])).await;
    assert_eq!(within("a delivery", consumer.next()).await.unwrap().unwrap().body().len(), 10);
    let other = open(&mut server, &connection, 2).await;
    let mut innocent = peer_consumer(&mut server, &other).await;
    server.write(&[deliver(1, "c", 2), header(1, 11), body(1, &[1; 6])].concat()).await;
    server.write(&delivery(2, "c", 1, b"x")).await;
    server.write(&[body(1, &[1; 5]), delivery(1, "c", 3, b"y")].concat()).await;
    assert_eq!(within("a delivery", innocent.next()).await.unwrap().unwrap().body(), b"x");
    let error = within("an error", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MessageTooLarge);
    for part in ["11 bytes", "10 bytes", "\"c\"", "\"q\""] {
        assert!(error.to_string().contains(part), "{error}");
    }
    server.expect(1, basic::Reject { delivery_tag: 2, requeue: false }).await;
    assert_eq!(within("a delivery", consumer.next()).await.unwrap().unwrap().body(), b"y");
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn c5_a_body_that_does_not_come_stops_no_heartbeats() {
    let tune = connection::Tune { heartbeat: 1, ..TUNE };
    let (mut server, connection) = connected_with(tune, |options| options.message_limit(1 << 40)).await;
    let channel = open(&mut server, &connection, 1).await;
    let _consumer = consumer(&mut server, &channel, "c").await;
    server.write(&[deliver(1, "c", 1), header(1, 1 << 40)].concat()).await;
    for _ in 0..2 {
        assert_eq!(server.frame().await.unwrap().kind, HEARTBEAT);
    }
}

#[tokio::test]
async fn c6_a_body_is_not_longer_than_announced() {
    refused(&[deliver(1, "c", 1), header(1, 10), body(1, &[1; 11])].concat(), 501).await;
    refused(&[deliver(1, "c", 1), header(1, 10), body(1, &[1; 6]), body(1, &[1; 5])].concat(), 501).await;
}

#[tokio::test]
async fn c7_an_empty_body_is_complete_with_its_header() {
    let (mut server, _connection, _channel, mut consumer) = with_consumer().await;
    server.write(&[deliver(1, "c", 1), header(1, 0)].concat()).await;
    assert!(within("a delivery", consumer.next()).await.unwrap().unwrap().body().is_empty());
}

#[tokio::test]
async fn c8_a_body_in_pieces_is_put_together_and_empty_pieces_do_not_complete_it() {
    let (mut server, _connection, channel, mut consumer) = with_consumer().await;
    let mut bytes = [deliver(1, "c", 1), header(1, 8), body(1, b"abc"), body(1, b"defg")].concat();
    for _ in 0..1000 {
        bytes.extend(body(1, b""));
    }
    server.write(&bytes).await;
    let waiting = tokio::time::timeout(Duration::from_millis(50), consumer.next()).await;
    assert!(waiting.is_err(), "nothing is complete yet");
    server.write(&body(1, b"h")).await;
    assert_eq!(within("a delivery", consumer.next()).await.unwrap().unwrap().body(), b"abcdefgh");
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn c9_contents_of_two_channels_may_come_frame_by_frame() {
    let (mut server, connection, _first, mut one) = with_consumer().await;
    let second = open(&mut server, &connection, 2).await;
    let mut two = consumer(&mut server, &second, "c").await;
    let heartbeat = frame(HEARTBEAT, 0, &[]);
    let bytes = [
        deliver(1, "c", 1),
        deliver(2, "c", 1),
        header(2, 4),
        heartbeat.clone(),
        header(1, 4),
        body(1, b"on"),
        body(2, b"tw"),
        heartbeat,
        body(2, b"o!"),
        body(1, b"e!"),
    ];
    server.write(&bytes.concat()).await;
    assert_eq!(within("a delivery", one.next()).await.unwrap().unwrap().body(), b"one!");
    assert_eq!(within("a delivery", two.next()).await.unwrap().unwrap().body(), b"two!");
}

#[tokio::test]
async fn c10_return_get_ok_and_deliver_on_one_channel_each_find_their_place() {
    let (mut server, _connection, channel, mut consumer) = with_consumer().await;
    let mut returns = channel.returns();
    let queue = channel.queue("q").unwrap();
    let (got, ()) = both(queue.get(), async {
        server.receive::<basic::Get>(1).await;
        let get_ok = basic::GetOk { delivery_tag: 2, message_count: 5, ..Default::default() };
        let bytes = [
            returned(1, "nowhere", &Properties::default(), b"returned"),
            delivery(1, "c", 1, b"delivered"),
            method(1, &get_ok),
            content(1, b"got"),
        ];
        server.write(&bytes.concat()).await;
    })
    .await;
    let got = got.unwrap().unwrap();
    assert_eq!((got.body(), got.message_count()), (&b"got"[..], 5));
    assert_eq!(within("a return", returns.next()).await.unwrap().body(), "returned");
    assert_eq!(within("a delivery", consumer.next()).await.unwrap().unwrap().body(), b"delivered");
}

#[tokio::test]
async fn c10_a_get_ok_without_a_get_is_refused() {
    refused(&[method(1, &basic::GetOk::default()), content(1, b"got")].concat(), 505).await;
}

#[tokio::test]
async fn c11_a_delivery_for_an_unknown_consumer_is_given_back() {
    let (mut server, _connection, channel, mut consumer) = with_consumer().await;
    server.write(&[delivery(1, "stranger", 1, b"?"), delivery(1, "c", 2, b"mine")].concat()).await;
    assert_eq!(within("a delivery", consumer.next()).await.unwrap().unwrap().body(), b"mine");
    server.expect(1, basic::Nack { delivery_tag: 1, multiple: false, requeue: true }).await;
    nothing_else(&mut server, &channel).await;
}

/// To reject what needs no ack would close the channel.
#[tokio::test]
async fn c11_a_delivery_for_an_unknown_consumer_is_left_alone_where_it_may_need_no_ack() {
    let (mut server, _connection, channel) = with_channel().await;
    let mut consumer = consumer_without_acks(&mut server, &channel, "c").await;
    server.write(&[delivery(1, "stranger", 1, b"?"), delivery(1, "c", 2, b"mine")].concat()).await;
    assert_eq!(within("a delivery", consumer.next()).await.unwrap().unwrap().body(), b"mine");
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn what_a_client_publishes_is_refused_from_a_server() {
    let publish = basic::Publish { routing_key: ShortStr::empty(), ..Default::default() };
    refused(&[method(1, &publish), content(1, b"x")].concat(), 503).await;
}

#[tokio::test]
async fn properties_that_are_cut_short_are_refused_though_nobody_reads_them() {
    // content type and delivery mode are announced, in full and half
    for (properties, whole) in
        [(&b"\x90\x00\x01a\x02"[..], true), (b"\x90\x00\x01a", false), (b"\x90\x00\x05a\x02", false)]
    {
        let (mut server, _connection, channel, mut consumer) = with_consumer().await;
        let header = raw_header(1, 60, 0, 1, properties);
        server.write(&[deliver(1, "c", 1), header, body(1, b"m")].concat()).await;
        if whole {
            assert_eq!(within("a delivery", consumer.next()).await.unwrap().unwrap().body(), b"m");
            nothing_else(&mut server, &channel).await;
        } else {
            server.expect_refusal(501).await;
        }
    }
}
