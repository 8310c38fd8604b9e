//! What the log says.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lepus::Properties;
use lepus::protocol::basic;
use lepus::robust::Event;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Level, Metadata, Subscriber};

use crate::peer::*;

/// An event, with its fields as text.
#[derive(Clone, Debug)]
struct Line {
    level: Level,
    fields: Vec<(&'static str, String)>,
}

impl Line {
    fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(field, _)| *field == name).map_or("", |(_, value)| value)
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.push((field.name(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.push((field.name(), value.to_owned()));
    }
}

/// Collects the crate's events.
#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<Vec<Line>>>,
    spans: Arc<AtomicU64>,
}

impl Log {
    /// Collects what happens on this thread, as long as the guard lives.
    fn start() -> (Self, DefaultGuard) {
        let log = Self::default();
        let guard = tracing::subscriber::set_default(log.clone());
        (log, guard)
    }

    fn at(&self, level: Level) -> Vec<Line> {
        self.lines.lock().unwrap().iter().filter(|line| line.level == level).cloned().collect()
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("lepus")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line { level: *event.metadata().level(), fields: Vec::new() };
        event.record(&mut line);
        self.lines.lock().unwrap().push(line);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_lost_link_of_a_robust_connection_is_one_warning_and_attempts_are_debug() {
    let (log, _guard) = Log::start();
    let listener = Listener::bind().await;
    let port = listener.port().to_string();
    let (connection, server) = both(listener.options().robust().connect(), async {
        let mut server = listener.accept().await;
        server.handshake(TUNE).await;
        server
    })
    .await;
    let connection = connection.unwrap();
    let mut events = connection.events();
    assert!(log.at(Level::WARN).is_empty());
    drop((server, listener));
    let mut failed = 0;
    while failed < 5 {
        if let Some(Event::Failed { .. }) = within("an attempt", events.next()).await {
            failed += 1;
        }
    }
    let warnings = log.at(Level::WARN);
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert_eq!(warnings[0].field("message"), "the connection was lost");
    assert_eq!((warnings[0].field("host"), warnings[0].field("port")), ("127.0.0.1", port.as_str()));
    assert!(warnings[0].field("error").contains("end of file"), "{warnings:#?}");
    let attempts: Vec<_> = log
        .at(Level::DEBUG)
        .into_iter()
        .filter(|line| line.field("message") == "an attempt to connect failed")
        .collect();
    assert_eq!(attempts.len(), 5);
    for (number, attempt) in (1..).zip(attempts) {
        assert_eq!((attempt.field("host"), attempt.field("port")), ("127.0.0.1", port.as_str()));
        assert_eq!(attempt.field("number"), format!("{number}"));
        assert!(attempt.field("error").contains("nothing listens there"), "{attempt:?}");
    }
}

#[tokio::test]
async fn a_lost_plain_connection_is_one_warning() {
    let (log, _guard) = Log::start();
    let (mut server, connection) = connected().await;
    server.end().await;
    within("the end", connection.closed()).await;
    drop((server, connection));
    let warnings = log.at(Level::WARN);
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert_eq!(warnings[0].field("host"), "127.0.0.1");
    assert!(!warnings[0].field("port").is_empty());
}

#[tokio::test]
async fn a_link_that_is_lost_before_it_is_restored_is_no_further_warning() {
    let (log, _guard) = Log::start();
    let listener = Listener::bind().await;
    let again = async || {
        let mut server = listener.accept().await;
        server.handshake(TUNE).await;
        server
    };
    let (connection, mut server) = both(listener.options().robust().connect(), again()).await;
    let connection = connection.unwrap();
    let channel = open_robust(&mut server, &connection).await;
    drop(server);
    for _ in 0..3 {
        // connected, and lost while the channel is opened again
        drop(again().await);
    }
    let mut server = again().await;
    server.open_channel(1).await;
    within("the next link", connection.ready()).await.unwrap();
    drop(channel);
    assert_eq!(log.at(Level::WARN).len(), 1, "{:#?}", log.at(Level::WARN));
}

#[tokio::test]
async fn a_close_is_no_warning() {
    let (log, _guard) = Log::start();
    let (mut server, connection) = connected().await;
    let (closed, ()) = both(connection.close(), async {
        server.receive::<lepus::protocol::connection::Close>(0).await;
        server.send(0, lepus::protocol::connection::CloseOk).await;
    })
    .await;
    closed.unwrap();
    assert!(log.at(Level::WARN).is_empty(), "{:#?}", log.at(Level::WARN));
}

async fn open_robust(server: &mut Peer, connection: &lepus::Connection) -> lepus::Channel {
    both(connection.channel(), server.open_channel(1)).await.0.unwrap()
}

#[tokio::test]
async fn a_handler_that_is_stopped_is_a_warning_that_names_its_message() {
    let (log, _guard) = Log::start();
    let (mut server, _connection, channel) = with_channel().await;
    let queue = channel.queue("q").unwrap();
    let handle = queue.consume().tag("c").handle(|_| std::future::pending::<Result<(), String>>());
    let (worker, _) = both(handle, server.start_consumer(1, "c")).await;
    let mut worker = worker.unwrap();
    let mut properties = Vec::new();
    Properties { message_id: Some(short("order-7")), ..Default::default() }.encode(&mut properties);
    let message = [deliver(1, "c", 1), raw_header(1, 60, 0, 1, &properties), body(1, b"m")];
    server.write(&message.concat()).await;
    nothing_else(&mut server, &channel).await;
    let cancel = basic::Cancel { consumer_tag: short("c"), no_wait: true };
    server.send(1, cancel).await;
    drop(within("the worker to end", worker.ended()).await);
    let warnings = log.at(Level::WARN);
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].field("message").contains("went stale"), "{warnings:#?}");
    let named = ["queue", "routing_key", "message_id"].map(|field| warnings[0].field(field));
    assert_eq!(named, ["q", "k", "order-7"]);
}

#[tokio::test]
async fn the_error_of_a_handler_is_told_with_its_causes() {
    let (log, _guard) = Log::start();
    let (mut server, _connection, channel) = with_channel().await;
    let queue = channel.queue("q").unwrap();
    let cause = || std::io::Error::other("no space left");
    let handle = queue.consume().tag("c").handle(move |_| async move {
        let error: Box<dyn std::error::Error + Send + Sync> = Box::new(cause());
        Err::<(), _>(Saving(error))
    });
    let (_worker, _) = both(handle, server.start_consumer(1, "c")).await;
    server.write(&delivery(1, "c", 1, b"m")).await;
    server.expect(1, basic::Reject { delivery_tag: 1, requeue: false }).await;
    let warnings = log.at(Level::WARN);
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert_eq!(warnings[0].field("error"), "saving: no space left");
}

/// An error that shows its cause where that is asked for, as those of lepus and anyhow do.
struct Saving(Box<dyn std::error::Error + Send + Sync>);

impl std::fmt::Display for Saving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if f.alternate() { write!(f, "saving: {}", self.0) } else { f.write_str("saving") }
    }
}
