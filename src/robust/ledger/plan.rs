//! The restore of the topology, one step after the other.
//!
//! [`Plan::next_step`] says what to do, and [`Plan::outcome`] takes what came of it:
//!
//! ```text
//! exchanges ──> named queues ──> deletes ──> server-named queues ──> bindings between ──> bindings ──> done
//!     ▲                       (of exclusive                           exchanges          of queues
//!     │                      queues of the lost
//!     │                         connection)
//!     └── from the start again, if the broker misses something that was declared a moment ago
//! ```
//!
//! The requests of a stage go out in batches. If the broker refuses one of a batch, the batch goes out again, one request
//! after the other, to find it. A refused request is noted by its entity's name, and the rest goes on.

use std::fmt;
use std::time::{Duration, Instant};

use super::entity::{Entity, Unrestored};
use super::extent::Extent;
use super::lessons::Lessons;
use super::topology::{RecordedQueue, Topology};
use crate::codec::ShortStr;
use crate::error::Error;
use crate::protocol::{Arguments, MethodId, constants, exchange, queue};

/// How many requests go out before their outcome is awaited.
const BATCH: usize = 500;

/// For how long the queues of the lost connection are waited for that nobody will use again.
const CLEARED: Duration = Duration::from_millis(500);

/// How often all is declared once more because something has vanished.
const PASSES: u32 = 8;

/// A request of the restore.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::robust) enum Request {
    Exchange(exchange::Declare),
    Queue(queue::Declare),
    /// Deletes a queue of the lost connection, which is gone, or locked as long as it is not.
    Clear(queue::Delete),
    /// Asks whether a server-named queue is still there.
    IsThere(queue::Declare),
    /// Declares a server-named queue, which gets a new name.
    Anew(queue::Declare),
    ExchangeBinding(exchange::Bind),
    QueueBinding(queue::Bind),
}

impl Request {
    fn method(&self) -> MethodId {
        match self {
            Self::Exchange(_) => exchange::Declare::ID,
            Self::Queue(_) | Self::IsThere(_) | Self::Anew(_) => queue::Declare::ID,
            Self::Clear(_) => queue::Delete::ID,
            Self::ExchangeBinding(_) => exchange::Bind::ID,
            Self::QueueBinding(_) => queue::Bind::ID,
        }
    }
}

/// A request, and what it brings back.
#[derive(Clone, Debug)]
pub(in crate::robust) struct Task {
    pub entity: Entity,
    pub request: Request,
}

/// What to do next.
#[derive(Debug)]
pub(in crate::robust) enum Step<'a> {
    /// Send all of them without an answer to each, and find out whether one was refused.
    Together(&'a [Task]),
    /// Send this one, and await its answer.
    One(&'a Task),
    /// Wait a little.
    Pause(Cause),
    /// Nothing: the restore is complete.
    Done,
}

/// Why to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::robust) enum Cause {
    /// A queue is still locked by the lost connection, which the broker has not noticed yet.
    Locked,
    /// The broker still has queues of the lost connection.
    Clearing,
    /// Something has vanished while it was restored.
    Vanished,
}

/// What came of the last step.
#[derive(Debug)]
pub(in crate::robust) enum Outcome {
    /// It was accepted. The queue's name, where the answer to a single request has one.
    Accepted(Option<ShortStr>),
    /// The server has refused a request of the step, or it cannot be sent.
    Refused(Error),
    /// The link is lost, or does not answer: this is the end of this restore.
    Lost(Error),
}

/// What others are to be told of an outcome.
#[derive(Debug)]
pub(in crate::robust) enum Told {
    /// A server-named queue has a new name.
    Renamed { old: ShortStr, new: ShortStr },
    /// The server refuses this, and it was noted.
    Refused { entity: Entity, error: Error },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Locked => "a queue is still locked by the lost connection",
            Self::Clearing => "the broker still has queues of the lost connection",
            Self::Vanished => "something has vanished while it was restored",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begin,
    Exchanges,
    Queues,
    Clearing,
    ServerNamed,
    ExchangeBindings,
    QueueBindings,
    Done,
}

