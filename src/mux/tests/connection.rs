//! The connection as a whole: its end, blocking, and calls on channel 0.

use super::script::{Script, ack, content, deliver, method, short};
use crate::codec::generated::{basic, channel, connection, queue};
use crate::mux::session::{Published, Refusal};
use crate::mux::testing::{Seen, Told};

fn close() -> connection::Close {
    connection::Close { reply_code: 200, ..connection::Close::default() }
}

#[test]
fn e7_both_sides_close_the_connection_at_once() {
    let (mut it, _) = Script::opened();
    let waiter = it.waiter();
    it.client.session.close(&close(), Some(waiter)).unwrap();
    assert_eq!(it.receives([method(0, close())]), []);
    assert_eq!(it.wrote(), [method(0, close()), method(0, connection::CloseOk)]);
    let seen = it.receives([method(0, connection::CloseOk)]);
    assert_eq!(seen, [Seen::ConnectionCloseOk { waiter: Some(waiter) }]);
}

#[test]
fn e8_our_close_of_the_connection_hands_out_everybody() {
    let (mut it, first) = Script::confirming();
    let second = it.open();
    let declare = it.call(first, &queue::Declare::default());
    let (_, confirm) = it.awaited(first);
    let (_, opener) = it.opening().unwrap();
    let getter = it.get(second);
    let ended = it.client.session.close(&close(), None).unwrap();
    let expected =
        Told { replies: vec![declare, getter, opener], confirms: vec![confirm], consumers: vec![] };
    assert_eq!(Told::new(ended), expected);
    it.wrote();
    // from here on all but close and close-ok is dropped, and nothing more is taken
    // what would be a fault otherwise, too
    let late = [
        method(1, queue::DeclareOk::default()),
        method(1, ack(1, false)),
        method(3, channel::OpenOk),
        method(1, connection::Unblocked),
        method(99, queue::DeclareOk::default()),
    ];
    assert_eq!(it.receives(late), []);
    assert_eq!(it.receives([method(0, connection::Blocked::default())]), []);
    assert_eq!(it.opening(), Err(Refusal::ConnectionClosed));
    assert_eq!(it.publish(first, "q", b""), Err(Refusal::ConnectionClosed));
    assert_eq!(it.client.session.close(&close(), Some(9)).err(), Some(Refusal::ConnectionClosed));
    assert_eq!(it.wrote(), []);
}

#[test]
fn e12_a_close_by_the_server_tells_everybody_once() {
    let (mut it, first, consumer) = Script::consuming();
    let second = it.open();
    it.select(second);
    let declare = it.call(first, &queue::Declare::default());
    let confirms = [it.awaited(second).1, it.awaited(second).1];
    it.client.session.update_secret(&connection::UpdateSecret::default(), 99).unwrap();
    it.wrote();
    let close = connection::Close { reply_code: 320, ..connection::Close::default() };
    let told = Told { replies: vec![declare, 99], confirms: confirms.to_vec(), consumers: vec![consumer] };
    assert_eq!(it.receives([method(0, close.clone())]), [Seen::ConnectionClosed { code: 320, told }]);
    assert_eq!(it.wrote(), [method(0, connection::CloseOk)]);
    // neither a second close nor giving up tells anybody again
    assert_eq!(it.receives([method(0, close)]), []);
    let (ended, calls) = it.client.session.fail(Some(&connection::Close::default()));
    assert_eq!((ended.len(), calls), (0, vec![]));
    assert_eq!(it.wrote(), []);
}

#[test]
fn e10_giving_up_a_close_that_is_not_answered_hands_out_who_waits_for_it() {
    let (mut it, _) = Script::opened();
    it.receives([method(0, connection::Blocked { reason: short("low on memory") })]);
    it.client.session.close(&close(), Some(9)).unwrap();
    it.wrote();
    let (ended, calls) = it.client.session.fail(Some(&close()));
    assert_eq!((ended.len(), calls), (0, vec![9]));
    assert_eq!(it.wrote(), [], "a second close is not sent");
}

#[test]
fn e11_a_blocked_connection_takes_no_publishes_but_all_else() {
    let (mut it, key) = Script::confirming();
    let seen = it.receives([method(0, connection::Blocked { reason: short("low on disk") })]);
    assert_eq!(seen, [Seen::Blocked { reason: short("low on disk") }]);
    assert_eq!(it.publish(key, "q", b"later"), Ok(Published::Wait));
    it.client.session.send(key, &basic::Ack::default()).unwrap();
    assert_eq!(it.wrote(), [method(1, basic::Ack::default())]);
    assert_eq!(it.receives([method(0, connection::Unblocked)]), [Seen::Unblocked]);
    assert_eq!(it.publish(key, "q", b"now"), Ok(Published::Accepted(Some(1))), "waiting takes no number");
}

#[test]
fn e13_flow_is_echoed_and_stops_the_publishes_of_its_channel_only() {
    let (mut it, key) = Script::confirming();
    let other = it.open();
    assert_eq!(it.receives([method(1, channel::Flow { active: false })]), []);
    assert_eq!(it.wrote(), [method(1, channel::FlowOk { active: false })]);
    assert_eq!(it.publish(key, "q", b"x"), Ok(Published::Wait));
    assert_eq!(it.wrote(), []);
    assert_eq!(it.publish(other, "q", b"x"), Ok(Published::Accepted(None)));
    it.wrote();
    assert_eq!(it.receives([method(1, channel::Flow { active: true })]), [Seen::FlowResumed]);
    assert_eq!(it.wrote(), [method(1, channel::FlowOk { active: true })]);
    assert_eq!(it.publish(key, "q", b"x"), Ok(Published::Accepted(Some(1))));
}

/// The future of the first call may have been dropped: its answer is not the second's.
#[test]
fn two_secrets_that_wait_are_answered_in_turn() {
    let mut it = Script::new();
    for waiter in [1, 2] {
        it.client.session.update_secret(&connection::UpdateSecret::default(), waiter).unwrap();
    }
    for waiter in [1, 2] {
        let reply = connection::UpdateSecretOk.into();
        let seen = it.receives([method(0, connection::UpdateSecretOk)]);
        assert_eq!(seen, [Seen::Reply { waiter: Some(waiter), reply }]);
    }
}

/// Reading must go on for as long as this holds, also when consumers do not keep up.
#[test]
fn who_waits_is_known() {
    let (mut it, key, _) = Script::consuming();
    assert!(!it.client.session.is_awaited());
    it.get(key);
    assert!(it.client.session.is_awaited());
    it.receives([method(1, basic::GetEmpty)]);
    assert!(!it.client.session.is_awaited());
    it.select(key);
    it.awaited(key);
    assert!(it.client.session.is_awaited());
    it.receives(content(1, deliver("c", 1), b""));
    it.receives([method(1, ack(1, false))]);
    assert!(!it.client.session.is_awaited());
    it.close(key);
    assert!(it.client.session.is_awaited());
    it.receives([method(1, channel::CloseOk)]);
    assert!(!it.client.session.is_awaited());
}
