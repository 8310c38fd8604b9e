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
use crate::protocol::{Method, Request};
use crate::robust::event::Event;
use crate::robust::ledger::lifecycle::Incarnation;
use crate::robust::ledger::policy::policy;
use crate::single::{BoxFuture, Late, SingleChannel, SingleConnection};

/// Waits for a late answer and records it. False: there will be none.
pub(super) type Later = BoxFuture<'static, bool>;

/// No link is given up sooner: the server may just be busy.
const BUSY: Duration = Duration::from_secs(15);

/// What the error of a call adds that the ledger would have recorded.
const UNKNOWN: &str = "; it may have acted on the call, and unless its answer still comes, what is restored after a loss stays as it \
                       was before";

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

    /// Waits for a late answer in the background.
    fn wait_for(&self, later: Later) {
        let mut stop = self.stop.subscribe();
        self.runtime.spawn(async move {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {}
                _ = later => {}
            }
        });
    }

    /// The link, if it still is the one of this incarnation.
    fn link_of(&self, incarnation: Incarnation) -> Option<SingleConnection> {
        let state = self.lock();
        let is_same = incarnation.is_on(state.life.incarnation());
        state.life.phase().up().filter(|_| is_same).cloned()
    }
}

/// A late answer that is waited for. Dropped, it is not any more.
struct Ticket {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.lock().late.take(self.number);
    }
}

fn several() -> Error {
    Error::new(ErrorKind::ConnectionLost, "the server did not answer several calls in a row")
}

/// Whether nobody knows the name of what was declared.
fn is_server_named(request: &Method) -> bool {
    matches!(request, Method::QueueDeclare(declare) if declare.queue.is_empty())
}

fn give_up(link: &SingleConnection, error: Error) {
    tracing::warn!(error = format_args!("{error:#}"), "the connection is given up");
    link.give_up(error);
}

impl ChannelInner {
    /// A call on this plain channel has failed. If it was not answered in time, the channel is replaced, in the background.
    /// `later`: its answer.
    pub(super) fn unanswered(&self, live: &Live, error: &Error, later: Option<Later>) {
        let shared = self.shared();
        if error.kind() != ErrorKind::Timeout || !live.plain.is_open() {
            return;
        }
        let Some(link) = shared.link_of(live.incarnation) else { return };
        // what is not written yet, or not read, is answered later
        let is_slow = error.origin() == Origin::Network || link.blocked().is_some();
        if !is_slow {
            shared.unanswered.add();
        }
        let channel = shared.lock().channels.get(&self.id).cloned();
        let Some(channel) = channel.filter(|_| !is_slow && self.retire(live, error)) else {
            if let Some(later) = later {
                shared.wait_for(later);
            }
            return;
        };
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
        shared.runtime.spawn(replacement.run(later).instrument(shared.span.clone()));
    }

    /// What is to be done with an answer that comes after this error, and the error as the caller gets it.
    pub(super) fn answered_later<M: Request>(
        &self,
        live: &Live,
        error: Error,
        request: M,
        late: Late<M::Reply>,
    ) -> (Error, Later) {
        let request: Method = request.into();
        let is_recorded = policy(&request).recorded;
        let error = if is_recorded { error.with_more(UNKNOWN) } else { error };
        let shared = Arc::clone(self.shared());
        let (id, incarnation) = (self.id, live.incarnation);
        let number = shared.lock().late.add(request);
        let ticket = Ticket { shared, number };
        let later = async move {
            let Some(reply) = late.answer().await else { return false };
            let shared = &ticket.shared;
            let mut state = shared.lock();
            let request = state.late.take(ticket.number);
            let channel = state.channels.get(&id).and_then(Weak::upgrade);
            if let (Some(request), Some(channel)) = (request, &channel)
                && incarnation.is_on(state.life.incarnation())
                && !is_server_named(&request)
            {
                state.late.overtaken_by(&request);
                channel.record_in(&mut state, request, Some(&reply));
            }
            // without the lock, for it may have been the last handle
            drop(state);
            true
        };
        (error, Box::pin(later))
    }

    /// Nothing new begins on the plain channel. False: that is so already, or it is another one by now.
    fn retire(&self, live: &Live, error: &Error) -> bool {
        let mut core = self.lock();
        core.life.incarnation() == live.incarnation && core.life.retire(error)
    }
}

/// Waits for a late answer, which may never come.
async fn answered(later: Option<Later>) {
    if let Some(later) = later
        && later.await
    {
        return;
    }
    std::future::pending::<()>().await;
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
    async fn run(self, later: Option<Later>) {
        let mut stop = self.shared.stop.subscribe();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.replace(later) => {}
        }
    }

    async fn replace(&self, later: Option<Later>) {
        let settled = async {
            if !self.shared.unanswered.is_row() {
                // in vain: they are published again
                self.within_patience(pin!(self.settled())).await;
            }
        };
        tokio::select! {
            biased;
            () = answered(later) => return self.resume(),
            () = settled => {}
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

    /// The answer has come all the same.
    fn resume(&self) {
        self.shared.unanswered.end_row();
        let Some(channel) = self.channel.upgrade() else { return };
        {
            let mut core = channel.lock();
            if core.life.incarnation() != self.incarnation {
                return;
            }
            core.life.resume();
        }
        tracing::info!(channel = channel.id, "the call was answered: the channel goes on");
        channel.changed.notify_waiters();
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
