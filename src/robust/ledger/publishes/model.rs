//! The unconfirmed messages of a channel against a model: any sequence of publishes, confirms, losses and restores.
//!
//! The model knows each message that was handed over, and what has become of it. After each step it compares what the
//! ledger keeps, and lets every task that was woken ask again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use std::time::Duration;

use self::fake_wire::FakeWire;
use super::*;
use crate::codec::MethodId;
use crate::protocol::{Arguments, basic};

mod fake_wire;

/// Where messages go.
const EXCHANGES: [&str; 3] = ["", "x", "xy"];
const KEYS: [&str; 2] = ["old", "k"];

/// A queue, and what it is called once it is renamed.
const RENAMED: (&str, &str) = ("old", "new");

/// What happens to a channel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Publish {
        length: usize,
        /// Decides the exchange, the key, and which properties there are.
        kind: u8,
        /// Not published again so long from now; without end if zero.
        deadline: u8,
    },
    /// The server answers for a message, or for all up to it.
    Settle {
        which: usize,
        acked: bool,
        multiple: bool,
    },
    Abandon {
        which: usize,
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
    /// Time passes.
    Pass {
        time: u8,
    },
    /// The server gives the queue another name.
    Rename,
    /// The single channel is over, and the ledger does not know yet.
    End,
    /// The ledger learns that it is over.
    Lose(Cause),
    Restore(Restore),
}

/// Why a channel is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Network,
    /// A close by an operator.
    Forced,
    /// The server names the exchange of the messages that it refuses; `false`: only the beginning of the name.
    Exchange(u8, bool),
    /// The server names the size of such a message.
    Length(usize),
    /// The server names nothing.
    Unnamed,
}

/// How messages are published again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restore {
    /// After so many it is lost again.
    pub most: usize,
    /// This one, if it is on trial, makes the server close the connection.
    pub bad: usize,
    /// This one does not fit the new link.
    pub unfit: usize,
    /// The server acks each second one at once.
    pub prompt: bool,
    /// A trial ends with an ack, a nack, or without an answer.
    pub trial: u8,
}

/// What has become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Acked,
    Failed,
}

/// Who asks for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    /// Somebody may ask.
    Interested,
    /// A task waits for the answer.
    Waits,
    Told,
    Abandoned,
    /// And it is not published again.
    Withdrawn,
}

/// Whether a task was woken.
#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Sent {
    message: Message,
    exchange: &'static str,
    key: &'static str,
    mandatory: bool,
    weight: usize,
    deadline: Option<Instant>,
    fate: Fate,
    user: User,
    woken: Arc<Flag>,
}

impl Sent {
    fn is_open(&self) -> bool {
        self.fate == Fate::Open
    }

    /// Whether it is to be published again.
    fn is_due(&self) -> bool {
        self.is_open() && self.user != User::Withdrawn
    }

    /// Whether the error is about this message.
    fn fits(&self, cause: Cause) -> bool {
        match cause {
            Cause::Exchange(at, true) => self.exchange == exchange_of(at),
            Cause::Exchange(at, false) => self.exchange.starts_with(exchange_of(at)),
            Cause::Length(length) => self.message.body().len() == length,
            Cause::Network | Cause::Forced | Cause::Unnamed => false,
        }
    }
}

fn exchange_of(kind: u8) -> &'static str {
    pick(&EXCHANGES, kind.into()).unwrap_or_default()
}

fn error_of(cause: Cause) -> Error {
    let closed = |code, text: String| {
        let method = if code == 541 { MethodId::NONE } else { <basic::Publish as Arguments>::ID };
        Error::new(ErrorKind::ConnectionClosed, "closed").with_reply(code, text, method)
    };
    match cause {
        Cause::Network => Error::new(ErrorKind::ConnectionLost, "lost"),
        Cause::Forced => closed(320, "CONNECTION_FORCED - bye".into()),
        Cause::Exchange(at, true) => closed(404, format!("no exchange '{}' in vhost", exchange_of(at))),
        Cause::Exchange(at, false) => closed(404, format!("no exchange '{}", exchange_of(at))),
        Cause::Length(length) => closed(406, format!("message size {length} is larger than allowed")),
        Cause::Unnamed => closed(541, "INTERNAL_ERROR".into()),
    }
}

