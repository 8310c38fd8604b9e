//! TLS over a stream.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::dial::Stream;
use super::server::Server;
use super::tls_faults;
use crate::error::Error;

/// Performs the TLS handshake within `limit`. `name`: whose certificate the server must have.
///
/// Cancel safe: dropped before it is done, it closes the stream.
pub(crate) async fn secure(
    stream: Stream,
    server: &Server,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    limit: Duration,
) -> Result<Stream, Error> {
    match timeout(limit, TlsConnector::from(config).connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(Stream::Other(Box::new(stream))),
        Ok(Err(error)) => Err(tls_faults::not_secured(server, error)),
        Err(_) => Err(tls_faults::late(server, limit)),
    }
}
