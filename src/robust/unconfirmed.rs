//! What was handed over and is not confirmed, to be published again.
//!
//! One ring for each channel, in the order of publishing, behind the channel's lock. What is settled is not removed
//! with each confirm, but whenever the ring has grown a little since the last look: so a publish costs one push here,
//! and a confirm mostly nothing. What became of a message is asked of the plain channel; what an ended one leaves
//! untold moves here.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::task::{Poll, Waker};

use tokio::time::Instant;

use super::numbers::Numbers;
use super::routes::{Route, Routes};
use crate::codec::ShortStr;
use crate::error::{Error, ErrorKind, Result, Scope};
use crate::single::{Message, Outbound, Sent, SingleChannel, Stray};

/// What a message counts beyond its own parts: its place in the ring, and about what a route takes.
const OVERHEAD: usize = 2 * size_of::<Entry>();
/// How much more there may be before there is another look for what is settled.
const MORE: usize = 256;
const MORE_BYTES: usize = 256 << 10;

#[derive(Debug, Default)]
pub(super) struct Unconfirmed {
    /// By ascending `sequence`.
    entries: VecDeque<Entry>,
    routes: Routes,
    /// The plain channel that has taken them, or takes them again.
    numbers: Option<Numbers>,
    /// The number of the last message on this channel.
    last: u64,
    bytes: usize,
    /// How many bytes are set aside for them; in portions, since the count is shared with other channels.
    reserved: usize,
    /// When to look again for what is settled.
    look_at: (usize, usize),
    /// What failed on plain channels that have ended, or was given up, and has not been told yet.
    failures: BTreeMap<u64, Error>,
    /// Who waits for messages that are not on a plain channel.
    waiting: HashMap<u64, Waker>,
    /// Until when messages may be published again, where somebody has said so.
    deadlines: BTreeMap<u64, Instant>,
}

#[derive(Debug)]
struct Entry {
    /// Its number on the robust channel.
    sequence: u64,
    message: Message,
    /// How many bytes it counts.
    weight: usize,
    interest: Interest,
}

/// Whether somebody may ask what became of a message. As wide as the other fields: an entry is copied word by word, and a
/// word that was just written as a byte is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Interest {
    Kept,
    Abandoned,
    /// Its deadline has passed: it is not published again, either.
    Withdrawn,
}

/// How far publishing again has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    /// The plain channel takes no more at the moment.
    Wait,
}

