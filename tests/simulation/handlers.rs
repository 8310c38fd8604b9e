//! A user who consumes with a handler.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lepus::{Error, ErrorKind, Incoming, OnError, Worker};
use tokio::time::{sleep, timeout};

use crate::dice::Dice;
use crate::publishers::declare;
use crate::trace::log;
use crate::world::{Connection, JOBS, Queue, World};

/// Takes the jobs with a handler, until the connection is closed. Some fail and go back; now and then the worker is drained, and
/// another one takes over.
pub(crate) async fn work(world: Arc<World>, connection: Connection, mut dice: Dice) -> Result<(), Error> {
    let channel = connection.channel().await?;
    declare(&channel).await?;
    let queue = channel.queue(JOBS)?;
    let mut worker = start(&world, &queue, &mut dice).await?;
    world.set_up("jobs");
    loop {
        let time = dice.millis(1000, 60_000);
        if timeout(time, worker.ended()).await.is_ok() {
            return worker.ended().await;
        }
        if !world.has_faults() {
            return worker.ended().await;
        }
        log!(world.trace, "worker", "is drained");
        world.model().restarts += 1;
        worker.drain().await?;
        log!(world.trace, "worker", "has ended");
        worker = loop {
            match start(&world, &queue, &mut dice).await {
                Err(error) if error.kind() == ErrorKind::Timeout => {
                    log!(world.trace, "worker", "tries again: {error}");
                }
                worker => break worker?,
            }
        };
    }
}

async fn start(world: &Arc<World>, queue: &Queue, dice: &mut Dice) -> Result<Worker, Error> {
    let (prefetch, concurrency) = (dice.pick(&[1, 3, 50]), dice.pick(&[1, 1, 4]));
    let (slow, refuses) = (dice.below(40), dice.below(10));
    let (world, dice) = (Arc::clone(world), Arc::new(Mutex::new(dice.fork())));
    let handler = move |incoming: Incoming| {
        let world = Arc::clone(&world);
        let (pause, fails) = {
            let mut dice = dice.lock().unwrap();
            (dice.percent(slow).then(|| dice.millis(1, 3000)), dice.percent(refuses))
        };
        async move {
            let id = world.model().receive(&incoming);
            log!(world.trace, "worker", "got {id:?}");
            if world.is_chaos() {
                sleep(pause.unwrap_or(Duration::ZERO)).await;
            }
            if fails && world.is_chaos() { Err("not now") } else { Ok(()) }
        }
    };
    let handle = queue.consume().prefetch(prefetch).handle(handler);
    handle.concurrency(concurrency).on_error(OnError::Requeue).await
}
