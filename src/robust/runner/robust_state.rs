//! What the handles of one connection and its supervisor share.
//!
//! Locks, in the order in which they may be taken while another is held: the connection's [`State`], a channel's
//! `Core`, a consumer's `Slot`, then those of the plain client. None is held over an await. Whoever changes the phase
//! of a channel or the connection wakes those who wait for it after unlocking.
//!
//! What users do is performed on the link first and recorded then, under the lock and only if the link is still the
//! same one; otherwise it is done again on the next. So nothing falls between a restore's look at the record
//! and the record of what was done on the link before.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::time::Instant;

use super::robust_channel::ChannelInner;
use super::unanswered_calls::Unanswered;
use crate::codec::{FieldTable, ShortStr};
use crate::error::{Error, ErrorKind, Origin, Result, Scope};
use crate::mux::tune::Agreed;
use crate::protocol::{Arguments, channel};
use crate::robust::backoff::{Backoff, Pauses};
use crate::robust::event::{Counters, Event, Events, KEPT};
use crate::robust::ledger::extent::RestoreTopology;
use crate::robust::ledger::late::Late;
use crate::robust::ledger::lifecycle::{Incarnation, Lifecycle, Phase};
use crate::robust::ledger::topology::Topology;
use crate::robust::robust_options::Options;
use crate::single::{ConnectionState, Server, SingleConnection, Status, Tally};

#[derive(Debug)]
pub(super) struct State {
    pub life: Lifecycle<SingleConnection>,
    pub channels: BTreeMap<u64, Weak<ChannelInner>>,
    pub next_channel: u64,
    pub topology: Topology,
    /// Requests whose answers are late.
    pub late: Late,
    /// What the server said of itself on the last link, and what was agreed with it.
    pub agreement: (FieldTable, Agreed),
}

/// Who hears of events. What is kept for listeners takes memory, so there is none before somebody asks.
#[derive(Debug)]
enum Audience {
    Nobody,
    Listeners(broadcast::Sender<Event>),
    /// The connection has ended.
    Ended,
}

/// What the supervisor is told.
#[derive(Debug)]
pub(super) enum Command {
    /// A plain channel has ended.
    ChannelEnded { channel: Weak<ChannelInner>, incarnation: Incarnation, error: Error },
    /// Opening a channel again failed, and is to be tried again.
    Reopen { channel: Weak<ChannelInner>, incarnation: Incarnation },
}

pub(super) struct Shared {
    pub options: Mutex<Options>,
    pub settings: Settings,
    /// What all that is done for this connection is told in.
    pub span: tracing::Span,
    /// For tasks that begin where there may be none, as when a stream is polled.
    pub runtime: tokio::runtime::Handle,
    state: Mutex<State>,
    /// Wakes whoever waits for another phase of the connection.
    pub changed: Notify,
    audience: Mutex<Audience>,
    pub commands: mpsc::UnboundedSender<Command>,
    /// Why the server takes no publishes.
    pub blocked: watch::Sender<Option<ShortStr>>,
    /// Ends the supervisor.
    pub stop: watch::Sender<bool>,
    /// Whether the supervisor runs.
    pub supervised: watch::Sender<bool>,
    /// Bytes of messages that may have to be published again.
    pub retained: AtomicUsize,
    pub reconnects: AtomicU64,
    pub republished: AtomicU64,
    /// One message on trial at a time.
    pub trial: tokio::sync::Mutex<()>,
    /// Calls that the server has not answered.
    pub unanswered: Unanswered,
    /// One restore at a time on a link that lives.
    pub restoring: tokio::sync::Mutex<()>,
    /// One probe at a time of whether a consumer that waits can be started.
    pub probing: tokio::sync::Mutex<()>,
    /// Where the last link led to: tried first after its loss.
    last_good: Mutex<Option<(Server, Option<SocketAddr>)>>,
    /// What the connection does, and what failed last.
    standing: Mutex<Standing>,
    /// What is at work, and which acks came too late.
    pub tally: Arc<Tally>,
}

/// What the connection does, and what failed last.
#[derive(Debug)]
struct Standing {
    state: ConnectionState,
    since: Instant,
    last_error: Option<Error>,
}

/// What never changes of the options.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub outage: crate::robust::robust_options::Outage,
    pub unconfirmed_limit: usize,
    pub republish: bool,
    pub revive: bool,
    pub call_limit: Option<Duration>,
    pub locked_limit: Duration,
    pub restore_topology: RestoreTopology,
    /// Lends its seed to all that is random.
    backoff: Backoff,
    pub refused_limit: Duration,
}

impl Settings {
    fn new(options: &Options) -> Self {
        Self {
            outage: options.outage,
            unconfirmed_limit: options.unconfirmed_limit,
            republish: options.republish,
            revive: options.revive,
            call_limit: options.connect.call_limit(),
            locked_limit: options.locked_limit,
            restore_topology: options.restore_topology,
            backoff: options.backoff,
            refused_limit: options.refused_limit,
        }
    }
}

