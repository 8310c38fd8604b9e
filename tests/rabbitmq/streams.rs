//! Streams: logs that are read from any place.

use lepus::robust::Event;
use lepus::{Channel, ConnectOptions, ErrorKind, FieldValue, Queue, StreamOffset, Timestamp};

use crate::broker::url;
use crate::case::{Case, test};
use crate::relay::Relay;
use crate::tools::{bodies, fill, next, numbers, take};

async fn stream(t: &Case, channel: &Channel) -> Queue {
    let queue = channel.declare_queue(t.name()).stream().await.unwrap();
    fill(&queue, channel, numbers(0, 99)).await;
    queue
}

#[test]
#[ignore = "needs RabbitMQ"]
fn a_stream_is_read_from_any_place_again_and_again() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = stream(t, &channel).await;
        let places = [
            (StreamOffset::First, 0),
            (StreamOffset::First, 0),
            (StreamOffset::Offset(40), 40),
            (StreamOffset::At(Timestamp(0)), 0),
        ];
        for (offset, first) in places {
            let mut consumer = queue.consume().prefetch(200).stream_offset(offset).await.unwrap();
            for number in numbers(first, 99) {
                let delivery = next(&mut consumer).await;
                assert_eq!(delivery.body(), number.as_bytes());
                let headers = delivery.properties().unwrap().headers.unwrap();
                let offset = number.parse::<i64>().unwrap();
                assert_eq!(headers.get("x-stream-offset"), Some(&FieldValue::I64(offset)));
                delivery.ack().unwrap();
            }
            consumer.cancel().await.unwrap();
        }
    });
}

#[test]
#[ignore = "needs RabbitMQ"]
fn acks_are_credit_for_more() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = stream(t, &channel).await;
        let mut consumer = queue.consume().prefetch(10).stream_offset(StreamOffset::First).await.unwrap();
        let held = take(&mut consumer, 10).await;
        assert_eq!(bodies(&held), numbers(0, 9).collect::<Vec<_>>());
        for delivery in held {
            delivery.ack().unwrap();
        }
        for number in numbers(10, 99) {
            let delivery = next(&mut consumer).await;
            assert_eq!(delivery.body(), number.as_bytes());
            delivery.ack().unwrap();
        }
    });
}

#[test]
#[ignore = "needs RabbitMQ"]
fn unless_told_a_consumer_reads_what_is_new() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = stream(t, &channel).await;
        let mut consumer = queue.consume().prefetch(10).stream_offset(StreamOffset::Next).await.unwrap();
        fill(&queue, &channel, ["new".into()]).await;
        assert_eq!(next(&mut consumer).await.body(), b"new");
    });
}

#[test]
#[ignore = "needs RabbitMQ"]
fn a_stream_refuses_what_only_queues_can() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = stream(t, &channel).await;
        let error = queue.get().await.unwrap_err();
        assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ConnectionClosed, Some(540)));
        assert!(!connection.is_open());
    });
}

#[test]
#[ignore = "needs RabbitMQ"]
fn a_robust_consumer_goes_on_behind_what_it_has_handed_out() {
    test(async |t| {
        let others = t.channel().await;
        // where it is told to begin, and where it begins
        let places = [
            (Some(StreamOffset::First), 0),
            (Some(StreamOffset::Offset(40)), 40),
            (Some(StreamOffset::Next), 100),
            (None, 100),
        ];
        for (told, first) in places {
            let queue = stream(t, &others).await;
            let relay = Relay::to_broker(url()).await.unwrap();
            let options = ConnectOptions::new(&relay.url(url())).unwrap().robust();
            let connection = options.connect().await.unwrap();
            let mut events = connection.events();
            let channel = connection.channel().await.unwrap();
            let robust = channel.queue(queue.name()).unwrap();
            let consume = robust.consume().prefetch(30);
            let consume = match told {
                Some(offset) => consume.stream_offset(offset),
                None => consume,
            };
            let mut consumer = consume.await.unwrap();
            fill(&queue, &others, numbers(100, 119)).await;
            for number in numbers(first, first + 9) {
                let delivery = next(&mut consumer).await;
                assert_eq!(delivery.body(), number.as_bytes());
                delivery.ack().unwrap();
            }
            relay.cut();
            // while it is away
            fill(&queue, &others, numbers(120, 129)).await;
            while !matches!(events.next().await.unwrap(), Event::Restored { .. }) {}
            for number in numbers(first + 10, 129) {
                let delivery = next(&mut consumer).await;
                assert_eq!(delivery.body(), number.as_bytes(), "from {first}");
                delivery.ack().unwrap();
            }
            consumer.pause().await.unwrap();
            consumer.resume().await.unwrap();
            fill(&queue, &others, ["last".into()]).await;
            assert_eq!(next(&mut consumer).await.body(), b"last");
        }
    });
}

#[test]
#[ignore = "needs RabbitMQ"]
fn a_plain_consumer_goes_on_where_it_was_paused() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = stream(t, &channel).await;
        let mut consumer = queue.consume().prefetch(20).stream_offset(StreamOffset::First).await.unwrap();
        for number in numbers(0, 49) {
            let delivery = next(&mut consumer).await;
            assert_eq!(delivery.body(), number.as_bytes());
            delivery.ack().unwrap();
        }
        consumer.pause().await.unwrap();
        consumer.resume().await.unwrap();
        assert_eq!(next(&mut consumer).await.body(), b"50");
    });
}

#[test]
#[ignore = "needs RabbitMQ"]
fn a_stream_that_is_declared_anew_is_read_from_where_the_consumer_was_told() {
    test(async |t| {
        let others = t.channel().await;
        let queue = stream(t, &others).await;
        let connection = ConnectOptions::new(url()).unwrap().robust().connect().await.unwrap();
        let mut events = connection.events();
        let channel = connection.channel().await.unwrap();
        let robust = channel.queue(queue.name()).unwrap();
        let mut consumer = robust.consume().stream_offset(StreamOffset::First).await.unwrap();
        assert_eq!(next(&mut consumer).await.body(), b"0");
        queue.delete().await.unwrap();
        let consuming = tokio::spawn(async move {
            loop {
                let delivery = next(&mut consumer).await;
                if delivery.body() == b"new" {
                    return;
                }
            }
        });
        while !matches!(events.next().await.unwrap(), Event::ConsumerCancelled { .. }) {}
        // asked for in vain at least once
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let queue = others.declare_queue(queue.name()).stream().await.unwrap();
        fill(&queue, &others, ["new".into()]).await;
        consuming.await.unwrap();
    });
}
