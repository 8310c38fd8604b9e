//! What one client process is told to do.

use std::time::Duration;

use crate::Result;
use crate::measure::Sample;
use crate::work::Work;

/// One work, against one broker, for a time.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub work: Work,
    pub uri: String,
    pub time: Duration,
    /// Against the null broker, which counts what it gets and delivers for ever.
    pub null: bool,
    /// How many messages wait in the queue of a real broker.
    pub waiting: u64,
}

impl Job {
    /// As arguments of a process.
    pub(crate) fn arguments(&self) -> [String; 5] {
        [
            self.work.to_string(),
            self.uri.clone(),
            self.time.as_millis().to_string(),
            u8::from(self.null).to_string(),
            self.waiting.to_string(),
        ]
    }

    /// Reads [`arguments`](Self::arguments).
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let [work, uri, millis, null, waiting] = arguments else {
            return Err("client: <name> <work> <uri> <milliseconds> <0|1> <waiting>".into());
        };
        Ok(Self {
            work: work.parse()?,
            uri: uri.clone(),
            time: Duration::from_millis(millis.parse()?),
            null: null == "1",
            waiting: waiting.parse()?,
        })
    }

    /// How many deliveries can be waited for.
    pub(crate) fn most(&self) -> u64 {
        if self.null { u64::MAX } else { self.waiting }
    }

    /// Where the publisher of [`Work::Both`] publishes to.
    pub(crate) fn queue(&self) -> String {
        self.work.queue()
    }

    /// The sample, if the null broker got all that was published.
    pub(crate) fn checked(&self, sample: Sample, published: u64, counted: u32) -> Result<Sample> {
        if self.null && published != u64::from(counted) {
            return Err(format!("{published} messages published, the broker got {counted}").into());
        }
        Ok(sample)
    }
}

/// A URI taken apart, for clients that do not read it themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub vhost: String,
}

impl Address {
    /// `amqp://user:password@host:port/vhost`, without percent signs but for the vhost `%2f`.
    pub(crate) fn parse(uri: &str) -> Result<Self> {
        let rest = uri.strip_prefix("amqp://").ok_or("the URI must begin with amqp://")?;
        let (authority, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = authority.rsplit_once('@').unwrap_or(("guest:guest", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = place.split_once(':').unwrap_or((place, "5672"));
        let vhost = if matches!(vhost, "" | "%2f" | "%2F") { "/" } else { vhost };
        Ok(Self {
            host: host.into(),
            port: port.parse()?,
            user: user.into(),
            password: password.into(),
            vhost: vhost.into(),
        })
    }
}