/// What is awaited.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Nothing,
    Together(usize),
    One,
}

/// The restore of the topology on one link.
#[derive(Debug)]
pub(in crate::robust) struct Plan {
    extent: Extent,
    /// Until when a queue may be locked by the connection that was lost; `None` for ever.
    locked_until: Option<Instant>,
    stage: Stage,
    /// Of the stage, in their order.
    tasks: Vec<Task>,
    /// So many of them have their outcome.
    done: usize,
    /// Those before this one go one after the other, because their batch was refused.
    single_before: usize,
    sent: Sent,
    pause: Option<Cause>,
    /// Until when the deletes of old queues are tried.
    cleared_until: Option<Instant>,
    /// How often all was declared before.
    passes: u32,
    unrestored: Vec<Unrestored>,
    /// Of what was refused before: what is back.
    restored: Vec<Entity>,
}

impl Plan {
    /// `locked_until`: until when queues may be locked by the connection that was lost; `None` for ever.
    pub(in crate::robust) fn new(extent: Extent, locked_until: Option<Instant>) -> Self {
        Self {
            extent,
            locked_until,
            stage: Stage::Begin,
            tasks: Vec::new(),
            done: 0,
            single_before: 0,
            sent: Sent::Nothing,
            pause: None,
            cleared_until: None,
            passes: 0,
            unrestored: Vec::new(),
            restored: Vec::new(),
        }
    }

