//! Connecting in another way than over TCP.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::dial::Stream;

/// A stream of bytes that a connection can run over: anything that reads and writes, such as a Unix socket, a tunnel through
/// a proxy, or one end of [`tokio::io::duplex`].
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for T {}

type Connecting = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

type Connect = dyn Fn(&str, u16) -> Connecting + Send + Sync;

/// What the user has connections made with.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Connect>);

impl Connector {
    pub(crate) fn new<F, T>(connect: impl Fn(&str, u16) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<T>> + Send + 'static,
        T: Transport,
    {
        Self(Arc::new(move |host, port| {
            let connecting = connect(host, port);
            Box::pin(async move { Ok(Stream::Other(Box::new(connecting.await?))) })
        }))
    }

    /// A new stream to this host and port.
    pub(super) fn connect(&self, host: &str, port: u16) -> Connecting {
        (self.0)(host, port)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}
