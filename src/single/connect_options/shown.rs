//! Options as text, without their secrets.

use std::fmt;

use super::ConnectOptions;
use crate::single::uri::{Encoded, Host};

impl fmt::Display for ConnectOptions {
    /// The URI without the password. Query parameters that have their default are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}@", self.scheme(), Encoded(self.get_user()))?;
        let mut separator = "";
        for (host, port) in self.get_hosts() {
            write!(f, "{separator}{}:{port}", Host(host))?;
            separator = ",";
        }
        write!(f, "/{}", Encoded(self.get_vhost()))?;
        let default = Self::default();
        let mut query = Vec::new();
        if self.offer.heartbeat != default.offer.heartbeat {
            query.push(format!("heartbeat={}", self.offer.heartbeat));
        }
        if self.connect_timeout != default.connect_timeout {
            let millis = self.connect_timeout.as_nanos().div_ceil(1_000_000).min(u32::MAX.into());
            query.push(format!("connection_timeout={millis}"));
        }
        if self.offer.channel_max != default.offer.channel_max {
            query.push(format!("channel_max={}", self.offer.channel_max));
        }
        if self.offer.frame_max != default.offer.frame_max {
            query.push(format!("frame_max={}", self.offer.frame_max));
        }
        let tls = self.tls_query();
        // with a certificate, and no password, it would be read as EXTERNAL
        let has_identity = tls.iter().any(|parameter| parameter.starts_with("certfile="));
        if self.mechanisms != default.mechanisms || has_identity {
            let names = self.mechanisms.iter().map(|mechanism| mechanism.name().to_ascii_lowercase());
            query.extend(names.map(|name| format!("auth_mechanism={name}")));
        }
        query.extend(tls);
        if query.is_empty() { Ok(()) } else { write!(f, "?{}", query.join("&")) }
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ConnectOptions");
        #[cfg(feature = "_tls")]
        shown.field("tls", &self.tls);
        shown
            .field("hosts", &self.hosts())
            .field("connector", &self.connector)
            .field("credentials", &self.credentials)
            .field("mechanisms", &self.mechanisms)
            .field("vhost", &self.vhost)
            .field("connect_timeout", &self.connect_timeout)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("connection_name", &self.connection_name)
            .field("offer", &self.offer)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
