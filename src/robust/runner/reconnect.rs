//! The time without a link: connecting again, and bringing everything back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, sleep_until};

use super::restore_channels::Channels;
use super::restore_topology::{self, Learnt};
use super::robust_state::{Shared, closed};
use super::supervisor::{REOPEN, retry_later};
use crate::error::{Error, ErrorKind, Origin, Result};
use crate::robust::backoff::Pauses;
use crate::robust::event::Event;
use crate::robust::ledger::entity::{Entity, Unrestored};
use crate::single::{Connected, ConnectionState, Progress, Race, Server, SingleConnection};

/// How often at least a broker that took a login before must refuse it, before that is believed.
const REFUSALS: u32 = 3;

/// The time without a link.
pub(super) struct Reconnect {
    began: Instant,
    /// How many attempts were begun.
    number: u32,
    /// How many of them have failed.
    lost: u32,
    /// The hosts of the attempts that are under way, with their numbers.
    attempts: Vec<(Server, u32)>,
    refusals: u32,
    /// Since when there was nothing but refusals.
    refused_since: Option<Instant>,
    /// One round over the hosts, and no more.
    once: bool,
    pauses: Pauses,
    learnt: Learnt,
}

impl Reconnect {
    pub(super) fn new(shared: &Shared, once: bool) -> Self {
        Self {
            began: Instant::now(),
            number: 0,
            lost: 0,
            attempts: Vec::new(),
            refusals: 0,
            refused_since: None,
            once,
            pauses: shared.options().backoff.pauses(),
            learnt: Learnt::default(),
        }
    }

    /// Connects and restores everything. Returns what the broker refused, too.
    pub(super) async fn end(&mut self, shared: &Arc<Shared>) -> Result<(SingleConnection, Vec<Unrestored>)> {
        let mut race = shared.options().connect.race();
        self.begin_round(shared, &mut race);
        let mut failed = Vec::new();
        // the next round begins then, whichever hosts are still silent
        let mut next_round = None;
        loop {
            let progress = tokio::select! {
                biased;
                () = sleep_until(next_round.unwrap_or(self.began)), if next_round.is_some() => {
                    self.begin_round(shared, &mut race);
                    (failed, next_round) = (Vec::new(), None);
                    continue;
                }
                progress = race.next(), if next_round.is_none() || race.is_running() => progress,
            };
            match progress {
                Some(Progress::Started(server)) => self.started(shared, server),
                Some(Progress::Connected(connected)) => {
                    if let Some(restored) = self.connected(shared, &mut race, connected).await {
                        return Ok(restored);
                    }
                }
                Some(Progress::Failed(server, error)) => {
                    self.failed(shared, server, &error);
                    let most = shared.options().attempts;
                    let given_up = most.is_some_and(|most| self.lost >= most);
                    if given_up || (self.is_refused(shared, &error) && !self.once) {
                        return Err(error.after(failed));
                    }
                    failed.push(error);
                }
                Some(Progress::Stalled) if self.once => {}
                None if self.once => {
                    let nowhere = || Error::new(ErrorKind::Config, "there is no host to connect to");
                    return Err(failed.pop().unwrap_or_else(nowhere).after(failed));
                }
                Some(Progress::Stalled) | None => {
                    next_round
                        .get_or_insert_with(|| Instant::now() + self.pauses.next_after(self.began.elapsed()));
                }
            }
        }
    }

    /// Lets all hosts take part, the one of the last link first.
    fn begin_round(&self, shared: &Shared, race: &mut Race) {
        let last = shared.last_good();
        let is_last = |host: &str, port| {
            last.as_ref().is_some_and(|(server, _)| server.host == host && server.port == port)
        };
        let (mut hosts, most) = {
            let options = shared.options();
            let mut hosts = options.round();
            if !options.shuffled {
                // a stable sort: the others keep their order
                hosts.sort_by_key(|(host, port)| !is_last(host, *port));
            }
            (hosts, options.attempts)
        };
        if let Some(most) = most {
            hosts.truncate(usize::try_from(most.saturating_sub(self.number)).unwrap_or(usize::MAX));
        }
        for (host, port) in hosts {
            let known = last.as_ref().filter(|_| is_last(&host, port)).and_then(|(_, at)| *at);
            race.add(&Server::quiet(host, port), known);
        }
    }

    fn started(&mut self, shared: &Shared, server: Server) {
        self.number += 1;
        let (number, host, port) = (self.number, server.host.clone(), server.port);
        tracing::debug!(number, %host, port, "connecting");
        shared.tell(Event::Attempt { number, host, port });
        self.attempts.push((server, number));
    }

