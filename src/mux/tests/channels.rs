//! Channel numbers: what may come on which, and when one may be used again.

use super::script::{Script, Wire, body, content, deliver, header, method};
use crate::codec::generated::constants::FRAME_METHOD;
use crate::codec::generated::{access, basic, channel, connection, queue, tx};
use crate::codec::{DecodeError, Method};
use crate::mux::session::Refusal;
use crate::mux::testing::{Seen, Told};
use crate::mux::violation::Violation;

#[test]
fn a8_a_channel_that_was_never_opened_ends_the_connection() {
    for number in [2, 2047, u16::MAX] {
        for frame in [
            method(number, queue::DeclareOk::default()),
            method(number, channel::OpenOk),
            method(number, channel::Close::default()),
            method(number, deliver("c", 1)),
            header(number, 5),
            body(number, b"x"),
        ] {
            let (mut it, ..) = Script::consuming();
            let fault = it.faults([frame]);
            assert_eq!((fault.reply_code(), fault), (504, Violation::ChannelNotOpen(number)));
            assert_eq!(it.wrote(), []);
        }
    }
}

#[test]
fn a8_frames_of_content_on_channel_0_end_the_connection() {
    for frame in [header(0, 5), body(0, b"x"), method(0, deliver("c", 1))] {
        let (mut it, ..) = Script::consuming();
        let fault = it.faults([frame]);
        assert!(matches!(fault.reply_code(), 503 | 504), "{fault}");
    }
}

#[test]
fn a9_frames_for_a_channel_closed_a_moment_ago_are_dropped() {
    let (mut it, first, _) = Script::consuming();
    it.receives([method(1, channel::Close::default())]);
    it.wrote();
    let mut late = content(1, deliver("c", 1), b"late");
    // also in the middle of one, and methods
    late.extend([
        body(1, b"x"),
        header(1, 3),
        method(1, queue::DeclareOk::default()),
        method(1, deliver("c", 2)),
    ]);
    late.extend([method(1, channel::Close::default()), method(1, channel::CloseOk)]);
    assert_eq!(it.receives(late), []);
    assert_eq!(it.wrote(), []);

    // the same when the close was ours
    let mut it = Script::with_channel_max(1);
    let key = it.open();
    it.close(key);
    it.receives([method(1, channel::CloseOk)]);
    assert_eq!(it.receives(content(1, deliver("c", 1), b"late")), []);
    // and while the number is opened again; only then it counts
    let (again, waiter) = it.opening().unwrap();
    assert_ne!(again, first);
    assert_eq!(it.receives(content(1, deliver("c", 1), b"late")), []);
    assert_eq!(it.receives([method(1, basic::CancelOk::default())]), []);
    assert_eq!(it.receives([method(1, channel::OpenOk)]), [Seen::Opened { waiter }]);
    assert!(matches!(it.receives(content(1, deliver("c", 1), b"now"))[..], [Seen::Unclaimed { .. }]));
}

#[test]
fn b1_an_unknown_method_ends_the_connection() {
    for (class, number) in [(60, 99), (99, 10), (0, 0)] {
        let (mut it, ..) = Script::opened();
        let fault = it.faults([Wire::Raw(FRAME_METHOD, 1, vec![0, class, 0, number])]);
        assert!(matches!(fault, Violation::Decode { error: DecodeError::UnknownMethod(_), .. }), "{fault}");
        assert_eq!((fault.reply_code(), fault.method().class), (503, class.into()));
    }
}

#[test]
fn b2_a_method_that_is_cut_short_ends_the_connection() {
    let (mut it, key) = Script::opened();
    it.call(key, &queue::Declare::default());
    let fault = it.faults([Wire::Raw(FRAME_METHOD, 1, vec![0, 50, 0, 11, 200, b'q'])]);
    assert!(matches!(fault, Violation::Decode { error: DecodeError::Truncated, .. }), "{fault}");
    assert_eq!(fault.reply_code(), 502);
}

#[test]
fn b19_methods_belong_on_their_channels() {
    let close = connection::Close { reply_code: 320, ..connection::Close::default() };
    let on_1: [Method; 3] = [close.into(), connection::CloseOk.into(), connection::Unblocked.into()];
    let on_0: [Method; 4] = [
        basic::Ack::default().into(),
        channel::Close::default().into(),
        queue::DeclareOk::default().into(),
        tx::SelectOk.into(),
    ];
    for (number, misplaced) in on_1.map(|it| (1, it)).into_iter().chain(on_0.map(|it| (0, it))) {
        let (mut it, ..) = Script::opened();
        let fault = it.faults([method(number, misplaced)]);
        assert!(matches!(fault, Violation::WrongChannel { channel, .. } if channel == number), "{fault}");
        assert_eq!(fault.reply_code(), 503);
        assert_eq!(it.wrote(), [], "a misplaced close is not obeyed");
    }
}

