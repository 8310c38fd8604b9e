//! Messages that came back.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::message::Message;
use super::single_channel::SingleInner;
use crate::codec::{DecodeError, Properties, ShortStr};
use crate::error::{Error, ErrorKind, Result};
use crate::mux::incoming_return::Returned as Raw;

/// A mandatory message that reached no queue.
///
/// `Debug` shows the size of the body, not its bytes.
#[derive(Clone, PartialEq)]
pub struct Returned {
    raw: Raw,
}

impl Returned {
    /// Why, as a code: 312, `NO_ROUTE`.
    pub fn reply_code(&self) -> u16 {
        self.raw.code
    }

    /// Why, as a text.
    pub fn reply_text(&self) -> &ShortStr {
        &self.raw.text
    }

    /// The exchange that it was published to.
    pub fn exchange(&self) -> &ShortStr {
        &self.raw.exchange
    }

    /// The key that it was published with.
    pub fn routing_key(&self) -> &ShortStr {
        &self.raw.routing_key
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.raw.body
    }

    /// The properties, with the headers.
    ///
    /// # Errors
    /// [`ErrorKind::Undecodable`] if they cannot be read.
    pub fn properties(&self) -> Result<Properties> {
        self.raw.properties().map_err(|error: DecodeError| {
            Error::new(ErrorKind::Undecodable, "the message's properties cannot be read, its body can")
                .with_source(error)
        })
    }

    /// The message, to publish it again.
    ///
    /// # Errors
    /// As [`properties`](Self::properties).
    pub fn to_message(&self) -> Result<Message> {
        Ok(Message::with_properties(self.body().clone(), self.properties()?))
    }
}

impl fmt::Debug for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Returned")
            .field("reply_code", &self.reply_code())
            .field("reply_text", self.reply_text())
            .field("exchange", self.exchange())
            .field("routing_key", self.routing_key())
            .field("body", &format_args!("{} bytes", self.body().len()))
            .finish_non_exhaustive()
    }
}

impl Error {
    /// The message that came back, if the kind is [`ErrorKind::Returned`].
    pub fn returned(&self) -> Option<Returned> {
        self.returned_message().map(|raw| Returned { raw: raw.clone() })
    }
}

/// A message that came back when nobody waited for its confirm any more.
#[derive(Debug)]
pub(crate) struct Stray {
    channel: Arc<SingleInner>,
    returned: Box<Raw>,
}

impl Stray {
    pub(super) fn new(channel: Arc<SingleInner>, returned: Box<Raw>) -> Self {
        Self { channel, returned }
    }

    /// Tells it to [`Returns`]. Wakes, so not to be called under a lock.
    pub(crate) fn tell(self) {
        self.channel.link.state.returns.push(*self.returned);
    }
}

/// Returned messages of one channel that no confirm tells of. Ends with the channel.
#[derive(Debug)]
pub(crate) struct SingleReturns {
    channel: Arc<SingleInner>,
}

impl SingleReturns {
    pub(super) fn new(channel: Arc<SingleInner>) -> Self {
        channel.link.state.returns.listen();
        Self { channel }
    }

    /// How many messages had to go because nobody took them in time.
    pub(crate) fn missed(&self) -> u64 {
        self.channel.link.state.returns.missed()
    }

    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Returned>> {
        self.channel.link.state.returns.poll_next(context).map(|next| next.map(|raw| Returned { raw }))
    }
}

impl Drop for SingleReturns {
    fn drop(&mut self) {
        self.channel.link.state.returns.unlisten();
    }
}
