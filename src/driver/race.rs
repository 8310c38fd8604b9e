//! Connecting to whichever address of whichever host answers first.
//!
//! As RFC 8305 has it: the next address is tried when the one before has failed, or has been silent for a quarter of a
//! second. So an address that swallows packets costs that, and not the time-out.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::connector::Connector;
use super::dial::{Stream, dial, dial_with, resolve};
use super::server::Server;
use crate::error::{Error, ErrorKind, Origin};

/// How long an address may be silent before the next one is tried, too.
const HEAD_START: Duration = Duration::from_millis(250);

/// How to get a stream.
#[derive(Clone, Debug)]
pub(crate) struct Means {
    /// In place of TCP.
    pub connector: Option<Connector>,
    /// For each address of a host.
    pub connect_timeout: Duration,
}

/// What happens next in a race.
pub(crate) enum Progress {
    /// The first address of this host is tried, or its name is looked up.
    Started(Server),
    /// All addresses of this host have failed.
    Failed(Server, Error),
    /// A stream, over which nothing was said yet.
    Connected(Connected),
    /// Everything was tried, something has failed, and the rest is silent so far. Told once for each
    /// [`add`](Race::add).
    Stalled,
}

/// A stream, and where it leads.
pub(crate) struct Connected {
    pub server: Server,
    /// `None` if the user's connector made it.
    pub at: Option<SocketAddr>,
    pub stream: Stream,
}

/// A race between the addresses of some hosts.
pub(crate) struct Race {
    means: Means,
    hosts: Vec<Host>,
    /// Not begun yet.
    queue: VecDeque<Step>,
    running: Vec<(Step, Running)>,
    /// When the next one begins.
    due: Instant,
    /// Not told yet.
    progress: VecDeque<Progress>,
    /// Whether something has failed since hosts were added.
    has_failed: bool,
    told_stalled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    server: Server,
    way: Way,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Lookup,
    Address(SocketAddr),
    Connector,
}

/// A host that takes part.
struct Host {
    server: Server,
    is_started: bool,
    /// Steps that have not failed yet.
    left: usize,
    /// Addresses that were tried since it was added.
    tried: Vec<SocketAddr>,
    failed: Vec<Error>,
}

type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

enum Outcome {
    Addresses(Vec<SocketAddr>),
    Stream(Stream),
    Failed(Error),
}

impl Race {
    pub(crate) fn new(means: Means) -> Self {
        Self {
            means,
            hosts: Vec::new(),
            queue: VecDeque::new(),
            running: Vec::new(),
            due: Instant::now(),
            progress: VecDeque::new(),
            has_failed: false,
            told_stalled: false,
        }
    }

    /// Adds a host behind all others. `known`: an address of it that is to be tried first. What is under way goes on, and is
    /// not begun a second time.
    pub(crate) fn add(&mut self, server: &Server, known: Option<SocketAddr>) {
        (self.has_failed, self.told_stalled, self.due) = (false, false, Instant::now());
        let ways = if self.means.connector.is_some() {
            [None, Some(Way::Connector)]
        } else {
            [known.map(Way::Address), Some(Way::Lookup)]
        };
        let ways: Vec<_> = ways.into_iter().flatten().collect();
        match self.host(server) {
            Some(host) => {
                host.left += ways.len();
                host.tried.clear();
            }
            None => self.hosts.push(Host {
                server: server.clone(),
                is_started: false,
                left: ways.len(),
                tried: Vec::new(),
                failed: Vec::new(),
            }),
        }
        self.queue.extend(ways.into_iter().map(|way| Step { server: server.clone(), way }));
    }

    /// What happens next; `None` once every host has failed.
    ///
    /// Cancel safe: nothing is lost.
    pub(crate) async fn next(&mut self) -> Option<Progress> {
        loop {
            if let Some(progress) = self.progress.pop_front() {
                return Some(progress);
            }
            if !self.queue.is_empty() && (self.running.is_empty() || self.due <= Instant::now()) {
                self.start();
                continue;
            }
            if self.running.is_empty() {
                return None;
            }
            if self.queue.is_empty() && self.has_failed && !self.told_stalled {
                self.told_stalled = true;
                return Some(Progress::Stalled);
            }
            let (due, is_waiting) = (self.due, !self.queue.is_empty());
            let running = &mut self.running;
            let finished = std::future::poll_fn(|context| {
                for index in 0..running.len() {
                    if let Some((_, future)) = running.get_mut(index)
                        && let Poll::Ready(outcome) = future.as_mut().poll(context)
                    {
                        return Poll::Ready((running.swap_remove(index).0, outcome));
                    }
                }
                Poll::Pending
            });
            tokio::select! {
                biased;
                (step, outcome) = finished => self.finish(step, outcome),
                () = sleep_until(due), if is_waiting => {}
            }
        }
    }

    /// Whether something happens without more hosts.
    pub(crate) fn is_running(&self) -> bool {
        !(self.running.is_empty() && self.queue.is_empty() && self.progress.is_empty())
    }

