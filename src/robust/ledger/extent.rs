//! How much a restore declares again.

use std::collections::HashSet;

use super::entity::Entity;
use super::topology::{RecordedQueue, Topology};
use crate::codec::{FieldValue, ShortStr};
use crate::protocol::{exchange, queue};

/// How much of what was declared through a connection is declared again after a loss; see
/// [`Options::restore_topology`](crate::robust::Options::restore_topology).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreTopology {
    /// Everything.
    All,
    /// Everything, but no queue with `x-expires` that this connection does not consume from, and no binding of one. The
    /// broker deletes such a queue when nobody uses it for that long. If it is gone, it has expired, and to declare it
    /// again would bring back what nobody wants: after a long outage, perhaps thousands of reply queues.
    #[default]
    AllInUse,
    /// What the broker does not keep by itself: exchanges and queues that are not durable, or auto-delete; exclusive and
    /// server-named queues; and bindings of those. For programs whose durable topology is managed elsewhere.
    Transient,
    /// Nothing. Consumers start on the queues that are there, and wait for those that are not.
    Nothing,
}

/// What one restore brings back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::robust) enum Extent {
    /// On a new link.
    Loss(RestoreTopology),
    /// On a link that lives: what the broker removes by itself when a consumer has gone with its channel.
    AutoDelete,
    /// On a link that lives: what the broker has refused before.
    These(HashSet<Entity>),
}

impl Extent {
    pub(in crate::robust) fn exchanges(&self, topology: &Topology) -> Vec<exchange::Declare> {
        let wanted = |declare: &&exchange::Declare| match self {
            Self::These(these) => these.contains(&Entity::Exchange { name: declare.exchange.clone() }),
            _ => self.has_exchange(topology, &declare.exchange),
        };
        topology.exchanges().filter(wanted).cloned().collect()
    }

    pub(in crate::robust) fn queues(&self, topology: &Topology) -> Vec<RecordedQueue> {
        let consumed = topology.consumed();
        let wanted = |queue: &&RecordedQueue| match self {
            Self::These(these) => these.contains(&Entity::Queue { name: queue.declare.queue.clone() }),
            _ => self.has(queue, &consumed),
        };
        topology.queues().filter(wanted).cloned().collect()
    }

    pub(in crate::robust) fn exchange_bindings(&self, topology: &Topology) -> Vec<exchange::Bind> {
        let wanted = |bind: &&exchange::Bind| match self {
            Self::These(these) => these.contains(&Entity::of_exchange_binding(bind)),
            _ => self.has_exchange(topology, &bind.source) || self.has_exchange(topology, &bind.destination),
        };
        topology.exchange_bindings().filter(wanted).cloned().collect()
    }

    pub(in crate::robust) fn queue_bindings(&self, topology: &Topology) -> Vec<queue::Bind> {
        let consumed = topology.consumed();
        let wanted = |bind: &&queue::Bind| {
            let has_queue = || topology.queue(&bind.queue).is_some_and(|queue| self.has(queue, &consumed));
            match self {
                Self::These(these) => these.contains(&Entity::of_queue_binding(bind)),
                // also of a queue that others declared; not of one that has expired
                Self::Loss(RestoreTopology::AllInUse) => topology.queue(&bind.queue).is_none() || has_queue(),
                _ => has_queue() || self.has_exchange(topology, &bind.exchange),
            }
        };
        topology.queue_bindings().filter(wanted).cloned().collect()
    }

    /// Whether this exchange is brought back, or may be one that others declared.
    fn has_exchange(&self, topology: &Topology, name: &ShortStr) -> bool {
        let declare = topology.exchange(name);
        match self {
            Self::Loss(RestoreTopology::All | RestoreTopology::AllInUse) => true,
            Self::Loss(RestoreTopology::Transient) => {
                declare.is_some_and(|declare| declare.auto_delete || !declare.durable)
            }
            Self::AutoDelete => declare.is_some_and(|declare| declare.auto_delete),
            Self::Loss(RestoreTopology::Nothing) | Self::These(_) => false,
        }
    }

