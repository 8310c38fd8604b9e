//! The memory alarm, raised and taken back.

use std::env;
use std::process::Command;
use std::time::Duration;

use lepus::{ConnectOptions, ErrorKind, Scope};

use crate::broker;
use crate::node::Node;

/// The share of memory above which the broker blocks publishers, and the one that it starts with.
const NONE: &str = "0";
const DEFAULT: &str = "0.4";

/// The command that controls the broker under test.
fn named() -> Command {
    let words = env::var("LEPUS_RABBITMQCTL").unwrap();
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().expect("LEPUS_RABBITMQCTL is empty"));
    command.args(words);
    command
}

/// A broker whose alarm may be raised.
struct Controlled {
    /// The tests' own, which stops with this.
    node: Option<Node>,
}

impl Controlled {
    fn new() -> Self {
        let node = env::var_os("LEPUS_RABBITMQCTL").is_none().then(|| {
            Node::start().unwrap_or_else(|error| {
                panic!(
                    "this test raises the broker's memory alarm. Name the command that controls the broker in \
                     LEPUS_RABBITMQCTL, or install RabbitMQ (on Debian: apt-get install rabbitmq-server) \
                     and the test starts a node of its own: {error}"
                )
            })
        });
        Self { node }
    }

    fn url(&self) -> String {
        self.node.as_ref().map_or_else(|| broker::url().into(), |node| node.url.clone())
    }

    fn set_memory_limit(&self, share: &str) {
        let mut ctl = self.node.as_ref().map_or_else(named, |node| node.command("rabbitmqctl"));
        let done = ctl.args(["set_vm_memory_high_watermark", share]).output().unwrap();
        assert!(done.status.success(), "{ctl:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Controlled {
    fn drop(&mut self) {
        if self.node.is_none() {
            self.set_memory_limit(DEFAULT);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs RabbitMQ"]
async fn publishers_wait_while_the_broker_blocks_and_go_on_by_themselves() {
    let broker = Controlled::new();
    let options = ConnectOptions::new(&broker.url()).unwrap();
    let connection = options.connect().await.unwrap();
    let mut blocked = connection.watch_blocked();
    let channel = connection.channel().await.unwrap();
    let queue = channel.declare_queue("").await.unwrap();
    let mut consumer = queue.consume().no_ack().await.unwrap();
    let impatient = options.rpc_timeout(Duration::from_millis(100)).close_timeout(Duration::from_millis(100));
    let impatient = impatient.connect().await.unwrap();
    let other = impatient.channel().await.unwrap();
    assert_eq!(connection.blocked(), None);
    broker.set_memory_limit(NONE);

    // the broker tells only who publishes
    let exchange = channel.default_exchange();
    let first = exchange.enqueue(queue.name(), "first").await.unwrap();
    let reason = blocked.changed().await.expect("a reason");
    assert!(reason.to_string().contains("memory"), "{reason}");
    assert_eq!(connection.blocked(), Some(reason));
    let second = tokio::spawn({
        let (exchange, queue) = (exchange.clone(), queue.clone());
        async move { exchange.publish(queue.name(), "second").await }
    });
    for body in ["dropped", "dropped, too"] {
        // waits, and sends nothing when it is dropped
        let waiting = exchange.enqueue(queue.name(), body);
        tokio::select! {
            biased;
            _ = waiting => panic!("handed over"),
            () = tokio::task::yield_now() => {}
        }
    }

    // a blocked connection is read no more: calls on it time out, and a close, too
    let mut impatient_blocked = impatient.watch_blocked();
    drop(other.default_exchange().enqueue("nowhere", "x").await.unwrap());
    assert!(impatient_blocked.changed().await.is_some());
    let error = other.declare_queue("").await.unwrap_err();
    assert_eq!((error.kind(), error.scope()), (ErrorKind::Timeout, Scope::Call));
    assert_eq!(impatient.close().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(!impatient.is_open());
    assert!(!second.is_finished());

    broker.set_memory_limit(DEFAULT);
    assert_eq!(blocked.changed().await, None);
    assert_eq!(connection.blocked(), None);
    first.await.unwrap();
    second.await.unwrap().unwrap();
    for body in ["first", "second"] {
        assert_eq!(consumer.next().await.unwrap().unwrap().body(), body.as_bytes());
    }
    exchange.publish(queue.name(), "last").await.unwrap();
    assert_eq!(consumer.next().await.unwrap().unwrap().body(), b"last");
    connection.close().await.unwrap();
}