/// The ledger, the model, and the single channel of the moment.
pub(crate) struct Run {
    publishes: Publishes<FakeWire>,
    /// `None` between a loss and the next restore.
    wire: Option<FakeWire>,
    sent: BTreeMap<u64, Sent>,
    /// The sequences of the messages on the wire, by number.
    numbers: BTreeMap<u64, u64>,
    /// As the channel does it, the limit below which everything is acked is stored.
    acked_below: u64,
    now: Instant,
    renamed: bool,
    suspects: u64,
    on_trial: Option<u64>,
}

impl Run {
    /// With a channel that is open.
    pub(crate) fn new(now: Instant) -> Self {
        let mut publishes = Publishes::default();
        let wire = FakeWire::default();
        publishes.follow(wire.clone());
        publishes.followed();
        Self {
            publishes,
            wire: Some(wire),
            sent: BTreeMap::new(),
            numbers: BTreeMap::new(),
            acked_below: 0,
            now,
            renamed: false,
            suspects: 0,
            on_trial: None,
        }
    }

    /// Performs a step, and compares.
    pub(crate) fn step(&mut self, step: Step) {
        match step {
            Step::Publish { length, kind, deadline } => self.publish(length, kind, deadline),
            Step::Settle { which, acked, multiple } => self.settle(which, acked, multiple),
            Step::Abandon { which } => self.abandon(which),
            Step::Withdraw { which } => self.withdraw(which),
            Step::Ask { which } => self.ask(which),
            Step::Prune { all } => self.prune(all),
            Step::Pass { time } => self.now += Duration::from_secs(time.into()),
            Step::Rename => self.renamed = true,
            Step::End => self.wire.iter().for_each(FakeWire::end),
            Step::Lose(cause) => self.lose(cause),
            Step::Restore(restore) => self.restore(restore),
        }
        self.run_tasks();
        self.check();
    }

    fn live(&self) -> Option<&FakeWire> {
        self.wire.as_ref().filter(|wire| !wire.has_ended())
    }

    fn publish(&mut self, length: usize, kind: u8, deadline: u8) {
        let Some(wire) = self.live().cloned() else { return };
        let mut message = Message::new(vec![b'x'; length]);
        if kind & 0x40 != 0 {
            message = message.header("n", self.sent.len()).message_id("id");
        }
        if kind & 0x80 != 0 {
            message = message.reply_to(RENAMED.0);
        }
        let (exchange, mandatory) = (exchange_of(kind & 7), kind & 0x20 != 0);
        let key = pick(&KEYS, usize::from(kind & 0x10 != 0)).unwrap_or_default();
        let number = wire.publish();
        let name = ShortStr::try_from(exchange).unwrap_or_default();
        let outbound = Outbound { exchange: &name, routing_key: key.into(), mandatory, awaited: false };
        let measure = self.publishes.measure(&outbound, &message);
        // memory is set aside as the channel does it
        let missing = self.publishes.missing(measure.weight);
        self.publishes.reserve(missing);
        let sequence = self.publishes.push(&outbound, &message, measure);
        assert_eq!(self.publishes.number(sequence), Some(number));
        let deadline = (deadline > 0).then(|| self.now + Duration::from_secs(deadline.into()));
        if let Some(deadline) = deadline {
            self.publishes.expire_at(sequence, deadline);
        }
        let sent = Sent {
            message,
            exchange,
            key,
            mandatory,
            weight: measure.weight,
            deadline,
            fate: Fate::Open,
            user: User::Interested,
            woken: Arc::default(),
        };
        self.sent.insert(sequence, sent);
        self.numbers.insert(number, sequence);
    }

    fn settle(&mut self, which: usize, acked: bool, multiple: bool) {
        let Some(wire) = self.live().cloned() else { return };
        let open = wire.open();
        let Some(number) = pick(&open, which) else { return };
        for number in open.into_iter().filter(|other| *other == number || multiple && *other < number) {
            self.answer(&wire, number, acked);
        }
    }