impl Unconfirmed {
    /// How many messages there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The number of the last message.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The plain number of the oldest message.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.numbers.as_ref()?.number(self.entries.front()?.sequence)
    }

    /// The newest message up to this one.
    pub(super) fn newest_up_to(&self, sequence: u64) -> Option<u64> {
        let after = self.entries.partition_point(|entry| entry.sequence <= sequence);
        self.entries.get(after.checked_sub(1)?).map(|entry| entry.sequence)
    }

    /// The number of a message on the plain channel.
    pub(super) fn number(&self, sequence: u64) -> Option<u64> {
        self.numbers.as_ref()?.number(sequence)
    }

    // Memory.

    /// How many bytes a message counts.
    pub(super) fn weight(outbound: &Outbound<'_>, message: &Message) -> usize {
        OVERHEAD + outbound.routing_key.as_bytes().len() + message.weight()
    }

    /// How many bytes must be set aside before a message of this weight is pushed.
    pub(super) fn missing(&self, weight: usize) -> usize {
        (self.bytes + weight).saturating_sub(self.reserved)
    }

    /// How many bytes are set aside.
    pub(super) fn reserved(&self) -> usize {
        self.reserved
    }

    /// Bytes were set aside.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.reserved += bytes;
    }

    /// How many bytes are set aside and not needed; they are not set aside any more.
    pub(super) fn take_spare(&mut self) -> usize {
        let spare = self.reserved.saturating_sub(self.bytes);
        self.reserved -= spare;
        spare
    }

    // While the plain channel lives.

    /// What follows goes to this plain channel, or is published again on it.
    pub(super) fn follow(&mut self, plain: &SingleChannel) {
        self.numbers = Some(Numbers::new(plain.clone()));
    }

    /// Everything was published again.
    pub(super) fn followed(&mut self) {
        if let Some(numbers) = &mut self.numbers {
            numbers.complete(self.last + 1);
        }
    }

    /// Whether it is time to look for what is settled.
    pub(super) fn is_due(&self) -> bool {
        self.entries.len() >= self.look_at.0 || self.bytes >= self.look_at.1
    }

    /// Keeps a message that was handed over, and takes it; returns its number here.
    pub(super) fn push(&mut self, outbound: &Outbound<'_>, message: &mut Message, weight: usize) -> u64 {
        self.last += 1;
        self.bytes += weight;
        self.routes.push(self.last, outbound);
        self.entries.push_back(Entry {
            sequence: self.last,
            message: std::mem::take(message),
            weight,
            interest: Interest::Kept,
        });
        self.last
    }

    /// Removes what is settled from the front; not while messages are published again, as that goes by their places.
    pub(super) fn prune(&mut self) {
        if let Some(numbers) = self.numbers.as_ref().filter(|numbers| numbers.is_complete()) {
            let below = numbers.sequence(numbers.plain.settled_below());
            let settled = self.entries.partition_point(|entry| entry.sequence < below);
            for entry in self.entries.drain(..settled) {
                self.bytes -= entry.weight;
            }
            if !self.deadlines.is_empty() {
                let first = self.entries.front().map_or(self.last + 1, |entry| entry.sequence);
                self.deadlines = self.deadlines.split_off(&first);
            }
            self.routes.forget_before(self.entries.front().map_or(self.last, |entry| entry.sequence));
        }
        self.look_at = (self.entries.len() + MORE, self.bytes + MORE_BYTES);
    }

    /// Everything before this was acked, or its failure was told.
    pub(super) fn acked_below(&mut self) -> u64 {
        let acked = self.numbers.as_mut().map_or(0, Numbers::acked_below);
        self.failures.keys().next().map_or(acked, |first| acked.min(*first))
    }

    /// Asks what became of a message.
    pub(super) fn ask(&mut self, sequence: u64, waker: &Waker) -> Poll<Result<()>> {
        if let Some(failure) = self.failures.remove(&sequence) {
            return Poll::Ready(Err(failure));
        }
        let entries = &mut self.entries;
        match &self.numbers {
            Some(numbers) if numbers.is_complete() || numbers.number(sequence).is_some() => {
                // without a number: acked before that was forgotten
                let Some(number) = numbers.number(sequence) else { return Poll::Ready(Ok(())) };
                if let Some(told) = numbers.plain.ask(number, waker) {
                    return told;
                }
                // it has ended: what it has settled is about to be known here
            }
            // neither failed nor to be published again
            _ if find(entries, sequence).is_none() => return Poll::Ready(Ok(())),
            _ => {}
        }
        self.waiting.insert(sequence, waker.clone());
        Poll::Pending
    }

    /// Nobody will ask for this message any more. What is returned is to be told without the lock.
    pub(super) fn abandon(&mut self, sequence: u64) -> Abandoned {
        let failure = self.failures.remove(&sequence);
        let waker = self.waiting.remove(&sequence);
        if let Some(entry) = find(&mut self.entries, sequence)
            && entry.interest == Interest::Kept
        {
            entry.interest = Interest::Abandoned;
        }
        let number = self.numbers.as_ref().and_then(|numbers| Some((numbers, numbers.number(sequence)?)));
        let stray = number.and_then(|(numbers, number)| numbers.plain.abandon(number));
        Abandoned { failure, stray, _waker: waker }
    }

    /// After this moment the message is not published again.
    pub(super) fn expire_at(&mut self, sequence: u64, moment: Instant) {
        self.deadlines.insert(sequence, moment);
    }

    /// The message is not published again, and nobody will ask for it.
    pub(super) fn withdraw(&mut self, sequence: u64) {
        self.deadlines.remove(&sequence);
        let is_lost = self.numbers.is_none();
        let Ok(at) = self.entries.binary_search_by_key(&sequence, |entry| entry.sequence) else { return };
        if is_lost {
            if let Some(entry) = self.entries.remove(at) {
                self.bytes -= entry.weight;
            }
        } else if let Some(entry) = self.entries.get_mut(at) {
            entry.interest = Interest::Withdrawn;
        }
    }

    // When it has ended.

    /// The plain channel has ended: what it has settled goes, the rest waits to be published again. Returns who waits
    /// for what was settled.
    pub(super) fn lost(&mut self) -> Vec<Waker> {
        let Some(numbers) = self.numbers.take() else { return Vec::new() };
        let below = numbers.sequence(numbers.plain.settled_below());
        for (number, error) in numbers.plain.take_failures() {
            self.failures.insert(numbers.sequence(number), error);
        }
        let failures = &self.failures;
        let is_settled = |sequence| {
            sequence < below
                // came back, and its ack was lost
                || failures.contains_key(&sequence)
                || numbers.number(sequence).is_some_and(|number| numbers.plain.is_settled(number))
        };
        let bytes = &mut self.bytes;
        self.entries.retain(|entry| {
            let settled = is_settled(entry.sequence);
            if settled {
                *bytes -= entry.weight;
            }
            !settled
        });
        let entries = &mut self.entries;
        oldest_first(self.waiting.extract_if(|sequence, _| find(entries, *sequence).is_none()))
    }

    /// Gives up the messages that a publish error of the server may be about: those to the exchange that it names, or
    /// all if it names none.
    pub(super) fn give_up(&mut self, error: &Error) -> GivenUp {
        let text = error.reply_text().unwrap_or_default();
        let mut given_up = GivenUp::default();
        let is_meant = |route: &mut Route| {
            // what permissions call the default exchange
            let name = route.exchange.to_string_lossy();
            let name = if name.is_empty() { "amq.default" } else { &name };
            text.contains(&format!("exchange '{name}'"))
        };
        let entries = std::mem::take(&mut self.entries);
        let meant: Vec<_> =
            entries.iter().map(|entry| self.routes.get_mut(entry.sequence).is_some_and(is_meant)).collect();
        // a text that names none of them, or is cut short: then it may be any
        let named = error.scope() != Scope::Channel && text.contains("exchange '");
        let any = !named && !meant.contains(&true);
        for (entry, meant) in entries.into_iter().zip(meant) {
            if meant || any {
                self.fail(&entry, error, &mut given_up);
            } else {
                self.entries.push_back(entry);
            }
        }
        given_up
    }

    /// The channel ends for good: nothing will be published again. Returns what is given up, and who waits.
    pub(super) fn end(&mut self, error: &Error) -> GivenUp {
        let wakers = self.lost();
        let mut given_up = GivenUp { wakers, ..GivenUp::default() };
        for entry in std::mem::take(&mut self.entries) {
            self.fail(&entry, error, &mut given_up);
        }
        given_up
    }

    fn fail(&mut self, entry: &Entry, error: &Error, given_up: &mut GivenUp) {
        self.bytes -= entry.weight;
        given_up.any = true;
        self.deadlines.remove(&entry.sequence);
        if entry.interest == Interest::Withdrawn {
            return;
        }
        if entry.interest == Interest::Abandoned {
            given_up.unheard.get_or_insert_with(|| error.clone());
        } else {
            self.failures.insert(entry.sequence, error.clone());
            given_up.wakers.extend(self.waiting.remove(&entry.sequence));
        }
    }

    /// Publishes again from the `done`-th message on, as long as the plain channel takes them.
    pub(super) fn publish_again(
        &mut self,
        done: &mut usize,
        given_up: &mut GivenUp,
        now: Instant,
        rename: impl Fn(&ShortStr) -> Option<ShortStr>,
    ) -> Result<Progress> {
        while let Some(entry) = self.entries.get(*done) {
            let expired = self.deadlines.get(&entry.sequence).is_some_and(|deadline| *deadline <= now);
            if expired || entry.interest == Interest::Withdrawn {
                if let Some(entry) = self.entries.remove(*done) {
                    self.fail(&entry, &expired_error(), given_up);
                }
                continue;
            }
            let (Some(numbers), Some(route)) = (&mut self.numbers, self.routes.get_mut(entry.sequence))
            else {
                break;
            };
            route.rename(&rename);
            let number = match publish(&numbers.plain, route, &entry.message, &rename) {
                Ok(Some(sent)) => sent.number.unwrap_or_default(),
                Ok(None) => return Ok(Progress::Wait),
                // this link takes smaller messages than the last one
                Err(error) if error.scope() == Scope::Call => {
                    if let Some(entry) = self.entries.remove(*done) {
                        self.fail(&entry, &error, given_up);
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            numbers.add(entry.sequence, number);
            if entry.interest == Interest::Abandoned {
                given_up.strays.extend(numbers.plain.abandon(number));
            }
            *done += 1;
        }
        Ok(Progress::Done)
    }

    /// Who waits for messages that were published again by now.
    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        oldest_first(self.waiting.drain())
    }
}

/// Who waits, in the order of what they wait for.
fn oldest_first(waiting: impl Iterator<Item = (u64, Waker)>) -> Vec<Waker> {
    let mut waiting: Vec<_> = waiting.collect();
    waiting.sort_unstable_by_key(|(sequence, _)| *sequence);
    waiting.into_iter().map(|(_, waker)| waker).collect()
}

/// Messages that were given up.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    pub wakers: Vec<Waker>,
    /// There are some.
    pub any: bool,
    /// The failure of one that nobody will ask for.
    pub unheard: Option<Error>,
    /// What came back of messages that nobody asks for.
    strays: Vec<Stray>,
}

