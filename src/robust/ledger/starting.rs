//! Starting the consumers of a channel on a new link, where the broker may refuse some of them.
//!
//! ```text
//!  ┌─> open ──> start one after the other ──> done
//!  │                    │ refused: the channel is closed, and with it all that were started
//!  │                    ▼
//!  └────── ask for the queues of those that are left (once, on a scratch channel)
//! ```
//!
//! Without the questions each consumer whose queue is gone would start all before it anew.

use std::collections::{HashMap, HashSet, VecDeque};

use super::consumers::Probe;
use super::entity::{Entity, Unrestored};
use super::lessons::Lessons;
use crate::codec::ShortStr;
use crate::error::{Error, ErrorKind};
use crate::protocol::{Arguments, basic, constants};
use crate::single::ConsumeSpec;

/// A consumer of the channel, by its number there.
pub(in crate::robust) type ConsumerId = u64;

/// What to do next.
#[derive(Debug)]
pub(in crate::robust) enum Step {
    /// Open the channel and set it up; then call [`Starting::opened`].
    Open,
    /// Start this consumer on the channel, if it is still wanted.
    Start(ConsumerId, ConsumeSpec),
    /// Ask for this queue on a scratch channel.
    Ask(ShortStr),
    /// Nothing: all that can be started are.
    Done,
}

/// What came of the last step, other than [`Step::Open`].
#[derive(Debug)]
pub(in crate::robust) enum Outcome {
    /// The consumer runs, or is not wanted any more; the queue is there.
    Done,
    /// The server has refused it.
    Refused {
        error: Error,
        /// Whether the channel is closed.
        is_closed: bool,
    },
    /// The link is lost, or does not answer.
    Lost(Error),
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Opening,
    Starting,
    Asking(VecDeque<ShortStr>),
}

/// The consumers of a channel on their way back.
#[derive(Debug, Default)]
pub(in crate::robust) struct Starting {
    stage: Stage,
    /// The consumers of this opening, with what they are to be started with now.
    wanted: Vec<(ConsumerId, ConsumeSpec)>,
    /// So many of them have their outcome.
    done: usize,
    refused: HashMap<ConsumerId, Probe>,
    /// Those of them that are not to be tried again on this link: they would close it.
    poison: HashSet<ConsumerId>,
    /// Whether queues were asked for.
    asked: bool,
    unrestored: Vec<Unrestored>,
}

impl Starting {
    /// The channel is open, and these are to be started on it.
    pub(in crate::robust) fn opened(&mut self, wanted: Vec<(ConsumerId, ConsumeSpec)>) {
        (self.stage, self.wanted, self.done) = (Stage::Starting, wanted, 0);
    }

    /// What to do next. Consumers that are not tried, because of what was learnt before, are put into `refused`.
    pub(in crate::robust) fn next_step(
        &mut self,
        lessons: &Lessons,
        refused: &mut Vec<(ConsumerId, Error)>,
    ) -> Step {
        if let Stage::Asking(queues) = &self.stage {
            if let Some(queue) = queues.front() {
                return Step::Ask(queue.clone());
            }
            self.stage = Stage::Opening;
        }
        if let Stage::Opening = self.stage {
            return Step::Open;
        }
        while let Some((id, spec)) = self.wanted.get(self.done).cloned() {
            if !self.refused.contains_key(&id) {
                let Some(error) = lessons.against(&entity(&spec)) else { return Step::Start(id, spec) };
                // one that was not answered closes nothing
                if error.kind() != ErrorKind::Timeout {
                    self.poison.insert(id);
                }
                self.note(id, &spec, error, refused);
            }
            self.done += 1;
        }
        Step::Done
    }

    /// Takes what came of the last step. Consumers that are found to be refused are put into `refused`.
    pub(in crate::robust) fn outcome(
        &mut self,
        outcome: Outcome,
        lessons: &mut Lessons,
        refused: &mut Vec<(ConsumerId, Error)>,
    ) {
        if let Stage::Asking(queues) = &mut self.stage {
            let Some(queue) = queues.pop_front() else { return };
            if let Outcome::Refused { error, .. } = outcome {
                self.missing(&queue, &error, refused);
            }
            return;
        }
        let Some((id, spec)) = self.wanted.get(self.done).cloned() else { return };
        match outcome {
            Outcome::Done => self.done += 1,
            Outcome::Lost(error) => lessons.learn(entity(&spec), basic::Consume::ID, &error),
            Outcome::Refused { error, is_closed } => {
                self.note(id, &spec, error, refused);
                self.done += 1;
                if is_closed {
                    self.stage = if self.asked { Stage::Opening } else { Stage::Asking(self.queues()) };
                    self.asked = true;
                }
            }
        }
    }

    /// The queues of those that are left.
    fn queues(&self) -> VecDeque<ShortStr> {
        let mut seen = HashSet::new();
        let left = self.wanted.iter().skip(self.done).map(|(_, spec)| &spec.method.queue);
        left.filter(|queue| seen.insert(*queue)).cloned().collect()
    }

