//! What goes wrong with TLS, in words that say what to do.

use std::io;
use std::time::Duration;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage};

use super::faults;
use super::server::Server;
use crate::error::{Error, ErrorKind, Origin};

/// The handshake failed.
pub(crate) fn not_secured(server: &Server, error: io::Error) -> Error {
    let (kind, text) = match cause(&error) {
        None => {
            let how = faults::how(Some(&error));
            let text = format!(
                "the connection to {server} was lost during the TLS handshake: {how}; is that the port for TLS?"
            );
            (ErrorKind::ConnectionLost, text)
        }
        Some(TlsError::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            let text = format!(
                "{server} does not speak TLS on this port: use amqp://, or the port for TLS, which is usually 5671"
            );
            (ErrorKind::NotAmqp, text)
        }
        Some(tls) => (ErrorKind::Tls, format!("no TLS with {server}: {}", advice(tls))),
    };
    let is_own = matches!(cause(&error), Some(TlsError::General(_)));
    let failed = Error::new(kind, text).with_source(error);
    if is_own { failed.with_origin(Origin::User) } else { failed }
}

/// The server's alert about the client, where that is what ended a connection: in TLS 1.3 it comes after the handshake.
pub(crate) fn alert(server: &Server, error: &io::Error) -> Option<Error> {
    let tls @ TlsError::AlertReceived(_) = cause(error)? else { return None };
    Some(Error::new(ErrorKind::Tls, format!("no TLS with {server}: {}", advice(tls))))
}

/// It took too long.
pub(crate) fn late(server: &Server, limit: Duration) -> Error {
    let text = format!(
        "{server} accepted the connection and did not finish the TLS handshake within {} s: is that a port for TLS, and does \
         the server run well?",
        limit.as_secs_f32()
    );
    Error::new(ErrorKind::HandshakeTimeout, text)
}

fn cause(error: &io::Error) -> Option<&TlsError> {
    error.get_ref()?.downcast_ref()
}

/// What it means, and what to do.
fn advice(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(error) => certificate(error),
        TlsError::NoCertificatesPresented => "the server has no certificate".into(),
        TlsError::AlertReceived(alert) => refusal(*alert),
        TlsError::PeerIncompatible(_) => {
            "both sides have no version or cipher suite in common; the server must offer TLS 1.2 or 1.3"
                .into()
        }
        _ => "the handshake failed, for the reason in the source of this error".into(),
    }
}

/// What is wrong with the server's certificate.
fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "the server's certificate is not signed by an authority that is trusted here; \
             name its CA certificate with cacertfile or Tls::ca_file"
                .into()
        }
        CertificateError::BadSignature => {
            "the server's certificate is signed by another authority than the one of this name \
             that is trusted here; was that renewed?"
                .into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired, or the clock of this machine is wrong".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet, or the clock of this machine is wrong".into()
        }
        CertificateError::NotValidForName => {
            "the server's certificate is for another host name; connect by a name that it has, or set \
             server_name_indication or Tls::server_name"
                .into()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().map(|name| plain(name)).collect();
            let names = names.join(", ");
            format!(
                "the server's certificate is for {names}, not for {}; connect by a name that it has, or set \
                 server_name_indication or Tls::server_name",
                expected.to_str()
            )
        }
        CertificateError::Revoked => "the server's certificate was revoked".into(),
        _ => "the server's certificate cannot be accepted, for the reason in the source of this error".into(),
    }
}

/// A name as people write it: rustls shows `DnsName("broker")` and `IpAddress(127.0.0.1)`.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

