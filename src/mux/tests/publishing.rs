//! Publishing: the frames of a message, all of them or none.

use bytes::Bytes;
use proptest::prelude::*;

use super::script::{FRAME_MAX, Script, Wire, body, header, method, short};
use crate::codec::generated::basic;
use crate::codec::{FieldTable, Properties};
use crate::mux::outgoing::CHAIN_FROM;
use crate::mux::outgoing_publish::{Publish, Unfit};
use crate::mux::session::{Published, Refusal};

/// The largest body that fits into one frame.
const MOST: usize = FRAME_MAX as usize - 8;

fn properties_with_header_of(length: usize) -> Properties {
    let mut headers = FieldTable::new();
    headers.insert("h", vec![0; length]).unwrap();
    Properties { headers: Some(headers), ..Properties::default() }
}

fn publish_method(channel: u16, routing_key: &str) -> Wire {
    method(channel, basic::Publish { routing_key: short(routing_key), ..basic::Publish::default() })
}

#[test]
fn f1_messages_of_two_publishers_are_never_interleaved() {
    let (mut it, first) = Script::opened();
    let second = it.open();
    let bodies = [vec![b'a'; MOST + 1], vec![b'b'; 3], vec![b'c'; MOST + 1]];
    let keys = [first, second, first];
    let mut expected = Vec::new();
    for (key, bytes) in keys.into_iter().zip(&bodies) {
        let id = key.id.get();
        it.publish(key, "q", bytes).unwrap();
        expected.extend([publish_method(id, "q"), header(id, bytes.len() as u64)]);
        expected.extend(bytes.chunks(MOST).map(|piece| body(id, piece)));
        it.client.session.send(key, &basic::Ack::default()).unwrap();
        expected.push(method(id, basic::Ack::default()));
    }
    assert_eq!(it.wrote(), expected);
}

#[test]
fn f2_a_publish_that_must_wait_has_written_nothing() {
    let (mut it, key) = Script::confirming();
    let body = Bytes::from(vec![0; 10_000]);
    let publish = Publish {
        exchange: b"",
        routing_key: b"q",
        mandatory: true,
        properties: Some(&Properties::default()),
        encoded: None,
        body: &body,
    };
    let session = &mut it.client.session;
    assert_eq!(session.publish(key, &publish, 1), Ok(Published::Accepted(Some(1))), "started, so completed");
    assert!(session.out.len() > 10_000);
    let before = session.out.len();
    assert_eq!(session.publish(key, &publish, before), Ok(Published::Wait), "too much waits already");
    assert_eq!(session.out.len(), before);
    assert_eq!(session.publish(key, &publish, before + 1), Ok(Published::Accepted(Some(2))));
}

#[test]
fn f3_bodies_are_cut_at_frame_max_less_eight() {
    for (length, pieces) in [
        (0, vec![]),
        (1, vec![1]),
        (MOST - 1, vec![MOST - 1]),
        (MOST, vec![MOST]),
        (MOST + 1, vec![MOST, 1]),
        (3 * MOST, vec![MOST; 3]),
        (3 * MOST + 1, vec![MOST, MOST, MOST, 1]),
    ] {
        let (mut it, key) = Script::opened();
        it.publish(key, "q", &vec![b'x'; length]).unwrap();
        let mut expected = vec![publish_method(1, "q"), header(1, length as u64)];
        expected.extend(pieces.into_iter().map(|length| body(1, &vec![b'x'; length])));
        assert_eq!(it.wrote(), expected, "a body of {length}");
    }
}

#[test]
fn f4_headers_beyond_frame_max_are_refused_and_the_channel_lives() {
    let (mut it, key) = Script::confirming();
    // 7 before the payload, 14 of the header, 4 of the table, 2 of the name, 5 before the bytes, 1 behind
    let fits = FRAME_MAX as usize - 33;
    let mut publish = |length| it.publish_with(key, "q", &properties_with_header_of(length), b"x", true);
    assert_eq!(publish(fits), Ok(Published::Accepted(Some(1))));
    let unfit = Unfit::Header { size: 4097, limit: 4096 };
    assert_eq!(publish(fits + 1), Err(Refusal::Unfit(unfit)));
    assert!(publish(100_000).is_err());
    assert_eq!(publish(0), Ok(Published::Accepted(Some(2))), "a refused one takes no number");
    let wrote = it.wrote();
    assert_eq!(wrote.len(), 6, "two messages of three frames");
    assert_eq!(wrote[1], Wire::Header(1, 1, properties_with_header_of(fits)));
}

