//! What must hold, whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use lepus::{Connection, Incoming};

/// A message: its publisher, and its number there.
pub(crate) type Id = (u64, u64);

/// The publisher without confirms.
pub(crate) const WITHOUT_CONFIRMS: u64 = 100;

/// What its publisher knows of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It may arrive, or not: nobody waited for the answer, or there is none yet.
    Unknown,
    Confirmed,
    /// The broker refused it.
    Nacked,
    /// It was withdrawn before it was handed over, and never arrives.
    NotSent,
}

/// What is known of all messages, and what was wrong.
#[derive(Debug, Default)]
pub(crate) struct Model {
    sent: BTreeMap<Id, (usize, Fate)>,
    /// How often the jobs' consumer had begun anew when each was sent.
    begun: BTreeMap<Id, u64>,
    /// Messages with a deadline: they need not be published again with those around them.
    limited: BTreeSet<Id>,
    /// How often each has arrived.
    got: BTreeMap<Id, u32>,
    /// Arrived without a mark.
    originals: BTreeSet<Id>,
    /// Of each publisher; without confirms, on each link.
    highest: BTreeMap<(u64, Option<u64>), u64>,
    /// Handed over, kept to be published again, and not known to be settled.
    kept: BTreeMap<Id, usize>,
    /// Messages without confirms, and the links on which they were handed over.
    unconfirmed: BTreeMap<Id, u64>,
    /// The last message of each publisher that may have been at the broker when its data was lost.
    forgotten: BTreeMap<u64, u64>,
    /// The connection of the jobs' consumer, and how often that began anew on the same link.
    pub(crate) consuming: Option<Connection>,
    pub(crate) restarts: u64,
    /// What the faults may explain.
    pub(crate) nacks: bool,
    pub(crate) faults: Vec<String>,
}

impl Model {
    /// Something is wrong.
    pub(crate) fn wrong(&mut self, what: impl Into<String>) {
        self.faults.push(what.into());
    }

    /// A publisher begins to send a message.
    pub(crate) fn send(&mut self, id: Id, size: usize) {
        self.sent.insert(id, (size, Fate::Unknown));
        self.begun.insert(id, self.consumer_begun());
    }

    /// A message has a deadline.
    pub(crate) fn limit(&mut self, id: Id) {
        self.limited.insert(id);
    }

    /// How often the jobs' consumer has begun anew.
    fn consumer_begun(&self) -> u64 {
        let links = self.consuming.as_ref().map_or(0, |connection| connection.counters().reconnects);
        links + self.restarts
    }

    /// It was handed over, and its publisher waits for the confirm.
    pub(crate) fn handed_over(&mut self, id: Id) {
        let size = self.sent[&id].0;
        self.kept.insert(id, size);
    }

    /// Nobody waits for the confirm any more.
    pub(crate) fn abandon(&mut self, id: Id) {
        self.kept.remove(&id);
    }

    pub(crate) fn settle(&mut self, id: Id, confirmed: bool) {
        self.kept.remove(&id);
        let fate = if confirmed { Fate::Confirmed } else { Fate::Nacked };
        self.sent.get_mut(&id).unwrap().1 = fate;
        if !confirmed && !self.nacks {
            self.wrong(format!("{id:?} was nacked, and no fault says so"));
        }
    }

    /// It was handed over on a channel without confirms, on the link with this number.
    pub(crate) fn handed_over_without_confirm(&mut self, id: Id, link: u64) {
        self.unconfirmed.insert(id, link);
    }

    /// The broker loses all its data: what was confirmed, or is about to be.
    pub(crate) fn forget(&mut self) {
        self.forgotten.extend(self.sent.keys().copied());
    }

    /// Its deadline has passed before it was handed over.
    pub(crate) fn not_sent(&mut self, id: Id) {
        self.sent.get_mut(&id).unwrap().1 = Fate::NotSent;
        if self.got.contains_key(&id) {
            self.wrong(format!("{id:?} was not sent, and has arrived"));
        }
    }

