//! Losing the link, and getting another one.

use std::time::Duration;

use lepus::robust::{Backoff, Event};
use lepus::{ConnectOptions, ErrorKind};

use crate::broker::url;
use crate::case::test;
use crate::relay::Relay;
use crate::through::{Through, soon};

#[test]
fn ready_comes_after_the_topology() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).exclusive().await.unwrap();
        robust.relay.refuse().await.unwrap();
        robust.relay.reset();
        robust.lost().await;
        assert!(!robust.connection.is_ready());
        let waiting = tokio::spawn({
            let (connection, name) = (robust.connection.clone(), queue.name().clone());
            async move {
                connection.ready().await.unwrap();
                let channel = connection.channel().await.unwrap();
                channel.declare_queue(name).passive().await.map(drop)
            }
        });
        robust.relay.accept().await.unwrap();
        soon(waiting).await.unwrap().unwrap();
        assert!(robust.connection.is_ready());
    });
}

#[test]
fn a_declare_waits_for_the_link() {
    test(async |t| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        robust.relay.refuse().await.unwrap();
        robust.relay.cut();
        robust.lost().await;
        let declared = tokio::spawn({
            let (channel, name) = (channel.clone(), t.name());
            async move { channel.declare_queue(name).exclusive().await }
        });
        robust.event(|event| matches!(event, Event::Failed { .. }).then_some(())).await;
        robust.relay.accept().await.unwrap();
        let queue = soon(declared).await.unwrap().unwrap();
        robust.restored().await;
        robust.cut().await;
        assert_eq!(channel.declare_queue(queue.name()).exclusive().await.unwrap().message_count(), 0);
    });
}

#[test]
fn a_stalled_link_is_noticed_by_its_heartbeats() {
    test(async |t| {
        let relay = Relay::to_broker(url()).await.unwrap();
        let options = ConnectOptions::new(&relay.url(url())).unwrap().heartbeat(Duration::from_secs(1));
        let connection = options.robust().connect().await.unwrap();
        let mut events = connection.events();
        let channel = connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).exclusive().await.unwrap();
        relay.stall();
        loop {
            if let Event::Lost { error } = soon(events.next()).await.unwrap() {
                assert_eq!(error.kind(), ErrorKind::HeartbeatMissed);
                break;
            }
        }
        // the broker may think that the old connection is still there: the queue is locked for a while
        soon(connection.ready()).await.unwrap();
        channel.default_exchange().publish(queue.name(), "1").mandatory().await.unwrap();
    });
}

#[test]
fn the_next_host_is_tried_at_once() {
    test(async |t| {
        let mut robust = Through::new().await;
        let second = Relay::to_broker(url()).await.unwrap();
        let options = ConnectOptions::new(&robust.relay.url(url())).unwrap().robust();
        let address = second.address();
        let connection = options.host(address.ip().to_string(), address.port()).connect().await.unwrap();
        robust.events = connection.events();
        let channel = connection.channel().await.unwrap();
        let queue = channel.declare_queue(t.name()).await.unwrap();
        robust.relay.refuse().await.unwrap();
        robust.relay.cut();
        let failed = robust
            .event(|event| match event {
                Event::Failed { number, port, .. } => Some((number, port)),
                _ => None,
            })
            .await;
        assert_eq!(failed, (1, robust.relay.address().port()));
        let attempt = robust
            .event(|event| match event {
                Event::Attempt { number, port, .. } => Some((number, port)),
                _ => None,
            })
            .await;
        assert_eq!(attempt, (2, address.port()));
        robust.restored().await;
        channel.default_exchange().publish(queue.name(), "1").await.unwrap();
    });
}

#[test]
fn it_gives_up_after_so_many_attempts() {
    test(async |_| {
        let backoff = Backoff::new().most(Duration::from_millis(5));
        let mut robust = Through::with(|options| options.attempts(3).backoff(backoff)).await;
        let channel = robust.connection.channel().await.unwrap();
        robust.relay.refuse().await.unwrap();
        robust.relay.cut();
        let error = robust
            .event(|event| match event {
                Event::GaveUp { error } => Some(error),
                _ => None,
            })
            .await;
        assert_eq!(error.kind(), ErrorKind::Connect);
        assert_eq!(robust.connection.closed().await.kind(), ErrorKind::Connect);
        assert_eq!(channel.closed().await.kind(), ErrorKind::Connect);
        let publish = channel.default_exchange().publish("x", "").await;
        assert_eq!(publish.unwrap_err().kind(), ErrorKind::Connect);
        assert!(robust.events.next().await.is_none());
    });
}

#[test]
fn the_first_connect_fails_unless_it_shall_be_retried() {
    test(async |_| {
        let relay = Relay::to_broker(url()).await.unwrap();
        relay.refuse().await.unwrap();
        let options = ConnectOptions::new(&relay.url(url())).unwrap().robust();
        assert_eq!(options.connect().await.unwrap_err().kind(), ErrorKind::Connect);
        let options = options.retry_first_connect();
        let connecting = tokio::spawn(async move { options.connect().await });
        relay.accept().await.unwrap();
        soon(connecting).await.unwrap().unwrap().close().await.unwrap();
    });
}

#[test]
fn what_cannot_heal_is_not_retried() {
    test(async |_| {
        let wrong = ConnectOptions::new(url()).unwrap().credentials("guest", "wrong").robust();
        let error = soon(wrong.retry_first_connect().connect()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth);
        let wrong = ConnectOptions::new(url()).unwrap().vhost("lepus.missing").robust();
        let error = soon(wrong.retry_first_connect().connect()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Vhost);
    });
}

#[test]
fn closing_during_an_outage_ends_the_attempts() {
    test(async |_| {
        let mut robust = Through::new().await;
        let channel = robust.connection.channel().await.unwrap();
        robust.relay.refuse().await.unwrap();
        robust.relay.cut();
        robust.lost().await;
        let waiting = tokio::spawn(async move { channel.default_exchange().publish("x", "").await });
        robust.connection.close().await.unwrap();
        assert_eq!(soon(waiting).await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(robust.connection.ready().await.unwrap_err().kind(), ErrorKind::Closed);
        while soon(robust.events.next()).await.is_some() {}
    });
}
