//! Channels that the server closes.

use lepus::robust::Event;
use lepus::{ErrorKind, ExchangeKind};

use crate::case::test;
use crate::through::{Through, soon};

#[test]
fn a_closed_channel_is_opened_again_and_the_error_reaches_its_cause() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let mut deliveries = queue.consume().await.unwrap();
        let error = channel.declare_queue(t.name()).passive().await.unwrap_err();
        assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ChannelClosed, Some(404)));
        robust.event(|event| matches!(event, Event::ChannelRestored { .. }).then_some(())).await;
        channel.default_exchange().publish(queue.name(), "1").await.unwrap();
        soon(deliveries.next()).await.unwrap().unwrap().ack().unwrap();
        assert!(channel.is_open());
        assert_eq!(robust.connection.counters().reconnects, 0);
    });
}

#[test]
fn a_message_to_an_exchange_that_is_missing_fails_alone() {
    test(async |t| {
        let robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let missing = channel.exchange(t.name()).unwrap();
        let mut good = Vec::new();
        let mut bad = Vec::new();
        for number in 0..20 {
            good.push(channel.default_exchange().enqueue(queue.name(), format!("{number}")).await.unwrap());
            bad.push(missing.enqueue("", "").await.unwrap());
        }
        for confirm in good {
            soon(confirm).await.unwrap();
        }
        for confirm in bad {
            assert_eq!(soon(confirm).await.unwrap_err().reply_code(), Some(404));
        }
        let mut delivered = Vec::new();
        let mut deliveries = queue.consume().await.unwrap();
        while delivered.last() != Some(&19) {
            let delivery = soon(deliveries.next()).await.unwrap().unwrap();
            let number: u32 = delivery.body_str().unwrap().parse().unwrap();
            if !delivered.contains(&number) {
                delivered.push(number);
            }
            delivery.ack().unwrap();
        }
        assert_eq!(delivered, (0..20).collect::<Vec<_>>());
    });
}

#[test]
fn a_binding_outlives_the_channel_that_made_it() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let other = robust.connection.channel().await.unwrap();
        let exchange = other.declare_exchange(t.name(), ExchangeKind::Fanout).await.unwrap();
        let queue = channel.declare_queue(t.name()).exclusive().await.unwrap();
        let made = other.queue(queue.name()).unwrap();
        made.bind(&exchange, "").await.unwrap();
        other.close().await.unwrap();
        robust.cut().await;
        let exchange = channel.exchange(exchange.name()).unwrap();
        exchange.publish("", "1").await.unwrap();
        assert_eq!(queue.get().await.unwrap().unwrap().body_str(), Some("1"));
        assert_eq!(other.declare_queue(t.name()).await.unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn dropped_handles_close_the_channel_and_the_connection() {
    test(async |t| {
        let robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).exclusive().await.unwrap();
        let name = queue.name().clone();
        drop((queue, channel));
        let relay = robust.relay;
        let mut events = robust.events;
        drop(robust.connection);
        while soon(events.next()).await.is_some() {}
        soon(relay.until(|counts| counts.ended == 1)).await.unwrap();
        let plain = t.connect().await;
        let asked = plain.channel().await.unwrap().declare_queue(name).passive().await;
        assert_eq!(asked.unwrap_err().reply_code(), Some(404));
    });
}

#[test]
fn transactions_are_refused() {
    test(async |_| {
        let robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let error = channel.call(lepus::protocol::tx::Select).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    });
}
