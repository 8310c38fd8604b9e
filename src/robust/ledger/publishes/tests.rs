//! Sequences of publishes, confirms, losses and restores against a model.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::codec::MethodId;

/// A channel whose server is the test.
#[derive(Clone, Debug, Default)]
struct FakeWire(Rc<RefCell<Server>>);

#[derive(Debug, Default)]
struct Server {
    published: u64,
    settled: BTreeSet<u64>,
    abandoned: BTreeSet<u64>,
    failures: BTreeMap<u64, Error>,
}

impl FakeWire {
    fn publish(&self) -> u64 {
        let mut server = self.0.borrow_mut();
        server.published += 1;
        server.published
    }

    fn settle(&self, number: u64, acked: bool) {
        let mut server = self.0.borrow_mut();
        if server.settled.insert(number) && !acked && !server.abandoned.contains(&number) {
            server.failures.insert(number, Error::new(ErrorKind::Nacked, "no"));
        }
    }

    /// The numbers that are not settled.
    fn open(&self) -> Vec<u64> {
        let server = self.0.borrow();
        (1..=server.published).filter(|number| !server.settled.contains(number)).collect()
    }
}

impl Wire for FakeWire {
    type Stray = ();

    fn settled_below(&self) -> u64 {
        let server = self.0.borrow();
        (1..=server.published).find(|number| !server.settled.contains(number)).unwrap_or(server.published + 1)
    }

    fn is_settled(&self, number: u64) -> bool {
        self.0.borrow().settled.contains(&number)
    }

    fn acked_below(&self) -> u64 {
        let first = self.0.borrow().failures.keys().next().copied();
        self.settled_below().min(first.unwrap_or(u64::MAX))
    }

    fn take_failures(&self) -> Vec<(u64, Error)> {
        std::mem::take(&mut self.0.borrow_mut().failures).into_iter().collect()
    }

    fn ask(&self, number: u64, _: &Waker) -> Option<Poll<Result<()>>> {
        if !self.is_settled(number) {
            return Some(Poll::Pending);
        }
        let failure = self.0.borrow_mut().failures.remove(&number);
        Some(Poll::Ready(failure.map_or(Ok(()), Err)))
    }

    fn abandon(&self, number: u64) -> Option<()> {
        let mut server = self.0.borrow_mut();
        server.abandoned.insert(number);
        server.failures.remove(&number);
        None
    }
}

/// What has become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Acked,
    /// Its failure is to be told, or was.
    Failed,
    /// Nobody asks, and it is not published again.
    Withdrawn,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Publish {
        length: usize,
        headers: bool,
    },
    Settle {
        which: usize,
        acked: bool,
    },
    Withdraw {
        which: usize,
    },
    Ask {
        which: usize,
    },
    Prune {
        all: bool,
    },
    /// The link is lost; `suspect`: the server closes the connection, and names nothing.
    Lose {
        suspect: bool,
    },
    /// Publishes again; at most so many, then it is lost again.
    Restore {
        most: usize,
        bad: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..6_000_usize, any::<bool>()).prop_map(|(length, headers)| Step::Publish { length, headers }),
        6 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(which, acked)| Step::Settle { which, acked }),
        1 => any::<usize>().prop_map(|which| Step::Withdraw { which }),
        2 => any::<usize>().prop_map(|which| Step::Ask { which }),
        1 => any::<bool>().prop_map(|all| Step::Prune { all }),
        2 => prop::bool::weighted(0.3).prop_map(|suspect| Step::Lose { suspect }),
        3 => (0..40_usize, 0..8_usize).prop_map(|(most, bad)| Step::Restore { most, bad }),
    ];
    prop::collection::vec(step, 0..120)
}

struct Run {
    publishes: Publishes<FakeWire>,
    wire: Option<FakeWire>,
    /// By sequence.
    messages: BTreeMap<u64, (Message, Fate)>,
    /// The sequences of the messages on the wire, by number.
    numbers: BTreeMap<u64, u64>,
    asked: BTreeSet<u64>,
}

impl Run {
    fn new() -> Self {
        let mut publishes = Publishes::default();
        let wire = FakeWire::default();
        publishes.follow(wire.clone());
        publishes.followed();
        let (messages, numbers) = (BTreeMap::new(), BTreeMap::new());
        Self { publishes, wire: Some(wire), messages, numbers, asked: BTreeSet::new() }
    }

    fn open(&self) -> Vec<u64> {
        self.messages.iter().filter(|(_, (_, fate))| *fate == Fate::Open).map(|(at, _)| *at).collect()
    }

    fn set(&mut self, sequence: u64, fate: Fate) {
        if let Some((_, own)) = self.messages.get_mut(&sequence).filter(|(_, own)| *own == Fate::Open) {
            *own = fate;
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish { length, headers } => self.publish(length, headers),
            Step::Settle { which, acked } => self.settle(which, acked),
            Step::Withdraw { which } => {
                if let Some(sequence) = pick(&self.open(), which)
                    && !self.asked.contains(&sequence)
                {
                    self.publishes.withdraw(sequence);
                    drop(self.publishes.abandon(sequence));
                    self.set(sequence, Fate::Withdrawn);
                }
            }
            Step::Ask { which } => self.ask(which),
            Step::Prune { all: true } => self.publishes.prune_all(),
            Step::Prune { all: false } => self.publishes.prune(),
            Step::Lose { suspect } => self.lose(suspect, None),
            Step::Restore { most, bad } => self.restore(most, bad),
        }
    }