    /// The server answers for a message.
    fn answer(&mut self, wire: &FakeWire, number: u64, acked: bool) {
        wire.settle(number, acked);
        let sent = self.numbers.get(&number).and_then(|sequence| self.sent.get_mut(sequence));
        if let Some(sent) = sent.filter(|sent| sent.is_open()) {
            sent.fate = if acked { Fate::Acked } else { Fate::Failed };
        }
    }

    fn fail(&mut self, sequence: u64) {
        if let Some(sent) = self.sent.get_mut(&sequence) {
            sent.fate = Fate::Failed;
        }
    }

    /// A message that somebody may ask for.
    fn pick(&self, which: usize) -> Option<u64> {
        let is_asked = |sent: &Sent| matches!(sent.user, User::Interested | User::Waits);
        let asked: Vec<_> = self.sent.iter().filter(|(_, sent)| is_asked(sent)).map(|(at, _)| *at).collect();
        pick(&asked, which)
    }

    fn abandon(&mut self, which: usize) {
        if let Some(sequence) = self.pick(which) {
            self.give_up(sequence, User::Abandoned);
        }
    }

    fn withdraw(&mut self, which: usize) {
        if let Some(sequence) = self.pick(which) {
            self.publishes.withdraw(sequence);
            self.publishes.take_spare();
            self.give_up(sequence, User::Withdrawn);
        }
    }

    fn give_up(&mut self, sequence: u64, user: User) {
        let Some(sent) = self.sent.get_mut(&sequence) else { return };
        sent.user = user;
        if sequence >= self.acked_below {
            let Abandoned { failure, stray, _waker } = self.publishes.abandon(sequence);
            let told = failure.is_some() || stray.is_some();
            assert_eq!(told, sent.fate == Fate::Failed, "the failure of message {sequence}");
        }
    }

    fn ask(&mut self, which: usize) {
        if let Some(sequence) = self.pick(which) {
            self.poll(sequence);
        }
    }

    /// What the ledger says of a message is what has become of it.
    fn poll(&mut self, sequence: u64) {
        let Some(sent) = self.sent.get_mut(&sequence) else { return };
        self.acked_below = self.publishes.acked_below();
        let told = if sequence < self.acked_below {
            Poll::Ready(Ok(()))
        } else {
            self.publishes.ask(sequence, &Arc::clone(&sent.woken).into())
        };
        match told {
            Poll::Pending => {
                let ends = self.wire.as_ref().is_some_and(FakeWire::has_ended);
                assert!(sent.is_open() || ends, "message {sequence} is {:?}, and not told", sent.fate);
                sent.user = User::Waits;
            }
            Poll::Ready(told) => {
                let fate = if told.is_ok() { Fate::Acked } else { Fate::Failed };
                assert_eq!(sent.fate, fate, "message {sequence}: {told:?}");
                sent.user = User::Told;
            }
        }
    }

    /// Every task that was woken asks again.
    fn run_tasks(&mut self) {
        let all: Vec<_> = self.sent.iter().filter(|(_, sent)| sent.user == User::Waits).collect();
        let woken = |sent: &Sent| sent.woken.0.swap(false, Ordering::Relaxed);
        let woken: Vec<_> = all.into_iter().filter(|(_, sent)| woken(sent)).map(|(at, _)| *at).collect();
        for sequence in woken {
            self.poll(sequence);
        }
    }

    fn prune(&mut self, all: bool) {
        if all {
            self.publishes.prune_all();
        }
        self.publishes.prune();
        self.acked_below = self.publishes.acked_below();
        self.publishes.take_spare();
        assert!(self.publishes.reserved() <= self.publishes.bytes());
    }

    /// The ledger learns that the channel is over.
    fn lose(&mut self, cause: Cause) {
        let Some(wire) = self.wire.take() else { return };
        wire.end();
        let failed = self.blamed(cause);
        let given_up = self.publishes.lost(&error_of(cause));
        self.numbers.clear();
        self.failed(&failed, given_up);
        self.on_trial = None;
        // nothing is kept that the server has settled, and nothing else is gone
        assert_eq!(self.kept(), self.due(), "kept after {cause:?}");
    }

