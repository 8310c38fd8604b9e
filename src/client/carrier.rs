//! What exchanges and queues act through.

use std::future::Future;
use std::pin::Pin;

use super::confirm::Confirm;
use super::consumer::{ConsumeSpec, Consumer};
use super::delivery::Delivery;
use super::message::Message;
use crate::codec::generated::basic;
use crate::codec::{Request, ShortStr};
use crate::error::Result;

/// A channel that exchanges and queues act through: [`Channel`](super::Channel), or one that does more
/// than carry.
///
/// Sealed: only this crate implements it, and its methods are not public.
pub trait Carrier: private::Operations {}

/// A boxed future, for operations where an allocation does not matter.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A message to hand over; the names are borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Outbound<'a> {
    pub(crate) exchange: &'a ShortStr,
    pub(crate) routing_key: &'a [u8],
    pub(crate) mandatory: bool,
    /// Whether somebody will wait for the confirm at once.
    pub(crate) awaited: bool,
    pub(crate) message: &'a Message,
}

pub(crate) mod private {
    use super::{Confirm, ConsumeSpec, Consumer, Delivery, Future, Outbound, Request, Result, basic};

    /// The operations of a channel that exchanges and queues need.
    pub trait Operations: Clone + Send + Sync + Unpin + 'static {
        /// Sends a request and waits for its reply.
        fn request<M: Request>(&self, request: M) -> impl Future<Output = Result<M::Reply>> + Send;

        /// Starts a consumer.
        fn consume(&self, spec: ConsumeSpec) -> impl Future<Output = Result<Consumer>> + Send;

        /// Takes a message from a queue, if there is one.
        fn get(&self, method: basic::Get) -> impl Future<Output = Result<Option<Delivery>>> + Send;

        /// Hands a message over at once, or returns `None` where that would have to wait.
        fn try_enqueue(&self, outbound: Outbound<'_>) -> Result<Option<Confirm>>;

        /// Hands a message over as soon as that is possible.
        fn enqueue(&self, outbound: Outbound<'_>) -> impl Future<Output = Result<Confirm>> + Send;
    }
}
