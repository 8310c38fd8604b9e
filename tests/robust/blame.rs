//! One message that the server refuses, or never confirms, must not harm the others.

use std::time::Duration;

use lepus::protocol::{basic, channel, confirm, connection};
use lepus::robust::Options;
use lepus::{Channel, Connection, ErrorKind, Message};

use crate::case::test;
use crate::peer::{Listener, Peer, TUNE, both, short, within};

/// A robust connection with a channel, to a server that is played here.
async fn opened() -> (Listener, Peer, Connection, Channel) {
    opened_with(|options| options).await
}

async fn opened_with(options: impl FnOnce(Options) -> Options) -> (Listener, Peer, Connection, Channel) {
    let listener = Listener::bind().await;
    let options = options(listener.options().robust());
    let (connection, mut server) = both(options.connect(), again(&listener)).await;
    let connection = connection.unwrap();
    let channel = both(connection.channel(), server.open_channel(1)).await.0.unwrap();
    (listener, server, connection, channel)
}

async fn again(listener: &Listener) -> Peer {
    let mut server = listener.accept().await;
    server.handshake(TUNE).await;
    server
}

/// The server closes the connection, and blames nothing.
async fn give_up(mut server: Peer) {
    let close =
        connection::Close { reply_code: 541, reply_text: short("INTERNAL_ERROR"), class_id: 0, method_id: 0 };
    server.send(0, close).await;
    server.receive::<connection::CloseOk>(0).await;
}

fn ack(delivery_tag: u64) -> basic::Ack {
    basic::Ack { delivery_tag, multiple: false }
}

/// The next message, by its body.
async fn published(server: &mut Peer) -> Vec<u8> {
    published_on(server, 1).await
}

async fn published_on(server: &mut Peer, number: u16) -> Vec<u8> {
    server.receive_publish(number).await.body
}

#[test]
fn the_message_that_ends_links_fails_and_all_others_arrive() {
    test(async |_| {
        let (listener, mut server, _connection, channel) = opened().await;
        let exchange = channel.default_exchange();
        let mut confirms = Vec::new();
        for body in ["1", "poison", "3"] {
            confirms.push(exchange.enqueue("k", body).await.unwrap());
        }
        for body in ["1", "poison", "3"] {
            assert_eq!(published(&mut server).await, body.as_bytes());
        }
        give_up(server).await;
        // one at a time now: the next message follows a confirm
        let mut server = again(&listener).await;
        server.open_channel(1).await;
        assert_eq!(published(&mut server).await, b"1");
        server.send(1, ack(1)).await;
        assert_eq!(published(&mut server).await, b"poison");
        give_up(server).await;
        // convicted: it is not published a third time
        let mut server = again(&listener).await;
        server.open_channel(1).await;
        assert_eq!(published(&mut server).await, b"3");
        server.send(1, ack(1)).await;
        let outcomes = within("the outcomes", async {
            let mut outcomes = Vec::new();
            for confirm in confirms {
                outcomes.push(confirm.await.map_err(|error| (error.kind(), error.reply_code())));
            }
            outcomes
        });
        let poisoned = Err((ErrorKind::ConnectionClosed, Some(541)));
        assert_eq!(outcomes.await, [Ok(()), poisoned, Ok(())]);
        // and everything goes on
        let after = exchange.publish("k", "4");
        let (after, ()) = both(after, async {
            assert_eq!(published(&mut server).await, b"4");
            server.send(1, ack(2)).await;
        })
        .await;
        after.unwrap();
    });
}

#[test]
fn an_operators_close_makes_nobody_a_suspect() {
    test(async |_| {
        let (listener, mut server, _connection, channel) = opened().await;
        let exchange = channel.default_exchange();
        for body in ["1", "2", "3"] {
            drop(exchange.enqueue("k", body).await.unwrap());
            assert_eq!(published(&mut server).await, body.as_bytes());
        }
        let forced = short("CONNECTION_FORCED - closed by an operator");
        let close = connection::Close { reply_code: 320, reply_text: forced, ..Default::default() };
        server.send(0, close).await;
        server.receive::<connection::CloseOk>(0).await;
        let mut server = again(&listener).await;
        server.open_channel(1).await;
        // all at once, without a confirm in between
        for body in ["1", "2", "3"] {
            assert_eq!(published(&mut server).await, body.as_bytes());
        }
    });
}

/// The server closes a channel because of a publish. Returns the number with which it comes back.
async fn refuse(server: &mut Peer, number: u16, text: &str) -> u16 {
    let close = channel::Close { reply_code: 406, reply_text: short(text), class_id: 60, method_id: 40 };
    server.send(number, close).await;
    server.receive::<channel::CloseOk>(number).await;
    let open = server.next().await.channel;
    assert_ne!(open, 0);
    server.send(open, channel::OpenOk).await;
    server.receive::<confirm::Select>(open).await;
    server.send(open, confirm::SelectOk).await;
    open
}