    /// What to do next. Then [`outcome`](Self::outcome) is told what came of it; of a pause there is nothing to tell.
    pub(in crate::robust) fn next_step(
        &mut self,
        topology: &Topology,
        lessons: &Lessons,
        now: Instant,
    ) -> Step<'_> {
        if let Some(cause) = self.pause.take() {
            return Step::Pause(cause);
        }
        while self.done >= self.tasks.len() {
            self.begin(self.stage.after(), topology, lessons, now);
            if self.stage == Stage::Done {
                return Step::Done;
            }
        }
        let left = self.tasks.get(self.done..).unwrap_or_default();
        let is_together = match self.stage {
            // an answer to each would say no more
            Stage::Clearing => true,
            Stage::ServerNamed => false,
            _ => left.len() > 1 && self.done >= self.single_before && !lessons.one_by_one(),
        };
        if is_together {
            let batch = left.get(..BATCH).unwrap_or(left);
            self.sent = Sent::Together(batch.len());
            return Step::Together(batch);
        }
        self.sent = Sent::One;
        left.first().map_or(Step::Done, Step::One)
    }

    fn begin(&mut self, stage: Stage, topology: &Topology, lessons: &Lessons, now: Instant) {
        let extent = &self.extent;
        let tasks: Vec<_> = match stage {
            Stage::Begin | Stage::Done => Vec::new(),
            Stage::Exchanges => extent.exchanges(topology).into_iter().map(Task::exchange).collect(),
            Stage::Queues => {
                let named = extent.queues(topology).into_iter().filter(|queue| queue.server_named.is_none());
                named.map(|queue| Task::queue(queue, Request::Queue)).collect()
            }
            Stage::Clearing => {
                self.cleared_until = Some(now + CLEARED);
                self.server_named(topology)
                    .filter(|queue| self.is_new_link() && queue.declare.exclusive)
                    .map(|queue| Task::queue(queue, clear))
                    .collect()
            }
            Stage::ServerNamed => self.server_named(topology).flat_map(|queue| self.rename(queue)).collect(),
            Stage::ExchangeBindings => {
                extent.exchange_bindings(topology).into_iter().map(Task::exchange_binding).collect()
            }
            Stage::QueueBindings => {
                extent.queue_bindings(topology).into_iter().map(Task::queue_binding).collect()
            }
        };
        (self.stage, self.tasks, self.done, self.single_before) = (stage, tasks, 0, 0);
        let unrestored = &mut self.unrestored;
        self.tasks.retain(|task| match lessons.against(&task.entity) {
            Some(error) => {
                let entity = task.entity.clone();
                if unrestored.iter().all(|refused| refused.entity != entity) {
                    unrestored.push(Unrestored { entity, error });
                }
                false
            }
            None => true,
        });
    }

    /// The queues that the server has named; those of a new link get their new names once.
    fn server_named(&self, topology: &Topology) -> impl Iterator<Item = RecordedQueue> + use<> {
        let is_due = self.passes == 0 || !self.is_new_link();
        let queues = if is_due { self.extent.queues(topology) } else { Vec::new() };
        queues.into_iter().filter(|queue| queue.server_named.is_some())
    }

    /// What gives a server-named queue another name, unless it is still there: then it has outlived its connection, or that
    /// lives.
    fn rename(&self, queue: RecordedQueue) -> impl Iterator<Item = Task> + use<> {
        let may_be_there = !queue.declare.exclusive || !self.is_new_link();
        let asked = may_be_there.then(|| Task::queue(queue.clone(), is_there));
        asked.into_iter().chain([Task::queue(queue, anew)])
    }

    fn is_new_link(&self) -> bool {
        matches!(self.extent, Extent::Loss(_))
    }

    /// Takes what came of the last step. Returns what others are to be told.
    pub(in crate::robust) fn outcome(
        &mut self,
        outcome: Outcome,
        topology: &mut Topology,
        lessons: &mut Lessons,
        now: Instant,
    ) -> Option<Told> {
        match std::mem::replace(&mut self.sent, Sent::Nothing) {
            Sent::Nothing => None,
            Sent::Together(count) => {
                self.outcome_of_many(count, outcome, topology, lessons, now);
                None
            }
            Sent::One => self.outcome_of_one(outcome, topology, lessons, now),
        }
    }

    fn outcome_of_many(
        &mut self,
        count: usize,
        outcome: Outcome,
        topology: &Topology,
        lessons: &mut Lessons,
        now: Instant,
    ) {
        match outcome {
            Outcome::Accepted(_) => self.accepted(count),
            Outcome::Lost(error) => lessons.learn_of_many(&error),
            Outcome::Refused(_) if self.stage == Stage::Clearing => {
                if self.cleared_until.is_none_or(|until| now < until) {
                    self.pause = Some(Cause::Clearing);
                } else {
                    self.done = self.tasks.len();
                }
            }
            Outcome::Refused(error) if self.has_vanished(topology, &error) => self.begin_again(),
            Outcome::Refused(_) => self.single_before = self.done + count,
        }
    }

    fn outcome_of_one(
        &mut self,
        outcome: Outcome,
        topology: &mut Topology,
        lessons: &mut Lessons,
        now: Instant,
    ) -> Option<Told> {
        let Task { entity, request } = self.tasks.get(self.done)?.clone();
        match (outcome, request) {
            (Outcome::Lost(error), request) => {
                lessons.learn(entity, request.method(), &error);
                None
            }
            // it keeps its name
            (Outcome::Accepted(_), Request::IsThere(_)) => {
                self.accepted(2);
                None
            }
            // the next task declares it
            (Outcome::Refused(_), Request::IsThere(_)) => {
                self.done += 1;
                None
            }
            (Outcome::Accepted(Some(new)), Request::Anew(declare)) => {
                self.accepted(1);
                let Entity::Queue { name: old } = entity else { return None };
                debug_assert!(declare.queue.is_empty());
                topology.rename(&old, &new);
                Some(Told::Renamed { old, new })
            }
            (Outcome::Accepted(_), _) => {
                self.accepted(1);
                None
            }
            (Outcome::Refused(error), _) => self.refused(entity, error, topology, now),
        }
    }

    fn accepted(&mut self, count: usize) {
        if matches!(self.extent, Extent::These(_)) {
            let accepted = self.tasks.iter().skip(self.done).take(count);
            self.restored.extend(accepted.map(|task| task.entity.clone()));
        }
        self.done += count;
    }

    fn refused(&mut self, entity: Entity, error: Error, topology: &Topology, now: Instant) -> Option<Told> {
        let is_locked = error.reply_code() == Some(constants::RESOURCE_LOCKED);
        if is_locked && self.locked_until.is_none_or(|until| now < until) {
            self.pause = Some(Cause::Locked);
            return None;
        }
        if self.has_vanished(topology, &error) {
            self.begin_again();
            return None;
        }
        self.done += 1;
        self.unrestored.push(Unrestored { entity: entity.clone(), error: error.clone() });
        Some(Told::Refused { entity, error })
    }

    /// While the broker still clears away what the lost connection leaves, it may remove what was declared a moment ago,
    /// such as an auto-delete exchange with the last binding of an old queue. Then all is declared once more.
    fn begin_again(&mut self) {
        self.unrestored.clear();
        self.passes += 1;
        self.pause = Some(Cause::Vanished);
        (self.stage, self.tasks, self.done, self.single_before) = (Stage::Begin, Vec::new(), 0, 0);
    }

    /// Whether the server misses an exchange or a queue that was declared a moment ago. Not believed for ever.
    fn has_vanished(&self, topology: &Topology, error: &Error) -> bool {
        let is_believed = self.passes < PASSES && !matches!(self.extent, Extent::These(_));
        if error.reply_code() != Some(constants::NOT_FOUND) || !is_believed {
            return false;
        }
        let text = error.reply_text().unwrap_or_default();
        let is_missing = |entity: &Entity| match entity {
            Entity::Exchange { name } => text.contains(&format!("no exchange '{name}'")),
            Entity::Queue { name } => text.contains(&format!("no queue '{name}'")),
            _ => false,
        };
        if self.unrestored.iter().any(|refused| is_missing(&refused.entity)) {
            return false;
        }
        let exchanges = self.extent.exchanges(topology).into_iter().map(|declare| declare.exchange);
        let queues = self.extent.queues(topology).into_iter().map(|queue| queue.declare.queue);
        exchanges.map(|name| Entity::Exchange { name }).any(|exchange| is_missing(&exchange))
            || queues.map(|name| Entity::Queue { name }).any(|queue| is_missing(&queue))
    }

    /// What was refused.
    pub(in crate::robust) fn into_unrestored(self) -> Vec<Unrestored> {
        self.unrestored
    }

    /// Of what was refused before and was tried again here: what is back.
    pub(in crate::robust) fn take_restored(&mut self) -> Vec<Entity> {
        std::mem::take(&mut self.restored)
    }
}

