//! A future that is dropped leaves nothing behind, however often: no waker, no memory.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use lepus::protocol::connection;

use crate::counted::{Count, KIB, alone};
use crate::peer::*;

const TIMES: usize = 100_000;

/// Polls a future once, which must then wait, and drops it; again and again.
fn drop_often<F: Future>(what: &str, future: impl Fn() -> F) {
    let once = || {
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(future()).poll(&mut context).is_pending(), "{what} does not wait");
    };
    // what the first ones take is there to stay
    (0..1000).for_each(|_| once());
    let count = Count::begin();
    (0..TIMES).for_each(|_| once());
    let now = count.now();
    assert!(now < 64 * KIB, "{what}: {} KiB are left of {TIMES}", now / KIB);
}

#[test]
fn whatever_waits_leaves_nothing_behind_when_it_is_dropped() {
    alone(async {
        let (mut server, connection, channel) = with_channel().await;
        let other = open(&mut server, &connection, 2).await;
        let consumer = consumer(&mut server, &channel, "c").await;
        let exchange = channel.default_exchange();
        let confirm = exchange.enqueue("k", "m").await.unwrap();
        server.receive_publish(1).await;

        drop_often("wait_for_confirms", || channel.wait_for_confirms());
        drop_often("channel.closed", || channel.closed());
        drop_often("connection.closed", || connection.closed());

        let (confirm, consumer) = (std::cell::RefCell::new(confirm), std::cell::RefCell::new(consumer));
        drop_often("a confirm", || {
            std::future::poll_fn(|context| pin!(&mut *confirm.borrow_mut()).poll(context))
        });
        drop_often("a consumer", || {
            std::future::poll_fn(|context| pin!(consumer.borrow_mut().next()).poll(context))
        });
        let returns = std::cell::RefCell::new(channel.returns());
        drop_often("returns", || {
            std::future::poll_fn(|context| pin!(returns.borrow_mut().next()).poll(context))
        });
        let blocked = std::cell::RefCell::new(connection.watch_blocked());
        drop_often("blocked", || {
            std::future::poll_fn(|context| pin!(blocked.borrow_mut().changed()).poll(context))
        });

        // the first one is sent and has the turn; those behind wait for it
        drop_often("a call", || other.qos(1));
        drop_often("a declare", || other.declare_queue("q").into_future());

        server.send(0, connection::Blocked { reason: short("low on memory") }).await;
        within("the news", async {
            while connection.blocked().is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        drop_often("a publish that waits", || exchange.publish("k", "m"));
        drop_often("an enqueue that waits", || exchange.enqueue("k", "m"));
    });
}
