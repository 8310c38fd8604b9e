//! A robust connection through a relay, and somebody else who looks at the broker.

use std::time::Duration;

use lepus::robust::{self, Event, Events, Unrestored};
use lepus::{ConnectOptions, Delivery, Error};
use tokio::time::timeout;

use crate::broker::url;
use crate::case::Case;
use crate::relay::{Direction, Fault, Relay, Trigger};
use crate::wire::{Sent, methods};

/// In this time everything must have happened.
const PATIENCE: Duration = Duration::from_secs(90);

/// Waits, or panics with what was waited for.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A robust connection that can be cut.
pub(crate) struct Patient {
    pub(crate) relay: Relay,
    pub(crate) connection: lepus::Connection,
    /// From its beginning on.
    pub(crate) events: Events,
    /// Straight to the broker.
    pub(crate) other: lepus::Connection,
}

impl Patient {
    pub(crate) async fn new(case: &Case) -> Self {
        Self::with(case, |options| options, robust::Options::clone).await
    }

    pub(crate) async fn with(
        case: &Case,
        connect: impl FnOnce(ConnectOptions) -> ConnectOptions,
        robust: impl FnOnce(&robust::Options) -> robust::Options,
    ) -> Self {
        let relay = Relay::to_broker(url()).await.unwrap();
        relay.record();
        let options = connect(ConnectOptions::new(&relay.url(url())).unwrap());
        let connection = robust(&options.robust()).connect().await.unwrap();
        let events = connection.events();
        Self { relay, connection, events, other: case.connect().await }
    }

    pub(crate) async fn channel(&self) -> lepus::Channel {
        self.connection.channel().await.unwrap()
    }

    /// Cuts the link, and waits until everything is back.
    pub(crate) async fn cut(&self) {
        let before = self.relay.counts().connections();
        self.relay.cut();
        self.back(before).await;
    }

    /// Waits until another link than so many before is there, with everything restored.
    pub(crate) async fn back(&self, before: usize) {
        let came = self.relay.until(|counts| counts.connections() > before);
        within("another link", came).await.unwrap();
        within("ready", self.connection.ready()).await.unwrap();
    }

    /// Cuts the link and refuses others.
    pub(crate) async fn lose(&mut self) {
        self.relay.refuse().await.unwrap();
        self.relay.cut();
        self.event(|event| matches!(event, Event::Lost { .. }).then_some(())).await;
    }

    /// Accepts links again, and waits until everything is back. What could not be restored is returned.
    pub(crate) async fn recover(&mut self) -> Vec<Unrestored> {
        self.relay.accept().await.unwrap();
        self.restored().await
    }

    /// Waits for the next time that it has restored, and returns what it could not.
    pub(crate) async fn restored(&mut self) -> Vec<Unrestored> {
        self.event(|event| match event {
            Event::Restored { unrestored, .. } => Some(unrestored),
            _ => None,
        })
        .await
    }

    /// The next event of a kind.
    pub(crate) async fn event<T>(&mut self, wanted: impl Fn(Event) -> Option<T>) -> T {
        let find = async {
            loop {
                let event = self.events.next().await.expect("the events have ended");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        within("an event", find).await
    }

    /// How many consumers a queue has, as the broker says; `None` if there is no such queue.
    pub(crate) async fn consumers(&self, queue: &str) -> Option<u32> {
        let channel = self.other.channel().await.unwrap();
        channel.declare_queue(queue).passive().await.ok().map(|queue| queue.consumer_count())
    }

    /// Whether there is an exchange of this name.
    pub(crate) async fn has_exchange(&self, name: &str) -> bool {
        let channel = self.other.channel().await.unwrap();
        channel.declare_exchange(name, lepus::ExchangeKind::Topic).passive().await.is_ok()
    }

    /// Somebody else publishes to an exchange; an error with [`ErrorKind::Returned`] if no queue is bound.
    ///
    /// [`ErrorKind::Returned`]: lepus::ErrorKind::Returned
    pub(crate) async fn publish(
        &self,
        exchange: &str,
        key: &str,
        message: impl Into<lepus::Message>,
    ) -> Result<(), Error> {
        let channel = self.other.channel().await?;
        channel.exchange(exchange)?.publish(key, message).mandatory().await
    }

    /// No channel or connection was closed by the broker so far.
    #[track_caller]
    pub(crate) fn nothing_was_closed(&self) {
        for said in self.relay.recorded() {
            let codes: Vec<_> = methods(&said).into_iter().filter_map(Sent::close_code).collect();
            // a restore asks whether the queues of the lost connection are gone, and may be told: locked
            assert!(
                codes.iter().all(|code| *code == 405),
                "the broker closed a channel or connection: {codes:?}"
            );
        }
    }
}

/// A planned fault.
pub(crate) fn at(direction: Direction, offset: u64, fault: Fault) -> Trigger {
    Trigger { direction, offset, fault }
}

/// The next delivery, which must come.
pub(crate) async fn next(consumer: &mut lepus::Consumer) -> Delivery {
    within("a delivery", consumer.next()).await.expect("the stream ended").unwrap()
}

/// The next delivery's body, acknowledged.
pub(crate) async fn take(consumer: &mut lepus::Consumer) -> String {
    let delivery = next(consumer).await;
    let text = delivery.body_str().unwrap().to_owned();
    delivery.ack().unwrap();
    text
}

/// Waits until everything that was sent on a channel, such as acks, has arrived.
pub(crate) async fn arrived(channel: &lepus::Channel) {
    within("an answer", channel.qos(10)).await.unwrap();
}
