//! The state of one channel number.
//!
//! ```text
//!          open           open-ok           close from the user
//!   Free ────────> Opening ────────> Open ───────────────> Closing
//!    ▲                │                │                      │
//!    │   server close │   server close │             close-ok │
//!    └────────────────┴────────────────┴──────────────────────┘
//! ```
//!
//! A number that was never used has no state at all: frames for it end the connection. On a free number
//! that was used, late frames are dropped.

use std::collections::{BTreeMap, VecDeque};

use super::Waiters;
use super::confirm_ring::Confirms;
use crate::codec::generated::basic;
use crate::codec::{Arguments, Method, MethodId, ShortStr};

/// A channel number that is, or was, in use.
#[derive(Debug)]
pub(crate) struct Slot<X: Waiters> {
    /// Counts the incarnations.
    pub generation: u32,
    pub state: State<X>,
}

/// See the module's diagram.
#[derive(Debug)]
pub(crate) enum State<X: Waiters> {
    Free,
    Opening { waiter: X::Reply, channel: X::Channel },
    Open(Box<Open<X>>),
    Closing { waiter: Option<X::Reply> },
}

/// What an open channel remembers.
#[derive(Debug)]
pub(crate) struct Open<X: Waiters> {
    pub channel: X::Channel,
    /// Calls that the server has not answered: one of the user's, and cancels of dropped consumers.
    pub pending: VecDeque<Pending<X>>,
    /// `None` before `confirm.select`.
    pub confirms: Option<Confirms<X::Confirm>>,
    /// Whether the server lets us send content.
    pub flow: bool,
    /// The consumers by their tags. One whose cancel was sent is not among them: its tag can be used again.
    pub consumers: BTreeMap<ShortStr, X::Consumer>,
}

/// A call that waits for its reply.
#[derive(Debug)]
pub(crate) struct Pending<X: Waiters> {
    pub expect: Expect,
    /// `None` if nobody cares, as for the cancel of a dropped consumer.
    pub waiter: Option<X::Reply>,
    /// What will take the deliveries, in a `basic.consume`; which one ends, in a `basic.cancel`.
    pub consumer: Option<X::Consumer>,
}

/// Which method answers a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expect {
    pub reply: MethodId,
    /// The other possible answer, as `get-empty` beside `get-ok`.
    pub or: Option<MethodId>,
    /// The consumer tag that the answer repeats: the server may send such answers out of order.
    pub tag: Option<ShortStr>,
}

/// A channel that has ended, with everybody who must be told.
#[derive(Debug)]
pub(crate) struct Ended<X: Waiters> {
    pub channel: X::Channel,
    pub replies: Vec<X::Reply>,
    pub consumers: Vec<X::Consumer>,
    pub confirms: Option<Confirms<X::Confirm>>,
}

impl<X: Waiters> Ended<X> {
    /// A channel that was not open yet.
    pub(crate) fn unopened(waiter: X::Reply, channel: X::Channel) -> Self {
        Self { channel, replies: vec![waiter], consumers: Vec::new(), confirms: None }
    }
}

impl Expect {
    /// Just this method.
    pub(crate) const fn only(reply: MethodId) -> Self {
        Self { reply, or: None, tag: None }
    }

    /// Cancel-ok, for just this tag.
    fn cancel_ok(tag: ShortStr) -> Self {
        Self { reply: basic::CancelOk::ID, or: None, tag: Some(tag) }
    }

    fn accepts(&self, method: &Method) -> bool {
        let id = method.id();
        if id != self.reply && Some(id) != self.or {
            return false;
        }
        match (&self.tag, method) {
            (Some(tag), Method::BasicConsumeOk(ok)) => ok.consumer_tag == *tag,
            (Some(tag), Method::BasicCancelOk(ok)) => ok.consumer_tag == *tag,
            _ => true,
        }
    }
}

impl<X: Waiters> Pending<X> {
    /// The cancel of a consumer.
    pub(crate) fn cancel(tag: ShortStr, consumer: X::Consumer, waiter: Option<X::Reply>) -> Self {
        Self { expect: Expect::cancel_ok(tag), waiter, consumer: Some(consumer) }
    }
}

impl<X: Waiters> Open<X> {
    pub(crate) fn new(channel: X::Channel) -> Self {
        Self { channel, pending: VecDeque::new(), confirms: None, flow: true, consumers: BTreeMap::new() }
    }

    /// How many publishes are not settled, counting those settled out of order; 0 without confirms.
    pub(crate) fn in_flight(&self) -> usize {
        self.confirms.as_ref().map_or(0, Confirms::in_flight)
    }

    /// Takes the first call that `method` answers.
    pub(crate) fn answered_by(&mut self, method: &Method) -> Option<Pending<X>> {
        let at = self.pending.iter().position(|pending| pending.expect.accepts(method))?;
        self.pending.remove(at)
    }

    /// The unanswered `basic.cancel` for this tag, if there is one.
    pub(crate) fn cancelling(&mut self, tag: &ShortStr) -> Option<&mut Pending<X>> {
        self.pending.iter_mut().find(|pending| {
            pending.expect.reply == basic::CancelOk::ID && pending.expect.tag.as_ref() == Some(tag)
        })
    }

    pub(crate) fn end(self) -> Ended<X> {
        let mut consumers: Vec<_> = self.consumers.into_values().collect();
        let mut replies = Vec::new();
        for pending in self.pending {
            replies.extend(pending.waiter);
            // one that is being started is known to its caller alone, or by its tag
            consumers.extend(pending.consumer.filter(|_| pending.expect.reply == basic::CancelOk::ID));
        }
        Ended { channel: self.channel, replies, consumers, confirms: self.confirms }
    }
}
