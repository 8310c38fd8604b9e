//! Deliveries that can no longer be acknowledged.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use lepus::protocol::{basic, channel};
use lepus::{Consumer, Delivery, ErrorKind, Incoming};

use crate::consuming::{expect_cancel, server_cancel};
use crate::peer::*;

async fn next(consumer: &mut Consumer) -> Delivery {
    within("a delivery", consumer.next()).await.unwrap().unwrap()
}

/// The server's close of the channel, answered.
async fn close(server: &mut Peer) {
    server.send(1, channel::Close { reply_code: 406, ..Default::default() }).await;
    server.expect(1, channel::CloseOk).await;
}

/// Whether a future is done at its first poll.
async fn is_done(future: impl Future<Output = ()>) -> bool {
    let mut future = pin!(future);
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}

#[tokio::test]
async fn a_delivery_goes_stale_with_its_channel() {
    let (mut server, connection, _channel, mut consumer) = with_consumer().await;
    let other = open(&mut server, &connection, 2).await;
    let mut unaffected = crate::peer::consumer(&mut server, &other, "c").await;
    server
        .write(&[delivery(1, "c", 1, b"1"), delivery(1, "c", 2, b"2"), delivery(2, "c", 1, b"3")].concat())
        .await;
    let one = next(&mut consumer).await;
    let (_, two) = next(&mut consumer).await.into_parts();
    let three = next(&mut unaffected).await;
    assert!(!one.is_stale() && !two.is_stale());
    // waited for before it happens, and given up in between
    assert!(!is_done(one.stale()).await);
    within("both to go stale", async { tokio::join!(one.stale(), two.stale(), close(&mut server)) }).await;
    assert!(one.is_stale() && two.is_stale());
    // and after it has happened
    assert!(is_done(one.stale()).await && is_done(two.stale()).await);
    assert!(!three.is_stale());
    server.end().await;
    within("the lost connection to show", three.stale()).await;
    assert!(three.is_stale());
}

