//! What a connection tells of itself.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::ledger::entity::{Entity, Unrestored};
use crate::codec::ShortStr;
use crate::error::{Error, ErrorKind};
use crate::single::{Blocked, SingleConnection};

/// Something that happened to a robust connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The link was lost. Attempts follow until [`Restored`](Self::Restored) or [`GaveUp`](Self::GaveUp).
    Lost {
        /// Why.
        error: Error,
    },
    /// An attempt to connect begins.
    Attempt {
        /// Its number since the loss, from 1 on.
        number: u32,
        /// Where.
        host: String,
        /// The port there.
        port: u16,
    },
    /// An attempt failed, in connecting or in restoring.
    Failed {
        /// Its number since the loss.
        number: u32,
        /// Where.
        host: String,
        /// The port there.
        port: u16,
        /// Why.
        error: Error,
    },
    /// Everything is back, but for what is listed.
    Restored {
        /// How long it took since the loss.
        took: Duration,
        /// What the broker refused.
        unrestored: Vec<Unrestored>,
    },
    /// A server-named queue has a new name.
    Renamed {
        /// The name that it had.
        old: ShortStr,
        /// The name that it has.
        new: ShortStr,
    },
    /// The server closed a channel, which is opened again. Or the server did not answer a call on it in time
    /// ([`ErrorKind::Timeout`]), and it was closed here, to be opened again.
    ChannelClosed {
        /// Why.
        error: Error,
    },
    /// That channel is back, but for what is listed.
    ChannelRestored {
        /// What the broker refused.
        unrestored: Vec<Unrestored>,
    },
    /// The server cancelled a consumer, for example because its queue was deleted. It starts again once the queue is there;
    /// see [`Options::revive_consumers`](super::Options::revive_consumers).
    ConsumerCancelled {
        /// The queue that it consumed from.
        queue: ShortStr,
        /// Its tag.
        tag: ShortStr,
        /// What its stream would have ended with.
        error: Error,
    },
    /// A consumer runs again that the server had cancelled, or had refused to start in a restore.
    ConsumerRestored {
        /// The queue that it consumes from.
        queue: ShortStr,
        /// Its tag.
        tag: ShortStr,
    },
    /// The server refuses a consumer again and again, and its stream has ended with this error; see
    /// [`Options::revive_consumers`](super::Options::revive_consumers).
    ConsumerGaveUp {
        /// The queue that it consumed from.
        queue: ShortStr,
        /// Its tag.
        tag: ShortStr,
        /// What the server said last.
        error: Error,
    },
    /// The broker has taken what it had refused in a restore: an exchange, a queue or a binding. Such entities are tried again at
    /// intervals of 1 to 30 s, as long as the link lives.
    EntityRestored {
        /// What is back.
        entity: Entity,
    },
    /// The server takes no publishes at the moment.
    Blocked {
        /// Why, such as `low on memory`.
        reason: ShortStr,
    },
    /// The server takes publishes again.
    Unblocked,
    /// No further attempt is made: everything on the connection has ended.
    GaveUp {
        /// Why.
        error: Error,
    },
}

/// How often things happened on a robust connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Links that were lost and replaced.
    pub reconnects: u64,
    /// Messages that were published again.
    pub republished: u64,
    /// Acknowledgements that were too late, and not sent.
    pub stale_acks: u64,
}

/// The events of a connection from the time on that this was made, as a stream; see
/// [`Connection::events`](crate::Connection::events). Ends with the connection.
///
/// The last 256 events are kept for whoever is slow; [`missed`](Self::missed) counts those that had to go.
pub struct Events {
    waiting: Waiting,
    missed: u64,
}

/// The next event, and where those after it come from.
type Waiting = Pin<Box<dyn Future<Output = (Next, Source)> + Send + Sync>>;

/// How many events are kept for listeners.
pub(super) const KEPT: usize = 256;

/// Where events come from.
enum Source {
    Robust(Receiver<Event>),
    /// A plain connection: its end, and whether it was blocked.
    Single {
        end: Pin<Box<dyn Future<Output = Error> + Send + Sync>>,
        blocked: Blocked,
    },
    Over,
}

/// What comes next.
enum Next {
    Event(Event),
    /// So many had to go.
    Missed(u64),
    End,
}

impl Events {
    pub(super) fn new(receiver: Receiver<Event>) -> Self {
        Self { waiting: Box::pin(Source::Robust(receiver).next()), missed: 0 }
    }

    /// Of a plain connection: when the server blocks publishers, and how it ends.
    pub(crate) fn of_single(connection: &SingleConnection) -> Self {
        let (end, blocked) = (Box::pin(connection.over()), connection.watch_blocked());
        Self { waiting: Box::pin(Source::Single { end, blocked }.next()), missed: 0 }
    }

    /// The next event; `None` once the connection has ended and all were taken.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// How many events had to go because nobody took them in time.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

impl Source {
    async fn next(self) -> (Next, Self) {
        match self {
            Self::Robust(mut receiver) => {
                let next = match receiver.recv().await {
                    Ok(event) => Next::Event(event),
                    Err(RecvError::Lagged(events)) => Next::Missed(events),
                    Err(RecvError::Closed) => Next::End,
                };
                (next, Self::Robust(receiver))
            }
            Self::Single { mut end, mut blocked } => {
                let event = tokio::select! {
                    biased;
                    error = &mut end => {
                        let by_user = error.kind() == ErrorKind::Closed;
                        let next = if by_user { Next::End } else { Next::Event(Event::GaveUp { error }) };
                        return (next, Self::Over);
                    }
                    reason = blocked.changed() => {
                        reason.map_or(Event::Unblocked, |reason| Event::Blocked { reason })
                    }
                };
                (Next::Event(event), Self::Single { end, blocked })
            }
            Self::Over => (Next::End, Self::Over),
        }
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            let (next, source) = ready!(self.waiting.as_mut().poll(context));
            self.waiting = Box::pin(source.next());
            match next {
                Next::Event(event) => return Poll::Ready(Some(event)),
                Next::Missed(events) => self.missed += events,
                Next::End => return Poll::Ready(None),
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("missed", &self.missed).finish_non_exhaustive()
    }
}
