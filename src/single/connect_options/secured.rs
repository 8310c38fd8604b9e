//! What TLS means for a connection.

use super::ConnectOptions;
use crate::driver::dial::Stream;
use crate::driver::server::Server;
use crate::driver::tls::secure;
use crate::error::Result;
use crate::mux::sasl::Mechanism;
use crate::single::tls::Tls;
use crate::single::uri::TlsQuery;

impl ConnectOptions {
    /// Secures the connection with TLS in this way, in place of what the URI says. Hosts and ports stay as they are: write
    /// the URI with `amqps`, or name the port.
    ///
    /// A client certificate proves who the client is, but does not log in unless
    /// [`mechanisms`](Self::mechanisms) has [`Mechanism::External`].
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// What a URI with `amqps` means. The server knows a client with a certificate and no password by the certificate.
    pub(super) fn read_tls(&mut self, query: TlsQuery, has_password: bool) -> Result<()> {
        let tls = Tls::from_query(query)?;
        if tls.has_identity() && !has_password {
            self.mechanisms = vec![Mechanism::External];
        }
        self.tls = Some(tls);
        Ok(())
    }

    /// The stream, secured if that is wanted.
    pub(super) async fn secured(&self, stream: Stream, server: &Server) -> Result<Stream> {
        let Some(tls) = &self.tls else { return Ok(stream) };
        let (name, config) = (tls.name(server)?, tls.config(server).await?);
        secure(stream, server, name, config, self.handshake_timeout).await
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "amqps" } else { "amqp" }
    }

    pub(super) fn tls_query(&self) -> Vec<String> {
        self.tls.iter().flat_map(Tls::to_query).collect()
    }
}