#[tokio::test]
async fn a_delivery_goes_stale_when_the_server_cancels_its_consumer_and_others_do_not() {
    let (mut server, _connection, channel, mut consumer) = with_consumer().await;
    let mut other = crate::peer::consumer(&mut server, &channel, "d").await;
    server.write(&[delivery(1, "c", 1, b"1"), delivery(1, "d", 2, b"2")].concat()).await;
    let (one, two) = (next(&mut consumer).await, next(&mut other).await);
    let cancel = server_cancel();
    within("it to go stale", async { tokio::join!(one.stale(), server.write(&cancel)) }).await;
    expect_cancel(&mut server).await;
    assert!(one.is_stale());
    assert!(!two.is_stale() && !is_done(two.stale()).await);
    // a new consumer with the same tag is another one
    let mut again = crate::peer::consumer(&mut server, &channel, "c").await;
    server.write(&delivery(1, "c", 3, b"3")).await;
    assert!(!next(&mut again).await.is_stale());
    // for a server that has kept it
    one.ack().unwrap();
    server.expect(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
}

#[tokio::test]
async fn a_cancel_by_the_user_makes_nothing_stale() {
    let (mut server, _connection, _channel, mut consumer) = with_consumer().await;
    server.write(&delivery(1, "c", 1, b"1")).await;
    let one = next(&mut consumer).await;
    let (cancelled, ()) = both(consumer.cancel(), async {
        expect_cancel(&mut server).await;
        server.send(1, basic::CancelOk { consumer_tag: short("c") }).await;
    })
    .await;
    cancelled.unwrap();
    assert!(!one.is_stale());
}

#[tokio::test]
async fn what_was_delivered_before_a_pause_is_not_stale_because_of_what_comes_after() {
    let (mut server, _connection, _channel, mut consumer) = with_consumer().await;
    server.write(&delivery(1, "c", 1, b"1")).await;
    let one = next(&mut consumer).await;
    let (paused, ()) = both(consumer.pause(), async {
        expect_cancel(&mut server).await;
        server.send(1, basic::CancelOk { consumer_tag: short("c") }).await;
    })
    .await;
    paused.unwrap();
    let (resumed, _) = both(consumer.resume(), server.start_consumer(1, "c")).await;
    resumed.unwrap();
    server.write(&delivery(1, "c", 2, b"2")).await;
    let two = next(&mut consumer).await;
    server.write(&server_cancel()).await;
    within("it to go stale", two.stale()).await;
    assert!(!one.is_stale());
}

#[tokio::test]
async fn without_acks_nothing_is_stale_and_all_is_handed_out() {
    let (mut server, _connection, channel) = with_channel().await;
    let mut consumer = consumer_without_acks(&mut server, &channel, "c").await;
    server.write(&[delivery(1, "c", 1, b"1"), delivery(1, "c", 2, b"2"), server_cancel()].concat()).await;
    expect_cancel(&mut server).await;
    let (one, two) = (next(&mut consumer).await, next(&mut consumer).await);
    close(&mut server).await;
    within("the channel to end", channel.closed()).await;
    assert!(!one.is_stale() && !two.is_stale() && !is_done(one.stale()).await);
}

#[tokio::test]
async fn what_was_taken_with_get_goes_stale_with_its_channel() {
    let (mut server, _connection, channel) = with_channel().await;
    let queue = channel.queue("q").unwrap();
    let (got, ()) = both(queue.get(), async {
        server.receive::<basic::Get>(1).await;
        let ok = basic::GetOk { delivery_tag: 1, ..Default::default() };
        server.write(&[method(1, &ok), content(1, b"got")].concat()).await;
    })
    .await;
    let got = got.unwrap().unwrap();
    assert!(!got.is_stale());
    within("it to go stale", async { tokio::join!(got.stale(), close(&mut server)) }).await;
}

/// Three deliveries that come together, one of them handed out.
async fn one_of_three(server: &mut Peer, consumer: &mut Consumer) -> Delivery {
    server.write(&(1..=3).flat_map(|n| delivery(1, "c", n, b"m")).collect::<Vec<_>>()).await;
    next(consumer).await
}

#[tokio::test]
async fn what_waits_is_not_handed_out_after_the_servers_cancel_but_given_back() {
    let (mut server, _connection, channel, mut consumer) = with_consumer().await;
    let held = one_of_three(&mut server, &mut consumer).await;
    server.write(&[delivery(1, "c", 4, b"m"), server_cancel()].concat()).await;
    expect_cancel(&mut server).await;
    within("it to go stale", held.stale()).await;
    let error = within("the cancel", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConsumerCancelled);
    assert!(consumer.next().await.is_none());
    for delivery_tag in [4, 2, 3] {
        server.expect(1, basic::Nack { delivery_tag, multiple: false, requeue: true }).await;
    }
    drop(consumer);
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn what_waits_is_not_handed_out_after_the_channels_end() {
    let (mut server, _connection, _channel, mut consumer) = with_consumer().await;
    let held = one_of_three(&mut server, &mut consumer).await;
    close(&mut server).await;
    within("it to go stale", held.stale()).await;
    let error = within("the end", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.reply_code(), Some(406));
}

/// Counts handlers that have begun, and those whose future was dropped before its end.
#[derive(Clone, Default)]
struct Counts {
    begun: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

struct Begun(Counts);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_handler_is_stopped_when_its_delivery_goes_stale() {
    let (mut server, _connection, channel) = with_channel().await;
    let (queue, counts) = (channel.queue("q").unwrap(), Counts::default());
    let handler = {
        let counts = counts.clone();
        move |_: Incoming| {
            let begun = Begun(counts.clone());
            async move {
                begun.0.begun.fetch_add(1, Ordering::SeqCst);
                std::future::pending::<Result<(), String>>().await
            }
        }
    };
    let handle = queue.consume().tag("c").handle(handler).concurrency(2);
    let (worker, _) = both(handle, server.start_consumer(1, "c")).await;
    let mut worker = worker.unwrap();
    server.write(&(1..=3).flat_map(|n| delivery(1, "c", n, b"m")).collect::<Vec<_>>()).await;
    nothing_else(&mut server, &channel).await;
    server.write(&server_cancel()).await;
    let error = within("the worker to end", worker.ended()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConsumerCancelled);
    assert_eq!((counts.begun.load(Ordering::SeqCst), counts.dropped.load(Ordering::SeqCst)), (2, 2));
    expect_cancel(&mut server).await;
    // neither acked nor rejected: only the one that no handler had begun goes back
    server.expect(1, basic::Nack { delivery_tag: 3, multiple: false, requeue: true }).await;
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn a_handler_may_ask_to_be_finished() {
    let (mut server, _connection, channel) = with_channel().await;
    let (queue, go) = (channel.queue("q").unwrap(), Arc::new(tokio::sync::Semaphore::new(0)));
    let finished = Arc::new(AtomicUsize::new(0));
    let handler = {
        let (go, finished) = (Arc::clone(&go), Arc::clone(&finished));
        move |_: Incoming| {
            let (go, finished) = (Arc::clone(&go), Arc::clone(&finished));
            async move {
                go.acquire().await.map_err(|error| error.to_string())?.forget();
                finished.fetch_add(1, Ordering::SeqCst);
                Ok::<_, String>(())
            }
        }
    };
    let handle = queue.consume().tag("c").handle(handler).finish_stale(true);
    let (worker, _) = both(handle, server.start_consumer(1, "c")).await;
    let mut worker = worker.unwrap();
    server.write(&delivery(1, "c", 1, b"m")).await;
    nothing_else(&mut server, &channel).await;
    close(&mut server).await;
    within("the channel to end", channel.closed()).await;
    assert_eq!(finished.load(Ordering::SeqCst), 0);
    go.add_permits(1);
    let error = within("the worker to end", worker.ended()).await.unwrap_err();
    assert_eq!((error.reply_code(), finished.load(Ordering::SeqCst)), (Some(406), 1));
}

/// What travels with each message through every queue of the program.
#[test]
fn a_delivery_is_small() {
    assert!(size_of::<Incoming>() <= 64 && size_of::<Delivery>() <= 72);
    assert!(size_of::<lepus::Acker>() <= 16);
}
