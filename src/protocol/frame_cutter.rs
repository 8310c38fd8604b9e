//! Frames that own their payload, and the cutter that finds them.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::content_header::ContentHeader;
use crate::codec::frame::{Cutter, FrameError, FrameKind, OVERHEAD, put_frame};
use crate::codec::{DecodeError, Method};

/// Cuts frames out of what was read, and keeps the limits on their size.
///
/// The limits are those of the connection itself: a body frame may have `frame_max` bytes. Method and header frames may
/// have 1 MiB of payload or `frame_max`, whichever is more, since `RabbitMQ` splits only bodies. A frame beyond its limit
/// is refused as soon as its first seven octets have arrived.
///
/// It has no state: the input that is left over belongs to the caller, and the limits may change between two frames.
#[derive(Clone, Copy, Debug)]
pub struct FrameCutter(Cutter);

impl FrameCutter {
    /// With the limit that applies until tune has agreed on a `frame_max`: a payload of 128 KiB.
    pub const fn before_tune() -> Self {
        Self(Cutter::provisional())
    }

    /// With the agreed `frame_max`: the largest frame in bytes, its eight octets of overhead included. 0 means that there is
    /// no limit, as in tune; then the caller's buffer grows for as long as a peer sends one frame, up to 4 GiB.
    pub fn new(frame_max: u32) -> Self {
        Self(Cutter::agreed(if frame_max == 0 { u32::MAX } else { frame_max }))
    }

    /// Moves the first frame out of `input`, without a copy. `None` as long as it is not whole; then `input` stays as it is.
    ///
    /// A connection does not begin with a frame: the client sends [`PROTOCOL_HEADER`](super::PROTOCOL_HEADER) first, which
    /// the caller takes off.
    ///
    /// # Errors
    /// When there is no frame at the front of `input`, or one beyond the limits. `input` stays as it is, and nothing in it
    /// can be read: the peer does not speak the protocol.
    pub fn cut(&self, input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let cut = self.0.cut_one(input);
        let frame = cut.frames.frames().next().map(|frame| Frame {
            kind: frame.kind,
            channel: frame.channel,
            payload: frame.share(),
        });
        match cut.fault {
            Some(fault) => Err(fault),
            None => Ok(frame),
        }
    }
}

/// A frame.
///
/// Wire layout (spec 4.2.3): the type in one octet, the channel in two, the size of the payload in four, the payload, and
/// the octet 0xCE. So a frame is eight bytes longer than its payload.
///
/// `Debug` shows the size of the payload, not its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: FrameKind,
    /// The channel that it belongs to; 0 is the connection itself.
    pub channel: u16,
    /// The bytes between the size and the frame end.
    pub payload: Bytes,
}

/// What a frame holds: one variant for each [`FrameKind`], and no more will come.
///
/// `Debug` shows the size of a body's piece, not its bytes.
#[derive(Clone, PartialEq)]
pub enum Payload {
    /// A method and its arguments.
    Method(Method),
    /// The header of a content.
    Header(Box<ContentHeader>),
    /// A piece of a body; it shares the frame's buffer.
    Body(Bytes),
    /// A sign of life.
    Heartbeat,
}

impl Frame {
    /// How many bytes of a frame are not payload.
    pub const OVERHEAD: u32 = 8;

    /// A method frame.
    pub fn method(channel: u16, method: &Method) -> Self {
        let mut payload = Vec::new();
        method.encode(&mut payload);
        Self { kind: FrameKind::Method, channel, payload: payload.into() }
    }

    /// A header frame; it follows the frame of a method that carries a content.
    pub fn header(channel: u16, header: &ContentHeader) -> Self {
        let mut payload = Vec::new();
        header.encode(&mut payload);
        Self { kind: FrameKind::Header, channel, payload: payload.into() }
    }

    /// The frames of a body, without a copy: each but the last has just `frame_max` bytes, overhead included. An empty
    /// body has none. A `frame_max` of 0 means no limit, as in tune; one of 8 or less counts as 9.
    pub fn bodies(channel: u16, mut body: Bytes, frame_max: u32) -> impl Iterator<Item = Self> {
        let frame_max = if frame_max == 0 { u32::MAX } else { frame_max };
        let most = frame_max.saturating_sub(Self::OVERHEAD).max(1) as usize;
        std::iter::from_fn(move || {
            let piece = body.split_to(most.min(body.len()));
            (!piece.is_empty()).then_some(Self { kind: FrameKind::Body, channel, payload: piece })
        })
    }

    /// A heartbeat; it is always on channel 0.
    pub const fn heartbeat() -> Self {
        Self { kind: FrameKind::Heartbeat, channel: 0, payload: Bytes::new() }
    }

