//! An AMQP 0-9-1 broker in memory, for tests and demos (feature `test-broker`).
//!
//! It behaves as `RabbitMQ` does, and has faults on demand that no real broker has. No product for production.
//!
#![doc = include_str!("../../docs/testing.md")]

mod acks;
#[cfg(feature = "_tls")]
mod authority;
mod broker_channel;
mod broker_connection;
mod broker_exchange;
mod broker_handshake;
mod broker_message;
mod broker_options;
mod broker_publish;
mod broker_queue;
mod consume;
mod dead_letter;
mod dispatch;
mod equivalence;
mod exchanges;
mod fault;
mod frame_input;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod in_vhost;
mod inspect;
mod queue_policy;
mod queues;
mod refusal;
#[cfg(feature = "_tls")]
mod secure;
mod settings;
mod socket;
mod state;
mod topic;
mod vhost;

use std::fmt;
use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, duplex};
use tokio::net::TcpSocket;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

#[cfg(feature = "_tls")]
use self::authority::Authority;
#[cfg(feature = "_tls")]
pub use self::authority::ServerCertificate;
pub use self::broker_options::Options;
pub use self::fault::ReplyFault;
pub use self::in_vhost::InVhost;
pub use self::inspect::{BindingInfo, ConnectionInfo, ConsumerInfo, ExchangeInfo, MessageInfo, QueueInfo};
use self::socket::Shared;
use self::state::State;

/// What outlives a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keep {
    /// Durable exchanges and queues with their bindings, and persistent messages in durable queues: as when
    /// a `RabbitMQ` node restarts.
    Durable,
    /// Nothing: as when its data is lost.
    Nothing,
}

/// A broker in memory, with all its tasks; dropping it ends them and all connections.
///
/// Several brokers in one process know nothing of each other. `Debug` shows where it listens, and nothing of what it holds.
pub struct Broker {
    shared: Arc<Shared>,
    address: Option<SocketAddr>,
    /// Where it listens for TLS.
    tls_address: Option<SocketAddr>,
    #[cfg(feature = "_tls")]
    authority: Option<Arc<Authority>>,
    /// Who stops or restarts the broker holds it, one after the other.
    listener: Mutex<Listener>,
}

/// Whether connections are taken.
#[derive(Debug)]
enum Listener {
    /// The task that takes them.
    Running(JoinHandle<()>),
    /// Sockets that are bound and do not listen, so that nobody else is given the ports; if the system allowed it.
    Stopped(Option<Sockets>),
}

/// The sockets of the ports that there are.
#[derive(Debug)]
struct Sockets {
    plain: Option<TcpSocket>,
    tls: Option<TcpSocket>,
}