    /// The messages that fail because of an error.
    fn blamed(&mut self, cause: Cause) -> Vec<u64> {
        let open = |sent: &Sent| sent.is_open();
        let kept = self.kept();
        let meant = self.sent.iter().filter(|(at, sent)| open(sent) && kept.contains(at) && sent.fits(cause));
        let meant: Vec<_> = meant.map(|(at, _)| *at).collect();
        if matches!(cause, Cause::Network | Cause::Forced) || !meant.is_empty() {
            return meant;
        }
        if let Some(on_trial) = self.on_trial {
            return Some(on_trial).filter(|at| self.sent.get(at).is_some_and(open)).into_iter().collect();
        }
        let under_way = self.numbers.values().filter(|at| self.sent.get(at).is_some_and(open));
        self.suspects = self.suspects.max(under_way.max().copied().unwrap_or(0));
        Vec::new()
    }

    /// These have failed, and their users are told.
    fn failed(&mut self, failed: &[u64], given_up: GivenUp<FakeWire>) {
        let unheard = failed.iter().any(|at| self.sent.get(at).is_some_and(|it| it.user == User::Abandoned));
        assert_eq!(given_up.unheard.is_some(), unheard, "failures that nobody asks for: {failed:?}");
        for sequence in failed {
            self.fail(*sequence);
        }
        given_up.wakers.into_iter().for_each(Waker::wake);
    }

    fn kept(&self) -> BTreeSet<u64> {
        self.publishes.kept.iter().map(|entry| entry.sequence).collect()
    }

    /// What must be kept, and of what was withdrawn that which is still there.
    fn due(&self) -> BTreeSet<u64> {
        let kept = self.kept();
        let is_due = |at: &u64, sent: &Sent| sent.is_due() || sent.is_open() && kept.contains(at);
        self.sent.iter().filter(|(at, sent)| is_due(at, sent)).map(|(at, _)| *at).collect()
    }

    /// Publishes again, in order.
    fn restore(&mut self, restore: Restore) {
        if self.wire.is_some() {
            return;
        }
        let wire = FakeWire::default();
        self.publishes.follow(wire.clone());
        self.wire = Some(wire.clone());
        let (mut done, mut seen) = (0, 0);
        loop {
            let mut given_up = GivenUp::default();
            let (expired, expected) = self.next_of_model(done);
            let rename = |name: &ShortStr| {
                let renamed = self.renamed && *name == RENAMED.0;
                renamed.then(|| RENAMED.1.try_into().unwrap_or_default())
            };
            let again = self.publishes.next(done, self.now, rename, &mut given_up);
            self.failed(&expired, given_up);
            assert_eq!(again.as_ref().map(|again| again.sequence), expected, "published next");
            let Some(again) = again else { break };
            if seen == restore.most {
                return self.lose(Cause::Network);
            }
            seen += 1;
            self.compare(&again);
            let mut given_up = GivenUp::default();
            if seen == restore.unfit {
                let error = Error::new(ErrorKind::Argument, "too large");
                self.publishes.unfit(again.sequence, &error, &mut given_up);
                self.failed(&[again.sequence], given_up);
                continue;
            }
            let number = wire.publish();
            self.publishes.handed_over(&again, number, &mut given_up);
            self.failed(&[], given_up);
            self.numbers.insert(number, again.sequence);
            self.on_trial = again.on_trial.then_some(again.sequence);
            done = again.sequence;
            if again.on_trial && seen == restore.bad {
                return self.lose(Cause::Unnamed);
            }
            let answers = if again.on_trial { restore.trial < 2 } else { restore.prompt && seen % 2 == 0 };
            if answers {
                self.answer(&wire, number, !again.on_trial || restore.trial == 0);
            }
            if again.on_trial {
                self.publishes.acquitted();
                self.on_trial = None;
            }
        }
        self.publishes.followed();
        (self.suspects, self.on_trial) = (0, None);
        self.publishes.take_wakers().into_iter().for_each(Waker::wake);
    }

