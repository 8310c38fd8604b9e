//! A robust connection through a relay.

use std::time::Duration;

use lepus::ConnectOptions;
use lepus::Connection;
use lepus::robust::{Event, Events, Options, Unrestored};
use tokio::time::timeout;

use crate::broker::url;
use crate::relay::Relay;

/// Long enough for anything that is to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A relay, a robust connection through it, and its events.
pub(crate) struct Through {
    pub(crate) relay: Relay,
    pub(crate) connection: Connection,
    pub(crate) events: Events,
}

impl Through {
    pub(crate) async fn new() -> Self {
        Self::with(|options| options).await
    }

    pub(crate) async fn with(options: impl FnOnce(Options) -> Options) -> Self {
        let relay = Relay::to_broker(url()).await.unwrap();
        let robust = options(ConnectOptions::new(&relay.url(url())).unwrap().robust());
        let connection = robust.connect().await.unwrap();
        let events = connection.events();
        Self { relay, connection, events }
    }

    /// Cuts the link and waits until everything is back; tells what is not.
    pub(crate) async fn cut(&mut self) -> Vec<Unrestored> {
        self.relay.cut();
        self.restored().await
    }

    /// Waits until everything is back; tells what is not.
    pub(crate) async fn restored(&mut self) -> Vec<Unrestored> {
        self.event(|event| match event {
            Event::Restored { unrestored, .. } => Some(unrestored),
            _ => None,
        })
        .await
    }

    /// Waits for the loss.
    pub(crate) async fn lost(&mut self) {
        self.event(|event| matches!(event, Event::Lost { .. }).then_some(())).await;
    }

    /// Waits for an event.
    pub(crate) async fn event<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.next().await.expect("the connection has ended");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("the event does not come")
    }
}

/// What comes in time.
pub(crate) async fn soon<F: IntoFuture>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("it does not come")
}
