//! Dialling: from a host name to a socket.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::connector::Connector;
use super::faults;
use super::server::Server;
use crate::error::Error;

/// The reading half of a connection: TCP, or anything else that carries bytes, such as TLS.
pub(crate) type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
/// The writing half.
pub(crate) type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// Both halves.
pub(crate) struct Stream {
    pub read: ReadHalf,
    pub write: WriteHalf,
}

/// The addresses of a host, at least one.
pub(crate) async fn resolve(server: &Server, limit: Duration) -> Result<Vec<SocketAddr>, Error> {
    let found = timeout(limit, lookup_host((server.host.as_str(), server.port)))
        .await
        .map_err(|_| faults::slow_lookup(server, limit))?
        .map_err(|error| faults::not_found(server, Some(error)))?;
    let addresses: Vec<_> = found.collect();
    if addresses.is_empty() { Err(faults::not_found(server, None)) } else { Ok(addresses) }
}

/// Connects to an address of the host.
pub(crate) async fn dial(server: &Server, address: SocketAddr, limit: Duration) -> Result<Stream, Error> {
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            // what is written is already gathered; waiting for more only adds latency
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY could not be set");
            }
            let (read, write) = stream.into_split();
            Ok(Stream { read: Box::new(read), write: Box::new(write) })
        }
        Ok(Err(error)) => Err(faults::not_connected(server, Some(address), limit, Some(error))),
        Err(_) => Err(faults::not_connected(server, Some(address), limit, None)),
    }
}

/// Has the user's connector connect to the host.
pub(crate) async fn dial_with(
    connector: &Connector,
    server: &Server,
    limit: Duration,
) -> Result<Stream, Error> {
    match timeout(limit, connector.connect(&server.host, server.port)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(faults::not_connected(server, None, limit, Some(error))),
        Err(_) => Err(faults::not_connected(server, None, limit, None)),
    }
}