    /// Those that are left cannot be started if their queue is missing. If it is refused for another reason, they may be allowed.
    fn missing(&mut self, queue: &ShortStr, error: &Error, refused: &mut Vec<(ConsumerId, Error)>) {
        if error.reply_code() != Some(constants::NOT_FOUND) {
            return;
        }
        let left: Vec<_> = self.wanted.iter().skip(self.done).cloned().collect();
        for (id, spec) in left {
            if spec.method.queue == *queue {
                self.note(id, &spec, error.clone(), refused);
            }
        }
    }

    fn note(
        &mut self,
        id: ConsumerId,
        spec: &ConsumeSpec,
        error: Error,
        refused: &mut Vec<(ConsumerId, Error)>,
    ) {
        self.refused.insert(id, Probe::refused(&error));
        self.unrestored.push(Unrestored { entity: entity(spec), error: error.clone() });
        refused.push((id, error));
    }

    /// Those that were refused and are to be tried again on this link, each with how; and all that were refused.
    pub(in crate::robust) fn finish(self) -> (HashMap<ConsumerId, Probe>, Vec<Unrestored>) {
        let Self { mut refused, poison, unrestored, .. } = self;
        refused.retain(|id, _| !poison.contains(id));
        (refused, unrestored)
    }
}

fn entity(spec: &ConsumeSpec) -> Entity {
    let basic::Consume { queue, consumer_tag, .. } = &spec.method;
    Entity::Consumer { queue: queue.clone(), tag: consumer_tag.clone() }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn name(name: &str) -> ShortStr {
        name.try_into().unwrap()
    }

    fn refusal(code: u16) -> Error {
        Error::new(ErrorKind::ChannelClosed, "").with_reply(code, String::new(), basic::Consume::ID)
    }

    /// Starts consumers of these queues, numbered from 0, against a broker that misses or forbids some queues. Returns the steps,
    /// and which consumers are tried again.
    fn run(
        queues: &[&str],
        missing: &[&str],
        forbidden: &[&str],
        lessons: &mut Lessons,
    ) -> (String, Vec<u64>) {
        let (mut starting, mut refused, mut steps) = (Starting::default(), Vec::new(), String::new());
        loop {
            let outcome = match starting.next_step(lessons, &mut refused) {
                Step::Open => {
                    steps.push_str("open ");
                    let wanted = queues.iter().zip(0..).map(|(queue, id)| {
                        let method = basic::Consume {
                            queue: name(queue),
                            consumer_tag: name(&format!("tag-{id}")),
                            ..basic::Consume::default()
                        };
                        (id, ConsumeSpec { prefetch: None, method })
                    });
                    starting.opened(wanted.collect());
                    continue;
                }
                Step::Start(id, spec) => {
                    write!(steps, "{id} ").unwrap();
                    let is = |names: &[&str]| names.iter().any(|queue| spec.method.queue == **queue);
                    match (is(missing), is(forbidden)) {
                        (true, _) => Outcome::Refused { error: refusal(404), is_closed: true },
                        (_, true) => Outcome::Refused { error: refusal(403), is_closed: true },
                        _ => Outcome::Done,
                    }
                }
                Step::Ask(queue) => {
                    write!(steps, "{queue}? ").unwrap();
                    if missing.iter().any(|missing| queue == **missing) {
                        Outcome::Refused { error: refusal(404), is_closed: true }
                    } else {
                        Outcome::Done
                    }
                }
                Step::Done => break,
            };
            starting.outcome(outcome, lessons, &mut refused);
            assert!(steps.len() < 1000, "no end: {steps}");
        }
        let (again, unrestored) = starting.finish();
        let mut again: Vec<_> = again.into_keys().collect();
        again.sort_unstable();
        assert_eq!(unrestored.len(), refused.len());
        (steps.trim_end().to_owned(), again)
    }

    #[test]
    fn without_a_refusal_each_is_started_once() {
        let (steps, again) = run(&["a", "a", "b"], &[], &[], &mut Lessons::default());
        assert_eq!((steps.as_str(), again), ("open 0 1 2", vec![]));
    }

    #[test]
    fn after_the_first_refusal_the_other_queues_are_asked_for() {
        let queues = ["a", "gone", "b", "gone too", "gone", "c"];
        let (steps, again) = run(&queues, &["gone", "gone too"], &[], &mut Lessons::default());
        assert_eq!(steps, "open 0 1 b? gone too? gone? c? open 0 2 5");
        assert_eq!(again, [1, 3, 4]);
    }

    #[test]
    fn a_consumer_that_is_forbidden_is_found_by_trying() {
        let (steps, again) = run(&["a", "x", "b", "x"], &[], &["x"], &mut Lessons::default());
        assert_eq!(steps, "open 0 1 b? x? open 0 2 3 open 0 2");
        assert_eq!(again, [1, 3]);
    }

    #[test]
    fn one_that_closed_the_connection_is_left_out_until_the_next_loss() {
        let mut lessons = Lessons::default();
        let closed =
            Error::new(ErrorKind::ConnectionClosed, "").with_reply(541, String::new(), basic::Consume::ID);
        lessons.learn(Entity::Consumer { queue: name("b"), tag: name("tag-1") }, basic::Consume::ID, &closed);
        let (steps, again) = run(&["a", "b", "c"], &[], &[], &mut lessons);
        assert_eq!((steps.as_str(), again), ("open 0 2", vec![]));
    }
}
