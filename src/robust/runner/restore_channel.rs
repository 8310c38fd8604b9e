//! Opening a channel again: its settings, its consumers, and what was not confirmed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::ledger_wire::GivenUp;
use super::restore_consumers::{Opening, Started};
use super::restore_topology::Learnt;
use super::robust_channel::{ChannelInner, Core};
use super::robust_consumer::ConsumerInner;
use crate::codec::ShortStr;
use crate::error::{Error, ErrorKind, Result, Scope};
use crate::robust::ledger::consumers::Probe;
use crate::robust::ledger::entity::Unrestored;
use crate::robust::ledger::lifecycle::Incarnation;
use crate::robust::ledger::publishes::Again;
use crate::robust::ledger::starting::{Outcome, Starting, Step};
use crate::single::{Outbound, SingleChannel, SingleConnection};

/// How often a channel is tried that the server closes again and again while it is restored.
const TRIES: usize = 5;

/// How long the confirm of a message on trial is awaited.
const TRIAL: Duration = Duration::from_secs(5);

/// The same, once a message on trial has got no answer.
const NEXT_TRIAL: Duration = Duration::from_millis(100);

/// A channel on a new link, before anybody else may use it.
#[derive(Debug)]
pub(super) struct Reopened {
    pub channel: Arc<ChannelInner>,
    plain: SingleChannel,
    /// Those that the server refused, to be tried again.
    refused: Vec<(Arc<ConsumerInner>, Probe)>,
    pub unrestored: Vec<Unrestored>,
    /// Once it was released: its incarnation, and the tasks to wake.
    released: Option<(Incarnation, Vec<Waker>)>,
}

impl Reopened {
    /// Opens a channel on the link, with its settings and consumers. An error: the link is lost or does not answer, or
    /// the channel cannot be had.
    pub(super) async fn new(
        channel: &Arc<ChannelInner>,
        link: &SingleConnection,
        learnt: &Learnt,
    ) -> Result<Self> {
        let (reopened, consumers) = Self::open(channel, link, learnt).await?;
        for (consumer, started) in consumers {
            consumer.install(started);
        }
        Ok(reopened)
    }

    /// Publishes again what was not confirmed. The server may make this wait, so all consumers that its memory waits for
    /// must have been started. An error as with [`new`](Self::new).
    pub(super) async fn published(mut self, link: &SingleConnection, learnt: &Learnt) -> Result<Self> {
        let (mut tries, mut left) = (1, self.channel.lock().unconfirmed.len());
        while let Err(error) = self.publish_again().await {
            self.sort_out(&error).await;
            let fewer = self.channel.lock().unconfirmed.len();
            // each close convicts a message, or makes all of them suspects
            tries = if fewer < left { 1 } else { tries + 1 };
            left = fewer;
            if error.scope() != Scope::Channel || !link.is_open() || tries > TRIES {
                return Err(error);
            }
            self = Self::new(&self.channel, link, learnt).await?;
        }
        Ok(self)
    }

    async fn open(
        channel: &Arc<ChannelInner>,
        link: &SingleConnection,
        learnt: &Learnt,
    ) -> Result<(Self, Vec<Started>)> {
        let mut opening = Opening::new(channel, link);
        let mut starting = Starting::default();
        let plain = loop {
            let mut refused = Vec::new();
            let step = starting.next_step(&learnt.lock(), &mut refused);
            opening.note(&refused);
            let outcome = match step {
                Step::Open => {
                    starting.opened(opening.open().await?);
                    continue;
                }
                Step::Start(id, spec) => opening.start(id, spec).await,
                Step::Ask(queue) => opening.ask(queue).await?,
                Step::Done => match opening.plain.take() {
                    Some(plain) => break plain,
                    None => continue,
                },
            };
            let lost = if let Outcome::Lost(error) = &outcome { Some(error.clone()) } else { None };
            starting.outcome(outcome, &mut learnt.lock(), &mut refused);
            opening.note(&refused);
            if let Some(error) = lost {
                return Err(error);
            }
        };
        let (probes, unrestored) = starting.finish();
        let refused = probes.into_iter().filter_map(|(id, probe)| Some((opening.consumer(id)?, probe)));
        let mut refused: Vec<_> = refused.collect();
        refused.sort_unstable_by_key(|(consumer, _)| consumer.id);
        let started = opening.started;
        let channel = Arc::clone(channel);
        Ok((Self { channel, plain, refused, unrestored, released: None }, started))
    }

