//! Each fault does what its documentation says, to a plain client.

use std::time::{Duration, Instant};

use lepus::broker::ReplyFault;
use lepus::protocol::{basic, connection, queue};
use lepus::{ConnectOptions, ErrorKind, Message};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::tools::{open, test};

#[test]
fn cut_ends_every_connection_and_no_other() {
    test(async |broker| {
        let (one, _) = open(&broker).await;
        let (two, _) = open(&broker).await;
        broker.cut();
        assert_eq!(one.closed().await.kind(), ErrorKind::ConnectionLost);
        assert_eq!(two.closed().await.kind(), ErrorKind::ConnectionLost);
        let (three, channel) = open(&broker).await;
        channel.declare_queue("jobs").await.unwrap();
        assert!(three.is_open());
    });
}

#[test]
fn cut_connection_ends_the_one_that_it_names() {
    test(async |broker| {
        let (one, _) = open(&broker).await;
        let first = broker.connections().first().unwrap().id;
        let (two, channel) = open(&broker).await;
        broker.cut_connection(first);
        assert_eq!(one.closed().await.kind(), ErrorKind::ConnectionLost);
        channel.declare_queue("jobs").await.unwrap();
        assert!(two.is_open());
    });
}

#[test]
fn cut_after_lets_so_many_bytes_through() {
    test(async |broker| {
        let (connection, channel) = open(&broker).await;
        // what a queue.declare-ok has: frame 8, method 4, name 5, two counts 8
        broker.cut_after(25);
        channel.declare_queue("jobs").await.unwrap();
        assert_eq!(connection.closed().await.kind(), ErrorKind::ConnectionLost);

        let (connection, channel) = open(&broker).await;
        broker.cut_after(24);
        assert_eq!(channel.declare_queue("jobs").await.unwrap_err().kind(), ErrorKind::ConnectionLost);
        assert!(!connection.is_open());
    });
}

#[test]
fn cut_next_after_is_for_the_connection_to_come() {
    test(async |broker| {
        let (_old, channel) = open(&broker).await;
        broker.cut_next_after(100);
        channel.declare_queue("jobs").await.unwrap();
        assert!(lepus::connect(&broker.url()).await.is_err(), "connection.start alone has more");
        lepus::connect(&broker.url()).await.unwrap();
    });
}

#[test]
fn cut_at_does_not_do_what_was_asked_for() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        broker.cut_at::<queue::Declare>();
        let error = channel.declare_queue("jobs").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionLost);
        assert_eq!(broker.queue("jobs"), None);
        let (_connection, channel) = open(&broker).await;
        channel.declare_queue("jobs").await.unwrap();
    });
}

#[test]
fn a_reply_that_is_dropped_never_comes() {
    test(async |broker| {
        let limited = ConnectOptions::new(&broker.url()).unwrap().rpc_timeout(Duration::from_millis(50));
        let connection = limited.connect().await.unwrap();
        let channel = connection.channel().await.unwrap();
        broker.fault_reply::<queue::DeclareOk>(ReplyFault::Drop);
        assert_eq!(channel.declare_queue("jobs").await.unwrap_err().kind(), ErrorKind::Timeout);
        assert!(broker.queue("jobs").is_some(), "it was done");
    });
}

#[test]
fn a_reply_that_comes_twice_is_a_violation() {
    test(async |broker| {
        let (connection, channel) = open(&broker).await;
        broker.fault_reply::<queue::DeclareOk>(ReplyFault::Duplicate);
        channel.declare_queue("jobs").await.unwrap();
        assert_eq!(connection.closed().await.kind(), ErrorKind::Protocol);
    });
}

#[test]
fn a_reply_that_is_delayed_comes_after_its_time() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        let time = Duration::from_millis(100);
        broker.fault_reply::<queue::DeclareOk>(ReplyFault::Delay(time));
        let started = Instant::now();
        channel.declare_queue("jobs").await.unwrap();
        assert!(started.elapsed() >= time);
    });
}

