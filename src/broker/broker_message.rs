//! A message as the broker keeps it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::codec::{FieldTable, FieldValue, Properties, ShortStr};

use super::broker_queue::Queue;

/// What was published, the same for every queue that it is in.
pub(super) struct Message {
    pub exchange: ShortStr,
    pub routing_key: ShortStr,
    pub properties: Properties,
    /// Further routing keys, from the headers `CC` and `BCC`.
    pub copies: Vec<ShortStr>,
    pub blind_copies: Vec<ShortStr>,
    pub body: Bytes,
    /// Failed deliveries in the queues that have given it up; counted on in the next one.
    pub deliveries: u32,
    /// A queue has given it up, and its headers say why; what a publisher writes there itself means nothing.
    pub dead: bool,
    /// Counts it as held until it is dropped.
    #[cfg_attr(not(any(fuzzing, test)), expect(dead_code, reason = "it counts until it is dropped"))]
    pub held: Held,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("exchange", &self.exchange)
            .field("routing_key", &self.routing_key)
            .field("properties", &self.properties)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish_non_exhaustive()
    }
}

/// Bytes of bodies and headers that a broker holds; gives its own back when it goes.
#[derive(Debug)]
pub(super) struct Held {
    total: Arc<AtomicU64>,
    bytes: u64,
}

impl Held {
    pub(super) fn new(total: &Arc<AtomicU64>, bytes: u64) -> Self {
        total.fetch_add(bytes, Ordering::Relaxed);
        Self { total: Arc::clone(total), bytes }
    }

    #[cfg(any(fuzzing, test))]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// So many more.
    pub(super) fn add(&mut self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Message {
    /// Bytes that count towards the length limits: the body, as `RabbitMQ` counts.
    pub(super) fn size(&self) -> u64 {
        self.body.len() as u64
    }

    pub(super) fn is_persistent(&self) -> bool {
        self.properties.delivery_mode == Some(2)
    }

    /// The message's own time to live; `None` if it has none or one that nobody can read.
    pub(super) fn expiration(&self) -> Option<Duration> {
        let text = self.properties.expiration.as_ref()?.as_str()?;
        text.parse().ok().map(Duration::from_millis)
    }

    pub(super) fn headers(&self) -> Option<&FieldTable> {
        self.properties.headers.as_ref()
    }

    /// The routing key, and those that the headers `CC` and `BCC` add.
    pub(super) fn routing_keys(&self) -> Vec<ShortStr> {
        [self.known_keys(), self.blind_copies.clone()].concat()
    }

    /// The routing keys that receivers may know.
    pub(super) fn known_keys(&self) -> Vec<ShortStr> {
        let mut keys = vec![self.routing_key.clone()];
        keys.extend(self.copies.iter().cloned());
        keys
    }
}

/// The routing keys that a header adds.
pub(super) fn keys_in(properties: &Properties, header: &str) -> Vec<ShortStr> {
    let value = properties.headers.as_ref().and_then(|headers| headers.get(header));
    let keys = value.and_then(FieldValue::as_array).unwrap_or_default().iter();
    keys.filter_map(|key| ShortStr::try_from(key.as_bytes()?.clone()).ok()).collect()
}

/// A message in a queue.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub message: Arc<Message>,
    /// Where it stands in the queue; kept when it is put back.
    pub position: u64,
    /// Its priority, at most the queue's; 0 in a queue without priorities.
    pub priority: u8,
    pub redelivered: bool,
    /// How often it was handed out before, and came back.
    pub acquired: u32,
    /// How often that was after an attempt to process it, which a quorum queue limits.
    pub deliveries: u32,
    pub expires: Option<Instant>,
}

impl Entry {
    /// The properties that it is delivered with: a quorum queue says how often it was delivered before.
    pub(super) fn properties(&self, queue: &Queue) -> Properties {
        let mut properties = self.message.properties.clone();
        let counts = [("x-acquired-count", self.acquired), ("x-delivery-count", self.deliveries)];
        for (name, count) in counts.into_iter().filter(|(_, count)| queue.is_quorum() && *count > 0) {
            let headers = properties.headers.get_or_insert_default();
            // a name this short fits
            drop(headers.insert(name, FieldValue::I64(count.into())));
        }
        properties
    }
}
