//! Publishing: futures that cost no allocation where nothing has to wait.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::carrier::{BoxFuture, Carrier, Outbound};
use super::channel::Channel;
use super::message::Message;
use super::routing_key::RoutingKey;
use crate::codec::ShortStr;
use crate::error::{Error, ErrorKind, Origin, Result};

/// Hands a message over for writing when awaited, and returns its [`Confirm`](super::Confirm); see
/// [`Exchange::enqueue`](super::Exchange::enqueue).
///
/// Errors, with nothing sent: [`ErrorKind::Argument`](crate::ErrorKind::Argument) if routing key or
/// properties break a limit; the reason if the channel has ended.
///
/// # Cancel safety
/// Dropped before it is done, nothing is sent; never a part of a message.
#[must_use = "nothing is published until this is awaited"]
pub struct Enqueue<'a, C: Carrier = Channel> {
    carrier: &'a C,
    outbound: Outbound<'a>,
    state: State<C::Confirm>,
}

enum State<T> {
    /// Not tried yet.
    Ready(Message),
    /// It has to wait; this owns all that it needs.
    Waiting(BoxFuture<'static, Result<T>>),
    /// It is handed over.
    Done,
}

impl<'a, C: Carrier> Enqueue<'a, C> {
    #[inline]
    pub(super) fn new(
        carrier: &'a C,
        exchange: &'a ShortStr,
        routing_key: RoutingKey<'a>,
        message: Message,
    ) -> Self {
        let outbound = Outbound { exchange, routing_key, mandatory: false, awaited: false, patience: None };
        Self { carrier, outbound, state: State::Ready(message) }
    }

    /// If the message reaches no queue it comes back, instead of being dropped: its [`Confirm`](super::Confirm) is then
    /// [`ErrorKind::Returned`](crate::ErrorKind::Returned).
    pub fn mandatory(mut self) -> Self {
        self.outbound.mandatory = true;
        self
    }

    /// Waits at most so long until the message can be handed over: while the server blocks, while too much waits
    /// to be written, and on a robust connection while there is none, whatever that says for all messages. Then
    /// it fails with [`ErrorKind::Timeout`], and nothing is sent. [`Duration::MAX`] is for ever.
    pub fn wait_at_most(mut self, limit: Duration) -> Self {
        self.outbound.patience = Some(limit);
        self
    }

    fn wait(&self, mut message: Message) -> BoxFuture<'static, Result<C::Confirm>> {
        let carrier = self.carrier.clone();
        let Outbound { exchange, ref routing_key, mandatory, awaited, patience } = self.outbound;
        let (exchange, routing_key) = (exchange.clone(), routing_key.detach());
        Box::pin(async move {
            let outbound = Outbound { exchange: &exchange, routing_key, mandatory, awaited, patience };
            let accepted = carrier.enqueue(&outbound, &mut message);
            let Some(patience) = patience else { return accepted.await };
            tokio::time::timeout(patience, accepted)
                .await
                .unwrap_or_else(|_| Err(not_handed_over(&outbound, patience)))
        })
    }

    /// Not tried yet, or not possible at once.
    #[cold]
    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<Result<C::Confirm>> {
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
}

impl<C: Carrier> Future for Enqueue<'_, C> {
    type Output = Result<C::Confirm>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<C::Confirm>> {
        let this = &mut *self;
        if let State::Ready(message) = &mut this.state
            && let Some(tried) = this.carrier.try_enqueue(&this.outbound, message).transpose()
        {
            this.state = State::Done;
            return Poll::Ready(tried);
        }
        this.poll_waiting(context)
    }
}

/// Publishes a message when awaited, and waits for its confirm; see
/// [`Exchange::publish`](super::Exchange::publish).
///
/// Errors: those of [`Enqueue`], and those of [`Confirm`](super::Confirm).
///
/// # Cancel safety
/// Dropped before the message was handed over, nothing is sent; afterwards all of it is sent. Never a part.
#[must_use = "nothing is published until this is awaited"]
pub struct Publish<'a, C: Carrier = Channel> {
    enqueue: Enqueue<'a, C>,
    confirm: Option<C::Confirm>,
}

impl<'a, C: Carrier> Publish<'a, C> {
    #[inline]
    pub(super) fn new(enqueue: Enqueue<'a, C>) -> Self {
        let outbound = Outbound { awaited: true, ..enqueue.outbound };
        Self { enqueue: Enqueue { outbound, ..enqueue }, confirm: None }
    }

    /// If the message reaches no queue it comes back, instead of being dropped: this then fails with
    /// [`ErrorKind::Returned`](crate::ErrorKind::Returned).
    pub fn mandatory(mut self) -> Self {
        self.enqueue.outbound.mandatory = true;
        self
    }

    /// Waits at most so long until the message can be handed over; see [`Enqueue::wait_at_most`]. The wait for
    /// the confirm is not limited by this.
    pub fn wait_at_most(mut self, limit: Duration) -> Self {
        self.enqueue.outbound.patience = Some(limit);
        self
    }
}

impl<C: Carrier> Future for Publish<'_, C> {
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

/// The caller's limit ended the wait for a connection, or for room to write.
fn not_handed_over(outbound: &Outbound<'_>, limit: Duration) -> Error {
    let limit = limit.as_secs_f32();
    let text =
        format!("{outbound}: not sent, because it could not be written within {limit} s (wait_at_most)");
    Error::new(ErrorKind::Timeout, text).with_origin(Origin::User)
}

impl<C: Carrier> fmt::Debug for Enqueue<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enqueue").field("outbound", &self.outbound).finish_non_exhaustive()
    }
}

impl<C: Carrier> fmt::Debug for Publish<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Publish").field(&self.enqueue).finish()
    }
}
