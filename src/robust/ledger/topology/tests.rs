//! The record against a model so simple that it can be checked by reading: lists, searched from one end to the other.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn short(name: &str) -> ShortStr {
    ShortStr::try_from(name).unwrap()
}

fn exchange(name: &str, auto_delete: bool) -> exchange::Declare {
    exchange::Declare { exchange: short(name), auto_delete, ..exchange::Declare::default() }
}

fn queue(name: &str, auto_delete: bool) -> queue::Declare {
    queue::Declare { queue: short(name), auto_delete, ..queue::Declare::default() }
}

fn bind(queue: &str, exchange: &str, key: &str, arguments: FieldTable) -> queue::Bind {
    let (queue, exchange, routing_key) = (short(queue), short(exchange), short(key));
    queue::Bind { queue, exchange, routing_key, no_wait: false, arguments }
}

fn arguments(pairs: &[(&str, i32)]) -> FieldTable {
    let mut table = FieldTable::new();
    for (name, value) in pairs {
        table.insert(*name, *value).unwrap();
    }
    table
}

const CONSUMER: ConsumerKey = ConsumerKey { channel: 1, consumer: 1 };

#[test]
fn recording_twice_is_recording_once() {
    let mut topology = Topology::default();
    for _ in 0..2 {
        topology.declare_exchange(exchange("x", false));
        topology.declare_queue(queue("q", false), short("q"));
        topology.bind_queue(bind("q", "x", "k", arguments(&[("a", 1), ("b", 2)])));
    }
    topology.bind_queue(bind("q", "x", "k", arguments(&[("b", 2), ("a", 1)])));
    let counts = (topology.exchanges().count(), topology.queues().count(), topology.queue_bindings().count());
    assert_eq!(counts, (1, 1, 1));
}

