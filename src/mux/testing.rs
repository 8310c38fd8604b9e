//! The multiplexer in memory: driven as the driver drives it, with numbers in place of whoever waits.

use bytes::BytesMut;

use super::Waiters;
use super::channel_state::Ended;
use super::ids::ChannelKey;
use super::inbound::{Inbound, Received};
use super::incoming_delivery::Delivery;
use super::incoming_return::Returned;
use super::outgoing::Batch;
use super::session::{Event, Session};
use super::tune::Agreed;
use super::violation::Violation;
use crate::codec::frame::{Cutter, Frame, Frames};
use crate::codec::{Method, ShortStr};

/// Waiters that are numbers.
#[derive(Debug)]
pub(crate) enum Numbers {}

impl Waiters for Numbers {
    type Reply = u32;
    type Consumer = u32;
    type Confirm = u32;
    type Channel = ChannelKey;

    fn is_same(one: &u32, other: &u32) -> bool {
        one == other
    }
}

/// What the layers above are told.
#[derive(Debug, PartialEq)]
pub(crate) enum Seen {
    Opened { waiter: u32 },
    Reply { waiter: Option<u32>, reply: Method },
    Delivered { channel: u16, consumer: u32, delivery: Delivery },
    Unclaimed { channel: u16, delivery: Delivery },
    Got { channel: u16, waiter: Option<u32>, delivery: Delivery },
    Returned { channel: u16, returned: Box<Returned> },
    Confirm { waiter: u32 },
    ChannelClosed { code: u16, told: Told },
    ChannelCloseOk { waiter: Option<u32> },
    Cancelled { tag: ShortStr, consumer: u32 },
    FlowResumed,
    Blocked { reason: ShortStr },
    Unblocked,
    ConnectionClosed { code: u16, told: Told },
    ConnectionCloseOk { waiter: Option<u32> },
}

/// Everybody who is told that a channel, or all of them, ended.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Told {
    pub replies: Vec<u32>,
    pub confirms: Vec<u32>,
    pub consumers: Vec<u32>,
}

impl Told {
    pub(crate) fn new(ended: impl IntoIterator<Item = Ended<Numbers>>) -> Self {
        let mut told = Self::default();
        for mut ended in ended {
            told.replies.append(&mut ended.replies);
            told.consumers.append(&mut ended.consumers);
            if let Some(confirms) = &mut ended.confirms {
                confirms.take_waiters(&mut told.confirms);
            }
        }
        told.consumers.sort_unstable();
        told
    }
}

/// Deliveries are alike if a user sees the same, wherever the parts stand. Properties are compared by their
/// octets, since a number in a header may be NaN.
impl PartialEq for Delivery {
    fn eq(&self, other: &Self) -> bool {
        let fields = |it: &Self| (it.tag, it.redelivered(), it.message_count());
        let octets = |it: &Self| {
            it.properties().map(|properties| {
                let mut out = Vec::new();
                properties.encode(&mut out);
                out
            })
        };
        fields(self) == fields(other)
            && self.consumer_tag() == other.consumer_tag()
            && self.exchange() == other.exchange()
            && self.routing_key() == other.routing_key()
            && octets(self) == octets(other)
            && self.body() == other.body()
    }
}

/// Both halves of the multiplexer and what goes in and out of them.
#[derive(Debug)]
pub(crate) struct Client {
    pub session: Session<Numbers>,
    pub inbound: Inbound<Numbers>,
    cutter: Cutter,
    input: BytesMut,
    seen: Vec<Seen>,
}

impl Client {
    pub(crate) fn new(agreed: Agreed, max_message: u64) -> Self {
        Self {
            session: Session::new(agreed),
            inbound: Inbound::new(max_message),
            cutter: Cutter::agreed(agreed.frame_max),
            input: BytesMut::new(),
            seen: Vec::new(),
        }
    }