    /// The messages whose time is over, and the next to be published.
    fn next_of_model(&self, done: u64) -> (Vec<u64>, Option<u64>) {
        let mut expired = Vec::new();
        for (sequence, sent) in self.sent.range(done + 1..).filter(|(_, sent)| sent.is_due()) {
            if sent.deadline.is_none_or(|deadline| deadline > self.now) {
                return (expired, Some(*sequence));
            }
            expired.push(*sequence);
        }
        (expired, None)
    }

    /// A message goes again as it went before, but for new names.
    fn compare(&self, again: &Again) {
        let Some(sent) = self.sent.get(&again.sequence) else { return };
        let renamed = |name: &'static str| if self.renamed && name == RENAMED.0 { RENAMED.1 } else { name };
        let mut message = sent.message.clone();
        if message.properties().reply_to.is_some() {
            message = message.reply_to(renamed(RENAMED.0));
        }
        assert_eq!(again.message, message, "message {}", again.sequence);
        let key = if sent.exchange.is_empty() { renamed(sent.key) } else { sent.key };
        assert_eq!(again.route.exchange, sent.exchange, "message {}", again.sequence);
        assert_eq!(again.route.routing_key, key, "message {}", again.sequence);
        assert_eq!(again.route.mandatory, sent.mandatory, "message {}", again.sequence);
        assert_eq!(again.on_trial, again.sequence <= self.suspects, "message {}", again.sequence);
    }

    fn check(&mut self) {
        let kept = self.kept();
        for (sequence, sent) in &self.sent {
            let is_kept = kept.contains(sequence);
            assert!(is_kept || !sent.is_due(), "message {sequence} is open, and not kept");
            let waits = sent.user == User::Waits && !sent.is_open();
            let ends = self.wire.is_some() && self.live().is_none();
            assert!(!waits || ends, "nobody has woken the user of message {sequence}");
            let is_known = sent.fate == Fate::Acked || !matches!(sent.user, User::Interested | User::Waits);
            assert!(is_known || *sequence >= self.acked_below, "message {sequence} counts as acked");
        }
        if self.wire.is_some() {
            for (number, sequence) in &self.numbers {
                let is_open = self.sent.get(sequence).is_some_and(Sent::is_open);
                assert!(!is_open || self.publishes.number(*sequence) == Some(*number), "{sequence}");
            }
        }
        let weight: usize = kept.iter().filter_map(|at| self.sent.get(at)).map(|sent| sent.weight).sum();
        assert_eq!((self.publishes.len(), self.publishes.bytes()), (kept.len(), weight));
        assert!(self.publishes.reserved() >= weight, "more is kept than was set aside");
    }

    /// In the end the server acks everything; all users are told, and nothing is kept.
    pub(crate) fn end(mut self) {
        if self.live().is_none() {
            self.lose(Cause::Network);
            self.restore(Restore { most: usize::MAX, bad: 0, unfit: 0, prompt: false, trial: 0 });
        }
        if let Some(wire) = self.wire.clone() {
            wire.open().into_iter().for_each(|number| self.answer(&wire, number, true));
        }
        self.ask_all();
        self.prune(false);
        self.is_empty();
        assert!(self.publishes.deadlines.is_empty());
    }

    /// The channel ends for good: what is not settled fails.
    pub(crate) fn close(mut self) {
        let open = self.sent.iter().filter(|(_, sent)| sent.is_due()).map(|(at, _)| *at).collect::<Vec<_>>();
        self.wire.take();
        let given_up = self.publishes.end(&error_of(Cause::Network));
        self.failed(&open, given_up);
        self.ask_all();
        self.is_empty();
    }

    fn ask_all(&mut self) {
        self.run_tasks();
        while let Some(sequence) = self.pick(0) {
            self.poll(sequence);
            let told = self.sent.get(&sequence).is_none_or(|sent| sent.user == User::Told);
            assert!(told, "message {sequence} is never told");
        }
    }

    fn is_empty(&self) {
        assert_eq!((self.publishes.len(), self.publishes.bytes()), (0, 0));
        assert!(self.publishes.failures.is_empty(), "{:?}", self.publishes.failures);
        assert!(self.publishes.waiting.is_empty(), "{:?}", self.publishes.waiting);
    }
}

fn pick<T: Copy>(list: &[T], which: usize) -> Option<T> {
    list.get(which.checked_rem(list.len())?).copied()
}
