//! Faults on demand: what no real broker does when a test would like it to.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::codec::{Arguments, MethodId, ShortStr};

use super::Broker;
use super::broker_connection::{Connection, End, Phase};
use super::refusal::Refusal;
use super::state::{At, Place, State};

/// What happens to the next reply of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplyFault {
    /// It is never sent.
    Drop,
    /// It is sent twice.
    Duplicate,
    /// It is sent after this time, whatever happens to its channel meanwhile; what comes later may overtake it. A
    /// `connection.close-ok` never comes then: the connection ends without it.
    Delay(Duration),
    /// The connection is cut in its place: the broker has done what the client will never hear of.
    Cut,
}

/// The faults that are waiting for their moment.
#[derive(Debug, Default)]
pub(super) struct Faults {
    replies: Vec<(MethodId, ReplyFault)>,
    cut_at: Vec<MethodId>,
    delayed: Vec<(Instant, u64, Vec<u8>)>,
    pub refuse_logins: bool,
    pub nacks: u32,
    /// So many confirms are held back, and then sent in reverse order.
    pub reversed: Option<usize>,
    pub exclusive_lingers: Option<Duration>,
    /// Exclusive queues to remove: when, and whose.
    lingering: Vec<(Instant, Arc<str>, u64)>,
    /// Applies to connections that are still to come.
    pub next_cut_after: Option<u64>,
}

impl Faults {
    pub(super) fn add_reply(&mut self, id: MethodId, fault: ReplyFault) {
        self.replies.push((id, fault));
    }

    /// The fault for a reply, which is over with it.
    fn of_reply(&mut self, id: MethodId) -> Option<ReplyFault> {
        let found = self.replies.iter().position(|(other, _)| *other == id)?;
        Some(self.replies.remove(found).1)
    }

    /// Whether the connection is cut instead of taking this method.
    pub(super) fn cuts_at(&mut self, id: MethodId) -> bool {
        let found = self.cut_at.iter().position(|other| *other == id);
        found.map(|index| self.cut_at.remove(index)).is_some()
    }

    /// Whether the next publish of a channel with confirms is refused.
    pub(super) fn nack_next(&mut self, confirms: bool) -> bool {
        let refused = confirms && self.nacks > 0;
        self.nacks -= u32::from(refused);
        refused
    }

    /// Whether this many confirms are still held back.
    pub(super) fn holds_confirms(&self, decided: usize) -> bool {
        self.reversed.is_some_and(|count| decided < count)
    }

    /// How many of the confirms that go out now do so in reverse order; over with them.
    pub(super) fn take_reversed(&mut self) -> Option<usize> {
        self.reversed.take()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let delayed = self.delayed.iter().map(|(at, ..)| *at);
        delayed.chain(self.lingering.iter().map(|(at, ..)| *at)).min()
    }
}

impl State {
    /// Sends a reply, if no fault says otherwise.
    pub(super) fn reply<M: Arguments>(&mut self, at: At, method: &M) -> Result<(), Refusal> {
        self.reply_with(at, M::ID, |connection| connection.put(at.channel, method))
    }

    /// Like [`reply`](Self::reply) for one that has content.
    pub(super) fn reply_with(
        &mut self,
        at: At,
        id: MethodId,
        put: impl FnOnce(&mut Connection),
    ) -> Result<(), Refusal> {
        let fault = self.faults.of_reply(id);
        let now = self.now;
        let connection = self.connection(at.connection)?;
        let start = connection.out.len();
        put(connection);
        match fault {
            None => {}
            Some(ReplyFault::Drop) => connection.out.truncate(start),
            Some(ReplyFault::Duplicate) => connection.out.extend_from_within(start..),
            Some(ReplyFault::Delay(time)) => {
                let bytes = connection.out.split_off(start);
                // a time that no clock shows never comes
                if let Some(moment) = now.checked_add(time) {
                    self.faults.delayed.push((moment, at.connection, bytes));
                    self.timer.notify_one();
                }
            }
            Some(ReplyFault::Cut) => connection.end(End::Cut),
        }
        Ok(())
    }

    /// Sends a reply unless the client wants none.
    pub(super) fn reply_unless<M: Arguments>(
        &mut self,
        no_wait: bool,
        at: At,
        method: &M,
    ) -> Result<(), Refusal> {
        if no_wait { Ok(()) } else { self.reply(at, method) }
    }

    /// Keeps the exclusive queues of a connection that is gone for a time.
    pub(super) fn linger(&mut self, vhost: Arc<str>, owner: u64, time: Duration) {
        // a time that no clock shows never comes
        if let Some(moment) = self.now.checked_add(time) {
            self.faults.lingering.push((moment, vhost, owner));
            self.timer.notify_one();
        }
    }

    /// Cancels the consumers of a queue; how many there were.
    pub(super) fn cancel_consumers(&mut self, place: &Place) -> usize {
        let Some(queue) = self.queue_at(place) else { return 0 };
        let consumers = queue.consumers().to_vec();
        for consumer in &consumers {
            self.cancel_consumer(consumer.at, &consumer.tag);
            self.unsubscribe(consumer.at, &consumer.tag, &place.1);
        }
        consumers.len()
    }

    /// Does what was delayed until now.
    pub(super) fn end_delays(&mut self) {
        let now = self.now;
        let due: Vec<_> = self.faults.delayed.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, id, bytes) in due {
            if let Ok(connection) = self.connection(id) {
                connection.out.extend_from_slice(&bytes);
                connection.wake.notify_one();
            }
        }
        let gone: Vec<_> = self.faults.lingering.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, vhost, owner) in gone {
            self.delete_exclusive(&vhost, owner);
        }
    }
}

