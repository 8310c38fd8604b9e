//! Contents: a method, a header, bodies, in this order and no other.

use bytes::Bytes;

use super::script::{
    FRAME_MAX, MAX_MESSAGE, Script, Wire, body, content, deliver, header, method, no_route, short,
};
use crate::codec::generated::constants::{FRAME_HEADER, FRAME_METHOD};
use crate::codec::generated::{basic, channel, connection, queue};
use crate::codec::{DecodeError, FieldTable, FieldValue, Method, Properties};
use crate::mux::inbound::Inbound;
use crate::mux::incoming_delivery::Delivery;
use crate::mux::testing::Seen;
use crate::mux::violation::Violation;

/// The only delivery of what was seen.
fn only(mut seen: Vec<Seen>) -> Delivery {
    match (seen.pop(), seen.len()) {
        (Some(Seen::Delivered { delivery, .. }), 0) => delivery,
        other => panic!("{other:?} after {seen:?}"),
    }
}

#[test]
fn a_delivery_has_every_field_of_its_method() {
    let (mut it, _, consumer) = Script::consuming();
    let deliver = basic::Deliver {
        redelivered: true,
        exchange: short("ex"),
        routing_key: short("key"),
        ..deliver("c", 7)
    };
    let properties = Properties { priority: Some(3), ..Properties::default() };
    let mut frames = content(1, deliver, b"hello");
    frames[1] = Wire::Header(1, 5, properties.clone());
    let mut seen = it.receives(frames);
    let Some(Seen::Delivered { channel: 1, consumer: found, delivery }) = seen.pop() else {
        panic!("{seen:?}")
    };
    assert_eq!(found, consumer);
    assert_eq!((delivery.tag, delivery.redelivered(), delivery.message_count()), (7, true, 0));
    assert_eq!(delivery.consumer_tag(), b"c");
    assert_eq!((delivery.exchange(), delivery.routing_key()), (b"ex".as_slice(), b"key".as_slice()));
    assert_eq!(delivery.properties(), Ok(properties));
    assert_eq!(delivery.body(), b"hello");
}

#[test]
fn b2_a_content_method_cut_anywhere_is_refused() {
    let methods: [Method; 3] = [deliver("c", 7).into(), basic::GetOk::default().into(), no_route("q").into()];
    for method in methods {
        let mut whole = Vec::new();
        method.encode(&mut whole);
        for length in 4..whole.len() {
            let (mut it, ..) = Script::consuming();
            let fault = it.faults([Wire::Raw(FRAME_METHOD, 1, whole[..length].to_vec())]);
            let is_cut = matches!(fault, Violation::Decode { error: DecodeError::Truncated, .. });
            assert!(is_cut, "{length} bytes of {method:?}: {fault}");
            assert_eq!((fault.reply_code(), fault.method()), (502, method.id()));
        }
    }
}

#[test]
fn b6_headers_of_an_unknown_type_do_not_cost_the_body() {
    for tag in *b"Uq" {
        let (mut it, ..) = Script::consuming();
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
        payload.extend([0x20, 0, 0, 0, 0, 5, 1, b'k', tag, 0, 0]);
        let delivery = only(it.receives([
            method(1, deliver("c", 1)),
            Wire::Raw(FRAME_HEADER, 1, payload),
            body(1, b"ok"),
        ]));
        assert_eq!(delivery.body(), b"ok");
        assert_eq!(delivery.properties(), Err(DecodeError::UnknownTag(tag)));
    }
}

#[test]
fn b12_names_that_are_not_utf8_are_delivered() {
    let (mut it, ..) = Script::consuming();
    let name = b"\xff\xfe".as_slice().try_into().unwrap();
    let delivery =
        only(it.receives(content(1, basic::Deliver { routing_key: name, ..deliver("c", 1) }, b"")));
    assert_eq!(delivery.routing_key(), b"\xff\xfe");
}

