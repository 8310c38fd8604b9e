//! A cluster of RabbitMQ nodes on this machine.

use crate::control::what_to_install;
use crate::node::{Node, Ports};

/// The nodes, which know each other.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
}

impl Cluster {
    /// Starts so many nodes, and waits until all of them belong together.
    pub(crate) fn start(size: usize) -> Self {
        let first = Ports::free();
        // one epmd for all: it is how they find each other
        let mut ports = vec![first.clone()];
        ports.extend((1..size).map(|_| Ports { epmd: first.epmd, ..Ports::free() }));
        // the others ask the first one, so that no two clusters come to be
        let configuration = format!(
            "cluster_formation.peer_discovery_backend = classic_config\n\
             cluster_formation.classic_config.nodes.1 = {}\n",
            first.node()
        );
        // one after the other: two that join at once may wait for each other for ever
        let nodes: Result<Vec<_>, String> = ports
            .iter()
            .map(|ports| {
                let mut node = Node::new(ports, &configuration)?;
                node.up().map(|()| node)
            })
            .collect();
        let nodes = nodes.unwrap_or_else(|error| panic!("{}: {error}", what_to_install()));
        let status = nodes[0].ctl(&["cluster_status"]);
        for ports in &ports {
            assert!(status.contains(&ports.node()), "{} is missing: {status}", ports.node());
        }
        Self { nodes }
    }
}
