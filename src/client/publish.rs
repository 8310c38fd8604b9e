//! Publishing: futures that cost no allocation where nothing has to wait.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::channel::{Channel, Kind};
use super::confirm::Confirm;
use crate::codec::ShortStr;
use crate::error::{Error, ErrorKind, Origin, Result};
use crate::single::{BoxFuture, Message, Outbound, RoutingKey};

/// Hands a message over for writing when awaited, and returns its [`Confirm`]; see
/// [`Exchange::enqueue`](super::Exchange::enqueue).
///
/// Errors, with nothing sent: [`ErrorKind::Argument`] if routing key or properties break a limit;
/// [`ErrorKind::NotSent`] after a [`deadline`](Self::deadline), or as a robust connection's
/// [`on_outage`](crate::robust::Options::on_outage) says; the reason if the channel has ended.
///
/// # Cancel safety
/// Dropped before it is done, nothing is sent; never a part of a message.
#[must_use = "nothing is published until this is awaited"]
pub struct Enqueue<'a> {
    channel: &'a Channel,
    outbound: Outbound<'a>,
    limit: Option<Duration>,
    state: State,
}

enum State {
    /// Not tried yet.
    Ready(Message),
    /// It has to wait; this owns all that it needs.
    Waiting(BoxFuture<'static, Result<Confirm>>),
    /// It is handed over.
    Done,
}

impl<'a> Enqueue<'a> {
    #[inline]
    pub(super) fn new(
        channel: &'a Channel,
        exchange: &'a ShortStr,
        routing_key: RoutingKey<'a>,
        message: Message,
    ) -> Self {
        let outbound = Outbound { exchange, routing_key, mandatory: false, awaited: false };
        Self { channel, outbound, limit: None, state: State::Ready(message) }
    }

    /// If the message reaches no queue it comes back, instead of being dropped: its [`Confirm`] is then
    /// [`ErrorKind::Returned`].
    pub fn mandatory(mut self) -> Self {
        self.outbound.mandatory = true;
        self
    }

    /// How long everything may take from now on: waiting for a link or for room to write, being published again after a
    /// loss, and the confirm. It ends in one of three ways:
    ///
    /// - confirmed: `Ok`;
    /// - [`ErrorKind::NotSent`]: the message was not handed over in time. It is withdrawn, and will never arrive;
    /// - [`ErrorKind::Unconfirmed`], from the [`Confirm`]: the message was handed over and no confirm came. It may have
    ///   arrived, or may still arrive. It is not published again.
    ///
    /// So a web handler can answer 202, 503 or 504 and be right each time:
    ///
    /// ```no_run
    /// # async fn example(exchange: &lepus::Exchange) {
    /// use std::time::Duration;
    /// use lepus::ErrorKind;
    ///
    /// let published = exchange.publish("orders.new", "{}").deadline(Duration::from_secs(2)).await;
    /// let status = match published.map_err(|error| error.kind()) {
    ///     Ok(()) => 202,
    ///     Err(ErrorKind::NotSent) => 503,
    ///     Err(ErrorKind::Unconfirmed) => 504,
    ///     Err(_) => 500,
    /// };
    /// # let _ = status;
    /// # }
    /// ```
    ///
    /// It overrides what a robust connection's [`on_outage`](crate::robust::Options::on_outage) says.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    #[inline]
    fn attempt(&mut self) -> Result<Option<Confirm>> {
        let State::Ready(message) = &mut self.state else { return Ok(None) };
        match &self.channel.kind {
            Kind::Single(channel) => {
                let sent = channel.try_send(&self.outbound, message)?;
                Ok(sent.map(|sent| Confirm::single(channel.confirm(sent))))
            }
            Kind::Robust(channel) => {
                let confirm = channel.try_enqueue(&self.outbound, message, self.limit.is_some())?;
                Ok(confirm.map(Confirm::robust))
            }
        }
    }