impl Shared {
    /// # Panics
    /// Outside of a tokio runtime.
    pub(super) fn new(
        options: Options,
        why: Error,
        span: tracing::Span,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Command>) {
        let (commands, received) = mpsc::unbounded_channel();
        let shared = Self {
            settings: Settings::new(&options),
            options: Mutex::new(options),
            span,
            runtime: tokio::runtime::Handle::current(),
            state: Mutex::new(State {
                life: Lifecycle::down(why),
                channels: BTreeMap::new(),
                next_channel: 1,
                topology: Topology::default(),
                late: Late::default(),
                agreement: Default::default(),
            }),
            changed: Notify::new(),
            audience: Mutex::new(Audience::Nobody),
            commands,
            blocked: watch::Sender::new(None),
            stop: watch::Sender::new(false),
            supervised: watch::Sender::new(false),
            retained: AtomicUsize::new(0),
            reconnects: AtomicU64::new(0),
            republished: AtomicU64::new(0),
            trial: tokio::sync::Mutex::new(()),
            unanswered: Unanswered::default(),
            restoring: tokio::sync::Mutex::new(()),
            probing: tokio::sync::Mutex::new(()),
            last_good: Mutex::new(None),
            standing: Mutex::new(Standing {
                state: ConnectionState::Connecting,
                since: Instant::now(),
                last_error: None,
            }),
            tally: Arc::new(Tally::of_robust()),
        };
        (Arc::new(shared), received)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn options(&self) -> MutexGuard<'_, Options> {
        self.options.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pauses at a pace, from the user's seed if there is one.
    pub(super) fn pauses(&self, pace: Backoff) -> Pauses {
        pace.seeded_like(self.settings.backoff).pauses()
    }

    /// Where the last link led to, and by which address if it was made over TCP.
    pub(super) fn last_good(&self) -> Option<(Server, Option<SocketAddr>)> {
        self.last_good.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_last_good(&self, server: Server, at: Option<SocketAddr>) {
        *self.last_good.lock().unwrap_or_else(PoisonError::into_inner) = Some((server, at));
    }

    // The health.

    /// From now on the connection does this, because of `error`. What has ended stays so.
    pub(super) fn enter(&self, state: ConnectionState, error: Option<&Error>) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if standing.state == ConnectionState::Ended {
            return;
        }
        if standing.state != state {
            (standing.state, standing.since) = (state, Instant::now());
        }
        if let Some(error) = error.filter(|error| error.kind() != ErrorKind::Closed) {
            standing.last_error = Some(error.clone());
        }
    }

    /// Something failed that the connection survives.
    pub(super) fn note(&self, error: &Error) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.last_error = Some(error.clone());
    }

    pub(super) fn status(&self) -> Status {
        let (mut state, mut since, last_error) = {
            let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
            (standing.state, standing.since.elapsed(), standing.last_error.clone())
        };
        if state == ConnectionState::Ready
            && let Some(silence) = self.link().and_then(|link| link.silence())
        {
            (state, since) = (ConnectionState::Silent, silence);
        } else if state == ConnectionState::Ready
            && let Some(lasts) = self.unanswered.lasts()
        {
            (state, since) = (ConnectionState::Unresponsive, lasts);
        }
        let (mut messages, mut bytes, mut consumers) = (0, 0, 0);
        for channel in self.channels() {
            let mut core = channel.lock();
            if channel.retains {
                core.unconfirmed.prune();
                messages += core.unconfirmed.len();
                bytes += core.unconfirmed.bytes();
            } else if let Some(plain) = core.life.phase().up() {
                messages += plain.unconfirmed();
            }
            consumers += core.consumers.len();
        }
        Status {
            state,
            since,
            blocked: self.blocked.borrow().clone(),
            unconfirmed_messages: messages,
            unconfirmed_bytes: Some(bytes),
            consumers,
            last_error,
        }
    }

    // Events.

    pub(super) fn tell(&self, event: Event) {
        if let Audience::Listeners(events) = &*self.audience() {
            // an error: nobody listens any more
            drop(events.send(event));
        }
    }

    pub(super) fn events(&self) -> Events {
        let mut audience = self.audience();
        if let Audience::Nobody = *audience {
            *audience = Audience::Listeners(broadcast::Sender::new(KEPT));
        }
        Events::new(match &*audience {
            Audience::Listeners(events) => events.subscribe(),
            // a stream that ends at once
            Audience::Nobody | Audience::Ended => broadcast::channel(1).1,
        })
    }

