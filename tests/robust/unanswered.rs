//! A server that does not answer.

use std::time::Duration;

use lepus::protocol::{channel, queue};
use lepus::robust::Event;
use lepus::{Connection, ErrorKind};

use crate::case::test;
use crate::peer::{Listener, Peer, TUNE, both, within};

async fn connected() -> (Listener, Peer, Connection) {
    let listener = Listener::bind().await;
    let options = listener.options();
    let options = options.rpc_timeout(Duration::from_millis(200)).close_timeout(Duration::from_millis(200));
    let options = options.robust();
    let (connection, server) = both(options.connect(), next_link(&listener)).await;
    (listener, server, connection.unwrap())
}

async fn next_link(listener: &Listener) -> Peer {
    let mut server = listener.accept().await;
    server.handshake(TUNE).await;
    server
}

async fn answer_declare(server: &mut Peer, number: u16) {
    let declare = server.receive::<queue::Declare>(number).await;
    let ok = queue::DeclareOk { queue: declare.queue, message_count: 0, consumer_count: 0 };
    server.send(number, ok).await;
}

#[test]
fn one_unanswered_call_costs_its_channel_and_two_the_link() {
    test(async |_| {
        let (listener, mut server, connection) = connected().await;
        let mut events = connection.events();
        let channel = both(connection.channel(), server.open_channel(1)).await.0.unwrap();
        let unanswered = channel.declare_queue("q");
        let (declared, _) = both(unanswered, server.receive::<queue::Declare>(1)).await;
        assert_eq!(declared.unwrap_err().kind(), ErrorKind::Timeout);

        server.receive::<channel::Close>(1).await;
        server.send(1, channel::CloseOk).await;
        let (declared, ()) = both(channel.declare_queue("q"), async {
            server.open_channel(2).await;
            answer_declare(&mut server, 2).await;
        })
        .await;
        declared.unwrap();
        assert_eq!(connection.counters().reconnects, 0);
        let event = within("an event", events.next()).await;
        assert!(
            matches!(&event, Some(Event::ChannelClosed { error }) if error.kind() == ErrorKind::Timeout),
            "{event:?}"
        );

        // from now on it answers nothing
        let declared = channel.declare_queue("q").await;
        assert_eq!(declared.unwrap_err().kind(), ErrorKind::Timeout);
        let mut server = next_link(&listener).await;
        // the topology, then the channel
        server.expect(1, channel::Open).await;
        server.send(1, channel::OpenOk).await;
        answer_declare(&mut server, 1).await;
        let closes = server.receive::<channel::Close>(1).await;
        assert_eq!(closes.reply_code, 200);
        server.send(1, channel::CloseOk).await;
        server.open_channel(2).await;
        within("the link", connection.ready()).await.unwrap();
        assert_eq!(connection.counters().reconnects, 1);
    });
}

#[test]
fn the_error_of_a_call_says_how_often_it_was_sent() {
    test(async |_| {
        let listener = Listener::bind().await;
        let options = listener.options().rpc_timeout(Duration::from_secs(1)).robust();
        let (connection, mut server) = both(options.connect(), next_link(&listener)).await;
        let connection = connection.unwrap();
        let channel = both(connection.channel(), server.open_channel(1)).await.0.unwrap();
        let declaring = tokio::spawn(async move { channel.declare_queue("q").await });
        for link in 1..=2 {
            server.receive::<queue::Declare>(1).await;
            server.end().await;
            if link == 1 {
                server = next_link(&listener).await;
                server.open_channel(1).await;
            }
        }
        drop(listener);
        let error = within("an error", declaring).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("sent 2 times within 1 s"), "{error}");
    });
}
