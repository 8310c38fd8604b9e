//! The RabbitMQ that the tests use which an embedded broker cannot serve.
//!
//! It is the one that `AMQP_URL` names; else the one on the default address, if something answers there;
//! else a node that is started here and stops with the test process.

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;

use crate::node::{Node, answers};

/// Where a broker is looked for unless `AMQP_URL` says otherwise.
const DEFAULT: &str = "amqp://guest:guest@127.0.0.1/";

/// The broker's URL.
pub(crate) fn url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    static NODE: OnceLock<Node> = OnceLock::new();
    URL.get_or_init(|| {
        if let Ok(url) = env::var("AMQP_URL") {
            return url;
        }
        if answers(SocketAddr::from((Ipv4Addr::LOCALHOST, 5672))) {
            return DEFAULT.into();
        }
        let node = Node::start().unwrap_or_else(|error| {
            panic!(
                "these tests need RabbitMQ. Set AMQP_URL to one that runs, or start one on {DEFAULT}, or \
                 install it (on Debian: apt-get install rabbitmq-server) and the tests start it: {error}"
            )
        });
        NODE.get_or_init(|| node).url.clone()
    })
}
