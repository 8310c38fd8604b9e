//! Consumers as streams.

use std::pin::Pin;

use futures_core::Stream;
use lepus::{ErrorKind, Message, Scope};

use crate::case::test;
use crate::tools::{bodies, closed_the_channel, fill, next, now, numbers, take, text, until};

#[test]
fn deliveries_come_in_order_with_all_that_belongs_to_them() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        queue.bind(&channel.exchange("amq.topic").unwrap(), "a.*").await.unwrap();
        let mut consumer = queue.consume().tag("mine").await.unwrap();
        assert_eq!(*consumer.tag(), *"mine");
        let message = Message::new("body").content_type("text/plain").header("n", 1);
        channel.exchange("amq.topic").unwrap().publish("a.b", message.clone()).await.unwrap();
        let delivery = next(&mut consumer).await;
        assert_eq!((delivery.exchange(), delivery.routing_key()), ("amq.topic".into(), "a.b".into()));
        assert_eq!((delivery.consumer_tag(), delivery.delivery_tag()), ("mine".into(), 1));
        assert!(!delivery.redelivered());
        assert_eq!(delivery.to_message().unwrap(), message);
        delivery.ack().unwrap();
        fill(&queue, &channel, numbers(1, 100)).await;
        assert_eq!(bodies(&take(&mut consumer, 100).await), numbers(1, 100).collect::<Vec<_>>());
    });
}

#[test]
fn a_consumer_is_a_stream() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        let mut consumer = queue.consume().await.unwrap();
        fill(&queue, &channel, numbers(1, 1)).await;
        let first = std::future::poll_fn(|context| Pin::new(&mut consumer).poll_next(context)).await;
        assert_eq!(text(&first.unwrap().unwrap()), "1");
    });
}

#[test]
fn after_a_cancel_what_came_can_be_taken_and_then_the_stream_ends() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        fill(&queue, &channel, numbers(1, 10)).await;
        let mut consumer = queue.consume().prefetch(4).await.unwrap();
        until(&connection, &queue, |ready, _| ready == 6).await;
        consumer.cancel().await.unwrap();
        let deliveries = take(&mut consumer, 4).await;
        assert_eq!(bodies(&deliveries), ["1", "2", "3", "4"]);
        assert!(consumer.next().await.is_none());
        assert!(consumer.next().await.is_none());
        for delivery in deliveries {
            delivery.ack().unwrap();
        }
        // the server is done with the consumer, and the four are gone
        assert_eq!(queue.purge().await.unwrap(), 6);
        consumer.cancel().await.unwrap();
    });
}

#[test]
fn a_server_cancel_ends_the_stream_with_an_error() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = t.shared_queue(&channel).await;
        let mut consumer = queue.consume().await.unwrap();
        let other = connection.channel().await.unwrap();
        other.queue(queue.name()).unwrap().delete().await.unwrap();
        let error = consumer.next().await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.scope()), (ErrorKind::ConsumerCancelled, Scope::Call));
        assert!(consumer.next().await.is_none());
        // the channel goes on, and a cancel that crosses does no harm
        consumer.cancel().await.unwrap();
        channel.declare_queue("").await.unwrap();
    });
}

#[test]
fn a_dropped_consumer_gives_its_messages_back_at_once() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = t.shared_queue(&channel).await;
        fill(&queue, &channel, numbers(1, 10)).await;
        let mut consumer = queue.consume().prefetch(0).await.unwrap();
        let first = next(&mut consumer).await;
        until(&connection, &queue, |ready, _| ready == 0).await;
        drop(consumer);
        // the channel is open, and one message is still out
        until(&connection, &queue, |ready, consumers| (ready, consumers) == (9, 0)).await;
        let other = t.channel().await;
        let mut consumer = other.queue(queue.name()).unwrap().consume().await.unwrap();
        assert_eq!(bodies(&take(&mut consumer, 9).await), numbers(2, 10).collect::<Vec<_>>());
        first.ack().unwrap();
        assert!(channel.is_open());
    });
}