    /// Handles what was read, up to the first fault.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.input.extend_from_slice(bytes);
        let cut = self.cutter.cut(&mut self.input);
        let mut frames = cut.frames.frames();
        while let Some(frame) = frames.next() {
            self.frame(frame, &mut frames)?;
        }
        cut.fault.map_or(Ok(()), |fault| Err(fault.into()))
    }

    /// What has been seen since the last time.
    pub(crate) fn seen(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }

    /// What was to be written since the last time.
    pub(crate) fn written(&mut self) -> Vec<u8> {
        let (mut bytes, mut batch) = (Vec::new(), Batch::default());
        while !self.session.out.is_empty() {
            self.session.out.take(&mut batch);
            let end = bytes.len() + batch.len();
            // a few at a time: mostly there is one
            while bytes.len() < end {
                let mut slices = [std::io::IoSlice::new(&[]); 4];
                let used = batch.slices(batch.len() - (end - bytes.len()), &mut slices);
                slices.iter().take(used).for_each(|slice| bytes.extend_from_slice(slice));
            }
            batch.clear();
        }
        bytes
    }

    fn frame(&mut self, frame: Frame<'_>, next: &mut Frames<'_>) -> Result<(), Violation> {
        let on = frame.channel;
        if let Some((consumer, delivery)) = self.inbound.deliver_whole(&frame, next) {
            let consumer = *consumer;
            self.seen.push(Seen::Delivered { channel: on, consumer, delivery });
            return Ok(());
        }
        match self.inbound.receive(frame)? {
            Received::Nothing => {}
            Received::Method { channel, method } => {
                let event = self.session.receive(channel, method)?;
                self.event(event);
            }
            Received::Delivery { consumer, delivery } => {
                let consumer = *consumer;
                self.seen.push(Seen::Delivered { channel: on, consumer, delivery });
            }
            Received::Unclaimed { channel, delivery } => {
                self.seen.push(Seen::Unclaimed { channel, delivery });
            }
            Received::GetOk { channel, delivery } => {
                let waiter = self.session.get_ok(channel)?;
                self.seen.push(Seen::Got { channel, waiter, delivery });
            }
            Received::Returned { channel, returned } => {
                if let Some((_, returned)) = self.session.returned(channel, returned) {
                    self.seen.push(Seen::Returned { channel, returned });
                }
            }
        }
        self.seen.extend(self.session.woken.drain(..).map(|waiter| Seen::Confirm { waiter }));
        Ok(())
    }

    fn event(&mut self, event: Event<Numbers>) {
        let seen = match event {
            Event::Nothing => return,
            Event::Opened { id, waiter } => {
                self.inbound.opened(id);
                Seen::Opened { waiter }
            }
            Event::Reply { id, waiter, reply, consumer } => {
                match (&reply, consumer) {
                    // before anything that follows is looked at: it may be the first delivery
                    (Method::BasicConsumeOk(ok), Some(consumer)) => {
                        self.inbound.register(id, ok.consumer_tag.clone(), consumer);
                    }
                    (Method::BasicCancelOk(ok), Some(consumer)) => {
                        self.inbound.unregister(id, &ok.consumer_tag, &consumer);
                    }
                    _ => {}
                }
                Seen::Reply { waiter, reply }
            }
            Event::ChannelClosed { id, close, ended } => {
                self.inbound.closed(id);
                Seen::ChannelClosed { code: close.reply_code, told: Told::new([ended]) }
            }
            Event::ChannelCloseOk { id, waiter } => {
                self.inbound.closed(id);
                Seen::ChannelCloseOk { waiter }
            }
            Event::Cancelled { tag, consumer, .. } => Seen::Cancelled { tag, consumer },
            Event::FlowResumed => Seen::FlowResumed,
            Event::Blocked { reason } => Seen::Blocked { reason },
            Event::Unblocked => Seen::Unblocked,
            Event::ConnectionClosed { close } => {
                let (ended, calls) = self.session.fail(None);
                let mut told = Told::new(ended);
                told.replies.extend(calls);
                Seen::ConnectionClosed { code: close.reply_code, told }
            }
            Event::ConnectionCloseOk { waiter } => Seen::ConnectionCloseOk { waiter },
        };
        self.seen.push(seen);
    }
}
