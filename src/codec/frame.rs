//! Frames: cutting them out of what was read, and writing them.
//!
//! ```text
//! octet  0     1        3                 7            7 + size
//!        | type | channel | payload size  | payload ... | 0xCE |
//! ```
//!
//! Eight octets of overhead; `frame_max` counts the whole frame (spec 4.2.3).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::encode::patch_long;
use super::generated::constants::{FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD};
use super::method::Arguments;

/// Octets before the payload: type, channel, payload size.
pub(crate) const HEAD: usize = 7;

/// Octets of a frame that are not payload.
pub(crate) const OVERHEAD: usize = 8;

/// `RabbitMQ` splits only bodies: method and header frames may exceed the negotiated `frame_max`, so they
/// have a limit of their own (1 MiB).
const UNSPLIT_MAX: u32 = 1 << 20;

/// The limit on every frame before tune: more than any server's start method needs.
const PROVISIONAL_MAX: u32 = 128 << 10;

/// A heartbeat frame.
pub(crate) const HEARTBEAT: [u8; OVERHEAD] = [FRAME_HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END];

/// What a client sends first, before any frame: the protocol's name and version.
///
/// A server that speaks another version answers with the header of its own, and closes the socket.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// The type of a frame. The protocol has these four, and no more will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// 1: a method and its arguments.
    Method,
    /// 2: the header of a content, that is, body size and properties.
    Header,
    /// 3: a piece of a body.
    Body,
    /// 8: a sign of life.
    Heartbeat,
}

/// A fault in the framing itself: whatever follows it cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The first octet is no frame type.
    #[error("unknown frame type {0}")]
    Kind(u8),
    /// The payload is larger than the limit for this type of frame.
    #[error("a frame claims a payload of {size} bytes, the limit is {limit}")]
    TooLarge {
        /// The size of the payload, in bytes.
        size: u32,
        /// The largest acceptable payload, in bytes.
        limit: u32,
    },
    /// A method frame with less than 4 bytes of payload, or a header frame with less than 14.
    #[error("a frame with a payload of {0} bytes is too short for its type")]
    TooShort(u32),
    /// The octet behind the payload is not the frame end.
    #[error("a frame ends with 0x{0:02x}, not with 0xce")]
    End(u8),
    /// A heartbeat on a channel other than 0.
    #[error("a heartbeat on channel {0}")]
    HeartbeatChannel(u16),
    /// A heartbeat with a payload.
    #[error("a heartbeat with a payload of {0} bytes")]
    HeartbeatPayload(u32),
}

/// A frame in a chunk that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub kind: FrameKind,
    pub channel: u16,
    pub payload: &'a [u8],
    /// The buffer that `payload` lies in, to share it.
    pub source: &'a Bytes,
}

impl Frame<'_> {
    /// The buffer that was read from the payload's first octet on, without a copy.
    #[inline]
    pub(crate) fn share_from(&self) -> Bytes {
        let start = self.payload.as_ptr() as usize - self.source.as_ptr() as usize;
        self.source.slice(start..)
    }

    /// The payload as a part of the buffer that was read, without a copy.
    pub(crate) fn share(&self) -> Bytes {
        self.source.slice_ref(self.payload)
    }
}

/// Cuts frames out of what was read, and keeps the limits on their size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cutter {
    body_max: u32,
    unsplit_max: u32,
}

/// The whole frames at the front of the input, and the fault behind them, if there is one.
#[derive(Debug)]
pub(crate) struct Cut {
    pub frames: Chunk,
    pub fault: Option<FrameError>,
}

/// Bytes that hold whole, checked frames only.
#[derive(Clone, Debug)]
pub(crate) struct Chunk(Bytes);

impl Cutter {
    /// With the limits that apply before `frame_max` is agreed.
    pub(crate) const fn provisional() -> Self {
        Self { body_max: PROVISIONAL_MAX, unsplit_max: PROVISIONAL_MAX }
    }

