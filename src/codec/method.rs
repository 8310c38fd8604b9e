//! What every generated method has in common.

use std::fmt;

use bytes::Bytes;

use super::decode::{DecodeError, Decoder};
use super::generated::Method;

/// The two numbers that name a method on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MethodId {
    /// The class, such as 50 for `queue`.
    pub class: u16,
    /// The method within its class, such as 10 for `declare`.
    pub method: u16,
}

impl MethodId {
    /// Both numbers zero: in a close method, "no particular method is to blame".
    pub const NONE: Self = Self::new(0, 0);

    /// The pair of a class and a method.
    pub const fn new(class: u16, method: u16) -> Self {
        Self { class, method }
    }
}

impl fmt::Display for MethodId {
    /// The method's name, such as `queue.declare`; of an unknown one the numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Method::sender(*self) {
            Some(_) => f.write_str(Method::name(*self)),
            None => write!(f, "method {},{}", self.class, self.method),
        }
    }
}

/// Which side may send a method. A connection has two, so no variant will be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Only the client.
    Client,
    /// Only the server.
    Server,
    /// Either side.
    Both,
}

/// A method's arguments: what follows its class and method numbers on the wire.
pub trait Arguments: Sized {
    /// The class and method numbers.
    const ID: MethodId;

    /// Appends the arguments.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads the arguments.
    ///
    /// # Errors
    /// When the payload ends too early or holds a table that cannot be read.
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError>;
}

/// A synchronous method that a client may send: exactly one method without content answers it.
pub trait Request: Arguments + Clone + Into<Method> + Send + Sync + 'static {
    /// The answer.
    type Reply: Arguments + TryFrom<Method> + Send + 'static;

    /// Whether the request asks the server not to answer.
    fn no_wait(&self) -> bool;
}

impl Method {
    /// Reads a method frame's payload: two octets of class, two of method, then the arguments.
    /// Octets after the last argument are ignored, as `RabbitMQ` does.
    ///
    /// # Errors
    /// When the method is unknown or its arguments cannot be read.
    pub(crate) fn from_payload(source: &Bytes, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(source, payload);
        let id = MethodId::new(input.short()?, input.short()?);
        Self::decode(id, &mut input)
    }
}
