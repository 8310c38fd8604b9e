//! What exchanges and queues act through.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::consumer::ConsumeSpec;
use super::delivery::Delivery;
use super::message::Message;
use super::name::Name;
use super::routing_key::RoutingKey;
use crate::codec::generated::basic;
use crate::codec::peer_text::PeerText;
use crate::codec::{Request, ShortStr};
use crate::error::{ExchangeName, Result};

/// A channel that exchanges and queues act through: [`Channel`](super::Channel), or one that does more
/// than carry.
///
/// Sealed: only this crate implements it, and its methods are not public.
pub trait Carrier: private::Operations {}

/// A boxed future, for operations where an allocation does not matter.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where a message goes, and how; the names are borrowed. Passed by reference on the way down, with the message
/// beside it: each copy of what was written a moment ago costs more than all its reads.
#[derive(Debug)]
pub struct Outbound<'a> {
    pub(crate) exchange: &'a ShortStr,
    pub(crate) routing_key: RoutingKey<'a>,
    pub(crate) mandatory: bool,
    /// Whether somebody will wait for the confirm at once.
    pub(crate) awaited: bool,
    /// How long the user is willing to wait, if that was said for this message.
    pub(crate) patience: Option<Duration>,
}

impl fmt::Display for Outbound<'_> {
    /// As errors name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = PeerText(self.routing_key.as_bytes());
        write!(f, "basic.publish to {} with routing key \"{key}\"", ExchangeName(self.exchange))
    }
}

pub(crate) mod private {
    use super::{ConsumeSpec, Delivery, Future, Message, Name, Outbound, Request, Result, ShortStr, basic};

    /// The operations of a channel that exchanges and queues need.
    pub trait Operations: Clone + Send + Sync + Unpin + 'static {
        /// What [`consume`](Self::consume) makes.
        type Consumer: Deliveries;

        /// What becomes of a publish.
        type Confirm: Future<Output = Result<()>> + Send + Unpin + 'static;

        /// Sends a request and waits for its reply.
        fn request<M: Request>(&self, request: M) -> impl Future<Output = Result<M::Reply>> + Send;

        /// Starts a consumer.
        fn consume(&self, spec: ConsumeSpec) -> impl Future<Output = Result<Self::Consumer>> + Send;

        /// Takes a message from a queue, if there is one.
        fn get(&self, method: basic::Get) -> impl Future<Output = Result<Option<Delivery>>> + Send;

        /// Hands a message over at once, or returns `None` where that would have to wait. A channel that keeps the
        /// message takes it from where it stands instead of copying it.
        fn try_enqueue(
            &self,
            outbound: &Outbound<'_>,
            message: &mut Message,
        ) -> Result<Option<Self::Confirm>>;

        /// Hands a message over as soon as that is possible. Cancel safe: dropped while it waits, nothing
        /// was handed over.
        fn enqueue(
            &self,
            outbound: &Outbound<'_>,
            message: &mut Message,
        ) -> impl Future<Output = Result<Self::Confirm>> + Send;

        /// Waits until everything that was handed over is written.
        fn flush(&self) -> impl Future<Output = ()> + Send;

        /// What a queue of this name is called from now on.
        fn name(&self, name: ShortStr) -> Name {
            Name::new(name)
        }
    }

    /// A consumer, whatever channel it is on.
    pub trait Deliveries: Send + Unpin + 'static {
        /// The next delivery. Cancel safe.
        fn next(&mut self) -> impl Future<Output = Option<Result<Delivery>>> + Send;

        /// Cancels it; what has come can still be taken.
        fn cancel(&mut self) -> impl Future<Output = Result<()>> + Send;
    }
}