    /// Hands over what was not confirmed, in its order. Suspects go one at a time, and no others meanwhile: see
    /// [`publishes`](crate::robust::ledger::publishes).
    async fn publish_again(&self) -> Result<()> {
        let Self { channel, plain, .. } = self;
        channel.returns.follow(plain);
        {
            let mut core = channel.lock();
            if channel.retains && core.life.is_down() {
                core.unconfirmed.follow(plain.clone());
            }
        }
        let (mut done, mut patience) = (0, TRIAL);
        while let Some(again) = self.next_again(done) {
            let trial = if again.on_trial { Some(channel.shared().trial.lock().await) } else { None };
            let Some(number) = self.hand_over(&again).await? else { continue };
            done = again.sequence;
            if trial.is_some() {
                // one that is not answered is not what closes channels
                match tokio::time::timeout(patience, plain.settled(number)).await {
                    Ok(settled) => settled?,
                    // a queue that confirms nothing, such as one without a majority: many may wait for it
                    Err(_) => patience = NEXT_TRIAL,
                }
                channel.lock().unconfirmed.acquitted();
            }
        }
        Ok(())
    }

    /// The message to be published after the one with this sequence.
    fn next_again(&self, done: u64) -> Option<Again> {
        let Self { channel, .. } = self;
        let mut given_up = GivenUp::default();
        let next = {
            let state = channel.shared().lock();
            let rename = |name: &ShortStr| {
                let current = state.topology.current(name);
                (current != name).then(|| current.clone())
            };
            let mut core = channel.lock();
            let next = core.unconfirmed.next(done, Instant::now().into_std(), rename, &mut given_up);
            self.note(&mut core, &mut given_up);
            next
        };
        given_up.tell();
        next
    }

    /// Hands a message over once there is room for it; `None` if this link takes no such message.
    async fn hand_over(&self, again: &Again) -> Result<Option<u64>> {
        let Self { channel, plain, .. } = self;
        let route = &again.route;
        let outbound = Outbound {
            exchange: &route.exchange,
            routing_key: route.routing_key.as_ref().into(),
            mandatory: route.mandatory,
            awaited: again.on_trial,
        };
        let message = again.message.clone().republished();
        let mut credit = None;
        loop {
            let mut given_up = GivenUp::default();
            let (number, due) = {
                let mut core = channel.lock();
                let (sent, due) = match plain.append(&outbound, &message) {
                    // this link takes fewer properties than the last: the mark may be what does not fit
                    (Err(error), _) if error.kind() == ErrorKind::Argument => {
                        plain.append(&outbound, &again.message)
                    }
                    sent => sent,
                };
                let number = match sent {
                    Ok(sent) => sent.map(|sent| Some(sent.number.unwrap_or_default())),
                    Err(error) if error.scope() == Scope::Call => {
                        core.unconfirmed.unfit(again.sequence, &error, &mut given_up);
                        Some(None)
                    }
                    Err(error) => return Err(error),
                };
                if let Some(Some(number)) = number {
                    core.unconfirmed.handed_over(again, number, &mut given_up);
                    channel.shared().republished.fetch_add(1, Ordering::Relaxed);
                }
                self.note(&mut core, &mut given_up);
                (number, due)
            };
            plain.write(due);
            given_up.tell();
            match number {
                Some(number) => return Ok(number),
                // listens, and tries again, so that no credit is missed
                None => match credit.take() {
                    None => credit = Some(plain.credit()),
                    Some(credit) => credit.await,
                },
            }
        }
    }

    /// Frees what was given up, and keeps the failure of what nobody asks for.
    fn note(&self, core: &mut Core, given_up: &mut GivenUp) {
        self.channel.shared().release(core.unconfirmed.take_spare());
        if let Some(failure) = given_up.unheard.take() {
            core.failure.get_or_insert(failure);
        }
    }

    /// The channel has ended, or the link, before it was released.
    pub(super) async fn sort_out(&self, error: &Error) {
        drop(self.plain.over().await);
        let wakers = {
            let mut core = self.channel.lock();
            self.channel.sort_out(&mut core, &self.plain, error)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// From now on everybody may use it, if its end has not come meanwhile. Who waits is [told](Self::tell) without locks.
    pub(super) fn release(&mut self, link: Incarnation) {
        let mut core = self.channel.lock();
        if let Ok(incarnation) = core.life.establish(self.plain.clone(), link) {
            core.number = self.plain.id();
            core.since = Instant::now();
            core.unconfirmed.followed();
            self.released = Some((incarnation, core.unconfirmed.take_wakers()));
        }
    }

    /// Tells those who wait for it. False: its end has come before.
    pub(super) fn tell(self) -> bool {
        let Self { channel, plain, refused, released, .. } = self;
        let Some((incarnation, wakers)) = released else { return false };
        channel.returns.catch_up(&plain);
        let over = plain.over();
        drop(plain);
        wakers.into_iter().for_each(Waker::wake);
        channel.changed.notify_waiters();
        channel.watch(over, incarnation);
        for (consumer, probe) in refused {
            channel.revive(&consumer, incarnation, probe);
        }
        true
    }
}
