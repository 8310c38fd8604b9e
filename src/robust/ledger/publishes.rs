//! What was handed over on one channel and is not confirmed, to be published again.
//!
//! Settled messages are not removed with each confirm, but whenever there are a few more than at the last look: so a
//! publish costs one push here, and a confirm mostly nothing. What became of a message is asked of the [`Wire`], the
//! channel of the moment; what an ended one leaves unreported moves here.
//!
//! # Suspects
//! When the server closes the channel or the connection and does not say which message it refuses ([`Blame::Somebody`]),
//! all messages under way are suspects. After the next restore they are published one at a time, each awaiting its
//! confirm. The one that is on trial when that happens again fails with the server's error. So one bad message is
//! published three times at most, and no other fails because of it.
//!
//! ```text
//!             handed over          all under way: suspects           next: on trial
//!  free ---------------------> under way ----- close -----> waiting ----------------> on trial
//!                                  |                           ^                     |       |
//!                               confirm                        |  lost otherwise  confirm  close
//!                                  v                           +---------------------|       v
//!                               settled <--------------------------------------------+     failed
//! ```

use std::collections::{BTreeMap, HashMap};
use std::task::{Poll, Waker};
use std::time::Instant;

use super::blame::{Accused, Blame, Trait};
pub(in crate::robust) use super::kept::Measure;
use super::kept::{Interest, Kept};
use super::numbers::Numbers;
use super::routes::{Route, Routes};
use crate::codec::{DecodeError, ShortStr};
use crate::error::{Error, ErrorKind, Result};
use crate::single::{Message, Outbound};

/// How much more there may be before there is another look for what is settled.
const MORE: usize = 256;
const MORE_BYTES: usize = 256 << 10;

/// The channel of the moment, which gives messages numbers and learns what becomes of them.
pub(in crate::robust) trait Wire {
    /// A message that came back when nobody waited for it any more.
    type Stray;

    /// All publishes with a lower number are settled. Stays where it was after the end.
    fn settled_below(&self) -> u64;

    /// Whether a publish is settled, whatever became of it.
    fn is_settled(&self, number: u64) -> bool;

    /// All publishes with a lower number were acked, or their failure was told.
    fn acked_below(&self) -> u64;

    /// What was nacked or returned, and not told yet: from now on nobody else tells it.
    fn take_failures(&self) -> Vec<(u64, Error)>;

    /// What became of a publish; `None` if the channel ends or has ended first. Wakes nobody.
    fn ask(&self, number: u64, waker: &Waker) -> Option<Poll<Result<()>>>;

    /// Nobody will ask for this publish.
    fn abandon(&self, number: u64) -> Option<Self::Stray>;
}

/// The unconfirmed messages of one channel.
#[derive(Debug)]
pub(in crate::robust) struct Publishes<W: Wire> {
    kept: Kept,
    routes: Routes,
    /// The channel that has taken them, or takes them again.
    numbers: Option<Numbers<W>>,
    /// The sequence of the last message.
    last: u64,
    /// How many bytes are set aside for them; in portions, since the count is shared with other channels.
    reserved: usize,
    /// When to look again for what is settled.
    look_at: (usize, usize),
    /// What failed on channels that have ended, or was given up, and has not been told yet.
    failures: BTreeMap<u64, Error>,
    /// The wakers of tasks that wait for messages which are not on a channel at the moment.
    waiting: HashMap<u64, Waker>,
    /// Until when messages may be published again, where somebody has said so.
    deadlines: BTreeMap<u64, Instant>,
    /// Messages up to this one are suspects; see the module's documentation.
    suspects: u64,
    on_trial: Option<u64>,
}

/// A message to be published again.
#[derive(Debug)]
pub(in crate::robust) struct Again {
    pub sequence: u64,
    pub route: Route,
    pub message: Message,
    /// Its confirm is awaited before the next message is published.
    pub on_trial: bool,
}

impl<W: Wire> Default for Publishes<W> {
    fn default() -> Self {
        Self {
            kept: Kept::default(),
            routes: Routes::default(),
            numbers: None,
            last: 0,
            reserved: 0,
            look_at: (0, 0),
            failures: BTreeMap::new(),
            waiting: HashMap::new(),
            deadlines: BTreeMap::new(),
            suspects: 0,
            on_trial: None,
        }
    }
}

impl<W: Wire> Publishes<W> {
    /// How many messages there are.
    pub(in crate::robust) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(in crate::robust) fn is_empty(&self) -> bool {
        self.kept.len() == 0
    }

    /// How many bytes the messages count.
    pub(in crate::robust) fn bytes(&self) -> usize {
        self.kept.bytes()
    }

    /// The sequence of the last message.
    pub(in crate::robust) fn last(&self) -> u64 {
        self.last
    }

