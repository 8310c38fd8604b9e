//! Transactions.

use crate::case::test;
use crate::tools::{closed_the_channel, numbers};

#[test]
fn a_commit_publishes_and_a_rollback_does_not() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().without_confirms().await.unwrap();
        channel.tx_select().await.unwrap();
        let queue = t.shared_queue(&channel).await;
        let exchange = channel.default_exchange();
        for number in numbers(1, 3) {
            exchange.publish(queue.name(), number).await.unwrap();
        }
        assert_eq!(channel.declare_queue(queue.name()).passive().await.unwrap().message_count(), 0);
        channel.tx_rollback().await.unwrap();
        exchange.publish(queue.name(), "kept").await.unwrap();
        channel.tx_commit().await.unwrap();
        assert_eq!(channel.declare_queue(queue.name()).passive().await.unwrap().message_count(), 1);
        assert_eq!(queue.get().await.unwrap().unwrap().body(), b"kept");
    });
}

#[test]
fn an_ack_counts_with_the_commit() {
    test(async |t| {
        let connection = t.connect().await;
        let publisher = connection.channel().await.unwrap();
        let queue = t.shared_queue(&publisher).await;
        publisher.default_exchange().publish(queue.name(), "1").await.unwrap();
        for commit in [false, true] {
            let channel = connection.channel().without_confirms().await.unwrap();
            channel.tx_select().await.unwrap();
            let delivery = channel.queue(queue.name()).unwrap().get().await.unwrap().unwrap();
            assert_eq!(delivery.redelivered(), commit);
            delivery.ack().unwrap();
            if commit {
                channel.tx_commit().await.unwrap();
            }
            channel.close().await.unwrap();
        }
        assert!(queue.get().await.unwrap().is_none());
    });
}

#[test]
fn transactions_and_confirms_exclude_each_other() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        closed_the_channel(channel.tx_select().await, 406, "confirm");
        let channel = connection.channel().without_confirms().await.unwrap();
        closed_the_channel(channel.tx_commit().await, 406, "transactional");
    });
}
