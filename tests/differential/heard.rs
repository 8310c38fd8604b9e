//! What a step makes a broker say, as text that can be compared.
//!
//! `RabbitMQ` promises an order only within a channel's replies, and within what one consumer gets; so each of
//! these is a stream of its own.

use std::collections::BTreeMap;
use std::fmt::Write;

use lepus::protocol::Method;
use lepus::{FieldTable, FieldValue, Properties};

/// What a step led to: for each stream what came in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard(pub(crate) BTreeMap<String, Vec<String>>);

impl Heard {
    pub(crate) fn note(&mut self, stream: impl Into<String>, text: String) {
        self.0.entry(stream.into()).or_default().push(text);
    }

    /// What is not the same in both, a line for each stream.
    pub(crate) fn difference(&self, other: &Self) -> String {
        let mut text = String::new();
        let names: std::collections::BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        for name in names {
            let (one, two) = (self.0.get(name), other.0.get(name));
            if one != two {
                writeln!(text, "  {name}\n    embedded: {}\n    RabbitMQ: {}", listed(one), listed(two))
                    .unwrap();
            }
        }
        text
    }
}

fn listed(said: Option<&Vec<String>>) -> String {
    said.map_or("nothing".into(), |said| said.join("\n              "))
}

/// A reply, without what differs from run to run.
pub(crate) fn reply(method: &Method) -> String {
    match method {
        Method::ChannelClose(close) => {
            let id = (close.class_id, close.method_id);
            format!("channel.close {} {} {id:?}", close.reply_code, close.reply_text)
        }
        Method::ConnectionClose(close) => {
            let id = (close.class_id, close.method_id);
            format!("connection.close {} {} {id:?}", close.reply_code, close.reply_text)
        }
        Method::QueueDeclareOk(ok) => {
            let queue = ok.queue.as_str().unwrap();
            let queue = if queue.starts_with("amq.gen-") { "amq.gen-…" } else { queue };
            format!("declare-ok {queue} {} ready {} consumers", ok.message_count, ok.consumer_count)
        }
        Method::BasicConsumeOk(ok) => {
            let tag = ok.consumer_tag.as_str().unwrap();
            format!("consume-ok {}", if tag.starts_with("amq.ctag-") { "amq.ctag-…" } else { tag })
        }
        other => format!("{other:?}"),
    }
}

/// Properties and headers.
pub(crate) fn properties(properties: &Properties) -> String {
    let mut text = String::new();
    let p = properties;
    for (name, value) in [
        ("content-type", &p.content_type),
        ("content-encoding", &p.content_encoding),
        ("correlation-id", &p.correlation_id),
        ("reply-to", &p.reply_to),
        ("expiration", &p.expiration),
        ("message-id", &p.message_id),
        ("type", &p.kind),
        ("user-id", &p.user_id),
        ("app-id", &p.app_id),
        ("cluster-id", &p.cluster_id),
    ] {
        let Some(value) = value else { continue };
        let value = value.as_str().unwrap();
        let direct = value.starts_with("amq.rabbitmq.reply-to.");
        write!(text, " {name}={}", if direct { "amq.rabbitmq.reply-to.…" } else { value }).unwrap();
    }
    if let Some(mode) = p.delivery_mode {
        write!(text, " delivery-mode={mode}").unwrap();
    }
    if let Some(priority) = p.priority {
        write!(text, " priority={priority}").unwrap();
    }
    if let Some(headers) = &p.headers {
        write!(text, " {}", table(headers)).unwrap();
    }
    text
}

/// A table by names; when something happened is left out.
fn table(fields: &FieldTable) -> String {
    let mut pairs: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={}", field(value))).collect();
    pairs.sort();
    format!("{{{}}}", pairs.join(", "))
}

fn field(value: &FieldValue) -> String {
    match value {
        FieldValue::Table(fields) => table(fields),
        FieldValue::Array(values) => format!("[{}]", values.iter().map(field).collect::<Vec<_>>().join(", ")),
        FieldValue::LongStr(text) => format!("'{}'", String::from_utf8_lossy(text)),
        FieldValue::Timestamp(_) => "a time".into(),
        other => format!("{other:?}"),
    }
}
