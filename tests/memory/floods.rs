//! A server that sends more than it should, and reads nothing.
//!
//! The bounds are those of docs/memory.md, for the limits that each test sets.

use std::time::Duration;

use lepus::protocol::{basic, channel, connection};
use lepus::{ErrorKind, Properties};
use tokio::time::timeout;

use crate::counted::{Count, KIB, MIB, alone};
use crate::peer::*;

/// A flood ends when the client has taken nothing for so long: it has paused, or has had enough.
const PAUSED: Duration = Duration::from_secs(1);

/// Sends the same bytes again and again, up to `most` bytes or until the client takes no more.
async fn flood(server: &mut Peer, bytes: &[u8], most: usize) -> usize {
    let mut sent = 0;
    let mut rest: &[u8] = bytes;
    while sent < most {
        match timeout(PAUSED, server.write_some(rest)).await {
            Ok(Ok(count)) => {
                sent += count;
                rest = &rest[count..];
                if rest.is_empty() {
                    rest = bytes;
                }
            }
            // it has ended the connection
            Ok(Err(_)) | Err(_) => break,
        }
    }
    sent
}

/// Sends the same bytes again and again, until the client has ended the connection.
async fn flood_to_the_end(server: &mut Peer, bytes: &[u8]) {
    let mut rest: &[u8] = bytes;
    while let Ok(count) =
        within("the client to take it, or to end the connection", server.write_some(rest)).await
    {
        rest = &rest[count..];
        if rest.is_empty() {
            rest = bytes;
        }
    }
}

/// Read buffers, and what a connection needs anyway.
const BUFFERS: usize = 2 * MIB;

/// How many deliveries a test keeps.
const KEPT: usize = 20_000;

/// A delivery of a few bytes among many heartbeats: most of what is read is dead at once.
fn sparse() -> Vec<u8> {
    let heartbeat = frame(HEARTBEAT, 0, b"");
    [delivery(1, "c", 1, b"small"), heartbeat.repeat(500)].concat().repeat(20)
}

#[test]
fn deliveries_that_nobody_takes_stay_below_the_incoming_limit() {
    alone(async {
        let (mut server, connection) = connected_with(TUNE, |options| options.incoming_limit(MIB)).await;
        let channel = open(&mut server, &connection, 1).await;
        let consumer = consumer_without_acks(&mut server, &channel, "c").await;
        let bytes = sparse();
        let count = Count::begin();
        flood(&mut server, &bytes, 100 * MIB).await;
        // what waits, and half the limit and four times that of the read buffers that it pins
        count.check("sparse deliveries", 5 * MIB + MIB / 2 + BUFFERS);
        drop(consumer);
    });
}

#[test]
fn deliveries_that_are_kept_do_not_keep_the_read_buffers() {
    alone(async {
        let (mut server, connection) = connected_with(TUNE, |options| options.incoming_limit(MIB)).await;
        let channel = open(&mut server, &connection, 1).await;
        let mut consumer = consumer_without_acks(&mut server, &channel, "c").await;
        let mut kept = Vec::with_capacity(KEPT);
        let bytes = sparse();
        let count = Count::begin();
        let keeping = async {
            while kept.len() < KEPT {
                kept.push(consumer.next().await.unwrap().unwrap());
            }
        };
        both(keeping, flood(&mut server, &bytes, KEPT * bytes.len() / 20)).await;
        // some 300 bytes for each that is kept
        count.check("deliveries that are kept", KEPT * 300 + 5 * MIB + MIB / 2 + BUFFERS);
        drop(kept);
    });
}

#[test]
fn a_server_that_ignores_the_prefetch_is_given_up() {
    alone(async {
        let (mut server, connection, _channel, mut consumer) = with_consumer().await;
        let bytes = delivery(1, "c", 1, &[7; 1000]).repeat(100);
        let count = Count::begin();
        flood_to_the_end(&mut server, &bytes).await;
        count.check("deliveries beyond the prefetch", 250 * 2 * KIB + BUFFERS);
        let error = connection.closed().await;
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.to_string().contains("prefetch of 250"), "{error}");
        while let Some(Ok(_)) = consumer.next().await {}
    });
}

#[test]
fn large_deliveries_within_the_prefetch_pause_reading() {
    alone(async {
        let (mut server, connection) = connected_with(TUNE, |options| options.incoming_limit(MIB)).await;
        let channel = open(&mut server, &connection, 1).await;
        let _consumer = consumer(&mut server, &channel, "c").await;
        let bytes = delivery(1, "c", 1, &vec![7; 100_000]);
        let count = Count::begin();
        flood(&mut server, &bytes, 24 * MIB).await;
        count.check("large deliveries", 4 * MIB + BUFFERS + MIB);
        assert!(connection.is_open());
    });
}

#[test]
fn returned_messages_that_nobody_takes_have_a_bound() {
    alone(async {
        let (mut server, _connection, channel) = with_channel().await;
        let _returns = channel.returns();
        let bytes = returned(1, "nowhere", &Properties::default(), &[7; 1000]).repeat(100);
        let count = Count::begin();
        flood(&mut server, &bytes, 100 * MIB).await;
        count.check("returned messages", 1024 * 2 * KIB + BUFFERS);
    });
}

