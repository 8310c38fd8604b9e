//! What `Debug` shows: sizes of bodies, never their bytes.

use std::fmt::Debug;

use lepus::Message;
use lepus::protocol::basic;

use crate::peer::*;

/// It names the size and shows nothing of the body, neither as text nor as numbers.
#[track_caller]
fn hides_body(what: &impl Debug) {
    for shown in [format!("{what:?}"), format!("{what:#?}")] {
        assert!(shown.contains("9 bytes"), "{shown}");
        shows_no_body(&shown);
    }
}

#[track_caller]
fn shows_no_body(shown: &str) {
    let numbers = format!("{:?}", b"hush-body").replace(['[', ']'], "");
    assert!(!shown.contains("hush") && !shown.replace("\n        ", " ").contains(&numbers), "{shown}");
}

#[test]
fn of_a_message() {
    let message = Message::new("hush-body").content_type("text/plain").header("retries", 3);
    hides_body(&message);
    let shown = format!("{message:?}");
    assert!(shown.contains("text/plain") && shown.contains("retries"), "{shown}");
    hides_body(&Message::from(b"hush-body".to_vec()));
}

#[tokio::test]
async fn of_a_delivery() {
    let (mut server, _connection, _channel, mut consumer) = with_consumer().await;
    for tag in 1..=2 {
        server.write(&[deliver(1, "c", tag), header(1, 9), body(1, b"hush-body")].concat()).await;
    }
    let whole = within("a delivery", consumer.next()).await.unwrap().unwrap();
    hides_body(&whole);
    hides_body(&whole.into_incoming());
    // another waits in the consumer, not handed out
    shows_no_body(&format!("{consumer:?}"));
}

#[tokio::test]
async fn of_a_returned_message() {
    let (mut server, _connection, channel) = with_channel().await;
    let returns = channel.returns();
    let exchange = channel.default_exchange();
    let publish = exchange.publish("nobody", "hush-body").mandatory();
    shows_no_body(&format!("{publish:?} {:?}", exchange.enqueue("nobody", "hush-body")));
    let (published, ()) = both(publish, async {
        let published = server.receive_publish(1).await;
        // a second one that nobody published waits among the returns
        for _ in 0..2 {
            server.write(&returned(1, "nobody", &published.properties, b"hush-body")).await;
        }
        server.send(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
    })
    .await;
    let error = published.unwrap_err();
    hides_body(&error.returned().unwrap());
    shows_no_body(&format!("{error:?} {error:#?} {returns:?} {channel:?}"));
}
