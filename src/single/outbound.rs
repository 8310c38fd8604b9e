//! What is published, and how a consumer is started, on their way down from the builders.

use std::fmt;

use super::message::Message;
use super::routing_key::RoutingKey;
use crate::codec::ShortStr;
use crate::codec::generated::basic;
use crate::codec::peer_text::PeerText;
use crate::error::{ExchangeName, Result};
use crate::mux::outgoing_publish::Publish;

/// Where a message goes, and how; the names are borrowed. Passed by reference on the way down, with the message
/// beside it: each copy of what was written a moment ago costs more than all its reads.
#[derive(Debug)]
pub(crate) struct Outbound<'a> {
    pub exchange: &'a ShortStr,
    pub routing_key: RoutingKey<'a>,
    pub mandatory: bool,
    /// Whether somebody will wait for the confirm at once.
    pub awaited: bool,
}

impl Outbound<'_> {
    /// As the layers below want it; with the message's properties as they are `encoded`, if the caller has them.
    #[inline]
    pub(super) fn publish<'a>(
        &'a self,
        message: &'a Message,
        encoded: Option<&'a [u8]>,
    ) -> Result<Publish<'a>> {
        let (properties, body) = message.parts()?;
        let (exchange, routing_key) = (self.exchange.as_bytes(), self.routing_key.as_bytes());
        Ok(Publish { exchange, routing_key, mandatory: self.mandatory, properties, encoded, body })
    }
}

impl fmt::Display for Outbound<'_> {
    /// As errors name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = PeerText(self.routing_key.as_bytes());
        write!(f, "basic.publish to {} with routing key \"{key}\"", ExchangeName(self.exchange))
    }
}

/// What a consumer is started with.
#[derive(Clone, Debug)]
pub(crate) struct ConsumeSpec {
    /// `None`: as the channel says.
    pub prefetch: Option<u16>,
    pub method: basic::Consume,
}