    /// Messages that are kept have a bound, beyond which each channel may have one.
    pub(crate) fn check_memory(&mut self, publishers: &[u64], limit: usize) {
        let kept = || self.kept.iter().filter(|((publisher, _), _)| publishers.contains(publisher));
        let total: usize = kept().map(|(_, size)| size).sum();
        let beyond = kept().map(|(_, size)| *size).max().unwrap_or_default() * publishers.len();
        if total > limit + beyond {
            self.wrong(format!("{total} bytes are kept, of {limit} and {beyond}"));
        }
    }

    pub(crate) fn receive(&mut self, delivery: &Incoming) -> Id {
        let text = delivery.body_str().unwrap_or_default();
        let mut parts = text.splitn(3, ':').map(|part| part.parse().ok());
        let mut number = || parts.next().flatten();
        let (Some(publisher), Some(at)) = (number(), number()) else {
            self.wrong(format!("a message arrived that nobody has sent: {delivery:?}"));
            return (0, 0);
        };
        let id = (publisher, at);
        match self.sent.get(&id) {
            None => self.wrong(format!("{id:?} arrived, and was never sent")),
            Some((_, Fate::NotSent)) => self.wrong(format!("{id:?} arrived, and was told as not sent")),
            Some((size, _)) if *size != text.len() => {
                self.wrong(format!("{id:?} has {} bytes, not {size}", text.len()));
            }
            Some(_) => {}
        }
        let times = self.got.entry(id).or_default();
        *times += 1;
        let first = *times == 1;
        // a broker that is slow to notice a loss reads the rest of the lost link behind what comes on the next one
        let link = self.unconfirmed.get(&id).copied();
        let highest = self.highest.entry((id.0, link)).or_default();
        let late = first && *highest > id.1;
        *highest = id.1.max(*highest);
        let latest = *highest;
        if self.unconfirmed.contains_key(&id) && delivery.is_republished() {
            self.wrong(format!("{id:?} was published again, without confirms"));
        }
        if !delivery.redelivered() && !delivery.is_republished() {
            if !self.originals.insert(id) {
                self.wrong(format!("{id:?} arrived twice, without a mark"));
            } else if late && !self.limited.contains(&id) {
                self.wrong(format!("{id:?} arrived for the first time after {latest}, without a mark"));
            }
        } else if late && !delivery.redelivered() && !self.limited.contains(&id) && !self.nacks {
            // an earlier copy may have been lost with the consumer that it was delivered to, or its nack with the link
            if self.begun.get(&id) == Some(&self.consumer_begun()) {
                self.wrong(format!(
                    "{id:?} was published again, and arrived for the first time after {latest}"
                ));
            }
        }
        id
    }

    /// Confirmed messages that have not arrived, and those without confirms that were lost on a link that has carried a later
    /// one.
    pub(crate) fn missing(&self) -> Vec<Id> {
        let confirmed = self.sent.iter().filter(|(_, (_, fate))| *fate == Fate::Confirmed);
        let is_forgotten = |id: &Id| self.forgotten.get(&id.0).is_some_and(|last| id.1 <= *last);
        let missing = |id: &Id| !self.got.contains_key(id) && !is_forgotten(id);
        let confirmed = confirmed.map(|(id, _)| *id);
        let mut carried = BTreeMap::new();
        for (id, link) in self.unconfirmed.iter().filter(|(id, _)| self.got.contains_key(id)) {
            carried.insert((id.0, *link), id.1);
        }
        let is_overtaken = |id: &Id, link: u64| carried.get(&(id.0, link)).is_some_and(|last| id.1 < *last);
        let overtaken = self.unconfirmed.iter().filter(|(id, link)| is_overtaken(id, **link));
        confirmed.chain(overtaken.map(|(id, _)| *id)).filter(missing).collect()
    }

    /// How many messages were sent, confirmed, and received, and how many came more than once.
    pub(crate) fn counts(&self) -> [usize; 4] {
        let confirmed = self.sent.values().filter(|(_, fate)| *fate == Fate::Confirmed).count();
        let twice = self.got.values().filter(|times| **times > 1).count();
        [self.sent.len(), confirmed, self.got.len(), twice]
    }
}
