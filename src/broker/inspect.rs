//! What is in a broker, as plain data for a test to look at.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::codec::{FieldTable, Properties, ShortStr};

use super::Broker;
use super::broker_exchange::Destination;
use super::broker_message::Entry;
use super::broker_queue::Queue;
use super::vhost::Vhost;

/// A queue.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueueInfo {
    /// Its virtual host.
    pub vhost: String,
    /// Its name; what is not UTF-8 is replaced.
    pub name: String,
    /// Whether it outlives a restart.
    pub durable: bool,
    /// Whether it belongs to one connection.
    pub exclusive: bool,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// What it was declared with.
    pub arguments: FieldTable,
    /// How many messages are ready to be delivered.
    pub ready: usize,
    /// How many messages are delivered and not acknowledged.
    pub unacked: usize,
    /// How many bytes the bodies of the ready messages have.
    pub ready_bytes: u64,
    /// How many consumers it has.
    pub consumers: usize,
}

impl QueueInfo {
    pub(super) fn new(vhost: &Vhost, name: &ShortStr, queue: &Queue) -> Self {
        Self {
            vhost: vhost.name.to_string(),
            name: text(name),
            durable: queue.durable,
            exclusive: queue.owner.is_some(),
            auto_delete: queue.auto_delete,
            arguments: queue.arguments.clone(),
            ready: queue.depth(),
            unacked: queue.unacked,
            ready_bytes: queue.ready_bytes(),
            consumers: queue.consumers().len(),
        }
    }
}

/// A message that is ready in a queue. `Debug` shows the size of its body, not the bytes.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct MessageInfo {
    /// The exchange that it was published to; empty for the default exchange.
    pub exchange: String,
    /// The key that it was published with.
    pub routing_key: String,
    /// Its properties, headers included.
    pub properties: Properties,
    /// Its body.
    pub body: Bytes,
    /// Whether it was delivered before, and came back.
    pub redelivered: bool,
}

impl MessageInfo {
    pub(super) fn new(entry: &Entry) -> Self {
        let message = &entry.message;
        Self {
            exchange: text(&message.exchange),
            routing_key: text(&message.routing_key),
            properties: message.properties.clone(),
            body: message.body.clone(),
            redelivered: entry.redelivered,
        }
    }
}

impl fmt::Debug for MessageInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageInfo")
            .field("exchange", &self.exchange)
            .field("routing_key", &self.routing_key)
            .field("properties", &self.properties)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .field("redelivered", &self.redelivered)
            .finish()
    }
}

/// An exchange. The default exchange is not listed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExchangeInfo {
    /// Its virtual host.
    pub vhost: String,
    /// Its name.
    pub name: String,
    /// Its type, such as `topic`.
    pub kind: &'static str,
    /// Whether it outlives a restart.
    pub durable: bool,
    /// Whether it goes with its last binding.
    pub auto_delete: bool,
    /// Whether only other exchanges may publish to it.
    pub internal: bool,
    /// What it was declared with.
    pub arguments: FieldTable,
}

/// A binding. Those of the default exchange, one for each queue, are not listed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BindingInfo {
    /// Its virtual host.
    pub vhost: String,
    /// The exchange that it leads from.
    pub source: String,
    /// What it leads to.
    pub destination: String,
    /// Whether that is an exchange; else it is a queue.
    pub to_exchange: bool,
    /// The routing key or pattern.
    pub routing_key: String,
    /// What it was made with.
    pub arguments: FieldTable,
}

/// A consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerInfo {
    /// The connection that it is on.
    pub connection: u64,
    /// The channel that it is on.
    pub channel: u16,
    /// Its tag.
    pub tag: String,
    /// The virtual host that its queue is in.
    pub vhost: String,
    /// Its queue.
    pub queue: String,
    /// How many unacknowledged deliveries it may have; 0 for no limit.
    pub prefetch: u16,
    /// How many it has.
    pub unacked: usize,
    /// Whether its deliveries need no acknowledgement.
    pub no_ack: bool,
}

