//! Whom a connection is with, as errors and logs name it.

use std::fmt;
use std::net::Ipv6Addr;

use crate::error::{Error, ErrorKind};

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub host: String,
    pub port: u16,
    /// The robust layer warns of the loss itself, and of one that never was in use not at all.
    pub quiet: bool,
}

impl Server {
    pub(crate) const fn new(host: String, port: u16) -> Self {
        Self { host, port, quiet: false }
    }

    /// The same, of a connection whose loss somebody else logs.
    pub(crate) const fn quiet(host: String, port: u16) -> Self {
        Self { host, port, quiet: true }
    }

    /// Logs why a connection has ended; called once for each.
    pub(super) fn log_end(&self, error: &Error) {
        let Self { host, port, quiet } = self;
        if *quiet || matches!(error.kind(), ErrorKind::Closed | ErrorKind::RuntimeEnded) {
            tracing::debug!(%host, port, error = format_args!("{error:#}"), "the connection has ended");
        } else {
            tracing::warn!(%host, port, error = format_args!("{error:#}"), "the connection is lost");
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        let address = host.split_once('%').map_or(host.as_str(), |(address, _zone)| address);
        if address.parse::<Ipv6Addr>().is_ok() {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_as_in_a_uri() {
        for (host, shown) in [
            ("h", "h:1"),
            ("127.0.0.1", "127.0.0.1:1"),
            ("::1", "[::1]:1"),
            ("fe80::1%eth0", "[fe80::1%eth0]:1"),
        ] {
            assert_eq!(Server::new(host.into(), 1).to_string(), shown);
        }
    }
}