#[test]
fn a_text_that_names_a_size_fails_only_the_message_of_that_size() {
    test(async |_| {
        let (_listener, mut server, _connection, channel) = opened().await;
        let exchange = channel.default_exchange();
        let small = exchange.enqueue("k", "innocent").await.unwrap();
        let large = exchange.enqueue("k", vec![0; 5_000]).await.unwrap();
        let last = exchange.enqueue("k", "innocent, too").await.unwrap();
        for _ in 0..3 {
            published(&mut server).await;
        }
        let text = "PRECONDITION_FAILED - message size 5000 is larger than configured max size 4096";
        let number = refuse(&mut server, 1, text).await;
        assert_eq!(published_on(&mut server, number).await, b"innocent");
        assert_eq!(published_on(&mut server, number).await, b"innocent, too");
        server.send(number, basic::Ack { delivery_tag: 2, multiple: true }).await;
        let error = within("the refusal", large).await.unwrap_err();
        assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ChannelClosed, Some(406)));
        within("the first", small).await.unwrap();
        within("the last", last).await.unwrap();
    });
}

#[test]
fn a_text_that_names_no_message_convicts_by_trial() {
    test(async |_| {
        let (_listener, mut server, _connection, channel) = opened().await;
        let exchange = channel.default_exchange();
        let good = exchange.enqueue("k", "good").await.unwrap();
        let bad = exchange.enqueue("k", "bad").await.unwrap();
        published(&mut server).await;
        published(&mut server).await;
        let number = refuse(&mut server, 1, "PRECONDITION_FAILED - no").await;
        assert_eq!(published_on(&mut server, number).await, b"good");
        server.send(number, ack(1)).await;
        assert_eq!(published_on(&mut server, number).await, b"bad");
        refuse(&mut server, number, "PRECONDITION_FAILED - no").await;
        assert_eq!(within("the refusal", bad).await.unwrap_err().reply_code(), Some(406));
        within("the other", good).await.unwrap();
    });
}

#[test]
fn a_message_whose_mark_would_not_fit_is_refused_at_once() {
    test(async |_| {
        let (_listener, mut server, _connection, channel) = opened().await;
        let exchange = channel.default_exchange();
        let with_header = |length: usize| Message::new("x").header("h", "x".repeat(length));
        let error = exchange.publish("k", with_header(TUNE.frame_max as usize - 50)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Argument);
        assert!(error.to_string().contains("beside the mark"), "{error}");
        // the longest that is taken leaves room for the mark
        let mut longest = TUNE.frame_max as usize - 50;
        let confirm = loop {
            match exchange.enqueue("k", with_header(longest)).await {
                Ok(confirm) => break confirm,
                Err(_) => longest -= 1,
            }
        };
        drop(confirm);
        server.receive_publish(1).await;
        let number = refuse(&mut server, 1, "PRECONDITION_FAILED - once").await;
        let again = server.receive_publish(number).await;
        let headers = again.properties.headers.unwrap();
        assert!(headers.get("x-lepus-republished").is_some());
    });
}

#[test]
fn a_deadline_that_passes_under_way_is_told_as_unconfirmed_and_nothing_is_published_again() {
    test(async |_| {
        let (listener, mut server, _connection, channel) = opened().await;
        let exchange = channel.default_exchange();
        let limit = Duration::from_millis(30);
        let late = exchange.enqueue("k", "late").deadline(limit).await.unwrap();
        let kept = exchange.enqueue("k", "kept").await.unwrap();
        assert_eq!(published(&mut server).await, b"late");
        assert_eq!(published(&mut server).await, b"kept");
        let error = within("the deadline", late).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unconfirmed);
        drop(server);
        let mut server = again(&listener).await;
        server.open_channel(1).await;
        assert_eq!(published(&mut server).await, b"kept");
        server.send(1, ack(1)).await;
        within("the other", kept).await.unwrap();
    });
}

#[test]
fn a_deadline_that_passes_in_an_outage_is_told_as_not_sent() {
    test(async |_| {
        let (listener, server, connection, channel) = opened().await;
        let exchange = channel.default_exchange();
        let mut events = connection.events();
        drop(server);
        within("the loss", async {
            while !matches!(events.next().await, Some(lepus::robust::Event::Lost { .. })) {}
        })
        .await;
        let error = exchange.publish("k", "late").deadline(Duration::from_millis(30)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotSent);
        let mut server = again(&listener).await;
        server.open_channel(1).await;
        let (after, ()) = both(exchange.publish("k", "after"), async {
            assert_eq!(published(&mut server).await, b"after");
            server.send(1, ack(1)).await;
        })
        .await;
        after.unwrap();
    });
}

#[test]
fn a_message_that_is_never_confirmed_does_not_use_up_the_limit_of_the_others() {
    test(async |_| {
        let limit = 20_000;
        let (_listener, mut server, _connection, channel) =
            opened_with(|options| options.unconfirmed_limit(limit)).await;
        let exchange = channel.default_exchange();
        let _stuck = exchange.enqueue("k", "stuck").await.unwrap();
        assert_eq!(published(&mut server).await, b"stuck");
        // five times the limit, each confirmed before the next
        for number in 2..=50 {
            let (confirmed, ()) = both(exchange.publish("k", vec![0; 2_000]), async {
                published(&mut server).await;
                server.send(1, ack(number)).await;
            })
            .await;
            confirmed.unwrap();
        }
    });
}
