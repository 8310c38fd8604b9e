//! What goes wrong with TLS, and what the user is told.

use std::future::ready;
use std::io;
use std::time::Duration;

use lepus::broker::{Broker, ServerCertificate};
use lepus::{ConnectOptions, Error, ErrorKind, Origin, Scope, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::tools::{Folder, broker, trusting};

/// Fails to connect, with an error that names host and port and says this.
async fn refused(options: ConnectOptions, kind: ErrorKind, text: &str) -> Error {
    let (host, port) = options.get_hosts().map(|(host, port)| (host.to_owned(), port)).next().unwrap();
    let error = options.connect().await.unwrap_err();
    assert_eq!((error.kind(), error.scope()), (kind, Scope::Connection), "{error:?}");
    let shown = error.to_string();
    assert!(shown.contains(text) && shown.contains(&format!("{host}:{port}")), "{shown}");
    error
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_trusted() {
    let (broker, other) = (broker().await, broker().await);
    let options = trusting(&broker).tls(Tls::new().ca_pem(other.ca_pem()));
    let text = "not signed by an authority that is trusted here; name its CA certificate with cacertfile";
    let error = refused(options, ErrorKind::Tls, text).await;
    assert_eq!(error.origin(), Origin::Peer);
    // both: it is enough that one is the right one
    let tls = Tls::new().ca_pem(other.ca_pem()).ca_pem(broker.ca_pem());
    trusting(&broker).tls(tls).connect().await.unwrap();
}

#[tokio::test]
async fn an_expired_certificate_is_named() {
    let broker = broker().await;
    broker.show_certificate(ServerCertificate::Expired).unwrap();
    refused(trusting(&broker), ErrorKind::Tls, "the server's certificate has expired").await;
}

#[tokio::test]
async fn a_certificate_for_another_name_is_named() {
    let broker = broker().await;
    broker.show_certificate(ServerCertificate::OtherName).unwrap();
    let error = refused(trusting(&broker), ErrorKind::Tls, "other.example").await;
    assert!(
        error.to_string().contains("is for other.example, not for 127.0.0.1;")
            && error.to_string().contains("Tls::server_name")
    );
    let tls = Tls::new().ca_pem(broker.ca_pem());
    trusting(&broker).tls(tls.clone().server_name("other.example")).connect().await.unwrap();
    // without telling the name, it counts all the same
    let silent = tls.clone().without_server_name_indication();
    refused(trusting(&broker).tls(silent.clone()), ErrorKind::Tls, "other.example").await;
    trusting(&broker).tls(silent.server_name("other.example")).connect().await.unwrap();
}

#[tokio::test]
async fn verification_can_be_turned_off_by_a_method_that_says_so() {
    let broker = broker().await;
    broker.show_certificate(ServerCertificate::Expired).unwrap();
    trusting(&broker).tls(Tls::new().dangerously_accept_any_certificate()).connect().await.unwrap();
}

#[tokio::test]
async fn tls_to_a_plain_port_is_told_apart() {
    let broker = Broker::start().await.unwrap();
    let uri = broker.url().replace("amqp://", "amqps://");
    let tls = Tls::new().dangerously_accept_any_certificate();
    let options = ConnectOptions::new(&uri).unwrap().tls(tls);
    refused(options, ErrorKind::NotAmqp, "does not speak TLS on this port: use amqp://").await;
}

#[tokio::test]
async fn a_plain_client_at_a_tls_port_is_told_so() {
    let broker = broker().await;
    let uri = broker.tls_url().replace("amqps://", "amqp://");
    refused(ConnectOptions::new(&uri).unwrap(), ErrorKind::NotAmqp, "speaks TLS on this port: use amqps")
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_finishes_the_handshake_is_left() {
    let options = ConnectOptions::new("amqps://broker")
        .unwrap()
        .tls(Tls::new().dangerously_accept_any_certificate())
        .handshake_timeout(Duration::from_secs(3))
        .connector(|_, _| {
            let (client, mut server) = duplex(4096);
            tokio::spawn(async move { server.read_to_end(&mut Vec::new()).await });
            ready(Ok(client))
        });
    refused(options, ErrorKind::HandshakeTimeout, "did not finish the TLS handshake within 3 s").await;
}

#[tokio::test]
async fn a_connection_that_ends_in_the_handshake_is_lost() {
    let options = ConnectOptions::new("amqps://broker")
        .unwrap()
        .tls(Tls::new().dangerously_accept_any_certificate())
        .connector(|_, _| {
            let (client, mut server) = duplex(4096);
            tokio::spawn(async move {
                server.read_u8().await?;
                server.write_all(&[22, 3, 3]).await
            });
            ready(Ok(client))
        });
    refused(options, ErrorKind::ConnectionLost, "lost during the TLS handshake").await;
}

#[tokio::test]
async fn files_that_are_no_certificates_are_named() {
    let broker = broker().await;
    let folder = Folder::new();
    let (certificate, key) = broker.client_identity("guest").unwrap();
    let (_, other_key) = broker.client_identity("guest").unwrap();
    let ca = folder.write("ca.pem", &broker.ca_pem());
    let certificate = folder.write("client.pem", &certificate);
    let key = folder.write("client.key", &key);
    let other_key = folder.write("other.key", &other_key);
    let empty = folder.write("empty.pem", "nothing to see");
    let encrypted = folder.write(
        "encrypted.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\naHVzaA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let malformed =
        folder.write("malformed.key", "-----BEGIN PRIVATE KEY-----\nhush!hush\n-----END PRIVATE KEY-----\n");
    for (files, text) in [
        (["/nowhere/ca.pem", &certificate, &key], "the file /nowhere/ca.pem cannot be read"),
        ([&empty, &certificate, &key], "empty.pem has no certificate in PEM form"),
        ([&ca, &empty, &key], "empty.pem has no certificate in PEM form"),
        ([&ca, &certificate, &certificate], "client.pem has no private key in PEM form"),
        ([&ca, &certificate, &other_key], "other.key is not the key of"),
        ([&ca, &certificate, &encrypted], "encrypted.key is an encrypted key; decrypt it"),
        ([&ca, &certificate, &malformed], "malformed.key is not in PEM form"),
    ] {
        let [ca, certificate, key] = files;
        let tls = Tls::new().ca_file(ca).identity_files(certificate, key);
        let error = trusting(&broker).tls(tls).connect().await.unwrap_err();
        assert_eq!((error.kind(), error.origin()), (ErrorKind::Config, Origin::User), "{error:?}");
        assert!(error.to_string().contains(text), "{error}");
        let all = format!("{error:?} {error:#?}");
        assert!(!all.contains("hush") && !all.contains("aHVz"), "{all}");
    }
    let missing = Tls::new().ca_file("/nowhere/ca.pem");
    let error = trusting(&broker).tls(missing).connect().await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::NotFound);
}
