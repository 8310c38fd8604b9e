//! The record against a model so simple that it can be checked by reading: lists, searched from one end to the other.
//!
//! Requests go the way of a channel's calls: their queue's name is [translated](translate), and what the server has done is
//! [recorded](record).

use std::collections::BTreeMap;

use super::super::policy::{record, translate};
use super::*;
use crate::protocol::{Method, Request};

/// Queues and exchanges below this number are named by the user, others by the server.
const NAMED: u8 = 8;

/// What a user does, or the server. Users may name a queue as it was called before.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    DeclareExchange(u8, bool),
    DeclareQueue(u8, bool),
    /// The server makes up the name.
    DeclareUnnamed(bool),
    BindQueue(u8, u8, u8, u8),
    UnbindQueue(u8, u8, u8, u8),
    BindExchange(u8, u8, u8),
    UnbindExchange(u8, u8, u8),
    DeleteExchange(u8),
    DeleteQueue(u8),
    Consume(u8, u8),
    Cancel(u8),
    CloseChannel(u8),
    /// One of the queues that the server named gets a new name.
    Rename(u8),
}

/// To an exchange (false) or a queue (true), from, key, arguments.
type Binding = (bool, u8, u8, u8, u8);

/// What is there, in the order in which it came.
#[derive(Debug, Default)]
struct Model {
    exchanges: Vec<(u8, bool)>,
    queues: Vec<(u8, bool)>,
    bindings: Vec<Binding>,
    consumers: Vec<(u8, u8)>,
    /// Former names, oldest first, and the queue.
    former: Vec<(u8, u8)>,
}

impl Model {
    fn set(list: &mut Vec<(u8, bool)>, name: u8, auto: bool) {
        match list.iter_mut().find(|(other, _)| *other == name) {
            Some(known) => known.1 = auto,
            None => list.push((name, auto)),
        }
    }

    /// What the queue of this name is called now.
    fn current(&self, name: u8) -> u8 {
        self.former.iter().find(|(former, _)| *former == name).map_or(name, |(_, now)| *now)
    }

    fn remove_bindings(&mut self, gone: impl Fn(&Binding) -> bool) {
        let (gone, left): (Vec<_>, Vec<_>) = self.bindings.iter().copied().partition(|bind| gone(bind));
        self.bindings = left;
        // the server looks at each source that has lost a binding
        for (_, _, source, ..) in gone {
            let bound = self.bindings.iter().any(|(_, _, from, ..)| *from == source);
            if !bound && self.exchanges.contains(&(source, true)) {
                self.delete_exchange(source);
            }
        }
    }

    fn delete_exchange(&mut self, name: u8) {
        self.exchanges.retain(|(other, _)| *other != name);
        self.bindings.retain(|(_, _, from, ..)| *from != name);
        self.remove_bindings(|(is_queue, to, ..)| !is_queue && *to == name);
    }

    fn delete_queue(&mut self, name: u8) {
        self.former.retain(|(_, now)| *now != name);
        self.queues.retain(|(other, _)| *other != name);
        self.remove_bindings(|(is_queue, to, ..)| *is_queue && *to == name);
    }

    fn cancel(&mut self, consumer: u8) {
        let Some(at) = self.consumers.iter().position(|(other, _)| *other == consumer) else { return };
        let (_, queue) = self.consumers.remove(at);
        let used = self.consumers.iter().any(|(_, other)| *other == queue);
        if !used && self.queues.contains(&(queue, true)) {
            self.delete_queue(queue);
        }
    }

    fn bind(&mut self, binding: Binding) {
        if !self.bindings.contains(&binding) {
            self.bindings.push(binding);
        }
    }

    fn rename(&mut self, old: u8, new: u8) {
        self.queues.iter_mut().filter(|(name, _)| *name == old).for_each(|queue| queue.0 = new);
        self.bindings.iter_mut().filter(|bind| bind.0 && bind.1 == old).for_each(|bind| bind.1 = new);
        self.consumers.iter_mut().filter(|(_, queue)| *queue == old).for_each(|(_, queue)| *queue = new);
        self.former.iter_mut().filter(|(_, now)| *now == old).for_each(|(_, now)| *now = new);
        self.former.push((old, new));
        // so many are kept
        if self.former.iter().filter(|(_, now)| *now == new).count() > FORMER_NAMES
            && let Some(oldest) = self.former.iter().position(|(_, now)| *now == new)
        {
            self.former.remove(oldest);
        }
    }
}

