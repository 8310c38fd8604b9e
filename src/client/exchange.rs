//! Exchanges: where messages are published to.

use std::fmt;
use std::future::IntoFuture;

use super::channel::Channel;
use super::publish::{Enqueue, Publish};
use crate::codec::generated::exchange;
use crate::codec::{FieldValue, ShortStr};
use crate::error::Result;
use crate::single::{BoxFuture, Collected, Message, RoutingKey, short};

/// An exchange: a cheap handle, to be cloned and shared.
#[derive(Clone, Debug)]
pub struct Exchange {
    channel: Channel,
    name: ShortStr,
}

/// How an exchange chooses the queues for a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExchangeKind {
    /// The routing key equals the binding's key.
    Direct,
    /// Every bound queue.
    Fanout,
    /// The routing key matches the binding's pattern: words with dots between, `*` for one word, `#` for
    /// any number.
    Topic,
    /// The message's headers match the binding's arguments; see `x-match`.
    Headers,
    /// A type that the broker, or a plugin of it, adds, such as `x-consistent-hash`.
    Other(ShortStr),
}

impl ExchangeKind {
    fn name(self) -> ShortStr {
        let name = match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
            Self::Other(name) => return name,
        };
        // shorter than 255 bytes
        ShortStr::try_from(name).unwrap_or_default()
    }
}

impl From<ShortStr> for ExchangeKind {
    fn from(name: ShortStr) -> Self {
        Self::Other(name)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for ExchangeKind {
    /// The word that the server knows it by.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.clone().name().serialize(serializer)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for ExchangeKind {
    /// From the word that the server knows it by; an unknown one is [`Other`](Self::Other).
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = ShortStr::deserialize(deserializer)?;
        let known = [Self::Direct, Self::Fanout, Self::Topic, Self::Headers];
        Ok(known.into_iter().find(|kind| kind.clone().name() == name).unwrap_or(Self::Other(name)))
    }
}

impl Exchange {
    pub(crate) fn new(channel: Channel, name: ShortStr) -> Self {
        Self { channel, name }
    }

    /// Its name; empty for the default exchange.
    pub fn name(&self) -> &ShortStr {
        &self.name
    }

    /// Publishes a message and waits until the broker has confirmed it: then the broker is responsible
    /// for it. On a channel without confirms, until it is handed over for writing.
    ///
    /// ```no_run
    /// # async fn example(exchange: &lepus::Exchange) -> lepus::Result<()> {
    /// use lepus::Message;
    ///
    /// let message = Message::new(r#"{"id":1}"#).content_type("application/json");
    /// exchange.publish("orders.new", message).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn publish<'a>(
        &'a self,
        routing_key: impl Into<RoutingKey<'a>>,
        message: impl Into<Message>,
    ) -> Publish<'a> {
        Publish::new(self.enqueue(routing_key, message))
    }

    /// Hands a message over for writing, and returns a [`Confirm`](super::Confirm) to await later: so
    /// that many messages are under way at once. Waits only while too much waits to be written, or the server blocks.
    #[inline]
    pub fn enqueue<'a>(
        &'a self,
        routing_key: impl Into<RoutingKey<'a>>,
        message: impl Into<Message>,
    ) -> Enqueue<'a> {
        Enqueue::new(&self.channel, &self.name, routing_key.into(), message.into())
    }

    /// Binds this exchange to another: messages that `source` takes for `routing_key` come here, too.
    pub fn bind(&self, source: &Self, routing_key: impl TryInto<ShortStr>) -> BindExchange<'_> {
        BindExchange::new(self, source, routing_key, false)
    }

    /// Removes a binding to another exchange. One that does not exist counts as removed.
    pub fn unbind(&self, source: &Self, routing_key: impl TryInto<ShortStr>) -> BindExchange<'_> {
        BindExchange::new(self, source, routing_key, true)
    }

    /// Deletes the exchange. One that does not exist counts as deleted.
    pub fn delete(&self) -> DeleteExchange<'_> {
        DeleteExchange { exchange: self, if_unused: false }
    }
}

/// Declares an exchange when awaited; see [`Channel::declare_exchange`].
#[derive(Clone, Debug)]
#[must_use = "an exchange is declared when this is awaited"]
pub struct DeclareExchange<'a> {
    channel: &'a Channel,
    name: Result<ShortStr>,
    method: exchange::Declare,
    arguments: Collected,
}

