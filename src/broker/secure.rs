//! Connections over TLS.

use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::authority::{Authority, ServerCertificate};
use super::socket::{FAREWELL, Peer, Shared, serve};
use super::{Broker, PIPE};

/// TLS, with certificates that the broker has made for itself: see [`Options::tls`](super::Options::tls). Needs the feature
/// `tls` or `tls-ring`.
impl Broker {
    /// Where it listens for TLS, as a URL with the first user's name and password, and the virtual host `/`. Without a port,
    /// or without TLS, the host is `broker.invalid`.
    pub fn tls_url(&self) -> String {
        self.in_vhost("/").url_at("amqps", self.tls_address)
    }

    /// Where it listens for TLS; the same after a [restart](Self::restart). `None` without a port, or without TLS.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// The certificate of the authority that signs the broker's certificates, in PEM form, for
    /// [`Tls::ca_pem`](crate::Tls::ca_pem). Empty without TLS.
    pub fn ca_pem(&self) -> String {
        self.authority.as_ref().map(|authority| authority.pem()).unwrap_or_default()
    }

    /// A new certificate for a client and its key, in PEM form, for [`Tls::identity_pem`](crate::Tls::identity_pem). With
    /// it the client can log in as this user with the mechanism `EXTERNAL`, if there is one of the name.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] without TLS; when the certificate cannot be made.
    pub fn client_identity(&self, user: &str) -> io::Result<(String, String)> {
        self.authority()?.identify(user)
    }

    /// Another authority signs another certificate of the broker, as when they are renewed. Clients' certificates from before
    /// are refused. Connections that are there go on.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] without TLS; when the certificate cannot be made.
    pub fn renew_authority(&self) -> io::Result<()> {
        self.authority()?.renew()
    }

    /// Shows this certificate to clients that connect from now on, until it is called again or the authority is renewed.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] without TLS; when the certificate cannot be made.
    pub fn show_certificate(&self, certificate: ServerCertificate) -> io::Result<()> {
        self.authority()?.show(certificate)
    }

    /// As [`connector`](Self::connector), for connections in memory that speak TLS. Without TLS they are refused.
    pub fn tls_connector(
        &self,
    ) -> impl Fn(&str, u16) -> Ready<io::Result<DuplexStream>> + Clone + Send + Sync + use<> {
        let (shared, authority) = (Arc::clone(&self.shared), self.authority.clone());
        move |_host, _port| {
            let Some(authority) = authority.clone() else {
                return ready(Err(io::ErrorKind::ConnectionRefused.into()));
            };
            let (client, broker) = duplex(PIPE);
            let served = accept(Arc::clone(&shared), authority, broker, None);
            ready(shared.take(Box::pin(served)).map(|()| client))
        }
    }

    fn authority(&self) -> io::Result<&Authority> {
        self.authority.as_deref().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

/// Takes connections until it is dropped.
pub(super) async fn listen(shared: Arc<Shared>, authority: Arc<Authority>, listener: TcpListener) {
    loop {
        if let Ok((stream, peer)) = listener.accept().await {
            // small replies must not wait; without it they are only slower
            drop(stream.set_nodelay(true));
            let served = accept(Arc::clone(&shared), Arc::clone(&authority), stream, Some(peer));
            // refused: the broker is being stopped
            drop(shared.take(Box::pin(served)));
        } else {
            // out of file descriptors: others will be free soon
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Performs the TLS handshake and serves the client.
async fn accept<T>(shared: Arc<Shared>, authority: Arc<Authority>, stream: T, address: Option<SocketAddr>)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let limit = shared.look(|state| state.options.handshake_timeout);
    let accepting = authority.acceptor().accept(stream).into_fallible();
    let stream = match timeout(limit, accepting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((_, stream))) => return part(stream).await,
        Err(_) => return,
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let identity = certificate.and_then(|certificate| authority.name_of(certificate));
    let (reader, writer) = split(stream);
    serve(shared, reader, writer, Peer { address, identity }).await;
}

/// Lets the client read why it was refused: a socket that is closed with bytes unread takes the last words with it.
async fn part(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = [0; 1024];
    let rest = async {
        if stream.shutdown().await.is_ok() {
            while matches!(stream.read(&mut buffer).await, Ok(count) if count > 0) {}
        }
    };
    drop(timeout(FAREWELL, rest).await);
}
