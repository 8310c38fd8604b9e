//! Certificates of clients, and new ones.

use std::time::Duration;

use lepus::broker::{Broker, Keep};
use lepus::robust::Event;
use lepus::{ConnectOptions, ErrorKind, Mechanism, Tls};

use crate::tools::{Folder, broker, trusting};

#[tokio::test]
async fn a_client_logs_in_with_its_certificate_alone() {
    let broker = Broker::options().tls_with_client_certificates().user("app", "hush").start().await.unwrap();
    let folder = Folder::new();
    let (certificate, key) = broker.client_identity("app").unwrap();
    let uri = format!(
        "amqps://{}?cacertfile={}&certfile={}&keyfile={}",
        broker.tls_address().unwrap(),
        folder.write("ca.pem", &broker.ca_pem()),
        folder.write("client.pem", &certificate),
        folder.write("client.key", &key)
    );
    let connection = lepus::connect(&uri).await.unwrap();
    connection.channel().await.unwrap();
    assert_eq!(broker.connections().first().map(|connection| connection.user.clone()), Some("app".into()));
}

#[tokio::test]
async fn a_client_with_a_certificate_may_have_a_password_all_the_same() {
    let broker = Broker::options().tls_with_client_certificates().start().await.unwrap();
    let (certificate, key) = broker.client_identity("somebody").unwrap();
    let tls = Tls::new().ca_pem(broker.ca_pem()).identity_pem(certificate, key);
    let options = ConnectOptions::new(&broker.tls_url()).unwrap().tls(tls);
    options.connect().await.unwrap();
    let error = options.mechanisms([Mechanism::External]).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
    assert!(error.to_string().contains("check the certificate"), "{error}");
}

#[tokio::test]
async fn without_a_certificate_external_is_not_offered() {
    let broker = broker().await;
    let error = trusting(&broker).mechanisms([Mechanism::External]).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_is_told_apart() {
    let broker = Broker::options().tls_with_client_certificates().start().await.unwrap();
    for _ in 0..20 {
        let error = trusting(&broker).connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tls, "{error:?}");
        assert!(error.to_string().contains("wants a client certificate; name one with certfile"), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (broker, other) = (broker().await, broker().await);
    let (certificate, key) = other.client_identity("guest").unwrap();
    let tls = Tls::new().ca_pem(broker.ca_pem()).identity_pem(certificate, key);
    let error = ConnectOptions::new(&broker.tls_url()).unwrap().tls(tls).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error:?}");
    assert!(error.to_string().contains("did not accept the client certificate"), "{error}");
}

#[tokio::test]
async fn renewed_files_are_used_at_the_next_reconnect() {
    let broker = broker().await;
    let folder = Folder::new();
    let renew = || {
        let (certificate, key) = broker.client_identity("guest").unwrap();
        let (ca, certificate, key) = (
            folder.write("ca.pem", &broker.ca_pem()),
            folder.write("client.pem", &certificate),
            folder.write("client.key", &key),
        );
        let address = broker.tls_address().unwrap();
        format!("amqps://{address}?cacertfile={ca}&certfile={certificate}&keyfile={key}")
    };
    let connection = lepus::connect_robust(&renew()).await.unwrap();
    let mut events = connection.events();
    for _ in 0..2 {
        broker.stop().await;
        broker.renew_authority().unwrap();
        broker.restart(Keep::Durable).await.unwrap();
        // with the files of before it is no use, and tried again
        loop {
            if let Event::Failed { error, .. } = events.next().await.unwrap()
                && error.kind() == ErrorKind::Tls
            {
                assert!(error.to_string().contains("was that renewed?"), "{error}");
                break;
            }
        }
        renew();
        while !matches!(events.next().await.unwrap(), Event::Restored { .. }) {}
        connection.channel().await.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_that_stays_wrong_ends_a_robust_connection() {
    let broker = broker().await;
    broker.show_certificate(lepus::broker::ServerCertificate::Expired).unwrap();
    let error = trusting(&broker).robust().connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");

    broker.show_certificate(lepus::broker::ServerCertificate::Valid).unwrap();
    let robust = trusting(&broker).robust().refused_limit(Duration::ZERO);
    let connection = robust.connect().await.unwrap();
    broker.show_certificate(lepus::broker::ServerCertificate::Expired).unwrap();
    broker.cut();
    let error = connection.closed().await;
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
}
