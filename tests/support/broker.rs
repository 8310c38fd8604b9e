//! The broker that the tests use, and what every test against it needs.
//!
//! It is the one that `AMQP_URL` names; else the one on the default address, if something answers there;
//! else a node that is started here and stops with the test process.

mod node;

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, process, thread};

use lepus::Connection;

pub(crate) use self::node::Node;

/// Where a broker is looked for unless `AMQP_URL` says otherwise.
const DEFAULT: &str = "amqp://guest:guest@127.0.0.1/";

/// No test takes nearly as long: one that does hangs.
const HANGS: Duration = Duration::from_secs(180);

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

/// One test: it makes names that nobody else has, and what bears them is gone afterwards.
#[derive(Debug)]
pub(crate) struct Case {
    prefix: String,
    names: RefCell<Vec<String>>,
    next: Cell<u32>,
}

impl Case {
    /// A new connection.
    pub(crate) async fn connect(&self) -> Connection {
        lepus::connect(url()).await.unwrap()
    }

    /// A name for a queue or an exchange, which is deleted at the end.
    pub(crate) fn name(&self) -> String {
        self.next.set(self.next.get() + 1);
        let name = format!("{}.{}", self.prefix, self.next.get());
        self.names.borrow_mut().push(name.clone());
        name
    }

    async fn clean(&self) -> lepus::Result<()> {
        let names = self.names.take();
        if names.is_empty() {
            return Ok(());
        }
        let connection = lepus::connect(url()).await?;
        let mut channel = connection.channel().await?;
        for name in names {
            // in use by a connection that is about to go: then it goes with that
            if channel.queue(&name)?.delete().await.is_err() {
                channel = connection.channel().await?;
            }
            channel.exchange(&name)?.delete().await?;
        }
        connection.close().await
    }
}

/// Runs a test, and cleans up after it, however it ends.
pub(crate) fn test(body: impl AsyncFnOnce(&Case)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    let name = thread::current().name().unwrap_or("test").replace("::", ".");
    let case = Case {
        prefix: format!("lepus.{name}.{}.{now}", process::id()),
        names: RefCell::default(),
        next: Cell::default(),
    };
    let ended = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            assert!(tokio::time::timeout(HANGS, body(&case)).await.is_ok(), "it hangs");
        });
    }));
    let cleaned = runtime.block_on(case.clean());
    match ended {
        Ok(()) => cleaned.unwrap(),
        Err(panic) => resume_unwind(panic),
    }
}
