//! Dialling: from a host name to a socket.

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

/// Connects to the first of the host's addresses that accepts, each within `limit`.
pub(crate) async fn dial(host: &str, port: u16, limit: Duration) -> Result<Stream, Error> {
    let failed =
        |why: &str| Error::new(ErrorKind::Connect, format!("cannot connect to {host} port {port}: {why}"));
    let addresses = timeout(limit, lookup_host((host, port)))
        .await
        .map_err(|_| failed("looking up the host took too long"))?
        .map_err(|error| failed("the host was not found").with_source(error))?;
    let mut last = failed("the host has no address");
    for address in addresses {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // what is written is already gathered; waiting for more only adds latency
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY could not be set");
                }
                let (read, write) = stream.into_split();
                return Ok(Stream { read: Box::new(read), write: Box::new(write) });
            }
            Ok(Err(error)) => last = failed(&error.to_string()).with_source(error),
            Err(_) => last = failed("no answer in time"),
        }
    }
    Err(last)
}
