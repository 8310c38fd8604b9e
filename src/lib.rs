//! An AMQP 0-9-1 client for tokio: fast, safe, short to write.
mod client;
mod codec;
mod driver;
mod error;
mod mux;

pub use self::client::{
    BindExchange, BindQueue, Blocked, Carrier, Channel, Confirm, ConnectOptions, Connection, Consume,
    Consumer, DeadLetterStrategy, DeclareExchange, DeclareQueue, DeleteExchange, DeleteQueue, Delivery,
    Enqueue, Exchange, ExchangeKind, Get, Handle, Incoming, Message, OnError, OpenChannel, Overflow, Publish,
    Queue, QueueType, Returned, Returns, StreamOffset, UriError, Worker, connect,
};
pub use self::codec::{FieldTable, FieldValue, Properties, ShortStr, Timestamp, TooLong};
pub use self::error::{Error, ErrorKind, Origin, Result, Scope};
pub use self::mux::sasl::Mechanism;

/// The protocol itself: methods, properties and constants, as plain data, for [`Channel::call`].
///
/// Generated from the protocol's specification; one module for each class.
pub mod protocol {
    pub use crate::codec::generated::{
        Method, access, basic, channel, confirm, connection, constants, exchange, queue, tx,
    };
    pub use crate::codec::{Arguments, DecodeError, Decoder, MethodId, Request, Sender};
}
