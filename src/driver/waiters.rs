//! What waits for the server, from the driver's side.

use std::sync::Arc;
use std::task::Waker;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::delivery_queue::DeliveryQueue;
use super::link_channel::ChannelState;
use crate::codec::Method;
use crate::error::Error;
use crate::mux::Waiters;
use crate::mux::incoming_delivery::Delivery;

/// The driver's [`Waiters`].
#[derive(Debug)]
pub(crate) struct Driver;

impl Waiters for Driver {
    type Reply = ReplyWaiter;
    type Consumer = Arc<DeliveryQueue>;
    type Confirm = Waker;
    type Channel = Arc<ChannelState>;

    fn is_same(one: &Arc<DeliveryQueue>, other: &Arc<DeliveryQueue>) -> bool {
        Arc::ptr_eq(one, other)
    }
}

/// What a call is answered with.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A method without content.
    Method(Method),
    /// `basic.get-ok` with its message.
    GetOk(Delivery),
}

/// A caller that waits for its answer.
///
/// It holds the caller's turn on the channel until the answer has come, also when the caller has gone
/// away meanwhile: so no answer is ever taken for the next caller's.
#[derive(Debug)]
pub(crate) struct ReplyWaiter {
    sender: oneshot::Sender<Result<Answer, Error>>,
    _turn: Option<OwnedSemaphorePermit>,
}

impl ReplyWaiter {
    /// With the turn that the caller holds, if its channel has turns.
    pub(crate) fn new(
        turn: Option<OwnedSemaphorePermit>,
    ) -> (Self, oneshot::Receiver<Result<Answer, Error>>) {
        let (sender, receiver) = oneshot::channel();
        (Self { sender, _turn: turn }, receiver)
    }

    /// Hands over the answer, and gives the turn to the next caller. An answer that nobody waits for any
    /// more is dropped.
    pub(crate) fn complete(self, answer: Result<Answer, Error>) {
        drop(self.sender.send(answer));
    }
}