    fn wait(&self, mut message: Message) -> BoxFuture<'static, Result<Confirm>> {
        let channel = self.channel.clone();
        let Outbound { exchange, ref routing_key, mandatory, awaited } = self.outbound;
        let (exchange, routing_key, limit) = (exchange.clone(), routing_key.detach(), self.limit);
        // one that lies too far ahead is none
        let deadline = limit.and_then(|limit| Some((limit, Instant::now().checked_add(limit)?)));
        let waits = match &channel.kind {
            Kind::Single(channel) => channel.publish_waits(),
            Kind::Robust(channel) => channel.publish_waits(),
        };
        Box::pin(async move {
            let _waits = waits;
            let outbound = Outbound { exchange: &exchange, routing_key, mandatory, awaited };
            let accepted = async {
                match &channel.kind {
                    Kind::Single(channel) => channel.enqueue(&outbound, &message).await.map(Confirm::single),
                    Kind::Robust(channel) => {
                        channel.enqueue(&outbound, &mut message, limit.is_some()).await.map(Confirm::robust)
                    }
                }
            };
            let Some((limit, deadline)) = deadline else { return accepted.await };
            match timeout_at(deadline, accepted).await {
                Ok(accepted) => Ok(accepted?.until(limit, deadline)),
                Err(_) => Err(not_sent(&outbound, limit, &channel)),
            }
        })
    }

    /// Not tried yet, or not possible at once.
    #[cold]
    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<Result<Confirm>> {
        if let State::Ready(message) = &mut self.state {
            let message = std::mem::take(message);
            self.state = State::Waiting(self.wait(message));
        }
        match &mut self.state {
            State::Waiting(waiting) => {
                let result = ready!(waiting.as_mut().poll(context));
                self.state = State::Done;
                Poll::Ready(result)
            }
            // polled again after it was done: a mistake of the caller's, which must not panic here
            State::Ready(_) | State::Done => Poll::Pending,
        }
    }

    /// Handed over at once.
    #[inline]
    fn handed_over(&mut self, confirm: Confirm) -> Confirm {
        self.state = State::Done;
        match self.limit {
            None => confirm,
            Some(limit) => match Instant::now().checked_add(limit) {
                Some(deadline) => confirm.until(limit, deadline),
                None => confirm,
            },
        }
    }
}

impl Future for Enqueue<'_> {
    type Output = Result<Confirm>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Confirm>> {
        let this = &mut *self;
        match this.attempt() {
            Ok(Some(confirm)) => Poll::Ready(Ok(this.handed_over(confirm))),
            Ok(None) => this.poll_waiting(context),
            Err(error) => {
                this.state = State::Done;
                Poll::Ready(Err(error))
            }
        }
    }
}

/// Publishes a message when awaited, and waits for its confirm; see
/// [`Exchange::publish`](super::Exchange::publish).
///
/// Errors: those of [`Enqueue`], and those of [`Confirm`].
///
/// # Cancel safety
/// Dropped before the message was handed over, nothing is sent; afterwards all of it is sent. Never a part.
#[must_use = "nothing is published until this is awaited"]
pub struct Publish<'a> {
    enqueue: Enqueue<'a>,
    confirm: Option<Confirm>,
}

impl<'a> Publish<'a> {
    #[inline]
    pub(super) fn new(enqueue: Enqueue<'a>) -> Self {
        let outbound = Outbound { awaited: true, ..enqueue.outbound };
        Self { enqueue: Enqueue { outbound, ..enqueue }, confirm: None }
    }

    /// If the message reaches no queue it comes back, instead of being dropped: this then fails with
    /// [`ErrorKind::Returned`].
    pub fn mandatory(mut self) -> Self {
        self.enqueue.outbound.mandatory = true;
        self
    }

    /// How long everything may take, the confirm included; see [`Enqueue::deadline`].
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.enqueue.limit = Some(limit);
        self
    }
}

impl Future for Publish<'_> {
    type Output = Result<()>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        let confirm = match &mut this.confirm {
            Some(confirm) => confirm,
            None => this.confirm.insert(ready!(Pin::new(&mut this.enqueue).poll(context))?),
        };
        Pin::new(confirm).poll(context)
    }
}

/// The deadline has passed before the message could be handed over.
fn not_sent(outbound: &Outbound<'_>, limit: Duration, channel: &Channel) -> Error {
    let limit = limit.as_secs_f32();
    let text =
        format!("{outbound}: not sent within its deadline of {limit} s; it is withdrawn and will not arrive");
    let error = Error::new(ErrorKind::NotSent, text);
    match &channel.kind {
        Kind::Robust(channel) => match channel.down() {
            Some(why) => error.with_origin(why.origin()).with_source(why),
            None => error.with_origin(Origin::User),
        },
        Kind::Single(_) => error.with_origin(Origin::User),
    }
}

impl fmt::Debug for Enqueue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enqueue").field("outbound", &self.outbound).finish_non_exhaustive()
    }
}

impl fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Publish").field(&self.enqueue).finish()
    }
}