#[test]
fn f5_names_of_more_than_255_bytes_are_refused_not_cut() {
    let (mut it, key) = Script::confirming();
    let (fits, too_long) = ("k".repeat(255), "ä".repeat(128));
    assert_eq!(it.publish(key, &too_long, b"x"), Err(Refusal::Unfit(Unfit::Name { length: 256 })));
    let properties = Properties::default();
    let body = Bytes::new();
    let exchange = too_long.as_bytes();
    let publish = Publish {
        exchange,
        routing_key: b"",
        mandatory: false,
        properties: Some(&properties),
        encoded: None,
        body: &body,
    };
    let refusal = Refusal::Unfit(Unfit::Name { length: 256 });
    assert_eq!(it.client.session.publish(key, &publish, usize::MAX), Err(refusal));
    assert_eq!(it.wrote(), []);
    assert_eq!(
        it.publish(key, &fits, b""),
        Ok(Published::Accepted(Some(1))),
        "a refused one takes no number"
    );
    assert_eq!(it.wrote(), [publish_method(1, &fits), header(1, 0)]);
}

#[test]
fn f5_names_in_properties_of_more_than_255_bytes_cannot_be_made() {
    assert!(crate::codec::ShortStr::try_from("ä".repeat(128)).is_err());
    assert!(FieldTable::new().insert("ä".repeat(128), true).is_err());
}

#[test]
fn a_large_body_is_not_copied() {
    let (mut it, key) = Script::opened();
    let agreed = crate::mux::tune::Agreed { channel_max: 1, frame_max: 131_072, heartbeat: 0 };
    it.client.session = crate::mux::session::Session::new(agreed);
    let (key, _) = (it.opening().unwrap().0, key);
    it.client.session.receive(1, crate::codec::generated::channel::OpenOk.into()).unwrap();
    let large = Bytes::from(vec![7; CHAIN_FROM]);
    let properties = Properties::default();
    let publish = Publish {
        exchange: b"",
        routing_key: b"q",
        mandatory: false,
        properties: Some(&properties),
        encoded: None,
        body: &large,
    };
    it.client.session.publish(key, &publish, usize::MAX).unwrap();
    let mut batch = crate::mux::outgoing::Batch::default();
    it.client.session.out.take(&mut batch);
    let mut slices = [std::io::IoSlice::new(&[]); 3];
    assert_eq!(batch.slices(0, &mut slices), 3, "before, body, end");
    assert_eq!((slices[1].as_ptr(), slices[1].len()), (large.as_ptr(), CHAIN_FROM));
}

proptest! {
    /// The output is exactly the accepted messages, one after the other, whether or not their properties were encoded
    /// before.
    #[test]
    fn accepted_messages_are_written_whole_and_in_order(
        messages in prop::collection::vec(
            (0_usize..2, 0_usize..20_000, 0_usize..5000, 0_usize..300, any::<bool>()),
            1..12,
        )
    ) {
        let (mut it, first) = Script::opened();
        let keys = [first, it.open()];
        let mut expected = Vec::new();
        for (key, length, header, name, encode) in messages {
            let (key, name, properties) = (keys[key], "k".repeat(name), properties_with_header_of(header));
            let (id, bytes) = (key.id.get(), Bytes::from(vec![b'x'; length]));
            let mut encoded = Vec::new();
            properties.encode(&mut encoded);
            let publish = Publish {
                exchange: b"",
                routing_key: name.as_bytes(),
                mandatory: false,
                properties: Some(&properties),
                encoded: encode.then_some(&encoded),
                body: &bytes,
            };
            let fits = name.len() <= 255 && header + 33 <= FRAME_MAX as usize;
            let published = it.client.session.publish(key, &publish, usize::MAX);
            prop_assert_eq!(published.is_ok(), fits);
            if fits {
                expected.extend([publish_method(id, &name), Wire::Header(id, length as u64, properties)]);
                expected.extend(bytes.chunks(MOST).map(|piece| body(id, piece)));
            }
        }
        prop_assert_eq!(it.wrote(), expected);
    }
}
