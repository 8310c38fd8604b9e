//! The task behind each robust connection: it watches the link, and replaces it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tracing::Instrument;

use super::backoff::{Pace, Pauses};
use super::event::{Entity, Event, Unrestored};
use super::lessons::Lessons;
use super::options::Options;
use super::reopen::Reopened;
use super::reopen_all::Channels;
use super::restore::Restore;
use super::robust_channel::ChannelInner;
use super::robust_connection::RobustConnection;
use super::shared::{Command, Phase, Shared, closed, runtime_ended};
use crate::error::{Error, ErrorKind, Result};
use crate::single::{Blocked, SingleConnection};

/// How often a broker that was there before may refuse what cannot heal, before that is believed: one that starts
/// or stops may refuse what it takes a moment later.
const REFUSALS: u32 = 3;

/// … and for how long it must have refused it.
const REFUSED: Duration = Duration::from_secs(10);

/// How long to wait before a channel is opened again that could not be.
const REOPEN: Duration = Duration::from_millis(250);

/// Connects for the first time.
pub(super) async fn connect(options: Options) -> Result<RobustConnection> {
    let retry = options.retry_first;
    let span = tracing::info_span!("robust_connection", hosts = ?options.hosts);
    let why = Error::new(ErrorKind::Connect, "not connected yet");
    let (shared, commands) = Shared::new(options, Phase::Down(why), span.clone());
    // dropped before it is done, it leaves nothing behind
    let connection = RobustConnection::new(Arc::clone(&shared));
    let mut outage = Outage::new(&shared, !retry);
    let link = outage.end(&shared).instrument(span.clone()).await?;
    let pace = Pace::new(shared.options().backoff);
    shared.supervised.send_replace(true);
    let supervisor = Supervisor { shared, commands, pace };
    tokio::spawn(supervisor.run(link).instrument(span));
    Ok(connection)
}

struct Supervisor {
    shared: Arc<Shared>,
    commands: UnboundedReceiver<Command>,
    pace: Pace,
}

impl Supervisor {
    async fn run(mut self, mut link: SingleConnection) {
        let mut stop = self.shared.stop.subscribe();
        // told also if the runtime drops this task
        let _ending = Ending(Arc::clone(&self.shared));
        loop {
            let next = tokio::select! {
                biased;
                // dropped, what is under way closes behind itself
                _ = stop.wait_for(|stop| *stop) => return,
                next = self.replace(link) => next,
            };
            match next {
                Ok(new) => link = new,
                Err(error) => {
                    tracing::error!(
                        error = format_args!("{error:#}"),
                        "gave up: no further attempt is made to connect"
                    );
                    self.shared.tell(Event::GaveUp { error: error.clone() });
                    drop(self.shared.end(&error));
                    return;
                }
            }
        }
    }

    /// Waits for the link's end, and gets another one.
    async fn replace(&mut self, link: SingleConnection) -> Result<SingleConnection> {
        let began = Instant::now();
        let error = self.watch(&link).await;
        {
            // the one warning of each loss: attempts are told at a lower level
            let (host, port) = link.server();
            tracing::warn!(%host, port, error = format_args!("{error:#}"), "the connection was lost");
        }
        drop(link);
        lost(&self.shared, &error);
        if error.kind() == ErrorKind::RuntimeEnded {
            return Err(error);
        }
        let mut outage = Outage::new(&self.shared, false);
        tokio::time::sleep(self.pace.after(began.elapsed())).await;
        outage.end(&self.shared).await
    }

    /// Does what is to be done on a link until it ends.
    async fn watch(&mut self, link: &SingleConnection) -> Error {
        let mut blocked = link.watch_blocked();
        tell_blocked(&self.shared, link.blocked());
        loop {
            tokio::select! {
                biased;
                error = link.closed() => return error,
                Some(command) = self.commands.recv() => self.obey(link, command).await,
                reason = Blocked::changed(&mut blocked) => tell_blocked(&self.shared, reason),
            }
        }
    }

    async fn obey(&self, link: &SingleConnection, command: Command) {
        let (channel, generation) = match command {
            Command::ChannelEnded { channel, generation, error } => {
                // gone with the link, or with its last handle
                let Some(channel) = channel.upgrade().filter(|_| link.is_open()) else { return };
                if !channel.lost(&error, Some(generation)) {
                    return;
                }
                tracing::warn!(%error, "the server closed a channel");
                self.shared.tell(Event::ChannelClosed { error });
                let pause = {
                    let mut core = channel.lock();
                    let lived = core.since.elapsed();
                    core.pace.after(lived)
                };
                if !pause.is_zero() {
                    retry_later(&channel, pause);
                    return;
                }
                (channel, generation + 1)
            }
            Command::Reopen { channel, generation } => {
                let Some(channel) = channel.upgrade() else { return };
                (channel, generation)
            }
        };
        self.reopen(link, &channel, generation).await;
    }

    async fn reopen(&self, link: &SingleConnection, channel: &Arc<ChannelInner>, generation: u64) {
        let epoch = {
            let state = self.shared.lock();
            let core = channel.lock();
            if core.generation != generation || !matches!(core.phase, Phase::Down(_)) {
                return;
            }
            state.epoch
        };
        match self.reopened(link, channel).await {
            Ok((mut reopened, mut unrestored)) => {
                unrestored.append(&mut reopened.unrestored);
                reopened.release(epoch);
                if reopened.tell() {
                    self.shared.tell(Event::ChannelRestored { unrestored });
                }
            }
            Err(error) if link.is_open() => {
                tracing::warn!(%error, "a channel could not be opened again yet");
                retry_later(channel, REOPEN);
            }
            // it will be restored with all others
            Err(_) => {}
        }
    }

