//! Messages to publish.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::queue_arguments::millis;
use crate::codec::{FieldTable, FieldValue, Properties, ShortStr, Timestamp};
use crate::error::{Error, ErrorKind, Result};

/// A message: a body and properties.
///
/// Persistent unless [`transient`](Self::transient): it survives a restart of the broker in a durable
/// queue. A property that breaks a limit is told when the message is published, and nothing is sent.
///
/// ```
/// use lepus::Message;
///
/// let message = Message::new(r#"{"id":1}"#)
///     .content_type("application/json")
///     .message_id("1")
///     .header("retries", 3);
/// assert_eq!(message.body(), r#"{"id":1}"#);
/// ```
///
/// `Debug` shows the size of the body, not its bytes.
#[derive(Clone, Default)]
pub struct Message {
    /// `None`: persistent, and nothing else. Apart, since a message is moved several times on its way, and
    /// most of its properties are usually absent.
    said: Option<Box<Said>>,
    body: Bytes,
}

/// What the user says of a message.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    properties: Properties,
    /// The first limit that a property breaks, in words.
    fault: Option<Cow<'static, str>>,
}

/// The header of messages that a robust connection has published again.
pub(crate) const REPUBLISHED: &str = "x-lepus-republished";

/// The values of `delivery-mode`.
const TRANSIENT: u8 = 1;
const PERSISTENT: u8 = 2;

/// What a message has unless the user says more.
static ONLY_PERSISTENT: Properties = Properties {
    content_type: None,
    content_encoding: None,
    headers: None,
    delivery_mode: Some(PERSISTENT),
    priority: None,
    correlation_id: None,
    reply_to: None,
    expiration: None,
    message_id: None,
    timestamp: None,
    kind: None,
    user_id: None,
    app_id: None,
    cluster_id: None,
};

