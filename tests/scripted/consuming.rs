//! G. Consuming.

use std::time::Duration;

use lepus::protocol::{basic, channel, connection, queue};
use lepus::{ErrorKind, OnError};

use crate::peer::*;

/// The body of the next delivery.
async fn next_body(consumer: &mut lepus::Consumer) -> Vec<u8> {
    within("a delivery", consumer.next()).await.unwrap().unwrap().body().to_vec()
}

#[tokio::test]
async fn g1_a_delivery_right_behind_consume_ok_is_not_lost() {
    let (mut server, _connection, channel) = with_channel().await;
    let queue = channel.queue("q").unwrap();
    let (consumer, ()) = both(queue.consume(), async {
        let consume = server.receive_consume(1).await;
        assert!(consume.consumer_tag.is_empty());
        let ok = method(1, &basic::ConsumeOk { consumer_tag: short("amq.ctag-1") });
        server.write(&[ok, delivery(1, "amq.ctag-1", 1, b"first")].concat()).await;
    })
    .await;
    let mut consumer = consumer.unwrap();
    assert_eq!(*consumer.tag(), "amq.ctag-1");
    assert_eq!(next_body(&mut consumer).await, b"first");
}

#[tokio::test]
async fn g2_deliveries_before_cancel_ok_are_handed_out_before_the_end() {
    let (mut server, _connection, channel, mut consumer) = with_consumer().await;
    let (cancelled, ()) = both(consumer.cancel(), async {
        server.expect(1, basic::Cancel { consumer_tag: short("c"), no_wait: false }).await;
        let ok = method(1, &basic::CancelOk { consumer_tag: short("c") });
        server.write(&[delivery(1, "c", 1, b"one"), delivery(1, "c", 2, b"two"), ok].concat()).await;
    })
    .await;
    cancelled.unwrap();
    assert_eq!(next_body(&mut consumer).await, b"one");
    assert_eq!(next_body(&mut consumer).await, b"two");
    assert!(within("the end of the stream", consumer.next()).await.is_none());
    drop(consumer);
    nothing_else(&mut server, &channel).await;
}

/// The server's cancel.
pub(crate) fn server_cancel() -> Vec<u8> {
    method(1, &basic::Cancel { consumer_tag: short("c"), no_wait: true })
}

/// The client's answer to that: since 4.3 `RabbitMQ` keeps the consumer until it hears this.
pub(crate) async fn expect_cancel(server: &mut Peer) {
    server.expect(1, basic::Cancel { consumer_tag: short("c"), no_wait: false }).await;
}

