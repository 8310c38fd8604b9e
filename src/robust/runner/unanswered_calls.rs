//! Calls that the server does not answer.
//!
//! Later calls on a single channel wait behind one that is not answered, so its single channel is replaced:
//!
//! 1. It retires: no new publish or call begins on it. Acks are still sent.
//! 2. Once nothing on it is unconfirmed, it is closed. So nothing has to be published again.
//! 3. Once the server has answered the close, it is opened again. The server has done by then what came before the close, so
//!    the order of messages stays.
//!
//! Confirms that do not come for the time of [`patience`] are not waited for: those messages are published again,
//! behind the answer to the close. A close that is not answered for as long ends the link. So do two calls in a row that are
//! not answered, on whatever channels, with no answered call in between: then no confirms are waited for.
//!
//! A server that blocks publishers does not read, and answers later: nothing of this happens meanwhile.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

use super::current_channel::Live;
use super::robust_channel::ChannelInner;
use super::robust_state::{Command, Shared};
use crate::error::{Error, ErrorKind, Origin};
use crate::robust::event::Event;
use crate::robust::ledger::lifecycle::Incarnation;
use crate::single::{SingleChannel, SingleConnection};

/// No link is given up sooner: the server may just be busy.
const BUSY: Duration = Duration::from_secs(15);

/// The calls that were not answered on the link of the moment.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    /// Whether there is a row; to see that costs no lock.
    is_row: AtomicBool,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// How many calls were not answered since the last one that was.
    row: u64,
    /// So many channels are being replaced.
    replaced: usize,
    /// Since when there are such channels.
    since: Option<Instant>,
}

impl Unanswered {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when channels are being replaced, if there are any.
    pub(super) fn lasts(&self) -> Option<Duration> {
        self.lock().since.map(|since| since.elapsed())
    }

    /// The server has answered a call, or the link is gone.
    pub(super) fn end_row(&self) {
        if self.is_row.load(Ordering::Relaxed) {
            self.lock().row = 0;
            self.is_row.store(false, Ordering::Relaxed);
        }
    }

    /// A call was not answered.
    fn add(&self) {
        self.is_row.store(true, Ordering::Relaxed);
        self.lock().row += 1;
    }

    /// Whether the last call was not the only one without an answer.
    fn is_row(&self) -> bool {
        self.lock().row > 1
    }
}

/// How long the server may take for what comes behind an unanswered call. A server that does not read misses our heartbeats
/// meanwhile, and ends the link itself.
fn patience(shared: &Shared, link: &SingleConnection) -> Duration {
    let heartbeats = Duration::from_secs(2 * u64::from(link.agreed().heartbeat));
    shared.settings.call_limit.unwrap_or_default().max(heartbeats).max(BUSY)
}

impl Shared {
    /// The server has not answered the open of a channel on this link. If that is not the only call without an answer, and it
    /// answers none now, the link ends.
    pub(super) fn unopened(self: &Arc<Self>, link: &SingleConnection, incarnation: Incarnation) {
        self.unanswered.add();
        let (shared, patience) = (Arc::clone(self), patience(self, link));
        let mut stop = self.stop.subscribe();
        let looked = async move {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = sleep(patience) => {}
            }
            if let Some(link) = shared.link_of(incarnation).filter(|link| link.blocked().is_none())
                && shared.unanswered.is_row()
            {
                give_up(&link, several());
            }
        };
        self.runtime.spawn(looked.instrument(self.span.clone()));
    }

    /// The link, if it still is the one of this incarnation.
    fn link_of(&self, incarnation: Incarnation) -> Option<SingleConnection> {
        let state = self.lock();
        let is_same = incarnation.is_on(state.life.incarnation());
        state.life.phase().up().filter(|_| is_same).cloned()
    }
}

fn several() -> Error {
    Error::new(ErrorKind::ConnectionLost, "the server did not answer several calls in a row")
}

fn give_up(link: &SingleConnection, error: Error) {
    tracing::warn!(error = format_args!("{error:#}"), "the connection is given up");
    link.give_up(error);
}

impl ChannelInner {
    /// A call on this plain channel has failed. If it was not answered in time, the channel is replaced, in the background.
    pub(super) fn unanswered(&self, live: &Live, error: &Error) {
        let shared = self.shared();
        if error.kind() != ErrorKind::Timeout || !live.plain.is_open() {
            return;
        }
        let Some(link) = shared.link_of(live.incarnation) else { return };
        // what is not written yet, or not read, is answered later
        if error.origin() == Origin::Network || link.blocked().is_some() {
            return;
        }
        shared.unanswered.add();
        let channel = shared.lock().channels.get(&self.id).cloned();
        let Some(channel) = channel.filter(|_| self.retire(live, error)) else { return };
        tracing::warn!(channel = self.id, %error, "the channel is replaced");
        shared.note(error);
        let replacement = Replacement {
            _counted: Counted::new(shared),
            shared: Arc::clone(shared),
            channel,
            incarnation: live.incarnation,
            patience: patience(shared, &link),
            error: error.clone(),
        };
        shared.runtime.spawn(replacement.run().instrument(shared.span.clone()));
    }

