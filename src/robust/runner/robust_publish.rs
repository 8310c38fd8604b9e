//! Publishing through a robust channel.
//!
//! The channel's lock is held while the plain channel appends the message to its outgoing buffer, so that the order of
//! what may have to be published again is that of the wire. It is released before anything is written to the socket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::current_channel::no_link;
use super::ledger_wire::Publishes;
use super::robust_channel::{ChannelInner, Core};
use super::robust_confirm::RobustConfirm;
use super::robust_state::{Shared, before};
use crate::codec::ShortStr;
use crate::error::{Error, ErrorKind, Result, Scope};
use crate::robust::ledger::lifecycle::{Lifecycle, Phase};
use crate::robust::robust_options::Outage;
use crate::single::{Message, Outbound, REPUBLISHED, RoutingKey, SingleChannel};

/// How much memory a channel sets aside at once: the count is shared by all channels.
const PORTION: usize = 64 << 10;

/// How many bytes [`Message::republished`] adds to the properties at most: the length of a table, the name of a header with
/// its length, the type and the value.
const MARK: usize = 4 + 1 + REPUBLISHED.len() + 1 + 1;

/// Why a message was not taken.
enum Refused {
    /// There is no link: why.
    Down(Error),
    /// The plain channel takes no more at the moment.
    Credit(SingleChannel),
    /// Too much is unconfirmed.
    Room(SingleChannel),
    /// It never will be.
    Failed(Error),
}

impl Refused {
    /// The plain channel refused a message: because the message is wrong, or because the channel has just ended.
    fn by(error: Error) -> Self {
        if error.scope() == Scope::Call { Self::Failed(error) } else { Self::Down(error) }
    }
}

/// What is not settled.
enum Unsettled {
    Nothing,
    /// Up to this number on the plain channel.
    Number(SingleChannel, u64),
    /// Only the plain channel knows.
    Elsewhere(SingleChannel),
    /// What will be published again.
    Lost,
}

impl ChannelInner {
    /// Hands a message over, or returns `None` where that has to wait.
    pub(super) fn try_publish(
        self: &Arc<Self>,
        outbound: &Outbound<'_>,
        message: &mut Message,
        waits: bool,
    ) -> Result<Option<RobustConfirm>> {
        match self.attempt(outbound, message) {
            Ok(confirm) => Ok(Some(confirm)),
            Err(Refused::Failed(error)) => Err(error),
            Err(Refused::Down(why)) if !waits && self.shared().settings.outage == Outage::Fail => {
                Err(no_link(why))
            }
            Err(Refused::Down(_) | Refused::Credit(_) | Refused::Room(_)) => Ok(None),
        }
    }

