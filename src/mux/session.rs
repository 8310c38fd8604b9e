//! The shared half of the multiplexer: channel states, calls and their replies, confirms, and what waits
//! to be written.
//!
//! Commands ([`open_channel`](Session::open_channel), [`call`](Session::call), [`publish`](Session::publish),
//! …) come from users, inputs ([`receive`](Session::receive), [`get_ok`](Session::get_ok),
//! [`returned`](Session::returned)) from the reader, in any order. A command that is refused has written nothing.

mod consumers;

use std::collections::VecDeque;
use std::num::NonZeroU16;

use bytes::BufMut;

use super::Waiters;
use super::channel_state::{Ended, Open, Pending, Slot, State};
use super::confirm_ring::Confirms;
use super::ids::{ChannelKey, Ids};
use super::incoming_return::{Fingerprint, Returned};
use super::outgoing::Outgoing;
use super::outgoing_publish::{Publish, Unfit};
use super::tune::Agreed;
use super::violation::Violation;
use crate::codec::frame::{HEARTBEAT, OVERHEAD, put_method};
use crate::codec::generated::{basic, channel, confirm, connection};
use crate::codec::{Arguments, Method, Sender, ShortStr};

/// The shared half of the multiplexer of one connection.
#[derive(Debug)]
pub(crate) struct Session<X: Waiters> {
    state: ConnectionState<X>,
    /// The slot of channel `n` is at `n - 1`.
    slots: Vec<Slot<X>>,
    ids: Ids,
    frame_max: u32,
    /// The server takes no publishes for now.
    blocked: bool,
    /// Publishers wait while so many publishes of their channel are not settled.
    pub unconfirmed_max: usize,
    /// How many bytes may wait to be written of what cannot wait before it is written: acks, nacks and rejects, and answers
    /// to the server's methods. More wait only for a server that does not read.
    pub unread_max: usize,
    /// Calls of update-secret; several if the futures of earlier ones were dropped.
    secrets: VecDeque<X::Reply>,
    /// What waits to be written.
    pub out: Outgoing,
    /// Who must be woken because of confirms; whoever holds the session takes them out.
    pub woken: Vec<X::Confirm>,
}

/// Where the connection stands.
#[derive(Debug)]
enum ConnectionState<X: Waiters> {
    Open,
    /// Our close was sent; everything but close and close-ok is dropped.
    Closing {
        waiter: Option<X::Reply>,
        /// Whether a close of the server's was answered meanwhile.
        answered: bool,
    },
    /// Nothing is sent or accepted any more.
    Closed,
}

/// Why a command was refused. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The connection is closing or closed.
    ConnectionClosed,
    /// This incarnation of the channel is closing or closed.
    ChannelClosed,
    /// All channel numbers are in use.
    NoFreeChannel { max: u16 },
    /// The consumer tag is in use on the channel.
    TagInUse,
    /// The method does not fit into one frame, and cannot be split.
    MethodTooLarge { size: usize, limit: u32 },
    /// The message does not fit.
    Unfit(Unfit),
    /// The server does not read: so many bytes of acks wait already.
    Unread { bytes: usize },
}

/// What became of a publish command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// All of it waits to be written, with this number if confirms are on.
    Accepted(Option<u64>),
    /// Nothing of it was taken: the server blocks, stops the channel's flow, or too much waits already.
    Wait,
}

/// What a method from the server amounts to.
#[derive(Debug)]
pub(crate) enum Event<X: Waiters> {
    /// Nothing for anybody: a late method that was dropped, or confirms (see [`Session::woken`]).
    Nothing,
    /// The channel is open.
    Opened { id: u16, waiter: X::Reply },
    /// A call was answered.
    Reply { id: u16, waiter: Option<X::Reply>, reply: Method, consumer: Option<X::Consumer> },
    /// The server closed the channel; close-ok waits to be written.
    ChannelClosed { id: u16, close: channel::Close, ended: Ended<X> },
    /// The server answered our close of a channel.
    ChannelCloseOk { id: u16, waiter: Option<X::Reply> },
    /// The server cancelled a consumer. Our own cancel waits to be written: the answer to it is the last that is
    /// heard of the consumer.
    Cancelled { id: u16, tag: ShortStr, consumer: X::Consumer },
    /// Publishers that wait may try again.
    FlowResumed,
    /// The server takes no publishes until further notice.
    Blocked { reason: ShortStr },
    /// It takes them again.
    Unblocked,
    /// The server closed the connection; close-ok waits to be written.
    ConnectionClosed { close: connection::Close },
    /// The server answered our close of the connection.
    ConnectionCloseOk { waiter: Option<X::Reply> },
}

