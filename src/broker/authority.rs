//! The broker's own certificate authority, and what it has signed.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// The names that the broker's certificate has.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Which certificate a [`Broker`](super::Broker) shows to clients; see
/// [`show_certificate`](super::Broker::show_certificate).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerCertificate {
    /// A valid one, for `localhost`, 127.0.0.1 and `::1`.
    Valid,
    /// One that expired years ago.
    Expired,
    /// A valid one for `other.example` alone.
    OtherName,
}

/// Signs certificates of the broker and its clients.
pub(super) struct Authority {
    /// Other brokers' authorities have other names.
    name: String,
    requires_client: bool,
    state: Mutex<Signed>,
}

struct Signed {
    issuer: CertifiedIssuer<'static, KeyPair>,
    acceptor: TlsAcceptor,
    /// The certificates of clients, and whom they name.
    clients: Vec<(CertificateDer<'static>, String)>,
}

impl Authority {
    pub(super) fn new(requires_client: bool) -> io::Result<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let name = format!("lepus test authority {}", NEXT.fetch_add(1, Ordering::Relaxed));
        let state = Mutex::new(Signed::new(&name, requires_client).map_err(io::Error::other)?);
        Ok(Self { name, requires_client, state })
    }

    /// Begins anew, with the same name and another key.
    pub(super) fn renew(&self) -> io::Result<()> {
        let signed = Signed::new(&self.name, self.requires_client).map_err(io::Error::other)?;
        *self.lock() = signed;
        Ok(())
    }

    /// The authority's own certificate.
    pub(super) fn pem(&self) -> String {
        self.lock().issuer.pem()
    }

    pub(super) fn show(&self, certificate: ServerCertificate) -> io::Result<()> {
        let mut signed = self.lock();
        signed.acceptor =
            acceptor(&signed.issuer, certificate, self.requires_client).map_err(io::Error::other)?;
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.lock().acceptor.clone()
    }

    /// A certificate and its key for a client, as PEM texts.
    pub(super) fn identify(&self, name: &str) -> io::Result<(String, String)> {
        let mut signed = self.lock();
        let sign = || {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate()?;
            Ok::<_, rcgen::Error>((params.signed_by(&key, &signed.issuer)?, key))
        };
        let (certificate, key) = sign().map_err(io::Error::other)?;
        signed.clients.push((certificate.der().clone(), name.to_owned()));
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Whom a certificate names that was verified.
    pub(super) fn name_of(&self, certificate: &CertificateDer<'_>) -> Option<String> {
        let signed = self.lock();
        signed.clients.iter().find(|(other, _)| other == certificate).map(|(_, name)| name.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Signed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("requires_client", &self.requires_client).finish_non_exhaustive()
    }
}

/// What may go wrong, and hardly can.
type Fault = Box<dyn std::error::Error + Send + Sync>;

impl Signed {
    fn new(name: &str, requires_client: bool) -> Result<Self, Fault> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let acceptor = acceptor(&issuer, ServerCertificate::Valid, requires_client)?;
        Ok(Self { issuer, acceptor, clients: Vec::new() })
    }
}

/// Accepts clients with a certificate of this authority, and without one unless that is required.
fn acceptor(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    shown: ServerCertificate,
    requires_client: bool,
) -> Result<TlsAcceptor, Fault> {
    let names: &[&str] = match shown {
        ServerCertificate::Valid | ServerCertificate::Expired => &NAMES,
        ServerCertificate::OtherName => &["other.example"],
    };
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "lepus test broker");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if shown == ServerCertificate::Expired {
        params.not_after = date_time_ymd(2001, 1, 1);
    }
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    let mut roots = RootCertStore::empty();
    roots.add(issuer.der().clone())?;
    let provider = provider();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let clients = if requires_client { clients } else { clients.allow_unauthenticated() };
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients.build()?)
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// As for the client; the broker shares no code with what it tests.
fn provider() -> Arc<CryptoProvider> {
    if let Some(installed) = CryptoProvider::get_default() {
        return Arc::clone(installed);
    }
    #[cfg(feature = "tls")]
    let own = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "tls"))]
    let own = tokio_rustls::rustls::crypto::ring::default_provider();
    Arc::new(own)
}
