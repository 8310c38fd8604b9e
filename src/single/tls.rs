//! How a connection is secured.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::client::{ClientConfig, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{RootCertStore, version};

use super::any_certificate::AnyCertificate;
use super::uri::{self, Encoded, TlsQuery};
use crate::driver::server::Server;
use crate::error::{Error, ErrorKind, Result};

/// How a connection is secured: whom to trust, and who this client is.
///
/// Without more, the certificates decide that the operating system trusts, and the client has none. TLS 1.2 and 1.3 are spoken,
/// with the secure cipher suites of [rustls](tokio_rustls::rustls).
///
/// ```no_run
/// # async fn example() -> lepus::Result<()> {
/// use lepus::{ConnectOptions, Tls};
///
/// let tls = Tls::new()
///     .ca_file("/etc/ssl/company-ca.pem")
///     .identity_files("/etc/ssl/client.pem", "/etc/ssl/client.key");
/// let connection = ConnectOptions::new("amqps://broker.example")?.tls(tls).connect().await?;
/// # Ok(())
/// # }
/// ```
///
/// The same can be said in the URI: `amqps://broker.example?cacertfile=…&certfile=…&keyfile=…`.
///
/// Files are read again each time it connects, so a certificate that was renewed is used at the next reconnect.
///
/// If the program has installed a [`CryptoProvider`] as the default of the process, that one is used; otherwise the one of the
/// feature `tls` or `tls-ring`. This crate installs none.
#[derive(Clone, Default)]
pub struct Tls {
    roots: Vec<Pem>,
    identity: Option<(Pem, Pem)>,
    server_name: Option<String>,
    sends_name: NameSent,
    accepts_any: bool,
    /// In place of all the others but the name.
    config: Option<Arc<ClientConfig>>,
}

/// Whether the server is told which name it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum NameSent {
    #[default]
    Yes,
    No,
}

/// Certificates or a key in PEM form.
#[derive(Clone)]
enum Pem {
    File(PathBuf),
    Text(Arc<[u8]>),
}

