//! Users who consume.

use std::collections::BTreeSet;
use std::sync::Arc;

use lepus::{Delivery, Error, ErrorKind, ExchangeKind};
use tokio::time::sleep;

use crate::dice::Dice;
use crate::patience::Patience;
use crate::trace::log;
use crate::world::{Connection, Consumer, EXCHANGE, JOBS, NEWS, World};

/// Takes the jobs, and acknowledges them, until everything that was confirmed is there.
pub(crate) async fn work(world: Arc<World>, connection: Connection, mut dice: Dice) -> Result<(), Error> {
    let channel = connection.channel().await?;
    let exchange = channel.declare_exchange(EXCHANGE, ExchangeKind::Topic).await?;
    let queue = channel.declare_queue(JOBS).await?;
    queue.bind(&exchange, "order.#").await?;
    let prefetch = dice.pick(&[1, 3, 50]);
    let mut consumer = queue.consume().prefetch(prefetch).await?;
    world.set_up("jobs");
    let (slow, refuses) = (dice.below(40), dice.below(10));
    loop {
        if world.has_faults() && dice.percent(2) {
            log!(world.trace, "worker", "consumes anew");
            world.model().restarts += 1;
            drop(consumer);
            consumer = loop {
                match queue.consume().prefetch(prefetch).await {
                    Err(error) if error.kind() == ErrorKind::Timeout => {
                        log!(world.trace, "worker", "tries again: {error}");
                    }
                    consumer => break consumer?,
                }
            };
        }
        if world.has_faults() && dice.percent(2) {
            log!(world.trace, "worker", "pauses");
            let paused = consumer.pause().await;
            let pause = dice.millis(1, 3000);
            sleep(pause).await;
            while let Err(error) = consumer.resume().await {
                if error.kind() != ErrorKind::Timeout {
                    return Err(error);
                }
            }
            log!(world.trace, "worker", "goes on: {}", paused.is_ok());
        }
        let patience = if dice.percent(70) { Patience::Endless } else { Patience::random(&mut dice) };
        let Some(next) = patience.with(consumer.next()).await else { continue };
        let Some(delivery) = next.transpose()? else {
            log!(world.trace, "worker", "the stream has ended");
            return Ok(());
        };
        let id = world.model().receive(delivery.incoming());
        log!(world.trace, "worker", "got {id:?}{}", marks(&delivery));
        if world.is_chaos() && dice.percent(slow) {
            let pause = dice.millis(1, 3000);
            sleep(pause).await;
        }
        let settled = match dice.below(100) {
            share if share < refuses && world.is_chaos() => delivery.nack(true),
            share if share > 90 => delivery.ack_multiple(),
            _ => delivery.ack(),
        };
        log!(world.trace, "worker", "{id:?}: {settled:?}");
        match settled {
            // all has arrived, and the end came during the pause
            Err(error) if error.kind() == ErrorKind::Closed && !world.is_chaos() => {}
            settled => drop(settled?),
        }
    }
}

fn marks(delivery: &Delivery) -> String {
    let marks = [(delivery.redelivered(), ", redelivered"), (delivery.is_republished(), ", republished")];
    marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect()
}

/// Hears the news on a server-named queue, until the stream ends.
pub(crate) async fn listen(world: Arc<World>, connection: Connection) -> Result<(), Error> {
    let channel = connection.channel().await?;
    let exchange = channel.declare_exchange(NEWS, ExchangeKind::Fanout).await?;
    let queue = channel.declare_queue("").await?;
    queue.bind(&exchange, "").await?;
    let consumer = queue.consume().await?;
    world.set_up("news");
    hear(&world, "listener", consumer).await
}

/// Takes the notes from a queue that is deleted from time to time.
pub(crate) async fn read_notes(world: Arc<World>, connection: Connection) -> Result<(), Error> {
    let channel = connection.channel().await?;
    let queue = channel.declare_queue("notes").await?;
    let consumer = queue.consume().prefetch(2).await?;
    world.set_up("notes");
    hear(&world, "reader", consumer).await
}

async fn hear(world: &World, who: &'static str, mut consumer: Consumer) -> Result<(), Error> {
    let mut originals = BTreeSet::new();
    while let Some(delivery) = consumer.next().await.transpose()? {
        let text = delivery.body_str().unwrap().to_owned();
        log!(world.trace, who, "got {text}{}", marks(&delivery));
        world.heard(who, text.parse().unwrap());
        let marked = delivery.redelivered() || delivery.is_republished();
        if !marked && !originals.insert(text.clone()) {
            world.model().wrong(format!("the {who} got {text} twice, without a mark"));
        }
        delivery.ack()?;
    }
    log!(world.trace, who, "the stream has ended");
    Ok(())
}

/// Publishes news and notes, and declares the notes' queue again, which somebody deletes.
pub(crate) async fn write(world: Arc<World>, connection: Connection, mut dice: Dice) -> Result<(), Error> {
    let channel = loop {
        // it is there before anything is published again, also if the broker has lost it
        let open = async {
            let channel = connection.channel().await?;
            channel.declare_exchange(NEWS, ExchangeKind::Fanout).await?;
            Ok::<_, Error>(channel)
        };
        match open.await {
            Err(error) if error.kind() == ErrorKind::Timeout => {}
            channel => break channel?,
        }
    };
    let (mut number, mut last) = (0, u64::MAX);
    while world.heard_by("listener") < last || world.heard_by("reader") < last {
        let pause = dice.millis(10, 5000);
        sleep(pause).await;
        number += 1;
        if !world.is_chaos() {
            // of what is published from now on, both hear something
            last = last.min(number);
        }
        if dice.percent(30) || last < u64::MAX {
            match channel.declare_queue("notes").await {
                Err(error) if error.kind() != ErrorKind::Timeout => return Err(error),
                _ => log!(world.trace, "writer", "declares the notes' queue"),
            }
        }
        for (exchange, key) in [(NEWS, ""), ("", "notes")] {
            match channel.exchange(exchange)?.publish(key, number.to_string()).await {
                Err(error) if error.kind() != ErrorKind::Nacked => return Err(error),
                told => log!(world.trace, "writer", "{number} to '{exchange}': {}", told.is_ok()),
            }
        }
    }
    Ok(())
}
