//! Consumers: replies matched to calls, deliveries to consumers.

use super::script::{Script, content, deliver, method, short};
use crate::codec::generated::{basic, queue};
use crate::codec::{Arguments, Method};
use crate::mux::channel_state::{Expect, Pending};
use crate::mux::session::Refusal;
use crate::mux::testing::Seen;

fn consume_ok(tag: &str) -> basic::ConsumeOk {
    basic::ConsumeOk { consumer_tag: short(tag) }
}

fn cancel_ok(tag: &str) -> basic::CancelOk {
    basic::CancelOk { consumer_tag: short(tag) }
}

fn cancel(tag: &str, no_wait: bool) -> basic::Cancel {
    basic::Cancel { consumer_tag: short(tag), no_wait }
}

fn reply(waiter: u32, reply: impl Into<Method>) -> Seen {
    Seen::Reply { waiter: Some(waiter), reply: reply.into() }
}

/// The consumers of deliveries and the tags; other events are a fault.
fn deliveries(seen: &[Seen]) -> Vec<(u32, u64)> {
    seen.iter()
        .map(|seen| match seen {
            Seen::Delivered { consumer, delivery, .. } => (*consumer, delivery.tag),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn g1_a_delivery_in_one_read_with_consume_ok_is_not_lost() {
    for tag in ["mine", ""] {
        let (mut it, key) = Script::opened();
        let consumer = it.consume(key, tag);
        let given = if tag.is_empty() { "amq.ctag-1" } else { tag };
        let mut frames = vec![method(1, consume_ok(given))];
        frames.extend(content(1, deliver(given, 1), b"first"));
        let seen = it.receives(frames);
        assert_eq!(seen[0], reply(consumer, consume_ok(given)));
        assert_eq!(deliveries(&seen[1..]), [(consumer, 1)]);
    }
}

#[test]
fn g2_a_delivery_between_cancel_and_cancel_ok_reaches_the_consumer_and_none_after_does() {
    let (mut it, key, consumer) = Script::consuming();
    let waiter = it.cancel(key, "c", consumer);
    assert_eq!(deliveries(&it.receives(content(1, deliver("c", 1), b"late"))), [(consumer, 1)]);
    assert_eq!(it.receives([method(1, cancel_ok("c"))]), [reply(waiter, cancel_ok("c"))]);
    assert!(matches!(it.receives(content(1, deliver("c", 2), b""))[..], [Seen::Unclaimed { .. }]));
}

#[test]
fn g3_after_a_cancel_by_the_server_it_is_told_that_the_consumer_is_gone() {
    let (mut it, key, consumer) = Script::consuming();
    let seen = it.receives([method(1, cancel("c", true))]);
    assert_eq!(seen, [Seen::Cancelled { tag: short("c"), consumer }]);
    assert_eq!(it.wrote(), [method(1, cancel("c", false))]);
    // what a server that keeps the consumer still delivers has somebody to give it back
    assert_eq!(deliveries(&it.receives(content(1, deliver("c", 1), b""))), [(consumer, 1)]);
    // the tag is free again, before the answer
    let again = it.consume(key, "c");
    let seen = it.receives([method(1, cancel_ok("c")), method(1, consume_ok("c"))]);
    assert_eq!(
        seen,
        [Seen::Reply { waiter: None, reply: cancel_ok("c").into() }, reply(again, consume_ok("c"))]
    );
    assert_eq!(deliveries(&it.receives(content(1, deliver("c", 2), b""))), [(again, 2)]);
}

/// `RabbitMQ` never asks for an answer; by the protocol's text a server may.
#[test]
fn g3_a_cancel_that_asks_for_an_answer_gets_one() {
    let (mut it, ..) = Script::consuming();
    it.receives([method(1, cancel("c", false))]);
    assert_eq!(it.wrote(), [method(1, cancel_ok("c")), method(1, cancel("c", false))]);
}

#[test]
fn g4_cancels_of_both_sides_may_cross() {
    let (mut it, key, consumer) = Script::consuming();
    let waiter = it.cancel(key, "c", consumer);
    it.wrote();
    let seen = it.receives([method(1, cancel("c", true)), method(1, cancel_ok("c"))]);
    assert_eq!(seen, [reply(waiter, cancel_ok("c"))]);
    assert_eq!(it.receives([method(1, cancel("stranger", true))]), []);
    assert_eq!(it.wrote(), [], "one cancel is enough");
}

#[test]
fn a_consumer_is_cancelled_once_and_its_tag_can_be_used_again_at_once() {
    let (mut it, key, old) = Script::consuming();
    assert_eq!(it.try_cancel(key, "c", old, None), Ok(None));
    let new = it.consume(key, "c");
    it.wrote();
    // again, as when a consumer is dropped after its cancel: this must not cancel the new one
    let waiter = it.waiter();
    assert_eq!(it.try_cancel(key, "c", old, Some(waiter)), Ok(None));
    assert_eq!(it.wrote(), []);
    // the answers may overtake each other, since queues give them
    it.receives([method(1, consume_ok("c"))]);
    assert_eq!(deliveries(&it.receives(content(1, deliver("c", 1), b""))), [(new, 1)]);
    assert_eq!(it.receives([method(1, cancel_ok("c"))]), [reply(waiter, cancel_ok("c"))]);
    assert_eq!(deliveries(&it.receives(content(1, deliver("c", 2), b""))), [(new, 2)]);
    assert_eq!(it.try_cancel(key, "c", old, Some(waiter)), Ok(Some(waiter)), "nothing to wait for");
    assert_eq!(it.wrote(), []);
}

#[test]
fn g5_replies_that_overtake_each_other_reach_their_calls() {
    let (mut it, key) = Script::opened();
    let consumer = it.consume(key, "c");
    let declare = it.call(key, &queue::Declare::default());
    let declare_ok = queue::DeclareOk::default();
    let seen = it.receives([method(1, declare_ok.clone()), method(1, consume_ok("c"))]);
    assert_eq!(seen, [reply(declare, declare_ok), reply(consumer, consume_ok("c"))]);

    // the same reply twice: the tag tells
    let consumers = ["a", "b"].map(|tag| (tag, it.consume(key, tag)));
    it.receives(consumers.map(|(tag, _)| method(1, consume_ok(tag))));
    let calls = consumers.map(|(tag, consumer)| it.cancel(key, tag, consumer));
    let seen = it.receives([method(1, cancel_ok("b")), method(1, cancel_ok("a"))]);
    assert_eq!(seen, [reply(calls[1], cancel_ok("b")), reply(calls[0], cancel_ok("a"))]);
}

/// As when the future of the first was dropped. Each consumer must get what is for its tag.
#[test]
fn g5_consume_oks_that_overtake_each_other_reach_their_consumers() {
    let (mut it, key) = Script::opened();
    let consumers = [it.consume(key, "a"), it.consume(key, "b")];
    let seen = it.receives([method(1, consume_ok("b")), method(1, consume_ok("a"))]);
    assert_eq!(seen, [reply(consumers[1], consume_ok("b")), reply(consumers[0], consume_ok("a"))]);
    let seen = it.receives(["a", "b"].into_iter().flat_map(|tag| content(1, deliver(tag, 1), b"")));
    assert_eq!(deliveries(&seen), consumers.map(|consumer| (consumer, 1)));
}

#[test]
fn g5_like_calls_are_answered_in_turn() {
    let (mut it, key) = Script::opened();
    let calls = [(); 2].map(|()| it.call(key, &queue::Declare::default()));
    for (waiter, count) in calls.into_iter().zip([10, 20]) {
        let ok = queue::DeclareOk { message_count: count, ..queue::DeclareOk::default() };
        assert_eq!(it.receives([method(1, ok.clone())]), [reply(waiter, ok)]);
    }
}

#[test]
fn g11_get_and_deliveries_do_not_mix() {
    let (mut it, key, consumer) = Script::consuming();
    let getter = it.get(key);
    let got = basic::GetOk { delivery_tag: 2, ..basic::GetOk::default() };
    assert_eq!(deliveries(&it.receives(content(1, deliver("c", 1), b"d"))), [(consumer, 1)]);
    let seen = it.receives(content(1, got, b"g"));
    assert!(matches!(&seen[..], [Seen::Got { waiter, delivery, .. }]
        if *waiter == Some(getter) && delivery.tag == 2 && delivery.body() == b"g"));
    assert_eq!(deliveries(&it.receives(content(1, deliver("c", 3), b"d"))), [(consumer, 3)]);
    let getter = it.get(key);
    assert_eq!(it.receives([method(1, basic::GetEmpty)]), [reply(getter, basic::GetEmpty)]);
}

#[test]
fn g13_a_tag_in_use_is_refused_and_nothing_is_written() {
    let (mut it, key, consumer) = Script::consuming();
    it.wrote();
    assert_eq!(it.try_consume(key, "c"), Err(Refusal::TagInUse));
    it.consume(key, "asked for");
    it.wrote();
    assert_eq!(it.try_consume(key, "asked for"), Err(Refusal::TagInUse), "not answered yet, but asked for");
    it.consume(key, "");
    it.receives([method(1, consume_ok("given"))]);
    it.wrote();
    assert_eq!(it.try_consume(key, "given"), Err(Refusal::TagInUse), "given by the server");
    assert_eq!(it.wrote(), []);
    // tags are unique for each channel, and free once cancelled
    let other = it.open();
    assert!(it.try_consume(other, "c").is_ok());
    it.cancel(key, "c", consumer);
    assert!(it.try_consume(key, "c").is_ok());
}

#[test]
fn g13_a_refused_consume_takes_its_limit_back() {
    let (mut it, key, _) = Script::consuming();
    let consume = |tag| basic::Consume { consumer_tag: short(tag), ..basic::Consume::default() };
    let qos = basic::Qos { prefetch_count: 10, ..basic::Qos::default() };
    let pending =
        || Pending { expect: Expect::only(basic::ConsumeOk::ID), waiter: Some(7), consumer: Some(7) };
    let session = &mut it.client.session;
    assert_eq!(session.consume_with(key, &qos, &consume("c"), pending()), Err(Refusal::TagInUse));
    assert_eq!(session.consume_with(key, &qos, &consume("d"), pending()), Ok(()));
    assert_eq!(it.wrote(), [method(1, qos), method(1, consume("d"))]);
    let seen = it.receives([method(1, basic::QosOk), method(1, consume_ok("d"))]);
    let qos_ok = Seen::Reply { waiter: None, reply: basic::QosOk.into() };
    assert_eq!(seen, [qos_ok, reply(7, consume_ok("d"))]);
    let fault = it.faults([method(1, basic::QosOk)]);
    assert_eq!(fault.reply_code(), 503, "the refused one's answer is not waited for");
}

#[test]
fn a_tag_that_the_server_gives_out_twice_is_a_violation_and_both_consumers_are_told() {
    let (mut it, key) = Script::opened();
    let first = it.consume(key, "");
    it.receives([method(1, consume_ok("t"))]);
    it.consume(key, "");
    let fault = it.faults([method(1, consume_ok("t"))]);
    assert_eq!((fault.reply_code(), fault.method()), (530, basic::ConsumeOk::ID));
    let (ended, _) = it.client.session.fail(None);
    assert_eq!(ended[0].consumers, [first], "the second one's caller is told by its call");
}