#[test]
fn b20_what_nobody_asked_for_ends_the_connection() {
    let unasked: [(u16, Method); 8] = [
        (0, connection::Start::default().into()),
        (0, connection::Tune::default().into()),
        (0, connection::OpenOk.into()),
        (0, connection::CloseOk.into()),
        (0, connection::UpdateSecretOk.into()),
        (1, channel::OpenOk.into()),
        (1, queue::DeclareOk::default().into()),
        (1, access::RequestOk::default().into()),
    ];
    // what only clients send
    let ours: [(u16, Method); 3] = [
        (0, connection::StartOk::default().into()),
        (1, queue::Declare::default().into()),
        (1, basic::Publish::default().into()),
    ];
    for (number, unasked) in unasked.into_iter().chain(ours) {
        let (mut it, ..) = Script::opened();
        let fault = it.faults([method(number, unasked)]);
        assert!(matches!(fault, Violation::Unexpected { channel, .. } if channel == number), "{fault}");
        assert_eq!(fault.reply_code(), 503);
    }
}

#[test]
fn b20_a_reply_to_another_call_ends_the_connection() {
    let (mut it, key) = Script::opened();
    it.call(key, &queue::Declare::default());
    let fault = it.faults([method(1, queue::BindOk)]);
    assert!(matches!(fault, Violation::Unexpected { .. }), "{fault}");
}

#[test]
fn e4_a_close_by_the_server_is_answered_at_once_and_the_number_can_be_opened_again() {
    let mut it = Script::with_channel_max(1);
    let key = it.open();
    let waiter = it.call(key, &queue::Declare::default());
    it.wrote();
    let close = channel::Close { reply_code: 406, ..channel::Close::default() };
    let told = Told { replies: vec![waiter], ..Told::default() };
    assert_eq!(it.receives([method(1, close)]), [Seen::ChannelClosed { code: 406, told }]);
    let (again, waiter) = it.opening().unwrap();
    assert_eq!(again.id.get(), 1);
    assert_ne!(again.generation, key.generation);
    // in this order on the wire
    assert_eq!(it.wrote(), [method(1, channel::CloseOk), method(1, channel::Open)]);
    assert_eq!(it.receives([method(1, channel::OpenOk)]), [Seen::Opened { waiter }]);
    it.call(again, &queue::Declare::default());
    assert!(matches!(it.receives([method(1, queue::DeclareOk::default())])[..], [Seen::Reply { .. }]));
}

#[test]
fn e4_a_close_in_place_of_open_ok_fails_the_open() {
    let mut it = Script::new();
    let (key, waiter) = it.opening().unwrap();
    let close = channel::Close { reply_code: 504, ..channel::Close::default() };
    let told = Told { replies: vec![waiter], ..Told::default() };
    assert_eq!(it.receives([method(1, close)]), [Seen::ChannelClosed { code: 504, told }]);
    assert_eq!(it.publish(key, "q", b""), Err(Refusal::ChannelClosed));
}

#[test]
fn e5_a_number_is_not_used_again_before_close_ok() {
    let mut it = Script::with_channel_max(1);
    let key = it.open();
    it.close(key);
    assert_eq!(it.opening(), Err(Refusal::NoFreeChannel { max: 1 }));
    it.receives([method(1, channel::CloseOk)]);
    let (again, _) = it.opening().unwrap();
    assert_eq!(again.id, key.id);
}

#[test]
fn channels_are_refused_beyond_channel_max_and_nothing_is_written() {
    let mut it = Script::with_channel_max(2);
    it.open();
    it.open();
    assert_eq!(it.opening(), Err(Refusal::NoFreeChannel { max: 2 }));
    assert_eq!(it.wrote(), []);
}

/// A delivery's tag means nothing on the number's next incarnation: the server would close the channel.
#[test]
fn g7_an_ack_for_an_earlier_incarnation_is_refused() {
    let mut it = Script::with_channel_max(1);
    let old = it.open();
    it.receives([method(1, channel::Close::default())]);
    let new = it.open();
    assert_eq!(it.client.session.send(old, &basic::Ack::default()), Err(Refusal::ChannelClosed));
    assert_eq!(it.publish(old, "q", b""), Err(Refusal::ChannelClosed));
    assert_eq!(
        it.client.session.close_channel(old, &channel::Close::default(), None).err(),
        Some(Refusal::ChannelClosed)
    );
    assert_eq!(it.wrote(), []);
    assert_eq!(it.client.session.send(new, &basic::Ack::default()), Ok(()));
    assert_eq!(it.wrote(), [method(1, basic::Ack::default())]);
}

#[test]
fn a_method_that_does_not_fit_into_a_frame_is_refused_and_nothing_is_written() {
    let (mut it, key) = Script::opened();
    let arguments = |length: usize| {
        let mut table = crate::codec::FieldTable::new();
        table.insert("x", vec![0; length]).unwrap();
        queue::Bind { arguments: table, ..queue::Bind::default() }
    };
    // seven octets before the payload, one behind it; 4 + 2 + 3 + 1 + 4 + 2 + 1 + 4 before the bytes
    let fits = 4096 - 8 - 21;
    assert_eq!(it.client.session.send(key, &arguments(fits)), Ok(()));
    assert_eq!(it.client.written().len(), 4096);
    let refusal = Refusal::MethodTooLarge { size: 4097, limit: 4096 };
    assert_eq!(it.client.session.send(key, &arguments(fits + 1)), Err(refusal));
    assert_eq!(it.wrote(), []);
}