#[test]
fn a_reply_in_whose_place_the_connection_is_cut_was_earned() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        broker.fault_reply::<queue::DeclareOk>(ReplyFault::Cut);
        let error = channel.declare_queue("jobs").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionLost);
        assert!(broker.queue("jobs").is_some());
    });
}

#[test]
fn reply_faults_are_taken_in_their_order() {
    test(async |broker| {
        let (connection, channel) = open(&broker).await;
        let time = Duration::from_millis(50);
        broker.fault_reply::<queue::DeclareOk>(ReplyFault::Delay(time));
        broker.fault_reply::<queue::DeclareOk>(ReplyFault::Cut);
        channel.declare_queue("one").await.unwrap();
        assert!(channel.declare_queue("two").await.is_err());
        assert!(!connection.is_open());
    });
}

#[test]
fn connections_are_closed_with_the_code_that_is_given() {
    test(async |broker| {
        let (connection, _channel) = open(&broker).await;
        broker.close_connections(320, "CONNECTION_FORCED - maintenance");
        let error = connection.closed().await;
        assert_eq!(error.kind(), ErrorKind::ConnectionClosed);
        assert_eq!(error.reply_code(), Some(320));
        assert_eq!(error.reply_text(), Some("CONNECTION_FORCED - maintenance"));
    });
}

#[test]
fn blocked_publishers_wait_until_they_are_unblocked() {
    test(async |broker| {
        let (connection, channel) = open(&broker).await;
        channel.declare_queue("jobs").await.unwrap();
        let exchange = channel.default_exchange();
        exchange.publish("jobs", "before").await.unwrap();
        let mut blocked = connection.watch_blocked();

        broker.block("low on memory");
        // nobody is stopped who does not publish
        channel.qos(1).await.unwrap();
        assert!(broker.connections().iter().all(|connection| !connection.blocked));
        let mut publish = Box::pin(exchange.publish("jobs", "during"));
        assert!(timeout(Duration::from_millis(50), &mut publish).await.is_err(), "it must wait");
        assert_eq!(blocked.changed().await.unwrap().as_str(), Some("low on memory"));
        assert!(broker.connections().iter().all(|connection| connection.blocked));
        assert_eq!(broker.bodies("jobs"), ["before"]);

        broker.unblock();
        assert_eq!(blocked.changed().await, None);
        publish.await.unwrap();
        assert_eq!(broker.bodies("jobs"), ["before", "during"]);
    });
}

#[test]
fn cancelled_consumers_are_told() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        let queue = channel.declare_queue("jobs").await.unwrap();
        let mut consumer = queue.consume().await.unwrap();
        assert_eq!(broker.cancel_consumers("jobs"), 1);
        let error = consumer.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConsumerCancelled);
        assert_eq!(broker.queue("jobs").unwrap().consumers, 0);
        assert_eq!(broker.cancel_consumers("jobs"), 0);
        assert_eq!(broker.cancel_consumers("no such queue"), 0);
    });
}

#[test]
fn so_many_publishes_are_nacked() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        channel.declare_queue("jobs").await.unwrap();
        let exchange = channel.default_exchange();
        broker.nack_publishes(2);
        for number in 1..=2 {
            let error = exchange.publish("jobs", number.to_string()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Nacked);
        }
        exchange.publish("jobs", "3").await.unwrap();
        assert_eq!(broker.bodies("jobs"), ["3"]);
    });
}

#[test]
fn confirms_in_reverse_reach_each_its_own() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        channel.declare_queue("jobs").await.unwrap();
        let exchange = channel.default_exchange();
        broker.reverse_confirms(3);
        let one = exchange.enqueue("jobs", "1").await.unwrap();
        let two = exchange.enqueue("jobs", "2").await.unwrap();
        // nothing is confirmed while the third is missing: a call that is answered has overtaken them
        channel.qos(1).await.unwrap();
        assert_eq!(broker.bodies("jobs"), ["1", "2"]);
        let mut first = Box::pin(one);
        assert!(timeout(Duration::from_millis(20), &mut first).await.is_err());
        let three = exchange.enqueue("jobs", "3").await.unwrap();
        three.await.unwrap();
        two.await.unwrap();
        first.await.unwrap();
        // and it is over
        exchange.publish("jobs", "4").await.unwrap();
    });
}

