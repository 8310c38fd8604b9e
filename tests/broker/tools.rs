//! What these tests share.

use std::time::Duration;

use lepus::broker::Broker;
use lepus::{Channel, Connection};

/// No test takes nearly as long: one that does hangs.
const HANGS: Duration = Duration::from_secs(60);

/// Runs a test on a broker of its own.
pub(crate) fn test(body: impl AsyncFnOnce(Broker)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let broker = Broker::start().await.unwrap();
        assert!(tokio::time::timeout(HANGS, body(broker)).await.is_ok(), "it hangs");
    });
}

/// A connection with a channel. Both are needed: who drops the connection closes it.
pub(crate) async fn open(broker: &Broker) -> (Connection, Channel) {
    let connection = lepus::connect(&broker.url()).await.unwrap();
    let channel = connection.channel().await.unwrap();
    (connection, channel)
}
