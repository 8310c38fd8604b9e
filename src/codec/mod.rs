//! Bytes to protocol and back: frames, primitives, field tables, properties and methods.
//!
//! The lowest layer: no runtime, no clock, no lock, no socket. Decoding is bounds-checked, allocates in
//! proportion to what has arrived and never by a number that the peer claims; encoding appends to a
//! buffer. Method structs are generated from `codegen/amqp0-9-1.xml`.

pub(crate) mod content;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod frame;
pub(crate) mod generated;
pub(crate) mod method;
pub(crate) mod peer_text;
pub(crate) mod primitive;
#[cfg(feature = "serde")]
pub(crate) mod serde_impls;
pub(crate) mod table;
#[cfg(test)]
mod tests;

// What generated code and the layers above refer to.
pub use self::decode::{DecodeError, Decoder};
pub(crate) use self::generated::Method;
pub use self::generated::basic::Properties;
pub use self::method::{Arguments, MethodId, Request, Sender};
pub use self::primitive::{ShortStr, Timestamp, TooLong};
pub use self::table::{FieldTable, FieldValue};