    fn has(&self, queue: &RecordedQueue, consumed: &HashSet<&ShortStr>) -> bool {
        let RecordedQueue { declare, server_named, .. } = queue;
        match self {
            Self::Loss(RestoreTopology::All) => true,
            Self::Loss(RestoreTopology::AllInUse) => !expires(declare) || consumed.contains(&declare.queue),
            Self::Loss(RestoreTopology::Transient) => {
                declare.auto_delete || declare.exclusive || !declare.durable || server_named.is_some()
            }
            Self::AutoDelete => declare.auto_delete,
            Self::Loss(RestoreTopology::Nothing) | Self::These(_) => false,
        }
    }
}

/// Whether the broker deletes the queue when nobody uses it.
fn expires(declare: &queue::Declare) -> bool {
    declare.arguments.get("x-expires").is_some_and(|value| *value != FieldValue::Void)
}

#[cfg(test)]
mod tests {
    use super::super::topology::ConsumerKey;
    use super::*;
    use crate::codec::FieldTable;

    fn name(name: &str) -> ShortStr {
        name.try_into().unwrap()
    }

    /// A durable queue, one that expires, one that expires and is consumed from, and a transient one; each with a binding to a
    /// durable exchange.
    fn topology() -> Topology {
        let mut topology = Topology::default();
        topology.declare_exchange(exchange::Declare {
            exchange: name("events"),
            durable: true,
            ..exchange::Declare::default()
        });
        let mut expiring = FieldTable::new();
        expiring.insert("x-expires", 1000).unwrap();
        for (queue, durable, arguments) in [
            ("durable", true, FieldTable::new()),
            ("expiring", true, expiring.clone()),
            ("consumed", true, expiring),
            ("transient", false, FieldTable::new()),
        ] {
            let declare =
                queue::Declare { queue: name(queue), durable, arguments, ..queue::Declare::default() };
            topology.declare_queue(declare, name(queue));
            let bind = queue::Bind { queue: name(queue), exchange: name("events"), ..queue::Bind::default() };
            topology.bind_queue(bind);
        }
        topology.consume(ConsumerKey { channel: 1, consumer: 1 }, name("consumed"));
        topology
    }

    /// How many exchanges, which queues, and the bindings of which.
    fn restored(extent: &Extent) -> (usize, Vec<String>, Vec<String>) {
        let topology = topology();
        let queues = extent.queues(&topology).into_iter().map(|queue| queue.declare.queue.to_string());
        let bindings = extent.queue_bindings(&topology).into_iter().map(|bind| bind.queue.to_string());
        (extent.exchanges(&topology).len(), queues.collect(), bindings.collect())
    }

    fn of(exchanges: usize, names: &[&str]) -> (usize, Vec<String>, Vec<String>) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        (exchanges, names.clone(), names)
    }

    #[test]
    fn the_option_says_what_a_loss_restores() {
        let at_loss = |option| restored(&Extent::Loss(option));
        assert_eq!(at_loss(RestoreTopology::All), of(1, &["durable", "expiring", "consumed", "transient"]));
        assert_eq!(at_loss(RestoreTopology::AllInUse), of(1, &["durable", "consumed", "transient"]));
        assert_eq!(at_loss(RestoreTopology::Transient), of(0, &["transient"]));
        assert_eq!(at_loss(RestoreTopology::Nothing), of(0, &[]));
    }

    #[test]
    fn a_queue_that_others_declared_is_bound_again() {
        let mut topology = Topology::default();
        topology.bind_queue(queue::Bind { queue: name("theirs"), ..queue::Bind::default() });
        let bindings = |option| Extent::Loss(option).queue_bindings(&topology).len();
        assert_eq!(bindings(RestoreTopology::All), 1);
        assert_eq!(bindings(RestoreTopology::AllInUse), 1);
        assert_eq!(bindings(RestoreTopology::Nothing), 0);
    }

    #[test]
    fn what_was_refused_is_all_that_is_tried_again() {
        let these = HashSet::from([
            Entity::Queue { name: name("durable") },
            Entity::QueueBinding {
                queue: name("expiring"),
                exchange: name("events"),
                routing_key: ShortStr::empty(),
            },
        ]);
        let (exchanges, queues, bindings) = restored(&Extent::These(these));
        assert_eq!((exchanges, queues, bindings), (0, vec!["durable".into()], vec!["expiring".into()]));
    }
}
