//! What `RabbitMQ` does from 4.3 on: it cancels a consumer that keeps a message of a quorum queue for too long, and
//! keeps the consumer until the client says that it is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use lepus::{Delivery, ErrorKind, FieldValue};
use tokio::time::timeout;

use crate::case::{Case, test};
use crate::delivery_limit::{Back, delivered};

/// Milliseconds.
const CONSUMER_TIMEOUT: i64 = 1000;
const MESSAGES: usize = 6;

/// In this time everything must have happened; the broker looks for timed-out consumers every few seconds.
const PATIENCE: Duration = Duration::from_secs(30);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Fails on a broker that is older.
async fn check_version(t: &Case) {
    let connection = t.connect().await;
    let properties = connection.server_properties();
    let version = properties.get("version").and_then(FieldValue::as_str).unwrap();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    assert!(found >= (4, 3), "this test needs RabbitMQ 4.3 or later, AMQP_URL names a {version}");
    connection.close().await.unwrap();
}

fn body(delivery: &Delivery) -> String {
    delivery.body_str().unwrap().to_owned()
}

/// The queue, with messages in it.
async fn filled(t: &Case) -> String {
    let connection = t.connect().await;
    let channel = connection.channel().await.unwrap();
    let name = t.name();
    let declare = channel.declare_queue(&name).quorum().argument("x-consumer-timeout", CONSUMER_TIMEOUT);
    declare.await.unwrap();
    for n in 0..MESSAGES {
        channel.default_exchange().publish(&name, n.to_string()).await.unwrap();
    }
    connection.close().await.unwrap();
    name
}

/// One consumer is there, and nothing is stuck with another one.
async fn check_queue(t: &Case, name: &str) {
    let connection = t.connect().await;
    let channel = connection.channel().await.unwrap();
    let queue = channel.declare_queue(name).passive().await.unwrap();
    assert_eq!((queue.message_count(), queue.consumer_count()), (0, 1));
    connection.close().await.unwrap();
}

#[test]
#[ignore = "needs RabbitMQ 4.3"]
fn after_a_consumer_timeout_and_a_late_ack_a_plain_consumer_leaves_nothing_behind() {
    test(async |t| {
        check_version(t).await;
        let name = filled(t).await;
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = channel.queue(&name).unwrap();
        let mut consumer = queue.consume().prefetch(1).tag("worker").await.unwrap();
        let held = soon("a delivery", consumer.next()).await.unwrap().unwrap();
        let error = soon("the timeout", consumer.next()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConsumerCancelled);
        held.ack().unwrap();
        // with the same tag, on the same channel
        let mut again = queue.consume().prefetch(1).tag("worker").await.unwrap();
        let mut seen = BTreeSet::new();
        while seen.len() < MESSAGES {
            let delivery = soon("each message", again.next()).await.unwrap().unwrap();
            seen.insert(body(&delivery));
            delivery.ack().unwrap();
        }
        check_queue(t, &name).await;
        assert!(channel.is_open());
    });
}

#[test]
#[ignore = "needs RabbitMQ 4.3"]
fn after_a_consumer_timeout_nothing_is_handed_out_that_the_broker_has_back() {
    test(async |t| {
        check_version(t).await;
        let name = filled(t).await;
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = channel.queue(&name).unwrap();
        let mut consumer = queue.consume().prefetch(3).await.unwrap();
        // the two behind it wait locally, and are as old
        let held = soon("a delivery", consumer.next()).await.unwrap().unwrap();
        soon("the timeout", held.stale()).await;
        assert!(held.is_stale());
        let error = soon("the cancel", consumer.next()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConsumerCancelled);
        let mut again = queue.consume().await.unwrap();
        let mut seen = BTreeSet::new();
        while seen.len() < MESSAGES {
            let delivery = soon("each message", again.next()).await.unwrap().unwrap();
            assert!(seen.insert(body(&delivery)), "handed out twice");
            delivery.ack().unwrap();
        }
        check_queue(t, &name).await;
        assert!(channel.is_open());
    });
}

#[test]
#[ignore = "needs RabbitMQ 4.3"]
fn a_handler_that_takes_too_long_is_stopped_and_its_message_comes_again() {
    test(async |t| {
        check_version(t).await;
        let name = filled(t).await;
        let connection = lepus::connect_robust(crate::broker::url()).await.unwrap();
        let channel = connection.channel().await.unwrap();
        let (done, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let handler = move |message: lepus::Incoming| {
            let done = done.clone();
            async move {
                let body = message.body_str().unwrap().to_owned();
                if body == "0" && !message.redelivered() {
                    std::future::pending::<()>().await;
                }
                done.send(body).map_err(|error| error.to_string())
            }
        };
        let worker = channel.queue(&name).unwrap().consume().prefetch(1).handle(handler).await.unwrap();
        let mut bodies = BTreeSet::new();
        while bodies.len() < MESSAGES {
            assert!(bodies.insert(soon("each message", seen.recv()).await.unwrap()), "worked on twice");
        }
        worker.drain().await.unwrap();
        connection.close().await.unwrap();
    });
}

#[test]
#[ignore = "needs RabbitMQ 4.3"]
fn after_a_consumer_timeout_and_a_late_ack_a_robust_consumer_gets_every_message() {
    test(async |t| {
        check_version(t).await;
        let name = filled(t).await;
        let connection = lepus::connect_robust(crate::broker::url()).await.unwrap();
        let channel = connection.channel().await.unwrap();
        let queue = channel.queue(&name).unwrap();
        let mut consumer = queue.consume().prefetch(1).await.unwrap();
        let held = soon("a delivery", consumer.next()).await.unwrap().unwrap();
        let mut seen = BTreeSet::from([body(&held)]);
        // comes after the timeout: the limit is one message
        let first = soon("the next delivery", consumer.next()).await.unwrap().unwrap();
        held.ack().unwrap();
        seen.insert(body(&first));
        first.ack().unwrap();
        while seen.len() < MESSAGES {
            let delivery = soon("each message", consumer.next()).await.unwrap().unwrap();
            seen.insert(body(&delivery));
            delivery.ack().unwrap();
        }
        check_queue(t, &name).await;
        connection.close().await.unwrap();
    });
}

/// It limits deliveries to 20 unless told otherwise.
#[test]
#[ignore = "needs RabbitMQ 4.3"]
fn deliveries_can_be_unlimited() {
    test(async |t| {
        check_version(t).await;
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).quorum().unlimited_deliveries().await.unwrap();
        channel.default_exchange().publish(queue.name(), "x").await.unwrap();
        let name = queue.name().to_string();
        assert_eq!(delivered(&connection, &name, Back::Reject, 30).await, 30);
    });
}
