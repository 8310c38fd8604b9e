//! Closing a channel, by either side or by both at once.

use super::script::{Script, ack, body, content, deliver, header, method, no_route, short};
use crate::codec::generated::{basic, channel, queue};
use crate::mux::session::Refusal;
use crate::mux::testing::{Seen, Told};

#[test]
fn e6_what_comes_between_our_close_and_close_ok_is_dropped() {
    let (mut it, key) = Script::confirming();
    it.get(key);
    it.awaited(key);
    let (_, closer) = it.close(key);
    it.wrote();
    let mut late = vec![
        method(1, ack(1, false)),
        method(1, queue::DeclareOk::default()),
        method(1, channel::Flow { active: false }),
        method(1, basic::Cancel { consumer_tag: short("c"), no_wait: false }),
    ];
    late.extend(content(1, no_route("q"), b"back"));
    assert_eq!(it.receives(late), []);
    // a get-ok finds nobody: who waited has been told of the close
    let seen = it.receives(content(1, basic::GetOk::default(), b"late"));
    assert!(matches!(seen[..], [Seen::Got { waiter: None, .. }]), "{seen:?}");
    assert_eq!(it.wrote(), []);
    let seen = it.receives([method(1, channel::CloseOk)]);
    assert_eq!(seen, [Seen::ChannelCloseOk { waiter: Some(closer) }]);
}

#[test]
fn e6_nothing_of_the_last_incarnation_reaches_the_next() {
    let mut it = Script::with_channel_max(1);
    let key = it.open();
    it.consume(key, "c");
    it.receives([method(1, basic::ConsumeOk { consumer_tag: short("c") })]);
    // half a message, then both of us close
    it.receives([method(1, deliver("c", 1)), header(1, 10), body(1, b"half")]);
    it.receives([method(1, channel::Close::default())]);
    it.open();
    let seen = it.receives(content(1, deliver("c", 1), b"whole"));
    assert!(
        matches!(&seen[..], [Seen::Unclaimed { delivery, .. }] if delivery.body() == b"whole"),
        "{seen:?}"
    );
}

#[test]
fn e7_both_sides_close_at_once() {
    let (mut it, key) = Script::opened();
    let (_, closer) = it.close(key);
    assert_eq!(it.receives([method(1, channel::Close::default())]), []);
    let close = channel::Close { reply_code: 200, ..channel::Close::default() };
    assert_eq!(it.wrote(), [method(1, close), method(1, channel::CloseOk)]);
    assert_eq!(it.opening().map(|(other, _)| other.id == key.id), Ok(false), "our close is still open");
    let seen = it.receives([method(1, channel::CloseOk)]);
    assert_eq!(seen, [Seen::ChannelCloseOk { waiter: Some(closer) }]);
}

#[test]
fn e8_calls_that_wait_are_handed_out_when_the_channel_closes() {
    let (mut it, key, consumer) = Script::consuming();
    let waiters = [it.call(key, &queue::Declare::default()), it.get(key), it.cancel(key, "c", consumer)];
    let (replies, _) = it.close(key);
    assert_eq!(replies, waiters);

    let (mut it, key) = Script::opened();
    let waiters = [it.call(key, &queue::Declare::default()), it.get(key), it.consume(key, "c")];
    let consumers = vec![waiters[2]];
    let told = Told { replies: waiters.to_vec(), consumers, ..Told::default() };
    assert_eq!(it.receives([method(1, channel::Close::default())]), [Seen::ChannelClosed { code: 0, told }]);
}

#[test]
fn e8_an_open_that_waits_is_handed_out_and_its_open_ok_is_late() {
    let mut it = Script::new();
    let (key, opener) = it.opening().unwrap();
    let (replies, closer) = it.close(key);
    assert_eq!(replies, [opener]);
    let seen = it.receives([method(1, channel::OpenOk), method(1, channel::CloseOk)]);
    assert_eq!(seen, [Seen::ChannelCloseOk { waiter: Some(closer) }]);
}

#[test]
fn e9_close_ok_is_success_and_a_second_close_writes_nothing() {
    let (mut it, key, _) = Script::consuming();
    let (_, closer) = it.close(key);
    it.wrote();
    for _ in 0..2 {
        let second = it.client.session.close_channel(key, &channel::Close::default(), Some(9));
        assert_eq!(second.err(), Some(Refusal::ChannelClosed));
        it.receives([]);
    }
    let seen = it.receives([method(1, channel::CloseOk)]);
    assert_eq!(seen, [Seen::ChannelCloseOk { waiter: Some(closer) }]);
    let third = it.client.session.close_channel(key, &channel::Close::default(), Some(9));
    assert_eq!(third.err(), Some(Refusal::ChannelClosed));
    assert_eq!(it.wrote(), []);
}

/// Whether the server answers the close or not.
#[test]
fn consumers_are_handed_out_when_their_channel_is_closed() {
    let (mut it, key, consumer) = Script::consuming();
    let ended = it.client.session.close_channel(key, &channel::Close::default(), None).unwrap();
    assert_eq!(ended.consumers, [consumer]);
    let (mut it, key, consumer) = Script::consuming();
    it.cancel(key, "c", consumer);
    let ended = it.client.session.close_channel(key, &channel::Close::default(), None).unwrap();
    assert_eq!(ended.consumers, [consumer], "one that is being cancelled, too");
}

#[test]
fn f11_a_channel_that_closes_hands_out_everybody_who_waits_for_a_confirm() {
    let (mut it, key) = Script::confirming();
    let waiters = [(); 5].map(|()| it.awaited(key).1);
    let told = Told { confirms: waiters.to_vec(), ..Told::default() };
    let seen = it.receives([method(1, channel::Close::default())]);
    assert_eq!(seen, [Seen::ChannelClosed { code: 0, told }]);
    // and none of them is told anything else: not that it was acked
    assert_eq!(it.client.session.confirms(key).err(), Some(Refusal::ChannelClosed));
    assert_eq!(it.receives([method(1, ack(5, true))]), []);
}

#[test]
fn f13_publishes_behind_the_one_that_closed_the_channel_fail_with_it() {
    let (mut it, key) = Script::confirming();
    let waiters = [(); 4].map(|()| it.awaited(key).1);
    let settled = it.receives([method(1, ack(1, false))]);
    assert_eq!(settled, [Seen::Confirm { waiter: waiters[0] }]);
    let close = channel::Close { reply_code: 404, class_id: 60, method_id: 40, ..channel::Close::default() };
    let told = Told { confirms: waiters[1..].to_vec(), ..Told::default() };
    assert_eq!(it.receives([method(1, close)]), [Seen::ChannelClosed { code: 404, told }]);
    assert_eq!(it.publish(key, "q", b""), Err(Refusal::ChannelClosed));
}
