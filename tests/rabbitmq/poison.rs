//! Messages that make RabbitMQ itself close a channel or the connection.

use std::time::Duration;

use lepus::{ErrorKind, Message};
use tokio::time::timeout;

use crate::broker::url;
use crate::case::test;

/// RabbitMQ cannot read a header that is not a number, and closes the connection with 541.
#[test]
#[ignore = "needs RabbitMQ"]
fn a_message_that_rabbitmq_cannot_read_fails_and_the_others_go_on() {
    test(async |t| {
        let connection = lepus::connect_robust(url()).await.unwrap();
        let (bad, good) = (connection.channel().await.unwrap(), connection.channel().await.unwrap());
        let poison = Message::new("x").header("rate", f64::NAN);
        let poisoned = tokio::spawn(async move { bad.default_exchange().publish("nobody", poison).await });
        let queue = good.declare_queue(t.name()).await.unwrap();
        let exchange = good.default_exchange();
        for number in 0..200 {
            let published = exchange.publish(queue.name(), number.to_string());
            timeout(Duration::from_secs(30), published).await.expect("starved").unwrap();
        }
        let error =
            timeout(Duration::from_secs(30), poisoned).await.expect("not convicted").unwrap().unwrap_err();
        assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ConnectionClosed, Some(541)), "{error}");
        // each message is there, and at most a few of them twice
        let mut seen = std::collections::BTreeSet::new();
        while let Some(message) = queue.get().no_ack().await.unwrap() {
            let number: u32 = message.body_str().unwrap().parse().unwrap();
            assert!(seen.insert(number) || message.is_republished(), "{number} came twice, unmarked");
        }
        assert_eq!(seen.len(), 200);
        connection.drain(Duration::from_secs(10)).await.unwrap();
    });
}

/// RabbitMQ refuses more than `max_message_size`, which is 128 MiB on 3.x and 16 MiB from 4.0 on, and closes the channel.
#[test]
#[ignore = "needs RabbitMQ"]
fn a_message_that_is_too_large_fails_alone() {
    test(async |t| {
        let connection = lepus::connect_robust(url()).await.unwrap();
        let channel = connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let exchange = channel.default_exchange();
        let mut confirms = Vec::new();
        for number in 0..20 {
            confirms.push(exchange.enqueue(queue.name(), number.to_string()).await.unwrap());
        }
        let large = exchange.enqueue(queue.name(), vec![0; (128 << 20) + 1]).await.unwrap();
        for number in 20..40 {
            confirms.push(exchange.enqueue(queue.name(), number.to_string()).await.unwrap());
        }
        let limit = Duration::from_secs(60);
        let error = timeout(limit, large).await.expect("no answer").unwrap_err();
        assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ChannelClosed, Some(406)), "{error}");
        for confirm in confirms {
            timeout(limit, confirm).await.expect("starved").unwrap();
        }
    });
}
