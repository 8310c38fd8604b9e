//! What `benches/micro.rs` and `benches/instructions.rs` measure and is not public. Built with
//! `--cfg lepus_bench` only.

use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};

use crate::Message;
use crate::codec::content::put_header;
use crate::codec::encode;
use crate::codec::frame::{Cutter, put_frame, put_method};
use crate::codec::generated::constants::FRAME_BODY;
use crate::codec::generated::{basic, channel, confirm};
use crate::codec::{Arguments, DecodeError, Decoder, FieldTable, Properties, ShortStr, TooLong};
use crate::mux::Waiters;
use crate::mux::channel_state::{Expect, Pending};
use crate::mux::ids::ChannelKey;
use crate::mux::inbound::Inbound;
use crate::mux::outgoing::Batch;
use crate::mux::outgoing_publish::Publish;
use crate::mux::session::{Published, Session};
use crate::mux::tune::Agreed;

const AGREED: Agreed = Agreed { channel_max: 2047, frame_max: 131_072, heartbeat: 60 };
const KEY: ChannelKey = ChannelKey { id: NonZeroU16::MIN, generation: 1 };
/// The consumer that [`deliveries`] are for.
pub const TAG: &str = "amq.ctag-1234567890abcdef";

/// Nobody waits for anything.
#[derive(Debug)]
struct Nobody;

impl Waiters for Nobody {
    type Reply = ();
    type Consumer = ();
    type Confirm = ();
    type Channel = ();

    fn is_same((): &(), (): &()) -> bool {
        true
    }
}

/// The sending half, with one channel open.
#[derive(Debug)]
pub struct Outbound {
    session: Session<Nobody>,
    batch: Batch,
}

impl Outbound {
    /// With publisher confirms on or off.
    pub fn new(confirms: bool) -> Self {
        let mut session = Session::new(AGREED);
        // none of this can be refused on a new session; what is measured would tell
        let _ = session.open_channel((), |_| ());
        let _ = session.receive(1, channel::OpenOk.into());
        if confirms {
            let expect = Expect::only(confirm::SelectOk::ID);
            let pending = Pending { expect, waiter: None, consumer: None };
            let _ = session.call(KEY, &confirm::Select { no_wait: false }, pending);
            let _ = session.receive(1, confirm::SelectOk.into());
        }
        session.out.take(&mut Batch::default());
        Self { session, batch: Batch::default() }
    }

    /// Appends a message; false if it was not taken.
    pub fn publish(&mut self, exchange: &[u8], routing_key: &[u8], message: &Message) -> bool {
        let Ok((properties, body)) = message.parts() else { return false };
        let publish = Publish { exchange, routing_key, mandatory: false, properties, encoded: None, body };
        matches!(self.session.publish(KEY, &publish, usize::MAX), Ok(Published::Accepted(_)))
    }

    /// Handles an ack of the server's; false if it was not understood.
    pub fn acked(&mut self, delivery_tag: u64, multiple: bool) -> bool {
        self.session.receive(1, basic::Ack { delivery_tag, multiple }.into()).is_ok()
    }

    /// Throws away what waits to be written, and returns how many bytes that were.
    pub fn clear(&mut self) -> usize {
        self.session.out.take(&mut self.batch);
        let length = self.batch.len();
        self.batch.clear();
        length
    }
}

/// The receiving half, with one consumer.
#[derive(Debug)]
pub struct Incoming {
    inbound: Inbound<Nobody>,
}

impl Incoming {
    /// With the consumer that [`deliveries`] are for.
    ///
    /// # Errors
    /// Never: the tag is short.
    pub fn new() -> Result<Self, TooLong> {
        let mut inbound = Inbound::new(u64::MAX);
        inbound.opened(1);
        inbound.register(1, ShortStr::try_from(TAG)?, ());
        Ok(Self { inbound })
    }

    /// Cuts the frames out of what was read and assembles them; returns the number of deliveries.
    pub fn receive(&mut self, input: &mut BytesMut) -> usize {
        let cut = Cutter::agreed(AGREED.frame_max).cut(input);
        let (mut frames, mut deliveries) = (cut.frames.frames(), 0);
        while let Some(frame) = frames.next() {
            deliveries += usize::from(self.inbound.deliver_whole(&frame, &mut frames).is_some());
        }
        deliveries
    }
}

/// Cuts the frames out of what was read; returns their number.
pub fn split(input: &mut BytesMut) -> usize {
    Cutter::agreed(AGREED.frame_max).cut(input).frames.frames().count()
}

/// So many deliveries, as a server would send them, with bodies of `size` bytes.
///
/// # Errors
/// Never: all names are short.
pub fn deliveries(count: u64, size: usize) -> Result<Vec<u8>, TooLong> {
    let mut out = Vec::new();
    let properties = Properties { delivery_mode: Some(2), ..Properties::default() };
    for delivery_tag in 1..=count {
        let deliver = basic::Deliver {
            consumer_tag: ShortStr::try_from(TAG)?,
            delivery_tag,
            redelivered: false,
            exchange: ShortStr::try_from("")?,
            routing_key: ShortStr::try_from("orders.new")?,
        };
        put_method(&mut out, 1, &deliver);
        put_header(&mut out, 1, size as u64, &properties);
        put_frame(&mut out, FRAME_BODY, 1, |out| out.resize(out.len() + size, b'x'));
    }
    Ok(out)
}

/// Appends a table.
pub fn put_table(out: &mut Vec<u8>, table: &FieldTable) {
    encode::put_table(out, table);
}

/// Reads a table.
///
/// # Errors
/// If it is none.
pub fn table(input: &Bytes) -> Result<FieldTable, DecodeError> {
    Decoder::new(input, input).table()
}
