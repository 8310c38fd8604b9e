//! Dialling: from a host name to a stream of bytes.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, split};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::connector::{Connector, Transport};
use super::faults;
use super::server::Server;
use crate::error::Error;

/// The reading half of a connection: TCP, or anything else that carries bytes, such as TLS.
pub(crate) type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
/// The writing half.
pub(crate) type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// Both halves.
pub(crate) struct Halves {
    pub read: ReadHalf,
    pub write: WriteHalf,
}

/// What a connection runs over, before anything is said.
pub(crate) enum Stream {
    Tcp(TcpStream),
    /// What the user's connector has made, or TLS over one of these.
    Other(Box<dyn Transport>),
}

impl Stream {
    /// TCP is split without a lock.
    pub(crate) fn split(self) -> Halves {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                Halves { read: Box::new(read), write: Box::new(write) }
            }
            Self::Other(stream) => {
                let (read, write) = split(stream);
                Halves { read: Box::new(read), write: Box::new(write) }
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Other(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Other(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Other(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Other(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Other(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Other(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
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
            Ok(Stream::Tcp(stream))
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