    /// With the agreed `frame_max`, in bytes; never zero.
    pub(crate) fn agreed(frame_max: u32) -> Self {
        let body_max = frame_max.saturating_sub(8);
        Self { body_max, unsplit_max: body_max.max(UNSPLIT_MAX) }
    }

    /// The length of the whole frames at the front of `input`, and the fault behind them, if there is one.
    #[inline]
    pub(crate) fn whole(self, input: &[u8]) -> (usize, Option<FrameError>) {
        let mut whole = 0;
        let fault = loop {
            match input.get(whole..).map(|rest| self.measure(rest)) {
                Some(Ok(Some(length))) => whole += length,
                Some(Err(fault)) => break Some(fault),
                Some(Ok(None)) | None => break None,
            }
        };
        (whole, fault)
    }

    /// Moves the whole frames at the front of `input` out of it. A part of a frame stays.
    #[cfg(any(fuzzing, lepus_bench, test))]
    pub(crate) fn cut(self, input: &mut BytesMut) -> Cut {
        let (whole, fault) = self.whole(input);
        Cut { frames: Chunk(input.split_to(whole).freeze()), fault }
    }

    /// Like [`cut`](Self::cut) for the first frame only, since the handshake may change the limits.
    pub(crate) fn cut_one(self, input: &mut BytesMut) -> Cut {
        let (length, fault) = match self.measure(input) {
            Ok(length) => (length.unwrap_or(0), None),
            Err(fault) => (0, Some(fault)),
        };
        Cut { frames: Chunk(input.split_to(length).freeze()), fault }
    }

    /// The length of the frame at the front of `input`, or `None` while it is not whole.
    ///
    /// The first seven octets decide whether a frame is acceptable, before its payload is waited for.
    fn measure(self, input: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some(mut head) = input.get(..HEAD) else {
            return Ok(None);
        };
        let kind = FrameKind::try_from(head.get_u8())?;
        let channel = head.get_u16();
        let size = head.get_u32();
        self.check(kind, channel, size)?;
        let end = HEAD + size as usize;
        match input.get(end) {
            None => Ok(None),
            Some(&FRAME_END) => Ok(Some(end + 1)),
            Some(&other) => Err(FrameError::End(other)),
        }
    }

    fn check(self, kind: FrameKind, channel: u16, size: u32) -> Result<(), FrameError> {
        // class and method; class, weight, body size and the first flags
        let (least, limit) = match kind {
            FrameKind::Method => (4, self.unsplit_max),
            FrameKind::Header => (14, self.unsplit_max),
            FrameKind::Body => (0, self.body_max),
            FrameKind::Heartbeat if channel != 0 => return Err(FrameError::HeartbeatChannel(channel)),
            FrameKind::Heartbeat if size != 0 => return Err(FrameError::HeartbeatPayload(size)),
            FrameKind::Heartbeat => (0, 0),
        };
        if size > limit {
            Err(FrameError::TooLarge { size, limit })
        } else if size < least {
            Err(FrameError::TooShort(size))
        } else {
            Ok(())
        }
    }
}

impl FrameKind {
    /// The octet that stands for it on the wire.
    pub const fn octet(self) -> u8 {
        match self {
            Self::Method => FRAME_METHOD,
            Self::Header => FRAME_HEADER,
            Self::Body => FRAME_BODY,
            Self::Heartbeat => FRAME_HEARTBEAT,
        }
    }
}

impl TryFrom<u8> for FrameKind {
    type Error = FrameError;

    fn try_from(kind: u8) -> Result<Self, FrameError> {
        Ok(match kind {
            FRAME_METHOD => Self::Method,
            FRAME_HEADER => Self::Header,
            FRAME_BODY => Self::Body,
            FRAME_HEARTBEAT => Self::Heartbeat,
            other => return Err(FrameError::Kind(other)),
        })
    }
}

