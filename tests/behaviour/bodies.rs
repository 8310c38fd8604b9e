//! Bodies of every size, both ways.

use lepus::{ConnectOptions, Connection, Message};

use crate::broker::url;
use crate::case::test;
use crate::tools::next;

/// `length` bytes in which a shift by any number of bytes shows.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

async fn survive(connection: &Connection, sizes: &[usize]) {
    let channel = connection.channel().await.unwrap();
    let queue = channel.declare_queue("").await.unwrap();
    let exchange = channel.default_exchange();
    let mut consumer = queue.consume().await.unwrap();
    for &size in sizes {
        exchange.publish(queue.name(), pattern(size)).await.unwrap();
    }
    for &size in sizes {
        let delivery = next(&mut consumer).await;
        assert!(*delivery.body() == pattern(size), "a body of {size} bytes");
        delivery.ack().unwrap();
    }
    consumer.cancel().await.unwrap();
    for &size in sizes {
        exchange.publish(queue.name(), pattern(size)).await.unwrap();
        let delivery = queue.get().no_ack().await.unwrap().unwrap();
        assert!(*delivery.body() == pattern(size), "a body of {size} bytes, after get");
    }
}

#[test]
fn bodies_of_every_size_survive() {
    test(async |t| {
        let connection = t.connect().await;
        let frame = connection.frame_max() as usize;
        survive(&connection, &[0, 1, frame - 9, frame - 8, frame - 7, 2 * (frame - 8), 3 << 20, 0]).await;
    });
}

#[test]
fn bodies_of_every_size_survive_in_small_frames() {
    test(async |_| {
        let connection = ConnectOptions::new(url()).unwrap().frame_max(8192).connect().await.unwrap();
        assert_eq!(connection.frame_max(), 8192);
        survive(&connection, &[0, 1, 8183, 8184, 8185, 2 * 8184, 3 << 20, 0]).await;
    });
}

#[test]
fn large_bodies_on_many_channels_do_not_mix() {
    test(async |t| {
        let connection = t.connect().await;
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..6_usize {
            let connection = connection.clone();
            tasks.spawn(async move { survive(&connection, &[700_000 + task, task, 130_000 * task]).await });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    });
}

#[test]
fn bodies_and_names_need_not_be_text() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        let exchange = channel.exchange("amq.fanout").unwrap();
        queue.bind(&exchange, "").await.unwrap();
        let mut consumer = queue.consume().await.unwrap();
        let key = [0xff, 0x00, 0xfe];
        let message = Message::new(vec![0, 255]).message_id(key.as_slice()).header(key.as_slice(), true);
        exchange.publish(&key, message.clone()).await.unwrap();
        loop {
            // others may publish to this exchange, too
            let delivery = next(&mut consumer).await;
            if delivery.routing_key_bytes() == key {
                assert_eq!(delivery.to_message().unwrap(), message);
                break;
            }
        }
    });
}

#[test]
fn a_detached_delivery_is_the_same() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        let message = Message::new("kept for long").header("n", 1);
        channel.default_exchange().publish(queue.name(), message.clone()).await.unwrap();
        let mut delivery = queue.get().await.unwrap().unwrap();
        delivery.detach();
        assert_eq!(delivery.to_message().unwrap(), message);
        assert_eq!(delivery.routing_key_bytes(), queue.name().as_bytes());
        delivery.ack().unwrap();
        assert_eq!(queue.purge().await.unwrap(), 0);
    });
}