    /// Nothing new begins on the plain channel. False: that is so already, or it is another one by now.
    fn retire(&self, live: &Live, error: &Error) -> bool {
        let mut core = self.lock();
        core.life.incarnation() == live.incarnation && core.life.retire(error)
    }
}

/// Counts a channel that is being replaced.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        let mut counts = shared.unanswered.lock();
        counts.replaced += 1;
        counts.since.get_or_insert_with(Instant::now);
        Self(Arc::clone(shared))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.0.unanswered.lock();
        counts.replaced = counts.replaced.saturating_sub(1);
        if counts.replaced == 0 {
            counts.since = None;
        }
    }
}

/// Replaces a plain channel that retires. Keeps nothing open while it waits.
struct Replacement {
    shared: Arc<Shared>,
    channel: Weak<ChannelInner>,
    incarnation: Incarnation,
    patience: Duration,
    /// The call's.
    error: Error,
    _counted: Counted,
}

impl Replacement {
    async fn run(self) {
        let mut stop = self.shared.stop.subscribe();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.replace() => {}
        }
    }

    async fn replace(&self) {
        if !self.shared.unanswered.is_row() {
            // in vain: they are published again
            self.within_patience(pin!(self.settled())).await;
        }
        let Some((closing, loses)) = self.close() else { return };
        if loses {
            return self.give_up("nor confirm what was published before");
        }
        if !self.within_patience(pin!(closing)).await {
            return self.give_up("nor the close of its channel");
        }
        let Some(channel) = self.channel.upgrade() else { return };
        // lost meanwhile: it is restored with all others
        if self.shared.link_of(self.incarnation).is_none_or(|link| !link.is_open()) {
            return;
        }
        if self.shared.unanswered.is_row() {
            return self.give_up_for(several());
        }
        if channel.lost(&self.error, Some(self.incarnation)) {
            self.shared.tell(Event::ChannelClosed { error: self.error.clone() });
            let incarnation = channel.lock().life.incarnation();
            let command = Command::Reopen { channel: self.channel.clone(), incarnation };
            // refused: the supervisor has ended
            drop(self.shared.commands.send(command));
        }
    }

    /// The plain channel, with its robust one.
    fn plain(&self) -> Option<(Arc<ChannelInner>, SingleChannel)> {
        let channel = self.channel.upgrade()?;
        let plain = {
            let core = channel.lock();
            core.life.phase().up().filter(|_| core.life.incarnation() == self.incarnation).cloned()?
        };
        Some((channel, plain))
    }

    /// Waits until nothing is unconfirmed, or the channel has ended.
    async fn settled(&self) {
        loop {
            let any = {
                let Some((_channel, plain)) = self.plain() else { return };
                // listens before it looks
                let any = plain.any_settled();
                if plain.unconfirmed() == 0 {
                    return;
                }
                any
            };
            if any.await.is_err() {
                return;
            }
        }
    }

    /// Closes the plain channel, unless that would lose what is unconfirmed (true).
    fn close(&self) -> Option<(impl Future<Output = ()> + use<>, bool)> {
        let (channel, plain) = self.plain().filter(|(_, plain)| plain.is_open())?;
        let loses = !channel.retains && plain.unconfirmed() > 0;
        let closing = (!loses).then(|| plain.closing(&self.closed(&plain)));
        let closing = async move {
            if let Some(closing) = closing {
                // an error: the link has ended
                drop(closing.await);
            }
        };
        Some((closing, loses))
    }

    /// What those hear who use the plain channel later.
    fn closed(&self, plain: &SingleChannel) -> Error {
        let text =
            format!("channel {} was closed, because the server did not answer a call there", plain.id());
        Error::new(ErrorKind::ChannelClosed, text).with_source(self.error.clone())
    }

    /// Waits for as long as the server may take, not counting the time for which it does not read. False: in vain.
    async fn within_patience(&self, mut future: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        loop {
            if timeout(self.patience, future.as_mut()).await.is_ok() {
                return true;
            }
            let link = self.shared.link_of(self.incarnation);
            if link.is_none_or(|link| link.blocked().is_none()) {
                return false;
            }
        }
    }

    fn give_up(&self, nor: &str) {
        if self.shared.unanswered.is_row() {
            return self.give_up_for(several());
        }
        let text = format!("the server did not answer a call, {nor}");
        self.give_up_for(Error::new(ErrorKind::ConnectionLost, text));
    }

    fn give_up_for(&self, error: Error) {
        if let Some(link) = self.shared.link_of(self.incarnation) {
            give_up(&link, error.with_source(self.error.clone()));
        }
    }
}
