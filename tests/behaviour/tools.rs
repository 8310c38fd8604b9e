//! Short forms for what many tests do.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use lepus::{Channel, Connection, Consumer, Delivery, Error, ErrorKind, Queue, Scope};

use crate::case::Case;

impl Case {
    /// A channel on a connection of its own.
    pub(crate) async fn channel(&self) -> Channel {
        self.connect().await.channel().await.unwrap()
    }

    /// A durable queue that other connections can use, too.
    pub(crate) async fn shared_queue(&self, channel: &Channel) -> Queue {
        channel.declare_queue(self.name()).await.unwrap()
    }
}

/// Publishes to a queue, and waits until all of it is confirmed.
pub(crate) async fn fill(queue: &Queue, channel: &Channel, bodies: impl IntoIterator<Item = String>) {
    let exchange = channel.default_exchange();
    for body in bodies {
        drop(exchange.enqueue(queue.name(), body).await.unwrap());
    }
    channel.wait_for_confirms().await.unwrap();
}

/// The numbers from `first` to `last`, as bodies.
pub(crate) fn numbers(first: u32, last: u32) -> impl Iterator<Item = String> {
    (first..=last).map(|number| number.to_string())
}

/// The next delivery, which must be there.
pub(crate) async fn next(consumer: &mut Consumer) -> Delivery {
    consumer.next().await.expect("the stream ended").unwrap()
}

/// The next `count` deliveries.
pub(crate) async fn take(consumer: &mut Consumer, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::with_capacity(count);
    for _ in 0..count {
        deliveries.push(next(consumer).await);
    }
    deliveries
}

/// The bodies as text.
pub(crate) fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(text).collect()
}

/// A body as text.
pub(crate) fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.body().to_vec()).unwrap()
}

/// What a future gives without waiting.
pub(crate) async fn now<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

/// Asks the broker until a queue is as it should be: `(ready messages, consumers)`. What a broker does
/// after an ack, a cancel or a lost connection it tells nobody.
pub(crate) async fn until(connection: &Connection, queue: &Queue, holds: impl Fn(u32, u32) -> bool) {
    let channel = connection.channel().await.unwrap();
    loop {
        let queue = channel.declare_queue(queue.name()).passive().await.unwrap();
        if holds(queue.message_count(), queue.consumer_count()) {
            break;
        }
        tokio::task::yield_now().await;
    }
}

/// Whether a queue or an exchange is gone, by the error of asking for it.
pub(crate) fn is_missing<T>(asked: lepus::Result<T>) -> bool {
    asked.is_err_and(|error| error.reply_code() == Some(404))
}

/// The server closed the channel with this code and a text that has `part`, and nothing else ended.
#[track_caller]
pub(crate) fn closed_the_channel<T>(result: lepus::Result<T>, code: u16, part: &str) -> Error {
    let error = result.err().expect("an error");
    assert_eq!(error.reply_code(), Some(code), "{error}");
    assert_eq!((error.kind(), error.scope()), (ErrorKind::ChannelClosed, Scope::Channel), "{error}");
    assert!(error.reply_text().is_some_and(|text| text.contains(part)), "{error}");
    error
}