    /// The newest message up to this one.
    pub(in crate::robust) fn newest_up_to(&self, sequence: u64) -> Option<u64> {
        self.kept.up_to(sequence).map(|entry| entry.sequence)
    }

    /// The number of a message on the channel of the moment.
    pub(in crate::robust) fn number(&self, sequence: u64) -> Option<u64> {
        self.numbers.as_ref()?.number(sequence)
    }

    // Memory.

    /// What a message will count. To be called right before [`push`](Self::push).
    #[inline]
    pub(in crate::robust) fn measure(&mut self, outbound: &Outbound<'_>, message: &Message) -> Measure {
        self.kept.measure(outbound.routing_key.as_bytes().len(), message)
    }

    /// The encoded properties of the message that was [measured](Self::measure) last, so that they are encoded once; `None` if
    /// it is persistent and nothing else.
    #[inline]
    pub(in crate::robust) fn encoded(&self) -> Option<&[u8]> {
        self.kept.encoded()
    }

    /// How many bytes must be set aside before a message of this weight is pushed.
    pub(in crate::robust) fn missing(&self, weight: usize) -> usize {
        (self.kept.bytes() + weight).saturating_sub(self.reserved)
    }

    /// How many bytes are set aside.
    pub(in crate::robust) fn reserved(&self) -> usize {
        self.reserved
    }

    /// Bytes were set aside.
    pub(in crate::robust) fn reserve(&mut self, bytes: usize) {
        self.reserved += bytes;
    }

    /// How many bytes are set aside and not needed; they are not set aside any more.
    pub(in crate::robust) fn take_spare(&mut self) -> usize {
        let spare = self.reserved.saturating_sub(self.kept.bytes());
        self.reserved -= spare;
        spare
    }

    // While the channel lives.

    /// What follows goes to this channel, or is published again on it.
    pub(in crate::robust) fn follow(&mut self, wire: W) {
        self.numbers = Some(Numbers::new(wire));
    }

    /// Everything was published again.
    pub(in crate::robust) fn followed(&mut self) {
        if let Some(numbers) = &mut self.numbers {
            numbers.complete(self.last + 1);
        }
        self.suspects = 0;
        self.on_trial = None;
    }

    /// Whether it is time to look for what is settled.
    #[inline]
    pub(in crate::robust) fn is_due(&self) -> bool {
        self.kept.len() >= self.look_at.0 || self.kept.bytes() >= self.look_at.1
    }

    /// Keeps a message that was handed over, and [measured](Self::measure) last; returns its sequence.
    #[inline]
    pub(in crate::robust) fn push(
        &mut self,
        outbound: &Outbound<'_>,
        message: &Message,
        measure: Measure,
    ) -> u64 {
        self.last += 1;
        self.routes.push(self.last, outbound);
        self.kept.push(self.last, message, measure);
        self.last
    }

    /// Removes what is settled from the front; not while messages are published again, as that goes by their places.
    pub(in crate::robust) fn prune(&mut self) {
        if let Some(numbers) = self.numbers.as_ref().filter(|numbers| numbers.is_complete()) {
            let below = numbers.sequence(numbers.wire.settled_below());
            self.kept.forget_before(below);
            let first = self.kept.first().map_or(self.last + 1, |entry| entry.sequence);
            if !self.deadlines.is_empty() {
                self.deadlines = self.deadlines.split_off(&first);
            }
            self.routes.forget_before(first.min(self.last));
        }
        self.look_at = (self.kept.len() + MORE, self.kept.bytes() + MORE_BYTES);
    }

    /// Removes what is settled wherever it is, also behind a message that is not. Costs a look at each message.
    pub(in crate::robust) fn prune_all(&mut self) {
        if let Some(numbers) = self.numbers.as_ref().filter(|numbers| numbers.is_complete()) {
            self.kept.retain(|entry| {
                numbers.number(entry.sequence).is_some_and(|number| !numbers.wire.is_settled(number))
            });
        }
        self.prune();
    }

    /// Everything before this was acked, or its failure was told.
    pub(in crate::robust) fn acked_below(&mut self) -> u64 {
        let acked = self.numbers.as_mut().map_or(0, Numbers::acked_below);
        self.failures.keys().next().map_or(acked, |first| acked.min(*first))
    }

    /// Asks what became of a message.
    pub(in crate::robust) fn ask(&mut self, sequence: u64, waker: &Waker) -> Poll<Result<()>> {
        if let Some(failure) = self.failures.remove(&sequence) {
            return Poll::Ready(Err(failure));
        }
        match &self.numbers {
            Some(numbers) if numbers.is_complete() || numbers.number(sequence).is_some() => {
                // without a number: acked before that was forgotten
                let Some(number) = numbers.number(sequence) else { return Poll::Ready(Ok(())) };
                if let Some(told) = numbers.wire.ask(number, waker) {
                    return told;
                }
                // it has ended: what it has settled is about to be known here
            }
            // neither failed nor to be published again
            _ if self.kept.get_mut(sequence).is_none() => return Poll::Ready(Ok(())),
            _ => {}
        }
        self.waiting.insert(sequence, waker.clone());
        Poll::Pending
    }