#[test]
fn bindings_differ_by_arguments() {
    let mut topology = Topology::default();
    topology.bind_queue(bind("q", "x", "", arguments(&[("color", 1)])));
    topology.bind_queue(bind("q", "x", "", arguments(&[("color", 2)])));
    assert_eq!(topology.queue_bindings().count(), 2);
    let queue::Bind { queue, exchange, routing_key, arguments, .. } =
        bind("q", "x", "", arguments(&[("color", 1)]));
    topology.unbind_queue(&queue::Unbind { queue, exchange, routing_key, arguments });
    let left: Vec<_> = topology.queue_bindings().map(|bind| bind.arguments.clone()).collect();
    assert_eq!(left, [self::arguments(&[("color", 2)])]);
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer_and_its_bindings() {
    let mut topology = Topology::default();
    topology.declare_exchange(exchange("x", true));
    topology.declare_queue(queue("q", true), short("q"));
    topology.bind_queue(bind("q", "x", "", FieldTable::new()));
    topology.consume(CONSUMER, short("q"));
    topology.consume(ConsumerKey { channel: 2, consumer: 1 }, short("q"));
    topology.cancel(CONSUMER);
    assert_eq!(topology.queues().count(), 1);
    topology.close_channel(2);
    assert_eq!((topology.queues().count(), topology.queue_bindings().count()), (0, 0));
    assert_eq!(topology.exchanges().count(), 0, "the last binding from it went");
}

#[test]
fn auto_delete_goes_up_a_chain_of_exchanges() {
    let mut topology = Topology::default();
    for name in ["a", "b", "c"] {
        topology.declare_exchange(exchange(name, true));
    }
    for (source, destination) in [("a", "b"), ("b", "c")] {
        let (source, destination) = (short(source), short(destination));
        topology.bind_exchange(exchange::Bind { destination, source, ..exchange::Bind::default() });
    }
    topology.bind_queue(bind("q", "c", "", FieldTable::new()));
    topology.delete_queue(&short("q"));
    assert_eq!((topology.exchanges().count(), topology.exchange_bindings().count()), (0, 0));
}

#[test]
fn a_rename_reaches_bindings_consumers_handles_and_former_names() {
    let mut topology = Topology::default();
    topology.declare_queue(queue("", false), short("gen-1"));
    let handle = topology.name(short("gen-1"));
    topology.bind_queue(bind("gen-1", "x", "k", FieldTable::new()));
    topology.consume(CONSUMER, short("gen-1"));
    for number in 2..40 {
        topology.rename(&short(&format!("gen-{}", number - 1)), &short(&format!("gen-{number}")));
    }
    let new = short("gen-39");
    assert_eq!(handle.get(), &new);
    assert_eq!(topology.queue_of(CONSUMER), Some(&new));
    assert_eq!(topology.queue_bindings().map(|bind| &bind.queue).collect::<Vec<_>>(), [&new]);
    assert_eq!(topology.queues().map(|queue| &queue.declare.queue).collect::<Vec<_>>(), [&new]);
    assert_eq!(topology.current(&short("gen-30")), &new);
    assert_eq!(topology.current(&short("gen-1")), &short("gen-1"), "so many are not kept");
    assert!(topology.aliases.len() <= FORMER_NAMES + 1);
    topology.bind_queue(bind("gen-39", "x", "k", FieldTable::new()));
    assert_eq!(topology.queue_bindings().count(), 1);
    topology.delete_queue(&new);
    assert!(topology.aliases.is_empty());
    assert_eq!(topology.queue_bindings().count(), 0);
}

/// What a user does, or the server.
#[derive(Clone, Debug)]
enum Step {
    DeclareExchange(u8, bool),
    DeclareQueue(u8, bool),
    BindQueue(u8, u8, u8, u8),
    UnbindQueue(u8, u8, u8, u8),
    BindExchange(u8, u8, u8),
    UnbindExchange(u8, u8, u8),
    DeleteExchange(u8),
    DeleteQueue(u8),
    Consume(u8, u8),
    Cancel(u8),
    CloseChannel(u8),
    Rename(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let name = || 0..4_u8;
    prop_oneof![
        (name(), any::<bool>()).prop_map(|(x, auto)| Step::DeclareExchange(x, auto)),
        (name(), any::<bool>()).prop_map(|(q, auto)| Step::DeclareQueue(q, auto)),
        (name(), name(), 0..2_u8, 0..2_u8).prop_map(|(q, x, key, args)| Step::BindQueue(q, x, key, args)),
        (name(), name(), 0..2_u8, 0..2_u8).prop_map(|(q, x, key, args)| Step::BindQueue(q, x, key, args)),
        (name(), name(), 0..2_u8, 0..2_u8).prop_map(|(q, x, key, args)| Step::UnbindQueue(q, x, key, args)),
        (name(), name(), 0..2_u8).prop_map(|(to, from, key)| Step::BindExchange(to, from, key)),
        (name(), name(), 0..2_u8).prop_map(|(to, from, key)| Step::UnbindExchange(to, from, key)),
        name().prop_map(Step::DeleteExchange),
        name().prop_map(Step::DeleteQueue),
        (0..6_u8, name()).prop_map(|(consumer, q)| Step::Consume(consumer, q)),
        (0..6_u8).prop_map(Step::Cancel),
        (0..2_u8).prop_map(Step::CloseChannel),
        (name(), 4..8_u8).prop_map(|(old, new)| Step::Rename(old, new)),
    ]
}

/// The model: what is there, in the order in which it came.
#[derive(Debug, Default)]
struct Model {
    exchanges: Vec<(u8, bool)>,
    queues: Vec<(u8, bool)>,
    /// To an exchange (false) or a queue (true), from, key, arguments.
    bindings: Vec<(bool, u8, u8, u8, u8)>,
    consumers: Vec<(u8, u8)>,
}

impl Model {
    fn set(list: &mut Vec<(u8, bool)>, name: u8, auto: bool) {
        match list.iter_mut().find(|(other, _)| *other == name) {
            Some(known) => known.1 = auto,
            None => list.push((name, auto)),
        }
    }

    fn remove_bindings(&mut self, gone: impl Fn(&(bool, u8, u8, u8, u8)) -> bool) {
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

    fn bind(&mut self, binding: (bool, u8, u8, u8, u8)) {
        if !self.bindings.contains(&binding) {
            self.bindings.push(binding);
        }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::DeclareExchange(name, auto) => Self::set(&mut self.exchanges, name, auto),
            Step::DeclareQueue(name, auto) => Self::set(&mut self.queues, name, auto),
            Step::BindQueue(to, from, key, args) => self.bind((true, to, from, key, args)),
            Step::UnbindQueue(to, from, key, args) => {
                self.remove_bindings(|bind| *bind == (true, to, from, key, args));
            }
            Step::BindExchange(to, from, key) => self.bind((false, to, from, key, 0)),
            Step::UnbindExchange(to, from, key) => {
                self.remove_bindings(|bind| *bind == (false, to, from, key, 0));
            }
            Step::DeleteExchange(name) => self.delete_exchange(name),
            Step::DeleteQueue(name) => self.delete_queue(name),
            Step::Consume(consumer, queue) => {
                self.consumers.retain(|(other, _)| *other != consumer);
                self.consumers.push((consumer, queue));
            }
            Step::Cancel(consumer) => self.cancel(consumer),
            Step::CloseChannel(channel) => {
                for consumer in 0..6 {
                    if consumer % 2 == channel {
                        self.cancel(consumer);
                    }
                }
            }
            Step::Rename(old, new) => {
                // the server never makes up a name that is there
                let there = |(name, _): &(u8, bool)| *name == new;
                if self.queues.iter().any(there) || !self.queues.iter().any(|(name, _)| *name == old) {
                    return;
                }
                self.queues.iter_mut().filter(|(name, _)| *name == old).for_each(|queue| queue.0 = new);
                for bind in &mut self.bindings {
                    if bind.0 && bind.1 == old {
                        bind.1 = new;
                    }
                }
                for (_, queue) in &mut self.consumers {
                    if *queue == old {
                        *queue = new;
                    }
                }
            }
        }
    }
}

fn named(number: u8) -> ShortStr {
    short(&number.to_string())
}

fn numbered(args: u8) -> FieldTable {
    if args == 0 { FieldTable::new() } else { arguments(&[("n", args.into())]) }
}

fn key(consumer: u8) -> ConsumerKey {
    ConsumerKey { channel: (consumer % 2).into(), consumer: consumer.into() }
}

fn apply(topology: &mut Topology, step: &Step) {
    match *step {
        Step::DeclareExchange(name, auto) => topology.declare_exchange(exchange(&name.to_string(), auto)),
        Step::DeclareQueue(name, auto) => {
            topology.declare_queue(queue(&name.to_string(), auto), named(name));
        }
        Step::BindQueue(to, from, key, args) => {
            let (to, from, key) = (to.to_string(), from.to_string(), key.to_string());
            topology.bind_queue(bind(&to, &from, &key, numbered(args)));
        }
        Step::UnbindQueue(to, from, key, args) => topology.unbind_queue(&queue::Unbind {
            queue: named(to),
            exchange: named(from),
            routing_key: named(key),
            arguments: numbered(args),
        }),
        Step::BindExchange(to, from, key) => topology.bind_exchange(exchange::Bind {
            destination: named(to),
            source: named(from),
            routing_key: named(key),
            ..exchange::Bind::default()
        }),
        Step::UnbindExchange(to, from, key) => topology.unbind_exchange(&exchange::Unbind {
            destination: named(to),
            source: named(from),
            routing_key: named(key),
            ..exchange::Unbind::default()
        }),
        Step::DeleteExchange(name) => topology.delete_exchange(&named(name)),
        Step::DeleteQueue(name) => topology.delete_queue(&named(name)),
        Step::Consume(consumer, queue) => topology.consume(key(consumer), named(queue)),
        Step::Cancel(consumer) => topology.cancel(key(consumer)),
        Step::CloseChannel(channel) => topology.close_channel(channel.into()),
        Step::Rename(old, new) => {
            if topology.queue(&named(new)).is_none() {
                topology.rename(&named(old), &named(new));
            }
        }
    }
}

fn digits(name: &ShortStr) -> u8 {
    name.as_str().unwrap().parse().unwrap()
}

proptest! {
    #[test]
    fn the_record_is_what_the_model_says(steps in vec(step(), 0..60)) {
        let (mut topology, mut model) = (Topology::default(), Model::default());
        for step in &steps {
            apply(&mut topology, step);
            model.apply(step);
            let exchanges: Vec<_> =
                topology.exchanges().map(|one| (digits(&one.exchange), one.auto_delete)).collect();
            prop_assert_eq!(&exchanges, &model.exchanges, "after {:?}", step);
            let queues: Vec<_> = topology
                .queues()
                .map(|queue| (digits(&queue.declare.queue), queue.declare.auto_delete))
                .collect();
            prop_assert_eq!(&queues, &model.queues, "after {:?}", step);
            let mut bindings: Vec<_> = topology
                .queue_bindings()
                .map(|bind| {
                    let args = u8::from(!bind.arguments.is_empty());
                    (true, digits(&bind.queue), digits(&bind.exchange), digits(&bind.routing_key), args)
                })
                .chain(topology.exchange_bindings().map(|bind| {
                    (false, digits(&bind.destination), digits(&bind.source), digits(&bind.routing_key), 0)
                }))
                .collect();
            let mut expected = model.bindings.clone();
            bindings.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(&bindings, &expected, "after {:?}", step);
            let mut consumers: Vec<_> = topology
                .consumers
                .iter()
                .map(|(key, queue)| (u8::try_from(key.consumer).unwrap(), digits(queue)))
                .collect();
            consumers.sort_unstable();
            let mut expected = model.consumers.clone();
            expected.sort_unstable();
            prop_assert_eq!(&consumers, &expected, "after {:?}", step);
        }
    }
}