#[test]
fn c1_a_header_or_a_body_without_a_method_before_it() {
    let (mut it, ..) = Script::consuming();
    assert_eq!(it.faults([header(1, 5)]), Violation::StrayHeader(1));
    let (mut it, ..) = Script::consuming();
    assert_eq!(it.faults([body(1, b"x")]), Violation::StrayBody(1));
    let (mut it, ..) = Script::consuming();
    let fault = it.faults([method(1, deliver("c", 1)), body(1, b"x")]);
    assert_eq!((fault.reply_code(), fault), (505, Violation::StrayBody(1)));
    let (mut it, ..) = Script::consuming();
    let fault = it.faults([method(1, deliver("c", 1)), header(1, 5), header(1, 5)]);
    assert_eq!((fault.reply_code(), fault), (505, Violation::StrayHeader(1)));
}

#[test]
fn c2_a_method_in_the_middle_of_a_content() {
    for before in
        [vec![method(1, deliver("c", 1))], vec![method(1, deliver("c", 1)), header(1, 5), body(1, b"x")]]
    {
        for interruption in [method(1, queue::DeclareOk::default()), method(1, deliver("c", 2))] {
            let (mut it, ..) = Script::consuming();
            let fault = it.faults(before.iter().cloned().chain([interruption]));
            assert!(matches!(fault, Violation::Interrupted { channel: 1, .. }), "{fault}");
            assert_eq!(fault.reply_code(), 505);
        }
    }
}

#[test]
fn c3_a_close_in_the_middle_of_a_content_drops_what_has_come_of_it() {
    let (mut it, _, consumer) = Script::consuming();
    let close = channel::Close { reply_code: 404, ..channel::Close::default() };
    let frames = [method(1, deliver("c", 1)), header(1, 10), body(1, b"abc"), method(1, close)];
    let seen = it.receives(frames);
    let [Seen::ChannelClosed { code: 404, told }] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!(told.consumers, [consumer]);
    assert_eq!(it.wrote(), [method(1, channel::CloseOk)]);

    let (mut it, _, consumer) = Script::consuming();
    let close = connection::Close { reply_code: 320, ..connection::Close::default() };
    let seen = it.receives([method(1, deliver("c", 1)), header(1, 10), method(0, close)]);
    let [Seen::ConnectionClosed { code: 320, told }] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!(told.consumers, [consumer]);
    assert_eq!(it.wrote(), [method(0, connection::CloseOk)]);
}

