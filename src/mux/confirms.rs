//! Publisher confirms of one channel: a ring of what was published and not settled yet.
//!
//! ```text
//!   base                                   next
//!    | Pending | Settled | Waiting | Pending |      numbers base, base + 1, ... are in the ring;
//! ```
//!
//! A number below `base` is settled. That a message was acked needs no memory beyond that; what was
//! nacked or returned is remembered until its `Confirm` has been told, or has been dropped.

use std::collections::{BTreeMap, VecDeque};

use super::returns::{Fingerprint, Returned};

/// What became of a publish.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The server took responsibility for it.
    Acked,
    /// The server refused it.
    Nacked,
    /// It was mandatory and reached no queue.
    Returned(Box<Returned>),
}

/// A message in the ring. `C` is who waits for it: a waker in the driver, a number in tests.
#[derive(Debug)]
enum Slot<C> {
    /// Its `Confirm` exists, nobody has polled it.
    Pending,
    /// Its `Confirm` has been polled.
    Waiting(C),
    /// Its `Confirm` was dropped.
    Abandoned,
    /// Settled out of order, while an older one is not.
    Settled,
}

/// Confirms of one channel.
#[derive(Debug)]
pub(crate) struct Confirms<C> {
    base: u64,
    ring: VecDeque<Slot<C>>,
    /// Nacked or returned, and not told yet.
    failures: BTreeMap<u64, Outcome>,
    /// Mandatory and not settled, oldest first.
    mandatory: VecDeque<(u64, Fingerprint)>,
    /// The first failure of an abandoned message since `drained` last told.
    abandoned: Option<Outcome>,
    /// Who waits until everything up to a number is settled.
    drains: Vec<(u64, C)>,
}

impl<C> Confirms<C> {
    /// Numbers start at 1 (with the first publish after `confirm.select`).
    pub(crate) const fn new() -> Self {
        Self {
            base: 1,
            ring: VecDeque::new(),
            failures: BTreeMap::new(),
            mandatory: VecDeque::new(),
            abandoned: None,
            drains: Vec::new(),
        }
    }

    /// The number that the next publish gets.
    pub(crate) fn next(&self) -> u64 {
        self.base + self.ring.len() as u64
    }

    /// The lowest number that is not settled.
    pub(crate) const fn base(&self) -> u64 {
        self.base
    }

    /// Whether a message is settled, whatever became of it.
    pub(crate) fn is_settled(&self, number: u64) -> bool {
        let at = number.checked_sub(self.base).and_then(|at| usize::try_from(at).ok());
        at.is_none_or(|at| matches!(self.ring.get(at), Some(Slot::Settled)))
    }

    /// The first failure of an abandoned message since this or `drained` last told.
    pub(crate) fn take_abandoned(&mut self) -> Option<Outcome> {
        self.abandoned.take()
    }

    /// Whether a message is not settled whose `Confirm` was dropped.
    pub(crate) fn has_abandoned(&self) -> bool {
        self.ring.iter().any(|slot| matches!(slot, Slot::Abandoned))
    }

    /// What was nacked or returned, and not told yet.
    pub(crate) fn take_failures(&mut self) -> BTreeMap<u64, Outcome> {
        std::mem::take(&mut self.failures)
    }

    /// How many messages are not settled, counting those settled out of order.
    pub(crate) fn in_flight(&self) -> usize {
        self.ring.len()
    }

    /// A number below which everything was acked, as far as it was not told yet.
    pub(crate) fn acked_below(&self) -> u64 {
        self.failures.keys().next().map_or(self.base, |first| self.base.min(*first))
    }

    /// Records a publish and returns its number.
    pub(crate) fn publish(&mut self, mandatory: Option<Fingerprint>) -> u64 {
        let number = self.next();
        self.ring.push_back(Slot::Pending);
        if let Some(fingerprint) = mandatory {
            self.mandatory.push_back((number, fingerprint));
        }
        number
    }

    /// Handles an ack or nack, and hands out who waited for it.
    ///
    /// Tolerant, as servers are not always exact: what is settled stays settled, a number that was never
    /// given out is ignored, and 0 with `multiple` means all.
    pub(crate) fn settle(&mut self, tag: u64, multiple: bool, acked: bool, woken: &mut Vec<C>) {
        let last = self.next() - 1;
        let tag = if tag == 0 && multiple { last } else { tag };
        if tag > last {
            return;
        }
        let first = if multiple { self.base } else { tag };
        for number in first..=tag {
            self.settle_one(number, acked, woken);
        }
        while let Some(Slot::Settled) = self.ring.front() {
            self.ring.pop_front();
            self.base += 1;
        }
        while self.mandatory.front().is_some_and(|(number, _)| *number < self.base) {
            self.mandatory.pop_front();
        }
        self.wake_drains(woken);
    }