    /// Nobody will ask for this message any more. What is returned is to be told without the lock.
    pub(in crate::robust) fn abandon(&mut self, sequence: u64) -> Abandoned<W> {
        let failure = self.failures.remove(&sequence);
        let waker = self.waiting.remove(&sequence);
        if let Some(entry) = self.kept.get_mut(sequence)
            && entry.interest == Interest::Kept
        {
            entry.interest = Interest::Abandoned;
        }
        let number = self.numbers.as_ref().and_then(|numbers| Some((numbers, numbers.number(sequence)?)));
        let stray = number.and_then(|(numbers, number)| numbers.wire.abandon(number));
        Abandoned { failure, stray, _waker: waker }
    }

    /// After this moment the message is not published again.
    pub(in crate::robust) fn expire_at(&mut self, sequence: u64, moment: Instant) {
        self.deadlines.insert(sequence, moment);
    }

    /// The message is not published again, and nobody will ask for it.
    pub(in crate::robust) fn withdraw(&mut self, sequence: u64) {
        self.deadlines.remove(&sequence);
        if self.numbers.is_none() {
            self.kept.remove(sequence);
        } else if let Some(entry) = self.kept.get_mut(sequence) {
            entry.interest = Interest::Withdrawn;
        }
    }

    // When it has ended.

    /// The channel has ended: what it has settled goes, the rest waits to be published again, but for what the error is
    /// about, which fails.
    pub(in crate::robust) fn lost(&mut self, error: &Error) -> GivenUp<W> {
        let mut given_up = GivenUp::default();
        let Some(numbers) = self.numbers.take() else { return given_up };
        let below = numbers.sequence(numbers.wire.settled_below());
        for (number, error) in numbers.wire.take_failures() {
            self.failures.insert(numbers.sequence(number), error);
        }
        let failures = &self.failures;
        self.kept.retain(|entry| {
            let sequence = entry.sequence;
            let is_settled = sequence < below
                // came back, and its ack was lost
                || failures.contains_key(&sequence)
                || numbers.number(sequence).is_some_and(|number| numbers.wire.is_settled(number));
            !is_settled
        });
        self.blame(error, &numbers, &mut given_up);
        let kept = &mut self.kept;
        let told = self.waiting.extract_if(|sequence, _| kept.get_mut(*sequence).is_none());
        given_up.wakers.extend(told.map(|(_, waker)| waker));
        given_up
    }

    /// Gives up the messages that the server refuses, or suspects all that were under way.
    fn blame(&mut self, error: &Error, numbers: &Numbers<W>, given_up: &mut GivenUp<W>) {
        let on_trial = self.on_trial.take();
        let blame = Blame::of(error);
        if blame == Blame::Nobody {
            return;
        }
        if let Blame::Named(named) = &blame {
            let meant = self.meant(named);
            if !meant.is_empty() {
                for sequence in meant {
                    self.fail(sequence, error, given_up);
                }
                return;
            }
        }
        match on_trial {
            Some(sequence) if self.kept.get_mut(sequence).is_some() => self.fail(sequence, error, given_up),
            // the others that were published again have passed their trial
            Some(_) => {}
            None => {
                let under_way = |sequence: &u64| numbers.number(*sequence).is_some();
                let last = self.kept.iter().rev().map(|entry| entry.sequence).find(under_way);
                self.suspects = self.suspects.max(last.unwrap_or(0));
            }
        }
    }

    /// The messages that have this trait.
    fn meant(&mut self, named: &Trait) -> Vec<u64> {
        let Self { kept, routes, .. } = self;
        let fits = |entry: &&super::kept::Entry| {
            let Some(route) = routes.get(entry.sequence) else { return false };
            named.fits(&Accused {
                exchange: route.exchange.as_bytes(),
                routing_key: &route.routing_key,
                body_length: entry.body_length(),
                properties: &|| kept.properties(entry).ok().flatten(),
            })
        };
        kept.iter().filter(fits).map(|entry| entry.sequence).collect()
    }

    /// The channel ends for good: nothing will be published again. Returns what is given up, and who waits.
    pub(in crate::robust) fn end(&mut self, error: &Error) -> GivenUp<W> {
        let mut given_up = self.lost(error);
        let left: Vec<_> = self.kept.iter().map(|entry| entry.sequence).collect();
        for sequence in left {
            self.fail(sequence, error, &mut given_up);
        }
        given_up
    }