    fn failed(&mut self, shared: &Shared, server: Server, error: &Error) {
        self.lost += 1;
        shared.enter(ConnectionState::Connecting, Some(error));
        let position = self.attempts.iter().position(|(other, _)| *other == server);
        let number = position.map_or(self.number, |position| self.attempts.swap_remove(position).1);
        let Server { host, port, .. } = server;
        tracing::debug!(
            number,
            %host,
            port,
            error = format_args!("{error:#}"),
            "an attempt to connect failed"
        );
        shared.tell(Event::Failed { number, host, port, error: error.clone() });
    }

    /// Whether an error cannot heal, and no attempt will do better.
    fn is_refused(&mut self, shared: &Shared, error: &Error) -> bool {
        if !cannot_heal(error) {
            (self.refusals, self.refused_since) = (0, None);
            return false;
        }
        self.refusals += 1;
        let since = *self.refused_since.get_or_insert_with(Instant::now);
        // for the first time there is no reason to think that it would be taken a moment later
        let is_first = shared.lock().life.incarnation().is_first_link();
        is_first || (self.refusals >= REFUSALS && since.elapsed() >= shared.settings.refused_limit)
    }

    /// Logs in over a stream, and brings everything back. `None`: that failed, and the race knows.
    async fn connected(
        &mut self,
        shared: &Arc<Shared>,
        race: &mut Race,
        connected: Connected,
    ) -> Option<(SingleConnection, Vec<Unrestored>)> {
        let Connected { server, at, stream } = connected;
        let options = shared.options().connect.clone();
        let link = match options.log_in(&server, stream, Arc::clone(&shared.tally)).await {
            Ok(link) => link,
            Err(error) => {
                race.failed(&server, error);
                return None;
            }
        };
        race.drop_others();
        shared.enter(ConnectionState::Restoring, None);
        let unrestored = match self.restore(shared, &link).await {
            Ok(unrestored) => unrestored,
            Err(error) => {
                race.give_up(&server, error);
                return None;
            }
        };
        let (took, Server { host, port, .. }) = (self.began.elapsed(), &server);
        if !shared.lock().life.incarnation().is_first_link() {
            tracing::info!(?took, unrestored = unrestored.len(), %host, port, "restored");
            shared.tell(Event::Restored { took, unrestored: unrestored.clone() });
        }
        shared.set_last_good(server, at);
        Some((link, unrestored))
    }

    /// Brings everything back on a new link, before anybody may use it.
    async fn restore(&mut self, shared: &Arc<Shared>, link: &SingleConnection) -> Result<Vec<Unrestored>> {
        // also if this is dropped
        let unfinished = Unfinished(Some(link));
        let mut unrestored = restore_topology::everything(shared, link, &self.learnt).await?;
        let mut channels = Channels::default();
        let mut restored = channels.reopen(shared, link, &self.learnt).await;
        if restored.is_ok() && !link.is_open() {
            restored = Err(link.closed().await);
        }
        let Channels { mut reopened, later } = channels;
        if let Err(error) = restored {
            // one that does not answer must not live on beside the next
            drop(unfinished);
            for done in reopened {
                done.sort_out(&error).await;
            }
            return Err(error);
        }
        for done in &mut reopened {
            unrestored.append(&mut done.unrestored);
        }
        for (channel, error) in &later {
            let entity = Entity::Channel { number: channel.id };
            unrestored.push(Unrestored { entity, error: error.clone() });
        }
        {
            let mut state = shared.lock();
            let incarnation = state.life.incarnation();
            if state.life.establish(link.clone(), incarnation).is_err() {
                return Err(closed());
            }
            if !incarnation.is_first_link() {
                shared.reconnects.fetch_add(1, Ordering::Relaxed);
            }
            // all at once: whoever finds the link finds its channels
            state.agreement = (link.server_properties().clone(), link.agreed());
            for done in &mut reopened {
                done.release(incarnation);
            }
        }
        unfinished.finish();
        shared.enter(ConnectionState::Ready, None);
        for done in reopened {
            done.tell();
        }
        for (channel, _) in later {
            retry_later(&channel, REOPEN);
        }
        shared.changed.notify_waiters();
        Ok(unrestored)
    }
}

/// A link that nobody may use yet. Dropped, it ends: what was started on it must not go on.
struct Unfinished<'a>(Option<&'a SingleConnection>);

impl Unfinished<'_> {
    fn finish(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.0 {
            let text = "the connection was given up before everything on it was restored";
            link.give_up(Error::new(ErrorKind::ConnectionLost, text));
        }
    }
}

/// Whether trying again would only bring the same answer.
fn cannot_heal(error: &Error) -> bool {
    match error.kind() {
        // without the server's word for it, the network may have cut the login short
        ErrorKind::Auth => error.origin() == Origin::Peer,
        ErrorKind::Vhost
        | ErrorKind::NotAmqp
        | ErrorKind::Tls
        | ErrorKind::Config
        | ErrorKind::Unsupported => true,
        _ => false,
    }
}
