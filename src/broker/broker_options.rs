//! What a broker is started with.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::Broker;
use crate::codec::primitive::heartbeat_seconds;

/// What a [`Broker`] is started with; [`Broker::options`] gives the defaults. `Debug` shows no password.
#[derive(Clone)]
#[must_use = "nothing is started before `start`"]
pub struct Options {
    /// None without a port.
    pub(super) address: Option<SocketAddr>,
    /// Whether clients may speak TLS.
    #[cfg(feature = "_tls")]
    pub(super) tls: bool,
    /// Whether clients over TLS need a certificate.
    #[cfg(feature = "_tls")]
    pub(super) requires_client_certificate: bool,
    /// None for `guest` alone.
    pub(super) users: Vec<(String, String)>,
    pub(super) vhosts: Vec<String>,
    pub(super) frame_max: u32,
    pub(super) channel_max: u16,
    pub(super) heartbeat: u16,
    pub(super) handshake_timeout: Duration,
    pub(super) message_max: u64,
    pub(super) memory_limit: Option<u64>,
    /// Random without one.
    pub(super) seed: Option<u64>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.users.iter().map(|(name, _password)| name).collect();
        f.debug_struct("Options")
            .field("address", &self.address)
            .field("users", &names)
            .field("vhosts", &self.vhosts)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            #[cfg(feature = "_tls")]
            tls: false,
            #[cfg(feature = "_tls")]
            requires_client_certificate: false,
            users: Vec::new(),
            vhosts: vec!["/".into()],
            frame_max: 131_072,
            channel_max: 2047,
            heartbeat: 60,
            handshake_timeout: Duration::from_secs(10),
            message_max: 128 << 20,
            memory_limit: None,
            seed: None,
        }
    }
}

impl Options {
    /// Where to listen; a free port of 127.0.0.1 unless set.
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = Some(address);
        self
    }

    /// Listens nowhere: the broker has the connections alone that it is [given](Broker::serve), and opens no socket. It needs
    /// a runtime with time enabled, and may run on a paused clock.
    pub fn without_port(mut self) -> Self {
        self.address = None;
        self
    }

    /// Also takes connections over TLS: on a second free port of the same address, and in memory. The broker makes an authority
    /// and a certificate for `localhost`, 127.0.0.1 and `::1` when it starts; [`Broker::ca_pem`] gives clients what they have to
    /// trust.
    ///
    /// Clients are asked for a certificate, and need none. Needs the feature `tls` or `tls-ring`.
    #[cfg(feature = "_tls")]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// The same, and refuses clients over TLS that have no certificate from [`Broker::client_identity`].
    #[cfg(feature = "_tls")]
    pub fn tls_with_client_certificates(mut self) -> Self {
        (self.tls, self.requires_client_certificate) = (true, true);
        self
    }

    /// A user who may log in and do everything, in place of `guest` with the password `guest`. More calls add more users.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.users.push((name.into(), password.into()));
        self
    }

    /// Another virtual host beside `/`.
    pub fn vhost(mut self, name: impl Into<String>) -> Self {
        self.vhosts.push(name.into());
        self
    }

    /// The largest frame, in bytes; 131,072 unless set, at least 4,096.
    pub fn frame_max(mut self, bytes: u32) -> Self {
        self.frame_max = bytes.max(4096);
        self
    }

    /// How many channels a connection may have; 2,047 unless set, 0 for no limit.
    pub fn channel_max(mut self, channels: u16) -> Self {
        self.channel_max = channels;
        self
    }

    /// The heartbeat interval that is proposed; 60 s unless set, zero for none. A fraction of a second is rounded up, and
    /// more than 65,535 s are lowered to that.
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = heartbeat_seconds(interval);
        self
    }

    /// How long a client may take for each step of the login; 10 s unless set.
    pub fn handshake_timeout(mut self, time: Duration) -> Self {
        self.handshake_timeout = time;
        self
    }

    /// The largest message body, in bytes; 128 MiB unless set.
    pub fn message_max(mut self, bytes: u64) -> Self {
        self.message_max = bytes;
        self
    }

    /// Bytes of bodies that the broker holds before it blocks publishers, as `RabbitMQ` does at its memory
    /// watermark; no limit unless set. What a publisher has sent before it is blocked is still taken.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Where the names come from that the broker invents, of queues and consumers, so that a test is the same each time; random
    /// unless set.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the broker in the background of the current runtime.
    ///
    /// # Errors
    /// When it cannot listen on the address.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time and, unless [without a port](Self::without_port), I/O enabled.
    #[expect(clippy::unused_async, reason = "what listens may have to be waited for, one day")]
    pub async fn start(mut self) -> io::Result<Broker> {
        if self.users.is_empty() {
            self = self.user("guest", "guest");
        }
        Broker::with(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_users_and_no_password() {
        let shown = format!("{:?}", Broker::options().user("me", "hush-hush"));
        assert!(shown.contains("\"me\"") && !shown.contains("hush"), "{shown}");
    }
}
