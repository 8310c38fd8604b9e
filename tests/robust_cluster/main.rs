//! Three nodes, of which one is killed.

#[cfg(test)]
#[path = "../support/cluster.rs"]
mod cluster;
#[cfg(test)]
#[expect(dead_code, reason = "nodes are only killed")]
#[path = "../support/control.rs"]
mod control;
#[cfg(test)]
#[path = "../support/node.rs"]
mod node;

#[cfg(test)]
mod failover;
