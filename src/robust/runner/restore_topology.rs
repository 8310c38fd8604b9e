//! Declaring again what was recorded: carries out a [`Plan`] on a scratch channel.
//!
//! An error closes that channel and nothing else; the rest goes on with a new one.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::robust_state::Shared;
use crate::codec::ShortStr;
use crate::codec::peer_text::PeerText;
use crate::error::{ErrorKind, Result, Scope};
use crate::protocol::{basic, exchange, queue};
use crate::robust::backoff::{Backoff, Pauses};
use crate::robust::event::Event;
use crate::robust::ledger::entity::{Entity, Unrestored};
use crate::robust::ledger::extent::{Extent, RestoreTopology};
use crate::robust::ledger::lessons::Lessons;
use crate::robust::ledger::plan::{Cause, Outcome, Plan, Request, Step, Task, Told};
use crate::single::{SingleChannel, SingleConnection};

/// How often a queue is tried that is still locked.
const LOCKED: Backoff = Backoff::bounded(Duration::from_millis(50), Duration::from_millis(250));

/// How often it is asked whether the queues of the lost connection are gone.
const CLEARING: Backoff = Backoff::bounded(Duration::from_millis(10), Duration::from_millis(100));

/// What the attempts of one outage have learnt.
#[derive(Debug, Default)]
pub(super) struct Learnt(Mutex<Lessons>);

impl Learnt {
    pub(super) fn lock(&self) -> MutexGuard<'_, Lessons> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The restore of the topology on one link.
struct Restore<'a> {
    shared: &'a Arc<Shared>,
    link: &'a SingleConnection,
    learnt: &'a Learnt,
    scratch: Option<SingleChannel>,
    locked: Pauses,
    clearing: Pauses,
}

/// Declares everything that is recorded, on a new link. Returns what was refused. An error: the link is lost, or does not
/// answer.
pub(super) async fn everything(
    shared: &Arc<Shared>,
    link: &SingleConnection,
    learnt: &Learnt,
) -> Result<Vec<Unrestored>> {
    // one that lies too far ahead is none
    let locked_until = Instant::now().checked_add(shared.settings.locked_limit);
    let extent = Extent::Loss(shared.settings.restore_topology);
    let plan = Plan::new(extent, locked_until.map(Instant::into_std));
    Restore::new(shared, link, learnt).carry_out(plan).await.map(|(_, unrestored)| unrestored)
}

/// Declares again, on a link that lives, what the broker has removed by itself: auto-delete queues whose consumers went
/// with a channel, and what goes with them. Returns what was refused. An error: the link is lost, or does not answer.
pub(super) async fn auto_delete(shared: &Arc<Shared>, link: &SingleConnection) -> Result<Vec<Unrestored>> {
    let is_wanted = shared.settings.restore_topology != RestoreTopology::Nothing;
    if !is_wanted || !shared.lock().topology.has_auto_delete() {
        return Ok(Vec::new());
    }
    on_living(shared, link, Extent::AutoDelete).await.map(|(_, unrestored)| unrestored)
}

/// Declares again, on a link that lives, what was refused before. Returns what is back, and what is refused. An error: the
/// link is lost, or does not answer.
pub(super) async fn these(
    shared: &Arc<Shared>,
    link: &SingleConnection,
    these: HashSet<Entity>,
) -> Result<(Vec<Entity>, Vec<Unrestored>)> {
    on_living(shared, link, Extent::These(these)).await
}

async fn on_living(
    shared: &Arc<Shared>,
    link: &SingleConnection,
    extent: Extent,
) -> Result<(Vec<Entity>, Vec<Unrestored>)> {
    // two at once would give a queue two new names
    let _turn = shared.restoring.lock().await;
    // the lost connection is gone by now; a queue that another one locks is tried again later
    let locked_until = match extent {
        Extent::These(_) => Some(Instant::now()),
        Extent::Loss(_) | Extent::AutoDelete => Instant::now().checked_add(shared.settings.locked_limit),
    };
    let plan = Plan::new(extent, locked_until.map(Instant::into_std));
    Restore::new(shared, link, &Learnt::default()).carry_out(plan).await
}

impl<'a> Restore<'a> {
    fn new(shared: &'a Arc<Shared>, link: &'a SingleConnection, learnt: &'a Learnt) -> Self {
        let (locked, clearing) = (shared.pauses(LOCKED), shared.pauses(CLEARING));
        Self { shared, link, learnt, scratch: None, locked, clearing }
    }

