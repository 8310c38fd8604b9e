//! The broker that bad things happen to.

use std::net::SocketAddr;
use std::time::Duration;

use lepus::broker::{Broker, Keep};
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::node::Node;

/// An embedded broker, or a RabbitMQ node.
pub(crate) enum Victim {
    Embedded(Broker),
    Node(Node),
}

impl Victim {
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Embedded(broker) => broker.address().unwrap(),
            Self::Node(node) => node.address(),
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Embedded(broker) => broker.url(),
            Self::Node(node) => node.url.clone(),
        }
    }

    /// The broker closes all connections, with code 320.
    pub(crate) fn close_all_connections(&self) {
        match self {
            Self::Embedded(broker) => broker.close_connections(320, "CONNECTION_FORCED - a test"),
            Self::Node(node) => block_in_place(|| node.close_all_connections()),
        }
    }

    /// Stops in order and starts again.
    pub(crate) async fn restart(&self) {
        match self {
            Self::Embedded(broker) => broker.restart(Keep::Durable).await.unwrap(),
            Self::Node(node) => block_in_place(|| {
                node.stop_app();
                node.start_app();
            }),
        }
    }

    /// Ends as in a power cut, and starts again: a node in its own time, the embedded broker after this one.
    pub(crate) async fn kill_and_start(&mut self, outage: Duration) {
        match self {
            Self::Embedded(broker) => {
                broker.stop().await;
                sleep(outage).await;
                broker.restart(Keep::Durable).await.unwrap();
            }
            Self::Node(node) => block_in_place(|| {
                node.kill();
                node.up().unwrap();
            }),
        }
    }
}