#[test]
fn only_so_many_confirms_are_reversed() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        let exchange = channel.default_exchange();
        broker.reverse_confirms(2);
        let mut confirms = Vec::new();
        // in one write, so that the broker has them all before it answers
        for _ in 0..6 {
            confirms.push(exchange.enqueue("nowhere", "x").await.unwrap());
        }
        for confirm in confirms {
            confirm.await.unwrap();
        }
        exchange.publish("nowhere", "x").await.unwrap();
    });
}

#[test]
fn connections_that_are_logging_in_are_cut_too() {
    test(async |broker| {
        let mut silent = TcpStream::connect(broker.address().unwrap()).await.unwrap();
        broker.until(|broker| broker.connections().len() == 1).await;
        broker.cut();
        assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
        broker.until(|broker| broker.connections().is_empty()).await;
    });
}

#[test]
fn a_close_whose_answer_is_lost_ends_all_the_same() {
    test(async |broker| {
        for fault in [ReplyFault::Drop, ReplyFault::Delay(Duration::from_secs(60)), ReplyFault::Cut] {
            let (connection, _channel) = open(&broker).await;
            broker.fault_reply::<connection::CloseOk>(fault);
            // the end of the stream will do
            drop(connection.close().await);
            assert!(!connection.is_open());
            broker.until(|broker| broker.connections().is_empty()).await;
        }
        let (connection, channel) = open(&broker).await;
        broker.fault_reply::<lepus::protocol::channel::CloseOk>(ReplyFault::Cut);
        drop(channel.close().await);
        assert_eq!(connection.closed().await.kind(), ErrorKind::ConnectionLost);
    });
}

#[test]
fn exclusive_queues_linger() {
    test(async |broker| {
        let (owner, channel) = open(&broker).await;
        let (other, _) = open(&broker).await;
        channel.declare_queue("mine").exclusive().await.unwrap();
        broker.exclusive_queues_linger(Some(Duration::from_millis(100)));
        broker.cut_connection(broker.connections().first().unwrap().id);
        owner.closed().await;
        let channel = other.channel().await.unwrap();
        let error = channel.declare_queue("mine").exclusive().await.unwrap_err();
        assert_eq!(error.reply_code(), Some(405));

        broker.until(|broker| broker.queue("mine").is_none()).await;
        let channel = other.channel().await.unwrap();
        channel.declare_queue("mine").exclusive().await.unwrap();

        broker.exclusive_queues_linger(None);
        broker.cut();
        broker.until(|broker| broker.queue("mine").is_none()).await;
    });
}

#[test]
fn a_broker_that_does_not_read_takes_nothing_until_it_does() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        channel.declare_queue("jobs").await.unwrap();
        let exchange = channel.default_exchange();
        broker.stop_reading(true);
        let publishing = async {
            for _ in 0..64 {
                drop(exchange.enqueue("jobs", vec![0; 1 << 20]).await.unwrap());
            }
        };
        let mut publishing = Box::pin(publishing);
        // more than the system's buffers and the client's own take
        assert!(timeout(Duration::from_millis(200), &mut publishing).await.is_err(), "it must wait");
        assert_eq!(broker.queue("jobs").unwrap().ready, 0);
        broker.stop_reading(false);
        publishing.await;
        channel.wait_for_confirms().await.unwrap();
        assert_eq!(broker.queue("jobs").unwrap().ready, 64);
    });
}