impl Chunk {
    /// Of bytes that [`Cutter::whole`] has measured.
    pub(crate) const fn measured(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The frames in their order.
    pub(crate) fn frames(&self) -> Frames<'_> {
        Frames { source: &self.0, rest: &self.0 }
    }
}

/// Walks over the frames of a [`Chunk`].
#[derive(Clone, Debug)]
pub(crate) struct Frames<'a> {
    source: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    #[inline]
    fn next(&mut self) -> Option<Frame<'a>> {
        let (mut head, tail) = self.rest.split_at_checked(HEAD)?;
        let kind = FrameKind::try_from(head.get_u8()).ok()?;
        let channel = head.get_u16();
        let (payload, end) = tail.split_at_checked(head.get_u32() as usize)?;
        self.rest = end.get(1..)?;
        Some(Frame { kind, channel, payload, source: self.source })
    }
}

/// Appends a frame whose payload `body` writes, and returns the length of the payload.
pub(crate) fn put_frame(
    out: &mut Vec<u8>,
    kind: u8,
    channel: u16,
    payload: impl FnOnce(&mut Vec<u8>),
) -> usize {
    out.put_u8(kind);
    out.put_u16(channel);
    let at = out.len();
    out.put_u32(0);
    payload(out);
    let length = out.len() - at - 4;
    patch_long(out, at, u32::try_from(length).unwrap_or(u32::MAX));
    out.put_u8(FRAME_END);
    length
}

/// Appends a method frame, and returns the length of its payload.
pub(crate) fn put_method<M: Arguments>(out: &mut Vec<u8>, channel: u16, method: &M) -> usize {
    put_frame(out, FRAME_METHOD, channel, |out| {
        out.put_u16(M::ID.class);
        out.put_u16(M::ID.method);
        method.encode(out);
    })
}

