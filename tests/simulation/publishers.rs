//! Users who publish.

use std::sync::Arc;
use std::time::Duration;

use lepus::{Error, ErrorKind, ExchangeKind, Message};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::dice::Dice;
use crate::model::Id;
use crate::patience::Patience;
use crate::trace::log;
use crate::world::{Channel, Connection, EXCHANGE, Exchange, JOBS, World};

/// How many messages wait for their confirms at most.
const WINDOW: usize = 20;

pub(crate) struct Publisher {
    pub(crate) number: u64,
    pub(crate) connection: Connection,
    pub(crate) world: Arc<World>,
    pub(crate) dice: Dice,
}

impl Publisher {
    /// Publishes until the faults are over, and then waits for all confirms.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let mut exchange = self.open().await?;
        let (busy, most) = (self.dice.below(50) + 10, self.dice.pick(&[40, 400, 9000]));
        let mut confirms = JoinSet::new();
        let mut number = 0;
        while self.world.is_chaos() {
            if !self.dice.percent(busy) {
                let pause = self.dice.millis(1, 4000);
                sleep(pause).await;
            }
            if self.dice.percent(1) {
                self.end(&exchange, &mut confirms).await?;
                exchange = self.open().await?;
            }
            while confirms.len() >= WINDOW {
                confirms.join_next().await.unwrap().unwrap();
            }
            number += 1;
            self.publish(&exchange, number, most, &mut confirms).await?;
        }
        self.end(&exchange, &mut confirms).await
    }

    async fn open(&mut self) -> Result<Exchange, Error> {
        self.patient(async |connection: &Connection| declare(&connection.channel().await?).await).await
    }

    /// A call that a fault may have made to fail is made again.
    async fn patient<T>(&self, call: impl AsyncFn(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        loop {
            match call(&self.connection).await {
                Err(error) if error.kind() == ErrorKind::Timeout => {
                    log!(self.world.trace, self.name(), "calls again: {error}");
                }
                done => return done,
            }
        }
    }

    /// Waits for everything that is under way.
    async fn end(&mut self, exchange: &Exchange, confirms: &mut JoinSet<()>) -> Result<(), Error> {
        while let Some(told) = confirms.join_next().await {
            told.unwrap();
        }
        log!(self.world.trace, self.name(), "all is confirmed on a channel");
        let _ = exchange;
        Ok(())
    }

    fn name(&self) -> String {
        format!("publisher {}", self.number)
    }

    async fn publish(
        &mut self,
        exchange: &Exchange,
        number: u64,
        most: u64,
        confirms: &mut JoinSet<()>,
    ) -> Result<(), Error> {
        let id = (self.number, number);
        let size = usize::try_from(self.dice.below(most)).unwrap();
        let text = format!("{}:{number}:{}", self.number, "x".repeat(size));
        self.world.model().send(id, text.len());
        let (key, message) = (format!("order.{}", self.number), Message::new(text));
        match self.dice.below(6) {
            // waits for it
            0 => {
                log!(self.world.trace, self.name(), "publishes {number}");
                let told = exchange.publish(key, message).await;
                settle(&self.world, id, told);
            }
            // loses patience
            1 => {
                let patience = Patience::random(&mut self.dice);
                log!(self.world.trace, self.name(), "publishes {number}, {patience:?}");
                match patience.with(exchange.publish(key, message).into_future()).await {
                    Some(told) => settle(&self.world, id, told),
                    None => log!(self.world.trace, self.name(), "does not wait for {number}"),
                }
            }
            // has a deadline, and waits for one of its three ends
            2 => {
                let limit = self.dice.millis(0, 8000);
                self.world.model().limit(id);
                log!(self.world.trace, self.name(), "publishes {number} within {limit:?}");
                let told = exchange.publish(key, message).deadline(limit).await;
                settle_in_time(&self.world, id, told);
            }
            // waits for the confirm later, if at all
            _ => {
                let patience =
                    if self.dice.percent(80) { Patience::Endless } else { Patience::random(&mut self.dice) };
                log!(self.world.trace, self.name(), "hands over {number}, {patience:?}");
                let limit = self.dice.percent(20).then(|| self.dice.millis(0, 8000));
                let enqueue = exchange.enqueue(key, message);
                let handed_over = match limit {
                    None => enqueue.await,
                    Some(limit) => {
                        self.world.model().limit(id);
                        enqueue.deadline(limit).await
                    }
                };
                let confirm = match handed_over {
                    Ok(confirm) => confirm,
                    Err(error) if limit.is_some() => {
                        settle_in_time(&self.world, id, Err(error));
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                };
                self.world.model().handed_over(id);
                let world = Arc::clone(&self.world);
                confirms.spawn(async move {
                    match patience.with(confirm).await {
                        Some(told) if limit.is_some() => settle_in_time(&world, id, told),
                        Some(told) => settle(&world, id, told),
                        None => world.model().abandon(id),
                    }
                });
            }
        }
        Ok(())
    }
}

/// Declares what the messages go through on the connection that publishes them, which restores it before it publishes again: a
/// broker may have lost it.
pub(crate) async fn declare(channel: &Channel) -> Result<Exchange, Error> {
    let exchange = channel.declare_exchange(EXCHANGE, ExchangeKind::Topic).await?;
    channel.declare_queue(JOBS).await?.bind(&exchange, "order.#").await?;
    Ok(exchange)
}

/// What became of a message.
fn settle(world: &World, id: Id, told: Result<(), Error>) {
    log!(
        world.trace,
        format!("publisher {}", id.0),
        "{} is {}",
        id.1,
        match &told {
            Ok(()) => "confirmed".into(),
            Err(error) => error.to_string(),
        }
    );
    match told {
        Ok(()) => world.model().settle(id, true),
        Err(error) if error.kind() == ErrorKind::Nacked => world.model().settle(id, false),
        Err(error) => world.model().wrong(format!("publishing {id:?}: {error:#}")),
    }
}

/// What became of a message with a deadline.
fn settle_in_time(world: &World, id: Id, told: Result<(), Error>) {
    let Err(error) = &told else { return settle(world, id, told) };
    match error.kind() {
        // it never arrives
        ErrorKind::NotSent => world.model().not_sent(id),
        // it may arrive, and takes no memory
        ErrorKind::Unconfirmed => world.model().abandon(id),
        _ => return settle(world, id, told),
    }
    log!(world.trace, format!("publisher {}", id.0), "{} is {:?}", id.1, error.kind());
}

/// Looks at the memory of a connection's publishers, until the faults are over.
pub(crate) async fn audit(world: Arc<World>, publishers: Vec<u64>, limit: usize) {
    while world.is_chaos() {
        // all that can go on has done so
        sleep(Duration::from_millis(73)).await;
        world.model().check_memory(&publishers, limit);
    }
}
