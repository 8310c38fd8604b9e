//! D. The handshake.

use std::time::Duration;

use bytes::Bytes;
use lepus::protocol::connection;
use lepus::{ConnectOptions, Connection, ErrorKind, FieldTable, FieldValue, Mechanism, Result};

use crate::peer::*;

/// The handshake with this proposal, and what the client agreed to.
async fn tuned(
    tune: connection::Tune,
    change: impl FnOnce(ConnectOptions) -> ConnectOptions,
) -> (Connection, connection::TuneOk) {
    let listener = Listener::bind().await;
    let options = change(listener.options());
    let (connection, tune_ok) = both(options.connect(), async {
        let mut server = listener.accept().await;
        server.handshake(tune).await
    })
    .await;
    (connection.unwrap(), tune_ok)
}

/// The handshake up to start-ok, and what `script` makes of it after that.
async fn after_login(script: impl AsyncFnOnce(&mut Peer)) -> Result<Connection> {
    let listener = Listener::bind().await;
    let options = listener.options().credentials("me", "hush-hush");
    let (connection, ()) = both(options.connect(), async {
        let mut server = listener.accept().await;
        server.login().await;
        script(&mut server).await;
        server.expect_end().await;
    })
    .await;
    if let Err(error) = &connection {
        assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
    }
    connection
}

#[tokio::test]
async fn d1_the_usual_values_are_agreed_to() {
    let (connection, tune_ok) = tuned(TUNE, |options| options).await;
    assert_eq!(tune_ok, connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 60 });
    assert_eq!(
        (connection.channel_max(), connection.frame_max(), connection.heartbeat()),
        (2047, 131_072, Duration::from_secs(60))
    );
}

#[tokio::test]
async fn d2_without_limits_of_the_server_the_clients_hold() {
    let none = connection::Tune::default();
    let (_connection, tune_ok) = tuned(none.clone(), |options| options).await;
    assert_eq!(tune_ok, connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 60 });
    let (_connection, tune_ok) =
        tuned(none, |options| options.channel_max(0).frame_max(0).heartbeat(Duration::ZERO)).await;
    assert_eq!(tune_ok, connection::TuneOk { channel_max: 65_535, frame_max: 131_072, heartbeat: 0 });
}

#[tokio::test]
async fn d3_a_frame_max_below_the_protocols_least_is_refused() {
    for frame_max in [1, 7, 8, 4095] {
        let result = after_login(async |server| {
            server.send(0, connection::Tune { frame_max, ..TUNE }).await;
            let close = server.receive::<connection::Close>(0).await;
            assert_eq!(close.reply_code, 530);
        })
        .await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Protocol);
    }
}

#[tokio::test]
async fn d4_never_less_than_8192_is_offered() {
    let (_connection, tune_ok) = tuned(TUNE, |options| options.frame_max(4096)).await;
    assert_eq!(tune_ok.frame_max, 8192);
}

#[tokio::test]
async fn d5_a_refused_login_is_told_with_its_text() {
    let result = after_login(async |server| {
        let reply_text = short("ACCESS_REFUSED - Login was refused");
        server.send(0, connection::Close { reply_code: 403, reply_text, ..Default::default() }).await;
        server.expect(0, connection::CloseOk).await;
    })
    .await;
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.reply_code()), (ErrorKind::Auth, Some(403)));
    assert_eq!(error.reply_text(), Some("ACCESS_REFUSED - Login was refused"));
}

#[tokio::test]
async fn d5_an_end_after_the_login_probably_means_the_same() {
    let result = after_login(async |server| server.end().await).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Auth);
}

#[tokio::test]
async fn d6_a_mechanism_that_is_not_offered_is_not_tried() {
    let listener = Listener::bind().await;
    let options = listener.options().mechanisms([Mechanism::External]);
    let (result, ()) = both(options.connect(), async {
        let mut server = listener.accept().await;
        server.greet().await;
        server.send(0, start("PLAIN AMQPLAIN")).await;
        server.expect_end().await;
    })
    .await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    assert!(error.to_string().contains("PLAIN AMQPLAIN"), "{error}");
}

#[tokio::test]
async fn d6_the_first_of_ours_that_is_offered_is_taken() {
    for (offered, mechanism, response) in [
        ("AMQPLAIN PLAIN", "PLAIN", &b"\0guest\0guest"[..]),
        ("EXTERNAL AMQPLAIN", "AMQPLAIN", b"\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x05guest"),
    ] {
        let listener = Listener::bind().await;
        let options = listener.options();
        let (_, start_ok) = both(options.connect(), async {
            let mut server = listener.accept().await;
            server.greet().await;
            server.send(0, start(offered)).await;
            server.receive::<connection::StartOk>(0).await
        })
        .await;
        assert_eq!(start_ok.mechanism, mechanism);
        assert_eq!(start_ok.response, response);
        assert_eq!(start_ok.locale, "en_US");
    }
}