    fn fail(&mut self, sequence: u64, error: &Error, given_up: &mut GivenUp<W>) {
        let Some(entry) = self.kept.remove(sequence) else { return };
        self.deadlines.remove(&sequence);
        match entry.interest {
            Interest::Withdrawn => {}
            Interest::Abandoned => {
                given_up.any = true;
                given_up.unheard.get_or_insert_with(|| error.clone());
            }
            Interest::Kept => {
                given_up.any = true;
                self.failures.insert(sequence, error.clone());
                given_up.wakers.extend(self.waiting.remove(&sequence));
            }
        }
    }

    // Publishing again.

    /// The message to be published next, behind this one. Messages whose deadline has passed by `now` fail instead. Queues
    /// may have other names by now.
    pub(in crate::robust) fn next(
        &mut self,
        after: u64,
        now: Instant,
        rename: impl Fn(&ShortStr) -> Option<ShortStr>,
        given_up: &mut GivenUp<W>,
    ) -> Option<Again> {
        loop {
            let entry = self.kept.at_or_after(after + 1)?;
            let (sequence, interest) = (entry.sequence, entry.interest);
            let expired = self.deadlines.get(&sequence).is_some_and(|deadline| *deadline <= now);
            if expired || interest == Interest::Withdrawn {
                self.fail(sequence, &expired_error(), given_up);
                continue;
            }
            let mut message = match self.kept.message(entry) {
                Ok(message) => message,
                Err(error) => {
                    self.fail(sequence, &unreadable(error), given_up);
                    continue;
                }
            };
            let route = self.routes.get_mut(sequence)?;
            route.rename(&rename);
            if let Some(name) = message.properties().reply_to.as_ref().and_then(&rename) {
                message.properties_mut().reply_to = Some(name);
            }
            let on_trial = sequence <= self.suspects;
            return Some(Again { sequence, route: route.clone(), message, on_trial });
        }
    }

    /// The message has been handed over again, with this number. Returns what came back if nobody asks for it.
    pub(in crate::robust) fn handed_over(&mut self, again: &Again, number: u64, given_up: &mut GivenUp<W>) {
        let Some(numbers) = &mut self.numbers else { return };
        numbers.add(again.sequence, number);
        self.on_trial = again.on_trial.then_some(again.sequence);
        if self.kept.get_mut(again.sequence).is_some_and(|entry| entry.interest != Interest::Kept) {
            given_up.strays.extend(numbers.wire.abandon(number));
        }
    }

    /// The message cannot be handed over on this link, as when that takes smaller ones than the last.
    pub(in crate::robust) fn unfit(&mut self, sequence: u64, error: &Error, given_up: &mut GivenUp<W>) {
        self.fail(sequence, error, given_up);
    }

    /// The message on trial is settled, or there was no answer for so long that it is taken for innocent.
    pub(in crate::robust) fn acquitted(&mut self) {
        self.on_trial = None;
    }

    /// Who waits for messages that were published again by now.
    pub(in crate::robust) fn take_wakers(&mut self) -> Vec<Waker> {
        self.waiting.drain().map(|(_, waker)| waker).collect()
    }
}

/// Messages that were given up.
#[derive(Debug)]
pub(in crate::robust) struct GivenUp<W: Wire> {
    pub wakers: Vec<Waker>,
    /// There are some.
    pub any: bool,
    /// The failure of one that nobody will ask for.
    pub unheard: Option<Error>,
    /// What came back of messages that nobody asks for.
    pub strays: Vec<W::Stray>,
}

impl<W: Wire> Default for GivenUp<W> {
    fn default() -> Self {
        Self { wakers: Vec::new(), any: false, unheard: None, strays: Vec::new() }
    }
}

/// What nobody asks for any more. Dropped without the lock.
#[derive(Debug)]
pub(in crate::robust) struct Abandoned<W: Wire> {
    /// What nobody was told.
    pub failure: Option<Error>,
    pub stray: Option<W::Stray>,
    _waker: Option<Waker>,
}

/// What was encoded cannot be read back.
fn unreadable(error: DecodeError) -> Error {
    let text = "the link was lost before the server confirmed the message, and its headers are nested too deep for it to \
                be published again; it may have arrived";
    Error::new(ErrorKind::Unconfirmed, text).with_source(error)
}

/// The deadline of a message that was handed over has passed.
fn expired_error() -> Error {
    let text = "the link was lost before the server confirmed the message, and its deadline has passed: it may have \
                arrived, and is not published again";
    Error::new(ErrorKind::Unconfirmed, text)
}

#[cfg(any(fuzzing, test))]
pub(crate) mod model;
#[cfg(test)]
mod tests;