#[test]
fn acks_to_a_server_that_does_not_read_have_a_bound() {
    alone(async {
        let (mut server, connection) = connected_with(TUNE, |options| options.outgoing_limit(16 * KIB)).await;
        let channel = open(&mut server, &connection, 1).await;
        let queue = channel.queue("q").unwrap();
        let (consumer, _) = both(queue.consume().tag("c").prefetch(0), server.start_consumer(1, "c")).await;
        let mut consumer = consumer.unwrap();
        let bytes = delivery(1, "c", 1, b"m").repeat(1000);
        let count = Count::begin();
        let acking = async {
            while let Some(Ok(delivery)) = consumer.next().await {
                if let Err(error) = delivery.ack() {
                    return error;
                }
            }
            connection.closed().await
        };
        let (error, ()) = both(acking, flood_to_the_end(&mut server, &bytes)).await;
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(
            error.to_string().contains("bytes of acks, and of answers that it asked for, wait"),
            "{error}"
        );
        // a buffer grows by doubling
        count.check("acks", 2 * 64 * 16 * KIB + BUFFERS);
    });
}

#[test]
fn answers_to_a_server_that_does_not_read_have_a_bound() {
    alone(async {
        let (mut server, connection) = connected_with(TUNE, |options| options.outgoing_limit(16 * KIB)).await;
        let _channel = open(&mut server, &connection, 1).await;
        let bytes = method(1, &channel::Flow { active: true }).repeat(1000);
        let count = Count::begin();
        flood_to_the_end(&mut server, &bytes).await;
        // a buffer grows by doubling
        count.check("flows", 2 * 64 * 16 * KIB + BUFFERS);
        assert_eq!(connection.closed().await.kind(), ErrorKind::Protocol);
    });
}

#[test]
fn closes_while_the_client_closes_are_answered_once() {
    alone(async {
        let (mut server, connection) =
            connected_with(TUNE, |options| options.close_timeout(Duration::from_secs(1))).await;
        let closing = connection.clone();
        let bytes = method(0, &connection::Close::default()).repeat(1000);
        let count = Count::begin();
        let (closed, _) = both(closing.close(), flood(&mut server, &bytes, 20 * MIB)).await;
        count.check("closes", BUFFERS);
        assert_eq!(closed.unwrap_err().kind(), ErrorKind::Timeout);
    });
}

#[test]
fn news_and_frames_that_mean_nothing_are_not_kept() {
    let blocked = method(0, &connection::Blocked { reason: short(&"r".repeat(255)) });
    let floods = [
        ("blocked and unblocked", [blocked, method(0, &connection::Unblocked)].concat()),
        ("heartbeats", frame(HEARTBEAT, 0, b"")),
        ("acks of nothing", method(1, &basic::Ack { delivery_tag: 9, multiple: true })),
        ("nacks of nothing", method(1, &basic::Nack { delivery_tag: 9, ..Default::default() })),
        ("cancels of nobody", method(1, &basic::Cancel { consumer_tag: short("x"), no_wait: true })),
        ("empty messages that come back", returned(1, "k", &Properties::default(), b"")),
    ];
    for (what, bytes) in floods {
        alone(async {
            let (mut server, connection, _channel) = with_channel().await;
            let count = Count::begin();
            flood(&mut server, &bytes.repeat(500), 5 * MIB).await;
            count.check(what, BUFFERS);
            assert!(connection.is_open(), "{what}");
        });
    }
}

#[test]
fn unfinished_messages_of_many_channels_have_one_bound() {
    const CHANNELS: u16 = 100;
    alone(async {
        let (mut server, connection) =
            connected_with(TUNE, |options| options.message_limit(4 * MIB as u64)).await;
        let mut channels = Vec::new();
        for id in 1..=CHANNELS {
            channels.push(open(&mut server, &connection, id).await);
        }
        let count = Count::begin();
        for id in 1..=CHANNELS {
            let begun =
                [deliver(id, "c", 1), header(id, 4 * MIB as u64), body(id, &vec![7; 100_000]).repeat(4)];
            if flood(&mut server, &begun.concat(), begun.concat().len()).await == 0 {
                break;
            }
        }
        // twice the largest message, in buffers that grow by doubling
        count.check("unfinished messages", 2 * 2 * 4 * MIB + BUFFERS);
        let error = connection.closed().await;
        assert!(error.to_string().contains("unfinished messages"), "{error}");
    });
}

#[test]
fn a_message_above_the_limit_is_not_gathered() {
    alone(async {
        let (mut server, connection) =
            connected_with(TUNE, |options| options.message_limit(MIB as u64)).await;
        let channel = open(&mut server, &connection, 1).await;
        let mut consumer = consumer(&mut server, &channel, "c").await;
        let count = Count::begin();
        server.write(&[deliver(1, "c", 1), header(1, 64 * MIB as u64)].concat()).await;
        let part = body(1, &vec![7; MIB / 16]);
        for _ in 0..64 * 16 {
            server.write(&part).await;
        }
        let error = consumer.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MessageTooLarge);
        count.check("a message above the limit", BUFFERS);
    });
}
