//! Single cases, and random sequences of steps against the model. The fuzz target `ledger` runs the same model.

use proptest::collection::vec;
use proptest::prelude::*;

use super::model::{Run, Step};
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

fn step() -> impl Strategy<Value = Step> {
    let (name, queue) = (|| 0..4_u8, || 0..14_u8);
    prop_oneof![
        2 => (name(), any::<bool>()).prop_map(|(x, auto)| Step::DeclareExchange(x, auto)),
        2 => (name(), any::<bool>()).prop_map(|(q, auto)| Step::DeclareQueue(q, auto)),
        1 => any::<bool>().prop_map(Step::DeclareUnnamed),
        4 => (queue(), name(), 0..2_u8, 0..2_u8).prop_map(|(q, x, key, args)| Step::BindQueue(q, x, key, args)),
        2 => (queue(), name(), 0..2_u8, 0..2_u8).prop_map(|(q, x, key, args)| Step::UnbindQueue(q, x, key, args)),
        2 => (name(), name(), 0..2_u8).prop_map(|(to, from, key)| Step::BindExchange(to, from, key)),
        2 => (name(), name(), 0..2_u8).prop_map(|(to, from, key)| Step::UnbindExchange(to, from, key)),
        1 => name().prop_map(Step::DeleteExchange),
        1 => queue().prop_map(Step::DeleteQueue),
        2 => (0..6_u8, queue()).prop_map(|(consumer, q)| Step::Consume(consumer, q)),
        1 => (0..6_u8).prop_map(Step::Cancel),
        1 => (0..2_u8).prop_map(Step::CloseChannel),
        2 => any::<u8>().prop_map(Step::Rename),
    ]
}

proptest! {
    #[test]
    fn the_record_is_what_the_model_says(steps in vec(step(), 0..60)) {
        let mut run = Run::default();
        for step in steps {
            run.step(step);
        }
    }
}
