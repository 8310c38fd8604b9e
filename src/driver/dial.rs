//! Dialling: from a host name to a socket.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::error::{Error, ErrorKind};

/// The reading half of a connection: TCP, or anything else that carries bytes, such as TLS.
pub(crate) type ReadHalf = Box<dyn AsyncRead + Send + Sync + Unpin>;
/// The writing half.
pub(crate) type WriteHalf = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// Both halves.
pub(crate) struct Stream {
    pub read: ReadHalf,
    pub write: WriteHalf,
}

/// The addresses of a host, at least one.
pub(crate) async fn resolve(host: &str, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, Error> {
    let failed = |why| failed(host, port, why);
    let found = timeout(limit, lookup_host((host, port)))
        .await
        .map_err(|_| failed("looking up the host took too long"))?
        .map_err(|error| failed("the host was not found").with_source(error))?;
    let addresses: Vec<_> = found.collect();
    if addresses.is_empty() { Err(failed("the host has no address")) } else { Ok(addresses) }
}

/// Connects to an address of the host.
pub(crate) async fn dial(host: &str, address: SocketAddr, limit: Duration) -> Result<Stream, Error> {
    let failed = |why: &str| failed(host, address.port(), why);
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            // what is written is already gathered; waiting for more only adds latency
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY could not be set");
            }
            let (read, write) = stream.into_split();
            Ok(Stream { read: Box::new(read), write: Box::new(write) })
        }
        Ok(Err(error)) => Err(failed(&error.to_string()).with_source(error)),
        Err(_) => Err(failed("no answer in time")),
    }
}

fn failed(host: &str, port: u16, why: &str) -> Error {
    Error::new(ErrorKind::Connect, format!("cannot connect to {host} port {port}: {why}"))
}
