//! How a robust connection behaves.

use std::str::FromStr;
use std::time::Duration;

use super::backoff::{Backoff, shuffle};
use super::ledger::extent::RestoreTopology;
use super::runner;
use super::runner::RobustConnection;
use crate::error::{Error, Result};
use crate::single::ConnectOptions;

/// What happens to a publish that has no [`deadline`](crate::Publish::deadline) of its own while there is no connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outage {
    /// It waits until there is one again.
    #[default]
    Wait,
    /// It fails at once with [`ErrorKind::NotSent`](crate::ErrorKind::NotSent): the message will never arrive.
    Fail,
    /// It waits this long at most, and then fails with [`ErrorKind::NotSent`](crate::ErrorKind::NotSent).
    WaitFor(Duration),
}

/// How and where to connect, and what to do after a loss; see [`ConnectOptions::robust`].
///
/// ```no_run
/// # async fn example() -> lepus::Result<()> {
/// use std::time::Duration;
/// use lepus::robust::Outage;
///
/// let connection = lepus::ConnectOptions::new("amqp://a.example")?
///     .robust()
///     .hosts([("b.example", 5672), ("c.example", 5672)])
///     .on_outage(Outage::WaitFor(Duration::from_secs(10)))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// Each setting has a getter, whose name begins with `get_`. A URI can be parsed into this, too: the same as
/// [`ConnectOptions::new`] and [`ConnectOptions::robust`].
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "switches that have nothing to do with each other")]
pub struct Options {
    pub(super) connect: ConnectOptions,
    pub(super) hosts: Vec<(String, u16)>,
    pub(super) shuffled: bool,
    pub(super) backoff: Backoff,
    pub(super) attempts: Option<u32>,
    pub(super) retry_first: bool,
    pub(super) outage: Outage,
    pub(super) unconfirmed_limit: usize,
    pub(super) republish: bool,
    pub(super) revive: bool,
    pub(super) locked_limit: Duration,
    pub(super) restore_topology: RestoreTopology,
    pub(super) refused_limit: Duration,
}

/// The heartbeat interval to offer, unless the user has set one.
const HEARTBEAT: Duration = Duration::from_secs(20);

impl ConnectOptions {
    /// The same for a connection that outlives losses; see [`robust`](crate::robust). Unless a
    /// [`heartbeat`](Self::heartbeat) was set, it is 20 s: so a link that falls silent is replaced after 40 s.
    pub fn robust(self) -> Options {
        Options {
            hosts: self.hosts(),
            connect: self.default_heartbeat(HEARTBEAT),
            shuffled: false,
            backoff: Backoff::new(),
            attempts: None,
            retry_first: false,
            outage: Outage::Wait,
            unconfirmed_limit: 64 << 20,
            republish: true,
            revive: true,
            locked_limit: Duration::from_secs(10),
            restore_topology: RestoreTopology::default(),
            refused_limit: Duration::from_secs(15 * 60),
        }
    }
}

impl Options {
    /// A further host to try, after the URI's hosts and those given before. Each of its addresses is tried.
    pub fn host(mut self, host: impl Into<String>, port: u16) -> Self {
        self.hosts.push((host.into(), port));
        self
    }

    /// Further hosts to try, in this order.
    pub fn hosts<H: Into<String>>(mut self, hosts: impl IntoIterator<Item = (H, u16)>) -> Self {
        self.hosts.extend(hosts.into_iter().map(|(host, port)| (host.into(), port)));
        self
    }

    /// Tries the hosts in a random order, a new one for each round. Unless set, the host of the last link is tried first, and
    /// then the others in their order.
    pub fn shuffled(mut self) -> Self {
        self.shuffled = true;
        self
    }

    /// How long to wait when no host could be connected to; [`Backoff::new`] unless set.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Gives up after so many attempts in a row that failed, each at one host. Goes on for ever unless set.
    pub fn attempts(mut self, most: u32) -> Self {
        self.attempts = Some(most.max(1));
        self
    }

    /// Connecting for the first time is tried as often as after a loss. Otherwise it fails if no host can be
    /// connected to.
    pub fn retry_first_connect(mut self) -> Self {
        self.retry_first = true;
        self
    }

    /// What happens to publishes while there is no connection; [`Outage::Wait`] unless set. For one message:
    /// [`Publish::deadline`](crate::Publish::deadline).
    pub fn on_outage(mut self, outage: Outage) -> Self {
        self.outage = outage;
        self
    }

    /// How many bytes of messages that are not confirmed are kept, to publish them again after a loss; 64 MiB unless
    /// set. Beyond it publishers wait for confirms. One message for each channel is always possible.
    pub fn unconfirmed_limit(mut self, bytes: usize) -> Self {
        self.unconfirmed_limit = bytes;
        self
    }

