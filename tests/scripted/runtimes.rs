//! Handles that outlive the runtime that drives their connection.

use lepus::{Error, ErrorKind, Origin, Scope};
use tokio::runtime::{Builder, Runtime};

use crate::peer::*;

/// A runtime with a thread of its own, so that it works while another one waits.
fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn blames_the_runtime(error: &Error) {
    assert_eq!(
        (error.kind(), error.origin(), error.scope()),
        (ErrorKind::RuntimeEnded, Origin::User, Scope::Connection),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.starts_with("the tokio runtime that drives the connection"), "{text}");
    assert!(text.ends_with("was shut down"), "{text}");
}

#[test]
fn errors_after_the_end_of_the_runtime_say_so() {
    let (servers, driving, using) = (runtime(), runtime(), runtime());
    let listener = servers.block_on(Listener::bind());
    let options = listener.options();
    let serving = servers.spawn(async move {
        let mut server = listener.accept().await;
        server.handshake(TUNE).await;
        server.open_channel(1).await;
        server.start_consumer(1, "c").await;
        server
    });
    let (connection, channel, mut consumer) = driving.block_on(async {
        let connection = options.connect().await.unwrap();
        let channel = connection.channel().await.unwrap();
        let consumer = channel.queue("q").unwrap().consume().tag("c").await.unwrap();
        (connection, channel, consumer)
    });
    let _server = servers.block_on(serving).unwrap();
    let confirm = using.block_on(channel.default_exchange().enqueue("q", "x")).unwrap();
    let waiting = using.spawn({
        let queue = channel.queue("q").unwrap();
        async move { queue.purge().await }
    });
    drop(driving);
    using.block_on(async {
        blames_the_runtime(&within("the confirm", confirm).await.unwrap_err());
        blames_the_runtime(&within("the call", waiting).await.unwrap().unwrap_err());
        blames_the_runtime(&within("the consumer's end", consumer.next()).await.unwrap().unwrap_err());
        blames_the_runtime(&within("the connection's end", connection.closed()).await);
        blames_the_runtime(
            &within("a later call", channel.declare_queue("q").into_future()).await.unwrap_err(),
        );
        blames_the_runtime(&within("a channel", connection.channel().into_future()).await.unwrap_err());
        let exchange = channel.default_exchange();
        let published = exchange.publish("q", "x");
        blames_the_runtime(&within("a publish", published.into_future()).await.unwrap_err());
    });
}

#[test]
fn errors_of_a_robust_connection_after_the_end_of_the_runtime_say_so() {
    let (servers, driving, using) = (runtime(), runtime(), runtime());
    let listener = servers.block_on(Listener::bind());
    let options = listener.options().robust();
    let serving = servers.spawn(async move {
        let mut server = listener.accept().await;
        server.handshake(TUNE).await;
        server.open_channel(1).await;
        server
    });
    let (connection, channel) = driving.block_on(async {
        let connection = options.connect().await.unwrap();
        let channel = connection.channel().await.unwrap();
        (connection, channel)
    });
    let _server = servers.block_on(serving).unwrap();
    drop(driving);
    using.block_on(async {
        blames_the_runtime(&within("the connection's end", connection.closed()).await);
        blames_the_runtime(&within("a call", channel.declare_queue("q").into_future()).await.unwrap_err());
        let exchange = channel.default_exchange();
        let published = exchange.publish("q", "x");
        blames_the_runtime(&within("a publish", published.into_future()).await.unwrap_err());
        blames_the_runtime(&within("a channel", connection.channel().into_future()).await.unwrap_err());
    });
}