#[test]
fn a_get_whose_answer_is_lost_gives_the_message_back() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        let queue = channel.declare_queue("jobs").await.unwrap();
        channel.default_exchange().publish("jobs", Message::new("work")).await.unwrap();
        broker.fault_reply::<basic::GetOk>(ReplyFault::Cut);
        assert!(queue.get().await.is_err());
        broker.until(|broker| broker.queue("jobs").is_some_and(|queue| queue.ready == 1)).await;
        let (_connection, channel) = open(&broker).await;
        let delivery = channel.queue("jobs").unwrap().get().await.unwrap().unwrap();
        assert!(delivery.redelivered());
    });
}

#[test]
fn a_blocked_connection_that_is_closed_ends() {
    test(async |broker| {
        let (connection, channel) = open(&broker).await;
        broker.block("low on memory");
        drop(channel.default_exchange().enqueue("jobs", "x").await.unwrap());
        broker.until(|broker| broker.connections().iter().any(|connection| connection.blocked)).await;
        broker.close_connections(320, "maintenance");
        assert_eq!(connection.closed().await.reply_code(), Some(320));
        broker.until(|broker| broker.connections().is_empty()).await;
    });
}

#[test]
fn cut_after_reading_takes_what_is_whole() {
    test(async |broker| {
        let (connection, channel) = open(&broker).await;
        channel.declare_queue("jobs").await.unwrap();
        let exchange = channel.default_exchange();
        // method, header, body: the second message lacks its last byte
        broker.cut_after_reading(2 * (21 + 23 + 108) - 1);
        let one = exchange.enqueue("jobs", vec![1; 100]).await.unwrap();
        let two = exchange.enqueue("jobs", vec![2; 100]).await.unwrap();
        drop((one.await, two.await));
        assert_eq!(connection.closed().await.kind(), ErrorKind::ConnectionLost);
        assert_eq!(broker.bodies("jobs"), [vec![1; 100]]);
    });
}

#[test]
fn a_confirm_is_late_or_lost() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        channel.declare_queue("jobs").await.unwrap();
        let exchange = channel.default_exchange();
        broker.fault_reply::<basic::Ack>(ReplyFault::Drop);
        let mut lost = Box::pin(exchange.publish("jobs", "1"));
        assert!(timeout(Duration::from_millis(50), &mut lost).await.is_err());
        assert_eq!(broker.bodies("jobs"), ["1"]);
        // each confirms its own alone
        exchange.publish("jobs", "2").await.unwrap();
        assert!(timeout(Duration::from_millis(20), &mut lost).await.is_err());
        broker.fault_reply::<basic::Ack>(ReplyFault::Delay(Duration::from_millis(100)));
        let began = Instant::now();
        exchange.publish("jobs", "3").await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(100));
    });
}

#[test]
fn confirms_that_are_held_back_can_be_released() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        channel.declare_queue("jobs").await.unwrap();
        broker.reverse_confirms(3);
        let publish = channel.default_exchange().enqueue("jobs", "1").await.unwrap();
        broker.until(|broker| broker.bodies("jobs").len() == 1).await;
        broker.reverse_confirms(0);
        publish.await.unwrap();
    });
}

#[test]
fn healed_nothing_goes_wrong_any_more() {
    test(async |broker| {
        let (_connection, channel) = open(&broker).await;
        broker.fault_reply::<queue::DeclareOk>(ReplyFault::Drop);
        broker.fault_reply::<basic::Ack>(ReplyFault::Cut);
        broker.cut_at::<queue::Declare>();
        broker.cut_after(0);
        broker.cut_after_reading(1);
        broker.cut_next_after(0);
        broker.refuse_logins(true);
        broker.block("low on memory");
        broker.nack_publishes(1);
        broker.reverse_confirms(5);
        broker.stop_reading(true);
        broker.heal();
        channel.declare_queue("jobs").await.unwrap();
        channel.default_exchange().publish("jobs", "one").await.unwrap();
        let _connection = open(&broker).await;
        assert_eq!(broker.bodies("jobs"), ["one"]);
    });
}
