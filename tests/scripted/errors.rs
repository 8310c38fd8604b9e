//! What the user reads: each error names what, where and why, and says nothing twice.

use std::error::Error as _;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use lepus::protocol::{MethodId, basic, channel, connection, queue};
use lepus::{ConnectOptions, Error, ErrorKind, Message, Origin, Scope};
use tokio::net::TcpSocket;

use crate::peer::*;

/// No text of the chain repeats the one below it.
fn says_nothing_twice(error: &Error) {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(source) = below {
        let shown = source.to_string();
        assert!(!text.contains(&shown), "{text:?} repeats {shown:?}");
        text = shown;
        below = source.source();
    }
}

/// What a purge fails with when the server does this.
async fn purge_fails(script: impl AsyncFnOnce(Peer)) -> (Error, u16) {
    let listener = Listener::bind().await;
    let (connected, mut server) = both(listener.options().connect(), async {
        let mut server = listener.accept().await;
        server.handshake(TUNE).await;
        server
    })
    .await;
    let connection = connected.unwrap();
    let channel = open(&mut server, &connection, 1).await;
    let queue = channel.queue("q").unwrap();
    let (purged, ()) = both(queue.purge(), async {
        server.receive::<queue::Purge>(1).await;
        script(server).await;
    })
    .await;
    let error = purged.unwrap_err();
    says_nothing_twice(&error);
    (error, listener.port())
}

#[tokio::test]
async fn an_unknown_method_is_named_once_by_its_numbers() {
    let (error, port) = purge_fails(async |mut server| {
        server.write(&frame(METHOD, 1, &[0, 60, 0, 99])).await;
        server.receive::<connection::Close>(0).await;
    })
    .await;
    assert_eq!(
        error.to_string(),
        format!("127.0.0.1:{port} broke the protocol: unknown method 60,99 (class, method)")
    );
}

#[tokio::test]
async fn end_of_file_and_reset_are_told_apart() {
    let (ended, port) = purge_fails(async |mut server| server.end().await).await;
    let address = format!("the connection to 127.0.0.1:{port} was lost: ");
    assert_eq!(ended.kind(), ErrorKind::ConnectionLost);
    assert_eq!(ended.to_string(), format!("{address}the other side ended it without a close (end of file)"));
    assert!(ended.source().is_none());
    let (reset, _) = purge_fails(async |server| server.reset()).await;
    assert_eq!(reset.kind(), ErrorKind::ConnectionLost);
    assert!(reset.to_string().contains("reset it"), "{reset}");
}

#[tokio::test]
async fn an_io_error_keeps_its_raw_os_error() {
    let (reset, _) = purge_fails(async |server| server.reset()).await;
    let source = reset.source().and_then(|source| source.downcast_ref::<io::Error>()).unwrap();
    assert_eq!(source.kind(), io::ErrorKind::ConnectionReset);
    assert!(source.raw_os_error().is_some(), "{source:?}");

    let listener = Listener::bind().await;
    let options = listener.options();
    drop(listener);
    let refused = within("a refused connection", options.connect()).await.unwrap_err();
    says_nothing_twice(&refused);
    assert!(refused.to_string().contains("nothing listens there"), "{refused}");
    let source = refused.source().and_then(|source| source.downcast_ref::<io::Error>()).unwrap();
    assert!(source.raw_os_error().is_some(), "{source:?}");
}

