//! What an operator, or a power cut, does to a node.

use std::net::TcpStream;
use std::time::{Duration, Instant};
use std::{process, thread};

use crate::node::Node;

/// How long a killed process may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// A node of the tests' own, or what to do about it.
pub(crate) fn own_node() -> Node {
    Node::start().unwrap_or_else(|error| panic!("{}: {error}", what_to_install()))
}

/// What a machine needs for nodes of the tests' own.
pub(crate) fn what_to_install() -> &'static str {
    "this test does harm to a RabbitMQ node of its own: install it (on Debian: apt-get install rabbitmq-server)"
}

impl Node {
    /// Has `rabbitmqctl` do something, and returns what it prints.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = self.command("rabbitmqctl");
        let done = command.arg("--quiet").args(arguments).output().unwrap();
        said(arguments, &done)
    }

    /// The broker closes all connections, with code 320.
    pub(crate) fn close_all_connections(&self) {
        self.ctl(&["close_all_connections", "a test"]);
    }

    /// The broker stops; Erlang goes on.
    pub(crate) fn stop_app(&self) {
        self.ctl(&["stop_app"]);
    }

    /// The broker starts again.
    pub(crate) fn start_app(&self) {
        self.ctl(&["start_app"]);
    }

    /// As if somebody had pulled the plug. [`up`](Node::up) starts it again with the same data.
    pub(crate) fn kill(&mut self) {
        self.order("kill").unwrap();
        let deadline = Instant::now() + GONE;
        // a process that is killed tells nobody
        while TcpStream::connect(self.address()).is_ok() {
            assert!(Instant::now() < deadline, "it still listens");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn said(arguments: &[&str], done: &process::Output) -> String {
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success(),
        "rabbitmqctl {arguments:?}: {text}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    text
}
