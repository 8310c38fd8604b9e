//! Declaring again what was recorded.
//!
//! On a scratch channel, in the order of dependency. An error closes that channel and nothing else; it is told by
//! the entity's name, and the rest goes on with a new one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::event::{Entity, Event, Unrestored};
use super::ledger::topology::{RecordedQueue, Topology};
use super::lessons::Lessons;
use super::shared::Shared;
use crate::codec::ShortStr;
use crate::codec::peer_text::PeerText;
use crate::error::{Error, ErrorKind, Result, Scope};
use crate::protocol::{Request, basic, constants, exchange, queue};
use crate::single::{SingleChannel, SingleConnection};

/// How many requests go out before their outcome is awaited.
const BATCH: usize = 500;

/// How often a queue is tried that is still locked.
const LOCKED: Backoff = Backoff::bounded(Duration::from_millis(50), Duration::from_millis(250));

/// How often it is asked whether the queues of the lost connection are gone, and for how long.
const CLEARING: Backoff = Backoff::bounded(Duration::from_millis(10), Duration::from_millis(100));
const CLEARED: Duration = Duration::from_millis(500);

/// How often all is declared once more because something has vanished.
const PASSES: u32 = 8;

/// What is to be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// On a new link.
    All,
    /// On one that lives: what the broker removes by itself when a consumer has gone with its channel.
    AutoDelete,
}

impl Extent {
    fn has_exchange(self, topology: &Topology, name: &ShortStr) -> bool {
        self == Self::All || topology.exchange(name).is_some_and(|declare| declare.auto_delete)
    }

    fn has_queue(self, topology: &Topology, name: &ShortStr) -> bool {
        self == Self::All || topology.queue(name).is_some_and(|queue| queue.declare.auto_delete)
    }
}

/// The restore of the topology on one link.
#[derive(Debug)]
pub(super) struct Restore<'a> {
    shared: &'a Arc<Shared>,
    link: &'a SingleConnection,
    lessons: &'a Lessons,
    extent: Extent,
    scratch: Option<SingleChannel>,
    /// Until when queues may be locked by the connection that was lost.
    locked_until: Option<Instant>,
    /// How often all was declared before.
    passes: u32,
    /// Something that was there is not any more.
    vanished: bool,
    unrestored: Vec<Unrestored>,
}

