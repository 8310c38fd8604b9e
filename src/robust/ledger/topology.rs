//! What was declared through a connection, and what of it is gone: plain data, without I/O.
//!
//! Everything is keyed by all its parts, so recording twice is recording once. What the broker removes by itself as
//! a consequence is removed here, too: bindings with their queue or exchange, an auto-delete exchange with the last
//! binding from it, an auto-delete queue with its last consumer. Others may keep such an entity alive; then it is not
//! ours to restore any more.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;

use crate::codec::{Arguments, FieldTable, ShortStr};
use crate::protocol::{exchange, queue};
use crate::single::Name;

/// How many former names of a server-named queue are still understood.
const FORMER_NAMES: usize = 16;

/// A consumer, by its channel and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::robust) struct ConsumerKey {
    pub channel: u64,
    pub consumer: u64,
}

/// A queue that was declared.
#[derive(Clone, Debug)]
pub(in crate::robust) struct RecordedQueue {
    /// With the name that it has now.
    pub declare: queue::Declare,
    /// For queues that the server named: what its handles see.
    pub server_named: Option<Name>,
    /// The names that it had.
    former: VecDeque<ShortStr>,
}

/// All that tells a binding from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct BindingKey {
    destination: ShortStr,
    source: ShortStr,
    routing_key: ShortStr,
    arguments: Vec<u8>,
}

/// What was declared, in the order in which it was.
#[derive(Clone, Debug, Default)]
pub(in crate::robust) struct Topology {
    exchanges: Ordered<ShortStr, exchange::Declare>,
    queues: Ordered<ShortStr, RecordedQueue>,
    exchange_bindings: Ordered<BindingKey, exchange::Bind>,
    queue_bindings: Ordered<BindingKey, queue::Bind>,
    /// The queue of each consumer.
    consumers: HashMap<ConsumerKey, ShortStr>,
    /// From the former names of server-named queues to those that they have now.
    aliases: HashMap<ShortStr, ShortStr>,
}

impl Topology {
    // What is there.

    pub(in crate::robust) fn exchanges(&self) -> impl Iterator<Item = &exchange::Declare> {
        self.exchanges.values()
    }

    pub(in crate::robust) fn queues(&self) -> impl Iterator<Item = &RecordedQueue> {
        self.queues.values()
    }

    pub(in crate::robust) fn exchange_bindings(&self) -> impl Iterator<Item = &exchange::Bind> {
        self.exchange_bindings.values()
    }

    pub(in crate::robust) fn queue_bindings(&self) -> impl Iterator<Item = &queue::Bind> {
        self.queue_bindings.values()
    }

    /// An exchange that was declared.
    pub(in crate::robust) fn exchange(&self, name: &ShortStr) -> Option<&exchange::Declare> {
        self.exchanges.get(name)
    }

    /// Whether a queue was declared that goes with its last consumer.
    pub(in crate::robust) fn is_auto_delete(&self, queue: &ShortStr) -> bool {
        self.queue(queue).is_some_and(|queue| queue.declare.auto_delete)
    }

    /// Whether a channel has a consumer that an auto-delete queue may go with.
    pub(in crate::robust) fn consumes_auto_delete(&self, channel: u64) -> bool {
        let own = self.consumers.iter().filter(|(key, _)| key.channel == channel);
        own.map(|(_, queue)| queue).any(|queue| self.is_auto_delete(queue))
    }

    /// Whether the broker may remove something by itself.
    pub(in crate::robust) fn has_auto_delete(&self) -> bool {
        self.queues().any(|queue| queue.declare.auto_delete) || self.exchanges().any(|it| it.auto_delete)
    }

    /// A queue that was declared.
    pub(in crate::robust) fn queue(&self, name: &ShortStr) -> Option<&RecordedQueue> {
        self.queues.get(name)
    }

    /// The queue that a consumer consumes from.
    pub(in crate::robust) fn queue_of(&self, consumer: ConsumerKey) -> Option<&ShortStr> {
        self.consumers.get(&consumer)
    }

    /// The queues that are consumed from.
    pub(in crate::robust) fn consumed(&self) -> HashSet<&ShortStr> {
        self.consumers.values().collect()
    }

    /// What a queue of this name is called now.
    pub(in crate::robust) fn current<'a>(&'a self, name: &'a ShortStr) -> &'a ShortStr {
        self.aliases.get(name).unwrap_or(name)
    }