    fn settle_one(&mut self, number: u64, acked: bool, woken: &mut Vec<C>) {
        let Some(slot) = slot(&mut self.ring, self.base, number) else { return };
        let was = std::mem::replace(slot, Slot::Settled);
        if !acked && !matches!(was, Slot::Settled) {
            self.failures.insert(number, Outcome::Nacked);
        }
        match was {
            Slot::Pending | Slot::Settled => {}
            Slot::Waiting(waiter) => woken.push(waiter),
            Slot::Abandoned => {
                if let Some(failure) = self.failures.remove(&number) {
                    self.abandoned.get_or_insert(failure);
                }
            }
        }
    }

    fn wake_drains(&mut self, woken: &mut Vec<C>) {
        if !self.drains.is_empty() {
            let base = self.base;
            woken.extend(self.drains.extract_if(.., |(until, _)| *until < base).map(|(_, waiter)| waiter));
        }
    }

    /// Finds the publish that a returned message belongs to: the oldest mandatory one that looks like
    /// it and has not been returned. `basic.return` carries no number, but it comes before the message's
    /// ack, and the server returns messages in the order in which they were published.
    ///
    /// Gives the message back if it belongs to none, or to one whose `Confirm` was dropped.
    pub(crate) fn returned(&mut self, returned: Box<Returned>) -> Option<Box<Returned>> {
        let fingerprint = returned.fingerprint();
        // one that was settled out of order was not returned before that, so it is not meant now
        let ring = &mut self.ring;
        let at = self.mandatory.iter().position(|(number, candidate)| {
            *candidate == fingerprint && !matches!(slot(ring, self.base, *number), None | Some(Slot::Settled))
        });
        let Some((number, _)) = at.and_then(|at| self.mandatory.remove(at)) else {
            return Some(returned);
        };
        match slot(&mut self.ring, self.base, number) {
            Some(Slot::Pending | Slot::Waiting(_)) => {
                self.failures.insert(number, Outcome::Returned(returned));
                None
            }
            Some(Slot::Abandoned) => {
                self.abandoned.get_or_insert(Outcome::Returned(returned.clone()));
                Some(returned)
            }
            Some(Slot::Settled) | None => Some(returned),
        }
    }

    /// What became of a publish; `None` while it is not settled. A failure is told once.
    pub(crate) fn outcome(&mut self, number: u64) -> Option<Outcome> {
        match slot(&mut self.ring, self.base, number) {
            Some(Slot::Settled) => {}
            None if number < self.base => {}
            Some(_) | None => return None,
        }
        if self.failures.is_empty() {
            return Some(Outcome::Acked);
        }
        Some(self.failures.remove(&number).unwrap_or(Outcome::Acked))
    }

    /// Remembers who waits for a publish that is not settled; only the last one counts.
    pub(crate) fn wait(&mut self, number: u64, waiter: C) {
        if let Some(slot @ (Slot::Pending | Slot::Waiting(_) | Slot::Abandoned)) =
            slot(&mut self.ring, self.base, number)
        {
            *slot = Slot::Waiting(waiter);
        }
    }

    /// Forgets who waits for a publish: its `Confirm` was dropped. Gives the message back if it has come
    /// back before.
    pub(crate) fn abandon(&mut self, number: u64) -> Option<Box<Returned>> {
        if let Some(slot @ (Slot::Pending | Slot::Waiting(_))) = slot(&mut self.ring, self.base, number) {
            *slot = Slot::Abandoned;
        }
        let failure = self.failures.remove(&number)?;
        let returned = match &failure {
            Outcome::Returned(returned) => Some(returned.clone()),
            Outcome::Acked | Outcome::Nacked => None,
        };
        self.abandoned.get_or_insert(failure);
        returned
    }

    /// Whether everything up to `number` is settled; if so, the first failure that no `Confirm` told.
    pub(crate) fn drained(&mut self, number: u64) -> Option<Outcome> {
        (number < self.base).then(|| self.abandoned.take().unwrap_or(Outcome::Acked))
    }

    /// Remembers who waits until everything up to `number` is settled, instead of whoever is the `same`.
    pub(crate) fn wait_drained(&mut self, number: u64, waiter: C, same: impl Fn(&C) -> bool) {
        match self.drains.iter_mut().find(|(until, other)| *until == number && same(other)) {
            Some((_, other)) => *other = waiter,
            None => self.drains.push((number, waiter)),
        }
    }

    /// Everybody who waits, for when the channel has ended.
    pub(crate) fn take_waiters(&mut self, woken: &mut Vec<C>) {
        for slot in self.ring.iter_mut().filter(|slot| matches!(slot, Slot::Waiting(_))) {
            if let Slot::Waiting(waiter) = std::mem::replace(slot, Slot::Pending) {
                woken.push(waiter);
            }
        }
        woken.extend(self.drains.drain(..).map(|(_, waiter)| waiter));
    }
}

/// The place of a number in the ring, if it is there.
fn slot<C>(ring: &mut VecDeque<Slot<C>>, base: u64, number: u64) -> Option<&mut Slot<C>> {
    ring.get_mut(usize::try_from(number.checked_sub(base)?).ok()?)
}
