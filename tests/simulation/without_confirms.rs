//! A user who publishes without confirms.

use std::sync::Arc;

use lepus::{Error, ErrorKind, Message};
use tokio::time::sleep;

use crate::dice::Dice;
use crate::model::WITHOUT_CONFIRMS;
use crate::patience::Patience;
use crate::publishers::declare;
use crate::trace::log;
use crate::world::{Connection, World};

/// How many messages follow when all is well; they must arrive.
const LAST: u64 = 3;

/// Publishes until the faults are over. At a loss messages are lost, and nothing is published again; otherwise all arrive.
pub(crate) async fn publish(world: Arc<World>, connection: Connection, mut dice: Dice) -> Result<(), Error> {
    let exchange = loop {
        let open = async { declare(&connection.channel().without_confirms().await?).await };
        match open.await {
            Err(error) if error.kind() == ErrorKind::Timeout => {}
            exchange => break exchange?,
        }
    };
    let (mut number, mut last) = (0, 0);
    while last < LAST {
        let pause = dice.millis(1, 2000);
        sleep(pause).await;
        let is_last = !world.is_chaos();
        for _ in 0..=dice.below(4) {
            number += 1;
            let id = (WITHOUT_CONFIRMS, number);
            let text = format!(
                "{WITHOUT_CONFIRMS}:{number}:{}",
                "x".repeat(usize::try_from(dice.below(300)).unwrap())
            );
            world.model().send(id, text.len());
            let patient = is_last || dice.percent(70);
            let patience = if patient { Patience::Endless } else { Patience::random(&mut dice) };
            let enqueue = exchange.enqueue("order.without", Message::new(text)).into_future();
            let handed_over = patience.with(enqueue).await;
            // nothing has happened since
            let link = connection.counters().reconnects;
            log!(world.trace, "carefree", "{number} on link {link}: {}", handed_over.is_some());
            match handed_over {
                None => continue,
                // it is confirmed at once
                Some(confirm) => drop(confirm?),
            }
            world.model().handed_over_without_confirm(id, link);
            if is_last {
                last += 1;
                world.model().settle(id, true);
            }
        }
    }
    Ok(())
}