    /// What the handles of a queue of this name hold.
    pub(in crate::robust) fn name(&self, name: ShortStr) -> Name {
        let recorded = self.queues.get(self.current(&name)).and_then(|queue| queue.server_named.clone());
        recorded.unwrap_or_else(|| Name::new(name))
    }

    // What is recorded, and forgotten.

    pub(in crate::robust) fn declare_exchange(&mut self, declare: exchange::Declare) {
        self.exchanges.insert(declare.exchange.clone(), declare);
    }

    /// A queue was declared. `name`: the one that the server told.
    pub(in crate::robust) fn declare_queue(&mut self, mut declare: queue::Declare, name: ShortStr) {
        let server_named = declare.queue.is_empty().then(|| Name::replaceable(name.clone()));
        declare.queue = name.clone();
        // declared again under its name, it stays what it was
        if let Some(known) = self.queues.get_mut(&name)
            && server_named.is_none()
        {
            known.declare = declare;
            return;
        }
        self.queues.insert(name, RecordedQueue { declare, server_named, former: VecDeque::new() });
    }

    pub(in crate::robust) fn bind_exchange(&mut self, bind: exchange::Bind) {
        let key = BindingKey::new(&bind.destination, &bind.source, &bind.routing_key, &bind.arguments);
        self.exchange_bindings.insert(key, bind);
    }

    pub(in crate::robust) fn bind_queue(&mut self, bind: queue::Bind) {
        let key = BindingKey::new(&bind.queue, &bind.exchange, &bind.routing_key, &bind.arguments);
        self.queue_bindings.insert(key, bind);
    }

    pub(in crate::robust) fn unbind_exchange(&mut self, unbind: &exchange::Unbind) {
        let exchange::Unbind { destination, source, routing_key, arguments, .. } = unbind;
        if self.exchange_bindings.remove(&BindingKey::new(destination, source, routing_key, arguments)) {
            self.binding_gone(source);
        }
    }

    pub(in crate::robust) fn unbind_queue(&mut self, unbind: &queue::Unbind) {
        let queue::Unbind { queue, exchange, routing_key, arguments } = unbind;
        if self.queue_bindings.remove(&BindingKey::new(queue, exchange, routing_key, arguments)) {
            self.binding_gone(exchange);
        }
    }

    pub(in crate::robust) fn delete_exchange(&mut self, name: &ShortStr) {
        self.exchanges.remove(name);
        self.queue_bindings.retain(|bind| bind.exchange != *name);
        let mut sources = Vec::new();
        self.exchange_bindings.retain(|bind| {
            let gone = bind.source == *name || bind.destination == *name;
            if gone && bind.source != *name {
                sources.push(bind.source.clone());
            }
            !gone
        });
        for source in &sources {
            self.binding_gone(source);
        }
    }

    pub(in crate::robust) fn delete_queue(&mut self, name: &ShortStr) {
        if let Some(queue) = self.queues.get(name) {
            for former in &queue.former {
                self.aliases.remove(former);
            }
        }
        self.queues.remove(name);
        let mut sources = Vec::new();
        self.queue_bindings.retain(|bind| {
            let gone = bind.queue == *name;
            if gone {
                sources.push(bind.exchange.clone());
            }
            !gone
        });
        for source in &sources {
            self.binding_gone(source);
        }
    }

    pub(in crate::robust) fn consume(&mut self, consumer: ConsumerKey, queue: ShortStr) {
        self.consumers.insert(consumer, queue);
    }

    /// A consumer was cancelled.
    pub(in crate::robust) fn cancel(&mut self, consumer: ConsumerKey) {
        let Some(queue) = self.consumers.remove(&consumer) else { return };
        let auto_delete = self.queues.get(&queue).is_some_and(|queue| queue.declare.auto_delete);
        if auto_delete && !self.consumers.values().any(|other| *other == queue) {
            self.delete_queue(&queue);
        }
    }

    /// A channel was closed by the user: its consumers are gone, and everything else stays.
    pub(in crate::robust) fn close_channel(&mut self, channel: u64) {
        let gone: Vec<_> = self.consumers.keys().filter(|key| key.channel == channel).copied().collect();
        for consumer in gone {
            self.cancel(consumer);
        }
    }