    /// A stream to this host led to nothing. Its other addresses are tried if the network may be to blame.
    pub(crate) fn failed(&mut self, server: &Server, error: Error) {
        if error.origin() == Origin::Network || error.kind() == ErrorKind::HandshakeTimeout {
            // behind another address there may be one that answers
            self.settle(server, Some(error));
        } else {
            self.give_up(server, error);
        }
    }

    /// The host has failed with all of its addresses.
    pub(crate) fn give_up(&mut self, server: &Server, error: Error) {
        self.queue.retain(|step| step.server != *server);
        self.running.retain(|(step, _)| step.server != *server);
        self.hosts.retain(|host| host.server != *server);
        self.progress.push_back(Progress::Failed(server.clone(), error));
        (self.has_failed, self.due) = (true, Instant::now());
    }

    /// Drops what is under way, since a server has accepted the login. Hosts that were not tried yet still take part.
    pub(crate) fn drop_others(&mut self) {
        self.running.clear();
        for host in &mut self.hosts {
            host.left = self.queue.iter().filter(|step| step.server == host.server).count();
        }
        self.hosts.retain(|host| host.left > 0);
    }

    fn host(&mut self, server: &Server) -> Option<&mut Host> {
        self.hosts.iter_mut().find(|host| host.server == *server)
    }

    /// Begins the next step.
    fn start(&mut self) {
        let Some(step) = self.queue.pop_front() else { return };
        if self.running.iter().any(|(other, _)| *other == step) {
            self.settle(&step.server, None);
            return;
        }
        let server = step.server.clone();
        if let Some(host) = self.host(&server) {
            if let Way::Address(address) = step.way {
                host.tried.push(address);
            }
            if !std::mem::replace(&mut host.is_started, true) {
                self.progress.push_back(Progress::Started(server));
            }
        }
        self.due = Instant::now() + HEAD_START;
        let running = step.clone().run(self.means.clone());
        self.running.push((step, Box::pin(running)));
    }

    fn finish(&mut self, step: Step, outcome: Outcome) {
        let server = step.server;
        match outcome {
            Outcome::Stream(stream) => {
                let at = match step.way {
                    Way::Address(address) => Some(address),
                    Way::Lookup | Way::Connector => None,
                };
                self.progress.push_back(Progress::Connected(Connected { server, at, stream }));
            }
            Outcome::Failed(error) => self.settle(&server, Some(error)),
            Outcome::Addresses(found) => {
                if let Some(host) = self.host(&server) {
                    let more: Vec<_> =
                        interleaved(&found).into_iter().filter(|at| !host.tried.contains(at)).collect();
                    host.left += more.len();
                    for address in more.into_iter().rev() {
                        let way = Way::Address(address);
                        self.queue.push_front(Step { server: server.clone(), way });
                    }
                }
                self.settle(&server, None);
            }
        }
    }

    /// A step is over, and has led to nothing. The next one begins at once.
    fn settle(&mut self, server: &Server, error: Option<Error>) {
        self.due = Instant::now();
        self.has_failed |= error.is_some();
        let Some(host) = self.host(server) else { return };
        host.failed.extend(error);
        host.left = host.left.saturating_sub(1);
        if host.left > 0 {
            return;
        }
        let mut failed = std::mem::take(&mut host.failed);
        self.hosts.retain(|host| host.server != *server);
        if let Some(last) = failed.pop() {
            // what failed in the same way is told once
            failed.retain(|error| error.kind() != last.kind());
            self.progress.push_back(Progress::Failed(server.clone(), last.after(failed)));
        }
    }
}

impl Step {
    async fn run(self, means: Means) -> Outcome {
        let Self { server, way } = self;
        let limit = means.connect_timeout;
        let connected = match (way, means.connector) {
            (Way::Address(address), _) => dial(&server, address, limit).await,
            (Way::Connector, Some(connector)) => dial_with(&connector, &server, limit).await,
            (Way::Lookup | Way::Connector, _) => {
                return match resolve(&server, limit).await {
                    Ok(addresses) => Outcome::Addresses(addresses),
                    Err(error) => Outcome::Failed(error),
                };
            }
        };
        connected.map_or_else(Outcome::Failed, Outcome::Stream)
    }
}

/// The two families in turn, beginning with that of the first, each in its order.
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_first_family =
        |at: &SocketAddr| addresses.first().is_some_and(|first| first.is_ipv4() == at.is_ipv4());
    let (first, second): (Vec<_>, Vec<_>) = addresses.iter().copied().partition(is_first_family);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut all = Vec::with_capacity(addresses.len());
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return all;
        }
        all.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let at = |text: &str| text.parse().unwrap();
        let addresses = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"].map(at);
        assert_eq!(interleaved(&addresses), ["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"].map(at));
        assert_eq!(interleaved(&[]), []);
    }
}
