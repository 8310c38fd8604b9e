//! Publisher confirms, returns among them.

use super::script::{Script, Wire, ack, content, method, nack, no_route, short};
use crate::codec::Properties;
use crate::codec::generated::{basic, confirm};
use crate::mux::confirm_ring::Outcome;
use crate::mux::ids::ChannelKey;
use crate::mux::session::Published;
use crate::mux::testing::Seen;

/// The confirms among what was seen, and nothing else was.
fn confirmed(seen: Vec<Seen>) -> Vec<u32> {
    seen.into_iter()
        .map(|seen| match seen {
            Seen::Confirm { waiter } => waiter,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn returned_body(outcome: Option<Outcome>) -> bytes::Bytes {
    match outcome {
        Some(Outcome::Returned(returned)) => returned.body,
        other => panic!("{other:?}"),
    }
}

#[test]
fn numbers_begin_with_the_first_publish_after_select() {
    let (mut it, key) = Script::opened();
    assert_eq!(it.publish(key, "q", b""), Ok(Published::Accepted(None)));
    it.select(key);
    assert_eq!(it.publish(key, "q", b""), Ok(Published::Accepted(Some(1))));
    it.select(key);
    assert_eq!(
        it.publish(key, "q", b""),
        Ok(Published::Accepted(Some(2))),
        "a second select changes nothing"
    );
}

#[test]
fn f6_acks_in_any_order_resolve_each_waiter_once() {
    let (mut it, key) = Script::confirming();
    let waiters: Vec<u32> = [(); 5].map(|()| it.awaited(key).1).to_vec();
    let mut acks = |frame: Wire| confirmed(it.receives([frame]));
    assert_eq!(acks(method(1, ack(2, false))), [waiters[1]]);
    assert_eq!(acks(method(1, ack(1, false))), [waiters[0]]);
    assert_eq!(acks(method(1, ack(3, false))), [waiters[2]]);
    assert_eq!(acks(method(1, ack(5, true))), [waiters[3], waiters[4]]);
    assert_eq!(acks(method(1, ack(4, false))), [0; 0], "a late one resolves nobody again");
    for number in 1..=5 {
        assert_eq!(it.outcome(key, number), Some(Outcome::Acked));
    }
}

#[test]
fn f7_settled_and_unknown_numbers_are_ignored_and_zero_means_all() {
    let (mut it, key) = Script::confirming();
    let waiters = [(); 7].map(|()| it.awaited(key).1);
    assert_eq!(confirmed(it.receives([method(1, ack(5, true))])), waiters[..5]);
    let ignored = [nack(3, true), nack(99, false), nack(99, true), nack(u64::MAX, true), nack(0, false)];
    assert_eq!(it.receives(ignored.map(|nack| method(1, nack))), []);
    for number in 1..=5 {
        assert_eq!(it.outcome(key, number), Some(Outcome::Acked), "settled stays settled");
    }
    assert_eq!([6, 7, 8, 99].map(|number| it.outcome(key, number)), [const { None }; 4]);
    assert_eq!(confirmed(it.receives([method(1, nack(0, true))])), waiters[5..]);
    assert_eq!([6, 7].map(|number| it.outcome(key, number)), [const { Some(Outcome::Nacked) }; 2]);
}

#[test]
fn f8_an_ack_that_is_faster_than_its_publisher_is_not_lost() {
    let (mut it, key) = Script::confirming();
    let number = it.numbered(key, "q", b"", false);
    // the bytes are not even written, the publisher has not begun to wait
    assert_eq!(it.receives([method(1, ack(number, false))]), []);
    assert_eq!(it.outcome(key, number), Some(Outcome::Acked));
}

#[test]
fn f9_a_returned_message_is_told_to_its_publisher() {
    let (mut it, key) = Script::confirming();
    it.numbered(key, "routed", b"1", true);
    let number = it.numbered(key, "lost", b"2", true);
    it.numbered(key, "lost", b"3", true);
    it.numbered(key, "routed", b"4", true);
    let waiter = it.waiter();
    it.confirms(key).wait(number, waiter);
    // other acks and returns stand between
    let mut frames = content(1, no_route("lost"), b"2");
    frames.push(method(1, ack(1, false)));
    frames.extend(content(1, no_route("lost"), b"3"));
    frames.push(method(1, ack(4, false)));
    assert_eq!(it.receives(frames), []);
    assert_eq!(it.outcome(key, number), None, "a return alone settles nothing");
    assert_eq!(confirmed(it.receives([method(1, ack(3, true))])), [waiter]);
    assert_eq!(returned_body(it.outcome(key, 2)), "2");
    assert_eq!(returned_body(it.outcome(key, 3)), "3");
    assert_eq!([1, 4].map(|number| it.outcome(key, number)), [const { Some(Outcome::Acked) }; 2]);
}

/// The server returns a message before it acks it: one that was acked without is not the one.
#[test]
fn f9_a_return_is_not_given_to_a_like_message_that_was_acked_before() {
    let (mut it, key) = Script::confirming();
    it.numbered(key, "q", b"slow", false);
    let routed = it.numbered(key, "q", b"same", true);
    let lost = it.numbered(key, "q", b"same", true);
    it.receives([method(1, ack(routed, false))]);
    assert_eq!(it.receives(content(1, no_route("q"), b"same")), []);
    it.receives([method(1, ack(lost, true))]);
    assert_eq!(it.outcome(key, routed), Some(Outcome::Acked));
    assert_eq!(returned_body(it.outcome(key, lost)), "same");
}

/// The body of the first may be large; what tells messages apart may be in the properties alone.
#[test]
fn f9_messages_are_told_apart_by_their_ids() {
    let (mut it, key) = Script::confirming();
    let with_id = |id: &str| Properties { message_id: Some(short(id)), ..Properties::default() };
    for id in ["a", "b"] {
        it.publish_with(key, "q", &with_id(id), b"same", true).unwrap();
    }
    let mut frames = content(1, no_route("q"), b"same");
    frames[1] = Wire::Header(1, 4, with_id("b"));
    frames.push(method(1, ack(2, true)));
    assert_eq!(it.receives(frames), []);
    assert_eq!(it.outcome(key, 1), Some(Outcome::Acked));
    assert_eq!(returned_body(it.outcome(key, 2)), "same");
}

#[test]
fn f9_a_return_that_fits_no_publish_is_given_to_the_channel() {
    let (mut it, key) = Script::confirming();
    it.numbered(key, "q", b"mandatory", true);
    it.numbered(key, "q", b"plain", false);
    for (routing_key, body) in [("q", "other"), ("other", "mandatory"), ("q", "plain")] {
        let seen = it.receives(content(1, no_route(routing_key), body.as_bytes()));
        assert!(
            matches!(&seen[..], [Seen::Returned { channel: 1, returned }] if returned.body == body),
            "{seen:?}"
        );
    }
    it.receives([method(1, ack(2, true))]);
    assert_eq!(it.outcome(key, 1), Some(Outcome::Acked));
}

#[test]
fn f10_a_return_from_before_confirms_is_nobodys_failure() {
    let (mut it, key) = Script::opened();
    it.publish_with(key, "q", &Properties::default(), b"same", true).unwrap();
    // the server returns it before it answers select
    let seen = it.receives(content(1, no_route("q"), b"same"));
    assert!(matches!(seen[..], [Seen::Returned { .. }]), "{seen:?}");
    it.select(key);
    let number = it.numbered(key, "q", b"same", true);
    it.receives([method(1, ack(number, false))]);
    assert_eq!(it.outcome(key, number), Some(Outcome::Acked));
}

#[test]
fn f12_a_nack_is_a_nack_with_and_without_requeue() {
    let (mut it, key) = Script::confirming();
    it.awaited(key);
    it.awaited(key);
    for (number, requeue) in [(1, true), (2, false)] {
        it.receives([method(1, basic::Nack { delivery_tag: number, multiple: false, requeue })]);
        assert_eq!(it.outcome(key, number), Some(Outcome::Nacked));
    }
}

#[test]
fn a_failure_of_a_dropped_confirm_is_told_to_who_waits_for_all() {
    let settle: [fn(&mut Script, ChannelKey, u64); 3] = [
        |it, key, number| {
            it.confirms(key).abandon(number);
            it.receives([method(1, nack(number, false))]);
        },
        // settled first, dropped then
        |it, key, number| {
            it.receives([method(1, nack(number, false))]);
            it.confirms(key).abandon(number);
        },
        // dropped between its return and its ack
        |it, key, number| {
            it.receives(content(1, no_route("q"), b"m"));
            it.confirms(key).abandon(number);
            it.receives([method(1, ack(number, false))]);
        },
    ];
    for settle in settle {
        let (mut it, key) = Script::confirming();
        let first = it.numbered(key, "q", b"", false);
        let number = it.numbered(key, "q", b"m", true);
        let waiter = it.waiter();
        it.confirms(key).wait_drained(number, None, waiter);
        settle(&mut it, key, number);
        assert_eq!(it.confirms(key).drained(number, 0), None, "the first is not settled");
        assert_eq!(confirmed(it.receives([method(1, ack(first, false))])), [waiter]);
        let failure = it.confirms(key).drained(number, 0);
        assert!(matches!(failure, Some((Outcome::Nacked | Outcome::Returned(_), 1))), "{failure:?}");
        assert_eq!(it.confirms(key).drained(number, 1), Some((Outcome::Acked, 1)), "told once");
    }
}

/// A dropped confirm may still have somebody who listens for returns.
#[test]
fn a_return_of_a_dropped_confirm_is_also_given_to_the_channel() {
    let (mut it, key) = Script::confirming();
    let number = it.numbered(key, "q", b"m", true);
    it.confirms(key).abandon(number);
    let seen = it.receives(content(1, no_route("q"), b"m"));
    assert!(matches!(seen[..], [Seen::Returned { .. }]), "{seen:?}");
}

#[test]
fn an_ack_without_confirms_ends_the_connection() {
    let (mut it, _) = Script::opened();
    assert_eq!(it.faults([method(1, ack(1, false))]).reply_code(), 503);
    let (mut it, key) = Script::opened();
    it.client.session.send(key, &confirm::Select { no_wait: true }).unwrap();
    assert_eq!(it.receives([method(1, ack(1, false))]), [], "select without waiting for its answer");
}