    /// The server has given a queue another name.
    pub(in crate::robust) fn rename(&mut self, old: &ShortStr, new: &ShortStr) {
        let Some(mut queue) = self.queues.rename(old, new.clone()) else { return };
        queue.declare.queue = new.clone();
        if let Some(name) = &mut queue.server_named {
            *name = name.replace(new.clone());
        }
        queue.former.push_back(old.clone());
        for former in &queue.former {
            self.aliases.insert(former.clone(), new.clone());
        }
        if queue.former.len() > FORMER_NAMES
            && let Some(oldest) = queue.former.pop_front()
        {
            self.aliases.remove(&oldest);
        }
        self.queues.set(new, queue);
        let bound: Vec<_> = self.queue_bindings.values().filter(|bind| bind.queue == *old).cloned().collect();
        for mut bind in bound {
            let key = |queue| BindingKey::new(queue, &bind.exchange, &bind.routing_key, &bind.arguments);
            let (old, renamed) = (key(old), key(new));
            bind.queue = new.clone();
            if self.queue_bindings.rename(&old, renamed.clone()).is_some() {
                self.queue_bindings.set(&renamed, bind);
            }
        }
        for queue in self.consumers.values_mut().filter(|queue| *queue == old) {
            *queue = new.clone();
        }
    }

    /// A binding from this exchange is gone: if it was the last one, an auto-delete exchange goes with it.
    fn binding_gone(&mut self, source: &ShortStr) {
        let auto_delete = self.exchanges.get(source).is_some_and(|exchange| exchange.auto_delete);
        let bound = || {
            self.exchange_bindings.values().any(|bind| bind.source == *source)
                || self.queue_bindings.values().any(|bind| bind.exchange == *source)
        };
        if auto_delete && !bound() {
            self.delete_exchange(source);
        }
    }
}

impl BindingKey {
    fn new(
        destination: &ShortStr,
        source: &ShortStr,
        routing_key: &ShortStr,
        arguments: &FieldTable,
    ) -> Self {
        Self {
            destination: destination.clone(),
            source: source.clone(),
            routing_key: routing_key.clone(),
            arguments: encoded(arguments),
        }
    }
}

/// A table as bytes that are equal where the broker takes tables for equal: whatever the order of its pairs.
fn encoded(arguments: &FieldTable) -> Vec<u8> {
    let mut out = Vec::new();
    if arguments.is_empty() {
        return out;
    }
    let mut pairs: Vec<_> = arguments.iter().collect();
    pairs.sort_by(|a, b| a.0.cmp(b.0));
    let mut sorted = FieldTable::new();
    for (name, value) in pairs {
        // a short string is never too long
        drop(sorted.insert(name, value.clone()));
    }
    queue::Bind { arguments: sorted, ..queue::Bind::default() }.encode(&mut out);
    out
}

/// A map that keeps the order in which its keys were inserted first.
#[derive(Clone, Debug)]
struct Ordered<K, V> {
    places: HashMap<K, u64>,
    values: BTreeMap<u64, V>,
    next: u64,
}

impl<K, V> Default for Ordered<K, V> {
    fn default() -> Self {
        Self { places: HashMap::new(), values: BTreeMap::new(), next: 0 }
    }
}

impl<K: Hash + Eq, V> Ordered<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.values.get(self.places.get(key)?)
    }

    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.values.get_mut(self.places.get(key)?)
    }

    fn values(&self) -> impl Iterator<Item = &V> {
        self.values.values()
    }

    /// A key that is there keeps its place.
    fn insert(&mut self, key: K, value: V) {
        let next = &mut self.next;
        let place = *self.places.entry(key).or_insert_with(|| {
            *next += 1;
            *next
        });
        self.values.insert(place, value);
    }

    fn remove(&mut self, key: &K) -> bool {
        let place = self.places.remove(key);
        place.is_some_and(|place| self.values.remove(&place).is_some())
    }

    fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        self.values.retain(|_, value| keep(value));
        self.places.retain(|_, place| self.values.contains_key(place));
    }

    fn set(&mut self, key: &K, value: V) {
        if let Some(place) = self.get_mut(key) {
            *place = value;
        }
    }
}

impl<K: Hash + Eq, V: Clone> Ordered<K, V> {
    /// Gives a value another key and leaves it in its place; returns a copy of it. What had the new key is gone.
    fn rename(&mut self, old: &K, new: K) -> Option<V> {
        let place = self.places.remove(old)?;
        if let Some(replaced) = self.places.insert(new, place) {
            self.values.remove(&replaced);
        }
        self.values.get(&place).cloned()
    }
}

#[cfg(any(fuzzing, test))]
pub(crate) mod model;
#[cfg(test)]
mod tests;
