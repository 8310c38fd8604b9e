//! A user who connects, publishes, and leaves in order.

use std::sync::Arc;

use lepus::robust::Backoff;
use lepus::{Confirm, Error, ErrorKind, Message};
use tokio::time::{Instant, sleep};

use crate::dice::Dice;
use crate::model::Id;
use crate::publishers::declare;
use crate::trace::log;
use crate::world::{Connection, World, options};

/// The number of its first visit among the publishers.
const FIRST: u64 = 200;

/// Comes and goes until the faults are over.
pub(crate) async fn visit(world: Arc<World>, mut dice: Dice) -> Result<(), Error> {
    let mut number = FIRST;
    loop {
        let pause = dice.millis(1, 15_000);
        sleep(pause).await;
        if !world.has_faults() {
            return Ok(());
        }
        number += 1;
        let backoff = Backoff::new().seed(dice.next());
        let robust = options(&world, &mut dice, false).robust().backoff(backoff).retry_first_connect();
        let connection = match robust.connect().await {
            // a first login that the broker refuses is final
            Err(error) if error.kind() == ErrorKind::Auth => continue,
            connection => connection?,
        };
        let confirms = match publish(&world, &connection, number, dice.below(10)).await {
            // an answer was lost
            Err(error) if error.kind() == ErrorKind::Timeout => Vec::new(),
            confirms => confirms?,
        };
        let limit = dice.millis(10, 20_000);
        let began = Instant::now();
        let drained = connection.drain(limit).await;
        let took = began.elapsed();
        log!(world.trace, "leaver", "{number}: {drained:?} after {took:?} of {limit:?}");
        if took > limit {
            world.model().wrong(format!("drain took {took:?}, and its limit was {limit:?}"));
        }
        for (id, confirm) in confirms {
            match confirm.await {
                Ok(()) => world.model().settle(id, true),
                Err(error) if error.kind() == ErrorKind::Nacked => world.model().settle(id, false),
                Err(error) if drained.is_ok() => {
                    world.model().wrong(format!("{id:?}, after everything was drained: {error:#}"));
                }
                // it may arrive
                Err(_) => {}
            }
        }
    }
}

async fn publish(
    world: &World,
    connection: &Connection,
    number: u64,
    count: u64,
) -> Result<Vec<(Id, Confirm)>, Error> {
    let exchange = declare(&connection.channel().await?).await?;
    let mut confirms = Vec::new();
    for at in 1..=count {
        let text = format!("{number}:{at}:");
        world.model().send((number, at), text.len());
        let confirm = exchange.enqueue("order.last", Message::new(text)).await?;
        confirms.push(((number, at), confirm));
    }
    log!(world.trace, "leaver", "{number} has published {count}");
    Ok(confirms)
}