/// Faults. Each acts on what is there when it is called, or on the next occasion, and is over then, unless
/// it says otherwise. A [restart](Broker::restart) ends none.
impl Broker {
    /// Cuts all connections at once, as when the network goes.
    pub fn cut(&self) {
        self.with_connections(|connection| connection.end(End::Cut));
    }

    /// Cuts one connection, by the [`id`](super::ConnectionInfo::id) that [`connections`](Self::connections) gives.
    pub fn cut_connection(&self, id: u64) {
        self.with_state(|state| state.end(id, End::Cut));
    }

    /// Cuts each connection that is there after so many more bytes have been written to it, heartbeats not counted. The
    /// client reads these bytes and then an end of file.
    pub fn cut_after(&self, bytes: u64) {
        self.with_connections(|connection| connection.cut_after = Some(bytes));
    }

    /// Cuts the next connection that comes after so many bytes have been written to it, as [`cut_after`](Self::cut_after)
    /// does.
    pub fn cut_next_after(&self, bytes: u64) {
        self.with_state(|state| state.faults.next_cut_after = Some(bytes));
    }

    /// Cuts each connection that is there after so many more bytes have been read from it, such as in the middle of a
    /// message. What has come whole before is done; the rest is lost.
    pub fn cut_after_reading(&self, bytes: u64) {
        self.with_connections(|connection| connection.cut_after_reading = Some(bytes));
    }

    /// Cuts the connection from which the next such method comes, instead of doing what it asks for:
    /// `broker.cut_at::<protocol::queue::Declare>()`.
    pub fn cut_at<M: Arguments>(&self) {
        self.with_state(|state| state.faults.cut_at.push(M::ID));
    }

    /// Something happens to the next reply of a kind: `broker.fault_reply::<protocol::queue::DeclareOk>(ReplyFault::Drop)`.
    /// Called more than once for a kind, to the one after it, too. A reply is what answers a request, or confirms a publish
    /// (`basic::Ack`, which may stand for several): for anything else, such as a delivery or `connection.start`, nothing
    /// ever happens.
    pub fn fault_reply<R: Arguments>(&self, fault: ReplyFault) {
        self.with_state(|state| state.faults.add_reply(R::ID, fault));
    }

    /// Every login is refused with 403, until this is called with `false`.
    pub fn refuse_logins(&self, refuse: bool) {
        self.with_state(|state| state.faults.refuse_logins = refuse);
    }

    /// Closes all open connections with a code and a text of at most 255 bytes (none if it has more), as an operator does
    /// with 320, `CONNECTION_FORCED`.
    pub fn close_connections(&self, code: u16, text: &str) {
        let text = ShortStr::try_from(text).unwrap_or_default();
        self.with_state(|state| {
            let open = state.connections.iter().filter(|(_, connection)| connection.phase == Phase::Open);
            let open: Vec<_> = open.map(|(id, _)| *id).collect();
            for id in open {
                state.close_connection(id, code, text.clone(), MethodId::NONE);
            }
        });
    }

    /// Blocks publishers with `connection.blocked` and a reason of at most 255 bytes (none if it has more), until [`unblock`](Self::unblock). As with `RabbitMQ`, a
    /// connection is blocked, and read no more, when it next publishes.
    pub fn block(&self, reason: &str) {
        self.with_state(|state| state.alarm = Some(reason.into()));
    }

    /// Lets blocked publishers go on.
    pub fn unblock(&self) {
        self.with_state(|state| state.alarm = None);
    }

    /// Cancels the consumers of a queue of the virtual host `/`, as a failover does. How many there were.
    pub fn cancel_consumers(&self, queue: &str) -> usize {
        self.in_vhost("/").cancel_consumers(queue)
    }

    /// Answers the next so many publishes on channels with confirms with a nack; they go to no queue. Replaces an earlier
    /// count.
    pub fn nack_publishes(&self, count: u32) {
        self.with_state(|state| state.faults.nacks = count);
    }

    /// Holds confirms back until a channel has so many of them, and then sends these in reverse order, one by one. Replaces
    /// an earlier count.
    pub fn reverse_confirms(&self, count: usize) {
        self.with_state(|state| {
            state.faults.reversed = Some(count);
            // what an earlier count has held back
            let connections: Vec<_> = state.connections.keys().copied().collect();
            for id in connections {
                state.flush_confirms(id);
            }
        });
    }

    /// Exclusive queues stay for this time after their connection has gone, as when a broker has not noticed yet that it
    /// has: others are answered 405. Holds until it is called with `None`.
    pub fn exclusive_queues_linger(&self, time: Option<Duration>) {
        self.with_state(|state| state.faults.exclusive_lingers = time);
    }

    /// Reads nothing more from the connections that are there, until this is called with `false`: their TCP windows fill.
    pub fn stop_reading(&self, stop: bool) {
        self.with_connections(|connection| {
            connection.deaf = stop;
            connection.wake.notify_one();
        });
    }

    /// Ends all faults: those that wait for their moment, those that hold until they are called off, and the block of
    /// publishers. Replies that are delayed still come in their time, and exclusive queues that linger still go in theirs.
    pub fn heal(&self) {
        self.reverse_confirms(0);
        self.with_state(|state| {
            let Faults { delayed, lingering, .. } = std::mem::take(&mut state.faults);
            state.faults = Faults { delayed, lingering, ..Faults::default() };
            state.alarm = None;
            for connection in state.connections.values_mut() {
                (connection.cut_after, connection.cut_after_reading) = (None, None);
                connection.deaf = false;
                connection.wake.notify_one();
            }
        });
    }

    fn with_connections(&self, mut change: impl FnMut(&mut Connection)) {
        self.with_state(|state| state.connections.values_mut().for_each(&mut change));
    }
}
