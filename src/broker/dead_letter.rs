//! Dead-lettering: a message that a queue gives up is published again, and says in its headers why.

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{FieldTable, FieldValue, ShortStr, Timestamp};

use super::broker_message::{Held, Message};
use super::state::{Place, State};

/// A message that a queue has given up.
#[derive(Debug)]
pub(super) struct Death {
    pub place: Place,
    /// The queue's `x-dead-letter-exchange`, and its routing key if it has one.
    pub exchange: ShortStr,
    pub routing_key: Option<ShortStr>,
    pub message: Arc<Message>,
    /// Failed deliveries until now.
    pub deliveries: u32,
    /// `rejected`, `expired`, `maxlen` or `delivery_limit`.
    pub reason: &'static str,
}

impl State {
    /// Publishes a dead message to where its queue wants it.
    pub(super) fn publish_dead(&mut self, death: &Death) {
        let vhost_name = Arc::clone(&death.place.0);
        let Some(vhost) = self.vhosts.get(&vhost_name) else { return };
        if !death.exchange.is_empty() && !vhost.exchanges.contains_key(&death.exchange) {
            return;
        }
        let held = Held::new(&self.memory, death.message.size());
        let message = death.message(held);
        let mut queues = vhost.route(&message);
        if death.reason != "rejected" {
            let deaths = deaths(message.headers());
            queues.retain(|queue| !is_cycle(queue, deaths));
        }
        let message = Arc::new(message);
        for queue in queues {
            self.push(&(Arc::clone(&vhost_name), queue), &message);
        }
    }
}

impl Death {
    /// The message as it is published again.
    fn message(&self, held: Held) -> Message {
        let mut properties = self.message.properties.clone();
        let expiration = properties.expiration.take();
        let headers = properties.headers.get_or_insert_default();
        let known = self.message.dead;
        let old = if known { deaths(Some(headers)).to_vec() } else { Vec::new() };
        set(headers, "x-death", FieldValue::Array(self.record(old, expiration)));
        for (name, value) in [
            ("reason", self.reason.into()),
            ("queue", text(&self.place.1)),
            ("exchange", text(&self.message.exchange)),
        ] {
            let first = format!("x-first-death-{name}");
            if !known {
                set(headers, &first, FieldValue::clone(&value));
            }
            set(headers, &format!("x-last-death-{name}"), value);
        }
        // a key of the queue replaces all that the message had
        let Message { routing_key, copies, blind_copies, .. } = &*self.message;
        let (routing_key, copies, blind_copies) = if let Some(key) = &self.routing_key {
            (key.clone(), Vec::new(), Vec::new())
        } else {
            (routing_key.clone(), copies.clone(), blind_copies.clone())
        };
        Message {
            exchange: self.exchange.clone(),
            routing_key,
            copies,
            blind_copies,
            properties,
            body: self.message.body.clone(),
            deliveries: self.deliveries,
            dead: true,
            held,
        }
    }

    /// The deaths with this one first: a new entry, or the old one of this queue and reason counted up.
    fn record(&self, mut deaths: Vec<FieldValue>, expiration: Option<ShortStr>) -> Vec<FieldValue> {
        let same = deaths.iter().position(|death| {
            part(death, "queue") == Some(self.place.1.as_bytes())
                && part(death, "reason") == Some(self.reason.as_bytes())
        });
        let entry = if let Some(FieldValue::Table(mut table)) = same.map(|index| deaths.remove(index)) {
            let count = table.get("count").and_then(FieldValue::as_integer).unwrap_or(0);
            set(&mut table, "count", FieldValue::I64(count.saturating_add(1)));
            table
        } else {
            let keys = self.message.known_keys();
            let mut table = FieldTable::new();
            set(&mut table, "count", FieldValue::I64(1));
            set(&mut table, "reason", self.reason.into());
            set(&mut table, "queue", text(&self.place.1));
            set(&mut table, "time", FieldValue::Timestamp(Timestamp::now()));
            set(&mut table, "exchange", text(&self.message.exchange));
            set(&mut table, "routing-keys", FieldValue::Array(keys.iter().map(text).collect()));
            if let Some(expiration) = expiration {
                set(&mut table, "original-expiration", text(&expiration));
            }
            table
        };
        deaths.insert(0, FieldValue::Table(entry));
        deaths
    }
}

/// The deaths that a message has in its headers, the latest first.
fn deaths(headers: Option<&FieldTable>) -> &[FieldValue] {
    headers.and_then(|headers| headers.get("x-death")).and_then(FieldValue::as_array).unwrap_or_default()
}

/// Whether the message has been in this queue before and nobody has rejected it since: it would go round
/// for ever.
fn is_cycle(queue: &ShortStr, deaths: &[FieldValue]) -> bool {
    let last = deaths.iter().position(|death| part(death, "queue") == Some(queue.as_bytes()));
    last.and_then(|last| deaths.get(..=last))
        .is_some_and(|round| round.iter().all(|death| part(death, "reason") != Some(b"rejected")))
}

fn part<'a>(death: &'a FieldValue, name: &str) -> Option<&'a [u8]> {
    death.as_table()?.get(name)?.as_bytes().map(AsRef::as_ref)
}

fn text(text: &ShortStr) -> FieldValue {
    FieldValue::LongStr(Bytes::copy_from_slice(text.as_bytes()))
}

/// Sets a header; the names used here fit into a short string.
fn set(headers: &mut FieldTable, name: &str, value: FieldValue) {
    drop(headers.insert(name, value));
}