    /// The channel, with what went when it was closed: auto-delete queues, for example.
    async fn reopened(
        &self,
        link: &SingleConnection,
        channel: &Arc<ChannelInner>,
    ) -> Result<(Reopened, Vec<Unrestored>)> {
        let unrestored = Restore::auto_delete(&self.shared, link).await?;
        // what closes the link is learnt when it is restored
        let lessons = &Lessons::default();
        let opened = Reopened::new(channel, link, lessons).await?;
        Ok((opened.published(link, lessons).await?, unrestored))
    }
}

fn tell_blocked(shared: &Shared, reason: Option<crate::codec::ShortStr>) {
    let was = shared.blocked.send_replace(reason.clone());
    match (was, reason) {
        (None, Some(reason)) => shared.tell(Event::Blocked { reason }),
        (Some(_), None) => shared.tell(Event::Unblocked),
        _ => {}
    }
}

fn retry_later(channel: &Arc<ChannelInner>, pause: Duration) {
    let (commands, generation) = (channel.shared().commands.clone(), channel.lock().generation);
    let channel = Arc::downgrade(channel);
    tokio::spawn(async move {
        tokio::time::sleep(pause).await;
        // refused: the supervisor has ended
        drop(commands.send(Command::Reopen { channel, generation }));
    });
}

/// The link is gone, and with it all plain channels.
fn lost(shared: &Shared, error: &Error) {
    {
        let mut state = shared.lock();
        if let Phase::Up(_) = state.phase {
            state.epoch += 1;
            state.phase = Phase::Down(error.clone());
        }
    }
    for channel in shared.channels() {
        channel.lost(error, None);
    }
    shared.changed.notify_waiters();
    tell_blocked(shared, None);
    shared.tell(Event::Lost { error: error.clone() });
}

/// Tells that the supervisor has ended, once it has dropped what it held.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        // already so, unless the runtime has dropped the task
        drop(self.0.end(&runtime_ended()));
        self.0.supervised.send_replace(false);
    }
}

/// The time without a link.
struct Outage {
    began: Instant,
    number: u32,
    refusals: u32,
    /// Since when there was nothing but refusals.
    refused_since: Option<Instant>,
    /// One round over the hosts, and no more.
    once: bool,
    pauses: Pauses,
    lessons: Lessons,
}

impl Outage {
    fn new(shared: &Shared, once: bool) -> Self {
        Self {
            began: Instant::now(),
            number: 0,
            refusals: 0,
            refused_since: None,
            once,
            pauses: shared.options().backoff.pauses(),
            lessons: Lessons::default(),
        }
    }

    /// Connects and restores everything.
    async fn end(&mut self, shared: &Arc<Shared>) -> Result<SingleConnection> {
        let attempts = shared.options().attempts;
        loop {
            let mut failed = Vec::new();
            let round = shared.options().round();
            for (host, port) in round {
                self.number += 1;
                let error = match self.attempt(shared, &host, port).await {
                    Ok(link) => return Ok(link),
                    Err(error) => error,
                };
                let number = self.number;
                tracing::debug!(
                    number,
                    %host,
                    port,
                    error = format_args!("{error:#}"),
                    "an attempt to connect failed"
                );
                shared.tell(Event::Failed { number, host, port, error: error.clone() });
                let given_up = attempts.is_some_and(|most| number >= most);
                if given_up || (self.is_refused(shared, &error) && !self.once) {
                    return Err(error.after(failed));
                }
                failed.push(error);
            }
            if self.once
                && let Some(last) = failed.pop()
            {
                return Err(last.after(failed));
            }
            tokio::time::sleep(self.pauses.next()).await;
        }
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
        let is_first = shared.lock().epoch == 1;
        is_first || (self.refusals >= REFUSALS && since.elapsed() >= REFUSED)
    }

    async fn attempt(&mut self, shared: &Arc<Shared>, host: &str, port: u16) -> Result<SingleConnection> {
        let number = self.number;
        tracing::debug!(number, %host, port, "connecting");
        shared.tell(Event::Attempt { number, host: host.to_owned(), port });
        let options = shared.options().connect.at(host, port);
        let link = options.connect_single(Arc::clone(&shared.tally)).await?;
        let unrestored = self.restore(shared, &link).await?;
        let took = self.began.elapsed();
        if shared.lock().epoch > 1 {
            tracing::info!(?took, unrestored = unrestored.len(), %host, port, "restored");
            shared.tell(Event::Restored { took, unrestored });
        }
        Ok(link)
    }

    /// Brings everything back on a new link, before anybody may use it.
    async fn restore(&mut self, shared: &Arc<Shared>, link: &SingleConnection) -> Result<Vec<Unrestored>> {
        // also if this is dropped
        let unfinished = Unfinished(Some(link));
        let mut restore = Restore::new(shared, link, &self.lessons);
        restore.topology().await?;
        let mut unrestored = restore.finish().await?;
        let mut channels = Channels::default();
        let mut restored = channels.reopen(shared, link, &self.lessons).await;
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
            if matches!(state.phase, Phase::Ended(_)) {
                return Err(closed());
            }
            if state.epoch > 1 {
                shared.reconnects.fetch_add(1, Ordering::Relaxed);
            }
            // all at once: whoever finds the link finds its channels
            state.agreement = (link.server_properties().clone(), link.agreed());
            state.phase = Phase::Up(link.clone());
            for done in &mut reopened {
                done.release(state.epoch);
            }
        }
        unfinished.finish();
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
        ErrorKind::Auth => error.origin() == crate::error::Origin::Peer,
        ErrorKind::Vhost | ErrorKind::NotAmqp | ErrorKind::Config | ErrorKind::Unsupported => true,
        _ => false,
    }
}