#[tokio::test]
async fn a_returned_message_is_told_with_exchange_and_key() {
    let (mut server, _connection, channel) = with_channel().await;
    let exchange = channel.exchange("orders").unwrap();
    let (published, ()) = both(exchange.publish("eu.new", Message::new("x")).mandatory(), async {
        let published = server.receive_publish(1).await;
        assert_eq!(published.body, b"x");
        let back = basic::Return {
            reply_code: 312,
            reply_text: short("NO_ROUTE"),
            exchange: short("orders"),
            routing_key: short("eu.new"),
        };
        let mut properties = Vec::new();
        published.properties.encode(&mut properties);
        let header = raw_header(1, 60, 0, 1, &properties);
        server.write(&[method(1, &back), header, body(1, b"x")].concat()).await;
        server.send(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
    })
    .await;
    let error = published.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no queue took the message, and it came back (exchange \"orders\", routing key \"eu.new\"): 312 NO_ROUTE"
    );

    let default = channel.default_exchange();
    let (published, ()) = both(default.publish("nobody", Message::new("x")).mandatory(), async {
        let published = server.receive_publish(1).await;
        server.write(&returned(1, "nobody", &published.properties, b"x")).await;
        server.send(1, basic::Ack { delivery_tag: 2, multiple: false }).await;
    })
    .await;
    let error = published.unwrap_err();
    assert!(error.to_string().contains("(the default exchange, routing key \"nobody\")"), "{error}");
}

#[tokio::test]
async fn a_long_list_of_mechanisms_is_cut() {
    let listener = Listener::bind().await;
    let options = listener.options();
    let (result, ()) = both(options.connect(), async {
        let mut server = listener.accept().await;
        server.greet().await;
        let list = "EXOTIC\r\nSASL ".repeat(8_000);
        server.send(0, connection::Start { mechanisms: list.into(), ..start("") }).await;
        server.expect_end().await;
    })
    .await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth);
    let text = error.to_string();
    assert!(
        text.len() < 600 && !text.contains('\n') && text.contains("may only use PLAIN AMQPLAIN"),
        "{text}"
    );
    assert!(text.contains("(cut: 104000 bytes in all)"), "{text}");
}

#[tokio::test]
async fn a_refused_login_names_user_server_and_vhost_and_no_password() {
    let listener = Listener::bind().await;
    let options = listener.options().credentials("app", "hush-hush").vhost("prod");
    let (result, ()) = both(options.connect(), async {
        let mut server = listener.accept().await;
        server.login().await;
        let reply_text = short("ACCESS_REFUSED - Login was refused");
        server.send(0, connection::Close { reply_code: 403, reply_text, ..Default::default() }).await;
        server.expect(0, connection::CloseOk).await;
    })
    .await;
    let error = result.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot log in to 127.0.0.1:{} as user \"app\" (vhost \"prod\"), check user and password: 403 ACCESS_REFUSED - \
             Login was refused",
            listener.port()
        )
    );
    assert!(!format!("{error:?} {error:#?}").contains("hush"));
}

#[tokio::test]
async fn another_version_in_start_is_not_sent_credentials() {
    for (version_major, version_minor) in [(0, 8), (0, 10), (1, 0), (8, 0), (9, 0), (0, 0)] {
        let listener = Listener::bind().await;
        let options = listener.options();
        let (result, ()) = both(options.connect(), async {
            let mut server = listener.accept().await;
            server.greet().await;
            server.send(0, connection::Start { version_major, version_minor, ..start("PLAIN") }).await;
            // nothing at all, start-ok least of all
            server.expect_end().await;
        })
        .await;
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.origin()), (ErrorKind::NotAmqp, Origin::Peer));
        let port = listener.port();
        assert_eq!(
            error.to_string(),
            format!(
                "127.0.0.1:{port} offers AMQP {version_major}-{version_minor}, not 0-9-1: no credentials were sent"
            )
        );
    }
}

#[tokio::test]
async fn later_calls_on_a_closed_channel_say_closed_earlier() {
    let (mut server, _connection, channel) = with_channel().await;
    let queue = channel.queue("q").unwrap();
    let (purged, ()) = both(queue.purge(), async {
        server.receive::<queue::Purge>(1).await;
        let reply_text = short("NOT_FOUND - no queue 'q' in vhost '/'");
        let close = channel::Close { reply_code: 404, reply_text, class_id: 50, method_id: 30 };
        server.send(1, close).await;
        server.expect(1, channel::CloseOk).await;
    })
    .await;
    let first = purged.unwrap_err().to_string();
    assert_eq!(
        first,
        "the server closed channel 1: 404 NOT_FOUND - no queue 'q' in vhost '/' (in answer to queue.purge)"
    );
    for error in [
        queue.purge().await.unwrap_err(),
        channel.default_exchange().publish("q", "x").await.unwrap_err(),
        channel.default_exchange().enqueue("q", "x").await.unwrap_err(),
    ] {
        assert_eq!(error.to_string(), format!("closed earlier: {first}"));
        assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ChannelClosed, Some(404)));
    }
    assert_eq!(channel.closed().await.to_string(), first);
}