    fn audience(&self) -> MutexGuard<'_, Audience> {
        self.audience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counters(&self) -> Counters {
        Counters {
            reconnects: self.reconnects.load(Ordering::Relaxed),
            republished: self.republished.load(Ordering::Relaxed),
            stale_acks: self.tally.stale_acks.load(Ordering::Relaxed),
        }
    }

    // Phases.

    /// The link, if there is one and it is restored.
    pub(super) fn link(&self) -> Option<SingleConnection> {
        self.lock().life.phase().up().cloned()
    }

    /// Waits for the link. An error: there will be none, or not in time.
    pub(super) async fn up(&self, deadline: Option<Instant>) -> Result<(SingleConnection, Incarnation)> {
        let mut is_first = true;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // before the look, so that no change is missed
            changed.as_mut().enable();
            let why = {
                let state = self.lock();
                match state.life.phase() {
                    // one that has just been lost: the supervisor is about to notice
                    Phase::Up(link) if link.is_open() => {
                        return Ok((link.clone(), state.life.incarnation()));
                    }
                    // a connection does not retire
                    Phase::Up(_) | Phase::Retiring(..) => None,
                    Phase::Down(error) => Some(error.clone()),
                    Phase::Ended(error) if is_first => return Err(error.earlier()),
                    Phase::Ended(error) => return Err(error.clone()),
                }
            };
            is_first = false;
            if before(deadline, changed).await.is_none() {
                return Err(out_of_time(channel::Open::ID, 0, self.settings.call_limit, why));
            }
        }
    }

    /// Waits until the connection has ended for good.
    pub(super) async fn ended(&self) -> Error {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Phase::Ended(error) = self.lock().life.phase() {
                return error.clone();
            }
            changed.await;
        }
    }

    /// All channels that are still in use, in the order in which they were opened.
    pub(super) fn channels(&self) -> Vec<Arc<ChannelInner>> {
        self.lock().channels.values().filter_map(Weak::upgrade).collect()
    }

    /// Ends everything for good; the first reason counts. Returns the link, if there was one.
    pub(super) fn end(&self, error: &Error) -> Option<SingleConnection> {
        let (link, channels) = {
            let mut state = self.lock();
            if state.life.has_ended() {
                return None;
            }
            let link = state.life.end(error);
            let channels: Vec<_> = state.channels.values().filter_map(Weak::upgrade).collect();
            (link, channels)
        };
        self.enter(ConnectionState::Ended, Some(error));
        for channel in channels {
            channel.end(error);
        }
        self.stop.send_replace(true);
        self.changed.notify_waiters();
        self.blocked.send_replace(None);
        *self.audience() = Audience::Ended;
        link
    }

    /// Runs to its end, also if the caller goes away, or the caller's runtime: so that what was done is recorded.
    pub(super) async fn detached<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.runtime.spawn(future).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => Err(Error::new(
                ErrorKind::RuntimeEnded,
                "the task of the call panicked: a fault of lepus, please report it",
            )
            .with_source(error)),
            Err(error) => Err(runtime_ended().with_source(error)),
        }
    }

    /// Bytes of messages need not be kept any more.
    pub(super) fn release(&self, bytes: usize) {
        self.retained.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for Shared {
    /// Nothing of what is kept to be published again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("hosts", &self.options().hosts).finish_non_exhaustive()
    }
}

/// What all handles hold: dropped with the last of them, it closes the connection in the background.
#[derive(Debug)]
pub(super) struct Handle {
    pub shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // dropped, the link closes by itself
        drop(self.shared.end(&closed()));
    }
}

/// The user closed the connection.
pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "this program closed the connection").with_scope(Scope::Connection)
}

/// A task of the connection was dropped before the connection was closed.
pub(super) fn runtime_ended() -> Error {
    let text = if std::thread::panicking() {
        "the task that drives the connection panicked: a fault of lepus, please report it"
    } else {
        "the tokio runtime that drives the connection was shut down"
    };
    Error::new(ErrorKind::RuntimeEnded, text)
}

/// `what` waited too long for the link, after it was `sent` so often on earlier ones. `why` there is none: whoever is to
/// blame for that is to blame for this.
pub(super) fn out_of_time(
    what: impl Display,
    sent: u32,
    limit: Option<Duration>,
    why: Option<Error>,
) -> Error {
    let limit = limit.unwrap_or_default().as_secs_f32();
    let times = if sent == 1 { "once".to_owned() } else { format!("{sent} times") };
    let text = match sent {
        0 => format!("{what}: not sent, because there was no connection within {limit} s"),
        _ => format!(
            "{what}: sent {times} within {limit} s, but the connection was lost before the answer; the server may have \
             acted on it"
        ),
    };
    let error = Error::new(ErrorKind::Timeout, text);
    match why {
        Some(why) => error.with_origin(why.origin()).with_source(why),
        None => error.with_origin(Origin::User),
    }
}

/// Waits for a future until the deadline; `None` if it was too late.
pub(super) async fn before<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}