impl Stage {
    fn after(self) -> Self {
        match self {
            Self::Begin => Self::Exchanges,
            Self::Exchanges => Self::Queues,
            Self::Queues => Self::Clearing,
            Self::Clearing => Self::ServerNamed,
            Self::ServerNamed => Self::ExchangeBindings,
            Self::ExchangeBindings => Self::QueueBindings,
            Self::QueueBindings | Self::Done => Self::Done,
        }
    }
}

impl Task {
    fn exchange(declare: exchange::Declare) -> Self {
        Self {
            entity: Entity::Exchange { name: declare.exchange.clone() },
            request: Request::Exchange(declare),
        }
    }

    fn queue(queue: RecordedQueue, request: fn(queue::Declare) -> Request) -> Self {
        Self { entity: Entity::Queue { name: queue.declare.queue.clone() }, request: request(queue.declare) }
    }

    fn exchange_binding(bind: exchange::Bind) -> Self {
        Self { entity: Entity::of_exchange_binding(&bind), request: Request::ExchangeBinding(bind) }
    }

    fn queue_binding(bind: queue::Bind) -> Self {
        Self { entity: Entity::of_queue_binding(&bind), request: Request::QueueBinding(bind) }
    }
}

fn clear(declare: queue::Declare) -> Request {
    Request::Clear(queue::Delete { queue: declare.queue, ..queue::Delete::default() })
}

fn is_there(declare: queue::Declare) -> Request {
    Request::IsThere(queue::Declare { passive: true, ..declare })
}

fn anew(declare: queue::Declare) -> Request {
    Request::Anew(queue::Declare { queue: ShortStr::empty(), ..declare })
}

#[cfg(test)]
mod tests;