    fn publish(&mut self, length: usize, headers: bool) {
        let Some(wire) = &self.wire else { return };
        let mut message = Message::new(vec![b'x'; length]);
        if headers {
            message = message.header("n", self.messages.len()).message_id("id");
        }
        let number = wire.publish();
        let exchange = ShortStr::empty();
        let outbound =
            Outbound { exchange: &exchange, routing_key: "k".into(), mandatory: false, awaited: false };
        let measure = self.publishes.measure(&outbound, &message);
        let sequence = self.publishes.push(&outbound, &message, measure);
        assert_eq!(self.publishes.number(sequence), Some(number));
        self.messages.insert(sequence, (message, Fate::Open));
        self.numbers.insert(number, sequence);
    }

    fn settle(&mut self, which: usize, acked: bool) {
        let Some(wire) = &self.wire else { return };
        let Some(number) = pick(&wire.open(), which) else { return };
        wire.settle(number, acked);
        if let Some(sequence) = self.numbers.get(&number).copied() {
            self.set(sequence, if acked { Fate::Acked } else { Fate::Failed });
        }
    }

    /// What the ledger says of a message is what has become of it.
    fn ask(&mut self, which: usize) {
        let all: Vec<_> = self.messages.keys().copied().collect();
        let Some(sequence) = pick(&all, which) else { return };
        let fate = self.messages[&sequence].1;
        if fate == Fate::Withdrawn || self.asked.contains(&sequence) {
            return;
        }
        match self.publishes.ask(sequence, Waker::noop()) {
            Poll::Pending => assert_eq!(fate, Fate::Open, "message {sequence}"),
            Poll::Ready(told) => {
                assert_eq!(fate, if told.is_ok() { Fate::Acked } else { Fate::Failed }, "message {sequence}");
                self.asked.insert(sequence);
            }
        }
    }

    /// The link is lost. `culprit`: the message that is convicted.
    fn lose(&mut self, suspect: bool, culprit: Option<u64>) {
        if self.wire.take().is_none() {
            return;
        }
        let error = if suspect {
            Error::new(ErrorKind::ConnectionClosed, "closed").with_reply(
                541,
                "INTERNAL_ERROR".to_owned(),
                MethodId::NONE,
            )
        } else {
            Error::new(ErrorKind::ConnectionLost, "lost")
        };
        self.publishes.lost(&error);
        self.numbers.clear();
        if let Some(culprit) = culprit {
            self.set(culprit, Fate::Failed);
        }
        assert_eq!(self.publishes.kept.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), self.kept());
    }

    /// What is to be published again.
    fn kept(&self) -> Vec<u64> {
        let sequences: BTreeSet<_> = self.publishes.kept.iter().map(|entry| entry.sequence).collect();
        let is_kept = |sequence: &u64, fate: Fate| match fate {
            Fate::Open => true,
            Fate::Acked | Fate::Failed => false,
            // it goes when its turn comes
            Fate::Withdrawn => sequences.contains(sequence),
        };
        self.messages.iter().filter(|(at, (_, fate))| is_kept(at, *fate)).map(|(at, _)| *at).collect()
    }

    /// Publishes again in order. On trial, message number `bad` of them makes the server close the connection.
    fn restore(&mut self, most: usize, bad: usize) {
        if self.wire.is_some() {
            return;
        }
        let wire = FakeWire::default();
        self.publishes.follow(wire.clone());
        self.wire = Some(wire.clone());
        let expected = self.open();
        let (mut done, mut seen, mut given_up) = (0, Vec::new(), GivenUp::default());
        while let Some(again) = self.publishes.next(done, Instant::now(), |_| None, &mut given_up) {
            if seen.len() == most {
                self.lose(false, None);
                return;
            }
            done = again.sequence;
            seen.push(again.sequence);
            assert_eq!(again.message, self.messages[&again.sequence].0, "another message");
            let number = wire.publish();
            self.publishes.handed_over(&again, number, &mut given_up);
            self.numbers.insert(number, again.sequence);
            if again.on_trial {
                if seen.len() == bad {
                    self.lose(true, Some(again.sequence));
                    return;
                }
                wire.settle(number, true);
                self.set(again.sequence, Fate::Acked);
                self.publishes.acquitted();
            }
        }
        assert_eq!(seen, expected, "published again");
        self.publishes.followed();
    }

    /// In the end all is settled, and nothing is kept.
    fn end(mut self) {
        if self.wire.is_none() {
            self.restore(usize::MAX, 0);
        }
        let wire = self.wire.clone().unwrap();
        for number in wire.open() {
            wire.settle(number, true);
            if let Some(sequence) = self.numbers.get(&number).copied() {
                self.set(sequence, Fate::Acked);
            }
        }
        for which in 0..self.messages.len() {
            self.ask(which);
        }
        self.publishes.prune();
        assert_eq!((self.publishes.len(), self.publishes.kept.bytes()), (0, 0));
        assert!(self.publishes.failures.is_empty(), "{:?}", self.publishes.failures);
        assert!(self.publishes.deadlines.is_empty());
    }
}

fn pick<T: Copy>(list: &[T], which: usize) -> Option<T> {
    list.get(which.checked_rem(list.len())?).copied()
}

proptest! {
    #[test]
    fn the_ledger_agrees_with_a_model(steps in steps()) {
        let mut run = Run::new();
        for step in steps {
            run.step(step);
        }
        run.end();
    }
}
