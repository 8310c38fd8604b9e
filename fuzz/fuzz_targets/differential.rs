//! Our decoder beside that of `amq-protocol`: both agree on which methods and content headers are valid, and each reads
//! what the other writes. The ways in which they are known to differ are listed in [`refused_by_them`] and
//! [`refused_by_us`].
#![no_main]

use amq_protocol::frame::{AMQPFrame, gen_frame, parse_frame};
use bytes::{Bytes, BytesMut};
use lepus::protocol::{DecodeError, Frame, FrameCutter, FrameKind, Payload};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, payload)) = data.split_first() else { return };
    let kind = if choice & 1 == 0 { FrameKind::Method } else { FrameKind::Header };
    // they take further words of property flags for properties
    if kind == FrameKind::Header && payload.get(13).is_some_and(|flags| flags & 1 == 1) {
        return;
    }
    let frame = Frame { kind, channel: 1, payload: Bytes::copy_from_slice(payload) };
    let bytes = written(&frame);
    // what is too short for its kind
    let Ok(Some(frame)) = cut(&bytes) else { return };
    match (frame.decode(), parse_frame(&bytes[..])) {
        (Ok(ours), Ok((_, theirs))) => {
            let from_us = again(frame.channel, &ours);
            assert_same(&read_by_them(&from_us), &theirs);
            let from_them = write_by_them(&theirs);
            let ours = cut(&from_them).expect("they write a frame").expect("all of it");
            let ours = ours.decode().expect("with a payload that can be read");
            assert_same(&read_by_them(&again(frame.channel, &ours)), &theirs);
        }
        (Ok(ours), Err(_)) => assert!(refused_by_them(&frame, &ours), "they refuse {ours:?}"),
        (Err(error), Ok((_, theirs))) => assert!(refused_by_us(error), "we refuse {theirs:?}: {error}"),
        (Err(_), Err(_)) => {}
    }
});

/// What we accept and they do not: octets behind the last field, and short strings that are not UTF-8. RabbitMQ accepts
/// both.
fn refused_by_them(frame: &Frame, ours: &Payload) -> bool {
    let trailing = again(frame.channel, ours).len() < frame.size();
    // `Debug` of a short string is lossy, of other bytes it is not
    trailing || format!("{ours:?}").contains('\u{fffd}')
}

/// What they accept and we do not: the specification's tag for a 16-bit integer, which RabbitMQ does not know, and tables
/// that are nested without a limit.
fn refused_by_us(error: DecodeError) -> bool {
    matches!(error, DecodeError::UnknownTag(b'U') | DecodeError::TooDeep)
}

fn written(frame: &Frame) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out).expect("it is small");
    out
}

fn again(channel: u16, payload: &Payload) -> Vec<u8> {
    written(&match payload {
        Payload::Method(method) => Frame::method(channel, method),
        Payload::Header(header) => Frame::header(channel, header),
        other => panic!("{other:?}"),
    })
}

fn cut(bytes: &[u8]) -> Result<Option<Frame>, lepus::protocol::FrameError> {
    FrameCutter::new(0).cut(&mut BytesMut::from(bytes))
}

fn read_by_them(bytes: &[u8]) -> AMQPFrame {
    let (rest, frame) = parse_frame(bytes).expect("they read what we write");
    assert!(rest.is_empty());
    frame
}

fn write_by_them(frame: &AMQPFrame) -> Vec<u8> {
    let written = gen_frame::<Vec<u8>>(frame)(Vec::new().into()).expect("they write what they read");
    written.into_inner().0
}

/// By their text if need be, since a number in a table may be NaN.
fn assert_same(one: &AMQPFrame, other: &AMQPFrame) {
    assert!(one == other || format!("{one:?}") == format!("{other:?}"), "{one:?} is not {other:?}");
}
