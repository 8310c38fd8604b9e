//! What is too large is refused before it does harm.

use lepus::{ConnectOptions, ErrorKind, Message, Scope};

use crate::broker::url;
use crate::case::test;
use crate::tools::{fill, next, numbers, until};

#[test]
fn a_message_that_breaks_a_limit_is_not_sent_and_takes_no_number() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        let exchange = channel.default_exchange();
        let long = "x".repeat(256);
        // headers cannot be split over frames
        let large = Message::new("").header("large", "x".repeat(200_000));
        let errors = [
            exchange.publish(&long, "x").await.unwrap_err(),
            exchange.publish(queue.name(), Message::new("x").message_id(&long)).await.unwrap_err(),
            exchange.publish(queue.name(), Message::new("x").header(&long, 1)).await.unwrap_err(),
            exchange.publish(queue.name(), large).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!((error.kind(), error.scope()), (ErrorKind::Argument, Scope::Call), "{error}");
        }
        let confirm = exchange.enqueue(queue.name(), "fine").await.unwrap();
        assert_eq!(confirm.delivery_tag(), Some(1));
        confirm.await.unwrap();
    });
}

#[test]
fn headers_of_another_client_may_be_larger_than_our_frames() {
    test(async |t| {
        let sender = t.channel().await;
        let queue = t.shared_queue(&sender).await;
        let message = Message::new("x").header("large", "x".repeat(50_000));
        sender.default_exchange().publish(queue.name(), message.clone()).await.unwrap();
        let small = ConnectOptions::new(url()).unwrap().frame_max(8192).connect().await.unwrap();
        let channel = small.channel().await.unwrap();
        let got = channel.queue(queue.name()).unwrap().get().await.unwrap().unwrap();
        assert_eq!(got.to_message().unwrap(), message);
    });
}

#[test]
fn a_message_above_the_users_limit_is_dead_lettered_and_nothing_else_is_disturbed() {
    test(async |t| {
        let sender = t.channel().await;
        let dead = t.shared_queue(&sender).await;
        let name = t.name();
        let declare = || sender.declare_queue(&name).dead_letter_to("").dead_letter_routing_key(dead.name());
        let queue = declare().await.unwrap();
        let other = t.shared_queue(&sender).await;
        let options = ConnectOptions::new(url()).unwrap().message_limit(200_000);
        for robust in [false, true] {
            let connection = if robust {
                options.clone().robust().connect().await.unwrap()
            } else {
                options.connect().await.unwrap()
            };
            let channel = connection.channel().await.unwrap();
            let mut innocent = channel.queue(other.name()).unwrap().consume().await.unwrap();
            let large = "x".repeat(300_000);
            fill(&queue, &sender, [large.clone()]).await;
            let got = channel.queue(&name).unwrap();
            let error = got.get().await.unwrap_err();
            assert_eq!((error.kind(), error.scope()), (ErrorKind::MessageTooLarge, Scope::Call), "{error}");
            let mut consumer = got.consume().await.unwrap();
            fill(&queue, &sender, ["1".into(), large, "2".into()]).await;
            fill(&other, &sender, ["3".into()]).await;
            let first = next(&mut consumer).await;
            let error = consumer.next().await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MessageTooLarge);
            assert_eq!(next(&mut consumer).await.body(), b"2");
            first.ack().unwrap();
            assert_eq!(next(&mut innocent).await.body(), b"3");
            until(&t.connect().await, &dead, |ready, _| ready == 2).await;
            dead.purge().await.unwrap();
            channel.close().await.unwrap();
            queue.purge().await.unwrap();
            other.purge().await.unwrap();
        }
    });
}

#[test]
fn publishers_wait_for_a_small_outgoing_buffer_and_lose_nothing() {
    test(async |_| {
        let connection = ConnectOptions::new(url()).unwrap().outgoing_limit(1).connect().await.unwrap();
        let channel = connection.channel().await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        fill(&queue, &channel, numbers(1, 500)).await;
        assert_eq!(queue.purge().await.unwrap(), 500);
    });
}

#[test]
fn a_slow_consumer_without_limits_stops_nobody_who_waits_for_an_answer() {
    test(async |t| {
        let options = ConnectOptions::new(url()).unwrap().incoming_limit(100_000);
        let connection = options.connect().await.unwrap();
        let channel = connection.channel().await.unwrap();
        let queue = channel.declare_queue("").await.unwrap();
        let mut slow = queue.consume().no_ack().await.unwrap();
        // far more than may wait here
        let sender = t.channel().await;
        for number in 0..200_u32 {
            let body = number.to_string().repeat(10_000);
            sender.default_exchange().publish(queue.name(), body).await.unwrap();
        }
        // takes the backlog while a call waits behind it
        let call = tokio::spawn({
            let connection = connection.clone();
            async move { connection.channel().await?.declare_queue("").await.map(drop) }
        });
        for number in 0..200_u32 {
            assert_eq!(next(&mut slow).await.body().len(), number.to_string().len() * 10_000);
        }
        call.await.unwrap().unwrap();
    });
}