#[tokio::test]
async fn a_confirm_that_was_awaited_when_the_channel_closed_is_told_the_reason_as_new() {
    let (mut server, _connection, channel) = with_channel().await;
    let confirm = channel.default_exchange().enqueue("q", "x").await.unwrap();
    server.receive_publish(1).await;
    let close = channel::Close { reply_code: 404, reply_text: short("no"), class_id: 60, method_id: 40 };
    server.send(1, close).await;
    let error = within("the confirm", confirm).await.unwrap_err();
    assert!(error.to_string().starts_with("the server closed channel 1: 404"), "{error}");
}

#[tokio::test]
async fn later_calls_on_a_lost_connection_say_closed_earlier() {
    let (mut server, connection, channel) = with_channel().await;
    server.end().await;
    let closed = within("the end", connection.closed()).await;
    let error = channel.queue("q").unwrap().purge().await.unwrap_err();
    assert_eq!(error.to_string(), format!("closed earlier: {closed}"));
    assert_eq!((error.kind(), error.scope()), (ErrorKind::ConnectionLost, Scope::Connection));
    assert!(connection.channel().await.unwrap_err().to_string().starts_with("closed earlier: "));
}

#[tokio::test]
async fn a_time_out_names_the_call_and_who_is_to_blame() {
    let limit = Duration::from_millis(50);
    let (mut server, connection) = connected_with(TUNE, |options| options.rpc_timeout(limit)).await;
    let channel = open(&mut server, &connection, 1).await;
    let error = channel.declare_queue("q").await.unwrap_err();
    assert_eq!((error.kind(), error.origin()), (ErrorKind::Timeout, Origin::Peer));
    assert_eq!(error.to_string(), "queue.declare on channel 1: the server did not answer within 0.05 s");
    let error = channel.queue("q").unwrap().purge().await.unwrap_err();
    assert_eq!((error.kind(), error.origin()), (ErrorKind::Timeout, Origin::Peer));
    assert_eq!(
        error.to_string(),
        "queue.purge on channel 1: not sent, because the server did not answer an earlier call there within 0.05 s"
    );
    let error = connection.update_secret("token", "expires").await.unwrap_err();
    assert_eq!(error.to_string(), "connection.update-secret: the server did not answer within 0.05 s");
}

#[tokio::test]
async fn a_close_that_is_not_answered_names_what_was_closed() {
    let limit = Duration::from_millis(50);
    let (mut server, connection) = connected_with(TUNE, |options| options.close_timeout(limit)).await;
    let channel = open(&mut server, &connection, 1).await;
    let error = channel.close().await.unwrap_err();
    assert_eq!((error.kind(), error.origin()), (ErrorKind::Timeout, Origin::Peer));
    assert_eq!(error.to_string(), "channel.close on channel 1: the server did not answer within 0.05 s");
    let error = connection.close().await.unwrap_err();
    assert_eq!((error.kind(), error.origin()), (ErrorKind::Timeout, Origin::Peer));
    assert_eq!(error.to_string(), "connection.close: the server did not answer within 0.05 s");
}

#[tokio::test]
async fn a_publish_that_waited_too_long_blames_the_callers_limit_and_names_exchange_and_key() {
    let (mut server, connection, channel) = with_channel().await;
    server.send(0, connection::Blocked { reason: short("low on memory") }).await;
    let mut blocked = connection.watch_blocked();
    if connection.blocked().is_none() {
        within("a blocked connection", blocked.changed()).await;
    }
    let exchange = channel.exchange("orders").unwrap();
    let limit = Duration::from_millis(20);
    let error = exchange.publish("eu.new", "x").deadline(limit).await.unwrap_err();
    assert_eq!((error.kind(), error.origin()), (ErrorKind::NotSent, Origin::User));
    assert_eq!(
        error.to_string(),
        "basic.publish to exchange \"orders\" with routing key \"eu.new\": not sent within its deadline of 0.02 s; it \
         is withdrawn and will not arrive"
    );
}

#[tokio::test]
async fn a_silent_server_and_a_slow_one_are_told_apart() {
    let limit = Duration::from_millis(80);
    let listener = Listener::bind().await;
    let (result, ()) = both(listener.options().handshake_timeout(limit).connect(), async {
        let mut server = listener.accept().await;
        server.greet().await;
        server.expect_end().await;
    })
    .await;
    let text = result.unwrap_err().to_string();
    assert!(text.contains("said nothing for 0.08 s"), "{text}");
    let (result, ()) = both(listener.options().handshake_timeout(limit).connect(), async {
        let mut server = listener.accept().await;
        server.login().await;
        server.expect_end().await;
    })
    .await;
    let text = result.unwrap_err().to_string();
    assert!(text.contains("did not answer the login of user \"guest\" within 0.08 s"), "{text}");
}