impl<X: Waiters> Session<X> {
    /// For a connection that was just opened.
    pub(crate) fn new(agreed: Agreed) -> Self {
        Self {
            state: ConnectionState::Open,
            slots: Vec::new(),
            ids: Ids::new(agreed.channel_max),
            frame_max: agreed.frame_max,
            blocked: false,
            unconfirmed_max: usize::MAX,
            unread_max: usize::MAX,
            secrets: VecDeque::new(),
            out: Outgoing::default(),
            woken: Vec::new(),
        }
    }

    // Commands.

    /// Asks for a channel. `channel` stands for it above.
    pub(crate) fn open_channel(
        &mut self,
        waiter: X::Reply,
        channel: impl FnOnce(ChannelKey) -> X::Channel,
    ) -> Result<X::Channel, Refusal> {
        self.check_open()?;
        let slots = &self.slots;
        let is_free = |id: NonZeroU16| {
            slots.get(usize::from(id.get()) - 1).is_none_or(|slot| matches!(slot.state, State::Free))
        };
        let id = self.ids.next(is_free).ok_or(Refusal::NoFreeChannel { max: self.ids.max() })?;
        let at = usize::from(id.get()) - 1;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || Slot { generation: 0, state: State::Free });
        }
        let slot = self.slots.get_mut(at).ok_or(Refusal::NoFreeChannel { max: self.ids.max() })?;
        slot.generation = slot.generation.wrapping_add(1);
        let channel = channel(ChannelKey { id, generation: slot.generation });
        slot.state = State::Opening { waiter, channel: channel.clone() };
        put_method(self.out.on(id.get()), id.get(), &channel::Open {});
        Ok(channel)
    }

    /// Sends a method that the server will answer.
    pub(crate) fn call<M: Arguments>(
        &mut self,
        key: ChannelKey,
        method: &M,
        pending: Pending<X>,
    ) -> Result<(), Refusal> {
        self.put(key, method)?;
        self.open(key)?.pending.push_back(pending);
        Ok(())
    }

    /// Sends a method that the server will not answer.
    pub(crate) fn send<M: Arguments>(&mut self, key: ChannelKey, method: &M) -> Result<(), Refusal> {
        self.put(key, method).map(drop)
    }

    /// Acknowledges, or gives back: `basic.ack`, `nack`, `reject`. There is no way to wait with that, so there is an
    /// end to it where the server does not read.
    pub(crate) fn settle<M: Arguments>(&mut self, key: ChannelKey, method: &M) -> Result<(), Refusal> {
        let size = self.put(key, method)?;
        if self.out.count_unread(size) > self.unread_max {
            return Err(Refusal::Unread { bytes: self.unread_max });
        }
        Ok(())
    }

    /// Sends `connection.update-secret`.
    pub(crate) fn update_secret(
        &mut self,
        method: &connection::UpdateSecret,
        waiter: X::Reply,
    ) -> Result<(), Refusal> {
        self.check_open()?;
        self.put_on(0, method)?;
        self.secrets.push_back(waiter);
        Ok(())
    }

    /// Appends a message unless it must wait; `most` is how many waiting bytes are too many.
    #[inline]
    pub(crate) fn publish(
        &mut self,
        key: ChannelKey,
        publish: &Publish<'_>,
        most: usize,
    ) -> Result<Published, Refusal> {
        let wait = self.blocked || self.out.before(key.id.get(), publish.body.len()) >= most;
        let (frame_max, unconfirmed_max) = (self.frame_max, self.unconfirmed_max);
        let (open, out) = self.open_and_out(key)?;
        if wait || !open.flow || open.in_flight() >= unconfirmed_max {
            return Ok(Published::Wait);
        }
        publish.put(out, key.id.get(), frame_max).map_err(Refusal::Unfit)?;
        Ok(Published::Accepted(open.confirms.as_mut().map(|confirms| {
            let Publish { exchange, routing_key, properties, body, .. } = publish;
            let fingerprint =
                publish.mandatory.then(|| Fingerprint::new(exchange, routing_key, *properties, body));
            confirms.publish(fingerprint)
        })))
    }

    /// Closes a channel. Everybody who waits on it is handed out; `waiter` gets the close-ok.
    pub(crate) fn close_channel(
        &mut self,
        key: ChannelKey,
        close: &channel::Close,
        waiter: Option<X::Reply>,
    ) -> Result<Ended<X>, Refusal> {
        self.check_open()?;
        let slot = self.slot(key)?;
        let ended = match std::mem::replace(&mut slot.state, State::Closing { waiter: None }) {
            State::Open(open) => open.end(),
            // pipelined behind open: the server takes them in order
            State::Opening { waiter, channel } => Ended::unopened(waiter, channel),
            state @ (State::Free | State::Closing { .. }) => {
                slot.state = state;
                return Err(Refusal::ChannelClosed);
            }
        };
        slot.state = State::Closing { waiter };
        put_method(self.out.on(key.id.get()), key.id.get(), close);
        Ok(ended)
    }

    /// Closes the connection. Everybody who waits is handed out; `waiter` gets the close-ok.
    pub(crate) fn close(
        &mut self,
        close: &connection::Close,
        waiter: Option<X::Reply>,
    ) -> Result<Vec<Ended<X>>, Refusal> {
        self.check_open()?;
        // what was accepted is written before it
        self.out.put_last(|out| {
            put_method(out, 0, close);
        });
        let ended = self.end_all();
        self.state = ConnectionState::Closing { waiter, answered: false };
        Ok(ended)
    }

    /// The connection has ended, or is to be given up: everybody who waits is handed out. With a
    /// `close`, tells the server.
    pub(crate) fn fail(&mut self, close: Option<&connection::Close>) -> (Vec<Ended<X>>, Vec<X::Reply>) {
        self.out.cut();
        if let (Some(close), ConnectionState::Open) = (close, &self.state) {
            put_method(self.out.on(0), 0, close);
        }
        let mut waiters = Vec::new();
        if let ConnectionState::Closing { waiter: Some(waiter), .. } =
            std::mem::replace(&mut self.state, ConnectionState::Closed)
        {
            waiters.push(waiter);
        }
        waiters.extend(self.secrets.drain(..));
        (self.end_all(), waiters)
    }

    /// Appends a heartbeat.
    pub(crate) fn heartbeat(&mut self) {
        self.out.on(0).put_slice(&HEARTBEAT);
    }

    // Questions.

    /// Whether commands are accepted.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.state, ConnectionState::Open)
    }

    /// Whether nothing more is said on the connection.
    pub(crate) const fn is_closed(&self) -> bool {
        matches!(self.state, ConnectionState::Closed)
    }

    /// Whether somebody waits for a reply or a confirm: then reading must go on.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.secrets.is_empty()
            || self.slots.iter().any(|slot| match &slot.state {
                State::Free => false,
                State::Opening { .. } | State::Closing { .. } => true,
                State::Open(open) => {
                    !open.pending.is_empty()
                        || open.confirms.as_ref().is_some_and(|confirms| confirms.in_flight() > 0)
                }
            })
    }

    /// Whether just one publish of the channel waits for its confirm.
    pub(crate) fn is_alone(&mut self, key: ChannelKey) -> bool {
        self.confirms(key).is_ok_and(|confirms| confirms.is_some_and(|confirms| confirms.in_flight() == 1))
    }

    /// The channel with this number, if it is open and has confirms on, and below which number everything was
    /// acked.
    pub(crate) fn acked_below(&self, id: u16) -> Option<(&X::Channel, u64)> {
        match &self.slots.get(usize::from(id).checked_sub(1)?)?.state {
            State::Open(open) => Some((&open.channel, open.confirms.as_ref()?.acked_below())),
            State::Free | State::Opening { .. } | State::Closing { .. } => None,
        }
    }

    /// The channel with this number, if it is open.
    pub(crate) fn channel(&self, id: u16) -> Option<&X::Channel> {
        match &self.slots.get(usize::from(id).checked_sub(1)?)?.state {
            State::Open(open) => Some(&open.channel),
            State::Free | State::Opening { .. } | State::Closing { .. } => None,
        }
    }

    /// The confirms of a channel, if it is open and has them on.
    pub(crate) fn confirms(&mut self, key: ChannelKey) -> Result<Option<&mut Confirms<X::Confirm>>, Refusal> {
        Ok(self.open(key)?.confirms.as_mut())
    }

    // Inputs.

    /// Handles a method without content.
    pub(crate) fn receive(&mut self, id: u16, method: Method) -> Result<Event<X>, Violation> {
        match &self.state {
            ConnectionState::Closed => return Ok(Event::Nothing),
            ConnectionState::Closing { .. } if id != 0 => return Ok(Event::Nothing),
            ConnectionState::Closing { .. } | ConnectionState::Open => {}
        }
        let is_connection = method.id().class == connection::CLASS_ID;
        if is_connection != (id == 0) {
            return Err(Violation::WrongChannel { channel: id, method: method.id() });
        }
        if Method::sender(method.id()) == Some(Sender::Client) {
            return Err(Violation::Unexpected { channel: id, method: method.id() });
        }
        match NonZeroU16::new(id) {
            None => self.connection_method(method),
            Some(id) => {
                let settled = match &method {
                    Method::BasicAck(ack) => self.settled(id, ack.delivery_tag, ack.multiple, true),
                    // its requeue bit means nothing
                    Method::BasicNack(nack) => self.settled(id, nack.delivery_tag, nack.multiple, false),
                    _ => None,
                };
                if let Some(resumes) = settled {
                    return Ok(if resumes { Event::FlowResumed } else { Event::Nothing });
                }
                let before = self.out.len();
                let event = self.channel_method(id, method)?;
                let answer = self.out.len() - before;
                if answer > 0 && self.out.count_unread(answer) > self.unread_max {
                    return Err(Violation::Unread { bytes: self.unread_max });
                }
                Ok(event)
            }
        }
    }

    /// Handles the answer to a `basic.get` that has content: hands out who waits for it.
    pub(crate) fn get_ok(&mut self, id: u16) -> Result<Option<X::Reply>, Violation> {
        let unexpected = Violation::Unexpected { channel: id, method: basic::GetOk::ID };
        if !self.is_open() {
            return Ok(None);
        }
        let Some(slot) = usize::from(id).checked_sub(1).and_then(|at| self.slots.get_mut(at)) else {
            return Err(unexpected);
        };
        match &mut slot.state {
            State::Open(open) => match open.answered_by(&Method::BasicGetOk(basic::GetOk::default())) {
                Some(pending) => Ok(pending.waiter),
                None => Err(unexpected),
            },
            State::Free | State::Opening { .. } | State::Closing { .. } => Ok(None),
        }
    }

    /// Handles a message that came back. Gives it out if it belongs to no publish that is waited for.
    pub(crate) fn returned(
        &mut self,
        id: u16,
        returned: Box<Returned>,
    ) -> Option<(X::Channel, Box<Returned>)> {
        let slot = usize::from(id).checked_sub(1).and_then(|at| self.slots.get_mut(at))?;
        let State::Open(open) = &mut slot.state else { return None };
        let unclaimed = match &mut open.confirms {
            Some(confirms) => confirms.returned(returned)?,
            None => returned,
        };
        Some((open.channel.clone(), unclaimed))
    }

    // Inside.

    fn connection_method(&mut self, method: Method) -> Result<Event<X>, Violation> {
        match method {
            Method::ConnectionClose(close) => {
                // after our own close we go on waiting for its close-ok; one answer is enough
                let answered = match &mut self.state {
                    ConnectionState::Closing { answered, .. } => std::mem::replace(answered, true),
                    ConnectionState::Open | ConnectionState::Closed => false,
                };
                if !answered {
                    put_method(self.out.on(0), 0, &connection::CloseOk {});
                }
                Ok(if self.is_open() { Event::ConnectionClosed { close } } else { Event::Nothing })
            }
            Method::ConnectionCloseOk(_) => {
                match std::mem::replace(&mut self.state, ConnectionState::Closed) {
                    ConnectionState::Closing { waiter, .. } => Ok(Event::ConnectionCloseOk { waiter }),
                    state @ (ConnectionState::Open | ConnectionState::Closed) => {
                        self.state = state;
                        Err(Violation::Unexpected { channel: 0, method: connection::CloseOk::ID })
                    }
                }
            }
            _ if !self.is_open() => Ok(Event::Nothing),
            Method::ConnectionBlocked(blocked) => {
                self.blocked = true;
                Ok(Event::Blocked { reason: blocked.reason })
            }
            Method::ConnectionUnblocked(_) => {
                self.blocked = false;
                Ok(Event::Unblocked)
            }
            reply @ Method::ConnectionUpdateSecretOk(_) => match self.secrets.pop_front() {
                Some(waiter) => Ok(Event::Reply { id: 0, waiter: Some(waiter), reply, consumer: None }),
                None => Err(Violation::Unexpected { channel: 0, method: reply.id() }),
            },
            other => Err(Violation::Unexpected { channel: 0, method: other.id() }),
        }
    }

    fn channel_method(&mut self, id: NonZeroU16, method: Method) -> Result<Event<X>, Violation> {
        let out = self.out.on(id.get());
        let slot = self.slots.get_mut(usize::from(id.get()) - 1);
        let Some(slot) = slot.filter(|slot| slot.generation > 0) else {
            return Err(Violation::ChannelNotOpen(id.get()));
        };
        let id = id.get();
        match (&mut slot.state, method) {
            (State::Closing { .. }, Method::ChannelClose(_)) => {
                put_method(out, id, &channel::CloseOk {});
                Ok(Event::Nothing)
            }
            (State::Closing { waiter }, Method::ChannelCloseOk(_)) => {
                let waiter = waiter.take();
                slot.state = State::Free;
                Ok(Event::ChannelCloseOk { id, waiter })
            }
            (State::Opening { .. } | State::Open(_), Method::ChannelClose(close)) => {
                put_method(out, id, &channel::CloseOk {});
                let ended = match std::mem::replace(&mut slot.state, State::Free) {
                    State::Open(open) => open.end(),
                    State::Opening { waiter, channel } => Ended::unopened(waiter, channel),
                    State::Free | State::Closing { .. } => return Ok(Event::Nothing),
                };
                Ok(Event::ChannelClosed { id, close, ended })
            }
            (State::Opening { .. }, Method::ChannelOpenOk(_)) => {
                let State::Opening { waiter, channel } = std::mem::replace(&mut slot.state, State::Free)
                else {
                    return Ok(Event::Nothing);
                };
                slot.state = State::Open(Box::new(Open::new(channel)));
                Ok(Event::Opened { id, waiter })
            }
            (State::Open(open), method) => open_method(id, open, out, method),
            // late: what the server still sends for a channel that is closing, or for the number's last
            // incarnation
            (State::Free | State::Closing { .. } | State::Opening { .. }, _) => Ok(Event::Nothing),
        }
    }

    /// The server has acked or nacked publishes. Whether publishers that wait may try again; `None` without confirms.
    fn settled(&mut self, id: NonZeroU16, tag: u64, multiple: bool, acked: bool) -> Option<bool> {
        let State::Open(open) = &mut self.slots.get_mut(usize::from(id.get()) - 1)?.state else {
            return None;
        };
        let confirms = open.confirms.as_mut()?;
        let was_full = confirms.in_flight() >= self.unconfirmed_max;
        confirms.settle(tag, multiple, acked, &mut self.woken);
        Some(was_full && confirms.in_flight() < self.unconfirmed_max)
    }

    fn check_open(&self) -> Result<(), Refusal> {
        if self.is_open() { Ok(()) } else { Err(Refusal::ConnectionClosed) }
    }

    fn slot(&mut self, key: ChannelKey) -> Result<&mut Slot<X>, Refusal> {
        self.slots
            .get_mut(usize::from(key.id.get()) - 1)
            .filter(|slot| slot.generation == key.generation)
            .ok_or(Refusal::ChannelClosed)
    }

    fn open(&mut self, key: ChannelKey) -> Result<&mut Open<X>, Refusal> {
        self.open_and_out(key).map(|(open, _)| open)
    }

    #[inline]
    fn open_and_out(&mut self, key: ChannelKey) -> Result<(&mut Open<X>, &mut Outgoing), Refusal> {
        self.check_open()?;
        let slot = self.slots.get_mut(usize::from(key.id.get()) - 1);
        match slot {
            Some(Slot { generation, state: State::Open(open) }) if *generation == key.generation => {
                Ok((open, &mut self.out))
            }
            _ => Err(Refusal::ChannelClosed),
        }
    }

    /// Appends a method on an open channel, and notices what it changes. Returns how many bytes it took.
    fn put<M: Arguments>(&mut self, key: ChannelKey, method: &M) -> Result<usize, Refusal> {
        self.open(key)?;
        let size = self.put_on(key.id.get(), method)?;
        if M::ID == confirm::Select::ID {
            // counting starts with the first publish after select
            self.open(key)?.confirms.get_or_insert_with(Confirms::new);
        }
        Ok(size)
    }

    fn put_on<M: Arguments>(&mut self, id: u16, method: &M) -> Result<usize, Refusal> {
        let start = self.out.mark(id);
        let size = put_method(self.out.on(id), id, method) + OVERHEAD;
        if size > self.frame_max as usize {
            self.out.rewind(id, start);
            return Err(Refusal::MethodTooLarge { size, limit: self.frame_max });
        }
        Ok(size)
    }

    fn end_all(&mut self) -> Vec<Ended<X>> {
        let mut ended = Vec::new();
        for slot in &mut self.slots {
            match std::mem::replace(&mut slot.state, State::Free) {
                State::Free => {}
                State::Open(open) => ended.push(open.end()),
                State::Opening { waiter, channel } => ended.push(Ended::unopened(waiter, channel)),
                // whoever closes a channel is content with its end
                State::Closing { waiter } => drop(waiter),
            }
        }
        ended
    }
}

/// Handles a method on an open channel.
fn open_method<X: Waiters>(
    id: u16,
    open: &mut Open<X>,
    out: &mut Vec<u8>,
    method: Method,
) -> Result<Event<X>, Violation> {
    match method {
        Method::BasicCancel(cancel) => Ok(consumers::cancelled(id, open, out, cancel)),
        Method::ChannelFlow(flow) => {
            put_method(out, id, &channel::FlowOk { active: flow.active });
            open.flow = flow.active;
            Ok(if flow.active { Event::FlowResumed } else { Event::Nothing })
        }
        reply => {
            let Some(Pending { waiter, consumer, .. }) = open.answered_by(&reply) else {
                return Err(Violation::Unexpected { channel: id, method: reply.id() });
            };
            if let (Method::BasicConsumeOk(ok), Some(consumer)) = (&reply, &consumer) {
                // the one that has the tag must stay known: it will be told of the end
                if open.consumers.get(&ok.consumer_tag).is_some_and(|known| !X::is_same(known, consumer)) {
                    return Err(Violation::TagTwice { channel: id });
                }
                open.consumers.insert(ok.consumer_tag.clone(), consumer.clone());
            }
            Ok(Event::Reply { id, waiter, reply, consumer })
        }
    }
}
