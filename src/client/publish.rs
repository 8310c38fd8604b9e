//! Publishing: futures that cost no allocation where nothing has to wait.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;

use super::carrier::{BoxFuture, Carrier, Outbound};
use super::channel::Channel;
use super::message::Message;
use crate::codec::ShortStr;
use crate::error::{Error, ErrorKind, Result};

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
    exchange: &'a ShortStr,
    routing_key: RoutingKey<'a>,
    mandatory: bool,
    awaited: bool,
    patience: Option<Duration>,
    state: State<C::Confirm>,
}

/// A routing key to publish with: at most 255 bytes. Borrowed keys cost nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutingKey<'a>(Key<'a>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

impl RoutingKey<'_> {
    fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Key::Borrowed(key) => key,
            Key::Owned(key) => key,
        }
    }
}

impl<'a> From<&'a str> for RoutingKey<'a> {
    fn from(key: &'a str) -> Self {
        Self(Key::Borrowed(key.as_bytes()))
    }
}

impl<'a> From<&'a String> for RoutingKey<'a> {
    fn from(key: &'a String) -> Self {
        Self(Key::Borrowed(key.as_bytes()))
    }
}

impl<'a> From<&'a [u8]> for RoutingKey<'a> {
    fn from(key: &'a [u8]) -> Self {
        Self(Key::Borrowed(key))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for RoutingKey<'a> {
    fn from(key: &'a [u8; N]) -> Self {
        key.as_slice().into()
    }
}

impl<'a> From<&'a ShortStr> for RoutingKey<'a> {
    fn from(key: &'a ShortStr) -> Self {
        Self(Key::Borrowed(key.as_bytes()))
    }
}

impl From<String> for RoutingKey<'_> {
    fn from(key: String) -> Self {
        Self(Key::Owned(key.into()))
    }
}

impl From<ShortStr> for RoutingKey<'_> {
    fn from(key: ShortStr) -> Self {
        Self(Key::Owned(key.into_bytes()))
    }
}

impl<'a> From<Cow<'a, str>> for RoutingKey<'a> {
    fn from(key: Cow<'a, str>) -> Self {
        match key {
            Cow::Borrowed(key) => key.into(),
            Cow::Owned(key) => key.into(),
        }
    }
}

impl<'a> From<&'a Cow<'_, str>> for RoutingKey<'a> {
    fn from(key: &'a Cow<'_, str>) -> Self {
        Self(Key::Borrowed(key.as_bytes()))
    }
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
    pub(super) fn new(
        carrier: &'a C,
        exchange: &'a ShortStr,
        routing_key: RoutingKey<'a>,
        message: Message,
    ) -> Self {
        Self {
            carrier,
            exchange,
            routing_key,
            mandatory: false,
            awaited: false,
            patience: None,
            state: State::Ready(message),
        }
    }

    /// If the message reaches no queue it comes back, instead of being dropped: its [`Confirm`](super::Confirm) is then
    /// [`ErrorKind::Returned`](crate::ErrorKind::Returned).
    pub fn mandatory(mut self) -> Self {
        self.mandatory = true;
        self
    }

    /// Waits at most so long until the message can be handed over: while the server blocks, while too much waits
    /// to be written, and on a robust connection while there is none, whatever that says for all messages. Then
    /// it fails with [`ErrorKind::Timeout`], and nothing is sent. [`Duration::MAX`] is for ever.
    pub fn wait_at_most(mut self, limit: Duration) -> Self {
        self.patience = Some(limit);
        self
    }

    fn wait(&self, mut message: Message) -> BoxFuture<'static, Result<C::Confirm>> {
        let (carrier, exchange) = (self.carrier.clone(), self.exchange.clone());
        let routing_key = Bytes::copy_from_slice(self.routing_key.as_bytes());
        let (mandatory, awaited, patience) = (self.mandatory, self.awaited, self.patience);
        Box::pin(async move {
            let outbound = Outbound {
                exchange: &exchange,
                routing_key: &routing_key,
                mandatory,
                awaited,
                patience,
                message: &mut message,
            };
            let accepted = carrier.enqueue(outbound);
            let Some(patience) = patience else { return accepted.await };
            tokio::time::timeout(patience, accepted).await.unwrap_or_else(|_| {
                let text = "the message could not be handed over in time, and was not sent";
                Err(Error::new(ErrorKind::Timeout, text))
            })
        })
    }
}

impl<C: Carrier> Future for Enqueue<'_, C> {
    type Output = Result<C::Confirm>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let State::Ready(message) = &mut this.state {
            let Self { carrier, exchange, mandatory, awaited, patience, .. } = *this;
            let routing_key = this.routing_key.as_bytes();
            let outbound = Outbound { exchange, routing_key, mandatory, awaited, patience, message };
            match carrier.try_enqueue(outbound) {
                Ok(None) => {}
                Ok(Some(confirm)) => {
                    this.state = State::Done;
                    return Poll::Ready(Ok(confirm));
                }
                Err(error) => {
                    this.state = State::Done;
                    return Poll::Ready(Err(error));
                }
            }
        }
        if let State::Ready(message) = &mut this.state {
            let message = std::mem::take(message);
            this.state = State::Waiting(this.wait(message));
        }
        match &mut this.state {
            State::Waiting(waiting) => {
                let result = ready!(waiting.as_mut().poll(context));
                this.state = State::Done;
                Poll::Ready(result)
            }
            // polled again after it was done: a mistake of the caller's, which must not panic here
            State::Ready(_) | State::Done => Poll::Pending,
        }
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
    pub(super) fn new(enqueue: Enqueue<'a, C>) -> Self {
        Self { enqueue: Enqueue { awaited: true, ..enqueue }, confirm: None }
    }

    /// If the message reaches no queue it comes back, instead of being dropped: this then fails with
    /// [`ErrorKind::Returned`](crate::ErrorKind::Returned).
    pub fn mandatory(mut self) -> Self {
        self.enqueue.mandatory = true;
        self
    }

    /// Waits at most so long until the message can be handed over; see [`Enqueue::wait_at_most`]. The wait for
    /// the confirm is not limited by this.
    pub fn wait_at_most(mut self, limit: Duration) -> Self {
        self.enqueue.patience = Some(limit);
        self
    }
}

impl<C: Carrier> Future for Publish<'_, C> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        let confirm = match &mut this.confirm {
            Some(confirm) => confirm,
            None => this.confirm.insert(ready!(Pin::new(&mut this.enqueue).poll(context))?),
        };
        Pin::new(confirm).poll(context)
    }
}

impl<C: Carrier> fmt::Debug for Enqueue<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enqueue")
            .field("exchange", &self.exchange)
            .field("routing_key", &String::from_utf8_lossy(self.routing_key.as_bytes()))
            .field("mandatory", &self.mandatory)
            .finish_non_exhaustive()
    }
}

impl<C: Carrier> fmt::Debug for Publish<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Publish").field(&self.enqueue).finish()
    }
}