impl Message {
    /// A persistent message. A `String`, `Vec<u8>`, `Bytes` or static text becomes the body without a copy; of a
    /// text that is borrowed for less make one with `to_owned`, of a delivery's body with
    /// [`body_bytes`](super::Incoming::body_bytes).
    #[inline]
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self { said: None, body: body.into() }
    }

    /// A message with just these properties. Its `delivery_mode` is what they say: absent means transient.
    pub fn with_properties(body: impl Into<Bytes>, properties: Properties) -> Self {
        Self { said: Some(Box::new(Said { properties, fault: None })), body: body.into() }
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The properties.
    pub fn properties(&self) -> &Properties {
        self.said.as_ref().map_or(&ONLY_PERSISTENT, |said| &said.properties)
    }

    /// The properties, to change them.
    pub fn properties_mut(&mut self) -> &mut Properties {
        &mut self.said().properties
    }

    /// Does not survive a restart of the broker, and is not written to disk unless memory is short.
    pub fn transient(mut self) -> Self {
        self.properties_mut().delivery_mode = Some(TRANSIENT);
        self
    }

    /// The media type of the body, such as `application/json`; at most 255 bytes, as all these texts.
    pub fn content_type(self, content_type: impl TryInto<ShortStr>) -> Self {
        self.text("content-type", content_type, |properties| &mut properties.content_type)
    }

    /// How the body is encoded, such as `gzip`.
    pub fn content_encoding(self, encoding: impl TryInto<ShortStr>) -> Self {
        self.text("content-encoding", encoding, |properties| &mut properties.content_encoding)
    }

    /// A header. Headers of the same name replace each other.
    ///
    /// AMQP's widest integer is an `i64`. A `u64`, `usize`, `isize` or `i128` becomes one; if it does not fit, publishing
    /// the message fails with [`ErrorKind::Argument`].
    ///
    /// ```
    /// use lepus::Message;
    ///
    /// let lines = vec!["a", "b"];
    /// let message = Message::new(lines.join("\n")).header("lines", lines.len()).header("source", "sensor 7");
    /// assert_eq!(message.properties().headers.as_ref().unwrap().get("lines").unwrap().as_integer(), Some(2));
    /// ```
    pub fn header(
        mut self,
        name: impl TryInto<ShortStr>,
        value: impl TryInto<FieldValue, Error: fmt::Display>,
    ) -> Self {
        let Ok(name) = name.try_into() else {
            self.is_too_long("name of a header");
            return self;
        };
        match value.try_into() {
            // cannot fail: both have their types already
            Ok(value) => drop(self.properties_mut().headers.get_or_insert_default().insert(name, value)),
            Err(error) => self.is_faulty(format!("the message's header \"{name}\": {error}")),
        }
        self
    }

    /// All headers, instead of those that were set.
    pub fn headers(mut self, headers: FieldTable) -> Self {
        self.properties_mut().headers = Some(headers);
        self
    }

    /// The priority, for queues that have priorities.
    pub fn priority(mut self, priority: u8) -> Self {
        self.properties_mut().priority = Some(priority);
        self
    }

    /// Tells which request a reply belongs to.
    pub fn correlation_id(self, id: impl TryInto<ShortStr>) -> Self {
        self.text("correlation-id", id, |properties| &mut properties.correlation_id)
    }

    /// The queue to send a reply to.
    pub fn reply_to(self, queue: impl TryInto<ShortStr>) -> Self {
        self.text("reply-to", queue, |properties| &mut properties.reply_to)
    }

    /// How long the message may wait in a queue; in whole milliseconds, at most ten years.
    pub fn expiration(self, ttl: Duration) -> Self {
        self.text("expiration", millis(ttl).to_string(), |properties| &mut properties.expiration)
    }

    /// A name for the message, unique as far as the application needs it.
    pub fn message_id(self, id: impl TryInto<ShortStr>) -> Self {
        self.text("message-id", id, |properties| &mut properties.message_id)
    }

    /// When the message was made, in whole seconds.
    pub fn timestamp(mut self, time: impl Into<Timestamp>) -> Self {
        self.properties_mut().timestamp = Some(time.into());
        self
    }

    /// The application's name for the kind of message: the property `type`.
    pub fn kind(self, kind: impl TryInto<ShortStr>) -> Self {
        self.text("type", kind, |properties| &mut properties.kind)
    }

    /// The user who publishes. The server refuses any other than the connection's with 406.
    pub fn user_id(self, user: impl TryInto<ShortStr>) -> Self {
        self.text("user-id", user, |properties| &mut properties.user_id)
    }

    /// The application that publishes.
    pub fn app_id(self, app: impl TryInto<ShortStr>) -> Self {
        self.text("app-id", app, |properties| &mut properties.app_id)
    }

    fn text(
        mut self,
        name: &'static str,
        text: impl TryInto<ShortStr>,
        property: impl FnOnce(&mut Properties) -> &mut Option<ShortStr>,
    ) -> Self {
        match text.try_into() {
            Ok(text) => *property(self.properties_mut()) = Some(text),
            Err(_) => self.is_too_long(name),
        }
        self
    }

    /// Whether it is more than persistent.
    #[inline]
    pub(crate) fn has_properties(&self) -> bool {
        self.said.is_some()
    }

    /// Marks it as one that is published again.
    pub(crate) fn republished(self) -> Self {
        self.header(REPUBLISHED, true)
    }

    fn is_too_long(&mut self, name: &str) {
        self.is_faulty(format!(
            "the message's {name} has more than 255 bytes, which is the most that AMQP allows"
        ));
    }

    fn is_faulty(&mut self, fault: String) {
        self.said().fault.get_or_insert(fault.into());
    }

    fn said(&mut self) -> &mut Said {
        self.said.get_or_insert_with(|| Box::new(Said { properties: ONLY_PERSISTENT.clone(), fault: None }))
    }

    /// Properties, `None` for just persistent, and body, if nothing in them breaks a limit.
    #[inline]
    pub(crate) fn parts(&self) -> Result<(Option<&Properties>, &Bytes)> {
        let Some(said) = &self.said else { return Ok((None, &self.body)) };
        match &said.fault {
            None => Ok((Some(&said.properties), &self.body)),
            Some(fault) => Err(Error::new(ErrorKind::Argument, fault.clone())),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("properties", self.properties())
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish_non_exhaustive()
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        let fault = |message: &Self| message.said.as_ref().and_then(|said| said.fault.clone());
        self.properties() == other.properties() && self.body == other.body && fault(self) == fault(other)
    }
}

/// Makes `From` for everything that becomes a body without a copy.
macro_rules! from_body {
    ($($type:ty),*) => {$(
        impl From<$type> for Message {
            #[inline]
            fn from(body: $type) -> Self {
                Self::new(body)
            }
        }
    )*};
}

from_body!(Bytes, Vec<u8>, String, &'static str, &'static [u8]);