/// The record and the model.
#[derive(Debug, Default)]
pub(crate) struct Run {
    topology: Topology,
    model: Model,
    /// The handles of server-named queues, by the name that each has now.
    handles: BTreeMap<u8, Name>,
    /// How many names the server has made up.
    made_up: u8,
}

impl Run {
    /// Performs a step, and compares.
    pub(crate) fn step(&mut self, step: Step) {
        if let Step::BindQueue(queue, ..) | Step::UnbindQueue(queue, ..) | Step::Consume(_, queue) = step
            && queue >= NAMED + self.made_up
        {
            // a name that the server has not made up yet
            return;
        }
        self.apply(step);
        self.check(step);
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::DeclareExchange(name, auto_delete) => {
                Model::set(&mut self.model.exchanges, name, auto_delete);
                let exchange = named(name);
                self.perform(&exchange::Declare { exchange, auto_delete, ..Default::default() });
            }
            Step::DeclareQueue(name, auto_delete) => {
                Model::set(&mut self.model.queues, name, auto_delete);
                let queue = named(name);
                self.perform(&queue::Declare { queue, auto_delete, ..Default::default() });
            }
            Step::DeclareUnnamed(auto_delete) => self.declare_unnamed(auto_delete),
            Step::BindQueue(to, from, key, args) => {
                self.model.bind((true, self.model.current(to), from, key, args));
                let (queue, exchange, routing_key) = (named(to), named(from), named(key));
                let arguments = numbered(args);
                self.perform(&queue::Bind { queue, exchange, routing_key, no_wait: true, arguments });
            }
            Step::UnbindQueue(to, from, key, args) => {
                let gone = (true, self.model.current(to), from, key, args);
                self.model.remove_bindings(|bind| *bind == gone);
                let (queue, exchange, routing_key) = (named(to), named(from), named(key));
                self.perform(&queue::Unbind { queue, exchange, routing_key, arguments: numbered(args) });
            }
            Step::BindExchange(to, from, key) => {
                self.model.bind((false, to, from, key, 0));
                let (destination, source, routing_key) = (named(to), named(from), named(key));
                self.perform(&exchange::Bind { destination, source, routing_key, ..Default::default() });
            }
            Step::UnbindExchange(to, from, key) => {
                self.model.remove_bindings(|bind| *bind == (false, to, from, key, 0));
                let (destination, source, routing_key) = (named(to), named(from), named(key));
                self.perform(&exchange::Unbind { destination, source, routing_key, ..Default::default() });
            }
            Step::DeleteExchange(name) => {
                self.model.delete_exchange(name);
                self.perform(&exchange::Delete { exchange: named(name), ..Default::default() });
            }
            Step::DeleteQueue(name) => {
                self.model.delete_queue(self.model.current(name));
                self.perform(&queue::Delete { queue: named(name), ..Default::default() });
            }
            Step::Consume(consumer, queue) => self.consume(consumer, queue),
            Step::Cancel(consumer) => {
                self.model.cancel(consumer);
                self.topology.cancel(key(consumer));
            }
            Step::CloseChannel(channel) => {
                let on_it = |consumer: &u8| consumer % 2 == channel;
                (0..6).filter(on_it).for_each(|consumer| self.model.cancel(consumer));
                self.topology.close_channel(channel.into());
            }
            Step::Rename(which) => self.rename(which),
        }
    }

    /// As a channel does it.
    fn perform<M: Request>(&mut self, request: &M) {
        let request: Method = translate(&self.topology, &ShortStr::empty(), request).into();
        record(&mut self.topology, request, None);
    }

    /// A name that was never there.
    fn make_up(&mut self) -> Option<u8> {
        let name = NAMED.checked_add(self.made_up).filter(|name| *name < u8::MAX)?;
        self.made_up += 1;
        Some(name)
    }

    fn declare_unnamed(&mut self, auto_delete: bool) {
        let Some(name) = self.make_up() else { return };
        self.model.queues.push((name, auto_delete));
        let reply = queue::DeclareOk { queue: named(name), ..Default::default() };
        let declare = queue::Declare { auto_delete, ..Default::default() };
        record(&mut self.topology, declare.into(), Some(&reply));
        self.handles.insert(name, self.topology.name(named(name)));
    }

    fn consume(&mut self, consumer: u8, queue: u8) {
        let current = self.model.current(queue);
        self.model.consumers.retain(|(other, _)| *other != consumer);
        self.model.consumers.push((consumer, current));
        let current = self.topology.current(&named(queue)).clone();
        self.topology.consume(key(consumer), current);
    }

    fn rename(&mut self, which: u8) {
        let unnamed: Vec<_> =
            self.model.queues.iter().map(|queue| queue.0).filter(|name| *name >= NAMED).collect();
        let Some(at) = usize::from(which).checked_rem(unnamed.len()) else { return };
        let (Some(old), Some(new)) = (unnamed.get(at).copied(), self.make_up()) else { return };
        self.model.rename(old, new);
        self.topology.rename(&named(old), &named(new));
        if let Some(handle) = self.handles.remove(&old) {
            self.handles.insert(new, handle);
        }
    }

    fn check(&self, step: Step) {
        let Self { topology, model, .. } = self;
        let exchanges: Vec<_> =
            topology.exchanges().map(|one| (digits(&one.exchange), one.auto_delete)).collect();
        assert_eq!(exchanges, model.exchanges, "after {step:?}");
        let queues = topology.queues().map(|queue| &queue.declare);
        let queues: Vec<_> = queues.map(|declare| (digits(&declare.queue), declare.auto_delete)).collect();
        assert_eq!(queues, model.queues, "after {step:?}");
        let (to_queues, to_exchanges): (Vec<_>, Vec<_>) = model.bindings.iter().partition(|bind| bind.0);
        let own: Vec<_> = topology
            .queue_bindings()
            .map(|bind| {
                let args = u8::from(!bind.arguments.is_empty());
                (true, digits(&bind.queue), digits(&bind.exchange), digits(&bind.routing_key), args)
            })
            .collect();
        assert_eq!(own, to_queues, "after {step:?}");
        assert!(topology.queue_bindings().all(|bind| !bind.no_wait), "after {step:?}");
        let own: Vec<_> = topology
            .exchange_bindings()
            .map(|bind| {
                (false, digits(&bind.destination), digits(&bind.source), digits(&bind.routing_key), 0)
            })
            .collect();
        assert_eq!(own, to_exchanges, "after {step:?}");
        let consumers = topology.consumers.iter();
        let consumers: BTreeMap<_, _> = consumers.map(|(key, queue)| (key.consumer, digits(queue))).collect();
        let expected =
            model.consumers.iter().map(|(consumer, queue)| (u64::from(*consumer), *queue)).collect();
        assert_eq!(consumers, expected, "after {step:?}");
        let aliases: BTreeMap<_, _> =
            topology.aliases.iter().map(|(old, new)| (digits(old), digits(new))).collect();
        assert_eq!(aliases, model.former.iter().copied().collect(), "after {step:?}");
        let handles = self.handles.iter().filter(|(name, _)| queues.iter().any(|queue| queue.0 == **name));
        for (name, handle) in handles {
            assert_eq!(digits(handle.get()), *name, "what a handle sees after {step:?}");
        }
    }
}

fn named(number: u8) -> ShortStr {
    ShortStr::try_from(number.to_string()).unwrap_or_default()
}

fn digits(name: &ShortStr) -> u8 {
    name.as_str().and_then(|name| name.parse().ok()).unwrap_or(u8::MAX)
}

fn numbered(args: u8) -> FieldTable {
    let mut table = FieldTable::new();
    if args > 0 {
        // a short string is never too long
        drop(table.insert("n", i32::from(args)));
    }
    table
}

fn key(consumer: u8) -> ConsumerKey {
    ConsumerKey { channel: (consumer % 2).into(), consumer: consumer.into() }
}