#[tokio::test]
async fn g3_after_a_cancel_of_the_server_it_is_told_that_the_consumer_is_gone() {
    let (mut server, _connection, channel, mut consumer) = with_consumer().await;
    server.write(&delivery(1, "c", 1, b"last")).await;
    let last = within("a delivery", consumer.next()).await.unwrap().unwrap();
    assert_eq!(last.body(), b"last");
    server.write(&server_cancel()).await;
    expect_cancel(&mut server).await;
    server.send(1, basic::CancelOk { consumer_tag: short("c") }).await;
    nothing_else(&mut server, &channel).await;
    let error = within("the cancel", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConsumerCancelled);
    assert!(consumer.next().await.is_none());
    assert!(channel.is_open());
    last.ack().unwrap();
    server.expect(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
    drop(consumer);
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn g3_what_nobody_took_before_the_servers_cancel_is_given_back() {
    let (mut server, _connection, channel, consumer) = with_consumer().await;
    server.write(&[delivery(1, "c", 1, b"left"), server_cancel()].concat()).await;
    expect_cancel(&mut server).await;
    // at once: it is back in its queue, or gone with it
    server.expect(1, basic::Nack { delivery_tag: 1, multiple: false, requeue: true }).await;
    drop(consumer);
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn what_a_server_delivers_to_a_consumer_that_it_has_cancelled_is_given_back() {
    let (mut server, _connection, channel, mut consumer) = with_consumer().await;
    server.write(&[server_cancel(), delivery(1, "c", 1, b"zombie")].concat()).await;
    expect_cancel(&mut server).await;
    server.expect(1, basic::Nack { delivery_tag: 1, multiple: false, requeue: true }).await;
    let error = within("the cancel", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConsumerCancelled);
    // the tag can be used at once, on the same channel
    let mut again = crate::peer::consumer(&mut server, &channel, "c").await;
    // late: for the first one, whose end the new one is not
    server.send(1, basic::CancelOk { consumer_tag: short("c") }).await;
    server.write(&delivery(1, "c", 2, b"new")).await;
    assert_eq!(next_body(&mut again).await, b"new");
    drop(consumer);
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn a_tag_can_be_used_again_as_soon_as_its_consumer_was_dropped_or_cancelled() {
    for cancels in [false, true] {
        let (mut server, _connection, channel, mut consumer) = with_consumer().await;
        if cancels {
            // sent, and nobody waits for the answer
            let waiting = tokio::time::timeout(Duration::from_millis(20), consumer.cancel()).await;
            assert!(waiting.is_err());
        }
        drop(consumer);
        let queue = channel.queue("q").unwrap();
        let (again, ()) = both(queue.consume().tag("c"), async {
            expect_cancel(&mut server).await;
            server.send(1, basic::CancelOk { consumer_tag: short("c") }).await;
            server.start_consumer(1, "c").await;
        })
        .await;
        server.write(&delivery(1, "c", 1, b"m")).await;
        assert_eq!(next_body(&mut again.unwrap()).await, b"m");
    }
}

#[tokio::test]
async fn a_tag_that_the_server_gives_out_twice_ends_the_connection_and_both_consumers() {
    let (mut server, _connection, channel) = with_channel().await;
    let queue = channel.queue("q").unwrap();
    let (first, _) = both(queue.consume(), server.start_consumer(1, "t")).await;
    let mut first = first.unwrap();
    let (second, ()) = both(queue.consume(), async {
        server.start_consumer(1, "t").await;
        server.expect_refusal(530).await;
    })
    .await;
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Protocol);
    let error = within("the first one's end", first.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(first.next().await.is_none());
}

#[tokio::test]
async fn g4_the_servers_cancel_may_cross_ours() {
    let (mut server, _connection, channel, mut consumer) = with_consumer().await;
    let (cancelled, ()) = both(consumer.cancel(), async {
        server.receive::<basic::Cancel>(1).await;
        let ok = method(1, &basic::CancelOk { consumer_tag: short("c") });
        server.write(&[server_cancel(), ok].concat()).await;
    })
    .await;
    cancelled.unwrap();
    // the user has cancelled it: the stream just ends
    assert!(within("the end of the stream", consumer.next()).await.is_none());
    // the tag is free again
    let _again = crate::peer::consumer(&mut server, &channel, "c").await;
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn g5_calls_on_a_channel_are_sent_one_after_the_other() {
    let (mut server, _connection, channel) = with_channel().await;
    let queue = channel.queue("q").unwrap();
    let calls = async {
        tokio::join!(queue.consume().tag("c").into_future(), channel.declare_queue("d").into_future())
    };
    let ((consumer, declared), ()) = both(calls, async {
        server.start_consumer(1, "c").await;
        server.receive::<queue::Declare>(1).await;
        server.send(1, queue::DeclareOk { queue: short("d"), message_count: 3, consumer_count: 0 }).await;
    })
    .await;
    assert_eq!(*consumer.unwrap().tag(), "c");
    assert_eq!(declared.unwrap().message_count(), 3);
}

#[tokio::test]
async fn g6_a_name_that_nobody_would_learn_is_refused_locally() {
    let (mut server, _connection, channel) = with_channel().await;
    let declare = queue::Declare { no_wait: true, ..Default::default() };
    assert_eq!(channel.call_no_wait(&declare).unwrap_err().kind(), ErrorKind::Unsupported);
    let consume = basic::Consume { no_wait: true, ..Default::default() };
    assert_eq!(channel.call_no_wait(&consume).unwrap_err().kind(), ErrorKind::Unsupported);
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn g7_a_delivery_is_not_acknowledged_on_another_incarnation_of_its_channel() {
    let tune = connection::Tune { channel_max: 1, ..TUNE };
    let (mut server, connection) = connected_with(tune, |options| options).await;
    let channel = open(&mut server, &connection, 1).await;
    let mut consumer = consumer(&mut server, &channel, "c").await;
    server.write(&[delivery(1, "c", 1, b"one"), delivery(1, "c", 2, b"two")].concat()).await;
    let one = within("a delivery", consumer.next()).await.unwrap().unwrap();
    let two = within("a delivery", consumer.next()).await.unwrap().unwrap();
    server.send(1, channel::Close { reply_code: 406, ..Default::default() }).await;
    server.expect(1, channel::CloseOk).await;
    within("the channel to end", channel.closed()).await;
    assert_eq!(one.ack().unwrap_err().reply_code(), Some(406));
    let again = open(&mut server, &connection, 1).await;
    assert_eq!(two.nack(true).unwrap_err().reply_code(), Some(406));
    drop((consumer, channel));
    nothing_else(&mut server, &again).await;
}

#[tokio::test]
async fn g7_a_delivery_that_needs_no_ack_is_not_acknowledged() {
    let (mut server, _connection, channel) = with_channel().await;
    let queue = channel.queue("q").unwrap();
    let (got, ()) = both(queue.get().no_ack(), async {
        server.expect(1, basic::Get { queue: short("q"), no_ack: true }).await;
        let ok = basic::GetOk { delivery_tag: 1, ..Default::default() };
        server.write(&[method(1, &ok), content(1, b"got")].concat()).await;
    })
    .await;
    assert_eq!(got.unwrap().unwrap().ack().unwrap_err().kind(), ErrorKind::Argument);
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn g7_each_way_to_acknowledge_says_what_it_means() {
    let (mut server, _connection, _channel, mut consumer) = with_consumer().await;
    for n in 1..=5 {
        server.write(&delivery(1, "c", n, b"m")).await;
    }
    let mut next = async || within("a delivery", consumer.next()).await.unwrap().unwrap();
    next().await.ack().unwrap();
    next().await.ack_multiple().unwrap();
    next().await.nack(false).unwrap();
    next().await.nack_multiple(true).unwrap();
    next().await.reject(true).unwrap();
    server.expect(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
    server.expect(1, basic::Ack { delivery_tag: 2, multiple: true }).await;
    server.expect(1, basic::Nack { delivery_tag: 3, multiple: false, requeue: false }).await;
    server.expect(1, basic::Nack { delivery_tag: 4, multiple: true, requeue: true }).await;
    server.expect(1, basic::Reject { delivery_tag: 5, requeue: true }).await;
}

#[tokio::test]
async fn g10_the_prefetch_goes_before_its_consumer_and_has_no_size() {
    let (mut server, _connection, channel) = with_channel().await;
    let queue = channel.queue("q").unwrap();
    let (consumer, ()) = both(queue.consume().tag("c").prefetch(9), async {
        server.expect(1, basic::Qos { prefetch_size: 0, prefetch_count: 9, global: false }).await;
        server.receive::<basic::Consume>(1).await;
        server.send(1, basic::QosOk).await;
        server.send(1, basic::ConsumeOk { consumer_tag: short("c") }).await;
    })
    .await;
    consumer.unwrap();
}

#[tokio::test]
async fn g11_a_get_is_answered_while_deliveries_flow() {
    let (mut server, _connection, channel, mut consumer) = with_consumer().await;
    let queue = channel.queue("other").unwrap();
    let (got, ()) = both(queue.get(), async {
        server.expect(1, basic::Get { queue: short("other"), no_ack: false }).await;
        let ok = basic::GetOk { delivery_tag: 2, ..Default::default() };
        let bytes =
            [delivery(1, "c", 1, b"one"), method(1, &ok), content(1, b"got"), delivery(1, "c", 3, b"three")];
        server.write(&bytes.concat()).await;
    })
    .await;
    let got = got.unwrap().unwrap();
    assert_eq!((got.delivery_tag(), got.body()), (2, &b"got"[..]));
    let (empty, ()) = both(queue.get(), async {
        server.receive::<basic::Get>(1).await;
        server.write(&[delivery(1, "c", 4, b"four"), method(1, &basic::GetEmpty)].concat()).await;
    })
    .await;
    assert!(empty.unwrap().is_none());
    for body in [&b"one"[..], b"three", b"four"] {
        assert_eq!(next_body(&mut consumer).await, body);
    }
}

#[tokio::test]
async fn g12_a_handler_may_call_on_its_own_channel() {
    let (mut server, _connection, channel) = with_channel().await;
    let (queue, inner) = (channel.queue("q").unwrap(), channel.clone());
    let handler = move |message: lepus::Incoming| {
        let inner = inner.clone();
        async move {
            if message.body() == b"bad" {
                return Err("no".to_owned());
            }
            inner.queue("q").unwrap().purge().await.map(drop).map_err(|error| error.to_string())
        }
    };
    let starting = queue.consume().tag("c").handle(handler).on_error(OnError::Requeue);
    let (worker, _) = both(starting, server.start_consumer(1, "c")).await;
    let worker = worker.unwrap();
    server.write(&[delivery(1, "c", 1, b"good"), delivery(1, "c", 2, b"bad")].concat()).await;
    server.receive::<queue::Purge>(1).await;
    server.send(1, queue::PurgeOk::default()).await;
    server.expect(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
    server.expect(1, basic::Reject { delivery_tag: 2, requeue: true }).await;
    let (drained, ()) = both(worker.drain(), async {
        server.receive::<basic::Cancel>(1).await;
        server.send(1, basic::CancelOk { consumer_tag: short("c") }).await;
    })
    .await;
    drained.unwrap();
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn g13_a_tag_that_is_in_use_is_refused_locally() {
    let (mut server, connection, channel, consumer) = with_consumer().await;
    let queue = channel.queue("q").unwrap();
    let error = queue.consume().tag("c").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Argument);
    // and nothing of it was sent, nor is the tag taken on another channel
    nothing_else(&mut server, &channel).await;
    let other = open(&mut server, &connection, 2).await;
    let _same = crate::peer::consumer(&mut server, &other, "c").await;
    drop(consumer);
}

#[tokio::test]
async fn a_dropped_consumer_is_cancelled_and_what_it_had_not_handed_out_is_given_back() {
    let (mut server, _connection, channel, mut consumer) = with_consumer().await;
    server.write(&(1..=3).flat_map(|n| delivery(1, "c", n, b"m")).collect::<Vec<_>>()).await;
    let kept = within("a delivery", consumer.next()).await.unwrap().unwrap();
    nothing_else(&mut server, &channel).await;
    drop(consumer);
    server.expect(1, basic::Cancel { consumer_tag: short("c"), no_wait: false }).await;
    let ok = method(1, &basic::CancelOk { consumer_tag: short("c") });
    server.write(&[delivery(1, "c", 4, b"m"), ok].concat()).await;
    for delivery_tag in 2..=4 {
        server.expect(1, basic::Nack { delivery_tag, multiple: false, requeue: true }).await;
    }
    kept.ack().unwrap();
    server.expect(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn a_consumer_that_nobody_waits_for_any_more_is_cancelled() {
    let (mut server, _connection, channel) = with_channel().await;
    let queue = channel.queue("q").unwrap();
    let starting = async { queue.consume().tag("c").await };
    let dropped = tokio::time::timeout(Duration::from_millis(50), starting).await;
    assert!(dropped.is_err());
    server.receive_consume(1).await;
    let ok = method(1, &basic::ConsumeOk { consumer_tag: short("c") });
    server.write(&[ok, delivery(1, "c", 1, b"m")].concat()).await;
    server.expect(1, basic::Cancel { consumer_tag: short("c"), no_wait: false }).await;
    server.send(1, basic::CancelOk { consumer_tag: short("c") }).await;
    server.expect(1, basic::Nack { delivery_tag: 1, multiple: false, requeue: true }).await;
    nothing_else(&mut server, &channel).await;
}

/// However little publishers may let wait: nobody can hold acks back.
#[tokio::test]
async fn a_small_outgoing_limit_does_not_limit_acks() {
    let (mut server, connection) = connected_with(TUNE, |options| options.outgoing_limit(1)).await;
    let channel = open(&mut server, &connection, 1).await;
    let mut consumer = consumer(&mut server, &channel, "c").await;
    for n in 1..=100 {
        server.write(&delivery(1, "c", n, b"m")).await;
    }
    let mut deliveries = Vec::new();
    for _ in 1..=100 {
        deliveries.push(within("a delivery", consumer.next()).await.unwrap().unwrap());
    }
    for delivery in deliveries {
        delivery.ack().unwrap();
    }
    for delivery_tag in 1..=100 {
        server.expect(1, basic::Ack { delivery_tag, multiple: false }).await;
    }
}

/// `RabbitMQ` delivers a stream by the chunk, also beyond the prefetch.
#[tokio::test]
async fn more_than_the_prefetch_is_refused_but_from_a_stream() {
    for stream in [true, false] {
        let (mut server, _connection, channel) = with_channel().await;
        let queue = channel.queue("q").unwrap();
        let (consumer, _) = both(queue.consume().tag("c").prefetch(3), server.start_consumer(1, "c")).await;
        let mut consumer = consumer.unwrap();
        let mut headers = lepus::FieldTable::new();
        headers.insert(if stream { "x-stream-offset" } else { "x-other" }, 7_i64).unwrap();
        let mut properties = Vec::new();
        lepus::Properties { headers: Some(headers), ..Default::default() }.encode(&mut properties);
        let one = |n| [deliver(1, "c", n), raw_header(1, 60, 0, 1, &properties), body(1, b"m")].concat();
        server.write(&(1..=10).flat_map(one).collect::<Vec<_>>()).await;
        if stream {
            for _ in 0..10 {
                assert_eq!(next_body(&mut consumer).await, b"m");
            }
        } else {
            let close = server.expect_refusal(406).await;
            assert!(close.reply_text.to_string().contains("prefetch of 3"), "{}", close.reply_text);
        }
    }
}