impl<'a> DeclareExchange<'a> {
    pub(crate) fn new(channel: &'a Channel, name: impl TryInto<ShortStr>, kind: ExchangeKind) -> Self {
        let method = exchange::Declare { kind: kind.name(), durable: true, ..Default::default() };
        let name = short("the exchange's name", name);
        Self { channel, name, method, arguments: Collected::default() }
    }

    /// Does not survive a restart of the server. Durable unless set.
    pub fn transient(mut self) -> Self {
        self.method.durable = false;
        self
    }

    /// Goes when the last binding from it goes.
    pub fn auto_delete(mut self) -> Self {
        self.method.auto_delete = true;
        self
    }

    /// Takes messages only from other exchanges, not from publishers.
    pub fn internal(mut self) -> Self {
        self.method.internal = true;
        self
    }

    /// Only asks whether an exchange with this name exists; everything else is ignored. If it does not,
    /// the server closes the channel with 404.
    pub fn passive(mut self) -> Self {
        self.method.passive = true;
        self
    }

    /// Messages that no binding takes go to this exchange.
    pub fn alternate_exchange(mut self, name: impl TryInto<ShortStr>) -> Self {
        self.arguments.set_name("alternate-exchange", name);
        self
    }

    /// Any other argument. An integer that does not fit into an `i64` is an error when this is awaited.
    pub fn argument(
        mut self,
        name: impl TryInto<ShortStr>,
        value: impl TryInto<FieldValue, Error: fmt::Display>,
    ) -> Self {
        self.arguments.set(name, value);
        self
    }
}

impl<'a> IntoFuture for DeclareExchange<'a> {
    type Output = Result<Exchange>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    /// Declares the exchange. If it exists with other settings, the server closes the channel with 406.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let name = self.name?;
            let arguments = self.arguments.finish()?;
            self.channel
                .request(exchange::Declare { exchange: name.clone(), arguments, ..self.method })
                .await?;
            Ok(Exchange::new(self.channel.clone(), name))
        })
    }
}

/// Binds an exchange to another, or removes the binding, when awaited.
#[derive(Clone, Debug)]
#[must_use = "nothing is bound until this is awaited"]
pub struct BindExchange<'a> {
    channel: &'a Channel,
    destination: &'a ShortStr,
    source: ShortStr,
    routing_key: Result<ShortStr>,
    arguments: Collected,
    unbind: bool,
}

impl<'a> BindExchange<'a> {
    fn new(
        destination: &'a Exchange,
        source: &Exchange,
        routing_key: impl TryInto<ShortStr>,
        unbind: bool,
    ) -> Self {
        Self {
            channel: &destination.channel,
            destination: &destination.name,
            source: source.name.clone(),
            routing_key: short("the routing key", routing_key),
            arguments: Collected::default(),
            unbind,
        }
    }

    /// An argument of the binding, such as `x-match` and the headers for a headers exchange.
    pub fn argument(
        mut self,
        name: impl TryInto<ShortStr>,
        value: impl TryInto<FieldValue, Error: fmt::Display>,
    ) -> Self {
        self.arguments.set(name, value);
        self
    }
}

impl<'a> IntoFuture for BindExchange<'a> {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (destination, source) = (self.destination.clone(), self.source);
            let (routing_key, arguments) = (self.routing_key?, self.arguments.finish()?);
            let no_wait = false;
            if self.unbind {
                let method = exchange::Unbind { destination, source, routing_key, no_wait, arguments };
                self.channel.request(method).await?;
            } else {
                let method = exchange::Bind { destination, source, routing_key, no_wait, arguments };
                self.channel.request(method).await?;
            }
            Ok(())
        })
    }
}

/// Deletes an exchange when awaited; see [`Exchange::delete`].
#[derive(Clone, Debug)]
#[must_use = "an exchange is deleted when this is awaited"]
pub struct DeleteExchange<'a> {
    exchange: &'a Exchange,
    if_unused: bool,
}

impl DeleteExchange<'_> {
    /// Only if nothing is bound to it; otherwise the server closes the channel with 406.
    pub fn if_unused(mut self) -> Self {
        self.if_unused = true;
        self
    }
}

impl<'a> IntoFuture for DeleteExchange<'a> {
    type Output = Result<()>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Exchange { channel, name } = self.exchange;
            let method =
                exchange::Delete { exchange: name.clone(), if_unused: self.if_unused, no_wait: false };
            channel.request(method).await.map(drop)
        })
    }
}