impl GivenUp {
    /// Wakes who waits. Not under a lock.
    pub(super) fn tell(self) {
        self.wakers.into_iter().for_each(Waker::wake);
        self.strays.into_iter().for_each(Stray::tell);
    }
}

/// What nobody asks for any more. Dropped without the lock.
#[derive(Debug)]
pub(super) struct Abandoned {
    /// What nobody was told.
    pub failure: Option<Error>,
    pub stray: Option<Stray>,
    _waker: Option<Waker>,
}

/// Publishes again. A queue that replies are to go to may have another name by now.
fn publish(
    plain: &SingleChannel,
    route: &Route,
    message: &Message,
    rename: impl Fn(&ShortStr) -> Option<ShortStr>,
) -> Result<Option<Sent>> {
    let Route { exchange, routing_key, mandatory } = route;
    let routing_key = routing_key.as_ref().into();
    let outbound = Outbound { exchange, routing_key, mandatory: *mandatory, awaited: false };
    let mut message = message.clone();
    if let Some(name) = message.properties().reply_to.as_ref().and_then(rename) {
        message.properties_mut().reply_to = Some(name);
    }
    match plain.try_send(&outbound, &message.clone().republished()) {
        // with one more header its properties may be too large
        Err(error) if error.kind() == ErrorKind::Argument => plain.try_send(&outbound, &message),
        sent => sent,
    }
}

/// The deadline of a message that was handed over has passed.
fn expired_error() -> Error {
    let text = "the link was lost before the server confirmed the message, and its deadline has passed: it may have \
                arrived, and is not published again";
    Error::new(ErrorKind::Unconfirmed, text)
}

fn find(entries: &mut VecDeque<Entry>, sequence: u64) -> Option<&mut Entry> {
    let at = entries.binary_search_by_key(&sequence, |entry| entry.sequence).ok()?;
    entries.get_mut(at)
}