impl Sockets {
    fn bind(plain: Option<SocketAddr>, tls: Option<SocketAddr>) -> io::Result<Self> {
        Ok(Self { plain: plain.map(bind).transpose()?, tls: tls.map(bind).transpose()? })
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("address", &self.address).finish_non_exhaustive()
    }
}
/// Bytes of each direction that may wait in a connection in memory.
const PIPE: usize = 64 << 10;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // else the port is blocked for a minute by the connections that were cut
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
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

    fn with(options: Options) -> io::Result<Self> {
        #[cfg(feature = "_tls")]
        let (authority, tls_address) = {
            let (tls, required) = (options.tls, options.requires_client_certificate);
            let authority = tls.then(|| Authority::new(required).map(Arc::new)).transpose()?;
            (authority, options.address.filter(|_| tls).map(|address| SocketAddr::new(address.ip(), 0)))
        };
        #[cfg(not(feature = "_tls"))]
        let tls_address = None;
        let sockets = Sockets::bind(options.address, tls_address)?;
        let mut broker = Self {
            shared: Arc::new(Shared::new(State::new(options))),
            address: sockets.plain.as_ref().map(TcpSocket::local_addr).transpose()?,
            tls_address: sockets.tls.as_ref().map(TcpSocket::local_addr).transpose()?,
            #[cfg(feature = "_tls")]
            authority,
            listener: Mutex::new(Listener::Stopped(None)),
        };
        *broker.listener.get_mut() = Listener::Running(broker.listen(sockets)?);
        Ok(broker)
    }

    /// Where it listens, as a URL with the first user's name and password, and the virtual host `/`. Without a port the host
    /// is `broker.invalid`, for a [connector](Self::connector).
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

    /// Where it listens; the same after a [restart](Self::restart). `None` if it was started [without a
    /// port](Options::without_port).
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Serves a client over a stream, as if it had connected to the port: anything that reads and writes, such as one end of
    /// [`tokio::io::duplex`].
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionRefused`] while the broker is stopped, or once its runtime has ended.
    pub fn serve(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> io::Result<()> {
        self.shared.serve(stream)
    }

    /// What [`ConnectOptions::connector`](crate::ConnectOptions::connector) takes, for connections to this broker in memory,
    /// without a socket. They are refused while the broker is stopped, and once it is dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use lepus::ConnectOptions;
    /// use lepus::broker::Broker;
    ///
    /// let broker = Broker::options().without_port().start().await?;
    /// let options = ConnectOptions::new(&broker.url())?.connector(broker.connector());
    /// let connection = options.connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connector(
        &self,
    ) -> impl Fn(&str, u16) -> Ready<io::Result<DuplexStream>> + Clone + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move |_host, _port| {
            let (client, broker) = duplex(PIPE);
            ready(shared.serve(broker).map(|()| client))
        }
    }

    /// Stops: all connections are cut, and others are refused. What is in memory stays for
    /// [`restart`](Self::restart), and so does the port. Returns when all connections are gone.
    ///
    /// Cancel safe: the broker stops, whoever waits for it.
    pub async fn stop(&self) {
        let mut listener = self.listener.lock().await;
        self.end(&mut listener).await;
    }

    /// Stops if it runs, and starts with what is kept, on the same port if it has one.
    ///
    /// # Errors
    /// When it cannot listen there any more.
    pub async fn restart(&self, keep: Keep) -> io::Result<()> {
        let mut listener = self.listener.lock().await;
        self.end(&mut listener).await;
        self.with_state(|state| state.restart(keep));
        let sockets = match std::mem::replace(&mut *listener, Listener::Stopped(None)) {
            Listener::Stopped(Some(sockets)) => sockets,
            _ => Sockets::bind(self.address, self.tls_address)?,
        };
        *listener = Listener::Running(self.listen(sockets)?);
        Ok(())
    }

    async fn end(&self, listener: &mut Listener) {
        let Listener::Running(task) = listener else { return };
        task.abort();
        self.with_state(State::lose_all);
        // it ends by being aborted
        drop(task.await);
        *listener = Listener::Stopped(Sockets::bind(self.address, self.tls_address).ok());
        // who came in between
        self.with_state(State::lose_all);
    }

    fn listen(&self, sockets: Sockets) -> io::Result<JoinHandle<()>> {
        let listen = |socket: Option<TcpSocket>| socket.map(|socket| socket.listen(BACKLOG)).transpose();
        let (plain, tls) = (listen(sockets.plain)?, listen(sockets.tls)?);
        #[cfg(feature = "_tls")]
        let tls = tls.zip(self.authority.clone()).map(|(listener, authority)| {
            Box::pin(secure::listen(Arc::clone(&self.shared), authority, listener)) as socket::Served
        });
        #[cfg(not(feature = "_tls"))]
        let tls = tls.map(|_no_such_port| Box::pin(ready(())) as socket::Served);
        let others = self.shared.open_door();
        Ok(tokio::spawn(socket::listen(Arc::clone(&self.shared), plain, tls, others)))
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
        if let Listener::Running(task) = self.listener.get_mut() {
            task.abort();
        }
    }
}