/// Why the server has refused the client.
fn refusal(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "the server wants a client certificate; name one with certfile and keyfile, or Tls::identity_files".into()
        }
        // what servers with TLS 1.2 say for it
        AlertDescription::HandshakeFailure => {
            "the server ended the handshake, perhaps because it wants a client certificate; name one with certfile and \
             keyfile, or Tls::identity_files"
                .into()
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied => format!(
            "the server did not accept the client certificate ({alert:?}); it must be signed by an authority that the server \
             trusts"
        ),
        AlertDescription::CertificateExpired | AlertDescription::CertificateRevoked => {
            format!("the server did not accept the client certificate ({alert:?}); renew it")
        }
        AlertDescription::ProtocolVersion => "the server wants another version than TLS 1.2 or 1.3".into(),
        AlertDescription::UnrecognisedName => {
            "the server does not know the name that it was asked for; set server_name_indication or Tls::server_name".into()
        }
        other => format!("the server ended it with the alert {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::error::Error as _;

    use tokio_rustls::rustls::PeerIncompatible;
    use tokio_rustls::rustls::pki_types::ServerName;

    use super::*;

    fn server() -> Server {
        Server::new("broker".into(), 5671)
    }

    fn failed(error: TlsError) -> Error {
        not_secured(&server(), io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// One error of each text.
    fn all() -> Vec<Error> {
        let expected = ServerName::try_from("broker").unwrap();
        let certificates = [
            CertificateError::UnknownIssuer,
            CertificateError::BadSignature,
            CertificateError::Expired,
            CertificateError::NotValidYet,
            CertificateError::NotValidForName,
            CertificateError::NotValidForNameContext { expected, presented: vec!["other".into()] },
            CertificateError::Revoked,
            CertificateError::BadEncoding,
        ];
        let alerts = [
            AlertDescription::CertificateRequired,
            AlertDescription::HandshakeFailure,
            AlertDescription::UnknownCA,
            AlertDescription::CertificateExpired,
            AlertDescription::ProtocolVersion,
            AlertDescription::UnrecognisedName,
            AlertDescription::InternalError,
        ];
        let mut errors = vec![
            late(&server(), Duration::from_secs(1)),
            not_secured(&server(), io::ErrorKind::UnexpectedEof.into()),
            not_secured(&server(), io::Error::from_raw_os_error(104)),
            failed(TlsError::InvalidMessage(InvalidMessage::InvalidContentType)),
            failed(TlsError::NoCertificatesPresented),
            failed(TlsError::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon)),
            failed(TlsError::DecryptError),
        ];
        errors.extend(certificates.map(|error| failed(TlsError::InvalidCertificate(error))));
        errors.extend(alerts.map(|alert| failed(TlsError::AlertReceived(alert))));
        errors
    }

    #[test]
    fn each_fault_has_a_text_of_its_own_that_names_the_server() {
        let texts: Vec<_> = all().iter().map(Error::to_string).collect();
        for text in &texts {
            assert!(text.contains("broker:5671") && !text.contains("  ") && text.len() < 320, "{text}");
        }
        assert_eq!(texts.iter().collect::<HashSet<_>>().len(), texts.len(), "{texts:#?}");
    }

    #[test]
    fn the_names_of_a_certificate_are_shown_as_people_write_them() {
        let expected = ServerName::try_from("broker").unwrap();
        let presented = vec!["DnsName(\"a.example\")".into(), "IpAddress(::1)".into()];
        let error = failed(CertificateError::NotValidForNameContext { expected, presented }.into());
        assert!(error.to_string().contains("is for a.example, ::1, not for broker;"), "{error}");
    }

    #[test]
    fn no_text_repeats_the_text_of_its_source() {
        for error in all() {
            if let Some(source) = error.source() {
                assert!(!error.to_string().contains(&source.to_string()), "{error:?}");
            }
        }
    }

    #[test]
    fn only_an_alert_tells_why_a_connection_ended_later() {
        let alert_of = |error| alert(&server(), &io::Error::new(io::ErrorKind::InvalidData, error));
        let refused = alert_of(TlsError::AlertReceived(AlertDescription::CertificateRequired)).unwrap();
        assert_eq!((refused.kind(), refused.origin()), (ErrorKind::Tls, Origin::Peer));
        assert!(alert_of(TlsError::DecryptError).is_none());
        assert!(alert(&server(), &io::ErrorKind::ConnectionReset.into()).is_none());
    }
}
