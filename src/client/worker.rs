//! Consuming with a handler: acknowledged when it succeeds, rejected when it fails.

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::future::{Future, IntoFuture};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

use super::channel::Channel;
use super::consumer::{Consumer, ConsumerBuilder};
use crate::codec::ShortStr;
use crate::codec::peer_text::PeerText;
use crate::error::{Error, ErrorKind, Result};
use crate::single::{Acker, BoxFuture, Incoming};

/// What happens to a message whose handler failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnError {
    /// It is dropped, or dead-lettered where the queue says so.
    #[default]
    Reject,
    /// It goes back to its queue, and is delivered again: at once, and as often as its handler fails, unless the
    /// queue has a delivery limit.
    Requeue,
}

/// Starts a consumer with a handler when awaited; see [`ConsumerBuilder::handle`].
///
/// The handler gets each message, at most [`concurrency`](Self::concurrency) at a time. Its `Ok`
/// acknowledges the message. An error, which is anything that can be displayed, rejects it, or requeues it where
/// [`on_error`](Self::on_error) says so. A panic rejects it, and the consumer goes on. Errors and panics are
/// told to [`tracing`], as events of level `WARN` and `ERROR`, and to nobody else.
///
/// The handlers run on the tokio runtime on which it is started, and end with that.
///
/// # Stale deliveries
/// A delivery goes [stale](crate::Delivery::is_stale) when its channel or link ends, or the server cancels the consumer: the
/// server has taken the message back. Then the handler's future is dropped at its next `await`, and a warning names the
/// queue, the routing key and the message id. Its work could not be acknowledged, and would be done a second time anyway;
/// going on would only do both at the same time. A message must be safe to be worked on twice in either case, as after a
/// crash. Work that was moved elsewhere, such as to `spawn_blocking`, goes on. The server also cancels a consumer whose queue
/// was deleted; then the message does not come again.
///
/// A handler that must not be stopped between two of its steps asks for [`finish_stale`](Self::finish_stale).
///
/// What the handler shares between its calls it clones for each of them:
///
/// ```no_run
/// # async fn example(queue: &lepus::Queue) -> lepus::Result<()> {
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// let seen = Arc::new(AtomicUsize::new(0));
/// let worker = queue
///     .consume()
///     .prefetch(20)
///     .handle(move |message| {
///         let seen = Arc::clone(&seen);
///         async move {
///             println!("{}: {:?}", seen.fetch_add(1, Ordering::Relaxed), message.body_str());
///             Ok::<_, std::io::Error>(())
///         }
///     })
///     .concurrency(4)
///     .await?;
/// // … until it is time to stop:
/// worker.drain().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a consumer is started when this is awaited"]
pub struct WorkerBuilder<'a, F> {
    consume: ConsumerBuilder<'a>,
    handler: F,
    concurrency: usize,
    on_error: OnError,
    finish_stale: bool,
}

impl<'a, F> WorkerBuilder<'a, F> {
    pub(super) fn new(consume: ConsumerBuilder<'a>, handler: F) -> Self {
        Self { consume, handler, concurrency: 1, on_error: OnError::default(), finish_stale: false }
    }

    /// How many messages are worked on at a time; 1 unless set, and at least: then one after the other, in
    /// order. More than the consumer's prefetch are never there.
    pub fn concurrency(mut self, messages: usize) -> Self {
        self.concurrency = messages.max(1);
        self
    }

    /// What happens to a message whose handler returned an error; [`OnError::Reject`] unless set.
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = on_error;
        self
    }

    /// Whether a handler runs to its end although its delivery has gone stale; false unless set: then its future is
    /// dropped. If it goes on, the same message may be worked on in two places at once, and its end changes nothing: the
    /// message is delivered again.
    pub fn finish_stale(mut self, finish: bool) -> Self {
        self.finish_stale = finish;
        self
    }
}

impl<'a, F, R, E> IntoFuture for WorkerBuilder<'a, F>
where
    F: Fn(Incoming) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    type Output = Result<Worker>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let channel = self.consume.channel().clone();
            let queue = self.consume.queue().clone();
            let consumer = self.consume.await?;
            let (stop, stopped) = watch::channel(false);
            let pool = Pool {
                channel,
                queue,
                consumer,
                handler: Arc::new(self.handler),
                running: JoinSet::new(),
                ackers: HashMap::new(),
                concurrency: self.concurrency,
                on_error: self.on_error,
                finish_stale: self.finish_stale,
            };
            let (ended, done) = watch::channel(None);
            tokio::spawn(async move {
                let result = pool.run(stopped).await;
                ended.send_replace(Some(result));
            });
            Ok(Worker { stop, done })
        })
    }
}

/// A consumer with a handler, at work in the background.
///
/// Dropped, it stops as [`drain`](Self::drain) does, in the background.
#[derive(Debug)]
#[must_use = "dropped, it stops"]
pub struct Worker {
    stop: watch::Sender<bool>,
    /// How it ended, once it has.
    done: watch::Receiver<Option<Result<()>>>,
}

impl Worker {
    /// Stops in order: cancels the consumer, gives back what no handler has begun, and waits for the
    /// handlers that run, and until their acks are written.
    ///
    /// # Errors
    /// Why the consumer ended, if it ended by itself before.
    ///
    /// # Cancel safety
    /// Once called, it goes on in the background.
    pub async fn drain(mut self) -> Result<()> {
        self.stop.send_replace(true);
        self.ended().await
    }

