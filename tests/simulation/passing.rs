//! A user of what the broker removes by itself: two auto-delete exchanges, one bound to the other, and an auto-delete queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lepus::{Error, ErrorKind, ExchangeKind};
use tokio::time::{sleep, timeout};

use crate::dice::Dice;
use crate::trace::log;
use crate::world::{Channel, Connection, Consumer, World};

/// How long an answer is awaited: a fault may have taken it.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many times the broker is inspected, a second apart, before a missing entity is an error.
const LOOKS: u32 = 30;

/// All that is made for a consumer, and goes with it, has its number in its name.
pub(crate) struct Passing {
    pub(crate) world: Arc<World>,
    pub(crate) connection: Connection,
    pub(crate) dice: Dice,
    /// Those that are known to be gone.
    pub(crate) gone: Vec<u64>,
    /// The one that stays until the end, once it is known to be there.
    pub(crate) stays: Option<(u64, Consumer)>,
}

impl Passing {
    /// Comes and goes until the faults are over, and then stays; what is known then can be [checked](Self::check).
    pub(crate) async fn run(mut self) -> Result<Self, Error> {
        let mut channel = self.open().await?;
        let mut number = 0;
        while self.stays.is_none() {
            number += 1;
            let last = !self.world.has_faults();
            match self.come(&channel, number).await {
                Ok(consumer) if last => self.stays = Some((number, consumer)),
                Ok(consumer) => self.go(&channel, number, consumer).await?,
                // nobody knows what is there
                Err(error) if error.kind() == ErrorKind::Timeout => {
                    log!(self.world.trace, "passing", "{number}: {error}");
                    // calls on the other wait behind the one without an answer
                    channel = self.open().await?;
                }
                Err(error) => return Err(error),
            }
            let pause = self.dice.millis(1, 3000);
            sleep(pause).await;
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

    /// Makes everything, and takes some messages that pass through all of it.
    async fn come(&mut self, channel: &Channel, number: u64) -> Result<Consumer, Error> {
        let [source, middle, queue] = names(number);
        let source = channel.declare_exchange(source, ExchangeKind::Fanout).auto_delete().await?;
        let middle = channel.declare_exchange(middle, ExchangeKind::Topic).auto_delete().await?;
        middle.bind(&source, "").await?;
        let queue = channel.declare_queue(queue).auto_delete().await?;
        queue.bind(&middle, "pass.*").await?;
        let mut consumer = queue.consume().await?;
        log!(self.world.trace, "passing", "{number} is here");
        for wanted in 0..self.dice.below(4) {
            // what is in the queue goes with it at a loss
            loop {
                let published = source.publish("pass.on", wanted.to_string()).into_future();
                match timeout(PATIENCE, published).await {
                    Ok(Err(error)) if error.kind() != ErrorKind::Nacked => return Err(error),
                    _ => {}
                }
                let Ok(next) = timeout(PATIENCE, consumer.next()).await else { continue };
                let Some(delivery) = next.transpose()? else { return Ok(consumer) };
                log!(self.world.trace, "passing", "{number} got {:?}", delivery.body_str());
                let is_wanted = delivery.body_str().is_some_and(|text| text == wanted.to_string());
                delivery.ack()?;
                if is_wanted {
                    break;
                }
            }
        }
        Ok(consumer)
    }

    /// The queue goes with its consumer, and the exchanges with their last bindings.
    async fn go(&mut self, channel: &Channel, number: u64, mut consumer: Consumer) -> Result<(), Error> {
        let way = self.dice.below(3);
        let [_, middle, queue] = names(number);
        let left = async {
            match way {
                0 => consumer.cancel().await?,
                1 => drop(consumer),
                _ => {
                    let (queue, middle) = (channel.queue(queue)?, channel.exchange(middle)?);
                    queue.unbind(&middle, "pass.*").await?;
                    consumer.cancel().await?;
                }
            }
            Ok::<_, Error>(())
        };
        match left.await {
            Err(error) if error.kind() != ErrorKind::Timeout => return Err(error),
            Err(error) => log!(self.world.trace, "passing", "{number}: {error}"),
            Ok(()) => {
                log!(self.world.trace, "passing", "{number} goes, way {way}");
                if !self.world.deaf.load(Ordering::Relaxed) {
                    self.gone.push(number);
                }
            }
        }
        Ok(())
    }

    /// Compares what is known with what is at the broker. Not at once: a message to what is gone, published again, may have
    /// closed the channel once more.
    pub(crate) async fn check(&self) {
        for _ in 0..LOOKS {
            if self.faults().is_empty() {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
        self.faults().into_iter().for_each(|fault| self.world.model().wrong(fault));
    }

    fn faults(&self) -> Vec<String> {
        let broker = &self.world.broker;
        let (queues, exchanges, bindings) = (broker.queues(), broker.exchanges(), broker.bindings());
        let there = |number: u64| {
            let [source, middle, queue] = names(number);
            let has = |name: &str| exchanges.iter().any(|exchange| exchange.name == name);
            let bound = |from: &str, to: &str| {
                bindings.iter().any(|bind| (bind.source.as_str(), bind.destination.as_str()) == (from, to))
            };
            [
                has(&source),
                has(&middle),
                queues.iter().any(|other| other.name == queue),
                bound(&source, &middle),
                bound(&middle, &queue),
            ]
        };
        let mut faults = Vec::new();
        for number in &self.gone {
            if there(*number).contains(&true) {
                faults.push(format!("what goes with consumer {number} is there: {:?}", there(*number)));
            }
        }
        if let Some((number, _)) = &self.stays
            && there(*number).contains(&false)
        {
            faults.push(format!("what consumer {number} needs is not there: {:?}", there(*number)));
        }
        faults
    }
}

fn names(number: u64) -> [String; 3] {
    ["source", "middle", "queue"].map(|part| format!("auto.{part}.{number}"))
}
