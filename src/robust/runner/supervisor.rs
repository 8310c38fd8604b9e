//! The task behind each robust connection: it watches the link, and replaces it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tracing::Instrument;

use super::reconnect::Reconnect;
use super::restore_channel::Reopened;
use super::restore_topology::{self, Learnt};
use super::retry_topology::RetryTopology;
use super::robust_channel::ChannelInner;
use super::robust_connection::RobustConnection;
use super::robust_state::{Command, Shared, runtime_ended};
use crate::error::{Error, ErrorKind, Result};
use crate::robust::backoff::Pace;
use crate::robust::event::Event;
use crate::robust::ledger::entity::Unrestored;
use crate::robust::ledger::lifecycle::Incarnation;
use crate::robust::robust_options::Options;
use crate::single::{Blocked, ConnectionState, SingleConnection};

/// How long to wait before a channel is opened again that could not be.
pub(super) const REOPEN: Duration = Duration::from_millis(250);

/// Connects for the first time.
pub(in crate::robust) async fn connect(options: Options) -> Result<RobustConnection> {
    let retry = options.retry_first;
    let span = tracing::info_span!("robust_connection", hosts = ?options.hosts);
    let why = Error::new(ErrorKind::Connect, "not connected yet");
    let (shared, commands) = Shared::new(options, why, span.clone());
    // dropped before it is done, it leaves nothing behind
    let connection = RobustConnection::new(Arc::clone(&shared));
    let mut outage = Reconnect::new(&shared, !retry);
    let (link, _) = outage.end(&shared).instrument(span.clone()).await?;
    let pace = Pace::new(shared.options().backoff);
    shared.supervised.send_replace(true);
    let retry_topology = RetryTopology::new(&shared, &[]);
    let supervisor = Supervisor { shared, commands, pace, retry_topology };
    tokio::spawn(supervisor.run(link).instrument(span));
    Ok(connection)
}

struct Supervisor {
    shared: Arc<Shared>,
    commands: UnboundedReceiver<Command>,
    pace: Pace,
    /// What the broker has refused on this link.
    retry_topology: RetryTopology,
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
        let mut outage = Reconnect::new(&self.shared, false);
        tokio::time::sleep(self.pace.after(began.elapsed())).await;
        // apart, as below: the task would have room for it as long as the link lives
        let (link, unrestored) = Box::pin(outage.end(&self.shared)).await?;
        self.retry_topology = RetryTopology::new(&self.shared, &unrestored);
        Ok(link)
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
                () = self.retry_topology.due() => Box::pin(self.retry_topology.try_again(&self.shared, link)).await,
            }
        }
    }

    async fn obey(&mut self, link: &SingleConnection, command: Command) {
        let (channel, incarnation) = match command {
            Command::ChannelEnded { channel, incarnation, error } => {
                // gone with the link, or with its last handle
                let Some(channel) = channel.upgrade().filter(|_| link.is_open()) else { return };
                // closed here, to be replaced: followed by `Reopen` once the server has answered
                if error.reply_code().is_none() {
                    return;
                }
                if !channel.lost(&error, Some(incarnation)) {
                    return;
                }
                tracing::warn!(%error, "the server closed a channel");
                self.shared.tell(Event::ChannelClosed { error });
                let (pause, incarnation) = {
                    let mut core = channel.lock();
                    let lived = core.since.elapsed();
                    (core.pace.after(lived), core.life.incarnation())
                };
                if !pause.is_zero() {
                    retry_later(&channel, pause);
                    return;
                }
                (channel, incarnation)
            }
            Command::Reopen { channel, incarnation } => {
                let Some(channel) = channel.upgrade() else { return };
                (channel, incarnation)
            }
        };
        Box::pin(self.reopen(link, &channel, incarnation)).await;
    }

    async fn reopen(
        &mut self,
        link: &SingleConnection,
        channel: &Arc<ChannelInner>,
        incarnation: Incarnation,
    ) {
        let on = {
            let state = self.shared.lock();
            let core = channel.lock();
            if core.life.incarnation() != incarnation || !core.life.is_down() {
                return;
            }
            state.life.incarnation()
        };
        match self.reopened(link, channel).await {
            Ok((mut reopened, mut unrestored)) => {
                unrestored.append(&mut reopened.unrestored);
                self.retry_topology.add(&self.shared, &unrestored);
                reopened.release(on);
                if reopened.tell() {
                    self.shared.tell(Event::ChannelRestored { unrestored });
                }
            }
            Err(error) if link.is_open() => {
                if error.kind() == ErrorKind::Timeout {
                    self.shared.unopened(link, on);
                }
                tracing::warn!(%error, "a channel could not be opened again yet");
                retry_later(channel, REOPEN);
            }
            // it will be restored with all others
            Err(_) => {}
        }
    }

    /// The channel, with what went when it was closed: the auto-delete queues of its consumers.
    async fn reopened(
        &self,
        link: &SingleConnection,
        channel: &Arc<ChannelInner>,
    ) -> Result<(Reopened, Vec<Unrestored>)> {
        let has_lost = self.shared.lock().topology.consumes_auto_delete(channel.id);
        // otherwise nothing has gone with it, and what another channel is about to remove must not be declared again
        let unrestored =
            if has_lost { restore_topology::auto_delete(&self.shared, link).await? } else { Vec::new() };
        // what closes the link is learnt when it is restored
        let learnt = &Learnt::default();
        let opened = Reopened::new(channel, link, learnt).await?;
        Ok((opened.published(link, learnt).await?, unrestored))
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

pub(super) fn retry_later(channel: &Arc<ChannelInner>, pause: Duration) {
    let (commands, incarnation) = (channel.shared().commands.clone(), channel.lock().life.incarnation());
    let runtime = channel.shared().runtime.clone();
    let channel = Arc::downgrade(channel);
    runtime.spawn(async move {
        tokio::time::sleep(pause).await;
        // refused: the supervisor has ended
        drop(commands.send(Command::Reopen { channel, incarnation }));
    });
}

/// The link is gone, and with it all plain channels.
fn lost(shared: &Shared, error: &Error) {
    shared.enter(ConnectionState::Connecting, Some(error));
    shared.unanswered.end_row();
    {
        let lost = shared.lock().life.lose_link(error);
        drop(lost);
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