    /// Waits until the consumer ends by itself.
    ///
    /// # Errors
    /// Why it ended; nothing but the user's own close of the channel or connection is `Ok`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ended(&mut self) -> Result<()> {
        // an error: the worker's own task is gone without a word, as when the runtime shuts down
        let stopped = || Err(Error::new(ErrorKind::Closed, "the worker was stopped"));
        match self.done.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or_else(stopped),
            Err(_) => stopped(),
        }
    }
}

/// The worker's task.
struct Pool<F, E> {
    channel: Channel,
    queue: ShortStr,
    consumer: Consumer,
    handler: Arc<F>,
    running: JoinSet<Outcome<E>>,
    /// How to acknowledge what each running handler works on.
    ackers: HashMap<Id, Acker>,
    concurrency: usize,
    on_error: OnError,
    finish_stale: bool,
}

/// How a handler's task ends, unless it panics.
enum Outcome<E> {
    Done(Result<(), E>),
    /// The handler was dropped, because its delivery of this message has gone stale.
    Stale(Incoming),
}

impl<F, R, E> Pool<F, E>
where
    F: Fn(Incoming) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    async fn run(mut self, mut stopped: watch::Receiver<bool>) -> Result<()> {
        let ended = loop {
            tokio::select! {
                biased;
                // an error: the worker was dropped
                _ = stopped.wait_for(|stop| *stop) => break Ok(()),
                Some(done) = self.running.join_next_with_id() => self.settle(done),
                next = self.consumer.next(), if self.running.len() < self.concurrency => match next {
                    Some(Ok(delivery)) => self.begin(delivery.into_parts()),
                    Some(Err(error)) if error.kind() == ErrorKind::MessageTooLarge => {
                        tracing::warn!(%error, "no handler gets a message that is too large");
                    }
                    Some(Err(error)) => break Err(error),
                    None => break Ok(()),
                },
            }
        };
        if ended.is_ok() {
            // refused: the channel has ended, and the consumer with it
            drop(self.consumer.cancel().await);
        }
        // what no handler has begun goes back while those that run finish
        let Self { channel, queue, consumer, mut running, mut ackers, on_error, .. } = self;
        drop(consumer);
        while let Some(done) = running.join_next_with_id().await {
            settle(&queue, &mut ackers, on_error, done);
        }
        // a program may end right after this
        channel.flush().await;
        ended
    }

    fn begin(&mut self, (message, acker): (Incoming, Acker)) {
        let handler = Arc::clone(&self.handler);
        let stale = (acker.is_needed() && !self.finish_stale).then(|| (message.clone(), acker.going_stale()));
        // the call itself may panic, too, so it happens within the task
        let handling = async move { handler(message).await };
        let task = self.running.spawn(async move {
            let Some((message, stale)) = stale else { return Outcome::Done(handling.await) };
            tokio::select! {
                biased;
                done = handling => Outcome::Done(done),
                () = stale => Outcome::Stale(message),
            }
        });
        self.ackers.insert(task.id(), acker);
    }

    fn settle(&mut self, done: std::result::Result<(Id, Outcome<E>), JoinError>) {
        settle(&self.queue, &mut self.ackers, self.on_error, done);
    }
}

fn settle<E: Display>(
    queue: &ShortStr,
    ackers: &mut HashMap<Id, Acker>,
    on_error: OnError,
    done: std::result::Result<(Id, Outcome<E>), JoinError>,
) {
    let (id, requeue) = match done {
        Ok((id, Outcome::Done(Ok(())))) => (id, None),
        Ok((id, Outcome::Stale(message))) => {
            tell_stale(queue, &message);
            ackers.remove(&id);
            return;
        }
        Ok((id, Outcome::Done(Err(error)))) => {
            // with the causes, where the error can show them
            let error = format_args!("{error:#}");
            tracing::warn!(%error, ?on_error, "a handler failed");
            (id, Some(on_error == OnError::Requeue))
        }
        Err(error) => {
            tracing::error!(%error, "a handler panicked; its message is rejected");
            (error.id(), Some(false))
        }
    };
    let Some(acker) = ackers.remove(&id).filter(Acker::is_needed) else { return };
    if acker.is_stale() {
        let delivery_tag = acker.delivery_tag();
        let queue = PeerText(queue.as_bytes());
        tracing::info!(%queue, delivery_tag, "a handler ended after its delivery went stale: the message comes again, unless its queue was deleted");
    }
    let settled = match requeue {
        None => acker.ack(),
        Some(requeue) => acker.reject(requeue),
    };
    if let Err(error) = settled {
        // the channel has ended: the server delivers the message again
        tracing::debug!(%error, "a message could not be settled");
    }
}

fn tell_stale(queue: &ShortStr, message: &Incoming) {
    // properties that cannot be read name nothing
    let id = message.properties().ok().and_then(|properties| properties.message_id);
    tracing::warn!(
        queue = %PeerText(queue.as_bytes()),
        routing_key = %PeerText(message.routing_key_bytes()),
        message_id = %PeerText(id.as_ref().map_or(&[], |id| id.as_bytes())),
        "a handler was stopped: its delivery went stale, and the message comes again, unless its queue was deleted"
    );
}

impl<F> fmt::Debug for WorkerBuilder<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("consume", &self.consume)
            .field("concurrency", &self.concurrency)
            .field("on_error", &self.on_error)
            .field("finish_stale", &self.finish_stale)
            .finish_non_exhaustive()
    }
}
