//! Channels: many on a connection, each with a life of its own.

use lepus::{ConnectOptions, ErrorKind, Origin, Scope};

use crate::broker::url;
use crate::case::test;
use crate::tools::{closed_the_channel, now};

#[test]
fn channels_of_a_connection_have_different_numbers() {
    test(async |t| {
        let connection = t.connect().await;
        let (one, two) = (connection.channel().await.unwrap(), connection.channel().await.unwrap());
        assert_ne!(one.number(), two.number());
        assert!(one.is_open() && two.is_open());
    });
}

#[test]
fn numbers_run_out_and_come_back() {
    test(async |_| {
        let options = ConnectOptions::new(url()).unwrap().channel_max(2);
        let connection = options.connect().await.unwrap();
        assert_eq!(connection.channel_max(), 2);
        let _one = connection.channel().await.unwrap();
        let two = connection.channel().await.unwrap();
        let error = connection.channel().await.unwrap_err();
        assert_eq!((error.kind(), error.scope()), (ErrorKind::NoFreeChannel, Scope::Call));
        two.close().await.unwrap();
        for _ in 0..10 {
            connection.channel().await.unwrap().close().await.unwrap();
        }
    });
}

#[test]
fn an_error_ends_one_channel_and_no_other() {
    test(async |t| {
        let connection = t.connect().await;
        let (one, other) = (connection.channel().await.unwrap(), connection.channel().await.unwrap());
        let queue = other.declare_queue("").await.unwrap();
        let mut consumer = queue.consume().await.unwrap();

        let error = closed_the_channel(one.declare_queue(t.name()).passive().await, 404, "no queue");
        assert_eq!(error.origin(), Origin::Peer);
        assert!(!one.is_open());
        assert_eq!(one.closed().await.reply_code(), Some(404));
        let after = one.declare_queue("").await.unwrap_err();
        assert_eq!(after.reply_code(), Some(404), "a dead channel tells why it died");

        assert!(connection.is_open() && other.is_open());
        other.default_exchange().publish(queue.name(), "goes on").await.unwrap();
        consumer.next().await.unwrap().unwrap().ack().unwrap();
        // and the number of the dead one is free again
        connection.channel().await.unwrap();
    });
}

#[test]
fn an_error_fails_every_call_that_waits_on_the_channel() {
    test(async |t| {
        let channel = t.channel().await;
        let missing = channel.queue(t.name()).unwrap();
        let (one, two, three) = tokio::join!(
            missing.purge(),
            channel.declare_queue("").into_future(),
            channel.declare_queue("").into_future()
        );
        closed_the_channel(one, 404, "no queue");
        closed_the_channel(two, 404, "no queue");
        closed_the_channel(three, 404, "no queue");
    });
}

#[test]
fn calls_at_the_same_time_each_get_their_own_answer() {
    test(async |t| {
        let channel = t.channel().await;
        let mut declared = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let (channel, name) = (channel.clone(), t.name());
            declared.spawn(async move {
                let queue = channel.declare_queue(name.clone()).exclusive().await.unwrap();
                assert_eq!(*queue.name(), *name);
            });
        }
        while let Some(done) = declared.join_next().await {
            done.unwrap();
        }
    });
}

#[test]
fn a_call_that_nobody_waits_for_leaves_its_answer_to_nobody() {
    test(async |t| {
        let channel = t.channel().await;
        for _ in 0..20 {
            let (abandoned, wanted) = (t.name(), t.name());
            let mut call = channel.declare_queue(abandoned).exclusive().into_future();
            // sent, and not answered, or only just
            drop(now(&mut call).await);
            drop(call);
            let queue = channel.declare_queue(wanted.clone()).exclusive().await.unwrap();
            assert_eq!(*queue.name(), *wanted);
        }
    });
}

#[test]
fn a_channel_that_was_closed_accepts_nothing() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let exchange = channel.default_exchange();
        channel.close().await.unwrap();
        channel.close().await.unwrap();
        assert!(!channel.is_open());
        assert_eq!(channel.closed().await.kind(), ErrorKind::Closed);
        assert_eq!(channel.declare_queue("").await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(exchange.publish("nowhere", "x").await.unwrap_err().kind(), ErrorKind::Closed);
        assert!(connection.is_open());
    });
}
