//! A virtual host: exchanges and queues, and how a message finds its way between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::codec::{FieldTable, FieldValue, ShortStr};

use super::broker_exchange::{BindingKey, Destination, Exchange, Kind};
use super::broker_message::Message;
use super::broker_queue::Queue;
use super::equivalence::value_text;
use super::refusal::Refusal;
use super::settings::type_name;

/// The exchanges that are there from the beginning; the default one is no entry of its own.
const PREDECLARED: [(&str, Kind, bool); 7] = [
    ("amq.direct", Kind::Direct, false),
    ("amq.fanout", Kind::Fanout, false),
    ("amq.topic", Kind::Topic, false),
    ("amq.headers", Kind::Headers, false),
    ("amq.match", Kind::Headers, false),
    ("amq.rabbitmq.trace", Kind::Topic, true),
    ("amq.rabbitmq.log", Kind::Topic, true),
];

/// A virtual host.
#[derive(Debug)]
pub(super) struct Vhost {
    pub name: Arc<str>,
    pub exchanges: BTreeMap<ShortStr, Exchange>,
    pub queues: BTreeMap<ShortStr, Queue>,
}

impl Vhost {
    pub(super) fn new(name: Arc<str>) -> Self {
        let predeclared = PREDECLARED.into_iter().filter_map(|(name, kind, internal)| {
            Some((ShortStr::try_from(name).ok()?, Exchange::predeclared(kind, internal)))
        });
        Self { name, exchanges: predeclared.collect(), queues: BTreeMap::new() }
    }

    /// A queue that this connection may use.
    pub(super) fn queue(&mut self, connection: u64, name: &ShortStr) -> Result<&mut Queue, Refusal> {
        match self.queues.get_mut(name) {
            None => Err(Refusal::no_queue(&self.name, name)),
            Some(queue) if queue.owner.is_some_and(|owner| owner != connection) => {
                Err(Refusal::locked(&self.name, name))
            }
            Some(queue) => Ok(queue),
        }
    }

    pub(super) fn exchange(&mut self, name: &ShortStr) -> Result<&mut Exchange, Refusal> {
        self.exchanges.get_mut(name).ok_or_else(|| Refusal::no_exchange(&self.name, name))
    }

    /// The queues that a message goes to, each once.
    pub(super) fn route(&self, message: &Message) -> BTreeSet<ShortStr> {
        let keys = message.routing_keys();
        let mut queues = BTreeSet::new();
        if message.exchange.is_empty() {
            queues.extend(keys.into_iter().filter(|key| self.queues.contains_key(key)));
            return queues;
        }
        let mut seen = BTreeSet::from([message.exchange.clone()]);
        let mut open = vec![message.exchange.clone()];
        while let Some(name) = open.pop() {
            // the default exchange routes nothing as an alternate
            let Some(exchange) = self.exchanges.get(&name) else { continue };
            let mut matched = false;
            for key in &keys {
                for destination in exchange.matching(key, message.headers()) {
                    matched = true;
                    match destination {
                        Destination::Queue(queue) => {
                            queues.insert(queue.clone());
                        }
                        Destination::Exchange(next) => {
                            if seen.insert(next.clone()) {
                                open.push(next.clone());
                            }
                        }
                    }
                }
            }
            if !matched
                && let Some(alternate) = exchange.alternate()
                && seen.insert(alternate.clone())
            {
                open.push(alternate);
            }
        }
        queues
    }

    pub(super) fn bind(
        &mut self,
        source: &ShortStr,
        key: BindingKey,
        arguments: FieldTable,
    ) -> Result<(), Refusal> {
        let exchange = self.exchange(source)?;
        if exchange.kind == Kind::Headers {
            check_rule(&arguments)?;
        }
        exchange.bindings.insert(key, arguments);
        Ok(())
    }

    /// Removes a binding, which need not be there. An auto-delete exchange goes with its last one.
    pub(super) fn unbind(&mut self, source: &ShortStr, key: &BindingKey) {
        let Some(exchange) = self.exchanges.get_mut(source) else { return };
        if exchange.bindings.remove(key).is_some() && exchange.auto_delete && exchange.bindings.is_empty() {
            self.delete_exchange(source);
        }
    }

    /// Removes an exchange and all bindings from and to it.
    pub(super) fn delete_exchange(&mut self, name: &ShortStr) {
        self.exchanges.remove(name);
        self.unbind_everywhere(Destination::Exchange(name.clone()));
    }

    /// Removes a queue and the bindings to it.
    pub(super) fn delete_queue(&mut self, name: &ShortStr) -> Option<Queue> {
        let queue = self.queues.remove(name)?;
        self.unbind_everywhere(Destination::Queue(name.clone()));
        Some(queue)
    }

    /// Removes all bindings to what is gone. Auto-delete exchanges go with their last one, and then those to them.
    fn unbind_everywhere(&mut self, destination: Destination) {
        let mut gone = vec![destination];
        while let Some(destination) = gone.pop() {
            let mut unused = Vec::new();
            for (name, exchange) in &mut self.exchanges {
                let before = exchange.bindings.len();
                exchange.bindings.retain(|key, _| key.destination != destination);
                if exchange.auto_delete && exchange.bindings.is_empty() && before > 0 {
                    unused.push(name.clone());
                }
            }
            for name in unused {
                self.exchanges.remove(&name);
                gone.push(Destination::Exchange(name));
            }
        }
    }

    /// Keeps what is durable.
    pub(super) fn restart(&mut self) {
        let gone = self.queues.iter().filter(|(_, queue)| !queue.durable || queue.owner.is_some());
        let gone: Vec<_> = gone.map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.delete_queue(&name);
        }
        let gone = self.exchanges.iter().filter(|(_, exchange)| !exchange.durable);
        let gone: Vec<_> = gone.map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.delete_exchange(&name);
        }
        for queue in self.queues.values_mut() {
            queue.keep_persistent();
        }
    }
}

/// Whether a headers exchange understands a binding's `x-match`.
fn check_rule(arguments: &FieldTable) -> Result<(), Refusal> {
    let invalid = |what: &str, is: String, expected| {
        Err(Refusal::precondition_failed(format_args!(
            "Invalid x-match field {what} {is}; expected {expected}"
        )))
    };
    match arguments.get("x-match") {
        None => Ok(()),
        Some(FieldValue::LongStr(rule)) => match rule.as_ref() {
            b"all" | b"any" | b"all-with-x" | b"any-with-x" => Ok(()),
            other => {
                let rule = format!("<<\"{}\">>", String::from_utf8_lossy(other));
                invalid("value", rule, "all, any, all-with-x, or any-with-x")
            }
        },
        Some(other) => {
            let is = format!("{} (value {})", type_name(other), value_text(other));
            invalid("type", is, "longstr")
        }
    }
}