    /// With `false`, nothing is kept to be published again: a message that was not confirmed when the link was lost
    /// fails with the reason, such as [`ErrorKind::ConnectionLost`](crate::ErrorKind::ConnectionLost). It may have
    /// arrived.
    pub fn republish(mut self, again: bool) -> Self {
        self.republish = again;
        self
    }

    /// Whether a consumer that the server cancelled, because its queue was deleted or moved, starts again as soon as
    /// its queue is there; so unless set. With `false` its stream ends with
    /// [`ErrorKind::ConsumerCancelled`](crate::ErrorKind::ConsumerCancelled).
    ///
    /// A consumer that waits is tried again with pauses of up to a second, for as long as its queue is missing, locked, or
    /// exclusively used by another consumer. If the server refuses it ten times in a row for another reason, such as a missing
    /// permission, its stream ends with the server's error. [`Event`](super::Event)s tell about each step. The same holds
    /// for consumers that are refused during a restore. It takes one free channel of the connection to look for the queue.
    pub fn revive_consumers(mut self, revive: bool) -> Self {
        self.revive = revive;
        self
    }

    /// How long an exclusive queue is tried again that the server says is still locked by the lost connection, while
    /// the rest waits; 10 s unless set.
    pub fn locked_limit(mut self, limit: Duration) -> Self {
        self.locked_limit = limit;
        self
    }

    /// How much of what was declared through the connection is declared again after a loss; [`RestoreTopology::AllInUse`] unless
    /// set: everything, but no queue with `x-expires` that this connection does not consume from.
    pub fn restore_topology(mut self, restored: RestoreTopology) -> Self {
        self.restore_topology = restored;
        self
    }

    /// How long the broker may refuse what it took before, such as user, password or vhost, until the connection gives up;
    /// 15 minutes unless set, and in any case three refusals in a row. A broker may refuse a valid login while it
    /// starts or stops, and while its LDAP or HTTP backend is down: then it answers 403, too. A refusal when connecting for
    /// the first time ends it at once.
    pub fn refused_limit(mut self, limit: Duration) -> Self {
        self.refused_limit = limit;
        self
    }

    pub(crate) async fn connect_robust(&self) -> Result<RobustConnection> {
        runner::connect(self.clone()).await
    }

    /// What each attempt connects with; its own hosts are the first of [`get_hosts`](Self::get_hosts).
    pub fn get_connect_options(&self) -> &ConnectOptions {
        &self.connect
    }

    /// All hosts and their ports, in their order.
    pub fn get_hosts(&self) -> impl Iterator<Item = (&str, u16)> {
        self.hosts.iter().map(|(host, port)| (host.as_str(), *port))
    }

    /// See [`shuffled`](Self::shuffled).
    pub fn get_shuffled(&self) -> bool {
        self.shuffled
    }

    /// See [`backoff`](Self::backoff).
    pub fn get_backoff(&self) -> Backoff {
        self.backoff
    }

    /// See [`attempts`](Self::attempts); `None` for no limit.
    pub fn get_attempts(&self) -> Option<u32> {
        self.attempts
    }

    /// See [`retry_first_connect`](Self::retry_first_connect).
    pub fn get_retry_first_connect(&self) -> bool {
        self.retry_first
    }

    /// See [`on_outage`](Self::on_outage).
    pub fn get_on_outage(&self) -> Outage {
        self.outage
    }

    /// In bytes; see [`unconfirmed_limit`](Self::unconfirmed_limit).
    pub fn get_unconfirmed_limit(&self) -> usize {
        self.unconfirmed_limit
    }

    /// See [`republish`](Self::republish).
    pub fn get_republish(&self) -> bool {
        self.republish
    }

    /// See [`revive_consumers`](Self::revive_consumers).
    pub fn get_revive_consumers(&self) -> bool {
        self.revive
    }

    /// See [`locked_limit`](Self::locked_limit).
    pub fn get_locked_limit(&self) -> Duration {
        self.locked_limit
    }

    /// See [`restore_topology`](Self::restore_topology).
    pub fn get_restore_topology(&self) -> RestoreTopology {
        self.restore_topology
    }

    /// The hosts of one round.
    pub(super) fn round(&self) -> Vec<(String, u16)> {
        let mut hosts = self.hosts.clone();
        if self.shuffled {
            shuffle(&mut hosts);
        }
        hosts
    }
}

impl From<ConnectOptions> for Options {
    /// The same as [`ConnectOptions::robust`].
    fn from(options: ConnectOptions) -> Self {
        options.robust()
    }
}

impl FromStr for Options {
    type Err = Error;

    /// The same as [`ConnectOptions::new`] and [`ConnectOptions::robust`].
    fn from_str(uri: &str) -> Result<Self> {
        ConnectOptions::new(uri).map(Self::from)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Options {
    /// From a URI, as [`ConnectOptions`].
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        ConnectOptions::deserialize(deserializer).map(Self::from)
    }
}
