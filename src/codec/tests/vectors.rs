//! What every implementation writes: each vector is encoded and decoded.

use bytes::{Bytes, BytesMut};

use super::{hex, table};
use crate::codec::content::{ContentHeader, PROPERTIES_AT, decode_properties, put_header};
use crate::codec::encode::put_table;
use crate::codec::frame::{
    Cutter, FrameKind, HEARTBEAT, PROTOCOL_HEADER, put_body_head, put_frame, put_method,
};
use crate::codec::generated::constants::FRAME_METHOD;
use crate::codec::generated::{basic, channel, confirm, connection, queue};
use crate::codec::{Arguments, FieldTable, FieldValue, Method, Properties, ShortStr};

/// The kind, channel and payload of the one frame in `bytes`.
fn only_frame(bytes: &[u8]) -> (FrameKind, u16, Bytes) {
    let mut input = BytesMut::from(bytes);
    let cut = Cutter::agreed(131_072).cut(&mut input);
    assert_eq!((cut.fault, input.len()), (None, 0));
    let mut frames = cut.frames.frames().map(|frame| (frame.kind, frame.channel, frame.share()));
    let only = frames.next().unwrap();
    assert_eq!(frames.next(), None);
    only
}

/// Checks both directions, and both ways to encode.
fn check<M: Arguments + Into<Method>>(bytes: &str, channel: u16, method: M) {
    let bytes = hex(bytes);
    let mut written = Vec::new();
    put_method(&mut written, channel, &method);
    assert_eq!(written, bytes);
    let method = method.into();
    written.clear();
    put_frame(&mut written, FRAME_METHOD, channel, |out| method.encode(out));
    assert_eq!(written, bytes);
    let (kind, on, payload) = only_frame(&bytes);
    assert_eq!((kind, on), (FrameKind::Method, channel));
    assert_eq!(Method::from_payload(&payload, &payload), Ok(method));
}

fn short(text: &str) -> ShortStr {
    text.try_into().unwrap()
}

#[test]
fn protocol_header_and_heartbeat() {
    assert_eq!(PROTOCOL_HEADER.to_vec(), hex("41 4d 51 50 00 00 09 01"));
    assert_eq!(HEARTBEAT.to_vec(), hex("08 00 00 00 00 00 00 ce"));
    assert_eq!(only_frame(&HEARTBEAT), (FrameKind::Heartbeat, 0, Bytes::new()));
}

#[test]
fn connection_methods() {
    check(
        "01 0000 0000000c 000a001f 07ff 00020000 003c ce",
        0,
        connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 60 },
    );
    check("01 0000 00000008 000a0028 012f 00 00 ce", 0, connection::Open { virtual_host: short("/") });
    check("01 0000 00000004 000a0033 ce", 0, connection::CloseOk);
}

#[test]
fn channel_and_confirm_methods() {
    check("01 0001 00000005 0014000a 00 ce", 1, channel::Open);
    check("01 0001 00000004 00140029 ce", 1, channel::CloseOk);
    check("01 0001 00000005 0055000a 00 ce", 1, confirm::Select::default());
}

#[test]
fn queue_and_basic_methods() {
    check(
        "01 0001 0000000b 003c000a 00000000 000a 00 ce",
        1,
        basic::Qos { prefetch_count: 10, ..basic::Qos::default() },
    );
    check(
        "01 0001 0000000d 0032000a 0000 0171 02 00000000 ce",
        1,
        queue::Declare { queue: short("q"), durable: true, ..queue::Declare::default() },
    );
    check(
        "01 0001 0000000a 003c0028 0000 00 0171 01 ce",
        1,
        basic::Publish { routing_key: short("q"), mandatory: true, ..basic::Publish::default() },
    );
    check(
        "01 0001 0000000d 003c0050 0000000000000001 01 ce",
        1,
        basic::Ack { delivery_tag: 1, multiple: true },
    );
    check(
        "01 0001 0000000d 003c0078 0000000000000007 03 ce",
        1,
        basic::Nack { delivery_tag: 7, multiple: true, requeue: true },
    );
}

#[test]
fn content_header_and_body() {
    let bytes = hex("02 0001 0000001a 003c 0000 0000000000000005 9000 0a 746578742f706c61696e 02 ce");
    let properties = Properties {
        content_type: Some(short("text/plain")),
        delivery_mode: Some(2),
        ..Properties::default()
    };
    let mut written = Vec::new();
    assert_eq!(put_header(&mut written, 1, 5, &properties), 0x1a);
    assert_eq!(written, bytes);
    let (kind, channel, payload) = only_frame(&bytes);
    assert_eq!((kind, channel), (FrameKind::Header, 1));
    let header = ContentHeader::from_payload(&payload).unwrap();
    assert_eq!((header.class, header.body_size), (60, 5));
    assert_eq!(decode_properties(&payload.slice(PROPERTIES_AT..)), Ok(properties));

    let bytes = hex("03 0001 00000005 68656c6c6f ce");
    let mut written = Vec::new();
    put_body_head(&mut written, 1, 5);
    written.extend_from_slice(b"hello\xce");
    assert_eq!(written, bytes);
    assert_eq!(only_frame(&bytes), (FrameKind::Body, 1, Bytes::from_static(b"hello")));
}

#[test]
fn table_with_seven_kinds_of_values() {
    let bytes = hex("0000002f 0161 49 ffffffff 0162 74 01 0163 56 0164 53 00000001 78
                     0165 41 00000003 62 ff 56 0166 46 00000000 0167 44 02 0000013a");
    let expected: FieldTable = [
        (short("a"), FieldValue::I32(-1)),
        (short("b"), FieldValue::Bool(true)),
        (short("c"), FieldValue::Void),
        (short("d"), FieldValue::LongStr(Bytes::from_static(b"x"))),
        (short("e"), FieldValue::Array(vec![FieldValue::I8(-1), FieldValue::Void])),
        (short("f"), FieldValue::Table(FieldTable::new())),
        (short("g"), FieldValue::Decimal { scale: 2, value: 314 }),
    ]
    .into_iter()
    .collect();
    assert_eq!(table(&bytes), Ok(expected.clone()));
    let mut written = Vec::new();
    put_table(&mut written, &expected);
    assert_eq!(written, bytes);
}
