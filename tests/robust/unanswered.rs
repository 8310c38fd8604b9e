//! A server that does not answer.

use std::time::Duration;

use lepus::ErrorKind;
use lepus::protocol::queue;

use crate::case::test;
use crate::peer::{Listener, Peer, TUNE, both, within};

async fn next_link(listener: &Listener) -> Peer {
    let mut server = listener.accept().await;
    server.handshake(TUNE).await;
    server
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
