//! One virtual host of a broker, as tests look at it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::ShortStr;

use super::broker_queue::Queue;
use super::{Broker, MessageInfo, QueueInfo};

/// The host of a broker that listens nowhere: a name that no DNS ever has.
const NOWHERE: &str = "broker.invalid";

/// A virtual host of a [`Broker`]; made by [`Broker::in_vhost`]. One that does not exist has nothing in it.
#[derive(Clone, Copy, Debug)]
pub struct InVhost<'a> {
    pub(super) broker: &'a Broker,
    pub(super) name: &'a str,
}

impl InVhost<'_> {
    /// Where the broker listens, as a URL with the first user's name and password, and this virtual host. Without a port the
    /// host is `broker.invalid`, for a [connector](Broker::connector).
    pub fn url(&self) -> String {
        self.url_at("amqp", self.broker.address)
    }

    pub(super) fn url_at(&self, scheme: &str, address: Option<SocketAddr>) -> String {
        let user = self.broker.shared.look(|state| state.options.users.first().cloned());
        let (name, password) = user.unwrap_or_default();
        // `/` in full: by the specification of these URIs nothing behind the slash is a virtual host without a name
        let [name, password, vhost] = [name.as_str(), password.as_str(), self.name].map(escaped);
        let host = address.map_or_else(|| NOWHERE.into(), |address| address.to_string());
        format!("{scheme}://{name}:{password}@{host}/{vhost}")
    }

    /// The queue of this name.
    pub fn queue(&self, name: &str) -> Option<QueueInfo> {
        let name = ShortStr::try_from(name).ok()?;
        self.broker.shared.look(|state| {
            let vhost = state.vhosts.get(self.name)?;
            vhost.queues.get(&name).map(|queue| QueueInfo::new(vhost, &name, queue))
        })
    }

    /// The messages that are ready in a queue, in their order.
    pub fn messages(&self, queue: &str) -> Vec<MessageInfo> {
        let Ok(name) = ShortStr::try_from(queue) else { return Vec::new() };
        self.broker.shared.look(|state| {
            let queue = state.vhosts.get(self.name).and_then(|vhost| vhost.queues.get(&name));
            queue.into_iter().flat_map(Queue::entries).map(MessageInfo::new).collect()
        })
    }

    /// The bodies of the messages that are ready in a queue, in their order.
    pub fn bodies(&self, queue: &str) -> Vec<Bytes> {
        self.messages(queue).into_iter().map(|message| message.body).collect()
    }

    /// Cancels the consumers of a queue, as a failover does. How many there were.
    pub fn cancel_consumers(&self, queue: &str) -> usize {
        let Ok(name) = ShortStr::try_from(queue) else { return 0 };
        self.broker.with_state(|state| {
            let vhost = state.vhosts.get(self.name).map(|vhost| Arc::clone(&vhost.name));
            vhost.map_or(0, |vhost| state.cancel_consumers(&(vhost, name)))
        })
    }
}

/// A part of a URL.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
