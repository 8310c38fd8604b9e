//! A user who makes mistakes, on a channel beside those of others.

use std::sync::Arc;

use lepus::{Error, ErrorKind, ExchangeKind};
use tokio::time::sleep;

use crate::dice::Dice;
use crate::trace::log;
use crate::world::{Channel, Connection, World};

/// Makes mistakes until the faults are over. Each is answered with its own error, and its channel can be used again.
pub(crate) async fn blunder(world: Arc<World>, connection: Connection, mut dice: Dice) -> Result<(), Error> {
    let channel = loop {
        match connection.channel().await {
            Err(error) if error.kind() == ErrorKind::Timeout => {}
            channel => break channel?,
        }
    };
    while world.is_chaos() {
        let pause = dice.millis(100, 8000);
        sleep(pause).await;
        let mistake = dice.below(4);
        let done = make(&channel, mistake).await;
        log!(world.trace, "careless", "mistake {mistake}: {done:?}");
        let (kind, code) = match mistake {
            0 | 1 => (ErrorKind::ChannelClosed, Some(404)),
            2 => (ErrorKind::ChannelClosed, Some(406)),
            _ => (ErrorKind::Returned, Some(312)),
        };
        match done {
            Err(error) if error.kind() == kind && error.reply_code() == code => {}
            // a call may be lost, and a publish may be nacked
            Err(error) if mistake != 0 && mistake != 3 && error.kind() == ErrorKind::Timeout => {}
            Err(error) if mistake == 3 && error.kind() == ErrorKind::Nacked => {}
            // the broker nacks what it would have refused, if a fault says so
            Err(error) if mistake == 0 && error.kind() == ErrorKind::Nacked => {}
            other => world.model().wrong(format!("mistake {mistake} was answered with {other:?}")),
        }
    }
    Ok(())
}

async fn make(channel: &Channel, mistake: u64) -> Result<(), Error> {
    match mistake {
        0 => channel.exchange("nowhere")?.publish("", "lost").await,
        1 => channel.declare_queue("nowhere").passive().await.map(drop),
        2 => channel.declare_exchange("amq.topic", ExchangeKind::Fanout).await.map(drop),
        _ => channel.default_exchange().publish("nowhere", "lost").mandatory().await,
    }
}