    /// Hands a message over as soon as that is possible. Cancel safe.
    pub(super) async fn publish(
        self: &Arc<Self>,
        outbound: &Outbound<'_>,
        message: &mut Message,
        waits: bool,
    ) -> Result<RobustConfirm> {
        let (mut patience, mut settled) = (None, None);
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            // both listen before the message is tried again, so that no wake is missed
            let plain = self.live_now().ok().map(|live| live.plain);
            let credit = plain.as_ref().map(SingleChannel::credit);
            let tried = match self.renamed(outbound, message) {
                Some(routing_key) => self.attempt(&Outbound { routing_key, ..*outbound }, message),
                None => self.attempt(outbound, message),
            };
            match tried {
                Ok(confirm) => return Ok(confirm),
                Err(Refused::Failed(error)) => return Err(error),
                Err(Refused::Down(why)) => {
                    let outage = if waits { Outage::Wait } else { self.shared().settings.outage };
                    let limit = if let Outage::WaitFor(limit) = outage { Some(limit) } else { None };
                    let deadline = match outage {
                        Outage::Wait => None,
                        Outage::Fail => return Err(no_link(why)),
                        Outage::WaitFor(limit) => {
                            // one that lies too far ahead is none
                            *patience.get_or_insert_with(|| Instant::now().checked_add(limit))
                        }
                    };
                    if before(deadline, changed).await.is_none() {
                        return Err(outage_too_long(outbound, limit, why));
                    }
                }
                Err(Refused::Credit(tried)) => {
                    // another one than was listened to: it is tried again
                    let same = plain.as_ref().is_some_and(|plain| plain.id() == tried.id());
                    if let Some(credit) = credit.filter(|_| same) {
                        tokio::select! {
                            biased;
                            () = credit => {}
                            () = changed => {}
                        }
                    }
                }
                Err(Refused::Room(tried)) => match settled.take() {
                    Some((on, settled)) if tried.is_same(&on) => tokio::select! {
                        biased;
                        () = changed => {}
                        // an error: it has ended, and the supervisor will tell
                        Ok(()) = settled => {}
                    },
                    // listens, and tries again, so that no confirm is missed
                    _ => {
                        let any = tried.any_settled();
                        settled = Some((tried, any));
                        // what others have had confirmed makes room, too
                        self.shared().prune();
                    }
                },
            }
        }
    }

    #[inline]
    fn attempt(
        self: &Arc<Self>,
        outbound: &Outbound<'_>,
        message: &mut Message,
    ) -> Result<RobustConfirm, Refused> {
        if self.retains { self.attempt_kept(outbound, message) } else { self.attempt_once(outbound, message) }
    }

    /// Hands over a message that nobody will publish again. Several tasks may do that at the same time.
    #[inline]
    fn attempt_once(&self, outbound: &Outbound<'_>, message: &Message) -> Result<RobustConfirm, Refused> {
        let core = self.read();
        let plain = up(&core.life)?;
        let (sent, due) = plain.append(outbound, message);
        let taken = match sent {
            Ok(Some(sent)) => Ok(RobustConfirm::plain(plain.confirm(sent))),
            Ok(None) => Err(Refused::Credit(plain.clone())),
            Err(error) => Err(Refused::by(error)),
        };
        if !due.is_nothing() {
            let plain = plain.clone();
            drop(core);
            plain.write(due);
        }
        taken
    }

    /// Hands over a message and keeps it.
    #[inline]
    fn attempt_kept(
        self: &Arc<Self>,
        outbound: &Outbound<'_>,
        message: &mut Message,
    ) -> Result<RobustConfirm, Refused> {
        let mut core = self.lock();
        let Core { life, unconfirmed, .. } = &mut *core;
        let plain = up(life)?;
        let measure = unconfirmed.measure(outbound, message);
        if measure.properties > plain.properties_max().saturating_sub(MARK) {
            return Err(Refused::Failed(too_many_properties(outbound, measure.properties, plain)));
        }
        if unconfirmed.is_due() || !self.shared().reserve(unconfirmed, measure.weight) {
            self.prune(unconfirmed);
            if !self.shared().reserve(unconfirmed, measure.weight) {
                return Err(Refused::Room(plain.clone()));
            }
        }
        let (sent, due) = plain.append_encoded(outbound, message, unconfirmed.encoded());
        let sequence = sent.map(|sent| {
            sent.map(|sent| {
                let sequence = unconfirmed.push(outbound, message, measure);
                debug_assert_eq!(unconfirmed.number(sequence), sent.number);
                sequence
            })
        });
        if !due.is_nothing() {
            let plain = plain.clone();
            drop(core);
            plain.write(due);
            return self.taken_kept(&plain, sequence);
        }
        self.taken_kept(plain, sequence)
    }

    /// What becomes of a message that is kept under this number.
    #[inline]
    fn taken_kept(
        self: &Arc<Self>,
        plain: &SingleChannel,
        sequence: Result<Option<u64>>,
    ) -> Result<RobustConfirm, Refused> {
        match sequence {
            Ok(Some(sequence)) => Ok(RobustConfirm::kept(self, sequence)),
            Ok(None) => Err(Refused::Credit(plain.clone())),
            Err(error) => Err(Refused::by(error)),
        }
    }

    /// Removes what is settled.
    fn prune(&self, unconfirmed: &mut Publishes) {
        unconfirmed.prune();
        self.acked_below.store(unconfirmed.acked_below(), Ordering::Relaxed);
        self.shared().release(unconfirmed.take_spare());
    }

    /// A server-named queue may have got another name while a message to it, or one whose reply is to go there, waited.
    fn renamed(&self, outbound: &Outbound<'_>, message: &mut Message) -> Option<RoutingKey<'static>> {
        let topology = &self.shared().lock().topology;
        if let Some(reply_to) = &message.properties().reply_to
            && topology.current(reply_to) != reply_to
        {
            message.properties_mut().reply_to = Some(topology.current(reply_to).clone());
        }
        if !outbound.exchange.is_empty() {
            return None;
        }
        let name = ShortStr::try_from(outbound.routing_key.as_bytes()).ok()?;
        Some(topology.current(&name).clone().into())
    }

    /// Asks what became of a message that is kept.
    pub(super) fn poll_confirm(&self, sequence: u64, context: &mut Context<'_>) -> Poll<Result<()>> {
        if self.is_acked(sequence) {
            return Poll::Ready(Ok(()));
        }
        let mut core = self.lock();
        self.acked_below.store(core.unconfirmed.acked_below(), Ordering::Relaxed);
        if self.is_acked(sequence) {
            return Poll::Ready(Ok(()));
        }
        core.unconfirmed.ask(sequence, context.waker())
    }

    /// Whether a kept message is known to be acked, without the lock.
    fn is_acked(&self, sequence: u64) -> bool {
        sequence < self.acked_below.load(Ordering::Relaxed)
    }

    /// Nobody waits for this message any more.
    pub(super) fn abandon(&self, sequence: u64) {
        if self.is_acked(sequence) {
            return;
        }
        let mut core = self.lock();
        let mut abandoned = core.unconfirmed.abandon(sequence);
        if let Some(failure) = abandoned.failure.take() {
            core.failure.get_or_insert(failure);
        }
        drop(core);
        if let Some(stray) = abandoned.stray.take() {
            stray.tell();
        }
    }

    /// As [`abandon`](Self::abandon), and it is not published again.
    pub(super) fn withdraw(&self, sequence: u64) {
        let spare = {
            let mut core = self.lock();
            core.unconfirmed.withdraw(sequence);
            core.unconfirmed.take_spare()
        };
        self.shared().release(spare);
        self.abandon(sequence);
    }

    /// Waits until everything that was handed over so far is settled, on whatever link.
    pub(super) async fn settled(&self) -> Result<()> {
        let last = self.lock().unconfirmed.last();
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.unsettled(last) {
                Unsettled::Nothing => return Ok(()),
                Unsettled::Elsewhere(plain) => match plain.wait_for_confirms().await {
                    Err(error) if plain.is_open() => return Err(error),
                    Ok(()) => return Ok(()),
                    // it has ended: what that left to tell is about to be known
                    Err(_) => changed.await,
                },
                Unsettled::Number(plain, number) => tokio::select! {
                    biased;
                    // an error: it has ended, and the supervisor will tell
                    Ok(()) = plain.settled(number) => {}
                    () = changed => {}
                },
                Unsettled::Lost => changed.await,
            }
        }
    }

    fn unsettled(&self, last: u64) -> Unsettled {
        let mut core = self.lock();
        let Core { life, unconfirmed, .. } = &mut *core;
        match life.phase() {
            Phase::Up(plain) | Phase::Retiring(plain, _) if self.retains => {
                self.prune(unconfirmed);
                let number = unconfirmed.newest_up_to(last).and_then(|newest| unconfirmed.number(newest));
                number.map_or(Unsettled::Nothing, |number| Unsettled::Number(plain.clone(), number))
            }
            Phase::Up(plain) | Phase::Retiring(plain, _) => Unsettled::Elsewhere(plain.clone()),
            Phase::Down(_) if unconfirmed.newest_up_to(last).is_some() => Unsettled::Lost,
            // what was not settled at the end has left a failure to tell
            Phase::Down(_) | Phase::Ended(_) => Unsettled::Nothing,
        }
    }

    /// The first failure that no confirm told.
    pub(super) fn take_failure(&self) -> Result<()> {
        let mut core = self.lock();
        let Core { life, failure, .. } = &mut *core;
        if let Some(failure) = failure.take() {
            return Err(failure);
        }
        match life.phase() {
            Phase::Up(plain) | Phase::Retiring(plain, _) => plain.take_failure(),
            Phase::Down(_) | Phase::Ended(_) => Ok(()),
        }
    }
}

