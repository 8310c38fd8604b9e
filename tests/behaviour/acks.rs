//! Acknowledging, giving back, rejecting.

use lepus::{Delivery, ErrorKind, protocol::basic};

use crate::case::test;
use crate::tools::{bodies, closed_the_channel, fill, next, numbers, take, until};

#[test]
fn what_is_acknowledged_does_not_come_back() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = t.shared_queue(&channel).await;
        fill(&queue, &channel, numbers(1, 3)).await;
        let mut consumer = queue.consume().await.unwrap();
        let mut deliveries = take(&mut consumer, 3).await;
        deliveries.remove(1).ack().unwrap();
        channel.close().await.unwrap();
        until(&connection, &queue, |ready, _| ready == 2).await;
        let channel = connection.channel().await.unwrap();
        let mut consumer = channel.queue(queue.name()).unwrap().consume().await.unwrap();
        let again = take(&mut consumer, 2).await;
        assert_eq!(bodies(&again), ["1", "3"]);
        assert!(again.iter().all(Delivery::redelivered));
    });
}

#[test]
fn one_ack_can_stand_for_all_before_it() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = t.shared_queue(&channel).await;
        fill(&queue, &channel, numbers(1, 10)).await;
        let mut consumer = queue.consume().await.unwrap();
        let mut deliveries = take(&mut consumer, 10).await;
        deliveries.remove(6).ack_multiple().unwrap();
        channel.close().await.unwrap();
        until(&connection, &queue, |ready, _| ready == 3).await;
    });
}

#[test]
fn a_nack_gives_back_or_drops() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        fill(&queue, &channel, numbers(1, 3)).await;
        let mut consumer = queue.consume().prefetch(1).await.unwrap();
        next(&mut consumer).await.nack(true).unwrap();
        let again = next(&mut consumer).await;
        assert_eq!((again.body(), again.redelivered()), (b"1".as_slice(), true));
        again.nack(false).unwrap();
        let next_one = next(&mut consumer).await;
        assert_eq!((next_one.body(), next_one.redelivered()), (b"2".as_slice(), false));
        next_one.reject(true).unwrap();
        let again = next(&mut consumer).await;
        assert_eq!((again.body(), again.redelivered()), (b"2".as_slice(), true));
        again.reject(false).unwrap();
        assert_eq!(next(&mut consumer).await.body(), b"3");
    });
}

#[test]
fn one_nack_can_stand_for_all_before_it() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        fill(&queue, &channel, numbers(1, 5)).await;
        let mut consumer = queue.consume().prefetch(5).await.unwrap();
        let mut deliveries = take(&mut consumer, 5).await;
        let fifth = deliveries.pop().unwrap();
        deliveries.pop().unwrap().nack_multiple(true).unwrap();
        assert_eq!(bodies(&take(&mut consumer, 4).await), ["1", "2", "3", "4"]);
        fifth.nack_multiple(false).unwrap();
        assert_eq!(queue.purge().await.unwrap(), 0);
    });
}

#[test]
fn what_is_rejected_is_dead_lettered_with_its_story() {
    test(async |t| {
        let channel = t.channel().await;
        let dead = channel.declare_queue("").await.unwrap();
        let name = dead.name().to_string();
        let declare = channel.declare_queue("").dead_letter_to("").dead_letter_routing_key(name);
        let queue = declare.await.unwrap();
        fill(&queue, &channel, ["x".into()]).await;
        let mut consumer = queue.consume().await.unwrap();
        next(&mut consumer).await.reject(false).unwrap();
        let mut letters = dead.consume().await.unwrap();
        let headers = next(&mut letters).await.properties().unwrap().headers.unwrap();
        assert_eq!(headers.get("x-first-death-reason"), Some(&"rejected".into()));
        assert!(headers.get("x-death").is_some());
    });
}

#[test]
fn a_delivery_that_is_only_dropped_stays_out() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = t.shared_queue(&channel).await;
        fill(&queue, &channel, ["x".into()]).await;
        drop(queue.get().await.unwrap().unwrap());
        assert!(queue.get().await.unwrap().is_none());
        channel.close().await.unwrap();
        until(&connection, &queue, |ready, _| ready == 1).await;
    });
}

#[test]
fn an_ack_after_the_end_of_its_channel_fails() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = t.shared_queue(&channel).await;
        fill(&queue, &channel, numbers(1, 2)).await;
        let one = queue.get().await.unwrap().unwrap();
        let two = queue.get().await.unwrap().unwrap();
        channel.close().await.unwrap();
        assert_eq!(one.ack().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(two.nack(true).unwrap_err().kind(), ErrorKind::Closed);
        until(&connection, &queue, |ready, _| ready == 2).await;
    });
}

#[test]
fn recover_brings_back_what_is_not_acknowledged() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        fill(&queue, &channel, numbers(1, 3)).await;
        let mut consumer = queue.consume().await.unwrap();
        let mut deliveries = take(&mut consumer, 3).await;
        deliveries.remove(0).ack().unwrap();
        channel.recover().await.unwrap();
        let again = take(&mut consumer, 2).await;
        assert_eq!(bodies(&again), ["2", "3"]);
        assert!(again.iter().all(Delivery::redelivered));
        // the old ones are void
        closed_the_channel(
            {
                deliveries.remove(0).ack().unwrap();
                Err::<(), _>(channel.closed().await)
            },
            406,
            "unknown delivery tag",
        );
    });
}

#[test]
fn recover_without_requeue_is_known_by_its_bad_end() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let error = channel.call(basic::Recover { requeue: false }).await.unwrap_err();
        assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ConnectionClosed, Some(540)));
    });
}
