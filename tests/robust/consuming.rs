//! Consuming across a loss.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use lepus::{ErrorKind, Settled};
use tokio::time::timeout;

use crate::case::test;
use crate::through::{Through, soon};

#[test]
fn an_ack_from_before_the_loss_is_stale_and_the_message_comes_again() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        for number in 1..=3 {
            channel.default_exchange().publish(queue.name(), format!("{number}")).await.unwrap();
        }
        let mut deliveries = queue.consume().prefetch(2).await.unwrap();
        let first = soon(deliveries.next()).await.unwrap().unwrap();
        robust.cut().await;
        // the second one, which waited here, is not handed out twice
        let again = soon(deliveries.next()).await.unwrap().unwrap();
        assert_eq!((again.body_str(), again.redelivered()), (Some("1"), true));
        assert_eq!(first.ack_multiple().unwrap(), Settled::Stale);
        assert_eq!(robust.connection.counters().stale_acks, 1);
        again.ack().unwrap();
        for expected in ["2", "3"] {
            let delivery = soon(deliveries.next()).await.unwrap().unwrap();
            assert_eq!(delivery.body_str(), Some(expected));
            delivery.ack().unwrap();
        }
        deliveries.cancel().await.unwrap();
        assert!(deliveries.next().await.is_none());
        robust.cut().await;
        assert_eq!(channel.declare_queue(queue.name()).passive().await.unwrap().consumer_count(), 0);
    });
}

#[test]
fn consumers_keep_their_own_prefetch_and_tag() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        channel.qos(2).await.unwrap();
        let mut two = queue.consume().await.unwrap();
        let mut one = queue.consume().prefetch(1).await.unwrap();
        let tags = (two.tag().clone(), one.tag().clone());
        robust.cut().await;
        assert_eq!((two.tag().clone(), one.tag().clone()), tags);
        for _ in 0..6 {
            channel.default_exchange().publish(queue.name(), "x").await.unwrap();
        }
        let mut kept = Vec::new();
        kept.push(soon(one.next()).await.unwrap().unwrap());
        for _ in 0..2 {
            kept.push(soon(two.next()).await.unwrap().unwrap());
        }
        assert_eq!(kept[0].consumer_tag(), tags.1.to_string());
        let left = channel.declare_queue(queue.name()).passive().await.unwrap().message_count();
        assert_eq!(left, 3);
    });
}

#[test]
fn a_paused_consumer_stays_paused_across_a_loss() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let mut deliveries = queue.consume().await.unwrap();
        deliveries.pause().await.unwrap();
        robust.cut().await;
        channel.default_exchange().publish(queue.name(), "1").await.unwrap();
        assert!(timeout(Duration::from_millis(100), deliveries.next()).await.is_err());
        assert_eq!(channel.declare_queue(queue.name()).passive().await.unwrap().consumer_count(), 0);
        deliveries.resume().await.unwrap();
        soon(deliveries.next()).await.unwrap().unwrap().ack().unwrap();
        robust.cut().await;
        channel.default_exchange().publish(queue.name(), "2").await.unwrap();
        soon(deliveries.next()).await.unwrap().unwrap().ack().unwrap();
    });
}

#[test]
fn a_consumer_that_the_server_cancelled_comes_back_with_its_queue() {
    test(async |t| {
        let robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let mut deliveries = queue.consume().await.unwrap();
        let plain = t.connect().await;
        let other = plain.channel().await.unwrap();
        let waiting = tokio::spawn(async move { (deliveries.next().await, deliveries) });
        other.queue(queue.name()).unwrap().delete().await.unwrap();
        other.declare_queue(queue.name()).await.unwrap();
        other.default_exchange().publish(queue.name(), "1").await.unwrap();
        let (delivery, _deliveries) = soon(waiting).await.unwrap();
        let delivery = delivery.unwrap().unwrap();
        assert_eq!(delivery.body_str(), Some("1"));
        delivery.ack().unwrap();
    });
}

#[test]
fn or_its_stream_ends_as_the_user_chooses() {
    test(async |t| {
        let robust = Through::with(|options| options.revive_consumers(false)).await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let mut deliveries = queue.consume().await.unwrap();
        queue.delete().await.unwrap();
        let error = soon(deliveries.next()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConsumerCancelled);
        assert!(deliveries.next().await.is_none());
    });
}

#[test]
fn a_consumer_may_be_polled_outside_of_the_runtime() {
    /// Polls wherever it is called, without a runtime.
    fn wait<T>(future: impl Future<Output = T>) -> T {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(output) => return output,
                Poll::Pending => thread::park(),
            }
        }
    }

    test(async |t| {
        let robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let mut deliveries = queue.consume().await.unwrap();
        // the server cancels it
        queue.delete().await.unwrap();
        let (told, taken) = tokio::sync::oneshot::channel();
        let polling = thread::spawn(move || {
            let delivery = wait(deliveries.next()).unwrap().unwrap();
            told.send(delivery.body_str().unwrap().to_owned()).unwrap();
            delivery.ack().unwrap();
        });
        let plain = t.connect().await;
        let other = plain.channel().await.unwrap();
        other.declare_queue(queue.name()).await.unwrap();
        other.default_exchange().publish(queue.name(), "1").await.unwrap();
        assert_eq!(soon(taken).await.expect("it panicked"), "1");
        polling.join().unwrap();
    });
}