#[tokio::test]
async fn properties_that_cannot_be_read_are_told_once() {
    let (mut server, _connection, _channel, mut consumer) = with_consumer().await;
    let properties = [&[0x20, 0, 0, 0, 0, 7, 1, b'a', b'q', 0, 0, 0, 1][..]].concat();
    let bytes = [deliver(1, "c", 1), raw_header(1, 60, 0, 4, &properties), body(1, b"body")];
    server.write(&bytes.concat()).await;
    let delivery = within("a delivery", consumer.next()).await.unwrap().unwrap();
    let error = delivery.properties().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Undecodable);
    assert!(error.source().is_some());
    says_nothing_twice(&error);
    assert_eq!(
        format!("{error:?}"),
        "the message's properties cannot be read, its body can\n\nCaused by:\n    unknown field type tag 0x71"
    );
}

#[tokio::test]
async fn a_cancelled_consumer_is_named_with_channel_and_queue() {
    let (mut server, _connection, _channel, mut consumer) = with_consumer().await;
    server.send(1, basic::Cancel { consumer_tag: short("c"), no_wait: true }).await;
    let error = within("the end of the stream", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server cancelled consumer \"c\" on channel 1; its queue \"q\" may be gone"
    );
}

#[tokio::test]
async fn an_unknown_method_that_is_blamed_is_named_by_its_numbers() {
    let (error, port) = purge_fails(async |mut server| {
        let reply_text = short("odd\nWARN forged");
        let close = connection::Close { reply_code: 540, reply_text, class_id: 99, method_id: 1 };
        server.send(0, close).await;
        server.expect(0, connection::CloseOk).await;
    })
    .await;
    assert_eq!(
        error.to_string(),
        format!(
            "127.0.0.1:{port} closed the connection: 540 NOT_IMPLEMENTED odd\\nWARN forged (in answer to method 99,1)"
        )
    );
    assert_eq!(error.method(), Some(MethodId::new(99, 1)));
}

// Several hosts.

/// A port at which nothing listens.
fn closed_port() -> ClosedPort {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    ClosedPort(socket)
}

/// A port that is taken, so that no other test gets it, and on which nobody listens.
struct ClosedPort(TcpSocket);

impl ClosedPort {
    fn number(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }
}

#[tokio::test]
async fn several_hosts_of_a_uri_are_tried_in_their_order() {
    let (first, second, closed) = (Listener::bind().await, Listener::bind().await, closed_port());
    let uri = format!(
        "amqp://guest:guest@127.0.0.1:{},127.0.0.1:{},[::1]:{}/",
        closed.number(),
        first.port(),
        second.port()
    );
    let (connected, _server) = both(ConnectOptions::new(&uri).unwrap().connect(), async {
        let mut server = first.accept().await;
        server.handshake(TUNE).await;
        server
    })
    .await;
    connected.unwrap();
}

#[tokio::test]
async fn if_all_hosts_fail_each_is_named() {
    let ports = [closed_port(), closed_port()];
    let [first, second] = [ports[0].number(), ports[1].number()];
    let uri = format!("amqp://guest:guest@127.0.0.1:{first},127.0.0.1:{second}/");
    let options = ConnectOptions::new(&uri).unwrap();
    for error in [options.connect().await.unwrap_err(), options.robust().connect().await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Connect);
        let text = error.to_string();
        let why = "nothing listens there; check the port, and whether the server runs";
        assert_eq!(
            text,
            format!(
                "cannot connect to 127.0.0.1:{second}: {why}; before that: cannot connect to 127.0.0.1:{first}: {why}"
            )
        );
    }
}

#[tokio::test]
async fn a_refused_login_ends_the_search_among_several_hosts() {
    let (first, closed) = (Listener::bind().await, closed_port());
    let second = closed.number();
    let uri = format!("amqp://guest:guest@127.0.0.1:{},127.0.0.1:{second}/", first.port());
    let (result, ()) = both(ConnectOptions::new(&uri).unwrap().connect(), async {
        let mut server = first.accept().await;
        server.login().await;
        server.send(0, connection::Close { reply_code: 403, ..Default::default() }).await;
        server.expect(0, connection::CloseOk).await;
    })
    .await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Auth);
}

