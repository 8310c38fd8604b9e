//! Streams: logs that are read from any place.

use lepus::{Channel, ErrorKind, FieldValue, Queue, StreamOffset, Timestamp};

use crate::case::{Case, test};
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