    async fn carry_out(mut self, mut plan: Plan) -> Result<(Vec<Entity>, Vec<Unrestored>)> {
        loop {
            let step = {
                let state = self.shared.lock();
                let lessons = self.learnt.lock();
                plan.next_step(&state.topology, &lessons, Instant::now().into_std())
            };
            let outcome = match step {
                Step::Together(tasks) => self.together(tasks).await,
                Step::One(task) => self.one(&task.request).await,
                Step::Pause(cause) => {
                    self.pause(cause).await;
                    continue;
                }
                Step::Done => break,
            };
            let lost = if let Outcome::Lost(error) = &outcome { Some(error.clone()) } else { None };
            let told = {
                let mut state = self.shared.lock();
                let mut lessons = self.learnt.lock();
                plan.outcome(outcome, &mut state.topology, &mut lessons, Instant::now().into_std())
            };
            if let Some(error) = lost {
                return Err(error);
            }
            if let Some(told) = told {
                self.tell(told);
            }
        }
        if let Some(scratch) = self.scratch.filter(SingleChannel::is_open) {
            // and not in the background: its number may be needed
            scratch.close().await?;
        }
        Ok((plan.take_restored(), plan.into_unrestored()))
    }

    async fn pause(&mut self, cause: Cause) {
        tracing::debug!(%cause, "the restore waits");
        let pauses = match cause {
            Cause::Locked | Cause::Vanished => &mut self.locked,
            Cause::Clearing => &mut self.clearing,
        };
        sleep(pauses.next()).await;
    }

    fn tell(&self, told: Told) {
        match told {
            Told::Renamed { old, new } => {
                tracing::info!(%old, new = %PeerText(new.as_bytes()), "a server-named queue has a new name");
                self.shared.tell(Event::Renamed { old, new });
            }
            Told::Refused { entity, error } => tracing::warn!(%entity, %error, "not restored"),
        }
    }

    /// Sends requests without waiting for each one's answer.
    async fn together(&mut self, tasks: &[Task]) -> Outcome {
        let answered = match self.scratch().await {
            Ok(scratch) => match tasks.iter().try_for_each(|task| send(&scratch, &task.request)) {
                // answered after all that came before it
                Ok(()) => scratch.request(basic::Qos::default()).await.map(|_| None),
                Err(error) => Err(error),
            },
            Err(error) => return Outcome::Lost(error),
        };
        self.outcome(answered)
    }

    async fn one(&mut self, request: &Request) -> Outcome {
        let answered = match self.scratch().await {
            Ok(scratch) => ask(&scratch, request.clone()).await,
            Err(error) => return Outcome::Lost(error),
        };
        self.outcome(answered)
    }

    fn outcome(&self, answered: Result<Option<ShortStr>>) -> Outcome {
        match answered {
            Ok(name) => Outcome::Accepted(name),
            Err(error) if !self.link.is_open() => Outcome::Lost(error),
            // an argument: one that is too large to be sent, for example
            Err(error) if error.scope() == Scope::Channel || error.kind() == ErrorKind::Argument => {
                Outcome::Refused(error)
            }
            Err(error) => Outcome::Lost(error),
        }
    }

    /// A channel for what may fail.
    async fn scratch(&mut self) -> Result<SingleChannel> {
        if let Some(scratch) = self.scratch.as_ref().filter(|scratch| scratch.is_open()) {
            return Ok(scratch.clone());
        }
        let scratch = self.link.channel(false, 0).await?;
        self.scratch = Some(scratch.clone());
        Ok(scratch)
    }
}

/// Sends a request that the server does not answer.
fn send(scratch: &SingleChannel, request: &Request) -> Result<()> {
    match request.clone() {
        Request::Exchange(declare) => scratch.send(&exchange::Declare { no_wait: true, ..declare }),
        Request::Queue(declare) | Request::IsThere(declare) | Request::Anew(declare) => {
            scratch.send(&queue::Declare { no_wait: true, ..declare })
        }
        Request::Clear(delete) => scratch.send(&queue::Delete { no_wait: true, ..delete }),
        Request::ExchangeBinding(bind) => scratch.send(&exchange::Bind { no_wait: true, ..bind }),
        Request::QueueBinding(bind) => scratch.send(&queue::Bind { no_wait: true, ..bind }),
    }
}

/// Sends a request and awaits its answer; returns the queue's name if it has one.
async fn ask(scratch: &SingleChannel, request: Request) -> Result<Option<ShortStr>> {
    match request {
        Request::Exchange(declare) => scratch.request(declare).await.map(|_| None),
        Request::Queue(declare) | Request::IsThere(declare) | Request::Anew(declare) => {
            scratch.request(declare).await.map(|ok| Some(ok.queue.detach()))
        }
        Request::Clear(delete) => scratch.request(delete).await.map(|_| None),
        Request::ExchangeBinding(bind) => scratch.request(bind).await.map(|_| None),
        Request::QueueBinding(bind) => scratch.request(bind).await.map(|_| None),
    }
}