/// The message would fit, but not with the mark that it gets when it is published again.
#[cold]
fn too_many_properties(outbound: &Outbound<'_>, length: usize, plain: &SingleChannel) -> Error {
    let most = plain.properties_max().saturating_sub(MARK);
    let text = format!(
        "{outbound}: its properties take {length} bytes, and at most {most} fit beside the mark of a message that is \
         published again; use fewer headers, or a larger frame_max"
    );
    Error::new(ErrorKind::Argument, text)
}

/// [`Outage::WaitFor`] has passed.
fn outage_too_long(outbound: &Outbound<'_>, limit: Option<Duration>, why: Error) -> Error {
    let limit = limit.unwrap_or_default().as_secs_f32();
    let text = format!("{outbound}: not sent, because there was no connection within {limit} s (on_outage)");
    Error::new(ErrorKind::NotSent, text).with_origin(why.origin()).with_source(why)
}

/// The plain channel, or why a message is not taken.
#[inline]
fn up(life: &Lifecycle<SingleChannel>) -> Result<&SingleChannel, Refused> {
    match life.phase() {
        Phase::Up(plain) => Ok(plain),
        // it takes what there is, in its order, and then another one follows
        Phase::Retiring(plain, _) => Err(Refused::Credit(plain.clone())),
        Phase::Down(error) => Err(Refused::Down(error.clone())),
        Phase::Ended(error) => Err(Refused::Failed(error.clone())),
    }
}

impl Shared {
    /// Sets memory aside for a message; false if there is none.
    fn reserve(&self, unconfirmed: &mut Publishes, weight: usize) -> bool {
        let missing = unconfirmed.missing(weight);
        if missing == 0 {
            return true;
        }
        let left = self.settings.unconfirmed_limit.saturating_sub(self.retained.load(Ordering::Relaxed));
        let bytes = if left >= PORTION { missing.max(PORTION) } else { missing };
        // one message may always be there
        if bytes > left && !unconfirmed.is_empty() {
            return false;
        }
        self.retained.fetch_add(bytes, Ordering::Relaxed);
        unconfirmed.reserve(bytes);
        true
    }

    /// Removes what is settled on any channel, also behind what is not: one that has become idle does not look.
    fn prune(&self) {
        for channel in self.channels() {
            let mut core = channel.lock();
            core.unconfirmed.prune_all();
            channel.prune(&mut core.unconfirmed);
        }
    }
}