#[test]
fn a_handler_goes_on_and_drains() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let seen = Arc::new(AtomicUsize::new(0));
        let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
        let counter = Arc::clone(&seen);
        let worker = queue
            .consume()
            .handle(move |_| {
                let (counter, told) = (Arc::clone(&counter), told.clone());
                async move {
                    told.send(counter.fetch_add(1, Ordering::Relaxed)).unwrap();
                    Ok::<_, std::io::Error>(())
                }
            })
            .await
            .unwrap();
        channel.default_exchange().publish(queue.name(), "1").await.unwrap();
        soon(tells.recv()).await.unwrap();
        robust.cut().await;
        channel.default_exchange().publish(queue.name(), "2").await.unwrap();
        soon(tells.recv()).await.unwrap();
        worker.drain().await.unwrap();
        robust.connection.close().await.unwrap();
        assert!(seen.load(Ordering::Relaxed) >= 2);
    });
}

#[test]
fn a_drain_gives_back_what_nobody_has_seen_and_waits_for_the_rest() {
    test(async |t| {
        let robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        for _ in 0..10 {
            channel.default_exchange().publish(queue.name(), "x").await.unwrap();
        }
        let mut deliveries = queue.consume().await.unwrap();
        let delivery = soon(deliveries.next()).await.unwrap().unwrap();
        let confirm = channel.default_exchange().enqueue(queue.name(), "y").await.unwrap();
        let connection = robust.connection.clone();
        let draining = tokio::spawn(async move { connection.drain(Duration::from_secs(10)).await });
        // one that comes before the drain has begun, and is dropped, goes back when the connection closes
        while soon(deliveries.next()).await.is_some() {}
        assert!(!draining.is_finished());
        delivery.ack().unwrap();
        soon(draining).await.unwrap().unwrap();
        soon(confirm).await.unwrap();
        let plain = t.connect().await;
        let asked = plain.channel().await.unwrap().declare_queue(queue.name()).passive().await.unwrap();
        assert_eq!(asked.message_count(), 10);
    });
}

#[test]
fn a_drain_has_an_end() {
    test(async |t| {
        let robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        channel.default_exchange().publish(queue.name(), "x").await.unwrap();
        let mut deliveries = queue.consume().await.unwrap();
        let delivery = soon(deliveries.next()).await.unwrap().unwrap();
        let drained = robust.connection.drain(Duration::from_millis(50)).await;
        assert_eq!(drained.unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(delivery.ack().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(channel.closed().await.kind(), ErrorKind::Closed);
    });
}

#[test]
fn a_drain_takes_back_what_a_cancelled_consumer_has_not_handed_out() {
    test(async |t| {
        let robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        for _ in 0..3 {
            channel.default_exchange().publish(queue.name(), "x").await.unwrap();
        }
        let mut deliveries = queue.consume().await.unwrap();
        soon(deliveries.next()).await.unwrap().unwrap().ack().unwrap();
        deliveries.cancel().await.unwrap();
        soon(robust.connection.drain(Duration::from_secs(10))).await.unwrap();
        let plain = t.connect().await;
        let asked = plain.channel().await.unwrap().declare_queue(queue.name()).passive().await.unwrap();
        assert_eq!(asked.message_count(), 2);
    });
}

#[test]
fn every_drain_waits_also_for_what_was_got() {
    test(async |t| {
        let robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        channel.default_exchange().publish(queue.name(), "x").await.unwrap();
        let delivery = queue.get().await.unwrap().unwrap();
        let drain = || {
            let connection = robust.connection.clone();
            tokio::spawn(async move { connection.drain(Duration::from_secs(10)).await })
        };
        let mut deliveries = queue.consume().await.unwrap();
        let (one, two) = (drain(), drain());
        // they have begun
        assert!(soon(deliveries.next()).await.is_none());
        assert!(!one.is_finished() && !two.is_finished());
        delivery.ack().unwrap();
        soon(one).await.unwrap().unwrap();
        soon(two).await.unwrap().unwrap();
        let plain = t.connect().await;
        let asked = plain.channel().await.unwrap().declare_queue(queue.name()).passive().await.unwrap();
        assert_eq!(asked.message_count(), 0);
    });
}

#[test]
fn what_needs_no_ack_outlives_a_pause_and_a_drain() {
    test(async |t| {
        let robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let plain = t.connect().await.channel().await.unwrap();
        let taken = async || {
            while plain.declare_queue(queue.name()).passive().await.unwrap().message_count() > 0 {}
        };
        let mut deliveries = queue.consume().no_ack().await.unwrap();
        for number in ["1", "2"] {
            channel.default_exchange().publish(queue.name(), number).await.unwrap();
        }
        soon(taken()).await;
        deliveries.pause().await.unwrap();
        assert_eq!(soon(deliveries.next()).await.unwrap().unwrap().body_str(), Some("1"));
        deliveries.resume().await.unwrap();
        channel.default_exchange().publish(queue.name(), "3").await.unwrap();
        soon(taken()).await;
        soon(robust.connection.drain(Duration::from_secs(10))).await.unwrap();
        for number in ["2", "3"] {
            assert_eq!(soon(deliveries.next()).await.unwrap().unwrap().body_str(), Some(number));
        }
        assert!(soon(deliveries.next()).await.is_none());
    });
}

#[test]
fn a_cancel_that_nobody_waits_for_ends_the_consumer() {
    test(async |t| {
        let robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        for no_ack in [false, true] {
            let consume = queue.consume();
            let mut deliveries = if no_ack { consume.no_ack().await } else { consume.await }.unwrap();
            drop(timeout(Duration::ZERO, deliveries.cancel()).await);
            assert!(soon(deliveries.next()).await.is_none());
        }
    });
}

#[test]
fn a_drain_does_not_wait_for_a_cancelled_consumer_of_a_closed_channel() {
    test(async |t| {
        let robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        let mut deliveries = queue.consume().await.unwrap();
        deliveries.cancel().await.unwrap();
        channel.close().await.unwrap();
        soon(robust.connection.drain(Duration::from_secs(10))).await.unwrap();
        assert!(soon(deliveries.next()).await.is_none());
    });
}
