//! The protocol itself, without a connection: frames, methods, contents, tables and constants.
//!
//! Methods and constants are plain data, generated from the protocol's specification, with one module for each class.
//! [`Channel::call`](crate::Channel::call) sends any of them.
//!
//! Proxies, sniffers and fuzzers need the bytes as well:
//!
//! ```text
//!   bytes ── FrameCutter::cut ──> Frame ── Frame::decode ──> Payload: Method, ContentHeader, a piece of a body
//!   bytes <── Frame::encode ───── Frame <── Frame::method, header, bodies, heartbeat
//! ```
//!
//! None of this does I/O. No input makes it panic, and it allocates in proportion to what has arrived, never by a number
//! that the peer claims. Frames, strings and bodies share the buffer that they were read into, so a small one can keep
//! a large buffer alive.
//!
//! ```
//! use bytes::BytesMut;
//! use lepus::protocol::{Frame, FrameCutter, Payload, queue};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let declare = queue::Declare { queue: "jobs".try_into()?, durable: true, ..queue::Declare::default() };
//! let mut bytes = Vec::new();
//! Frame::method(1, &declare.into()).encode(&mut bytes)?;
//!
//! // the other side: cut what was read, as it comes
//! let cutter = FrameCutter::new(131_072);
//! let mut input = BytesMut::from(&*bytes);
//! while let Some(frame) = cutter.cut(&mut input)? {
//!     match frame.decode()? {
//!         Payload::Method(method) => println!("{}: {method:?}", frame.channel),
//!         Payload::Header(header) => println!("{}: a body of {} bytes", frame.channel, header.body_size),
//!         Payload::Body(piece) => println!("{}: {} bytes of it", frame.channel, piece.len()),
//!         Payload::Heartbeat => {}
//!     }
//! }
//! assert!(input.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! `cargo run --example frames` prints the frames of a session, of a capture, or of what passes through it as a proxy.
//! How to fuzz the parser is described in `docs/fuzzing.md`.
//!
//! Field tables and properties on their own: [`FieldTable::decode`](crate::FieldTable::decode) and
//! [`encode`](crate::FieldTable::encode), [`Properties::decode`](crate::Properties::decode) and
//! [`encode`](crate::Properties::encode).

mod content_header;
mod frame_cutter;

pub use self::content_header::ContentHeader;
pub use self::frame_cutter::{Frame, FrameCutter, Payload};
pub use crate::codec::frame::{FrameError, FrameKind, PROTOCOL_HEADER};
pub use crate::codec::generated::{
    Method, access, basic, channel, confirm, connection, constants, exchange, queue, tx,
};
pub use crate::codec::{Arguments, DecodeError, Decoder, MethodId, Request, Sender};