impl<'a> Restore<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, link: &'a SingleConnection, lessons: &'a Lessons) -> Self {
        // one that lies too far ahead is none
        let locked_until = Instant::now().checked_add(shared.settings.locked_limit);
        Self {
            shared,
            link,
            lessons,
            extent: Extent::All,
            scratch: None,
            locked_until,
            passes: 0,
            vanished: false,
            unrestored: Vec::new(),
        }
    }

    /// Declares again, on a link that lives, what the broker has removed by itself: auto-delete queues whose consumers went
    /// with a channel, and what goes with them. Returns what was refused. An error: the link is lost, or does not answer.
    pub(super) async fn auto_delete(
        shared: &'a Arc<Shared>,
        link: &'a SingleConnection,
    ) -> Result<Vec<Unrestored>> {
        if !shared.lock().topology.has_auto_delete() {
            return Ok(Vec::new());
        }
        // two at once would give a queue two new names
        let _turn = shared.restoring.lock().await;
        let lessons = Lessons::default();
        let mut restore = Restore::new(shared, link, &lessons);
        restore.extent = Extent::AutoDelete;
        restore.topology().await?;
        restore.finish().await
    }

    /// Declares everything that is recorded. An error: the link is lost, or does not answer.
    ///
    /// While the broker still clears away what the lost connection leaves, it may remove what was declared a moment ago,
    /// such as an auto-delete exchange with the last binding of an old queue. Then all is declared once more.
    pub(super) async fn topology(&mut self) -> Result<()> {
        let mut pauses = self.shared.pauses(LOCKED);
        loop {
            self.vanished = false;
            self.pass().await?;
            if !self.vanished {
                return Ok(());
            }
            tracing::debug!("something has vanished while it was restored");
            self.unrestored.clear();
            self.passes += 1;
            tokio::time::sleep(pauses.next()).await;
        }
    }

    async fn pass(&mut self) -> Result<()> {
        let extent = self.extent;
        let exchanges: Vec<_> = {
            let topology = &self.shared.lock().topology;
            let wanted =
                topology.exchanges().filter(|declare| extent.has_exchange(topology, &declare.exchange));
            wanted.cloned().collect()
        };
        let exchanges = exchanges.into_iter().map(|declare| {
            let name = declare.exchange.clone();
            (Entity::Exchange { name }, declare)
        });
        self.all(exchanges.collect(), |declare| exchange::Declare { no_wait: true, ..declare }).await?;
        self.queues().await?;
        // with the names that the queues have now
        let (between, binds): (Vec<_>, Vec<_>) = {
            let topology = &self.shared.lock().topology;
            let between = topology.exchange_bindings().filter(|bind| {
                extent.has_exchange(topology, &bind.source)
                    || extent.has_exchange(topology, &bind.destination)
            });
            let binds = topology.queue_bindings().filter(|bind| {
                extent.has_queue(topology, &bind.queue) || extent.has_exchange(topology, &bind.exchange)
            });
            (between.cloned().collect(), binds.cloned().collect())
        };
        let between = between.into_iter().map(|bind| {
            let exchange::Bind { destination, source, routing_key, .. } = bind.clone();
            (Entity::ExchangeBinding { destination, source, routing_key }, bind)
        });
        self.all(between.collect(), |bind| exchange::Bind { no_wait: true, ..bind }).await?;
        let binds = binds.into_iter().map(|bind| {
            let queue::Bind { queue, exchange, routing_key, .. } = bind.clone();
            (Entity::QueueBinding { queue, exchange, routing_key }, bind)
        });
        self.all(binds.collect(), |bind| queue::Bind { no_wait: true, ..bind }).await
    }

    /// What was refused. The scratch channel is closed, and not in the background: its number may be needed.
    pub(super) async fn finish(self) -> Result<Vec<Unrestored>> {
        if let Some(scratch) = self.scratch.filter(SingleChannel::is_open) {
            scratch.close().await?;
        }
        Ok(self.unrestored)
    }

    async fn queues(&mut self) -> Result<()> {
        let queues: Vec<_> = {
            let topology = &self.shared.lock().topology;
            let wanted =
                topology.queues().filter(|queue| self.extent.has_queue(topology, &queue.declare.queue));
            wanted.cloned().collect()
        };
        let (server_named, named): (Vec<_>, Vec<_>) =
            queues.into_iter().partition(|queue| queue.server_named.is_some());
        let named = named.into_iter().map(|RecordedQueue { declare, .. }| {
            let name = declare.queue.clone();
            (Entity::Queue { name }, declare)
        });
        self.all(named.collect(), |declare| queue::Declare { no_wait: true, ..declare }).await?;
        if self.extent == Extent::AutoDelete {
            // each is asked for first, also when it has just gone
            for RecordedQueue { declare, .. } in server_named {
                self.server_named(declare).await?;
            }
            return Ok(());
        }
        if self.passes > 0 {
            return Ok(());
        }
        let exclusive = server_named.iter().map(|queue| &queue.declare).filter(|declare| declare.exclusive);
        self.cleared(exclusive.map(|declare| declare.queue.clone()).collect()).await?;
        for RecordedQueue { declare, .. } in server_named {
            self.server_named(declare).await?;
        }
        Ok(())
    }

    /// Waits, for a moment, until the broker has removed the exclusive queues of the lost connection, which nobody will
    /// use again. A message that still goes to one of them may be nacked when it is removed, whatever other queues
    /// have taken it.
    async fn cleared(&mut self, names: Vec<ShortStr>) -> Result<()> {
        let deletes: Vec<_> = names
            .into_iter()
            .map(|queue| {
                let name = queue.clone();
                (Entity::Queue { name }, queue::Delete { queue, ..Default::default() })
            })
            .collect();
        let (until, mut pauses) = (Instant::now() + CLEARED, self.shared.pauses(CLEARING));
        for batch in deletes.chunks(BATCH) {
            // one that is gone is deleted without an error; one that is not is locked
            while !self.together(batch, |delete| queue::Delete { no_wait: true, ..delete }).await? {
                if Instant::now() >= until {
                    tracing::debug!("the broker still has queues of the lost connection");
                    return Ok(());
                }
                tokio::time::sleep(pauses.next()).await;
            }
        }
        Ok(())
    }

    /// The server makes up a new name, and everybody gets to know it.
    async fn server_named(&mut self, declare: queue::Declare) -> Result<()> {
        let old = declare.queue.clone();
        if !declare.exclusive || self.extent == Extent::AutoDelete {
            // it outlives its connection, or that lives: it need not have gone
            let asked = queue::Declare { passive: true, ..declare.clone() };
            if self.request(asked).await?.is_ok() {
                return Ok(());
            }
        }
        let anew = queue::Declare { queue: ShortStr::empty(), ..declare };
        let Some(ok) = self.one(Entity::Queue { name: old.clone() }, anew).await? else { return Ok(()) };
        let new = ok.queue.detach();
        self.shared.lock().topology.rename(&old, &new);
        tracing::info!(%old, new = %PeerText(new.as_bytes()), "a server-named queue has a new name");
        self.shared.tell(Event::Renamed { old, new });
        Ok(())
    }

    /// Sends all requests. `quiet` makes one that the server does not answer.
    async fn all<M: Request>(&mut self, requests: Vec<(Entity, M)>, quiet: fn(M) -> M) -> Result<()> {
        for batch in requests.chunks(BATCH) {
            if self.vanished {
                return Ok(());
            }
            let together = batch.len() > 1 && !self.lessons.one_by_one();
            if together && self.together(batch, quiet).await? {
                continue;
            }
            for (entity, request) in batch {
                if self.vanished {
                    return Ok(());
                }
                self.one(entity.clone(), request.clone()).await?;
            }
        }
        Ok(())
    }

    /// Sends requests without waiting for each one's answer. False: the server has refused one of them.
    async fn together<M: Request>(&mut self, batch: &[(Entity, M)], quiet: fn(M) -> M) -> Result<bool> {
        let scratch = self.scratch().await?;
        let mut sent = Ok(());
        for (_, request) in batch {
            sent = sent.and_then(|()| scratch.send(&quiet(request.clone())));
        }
        let answered = match sent {
            // answered after all that came before it
            Ok(()) => scratch.request(basic::Qos::default()).await.map(drop),
            Err(error) => Err(error),
        };
        match answered {
            Ok(()) => Ok(true),
            Err(error) if !self.link.is_open() || error.kind() == ErrorKind::Timeout => {
                self.lessons.learn_of_many(&error);
                Err(error)
            }
            Err(error) if error.scope() == Scope::Channel => {
                self.vanished = self.is_vanished(&error);
                Ok(self.vanished)
            }
            // one that is too large to be sent, for example: to be told of that one
            Err(error) if error.kind() == ErrorKind::Argument => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends one request. `None`: the server has refused it, and that was noted.
    async fn one<M: Request>(&mut self, entity: Entity, request: M) -> Result<Option<M::Reply>> {
        let mut pauses = self.shared.pauses(LOCKED);
        loop {
            if let Some(error) = self.lessons.against(&entity) {
                self.unrestored.push(Unrestored { entity, error });
                return Ok(None);
            }
            match self.request(request.clone()).await {
                Ok(Ok(reply)) => return Ok(Some(reply)),
                Ok(Err(error)) => {
                    let locked = error.reply_code() == Some(constants::RESOURCE_LOCKED);
                    if locked && self.locked_until.is_none_or(|until| Instant::now() < until) {
                        // by the connection that was lost: the server has not noticed yet
                        tracing::debug!(%entity, %error, "still locked");
                        tokio::time::sleep(pauses.next()).await;
                        continue;
                    }
                    if self.is_vanished(&error) {
                        self.vanished = true;
                        return Ok(None);
                    }
                    tracing::warn!(%entity, %error, "not restored");
                    self.unrestored.push(Unrestored { entity, error });
                    return Ok(None);
                }
                Err(error) => {
                    self.lessons.learn(entity, M::ID, &error);
                    return Err(error);
                }
            }
        }
    }

    /// Whether the server misses an exchange or a queue that was declared a moment ago. Not believed for ever.
    fn is_vanished(&self, error: &Error) -> bool {
        if error.reply_code() != Some(constants::NOT_FOUND) || self.passes >= PASSES {
            return false;
        }
        let text = error.reply_text().unwrap_or_default();
        let is_missing = |entity: &Entity| match entity {
            Entity::Exchange { name } => text.contains(&format!("no exchange '{name}'")),
            Entity::Queue { name } => text.contains(&format!("no queue '{name}'")),
            _ => false,
        };
        if self.unrestored.iter().any(|refused| is_missing(&refused.entity)) {
            return false;
        }
        let state = self.shared.lock();
        let exchanges = state.topology.exchanges().map(|declare| &declare.exchange);
        let queues = state.topology.queues().map(|queue| &queue.declare.queue);
        exchanges.cloned().any(|name| is_missing(&Entity::Exchange { name }))
            || queues.cloned().any(|name| is_missing(&Entity::Queue { name }))
    }

    /// Sends one request. The inner error: the server has refused it.
    async fn request<M: Request>(&mut self, request: M) -> Result<Result<M::Reply>> {
        match self.scratch().await?.request(request).await {
            Ok(reply) => Ok(Ok(reply)),
            Err(error) if !self.link.is_open() => Err(error),
            Err(error) if error.scope() == Scope::Channel || error.kind() == ErrorKind::Argument => {
                Ok(Err(error))
            }
            Err(error) => Err(error),
        }
    }

    /// A channel for what may fail.
    async fn scratch(&mut self) -> Result<SingleChannel> {
        if let Some(scratch) = self.scratch.as_ref().filter(|scratch| scratch.is_open()) {
            return Ok(scratch.clone());
        }
        let scratch = self.link.channel(false, 0).await?;
        self.scratch = Some(scratch.clone());
        Ok(scratch)
    }
}
