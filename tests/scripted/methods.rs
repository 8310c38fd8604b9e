//! B. What is wrong with methods, tables and strings.

use bytes::Bytes;
use lepus::protocol::{basic, channel, connection, queue};
use lepus::{ErrorKind, ShortStr};

use crate::framing::refused;
use crate::peer::*;

#[tokio::test]
async fn b1_unknown_methods_are_refused() {
    for payload in [[0, 60, 0, 99], [0, 99, 0, 10]] {
        refused(&frame(METHOD, 1, &payload), 503).await;
        refused(&frame(METHOD, 0, &payload), 503).await;
    }
}

#[tokio::test]
async fn b2_a_method_that_is_cut_short_is_refused() {
    let whole = method(1, &queue::DeclareOk { queue: short("name"), message_count: 0, consumer_count: 0 });
    // class and method, the length of the name, two of its four bytes
    refused(&frame(METHOD, 1, &whole[7..7 + 4 + 1 + 2]), 502).await;
}

#[tokio::test]
async fn b6_a_header_of_an_unknown_type_does_not_keep_the_body_back() {
    let (mut server, _connection, channel, mut consumer) = with_consumer().await;
    for tag in *b"Uq" {
        // flags: headers only; a table of seven bytes with one value of that type
        let properties = [&[0x20, 0, 0, 0, 0, 7, 1, b'a'][..], &[tag, 0, 0, 0, 1][..]].concat();
        let bytes = [deliver(1, "c", 1), raw_header(1, 60, 0, 4, &properties), body(1, b"body")];
        server.write(&bytes.concat()).await;
        let delivery = within("a delivery", consumer.next()).await.unwrap().unwrap();
        assert_eq!(delivery.body(), b"body");
        assert_eq!(delivery.properties().unwrap_err().kind(), ErrorKind::Undecodable);
    }
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn b12_a_routing_key_need_not_be_text() {
    let (mut server, _connection, _channel, mut consumer) = with_consumer().await;
    let odd = ShortStr::try_from(&[0xFF, 0xFE][..]).unwrap();
    let deliver = basic::Deliver {
        consumer_tag: short("c"),
        delivery_tag: 1,
        exchange: odd.clone(),
        routing_key: odd,
        ..Default::default()
    };
    server.write(&[method(1, &deliver), content(1, b"body")].concat()).await;
    let delivery = within("a delivery", consumer.next()).await.unwrap().unwrap();
    assert_eq!(delivery.routing_key_bytes(), [0xFF, 0xFE]);
    assert_eq!(delivery.exchange_bytes(), [0xFF, 0xFE]);
    assert_eq!(delivery.routing_key(), "\u{FFFD}\u{FFFD}");
}

#[tokio::test]
async fn b13_texts_of_the_server_need_not_be_text() {
    let odd = ShortStr::try_from(&[b'q', 0xFF][..]).unwrap();
    let (mut server, connection, channel) = with_channel().await;
    let (declared, ()) = both(channel.declare_queue(""), async {
        server.receive::<queue::Declare>(1).await;
        server.send(1, queue::DeclareOk { queue: odd.clone(), message_count: 1, consumer_count: 2 }).await;
    })
    .await;
    assert_eq!(declared.unwrap().name().as_bytes(), [b'q', 0xFF]);
    let close = channel::Close { reply_code: 406, reply_text: odd.clone(), ..Default::default() };
    server.send(1, close).await;
    let error = within("the channel to end", channel.closed()).await;
    assert_eq!((error.reply_code(), error.reply_text()), (Some(406), Some("q\u{FFFD}")));
    server.receive::<channel::CloseOk>(1).await;
    server.send(0, connection::Close { reply_code: 320, reply_text: odd, ..Default::default() }).await;
    let error = within("the connection to end", connection.closed()).await;
    assert_eq!(error.reply_text(), Some("q\u{FFFD}"));
}

#[tokio::test]
async fn b18_bytes_behind_the_properties_are_ignored() {
    let (mut server, _connection, _channel, mut consumer) = with_consumer().await;
    let properties = [0x10, 0, 2, 9, 9, 9];
    server.write(&[deliver(1, "c", 1), raw_header(1, 60, 0, 1, &properties), body(1, b"x")].concat()).await;
    let delivery = within("a delivery", consumer.next()).await.unwrap().unwrap();
    assert_eq!(delivery.properties().unwrap().delivery_mode, Some(2));
}

#[tokio::test]
async fn b19_methods_of_the_connection_are_not_obeyed_on_a_channel() {
    refused(&method(1, &connection::Close { reply_code: 320, ..Default::default() }), 503).await;
    refused(&method(1, &connection::CloseOk), 503).await;
    refused(&method(1, &connection::Blocked { reason: short("memory") }), 503).await;
}

#[tokio::test]
async fn b19_methods_of_a_channel_are_not_obeyed_on_channel_0() {
    refused(&method(0, &channel::Close { reply_code: 404, ..Default::default() }), 503).await;
    refused(&method(0, &queue::PurgeOk { message_count: 3 }), 503).await;
    refused(&deliver(0, "c", 1), 503).await;
}

#[tokio::test]
async fn b20_the_handshake_does_not_happen_twice() {
    refused(&method(0, &start("PLAIN")), 503).await;
    refused(&method(0, &TUNE), 503).await;
    refused(&method(0, &connection::OpenOk), 503).await;
    refused(&method(0, &connection::Secure { challenge: Bytes::from_static(b"?") }), 503).await;
}

#[tokio::test]
async fn b20_an_answer_that_nobody_asked_for_is_refused() {
    refused(&method(1, &queue::DeclareOk::default()), 503).await;
    refused(&method(1, &channel::OpenOk), 503).await;
    refused(&method(0, &connection::UpdateSecretOk), 503).await;
    refused(&method(0, &connection::CloseOk), 503).await;
    // what only a client sends
    refused(&method(1, &queue::Purge::default()), 503).await;
}
