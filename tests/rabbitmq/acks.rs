//! An ack that takes too long.

use std::time::Duration;

use lepus::Consumer;
use lepus::robust::Event;
use lepus::{Delivery, Settled};
use tokio::task::block_in_place;
use tokio::time::timeout;

use crate::node::Node;

/// In this time everything must have happened.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

async fn next(consumer: &mut Consumer) -> Delivery {
    soon("a delivery", consumer.next()).await.expect("the stream ended").unwrap()
}

/// A node that does not wait for half an hour, and looks more often than once a minute.
fn impatient() -> Node {
    let node = Node::start().unwrap_or_else(|error| {
        panic!(
            "this test changes how long the broker waits for acks. Install RabbitMQ (on Debian: apt-get install \
             rabbitmq-server) and it starts a node of its own: {error}"
        )
    });
    for limit in ["consumer_timeout, 500", "channel_tick_interval, 100"] {
        let mut ctl = node.command("rabbitmqctl");
        let done = ctl.args(["eval", &format!("application:set_env(rabbit, {limit}).")]).output().unwrap();
        assert!(done.status.success(), "{ctl:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    node
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs RabbitMQ"]
async fn a_channel_that_is_closed_for_a_late_ack_is_told_and_comes_back() {
    let node = block_in_place(impatient);
    let connection = lepus::connect_robust(&node.url).await.unwrap();
    let mut events = connection.events();
    let channel = connection.channel().await.unwrap();
    let queue = channel.declare_queue("").await.unwrap();
    let mut consumer = queue.consume().await.unwrap();
    channel.default_exchange().publish(queue.name(), "held").await.unwrap();
    let held = next(&mut consumer).await;
    let Some(Event::ChannelClosed { error }) = soon("the close", events.next()).await else { panic!() };
    assert_eq!(error.reply_code(), Some(406));
    assert!(error.reply_text().unwrap().contains("timed out"), "{error}");
    let again = next(&mut consumer).await;
    assert_eq!((again.body_str(), again.redelivered()), (Some("held"), true));
    assert_eq!(held.ack().unwrap(), Settled::Stale);
    again.ack().unwrap();
    channel.default_exchange().publish(queue.name(), "new").await.unwrap();
    let new = next(&mut consumer).await;
    assert_eq!(new.body_str(), Some("new"));
    new.ack().unwrap();
}
