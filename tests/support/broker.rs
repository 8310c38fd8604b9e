//! The broker that the tests use: the one that `AMQP_URL` names, else the embedded one.

use std::sync::OnceLock;
use std::{env, thread};

use lepus::broker::Broker;
use tokio::runtime;

/// The broker's URL.
pub(crate) fn url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| env::var("AMQP_URL").unwrap_or_else(|_| embedded()))
}

/// Starts the embedded broker, which runs as long as the process: a test's runtime ends before others do.
fn embedded() -> String {
    let start = || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let broker = runtime.block_on(Broker::start()).unwrap();
        let url = broker.url();
        thread::spawn(move || {
            runtime.block_on(std::future::pending::<()>());
            drop(broker);
        });
        url
    };
    thread::spawn(start).join().unwrap()
}
