//! A user who declares, binds, unbinds and deletes, and what must be there in the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lepus::robust::Entity;
use lepus::{Error, ErrorKind, ExchangeKind};
use tokio::time::sleep;

use crate::dice::Dice;
use crate::patience::Patience;
use crate::trace::log;
use crate::world::{Channel, Connection, World};

const EXCHANGES: [&str; 2] = ["exchange.0", "exchange.1"];
/// The last one is exclusive.
const QUEUES: [&str; 3] = ["queue.0", "queue.1", "queue.own"];
const KEYS: [&str; 2] = ["key.0", "key.1"];

/// What its user knows of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    There,
    Gone,
    /// A call was given up, or failed.
    Unsure,
}

/// A queue, an exchange, or a binding of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Exchange(&'static str),
    Queue(&'static str),
    Binding(&'static str, &'static str, &'static str),
}

impl Thing {
    fn random(dice: &mut Dice) -> Self {
        match dice.below(10) {
            0 | 1 => Self::Exchange(dice.pick(&EXCHANGES)),
            2..5 => Self::Queue(dice.pick(&QUEUES)),
            _ => Self::Binding(dice.pick(&QUEUES), dice.pick(&EXCHANGES), dice.pick(&KEYS)),
        }
    }

    /// Whether it goes when the other one is deleted.
    fn is_of(self, other: Self) -> bool {
        match (self, other) {
            (Self::Binding(_, exchange, _), Self::Exchange(name)) => exchange == name,
            (Self::Binding(queue, ..), Self::Queue(name)) => queue == name,
            _ => false,
        }
    }
}

pub(crate) struct Builder {
    world: Arc<World>,
    connection: Connection,
    dice: Dice,
    known: BTreeMap<Thing, Known>,
}

impl Builder {
    pub(crate) fn new(world: Arc<World>, connection: Connection, dice: Dice) -> Self {
        Self { world, connection, dice, known: BTreeMap::new() }
    }

    /// Changes the topology until the faults are over; what is known then can be [checked](Self::check).
    pub(crate) async fn run(mut self) -> Result<Self, Error> {
        let mut channel = self.open().await?;
        while self.world.has_faults() {
            let pause = self.dice.millis(1, 3000);
            sleep(pause).await;
            if self.dice.percent(5) {
                // what was bound on it outlives it
                channel = self.open().await?;
            }
            self.step(&channel).await;
        }
        Ok(self)
    }

    async fn open(&self) -> Result<Channel, Error> {
        loop {
            match self.connection.channel().await {
                Err(error) if error.kind() == ErrorKind::Timeout => {}
                channel => return channel,
            }
        }
    }

    async fn step(&mut self, channel: &Channel) {
        let (thing, makes) = (Thing::random(&mut self.dice), self.dice.percent(65));
        if let Thing::Binding(queue, exchange, _) = thing {
            // of what is not there, calls fail
            let parts = [self.known(Thing::Queue(queue)), self.known(Thing::Exchange(exchange))];
            if parts.contains(&Known::Gone) {
                return;
            }
        }
        let patience =
            if self.dice.percent(70) { Patience::Endless } else { Patience::random(&mut self.dice) };
        log!(
            self.world.trace,
            "builder",
            "{thing:?}: {}, {patience:?}",
            if makes { "make" } else { "remove" }
        );
        let done = patience.with(act(channel, thing, makes)).await;
        log!(
            self.world.trace,
            "builder",
            "{thing:?}: {}",
            match &done {
                None => "not waited for".into(),
                Some(Ok(())) => "done".into(),
                Some(Err(error)) => format!("{error:#}"),
            }
        );
        if let Some(Err(error)) = &done
            && !Self::is_explained(error, thing)
        {
            self.world.model().wrong(format!("{thing:?}: {error:#}"));
        }
        self.learn(thing, makes, matches!(done, Some(Ok(()))));
    }

    fn known(&self, thing: Thing) -> Known {
        self.known.get(&thing).copied().unwrap_or(Known::Gone)
    }

    /// Whether the faults explain an error.
    fn is_explained(error: &Error, thing: Thing) -> bool {
        match (error.kind(), error.reply_code()) {
            (ErrorKind::Timeout, _) => true,
            // an operator has deleted it, or the call that was to make it is not known to have done so
            (ErrorKind::ChannelClosed, Some(404)) => matches!(thing, Thing::Binding(..)),
            // the broker has not noticed yet that the connection before is gone
            (ErrorKind::ChannelClosed, Some(405)) => match thing {
                Thing::Queue(queue) | Thing::Binding(queue, ..) => queue == "queue.own",
                Thing::Exchange(_) => false,
            },
            _ => false,
        }
    }

    fn learn(&mut self, thing: Thing, makes: bool, done: bool) {
        let then = if makes { Known::There } else { Known::Gone };
        let things: Vec<_> = self.known.keys().copied().filter(|other| other.is_of(thing)).collect();
        let gone = if makes { vec![thing] } else { things.into_iter().chain([thing]).collect() };
        // what was sent on a lost link is read after what has been done on the next one
        let done = done && (makes || !self.world.deaf.load(Ordering::Relaxed));
        for thing in gone {
            let known = self.known(thing);
            self.known.insert(thing, if done || known == then { then } else { Known::Unsure });
        }
    }

    /// Whether something is a binding of what may be gone.
    pub(crate) fn is_unsure(&self, entity: &Entity) -> bool {
        let Entity::QueueBinding { queue, exchange, .. } = entity else { return false };
        let unsure = self.known.iter().filter(|(_, known)| **known == Known::Unsure);
        unsure.map(|(thing, _)| *thing).any(|thing| match thing {
            Thing::Queue(name) => *queue == name,
            Thing::Exchange(name) => *exchange == name,
            Thing::Binding(..) => false,
        })
    }

    /// Compares what is known with what is at the broker.
    pub(crate) fn check(&self) {
        let broker = &self.world.broker;
        let (queues, exchanges, bindings) = (broker.queues(), broker.exchanges(), broker.bindings());
        for (thing, known) in &self.known {
            let there = match *thing {
                Thing::Exchange(name) => exchanges.iter().any(|exchange| exchange.name == name),
                Thing::Queue(name) => queues.iter().any(|queue| queue.name == name),
                Thing::Binding(queue, exchange, key) => bindings.iter().any(|binding| {
                    (binding.destination.as_str(), binding.source.as_str()) == (queue, exchange)
                        && binding.routing_key == key
                }),
            };
            // of a queue or an exchange whose declare timed out: neither is recorded, though both may have been there
            if let Thing::Binding(queue, exchange, _) = *thing
                && [Thing::Queue(queue), Thing::Exchange(exchange)]
                    .iter()
                    .any(|part| self.known(*part) == Known::Unsure)
            {
                continue;
            }
            if (*known == Known::There && !there) || (*known == Known::Gone && there) {
                let text = format!("{thing:?} must be {known:?}, and the broker has it: {there}");
                self.world.model().wrong(text);
            }
        }
    }
}

async fn act(channel: &Channel, thing: Thing, makes: bool) -> Result<(), Error> {
    match (thing, makes) {
        (Thing::Exchange(name), true) => channel.declare_exchange(name, ExchangeKind::Direct).await.map(drop),
        (Thing::Exchange(name), false) => channel.exchange(name)?.delete().await.map(drop),
        (Thing::Queue(name @ "queue.own"), true) => channel.declare_queue(name).exclusive().await.map(drop),
        (Thing::Queue(name), true) => channel.declare_queue(name).await.map(drop),
        (Thing::Queue(name), false) => channel.queue(name)?.delete().await.map(drop),
        (Thing::Binding(queue, exchange, key), makes) => {
            let (queue, exchange) = (channel.queue(queue)?, channel.exchange(exchange)?);
            if makes { queue.bind(&exchange, key).await } else { queue.unbind(&exchange, key).await }
        }
    }
}
