//! Connections and channels end in every order.

use std::time::Duration;

use lepus::{ErrorKind, Origin, Scope, protocol::basic};

use crate::case::test;
use crate::tools::{fill, is_missing, next, now, numbers, take, until};

#[test]
fn closing_a_connection_ends_all_that_uses_it() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        let mut consumer = queue.consume().await.unwrap();
        let mut returns = channel.returns();
        connection.close().await.unwrap();
        assert!(!connection.is_open() && !channel.is_open());
        assert!(consumer.next().await.is_none());
        assert!(returns.next().await.is_none());
        for error in [
            connection.closed().await,
            channel.closed().await,
            connection.channel().await.unwrap_err(),
            channel.declare_queue("").await.unwrap_err(),
            channel.default_exchange().publish("x", "x").await.unwrap_err(),
            channel.wait_for_confirms().await.unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.scope()), (ErrorKind::Closed, Scope::Connection), "{error}");
            assert_eq!(error.origin(), Origin::User);
        }
        // again, and the other way round
        connection.close().await.unwrap();
        channel.close().await.unwrap();
        consumer.cancel().await.unwrap_err();
        drop(consumer);
    });
}

#[test]
fn a_call_under_way_learns_of_the_close() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..10 {
            let mut call = Box::pin(channel.declare_queue("").into_future());
            if now(&mut call).await.is_none() {
                waiting.push(call);
            }
        }
        connection.close().await.unwrap();
        // those whose turn had come may have been answered before
        for call in waiting {
            if let Err(error) = call.await {
                assert_eq!(error.kind(), ErrorKind::Closed);
            }
        }
    });
}

#[test]
fn whoever_waits_for_the_end_learns_of_it() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let ends = tokio::spawn({
            let (connection, channel) = (connection.clone(), channel.clone());
            async move { tokio::join!(connection.closed(), channel.closed()) }
        });
        connection.close().await.unwrap();
        let (connection, channel) = ends.await.unwrap();
        assert_eq!((connection.kind(), channel.kind()), (ErrorKind::Closed, ErrorKind::Closed));
    });
}

#[test]
fn a_dropped_connection_goes_when_nothing_uses_it() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        drop(connection);
        let queue = channel.declare_queue(t.name()).exclusive().await.unwrap();
        drop(channel);
        let name = queue.name().clone();
        // the queue's handle is enough to use it
        assert_eq!(queue.purge().await.unwrap(), 0);
        drop(queue);
        // exclusive: it goes with its connection
        let other = t.connect().await;
        loop {
            let channel = other.channel().await.unwrap();
            if is_missing(channel.declare_queue(&name).passive().await) {
                break;
            }
        }
    });
}

#[test]
fn what_was_published_before_the_drop_arrives() {
    test(async |t| {
        let other = t.channel().await;
        let queue = t.shared_queue(&other).await;
        let connection = t.connect().await;
        let channel = connection.channel().without_confirms().await.unwrap();
        for number in numbers(1, 2000) {
            channel.default_exchange().publish(queue.name(), number).await.unwrap();
        }
        drop((channel, connection));
        let mut consumer = queue.consume().await.unwrap();
        assert_eq!(take(&mut consumer, 200).await.len(), 200);
        consumer.cancel().await.unwrap();
        until(&t.connect().await, &queue, |ready, _| ready >= 1700).await;
    });
}

#[test]
fn a_delivery_keeps_its_channel_open() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = t.shared_queue(&channel).await;
        fill(&queue, &channel, ["x".into()]).await;
        let mut consumer = channel.queue(queue.name()).unwrap().consume().await.unwrap();
        let delivery = next(&mut consumer).await;
        let name = queue.name().clone();
        drop((consumer, queue, channel));
        let channel = connection.channel().await.unwrap();
        let queue = channel.queue(name).unwrap();
        until(&connection, &queue, |_, consumers| consumers == 0).await;
        delivery.ack().unwrap();
        // with the delivery the channel went: had the ack failed, the message would be back
        connection.close().await.unwrap();
        let other = t.connect().await;
        until(&other, &other.channel().await.unwrap().queue(queue.name()).unwrap(), |ready, _| ready == 0)
            .await;
    });
}

#[test]
fn a_dropped_channel_gives_back_what_was_out() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = t.shared_queue(&channel).await;
        fill(&queue, &channel, numbers(1, 5)).await;
        let other = connection.channel().await.unwrap();
        let mut consumer = other.queue(queue.name()).unwrap().consume().await.unwrap();
        let deliveries = take(&mut consumer, 5).await;
        drop((other, consumer, deliveries));
        until(&connection, &queue, |ready, consumers| (ready, consumers) == (5, 0)).await;
    });
}

#[test]
fn closing_a_channel_leaves_the_others_alone() {
    test(async |t| {
        let connection = t.connect().await;
        let (one, other) = (connection.channel().await.unwrap(), connection.channel().await.unwrap());
        let queue = other.declare_queue("").await.unwrap();
        let mut consumer = queue.consume().await.unwrap();
        let mut ended = one.queue(queue.name()).unwrap().consume().await.unwrap();
        one.close().await.unwrap();
        assert!(ended.next().await.is_none());
        fill(&queue, &other, numbers(1, 3)).await;
        assert_eq!(take(&mut consumer, 3).await.len(), 3);
    });
}

#[test]
fn channels_close_while_messages_pour_in() {
    test(async |t| {
        let sender = t.channel().await;
        let queue = t.shared_queue(&sender).await;
        fill(&queue, &sender, numbers(1, 2000)).await;
        let connection = t.connect().await;
        for _ in 0..10 {
            let channel = connection.channel().await.unwrap();
            let mut consumer = channel.queue(queue.name()).unwrap().consume().prefetch(0).await.unwrap();
            next(&mut consumer).await.nack(true).unwrap();
            channel.close().await.unwrap();
        }
        until(&connection, &queue, |ready, consumers| (ready, consumers) == (2000, 0)).await;
    });
}

#[test]
fn an_error_of_the_connection_ends_everything_with_code_and_text() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let other = connection.channel().await.unwrap();
        let mut consumer = other.declare_queue("").await.unwrap().consume().await.unwrap();
        // RabbitMQ does not implement a limit in bytes
        let qos = basic::Qos { prefetch_size: 1, ..basic::Qos::default() };
        let error = channel.call(qos).await.unwrap_err();
        let of_consumer = consumer.next().await.unwrap().unwrap_err();
        assert!(consumer.next().await.is_none());
        for error in
            [error, of_consumer, connection.closed().await, other.declare_queue("").await.unwrap_err()]
        {
            assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ConnectionClosed, Some(540)));
            assert_eq!((error.origin(), error.scope()), (Origin::Peer, Scope::Connection));
            assert!(error.to_string().contains("NOT_IMPLEMENTED"), "{error}");
        }
        // nothing left to close
        connection.close().await.unwrap();
    });
}

#[test]
fn closing_is_quick_with_a_backlog() {
    test(async |t| {
        let sender = t.channel().await;
        let queue = t.shared_queue(&sender).await;
        fill(&queue, &sender, (0..100).map(|_| "x".repeat(100_000))).await;
        // reading pauses with what nobody takes
        let options = lepus::ConnectOptions::new(crate::broker::url()).unwrap();
        let connection =
            options.incoming_limit(1000).close_timeout(Duration::from_secs(60)).connect().await.unwrap();
        let channel = connection.channel().await.unwrap();
        let _idle = channel.queue(queue.name()).unwrap().consume().no_ack().await.unwrap();
        connection.close().await.unwrap();
    });
}
