//! An AMQP 0-9-1 broker in memory, for tests and demos (feature `test-broker`).
//!
//! It behaves as `RabbitMQ` does, and has faults on demand that no real broker has. No product for production.
//!
#![doc = include_str!("../../docs/testing.md")]

mod acks;
mod arguments;
mod channel;
mod connection;
mod consume;
mod dead_letter;
mod dispatch;
mod equivalence;
mod exchange;
mod exchanges;
mod fault;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod handshake;
mod in_vhost;
mod input;
mod inspect;
mod message;
mod options;
mod publish;
mod queue;
mod queues;
mod refusal;
mod settings;
mod socket;
mod state;
mod topic;
mod vhost;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use self::fault::ReplyFault;
pub use self::in_vhost::InVhost;
pub use self::inspect::{BindingInfo, ConnectionInfo, ConsumerInfo, ExchangeInfo, QueueInfo};
pub use self::options::Options;
use self::socket::Shared;
use self::state::State;

/// What outlives a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Durable exchanges and queues with their bindings, and persistent messages in durable queues: as when
    /// a `RabbitMQ` node restarts.
    Durable,
    /// Nothing: as when its data is lost.
    Nothing,
}

/// A broker in memory, with all its tasks; dropping it ends them and all connections.
///
/// Several brokers in one process know nothing of each other.
#[derive(Debug)]
pub struct Broker {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// The task that listens; `None` while the broker is stopped.
    listener: Mutex<Option<JoinHandle<()>>>,
}

impl Broker {
    /// Starts a broker on a free port of 127.0.0.1, with the user `guest` and the virtual host `/`.
    ///
    /// # Errors
    /// When it cannot listen.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    pub async fn start() -> io::Result<Self> {
        Self::options().start().await
    }

    /// What a broker can be started with, to change something of it.
    pub fn options() -> Options {
        Options::default()
    }

    async fn with(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(State::new(options)));
        let task = tokio::spawn(socket::listen(Arc::clone(&shared), listener));
        Ok(Self { shared, address, listener: Mutex::new(Some(task)) })
    }

    /// Where it listens, as a URL with the first user's name and password, and the virtual host `/`.
    pub fn url(&self) -> String {
        self.in_vhost("/").url()
    }

    /// Another virtual host, to look at and to harm.
    pub fn in_vhost<'a>(&'a self, name: &'a str) -> InVhost<'a> {
        InVhost { broker: self, name }
    }

    /// Waits until something holds: it is asked now, and after each change in the broker.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let broker = lepus::broker::Broker::start().await?;
    /// # let connection = lepus::connect(&broker.url()).await?;
    /// # let channel = connection.channel().await?;
    /// # channel.declare_queue("jobs").await?;
    /// # channel.default_exchange().publish("jobs", "work").await?;
    /// broker.until(|broker| broker.queue("jobs").is_some_and(|queue| queue.ready == 1)).await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Cancel safe: it only looks.
    pub async fn until(&self, mut holds: impl FnMut(&Self) -> bool) {
        loop {
            // before the question, so that no change is missed
            let changed = self.shared.changed();
            if holds(self) {
                return;
            }
            changed.await;
        }
    }

    /// Where it listens; the same after a [restart](Self::restart).
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops: all connections are cut, and others are refused by the system. What is in memory stays for
    /// [`restart`](Self::restart). Returns when all connections are gone and the port is free.
    ///
    /// Cancel safe: the broker stops, whoever waits for it.
    pub async fn stop(&self) {
        let task = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.abort();
            self.with_state(State::lose_all);
            // it ends by being aborted
            drop(task.await);
            // who came in between
            self.with_state(State::lose_all);
        }
    }

    /// Stops if it runs, and starts on the same port with what is kept.
    ///
    /// # Errors
    /// When it cannot listen there any more.
    pub async fn restart(&self, keep: Keep) -> io::Result<()> {
        self.stop().await;
        self.with_state(|state| state.restart(keep));
        let listener = TcpListener::bind(self.address).await?;
        let task = tokio::spawn(socket::listen(Arc::clone(&self.shared), listener));
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(())
    }

    fn with_state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        self.shared.with(|state| {
            let result = change(state);
            state.run();
            result
        })
    }
}

/// Ends the tasks; the runtime closes their sockets soon after.
impl Drop for Broker {
    fn drop(&mut self) {
        let task = self.listener.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task {
            task.abort();
        }
    }
}