#[test]
fn an_exclusive_consumer_is_alone() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = t.shared_queue(&channel).await;
        let alone = queue.consume().exclusive().await.unwrap();
        let other = connection.channel().await.unwrap();
        closed_the_channel(other.queue(queue.name()).unwrap().consume().await, 403, "exclusive");
        drop(alone);
        until(&connection, &queue, |_, consumers| consumers == 0).await;
        let _shared = queue.consume().await.unwrap();
        let other = connection.channel().await.unwrap();
        let refused = other.queue(queue.name()).unwrap().consume().exclusive().await;
        closed_the_channel(refused, 403, "exclusive");
    });
}

#[test]
fn a_consumer_with_a_higher_priority_goes_first() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        let mut low = queue.consume().prefetch(10).await.unwrap();
        let mut high = queue.consume().prefetch(3).priority(5).await.unwrap();
        fill(&queue, &channel, numbers(1, 5)).await;
        assert_eq!(bodies(&take(&mut high, 3).await), ["1", "2", "3"]);
        assert_eq!(bodies(&take(&mut low, 2).await), ["4", "5"]);
    });
}

#[test]
fn without_acks_a_message_is_gone_once_it_was_sent() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = t.shared_queue(&channel).await;
        fill(&queue, &channel, numbers(1, 3)).await;
        let mut consumer = queue.consume().no_ack().await.unwrap();
        let mut deliveries = take(&mut consumer, 3).await;
        let error = deliveries.pop().unwrap().ack().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Argument);
        assert!(channel.is_open());
        channel.close().await.unwrap();
        until(&connection, &queue, |ready, consumers| (ready, consumers) == (0, 0)).await;
    });
}

#[test]
fn tags_are_made_up_by_the_server_or_unique() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        let one = queue.consume().await.unwrap();
        let two = queue.consume().await.unwrap();
        assert!(!one.tag().is_empty());
        assert_ne!(one.tag(), two.tag());
        let _mine = queue.consume().tag("mine").await.unwrap();
        let error = queue.consume().tag("mine").await.unwrap_err();
        // the server would close the whole connection
        assert_eq!((error.kind(), error.scope()), (ErrorKind::Argument, Scope::Call));
        assert!(channel.is_open());
    });
}

#[test]
fn a_cancelled_tag_can_be_used_again() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        for body in ["1", "2", "3"] {
            let mut consumer = queue.consume().tag("again").await.unwrap();
            fill(&queue, &channel, [body.into()]).await;
            let delivery = next(&mut consumer).await;
            assert_eq!(text(&delivery), body);
            delivery.ack().unwrap();
            consumer.cancel().await.unwrap();
        }
    });
}

#[test]
fn consumers_on_one_channel_share_it_and_not_their_messages() {
    test(async |t| {
        let channel = t.channel().await;
        let a = channel.declare_queue("").await.unwrap();
        let b = channel.declare_queue("").await.unwrap();
        let mut from_a = a.consume().await.unwrap();
        let mut from_b = b.consume().await.unwrap();
        fill(&b, &channel, ["b".into()]).await;
        fill(&a, &channel, ["a".into()]).await;
        assert_eq!(text(&next(&mut from_a).await), "a");
        assert_eq!(text(&next(&mut from_b).await), "b");
        assert!(now(from_a.next()).await.is_none());
    });
}

#[test]
fn replies_come_directly_to_whoever_asks() {
    test(async |t| {
        let server = t.channel().await;
        let requests = t.shared_queue(&server).await;
        let mut asked = requests.consume().await.unwrap();

        let client = t.channel().await;
        let mut replies = client.queue("amq.rabbitmq.reply-to").unwrap().consume().no_ack().await.unwrap();
        let request = Message::new("6 * 7").reply_to("amq.rabbitmq.reply-to").correlation_id("1");
        client.default_exchange().publish(requests.name(), request).await.unwrap();

        let request = next(&mut asked).await;
        let properties = request.properties().unwrap();
        let reply = Message::new("42").correlation_id(properties.correlation_id.unwrap());
        server.default_exchange().publish(properties.reply_to.unwrap(), reply).await.unwrap();
        request.ack().unwrap();

        let reply = next(&mut replies).await;
        assert_eq!(text(&reply), "42");
        assert_eq!(reply.properties().unwrap().correlation_id.unwrap(), "1");
    });
}