#[tokio::test]
async fn d7_a_challenge_that_cannot_be_answered_ends_it() {
    let result = after_login(async |server| {
        server.send(0, connection::Secure { challenge: Bytes::from_static(b"more") }).await;
    })
    .await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Auth);
}

#[tokio::test]
async fn d8_a_refused_vhost_is_told_with_code_and_text_and_answered() {
    let result = after_login(async |server| {
        server.send(0, TUNE).await;
        server.receive::<connection::TuneOk>(0).await;
        server.receive::<connection::Open>(0).await;
        let reply_text = short("NOT_ALLOWED - vhost / not found");
        let close = connection::Close { reply_code: 530, reply_text, class_id: 10, method_id: 40 };
        server.send(0, close).await;
        server.expect(0, connection::CloseOk).await;
    })
    .await;
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.reply_code()), (ErrorKind::Vhost, Some(530)));
    assert!(error.to_string().contains("vhost / not found"), "{error}");
    assert!(error.to_string().contains("connection.open"), "{error}");
}

#[tokio::test]
async fn d9_a_login_that_does_not_fit_into_the_first_frame_is_not_sent() {
    for (version, secret, fits) in
        [("4.0.9", 5000, false), ("4.1.0", 5000, true), ("4.1.0", 9000, false), ("", 5000, false)]
    {
        let listener = Listener::bind().await;
        let options = listener.options().credentials("me", "x".repeat(secret));
        let (result, ()) = both(options.connect(), async {
            let mut server = listener.accept().await;
            server.greet().await;
            let mut start = start("PLAIN");
            start.server_properties.insert("product", "RabbitMQ").unwrap();
            start.server_properties.insert("version", version).unwrap();
            server.send(0, start).await;
            if fits {
                server.receive::<connection::StartOk>(0).await;
                server.end().await;
            }
            server.expect_end().await;
        })
        .await;
        let error = result.unwrap_err();
        assert_eq!(error.kind(), if fits { ErrorKind::Auth } else { ErrorKind::Config }, "{error}");
        assert!(!format!("{error:?}").contains("xxx"));
    }
}

#[tokio::test]
async fn d10_client_properties_and_capabilities_have_the_right_types() {
    let listener = Listener::bind().await;
    let options = listener.options().connection_name("test").client_property("team", "hares");
    let (_, start_ok) = both(options.connect(), async {
        let mut server = listener.accept().await;
        let start_ok = server.login().await;
        server.end().await;
        start_ok
    })
    .await;
    let properties = start_ok.client_properties;
    assert_eq!(properties.get("connection_name"), Some(&FieldValue::LongStr(Bytes::from_static(b"test"))));
    assert_eq!(properties.get("team").and_then(FieldValue::as_str), Some("hares"));
    for name in ["product", "version", "platform"] {
        assert!(matches!(properties.get(name), Some(FieldValue::LongStr(_))), "{name}");
    }
    let capabilities = properties.get("capabilities").and_then(FieldValue::as_table).unwrap();
    let expected: FieldTable = [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "authentication_failure_close",
    ]
    .map(|name| (short(name), FieldValue::Bool(true)))
    .into_iter()
    .collect();
    assert_eq!(*capabilities, expected);
}

#[tokio::test]
async fn d11_heartbeats_are_agreed_by_the_documented_rule() {
    for (ours, theirs, agreed) in [(0, 60, 0), (0, 0, 0), (30, 0, 30), (30, 60, 30), (60, 30, 30)] {
        let tune = connection::Tune { heartbeat: theirs, ..TUNE };
        let (connection, tune_ok) = tuned(tune, |options| options.heartbeat(Duration::from_secs(ours))).await;
        assert_eq!(
            (tune_ok.heartbeat, connection.heartbeat()),
            (agreed, Duration::from_secs(agreed.into())),
            "{ours} and {theirs}"
        );
    }
}

#[tokio::test]
async fn a_close_in_place_of_start_is_told() {
    let listener = Listener::bind().await;
    let options = listener.options();
    let (result, ()) = both(options.connect(), async {
        let mut server = listener.accept().await;
        server.greet().await;
        server.send(0, connection::Close { reply_code: 541, ..Default::default() }).await;
        server.expect(0, connection::CloseOk).await;
        server.expect_end().await;
    })
    .await;
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ConnectionClosed, Some(541)));
}

#[tokio::test]
async fn a_connect_that_is_dropped_closes_the_socket() {
    let listener = Listener::bind().await;
    let options = listener.options();
    let connecting = tokio::spawn(async move { options.connect().await });
    let mut server = listener.accept().await;
    server.login().await;
    connecting.abort();
    server.expect_end().await;
}

#[tokio::test]
async fn h3_no_debug_output_or_error_has_the_password() {
    let uri = "amqp://me:hush-hush@127.0.0.1:1/?heartbeat=x";
    let error = ConnectOptions::new(uri).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hush"));
    let options = ConnectOptions::new("amqp://me:hush-hush@127.0.0.1:1/").unwrap();
    assert!(!format!("{options:?}").contains("hush"));
    let error = within("a refused connection", options.connect()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(!format!("{error} {error:?}").contains("hush"));
}
