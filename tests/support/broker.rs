//! The broker that the tests use.
//!
//! It is the one that `AMQP_URL` names; else the one on the default address, if something answers there;
//! else a node that is started here and stops with the test process.

mod node;

use std::env;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

pub(crate) use self::node::Node;

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

/// Whether an AMQP broker listens there: it answers the protocol header with a method frame.
pub(crate) fn answers(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"AMQP\0\0\x09\x01")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok::<_, std::io::Error>(first == [1])
    };
    ask().unwrap_or(false)
}
