//! Structure-aware input: `arbitrary` makes sequences of nearly valid frames, cut into pieces anywhere. Uses the public API
//! alone, so it is also the pattern for a target of your own.
#![no_main]

use bytes::{BufMut, Bytes, BytesMut};
use lepus::protocol::{Frame, FrameCutter, FrameKind, Payload};
use libfuzzer_sys::arbitrary::{self, Arbitrary};

#[derive(Debug, Arbitrary)]
struct Session {
    frame_max: u16,
    parts: Vec<Part>,
    /// The sizes of the pieces that arrive, again from the first when they are used up.
    pieces: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
enum Part {
    Method { channel: u8, class: u8, method: u8, arguments: Vec<u8> },
    Header { channel: u8, body_size: u8, flags: u16, properties: Vec<u8> },
    Body { channel: u8, bytes: Vec<u8> },
    Heartbeat,
    /// Ends what can be read, mostly.
    Raw(Vec<u8>),
}

impl Part {
    fn put(self, out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        let (kind, channel) = match self {
            Self::Method { channel, class, method, arguments } => {
                let classes = [10, 20, 30, 40, 50, 60, 85, 90];
                payload.put_u16(classes[usize::from(class) % classes.len()]);
                // methods are numbered in tens, some with a one
                payload.put_u16(u16::from(method % 13) * 10 + u16::from(method / 13 % 2));
                payload.extend(arguments);
                (FrameKind::Method, channel)
            }
            Self::Header { channel, body_size, flags, properties } => {
                payload.put_u16(60);
                payload.put_u16(0);
                payload.put_u64(body_size.into());
                payload.put_u16(flags);
                payload.extend(properties);
                (FrameKind::Header, channel)
            }
            Self::Body { channel, bytes } => {
                payload.extend(bytes);
                (FrameKind::Body, channel)
            }
            Self::Heartbeat => (FrameKind::Heartbeat, 0),
            Self::Raw(bytes) => return out.extend(bytes),
        };
        let frame = Frame { kind, channel: channel.into(), payload: payload.into() };
        frame.encode(out).expect("it is small");
    }
}

libfuzzer_sys::fuzz_target!(|session: Session| {
    let mut sent = Vec::new();
    session.parts.into_iter().for_each(|part| part.put(&mut sent));
    let cutter = FrameCutter::new(session.frame_max.into());
    let (mut input, mut rest, mut read) = (BytesMut::new(), &sent[..], 0);
    let mut sizes = session.pieces.iter().map(|size| usize::from(*size).max(1)).cycle();
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(sizes.next().unwrap_or(rest.len()).min(rest.len()));
        rest = later;
        input.extend_from_slice(piece);
        loop {
            match cutter.cut(&mut input) {
                Ok(Some(frame)) => {
                    let mut again = Vec::new();
                    frame.encode(&mut again).expect("it was read");
                    assert_eq!(again, sent[read..read + frame.size()], "another frame than was sent");
                    read += frame.size();
                    check(&frame);
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    assert_eq!(read + input.len(), sent.len());
});

/// What can be decoded is encoded to what decodes to the same.
fn check(frame: &Frame) {
    let again = match frame.decode() {
        Ok(Payload::Method(method)) => Frame::method(frame.channel, &method),
        Ok(Payload::Header(header)) => Frame::header(frame.channel, &header),
        Ok(Payload::Body(piece)) => {
            let frames: Vec<_> = Frame::bodies(frame.channel, piece.clone(), 16).collect();
            let pieces: Vec<_> = frames.iter().map(|frame| &*frame.payload).collect();
            return assert_eq!(Bytes::from(pieces.concat()), piece);
        }
        Ok(Payload::Heartbeat) => Frame::heartbeat(),
        Err(_) => return,
    };
    assert!(again.size() <= frame.size(), "more octets than were read");
    let third = match again.decode() {
        Ok(Payload::Method(method)) => Frame::method(frame.channel, &method),
        Ok(Payload::Header(header)) => Frame::header(frame.channel, &header),
        other => return assert_eq!(other, Ok(Payload::Heartbeat)),
    };
    assert_eq!(third, again);
}
