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

use super::incoming_return::{Fingerprint, Returned};

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
    /// Failures of abandoned messages.
    unheard: Unheard,
    /// Wakers of tasks that wait until everything up to a number is settled, by that number and a ticket.
    drains: BTreeMap<(u64, u64), C>,
    /// The wakers of tasks that wait for the next settled publish, by ticket.
    any: BTreeMap<u64, C>,
    next_ticket: u64,
}

/// Failures that no `Confirm` reports, for tasks that wait for all confirms: each task hears of each failure once.
#[derive(Debug, Default)]
struct Unheard {
    /// The last ones.
    failures: VecDeque<Outcome>,
    /// How many there were in all.
    count: u64,
}

impl Unheard {
    /// Of more failures than this at once only the newest are told.
    const KEPT: usize = 64;

    fn push(&mut self, failure: Outcome) {
        if self.failures.len() == Self::KEPT {
            self.failures.pop_front();
        }
        self.failures.push_back(failure);
        self.count += 1;
    }

    /// The first failure after the first `heard` ones, as far as they are kept.
    fn after(&self, heard: u64) -> Option<&Outcome> {
        let new = usize::try_from(self.count.saturating_sub(heard)).unwrap_or(usize::MAX);
        self.failures.get(self.failures.len().saturating_sub(new)).filter(|_| new > 0)
    }
}

impl<C> Confirms<C> {
    /// Numbers start at 1 (with the first publish after `confirm.select`).
    pub(crate) const fn new() -> Self {
        Self {
            base: 1,
            ring: VecDeque::new(),
            failures: BTreeMap::new(),
            mandatory: VecDeque::new(),
            unheard: Unheard { failures: VecDeque::new(), count: 0 },
            drains: BTreeMap::new(),
            any: BTreeMap::new(),
            next_ticket: 0,
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

    /// How many messages are not settled, and the first and the last of them; `None` if all are.
    pub(crate) fn unsettled(&self) -> Option<(usize, u64, u64)> {
        let open = |slot: &&Slot<C>| !matches!(slot, Slot::Settled);
        let count = self.ring.iter().filter(open).count();
        // the first in the ring is never settled
        let last = self.ring.iter().rposition(|slot| open(&slot))?;
        Some((count, self.base, self.base + last as u64))
    }

    /// Whether a message is settled, whatever became of it.
    pub(crate) fn is_settled(&self, number: u64) -> bool {
        let at = number.checked_sub(self.base).and_then(|at| usize::try_from(at).ok());
        at.is_none_or(|at| matches!(self.ring.get(at), Some(Slot::Settled)))
    }

    /// The first failure of an abandoned message that is kept. All of them are forgotten.
    pub(crate) fn take_abandoned(&mut self) -> Option<Outcome> {
        std::mem::take(&mut self.unheard.failures).pop_front()
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
        if !self.any.is_empty() {
            woken.extend(std::mem::take(&mut self.any).into_values());
        }
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
                    self.unheard.push(failure);
                }
            }
        }
    }

    fn wake_drains(&mut self, woken: &mut Vec<C>) {
        // mostly nobody waits for all of them
        if self.drains.is_empty() {
            return;
        }
        while let Some(first) = self.drains.first_entry()
            && first.key().0 < self.base
        {
            woken.push(first.remove());
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
                self.unheard.push(Outcome::Returned(returned.clone()));
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
        self.unheard.push(failure);
        returned
    }

    /// Whether everything up to `number` is settled; if so, the first failure that no `Confirm` told, and how many there
    /// were by now. The caller has `heard` of so many before.
    pub(crate) fn drained(&self, number: u64, heard: u64) -> Option<(Outcome, u64)> {
        let failure = || self.unheard.after(heard).cloned().unwrap_or(Outcome::Acked);
        (number < self.base).then(|| (failure(), self.unheard.count))
    }

    /// Remembers who waits until everything up to `number` is settled, under the ticket that this returns: the one that
    /// was given, in place of its waiter, or a new one.
    pub(crate) fn wait_drained(&mut self, number: u64, ticket: Option<u64>, waiter: C) -> u64 {
        let ticket = ticket.unwrap_or_else(|| {
            self.next_ticket += 1;
            self.next_ticket
        });
        self.drains.insert((number, ticket), waiter);
        ticket
    }

    /// Registers a waker for the next settled publish. Returns its ticket, for [`forget_any`](Self::forget_any).
    pub(crate) fn wait_any(&mut self, waiter: C) -> u64 {
        self.next_ticket += 1;
        self.any.insert(self.next_ticket, waiter);
        self.next_ticket
    }

    /// Nobody waits with this ticket any more.
    pub(crate) fn forget_any(&mut self, ticket: u64) {
        self.any.remove(&ticket);
    }

    /// Nobody waits with this ticket any more.
    pub(crate) fn forget_drained(&mut self, number: u64, ticket: u64) {
        self.drains.remove(&(number, ticket));
    }

    /// Everybody who waits, for when the channel has ended.
    pub(crate) fn take_waiters(&mut self, woken: &mut Vec<C>) {
        for slot in self.ring.iter_mut().filter(|slot| matches!(slot, Slot::Waiting(_))) {
            if let Slot::Waiting(waiter) = std::mem::replace(slot, Slot::Pending) {
                woken.push(waiter);
            }
        }
        woken.extend(std::mem::take(&mut self.drains).into_values());
        woken.extend(std::mem::take(&mut self.any).into_values());
    }
}

/// The place of a number in the ring, if it is there.
fn slot<C>(ring: &mut VecDeque<Slot<C>>, base: u64, number: u64) -> Option<&mut Slot<C>> {
    ring.get_mut(usize::try_from(number.checked_sub(base)?).ok()?)
}
