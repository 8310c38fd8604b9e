//! Connecting: what is agreed, and what is refused.

use std::time::Duration;

use lepus::{ConnectOptions, Connection, ErrorKind, FieldValue, Mechanism, Result, Scope};
use tokio::net::TcpListener;

use crate::broker::url;
use crate::case::test;

fn options() -> ConnectOptions {
    ConnectOptions::new(url()).unwrap()
}

#[test]
fn the_server_tells_of_itself() {
    test(async |t| {
        let connection = t.connect().await;
        let properties = connection.server_properties();
        assert!(properties.get("product").and_then(FieldValue::as_str).is_some_and(|name| !name.is_empty()));
        let Some(FieldValue::Table(capabilities)) = properties.get("capabilities") else {
            panic!("{properties:?}")
        };
        assert_eq!(capabilities.get("publisher_confirms"), Some(&FieldValue::Bool(true)));
        assert!(connection.channel_max() > 0 && connection.frame_max() >= 8192);
    });
}

#[test]
fn the_smaller_offer_holds() {
    test(async |_| {
        let connection = options()
            .heartbeat(Duration::from_secs(7))
            .channel_max(9)
            .frame_max(10_000)
            .connect()
            .await
            .unwrap();
        let agreed = (connection.heartbeat(), connection.channel_max(), connection.frame_max());
        assert_eq!(agreed, (Duration::from_secs(7), 9, 10_000));
        let theirs = options().connect().await.unwrap();
        let connection =
            options().heartbeat(Duration::MAX).frame_max(0).channel_max(0).connect().await.unwrap();
        assert!(connection.heartbeat() <= theirs.heartbeat().max(Duration::from_secs(60)));
        connection.channel().await.unwrap();
    });
}

#[test]
fn heartbeats_can_be_off() {
    test(async |_| {
        let connection = options().heartbeat(Duration::ZERO).connect().await.unwrap();
        assert_eq!(connection.heartbeat(), Duration::ZERO);
        connection.channel().await.unwrap();
    });
}

#[test]
fn the_uri_sets_what_options_do() {
    test(async |_| {
        let separator = if url().contains('?') { '&' } else { '?' };
        let uri = format!(
            "{}{separator}heartbeat=11&channel_max=12&frame_max=13000&auth_mechanism=amqplain",
            url()
        );
        let connection = lepus::connect(&uri).await.unwrap();
        let agreed = (connection.heartbeat(), connection.channel_max(), connection.frame_max());
        assert_eq!(agreed, (Duration::from_secs(11), 12, 13_000));
    });
}

/// Heartbeats tell of nothing when they work: only time shows that both sides send them.
#[test]
fn heartbeats_keep_an_idle_connection_and_idle_channels_alive() {
    test(async |_| {
        let connection = options().heartbeat(Duration::from_secs(1)).connect().await.unwrap();
        let channel = connection.channel().await.unwrap();
        // the server closes after two to three seconds of silence, this side after two
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(connection.is_open());
        channel.declare_queue("").await.unwrap();
    });
}

#[test]
fn every_mechanism_logs_in_or_says_why_not() {
    test(async |_| {
        for mechanism in [Mechanism::Plain, Mechanism::AmqPlain] {
            options().mechanisms([mechanism]).connect().await.unwrap().channel().await.unwrap();
        }
        // from RabbitMQ 4.0 on
        if let Err(error) = options().mechanisms([Mechanism::Anonymous]).connect().await {
            assert_eq!(error.kind(), ErrorKind::Auth);
            assert!(error.to_string().contains("PLAIN"), "it names what is offered: {error}");
        }
        // needs TLS
        let error = options().mechanisms([Mechanism::External]).connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth);
    });
}

fn refused(result: Result<Connection>, kind: ErrorKind) -> String {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.scope()), (kind, Scope::Connection), "{error}");
    let text = format!("{error} {error:?}");
    assert!(!text.contains("s3cret"), "{text}");
    text
}

#[test]
fn wrong_credentials_are_refused() {
    test(async |_| {
        let error = refused(options().credentials("guest", "s3cret").connect().await, ErrorKind::Auth);
        assert!(error.contains("403") && error.contains("ACCESS_REFUSED"), "{error}");
        assert!(!format!("{:?}", options().credentials("guest", "s3cret")).contains("s3cret"));
    });
}

#[test]
fn a_missing_vhost_is_refused() {
    test(async |_| {
        let error = refused(options().vhost("no such vhost").connect().await, ErrorKind::Vhost);
        assert!(error.contains("530") && error.contains("no such vhost"), "{error}");
    });
}

#[test]
fn nobody_listens() {
    test(async |_| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let uri = format!("amqp://guest:s3cret@127.0.0.1:{port}/");
        refused(lepus::connect(&uri).await, ErrorKind::Connect);
    });
}

#[test]
fn a_uri_that_cannot_be_read_is_an_error_without_the_password() {
    for uri in ["amqp://guest:s3cret@host:port/", "http://guest:s3cret@host/", "amqp://u:s3cret@h/a/b"] {
        let error = ConnectOptions::new(uri).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }
}

#[test]
fn a_client_can_name_itself() {
    test(async |_| {
        let options = options().connection_name("a test of lepus").client_property("team", "hare");
        options.connect().await.unwrap().channel().await.unwrap();
    });
}

#[test]
fn many_connections_at_once() {
    test(async |_| {
        let mut connecting = tokio::task::JoinSet::new();
        for _ in 0..30 {
            connecting.spawn(async {
                let connection = options().connect().await?;
                connection.channel().await?;
                connection.close().await
            });
        }
        while let Some(done) = connecting.join_next().await {
            done.unwrap().unwrap();
        }
    });
}
