//! One connection to a broker.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::single_channel::{SingleChannel, SingleInner};
use super::status::{ConnectionState, Status};
use super::tally::Tally;
use crate::codec::generated::{connection, constants};
use crate::codec::{FieldTable, ShortStr};
use crate::driver::link::Link;
use crate::error::{Error, ErrorKind, Result};
use crate::mux::tune::Agreed;

/// A connection: a handle whose clones share it. It closes in the background when the last of them is dropped, with all
/// channels, consumers and deliveries.
#[derive(Clone)]
pub(crate) struct SingleConnection {
    link: Arc<Link>,
    tally: Arc<Tally>,
    channels: Arc<Mutex<Vec<Weak<SingleInner>>>>,
}

impl SingleConnection {
    pub(super) fn new(link: Link, tally: Arc<Tally>) -> Self {
        Self { link: Arc::new(link), tally, channels: Arc::default() }
    }

    /// Opens a channel, with or without publisher confirms. Cancel safe: a channel that nobody waits for any more is closed
    /// again. `tag_base` is added to the server's delivery tags.
    pub(crate) async fn channel(&self, confirms: bool, tag_base: u64) -> Result<SingleChannel> {
        let channel = SingleChannel::open(&self.link, confirms, tag_base, &self.tally).await?;
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(|other| other.strong_count() > 0);
        channels.push(Arc::downgrade(channel.inner()));
        Ok(channel)
    }

    /// The channels that are in use.
    pub(crate) fn channels(&self) -> Vec<SingleChannel> {
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.iter().filter_map(Weak::upgrade).map(|inner| SingleChannel::of(&inner)).collect()
    }

    /// Stops all consumers, and waits until what they have delivered is acknowledged or dropped, and what was published is
    /// handed over and confirmed.
    pub(crate) async fn drain(&self) {
        let channels = self.channels();
        channels.iter().for_each(SingleChannel::stop_consumers);
        self.tally.idle().await;
        self.tally.handed_over().await;
        // those from before are still held, so they are among these
        for channel in self.channels() {
            channel.all_settled().await;
            channel.flush().await;
        }
    }

    /// What a drain would still wait for, for the text of an error.
    pub(crate) fn left(&self) -> String {
        let unconfirmed = self.channels().iter().map(SingleChannel::unconfirmed).sum();
        left(unconfirmed, &self.tally, self.blocked().as_ref())
    }

    /// Closes the connection, and waits for the server's answer. Dropped before it is done, it closes in the background.
    pub(crate) async fn close(&self) -> Result<()> {
        self.link.close(constants::REPLY_SUCCESS, ShortStr::empty()).await
    }

    /// Ends the connection at once, for this reason, without waiting for the server's answer.
    pub(crate) fn give_up(&self, error: Error) {
        self.link.give_up(error);
    }

    /// Waits until the connection has ended, and tells why.
    pub(crate) async fn closed(&self) -> Error {
        self.link.shared.ended().await;
        self.link.shared.end_reason()
    }

    /// As [`closed`](Self::closed), without keeping the connection open.
    pub(crate) fn over(&self) -> impl Future<Output = Error> + Send + Sync + use<> {
        let shared = Arc::clone(&self.link.shared);
        async move {
            shared.ended().await;
            shared.end_reason()
        }
    }

    /// The host and port that it is with.
    pub(crate) fn server(&self) -> (&str, u16) {
        let server = &self.link.shared.server;
        (&server.host, server.port)
    }

    /// Whether calls are still accepted.
    pub(crate) fn is_open(&self) -> bool {
        self.link.shared.lock().is_open()
    }

    /// Whether it is open, and not silent for longer than a heartbeat interval.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_open() && self.silence().is_none()
    }

    /// For how long nothing has come, if that is longer than a heartbeat interval.
    pub(crate) fn silence(&self) -> Option<Duration> {
        self.link.shared.silence()
    }

    /// How it is.
    pub(crate) fn status(&self) -> Status {
        let shared = &self.link.shared;
        let (state, since) = match (self.is_open(), self.silence()) {
            (true, None) => (ConnectionState::Ready, shared.pulse.lasts()),
            (true, Some(silence)) => (ConnectionState::Silent, silence),
            (false, _) => (ConnectionState::Ended, shared.pulse.lasts()),
        };
        let channels = self.channels();
        Status {
            state,
            since,
            blocked: self.blocked(),
            unconfirmed_messages: channels.iter().map(SingleChannel::unconfirmed).sum(),
            unconfirmed_bytes: None,
            consumers: channels.iter().map(SingleChannel::consumers).sum(),
            last_error: shared.failure().filter(|error| error.kind() != ErrorKind::Closed).cloned(),
        }
    }

    /// Why the server takes no publishes at the moment.
    pub(crate) fn blocked(&self) -> Option<ShortStr> {
        self.link.shared.blocked.borrow().clone()
    }

    /// Watches whether the server takes publishes.
    pub(crate) fn watch_blocked(&self) -> Blocked {
        Blocked::new(self.link.shared.blocked.subscribe())
    }

    /// Gives the server a new secret, and waits for its answer.
    pub(crate) async fn update_secret(&self, new_secret: Bytes, reason: &str) -> Result<()> {
        let reason = ShortStr::try_from(reason)
            .map_err(|error| Error::new(ErrorKind::Argument, format!("the reason: {error}")))?;
        self.link.update_secret(&connection::UpdateSecret { new_secret, reason }).await
    }

    /// What the server says of itself.
    pub(crate) fn server_properties(&self) -> &FieldTable {
        &self.link.server_properties
    }

    /// What was agreed with the server.
    pub(crate) fn agreed(&self) -> Agreed {
        self.link.agreed
    }
}

impl fmt::Debug for SingleConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = self.server();
        f.debug_struct("SingleConnection").field("host", &host).field("port", &port).finish_non_exhaustive()
    }
}

/// What is not done yet, for the text of an error.
pub(crate) fn left(unconfirmed: usize, tally: &Tally, blocked: Option<&ShortStr>) -> String {
    let mut left = Vec::new();
    match tally.waiting() {
        0 => {}
        1 => left.push("1 publish was not handed over".to_owned()),
        publishes => left.push(format!("{publishes} publishes were not handed over")),
    }
    match unconfirmed {
        0 => {}
        1 => left.push("1 publish is not confirmed".to_owned()),
        publishes => left.push(format!("{publishes} publishes are not confirmed")),
    }
    match tally.at_work() {
        0 => {}
        1 => left.push("1 consumer has deliveries that are not acknowledged".to_owned()),
        consumers => left.push(format!("{consumers} consumers have deliveries that are not acknowledged")),
    }
    if let Some(reason) = blocked {
        left.push(format!("the server blocks publishers ({reason})"));
    }
    if left.is_empty() { "something was not written yet".to_owned() } else { left.join("; ") }
}

/// Watches whether the server takes publishes; see [`Connection::watch_blocked`](crate::Connection::watch_blocked).
#[derive(Clone, Debug)]
pub struct Blocked(watch::Receiver<Option<ShortStr>>);

impl Blocked {
    pub(crate) fn new(blocked: watch::Receiver<Option<ShortStr>>) -> Self {
        Self(blocked)
    }

    /// Waits for the next change, and returns the reason, or `None` if publishes are taken again. Quick
    /// changes in between may be missed; the last one is not. After the connection's end: waits for ever.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn changed(&mut self) -> Option<ShortStr> {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.0.borrow_and_update().clone()
    }
}