/// A connection.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Tells it from others of the same broker, for ever.
    pub id: u64,
    /// Where it comes from; `None` if it was [served](Broker::serve) over something other than TCP.
    pub peer: Option<SocketAddr>,
    /// Who has logged in; empty before that.
    pub user: String,
    /// The virtual host that it uses.
    pub vhost: String,
    /// What the client says of itself.
    pub client_properties: FieldTable,
    /// How many channels it has open.
    pub channels: usize,
    /// Whether it may not publish at the moment.
    pub blocked: bool,
}

/// Looking at what is there.
impl Broker {
    /// All queues, of all virtual hosts, by name.
    pub fn queues(&self) -> Vec<QueueInfo> {
        self.of_vhosts(|vhost| {
            vhost.queues.iter().map(|(name, queue)| QueueInfo::new(vhost, name, queue)).collect()
        })
    }

    /// The queue of this name in the virtual host `/`.
    pub fn queue(&self, name: &str) -> Option<QueueInfo> {
        self.in_vhost("/").queue(name)
    }

    /// The messages that are ready in a queue of the virtual host `/`, in their order.
    pub fn messages(&self, queue: &str) -> Vec<MessageInfo> {
        self.in_vhost("/").messages(queue)
    }

    /// The bodies of the messages that are ready in a queue of the virtual host `/`, in their order.
    pub fn bodies(&self, queue: &str) -> Vec<Bytes> {
        self.in_vhost("/").bodies(queue)
    }

    /// All exchanges, of all virtual hosts, by name.
    pub fn exchanges(&self) -> Vec<ExchangeInfo> {
        self.of_vhosts(|vhost| {
            let exchanges = vhost.exchanges.iter().map(|(name, exchange)| ExchangeInfo {
                vhost: vhost.name.to_string(),
                name: text(name),
                kind: exchange.kind.name(),
                durable: exchange.durable,
                auto_delete: exchange.auto_delete,
                internal: exchange.internal,
                arguments: exchange.arguments.clone(),
            });
            exchanges.collect()
        })
    }

    /// All bindings, of all virtual hosts, by their source.
    pub fn bindings(&self) -> Vec<BindingInfo> {
        self.of_vhosts(|vhost| {
            let mut found = Vec::new();
            for (source, exchange) in &vhost.exchanges {
                for (key, arguments) in &exchange.bindings {
                    let (destination, to_exchange) = match &key.destination {
                        Destination::Queue(name) => (name, false),
                        Destination::Exchange(name) => (name, true),
                    };
                    found.push(BindingInfo {
                        vhost: vhost.name.to_string(),
                        source: text(source),
                        destination: text(destination),
                        to_exchange,
                        routing_key: text(&key.routing_key),
                        arguments: arguments.clone(),
                    });
                }
            }
            found
        })
    }

    /// All consumers, by connection and channel.
    pub fn consumers(&self) -> Vec<ConsumerInfo> {
        self.shared.look(|state| {
            let mut found = Vec::new();
            for (connection, of_connection) in &state.connections {
                for (channel, of) in &of_connection.channels {
                    found.extend(of.consumers.iter().map(|(tag, consumer)| ConsumerInfo {
                        connection: *connection,
                        channel: *channel,
                        tag: text(tag),
                        vhost: of_connection.vhost.to_string(),
                        queue: text(&consumer.queue),
                        prefetch: consumer.prefetch,
                        unacked: consumer.unacked,
                        no_ack: consumer.no_ack,
                    }));
                }
            }
            found
        })
    }

    /// All connections, the oldest first, with those that are still logging in.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.shared.look(|state| {
            let connections = state.connections.iter().map(|(id, connection)| ConnectionInfo {
                id: *id,
                peer: connection.peer,
                user: text(&connection.user),
                vhost: connection.vhost.to_string(),
                client_properties: connection.client_properties.clone(),
                channels: connection.channels.len(),
                blocked: connection.blocked,
            });
            connections.collect()
        })
    }

    /// Bytes of message bodies and headers that the broker holds, those of messages that are still arriving included.
    pub fn memory(&self) -> u64 {
        self.shared.look(|state| state.memory.load(Ordering::Relaxed))
    }

    fn of_vhosts<T>(&self, of: impl Fn(&Vhost) -> Vec<T>) -> Vec<T> {
        self.shared.look(|state| state.vhosts.values().flat_map(of).collect())
    }
}

/// A name as it is; where it is not UTF-8, with replacement characters.
fn text(name: &ShortStr) -> String {
    name.to_string_lossy().into_owned()
}
