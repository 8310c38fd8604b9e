//! A connection, as the broker sees it: what it agreed on, its channels, and what is to be written.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::codec::content::put_header;
use crate::codec::frame::{put_body_head, put_method};
use crate::codec::generated::constants::FRAME_END;
use crate::codec::{Arguments, FieldTable, FieldValue, Properties, ShortStr};

use super::broker_channel::Channel;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The protocol header is awaited.
    Greeting,
    /// `connection.start` is sent.
    Starting,
    /// `connection.tune` is sent.
    Tuning,
    /// `connection.open` is awaited.
    Opening,
    Open,
    /// The broker has sent `connection.close`.
    Closing,
}

/// How the socket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// After what is still to be written.
    Flush,
    /// At once, as when a cable is cut.
    Cut,
}

/// Bytes that may wait for a slow client before its consumers get no more, and nothing more is read from it.
pub(super) const OUT_MAX: usize = 1 << 20;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub peer: Option<SocketAddr>,
    /// Whom the client's certificate names.
    pub identity: Option<String>,
    pub phase: Phase,
    pub vhost: Arc<str>,
    pub user: ShortStr,
    pub client_properties: FieldTable,
    /// The agreed limits.
    pub frame_max: u32,
    pub channel_max: u16,
    /// In seconds; 0 for none.
    pub heartbeat: u16,
    pub channels: BTreeMap<u16, Channel>,
    /// Channels with confirms that are decided and not sent.
    pub confirming: Vec<u16>,
    /// To be written.
    pub out: Vec<u8>,
    /// Tells the socket's task that there is something new for it.
    pub wake: Arc<Notify>,
    pub end: Option<End>,
    /// Whether it has begun to publish while publishers must stop.
    pub publishes: bool,
    /// `connection.blocked` applies to it, and nothing more is read.
    pub blocked: bool,
    /// The fault: nothing is read.
    pub deaf: bool,
    /// The fault: it is cut after so many more bytes have been written.
    pub cut_after: Option<u64>,
    /// The fault: it is cut after so many more bytes have been read.
    pub cut_after_reading: Option<u64>,
}

impl Connection {
    pub(super) fn new(peer: Option<SocketAddr>, wake: Arc<Notify>) -> Self {
        Self {
            peer,
            identity: None,
            phase: Phase::Greeting,
            vhost: "/".into(),
            user: ShortStr::empty(),
            client_properties: FieldTable::new(),
            frame_max: 0,
            channel_max: 0,
            heartbeat: 0,
            channels: BTreeMap::new(),
            confirming: Vec::new(),
            out: Vec::new(),
            wake,
            end: None,
            publishes: false,
            blocked: false,
            deaf: false,
            cut_after: None,
            cut_after_reading: None,
        }
    }

    /// Whether the client says that it understands something.
    pub(super) fn is_capable(&self, of: &str) -> bool {
        let capabilities = self.client_properties.get("capabilities").and_then(FieldValue::as_table);
        capabilities.and_then(|table| table.get(of)).and_then(FieldValue::as_bool) == Some(true)
    }

    /// Whether deliveries still have room to wait in.
    pub(super) fn has_room(&self) -> bool {
        self.phase == Phase::Open && self.end.is_none() && !self.is_full()
    }

    /// Whether so much waits to be written that the client must read first.
    pub(super) fn is_full(&self) -> bool {
        self.out.len() >= OUT_MAX
    }

    /// Whether anything more is read from it.
    pub(super) fn takes_input(&self) -> bool {
        !self.blocked && !self.deaf && !self.is_full() && self.end.is_none()
    }

    /// Has a method written.
    pub(super) fn put<M: Arguments>(&mut self, channel: u16, method: &M) {
        put_method(&mut self.out, channel, method);
        self.wake.notify_one();
    }

    /// Has a method with its content written.
    pub(super) fn put_content<M: Arguments>(
        &mut self,
        channel: u16,
        method: &M,
        properties: &Properties,
        body: &Bytes,
    ) {
        put_method(&mut self.out, channel, method);
        put_header(&mut self.out, channel, body.len() as u64, properties);
        for part in body.chunks(self.frame_max.saturating_sub(8).max(1) as usize) {
            put_body_head(&mut self.out, channel, u32::try_from(part.len()).unwrap_or(u32::MAX));
            self.out.extend_from_slice(part);
            self.out.push(FRAME_END);
        }
        self.wake.notify_one();
    }

    /// The socket ends; the first word counts, except that a cut is final.
    pub(super) fn end(&mut self, how: End) {
        if self.end != Some(End::Cut) {
            self.end = Some(how);
        }
        self.wake.notify_one();
    }
}
