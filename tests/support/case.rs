//! What every test against a broker needs.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{process, thread};

use lepus::Connection;

use crate::broker::url;

/// No test takes nearly as long: one that does hangs.
const HANGS: Duration = Duration::from_secs(180);

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