/// Appends what stands before a body of `size` bytes; the body and [`FRAME_END`] must follow.
pub(crate) fn put_body_head(out: &mut impl BufMut, channel: u16, size: u32) {
    let [c1, c0] = channel.to_be_bytes();
    let [s3, s2, s1, s0] = size.to_be_bytes();
    out.put_slice(&[FRAME_BODY, c1, c0, s3, s2, s1, s0]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owned = (FrameKind, u16, Vec<u8>);

    fn cut(cutter: Cutter, bytes: &[u8]) -> (Vec<Owned>, Option<FrameError>, usize) {
        let mut input = BytesMut::from(bytes);
        let cut = cutter.cut(&mut input);
        (owned(&cut.frames), cut.fault, input.len())
    }

    fn owned(chunk: &Chunk) -> Vec<Owned> {
        chunk.frames().map(|frame| (frame.kind, frame.channel, frame.payload.to_vec())).collect()
    }

    fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_frame(&mut out, kind, channel, |out| out.extend_from_slice(payload));
        out
    }

    #[test]
    fn a1_a_claimed_length_is_refused_after_seven_octets() {
        let (_, fault, _) = cut(Cutter::agreed(131_072), &[3, 0, 1, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(fault, Some(FrameError::TooLarge { size: u32::MAX, limit: 131_064 }));
    }

    #[test]
    fn a2_a_limit_holds_before_tune() {
        let (_, fault, _) = cut(Cutter::provisional(), &[1, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(fault, Some(FrameError::TooLarge { size: u32::MAX, limit: PROVISIONAL_MAX }));
        assert_eq!(cut(Cutter::provisional(), &frame(1, 0, &[0; 4096])).1, None);
    }

    #[test]
    fn a3_the_largest_body_frame_is_frame_max_less_eight() {
        let cutter = Cutter::agreed(4096);
        assert_eq!(cut(cutter, &frame(3, 1, &[0; 4088])).0.len(), 1);
        assert_eq!(
            cut(cutter, &frame(3, 1, &[0; 4089])).1,
            Some(FrameError::TooLarge { size: 4089, limit: 4088 })
        );
    }

    #[test]
    fn a4_a_header_frame_may_exceed_frame_max() {
        let cutter = Cutter::agreed(8192);
        assert_eq!(cut(cutter, &frame(2, 1, &vec![0; 20_000])).0.len(), 1);
        let (_, fault, _) = cut(cutter, &frame(2, 1, &vec![0; UNSPLIT_MAX as usize + 1]));
        assert!(matches!(fault, Some(FrameError::TooLarge { .. })));
    }

    #[test]
    fn a5_a_wrong_end_stops_everything_behind_it() {
        let mut bytes = HEARTBEAT.to_vec();
        let mut broken = frame(3, 1, b"abc");
        *broken.last_mut().unwrap() = 0xcd;
        bytes.extend(broken);
        bytes.extend(HEARTBEAT);
        let (frames, fault, _) = cut(Cutter::agreed(4096), &bytes);
        assert_eq!((frames.len(), fault), (1, Some(FrameError::End(0xcd))));
    }

    #[test]
    fn a6_unknown_types_are_refused() {
        for kind in [0, 4, 9, 0x41] {
            let (_, fault, _) = cut(Cutter::agreed(4096), &frame(kind, 0, b"1234"));
            assert_eq!(fault, Some(FrameError::Kind(kind)));
        }
    }

    #[test]
    fn a7_short_method_and_header_frames_are_refused() {
        for size in 0..4 {
            let (_, fault, _) = cut(Cutter::agreed(4096), &frame(1, 0, &vec![0; size as usize]));
            assert_eq!(fault, Some(FrameError::TooShort(size)));
        }
        for size in 0..14 {
            let (_, fault, _) = cut(Cutter::agreed(4096), &frame(2, 1, &vec![0; size as usize]));
            assert_eq!(fault, Some(FrameError::TooShort(size)));
        }
    }

    #[test]
    fn a10_a_heartbeat_has_channel_zero_and_no_payload() {
        assert_eq!(cut(Cutter::agreed(4096), &frame(8, 1, b"")).1, Some(FrameError::HeartbeatChannel(1)));
        assert_eq!(cut(Cutter::agreed(4096), &frame(8, 0, b"x")).1, Some(FrameError::HeartbeatPayload(1)));
    }

    proptest! {
        #[test]
        fn a11_every_split_of_the_input_gives_the_same_frames(
            frames in prop::collection::vec((1_u8..4, any::<u16>(), prop::collection::vec(any::<u8>(), 14..300)), 0..12),
            sizes in prop::collection::vec(1_usize..400, 1..20),
        ) {
            let mut bytes = Vec::new();
            for (kind, channel, payload) in &frames {
                bytes.extend(frame(*kind, *channel, payload));
                bytes.extend(HEARTBEAT);
            }
            let (whole, fault, left) = cut(Cutter::agreed(8192), &bytes);
            prop_assert_eq!((fault, left), (None, 0));
            prop_assert_eq!(whole.len(), frames.len() * 2);
            for sizes in [sizes, vec![1]] {
                let mut sizes = sizes.into_iter().cycle();
                let (mut input, mut pieces, mut rest) = (BytesMut::new(), Vec::new(), bytes.as_slice());
                while !rest.is_empty() {
                    let (now, later) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
                    input.extend_from_slice(now);
                    rest = later;
                    let cut = Cutter::agreed(8192).cut(&mut input);
                    prop_assert_eq!(cut.fault, None);
                    pieces.extend(owned(&cut.frames));
                }
                prop_assert_eq!(&pieces, &whole);
            }
        }

        #[test]
        fn arbitrary_bytes_are_cut_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (frames, _, left) = cut(Cutter::agreed(4096), &bytes);
            let taken: usize = frames.iter().map(|(_, _, payload)| payload.len() + OVERHEAD).sum();
            prop_assert_eq!(taken + left, bytes.len());
        }
    }
}