impl Tls {
    /// Trusts what the operating system trusts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authorities in this PEM file, and no others. Several files add up. The file is read at each connect.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.roots.push(Pem::File(path.into()));
        self
    }

    /// The same with the PEM text itself.
    pub fn ca_pem(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.roots.push(Pem::Text(pem.as_ref().into()));
        self
    }

    /// This client's certificate, with the chain up to the authority if there is one, and its private key (PKCS#8, PKCS#1 or SEC1),
    /// as PEM files. They are read at each connect.
    pub fn identity_files(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((Pem::File(certificate.into()), Pem::File(key.into())));
        self
    }

    /// The same with the PEM texts themselves.
    pub fn identity_pem(mut self, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.identity = Some((Pem::Text(certificate.as_ref().into()), Pem::Text(key.as_ref().into())));
        self
    }

    /// The name that the server is asked for, and that its certificate must have; unless set, the host's.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Does not tell the server which name it is asked for. The certificate must have the host's name all the same.
    pub fn without_server_name_indication(mut self) -> Self {
        self.sends_name = NameSent::No;
        self
    }

    /// Accepts any certificate. An attacker between this program and the broker can then read and change everything,
    /// the password included. For experiments only; each connection logs a warning.
    pub fn dangerously_accept_any_certificate(mut self) -> Self {
        self.accepts_any = true;
        self
    }

    /// Uses this configuration as it is, for what the other methods cannot say. Of those only
    /// [`server_name`](Self::server_name) counts beside it.
    pub fn with_config(config: Arc<ClientConfig>) -> Self {
        Self { config: Some(config), ..Self::default() }
    }

    /// What the parameters of a URI say.
    pub(super) fn from_query(query: TlsQuery) -> Result<Self> {
        let refused = |what: &str| Err(config_error(format!("bad AMQP URI: {what}")));
        if query.verify_peer == Some(false) {
            return refused(
                "verify=verify_none would accept anybody as the server: remove it, or call \
                 Tls::dangerously_accept_any_certificate",
            );
        }
        if query.key_password.is_some() {
            return refused(
                "password: encrypted key files are not supported; decrypt the key, for example with openssl pkey",
            );
        }
        if query.depth.is_some() {
            return refused("depth: the length of certificate chains cannot be set, so remove it");
        }
        if query.fail_if_no_peer_cert == Some(false) {
            return refused("fail_if_no_peer_cert=false: a server always has a certificate, so remove it");
        }
        let mut tls = Self::new();
        if let Some(ca) = query.ca_cert_file {
            tls = tls.ca_file(ca);
        }
        tls = match (query.cert_file, query.key_file) {
            (Some(certificate), Some(key)) => tls.identity_files(certificate, key),
            (Some(_), None) => {
                return refused("certfile without keyfile: name the file of the private key, too");
            }
            (None, Some(_)) => {
                return refused("keyfile without certfile: name the file of the certificate, too");
            }
            (None, None) => tls,
        };
        Ok(match query.server_name {
            None => tls,
            Some(uri::ServerName::Name(name)) => tls.server_name(name),
            Some(uri::ServerName::Disable) => tls.without_server_name_indication(),
        })
    }

    /// The parameters of a URI that say this, as far as they can. PEM texts have none, and keys are never shown.
    pub(super) fn to_query(&self) -> Vec<String> {
        let mut query = Vec::new();
        let mut file = |name: &str, pem: &Pem| {
            // a path that is no text has no place in a URI
            if let Pem::File(path) = pem
                && let Some(path) = path.to_str()
            {
                query.push(format!("{name}={}", Encoded(path)));
            }
        };
        // a URI has room for one
        if let [ca] = self.roots.as_slice() {
            file("cacertfile", ca);
        }
        if let Some((certificate @ Pem::File(_), key @ Pem::File(_))) = &self.identity {
            file("certfile", certificate);
            file("keyfile", key);
        }
        if self.sends_name == NameSent::No {
            query.push("server_name_indication=disable".into());
        } else if let Some(name) = &self.server_name {
            query.push(format!("server_name_indication={}", Encoded(name)));
        }
        query
    }

    /// Whether the client has a certificate of its own.
    pub(super) fn has_identity(&self) -> bool {
        self.identity.is_some()
    }

    /// The name that the server's certificate must have.
    pub(super) fn name(&self, server: &Server) -> Result<ServerName<'static>> {
        let name = self.server_name.as_deref().unwrap_or(&server.host);
        // an IPv6 address with a zone: no certificate has that
        let name = name.split_once('%').map_or(name, |(address, _)| address);
        ServerName::try_from(name.to_owned()).map_err(|error| {
            let text = format!("no TLS with {server}: \"{name}\" is no name that a certificate can have");
            config_error(text).with_source(error)
        })
    }

    /// The configuration of a connection. Files are read now.
    pub(super) async fn config(&self, server: &Server) -> Result<Arc<ClientConfig>> {
        if let Some(config) = &self.config {
            return Ok(Arc::clone(config));
        }
        if self.accepts_any {
            tracing::warn!(
                host = %server.host,
                port = server.port,
                "the certificate of the server is not verified: anybody can read and change what is sent"
            );
        }
        let tls = self.clone();
        let built = tokio::task::spawn_blocking(move || tls.build()).await;
        let built =
            built.unwrap_or_else(|error| Err(config_error("reading the certificates").with_source(error)));
        built.map(Arc::new)
    }

    fn build(&self) -> Result<ClientConfig> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|error| config_error("TLS 1.2 and 1.3 need other cipher suites").with_source(error))?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(provider)?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificate.certificates("the client's certificate")?;
                builder.with_client_auth_cert(chain, key.key()?).map_err(|error| {
                    let text = match error {
                        tokio_rustls::rustls::Error::InconsistentKeys(_) => {
                            format!("{key} is not the key of {certificate}")
                        }
                        // such as a certificate of version 1, which openssl makes without extensions
                        tokio_rustls::rustls::Error::InvalidCertificate(_) => {
                            format!("{certificate} has a certificate that cannot be used; it must be X.509 version 3")
                        }
                        _ => format!("{key} has a key of a kind that is not supported"),
                    };
                    config_error(text).with_source(error)
                })?
            }
        };
        config.enable_sni = self.sends_name == NameSent::Yes;
        Ok(config)
    }

    /// Who decides whether the server is the one that is meant.
    fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
        if self.accepts_any {
            return Ok(Arc::new(AnyCertificate::new(provider)));
        }
        if self.roots.is_empty() {
            let verifier = rustls_platform_verifier::Verifier::new(provider).map_err(|error| {
                let text = "the certificates that the operating system trusts cannot be read; name a CA with cacertfile \
                            or Tls::ca_file";
                config_error(text).with_source(error)
            })?;
            return Ok(Arc::new(verifier));
        }
        let mut store = RootCertStore::empty();
        for pem in &self.roots {
            for certificate in pem.certificates("a CA certificate")? {
                store.add(certificate).map_err(|error| {
                    config_error(format!("{pem} has a CA certificate that cannot be read")).with_source(error)
                })?;
            }
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build();
        match verifier {
            Ok(verifier) => Ok(verifier),
            Err(error) => Err(config_error("no CA certificate can be used").with_source(error)),
        }
    }
}

/// The provider that the program has installed, or the one of the feature.
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

impl Pem {
    fn read(&self) -> Result<Arc<[u8]>> {
        match self {
            Self::Text(text) => Ok(Arc::clone(text)),
            Self::File(path) => std::fs::read(path)
                .map(Into::into)
                .map_err(|error| config_error(format!("{self} cannot be read")).with_source(error)),
        }
    }

    fn certificates(&self, wanted: &str) -> Result<Vec<CertificateDer<'static>>> {
        let text = self.read()?;
        let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let found = found.map_err(|error| self.malformed(error))?;
        if found.is_empty() {
            return Err(config_error(format!(
                "{self} has no certificate in PEM form; it should be {wanted}"
            )));
        }
        Ok(found)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>> {
        let text = self.read()?;
        PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
            pem::Error::NoItemsFound if is_encrypted(&text) => config_error(format!(
                "{self} is an encrypted key; decrypt it, for example with openssl pkey, or use Tls::with_config"
            )),
            pem::Error::NoItemsFound => {
                config_error(format!("{self} has no private key in PEM form (PKCS#8, PKCS#1 or SEC1)"))
            }
            error => self.malformed(error),
        })
    }

    fn malformed(&self, error: pem::Error) -> Error {
        // its text may quote the line
        drop(error);
        config_error(format!("{self} is not in PEM form"))
    }
}

fn is_encrypted(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

impl fmt::Display for Pem {
    /// The file's name, and nothing of what is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Text(_) => f.write_str("the PEM text"),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Tls {
    /// The files' names, and nothing of what is in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("roots", &self.roots)
            .field("identity", &self.identity)
            .field("server_name", &self.server_name)
            .field("accepts_any", &self.accepts_any)
            .field("has_config", &self.config.is_some())
            .finish_non_exhaustive()
    }
}

fn config_error(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, text.into())
}