#[test]
fn c4_a_header_of_another_class_is_refused_and_the_weight_ignored() {
    let payload = |class, weight| vec![0, class, 0, weight, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (mut it, ..) = Script::consuming();
    let fault = it.faults([method(1, deliver("c", 1)), Wire::Raw(FRAME_HEADER, 1, payload(50, 0))]);
    assert_eq!((fault.reply_code(), fault), (505, Violation::HeaderClass(50)));
    let (mut it, ..) = Script::consuming();
    only(it.receives([method(1, deliver("c", 1)), Wire::Raw(FRAME_HEADER, 1, payload(60, 9))]));
}

#[test]
fn c5_an_announced_size_is_capped_and_never_allocated() {
    let (mut it, ..) = Script::consuming();
    only(it.receives(content(1, deliver("c", 1), &[b'x'; 4000])));
    // one that is too large comes without its body
    let size = MAX_MESSAGE + 1;
    it.receives([method(1, deliver("c", 2)), header(1, size)]);
    let parts = || (0..(size - 1) / 1024).map(|_| body(1, &[b'x'; 1024]));
    it.receives(parts());
    it.receives([Wire::Heartbeat]);
    let delivery = only(it.receives([body(1, b"x")]));
    assert_eq!((delivery.too_large(), delivery.body()), (Some(size), &b""[..]));
    only(it.receives(content(1, deliver("c", 3), b"x")));
    it.receives([method(1, deliver("c", 4)), header(1, size)]);
    it.receives(parts());
    assert_eq!(it.faults([body(1, b"xx")]), Violation::BodyTooLong { announced: size });
    let (mut it, ..) = Script::consuming();
    let returned = basic::Return { reply_code: 312, ..basic::Return::default() };
    let fault = it.faults([method(1, returned), header(1, size)]);
    assert_eq!(fault, Violation::MessageTooLarge { announced: size, limit: MAX_MESSAGE });

    // without a cap: what was announced would be more than there is, and the connection goes on
    let (mut it, ..) = Script::consuming();
    it.client.inbound = Inbound::new(u64::MAX);
    it.client.inbound.opened(1);
    it.receives([method(1, deliver("c", 1)), header(1, 1 << 63), body(1, b"abc"), Wire::Heartbeat]);
    let blocked = connection::Unblocked;
    assert_eq!(it.receives([body(1, b"def"), method(0, blocked)]), [Seen::Unblocked]);
}

#[test]
fn c6_a_body_is_never_longer_than_announced() {
    for bodies in [vec![11], vec![10, 1], vec![5, 6], vec![1, 1, 9]] {
        let (mut it, ..) = Script::consuming();
        let mut frames = vec![method(1, deliver("c", 1)), header(1, 10)];
        frames.extend(bodies.iter().map(|length| body(1, &vec![b'x'; *length])));
        let fault = it.faults(frames);
        // behind a whole message, one byte more belongs to no message at all
        let expected = if bodies == [10, 1] {
            Violation::StrayBody(1)
        } else {
            Violation::BodyTooLong { announced: 10 }
        };
        assert_eq!(fault, expected);
    }
}

#[test]
fn c7_an_empty_message_is_complete_with_its_header() {
    let (mut it, ..) = Script::consuming();
    assert_eq!(only(it.receives([method(1, deliver("c", 1)), header(1, 0)])).body(), b"");
}

#[test]
fn c8_bodies_are_assembled_exactly_and_empty_frames_complete_nothing() {
    let (mut it, ..) = Script::consuming();
    let pieces = [b"ab".as_slice(), b"", b"cd", b"", b"", b"e"];
    let frames = pieces.map(|piece| body(1, piece));
    assert_eq!(it.receives([method(1, deliver("c", 1)), header(1, 5), body(1, b"")]), []);
    assert_eq!(only(it.receives(frames)).body(), b"abcde");
}

#[test]
fn c9_contents_of_two_channels_may_be_interleaved() {
    let (mut it, _, _) = Script::consuming();
    let second = it.open();
    it.consume(second, "d");
    it.receives([method(2, basic::ConsumeOk { consumer_tag: short("d") })]);
    let (one, two) = (content(1, deliver("c", 1), b"one"), content(2, deliver("d", 1), b"two"));
    let mixed = one.into_iter().zip(two).flat_map(|(one, two)| [one, Wire::Heartbeat, two, Wire::Heartbeat]);
    let seen = it.receives(mixed);
    let bodies: Vec<_> = seen
        .iter()
        .map(|seen| match seen {
            Seen::Delivered { channel, delivery, .. } => (*channel, delivery.share_body()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(bodies, [(1, Bytes::from_static(b"one")), (2, Bytes::from_static(b"two"))]);
}

#[test]
fn c10_each_kind_of_content_reaches_whom_it_is_for() {
    let (mut it, channel, consumer) = Script::consuming();
    let getter = it.get(channel);
    let got = basic::GetOk { delivery_tag: 2, message_count: 9, ..basic::GetOk::default() };
    let mut frames = content(1, no_route("k"), b"back");
    frames.extend(content(1, got, b"got"));
    frames.extend(content(1, deliver("c", 3), b"delivered"));
    let seen = it.receives(frames);
    match seen.as_slice() {
        [
            Seen::Returned { channel: 1, returned },
            Seen::Got { channel: 1, waiter, delivery: got },
            Seen::Delivered { channel: 1, consumer: found, delivery },
        ] => {
            assert_eq!((returned.code, &returned.body), (312, &Bytes::from_static(b"back")));
            assert_eq!((got.tag, got.message_count()), (2, 9));
            assert_eq!((*waiter, got.body()), (Some(getter), b"got".as_slice()));
            assert_eq!((*found, delivery.body()), (consumer, b"delivered".as_slice()));
        }
        other => panic!("{other:?}"),
    }
    let fault = it.faults(content(1, basic::GetOk::default(), b""));
    assert!(matches!(fault, Violation::Unexpected { channel: 1, .. }), "nobody waits for get-ok: {fault}");
}

#[test]
fn c11_a_delivery_for_an_unknown_consumer_is_not_fatal() {
    let (mut it, _, consumer) = Script::consuming();
    let seen = it.receives(content(1, deliver("stranger", 1), b"?"));
    assert!(matches!(seen.as_slice(), [Seen::Unclaimed { channel: 1, .. }]), "{seen:?}");
    let seen = it.receives(content(1, deliver("c", 2), b"!"));
    assert!(
        matches!(seen.as_slice(), [Seen::Delivered { consumer: found, .. }] if *found == consumer),
        "{seen:?}"
    );
}

/// Each of 2,047 channels may be in the middle of a message: there is one bound for them all.
#[test]
fn unfinished_messages_of_all_channels_together_have_a_bound() {
    let piece = vec![0; FRAME_MAX as usize - 8];
    let largest = usize::try_from(MAX_MESSAGE).unwrap();
    let pieces = largest / piece.len();
    let unfinished = |id| {
        let begin = [method(id, deliver("c", 1)), header(id, MAX_MESSAGE)];
        begin.into_iter().chain((0..pieces).map(|_| body(id, &piece))).collect::<Vec<_>>()
    };
    let mut it = Script::new();
    // what becomes complete, or ends with its channel, does not count any more
    for round in 0..10 {
        let id = it.open().id.get();
        it.receives(unfinished(id));
        if round % 2 == 0 {
            let rest = largest % piece.len();
            it.receives([body(id, &piece[..rest])]);
        } else {
            it.receives([method(id, channel::Close::default())]);
        }
    }
    // four times the largest message is the least bound, for these small ones
    for _ in 0..4 {
        let id = it.open().id.get();
        it.receives(unfinished(id));
    }
    let id = it.open().id.get();
    let fault = it.faults(unfinished(id).into_iter().take(4));
    assert_eq!((&fault, fault.reply_code()), (&Violation::Unfinished { limit: 4 << 20 }, 506));
}

/// All frames in one read share a buffer; in several reads, parts stand apart.
#[test]
fn a_delivery_is_the_same_however_it_was_read_and_copied_out() {
    let headers: FieldTable =
        [(short("k"), FieldValue::LongStr(Bytes::from(vec![0; 3000])))].into_iter().collect();
    let properties = Properties { headers: Some(headers), ..Properties::default() };
    let frames = [method(1, deliver("c", 1)), Wire::Header(1, 3, properties.clone()), body(1, b"abc")];
    let (mut it, ..) = Script::consuming();
    let together = only(it.receives(frames.clone()));
    assert_eq!(together.properties(), Ok(properties));
    assert_eq!(together.body(), b"abc");
    for reads in [[1, 1, 1].as_slice(), &[2, 1], &[1, 2]] {
        let mut rest = frames.to_vec();
        let mut seen = Vec::new();
        for count in reads {
            seen.extend(it.receives(rest.drain(..count)));
        }
        let apart = only(seen);
        assert_eq!(apart, together, "{reads:?}");
        // the bound on memory counts all of it, and with it the frames, or the box of what stands apart
        assert!(apart.weight().abs_diff(together.weight()) < 64, "{reads:?}");
        let mut detached = apart.clone();
        detached.detach();
        assert_ne!(detached.body().as_ptr(), apart.body().as_ptr());
        assert_eq!(detached, apart);
        assert_eq!(detached.weight(), apart.weight());
    }
    assert!(together.weight() > 3000);
}