#[tokio::test]
async fn a_robust_connection_takes_the_hosts_of_the_uri() {
    let (first, second) = (Listener::bind().await, Listener::bind().await);
    let uri = format!("amqp://guest:guest@127.0.0.1:{},127.0.0.1:{}/", first.port(), second.port());
    let (connected, server) = both(ConnectOptions::new(&uri).unwrap().robust().connect(), async {
        let mut server = first.accept().await;
        server.handshake(TUNE).await;
        server
    })
    .await;
    let connection = connected.unwrap();
    drop((server, first));
    let mut server = second.accept().await;
    server.handshake(TUNE).await;
    within("the next link", connection.ready()).await.unwrap();
}

// A robust connection.

/// One that has lost its link, and where nothing listens any more, with channel 1 open.
async fn lost_robust(
    change: impl FnOnce(lepus::robust::Options) -> lepus::robust::Options,
    limit: Duration,
) -> (lepus::Connection, lepus::Channel) {
    let listener = Listener::bind().await;
    let options = change(listener.options().rpc_timeout(limit).robust());
    let (connection, mut server) = both(options.connect(), async {
        let mut server = listener.accept().await;
        server.handshake(TUNE).await;
        server
    })
    .await;
    let connection = connection.unwrap();
    let channel = both(connection.channel(), server.open_channel(1)).await.0.unwrap();
    let mut events = connection.events();
    drop((server, listener));
    while !matches!(within("the loss", events.next()).await, Some(lepus::robust::Event::Lost { .. })) {}
    (connection, channel)
}

#[tokio::test]
async fn a_time_out_without_a_connection_blames_the_network_and_says_why_there_is_none() {
    let limit = Duration::from_millis(50);
    let (connection, channel) = lost_robust(|options| options, limit).await;
    for (what, error) in [
        ("queue.declare on channel 1", channel.declare_queue("q").await.unwrap_err()),
        ("channel.open", connection.channel().await.unwrap_err()),
    ] {
        assert_eq!((error.kind(), error.origin()), (ErrorKind::Timeout, Origin::Network), "{error}");
        assert_eq!(
            error.to_string(),
            format!("{what}: not sent, because there was no connection within 0.05 s")
        );
        assert!(error.source().unwrap().to_string().contains("end of file"), "{error:?}");
        says_nothing_twice(&error);
    }
}

#[tokio::test]
async fn a_time_out_of_a_robust_channel_names_it() {
    let limit = Duration::from_millis(50);
    let listener = Listener::bind().await;
    let options = listener.options().rpc_timeout(limit).robust();
    let (connection, mut server) = both(options.connect(), async {
        let mut server = listener.accept().await;
        server.handshake(TUNE).await;
        server
    })
    .await;
    let connection = connection.unwrap();
    let channel = both(connection.channel(), server.open_channel(1)).await.0.unwrap();
    // the first is not answered, the second waits for it
    let (first, second) =
        (channel.declare_queue("q").into_future(), channel.declare_queue("r").into_future());
    let (first, second) = both(first, second).await;
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        let text = error.to_string();
        assert!(text.starts_with("queue.declare on channel 1: "), "{text}");
        says_nothing_twice(&error);
    }
}

#[tokio::test]
async fn a_publish_without_a_connection_names_exchange_and_key() {
    let outage = lepus::robust::Outage::WaitFor(Duration::from_millis(50));
    let (_connection, channel) =
        lost_robust(|options| options.on_outage(outage), Duration::from_secs(30)).await;
    let error = channel.exchange("orders").unwrap().publish("eu.new", "x").await.unwrap_err();
    assert_eq!((error.kind(), error.origin()), (ErrorKind::NotSent, Origin::Network));
    assert_eq!(
        error.to_string(),
        "basic.publish to exchange \"orders\" with routing key \"eu.new\": not sent, because there was no connection \
         within 0.05 s (on_outage)"
    );
    says_nothing_twice(&error);

    let outage = lepus::robust::Outage::Fail;
    let (_connection, channel) =
        lost_robust(|options| options.on_outage(outage), Duration::from_secs(30)).await;
    let error = channel.exchange("orders").unwrap().publish("eu.new", "x").await.unwrap_err();
    assert_eq!((error.kind(), error.scope()), (ErrorKind::NotSent, Scope::Call));
    says_nothing_twice(&error);
}
