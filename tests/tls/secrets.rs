//! No password and no key appears in what a program sees of a connection: its log at the level `TRACE`, errors, options.

use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lepus::broker::Broker;
use lepus::robust::Event;
use lepus::{ConnectOptions, Tls};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

const PASSWORD: &str = "hush-hush-2718";
const WRONG: &str = "not-the-password-3141";
const TOKEN: &str = "a-token-of-oauth-1618";

/// All that is said, as text.
#[derive(Clone, Default)]
struct Said {
    text: Arc<Mutex<String>>,
    spans: Arc<AtomicU64>,
}

impl Said {
    fn say(&self, what: impl Debug) {
        writeln!(self.text.lock().unwrap(), "{what:?}").unwrap();
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.say(format_args!("{field}={value:?}"));
    }
}

/// Every event and span of every crate, at all levels.
impl Subscriber for Said {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn no_password_and_no_key_is_printed_or_logged() {
    let said = Said::default();
    let _guard = tracing::subscriber::set_default(said.clone());
    let broker = Broker::options().user("app", PASSWORD).tls().start().await.unwrap();
    let (certificate, key) = broker.client_identity("app").unwrap();
    let tls = Tls::new().ca_pem(broker.ca_pem()).identity_pem(&certificate, &key);
    said.say(&tls);
    let address = broker.tls_address().unwrap();
    let uri = |password: &str| format!("amqps://app:{password}@{address}/?connection_timeout=2000");
    let options = |password: &str| ConnectOptions::new(&uri(password)).unwrap().tls(tls.clone());

    said.say(options(PASSWORD));
    said.say(options(PASSWORD).to_string());
    said.say(options(PASSWORD).robust());
    said.say(ConnectOptions::new(&uri(&format!("{PASSWORD}#"))));
    said.say(ConnectOptions::new(&format!("amqps://app:{PASSWORD}@{address}/?nonsense={PASSWORD}")));
    // refused: the certificate of nobody, and a wrong password
    let error = options(WRONG).connect().await.unwrap_err();
    said.say(format_args!("{error} {error:#} {error:?} {error:#?}"));
    let error = ConnectOptions::new(&uri(PASSWORD)).unwrap().tls(Tls::new()).connect().await.unwrap_err();
    said.say(format_args!("{error} {error:#} {error:?} {error:#?}"));

    let connection = options(PASSWORD).robust().connect().await.unwrap();
    said.say(&connection);
    connection.update_secret(TOKEN, "expires").await.unwrap();
    let mut events = connection.events();
    broker.cut();
    loop {
        let event = events.next().await.unwrap();
        said.say(&event);
        // the token is no password of the broker's: the next login fails
        if matches!(event, Event::Failed { .. }) {
            break;
        }
    }
    said.say(connection.status());
    said.say(connection.close().await);

    let text = said.text.lock().unwrap();
    assert!(text.contains("amqps://app@"), "what is said is not collected");
    let line_of_key = key.lines().nth(1).unwrap();
    for secret in [PASSWORD, WRONG, TOKEN, line_of_key] {
        let at = text.find(secret);
        assert!(at.is_none(), "{}", &text[at.unwrap_or(0).saturating_sub(300)..][..600.min(text.len())]);
    }
}