    /// Reads the payload. Strings and pieces of bodies share its buffer.
    ///
    /// # Errors
    /// When a method is unknown, or the payload of a method or header frame cannot be read. Frames behind this one can
    /// still be read.
    pub fn decode(&self) -> Result<Payload, DecodeError> {
        Ok(match self.kind {
            FrameKind::Method => Payload::Method(Method::from_payload(&self.payload, &self.payload)?),
            FrameKind::Header => Payload::Header(ContentHeader::decode(&self.payload)?.into()),
            FrameKind::Body => Payload::Body(self.payload.clone()),
            FrameKind::Heartbeat => Payload::Heartbeat,
        })
    }

    /// How many bytes it has on the wire, overhead included.
    pub fn size(&self) -> usize {
        self.payload.len() + OVERHEAD
    }

    /// Appends the frame. Whether the peer takes a frame of this size is not checked: see [`size`](Self::size).
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] for a payload of 4 GiB or more, whose size cannot be written. Nothing is appended then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), FrameError> {
        if u32::try_from(self.payload.len()).is_err() {
            return Err(FrameError::TooLarge { size: u32::MAX, limit: u32::MAX });
        }
        out.reserve(self.size());
        put_frame(out, self.kind.octet(), self.channel, |out| out.extend_from_slice(&self.payload));
        Ok(())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(method) => f.debug_tuple("Method").field(method).finish(),
            Self::Header(header) => f.debug_tuple("Header").field(header).finish(),
            Self::Body(piece) => write!(f, "Body({} bytes)", piece.len()),
            Self::Heartbeat => f.write_str("Heartbeat"),
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("kind", &self.kind)
            .field("channel", &self.channel)
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::generated::queue;
    use crate::codec::{FieldTable, Properties};

    fn written(frames: &[Frame]) -> BytesMut {
        let mut out = Vec::new();
        for frame in frames {
            frame.encode(&mut out).unwrap();
        }
        BytesMut::from(&*out)
    }

    fn message() -> Vec<Frame> {
        let mut headers = FieldTable::new();
        headers.insert("n", 7).unwrap();
        let header = ContentHeader::new(5, Properties { headers: Some(headers), ..Properties::default() });
        let mut frames =
            vec![Frame::method(1, &queue::PurgeOk { message_count: 3 }.into()), Frame::header(1, &header)];
        frames.extend(Frame::bodies(1, Bytes::from_static(b"hello"), 8 + 2));
        frames.push(Frame::heartbeat());
        assert_eq!(frames.len(), 6);
        frames
    }

    #[test]
    fn what_is_written_is_cut_and_read_the_same() {
        let frames = message();
        let mut input = written(&frames);
        assert_eq!(input.len(), frames.iter().map(Frame::size).sum::<usize>());
        let cutter = FrameCutter::before_tune();
        for frame in &frames {
            let cut = cutter.cut(&mut input).unwrap().unwrap();
            assert_eq!((&cut, cut.decode()), (frame, frame.decode()));
            assert!(cut.decode().is_ok());
        }
        assert_eq!(cutter.cut(&mut input), Ok(None));
    }

    #[test]
    fn a_part_of_a_frame_stays() {
        let whole = written(&message());
        let (part, mut input) = (&whole[..11], BytesMut::new());
        input.extend_from_slice(part);
        assert_eq!(FrameCutter::new(4096).cut(&mut input), Ok(None));
        assert_eq!(input, part);
    }

    #[test]
    fn a_fault_stays_in_front() {
        let mut input = BytesMut::from(&b"HTTP/1.1"[..]);
        for _ in 0..2 {
            assert_eq!(FrameCutter::new(0).cut(&mut input), Err(FrameError::Kind(b'H')));
        }
        assert_eq!(input.len(), 8);
    }

    #[test]
    fn an_empty_body_has_no_frames_and_a_tiny_frame_max_still_ends() {
        assert_eq!(Frame::bodies(1, Bytes::new(), 0).count(), 0);
        assert_eq!(Frame::bodies(1, Bytes::from_static(b"abc"), 8).count(), 3);
        assert_eq!(Frame::bodies(1, Bytes::from_static(b"abc"), 0).count(), 1);
    }

    #[test]
    fn debug_does_not_show_the_payload() {
        let frame = Frame::bodies(1, Bytes::from_static(b"secret"), 0).next().unwrap();
        assert_eq!(format!("{frame:?}"), "Frame { kind: Body, channel: 1, payload: 6 bytes }");
        assert_eq!(format!("{:?}", frame.decode().unwrap()), "Body(6 bytes)");
    }
}
