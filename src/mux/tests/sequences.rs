//! Sequences of frames that no test thought of.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::script::{Script, Wire, body, deliver, header, method, no_route, short};
use crate::codec::Method;
use crate::codec::generated::{basic, queue};
use crate::fuzzing;
use crate::mux::testing::Seen;

/// What a correct server may send on a channel.
#[derive(Clone, Debug)]
enum Part {
    Deliver(Pieces),
    Get(Pieces),
    Return(Pieces),
    Declared(u32),
}

/// The body frames of a content; some may be empty.
type Pieces = Vec<Vec<u8>>;

/// What of it the user must see.
#[derive(Debug, PartialEq)]
enum Expected {
    Delivered(Bytes),
    Got(Bytes),
    Returned(Bytes),
    Declared(u32),
}

fn part() -> impl Strategy<Value = Part> {
    let pieces = || vec(vec(any::<u8>(), 0..20), 0..4);
    prop_oneof![
        3 => pieces().prop_map(Part::Deliver),
        1 => pieces().prop_map(Part::Get),
        1 => pieces().prop_map(Part::Return),
        1 => any::<u32>().prop_map(Part::Declared),
    ]
}

fn frames(channel: u16, part: &Part) -> Vec<Wire> {
    let (first, pieces): (Method, _) = match part {
        Part::Deliver(pieces) => (deliver("c", 1).into(), pieces),
        Part::Get(pieces) => (basic::GetOk::default().into(), pieces),
        Part::Return(pieces) => (no_route("q").into(), pieces),
        Part::Declared(count) => {
            return vec![method(
                channel,
                queue::DeclareOk { message_count: *count, ..queue::DeclareOk::default() },
            )];
        }
    };
    let size = pieces.iter().map(Vec::len).sum::<usize>();
    // nothing may stand behind the body's last octet
    let last = pieces.iter().rposition(|piece| !piece.is_empty()).map_or(0, |at| at + 1);
    let mut frames = vec![method(channel, first), header(channel, size as u64)];
    frames.extend(pieces[..last].iter().map(|piece| body(channel, piece)));
    frames
}

fn expected(part: &Part) -> Expected {
    match part {
        Part::Deliver(pieces) => Expected::Delivered(pieces.concat().into()),
        Part::Get(pieces) => Expected::Got(pieces.concat().into()),
        Part::Return(pieces) => Expected::Returned(pieces.concat().into()),
        Part::Declared(count) => Expected::Declared(*count),
    }
}

proptest! {
    /// Frames of three channels in any order between the channels, in reads of one frame or several: on
    /// each channel, everything arrives whole and in order.
    #[test]
    fn each_channel_is_assembled_for_itself(
        parts in vec(vec(part(), 0..6), 3),
        turns in vec((any::<prop::sample::Index>(), any::<bool>()), 1..100),
    ) {
        let mut it = Script::new();
        // whose reply belongs to which channel
        let mut calls = HashMap::new();
        let mut waiting: Vec<VecDeque<Wire>> = Vec::new();
        for (channel, parts) in (1..).zip(&parts) {
            let key = it.open();
            it.consume(key, "c");
            it.receives([method(channel, basic::ConsumeOk { consumer_tag: short("c") })]);
            for part in parts {
                match part {
                    Part::Get(_) => drop(it.get(key)),
                    Part::Declared(_) => drop(calls.insert(it.call(key, &queue::Declare::default()), channel)),
                    Part::Deliver(_) | Part::Return(_) => {}
                }
            }
            waiting.push(parts.iter().flat_map(|part| frames(channel, part)).collect());
        }
        let mut seen: [Vec<Expected>; 3] = Default::default();
        let mut read = Vec::new();
        for (turn, ends_read) in turns.iter().cycle() {
            let busy: Vec<usize> = (0..3).filter(|lane| !waiting[*lane].is_empty()).collect();
            if !busy.is_empty() {
                read.extend(waiting[busy[turn.index(busy.len())]].pop_front());
                read.push(Wire::Heartbeat);
            }
            if !*ends_read && !busy.is_empty() {
                continue;
            }
            for event in it.receives(read.drain(..)) {
                let (channel, what) = match event {
                    Seen::Delivered { channel, delivery, .. } => (channel, Expected::Delivered(delivery.share_body())),
                    Seen::Got { channel, delivery, .. } => (channel, Expected::Got(delivery.share_body())),
                    Seen::Returned { channel, returned } => (channel, Expected::Returned(returned.body)),
                    Seen::Reply { waiter: Some(waiter), reply: Method::QueueDeclareOk(ok) } => {
                        (calls[&waiter], Expected::Declared(ok.message_count))
                    }
                    other => panic!("{other:?}"),
                };
                seen[usize::from(channel) - 1].push(what);
            }
            if busy.is_empty() {
                break;
            }
        }
        for (seen, parts) in seen.iter().zip(&parts) {
            prop_assert_eq!(seen, &parts.iter().map(expected).collect::<Vec<_>>());
        }
    }

    /// Well-framed nonsense of any kind, on channels that are open and others.
    #[test]
    fn any_sequence_of_frames_keeps_the_invariants(
        frames in vec((prop_oneof![Just(1_u8), Just(2), Just(3), 20..31_u8], 0_u16..5, any_payload()), 0..60)
    ) {
        let mut bytes = Vec::new();
        for (kind, channel, payload) in frames {
            Wire::Raw(kind, channel, payload).put(&mut bytes);
        }
        fuzzing::content(&bytes);
    }
}

/// Payloads of which many fit: methods that a server sends, headers, bodies.
fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    let methods: Vec<Method> = vec![
        deliver("c", 1).into(),
        deliver("?", 2).into(),
        basic::GetOk::default().into(),
        basic::GetEmpty.into(),
        no_route("q").into(),
        basic::Ack { delivery_tag: 0, multiple: true }.into(),
        basic::Nack { delivery_tag: 1, ..basic::Nack::default() }.into(),
        basic::ConsumeOk { consumer_tag: short("c") }.into(),
        basic::Cancel { consumer_tag: short("c"), no_wait: false }.into(),
        basic::CancelOk { consumer_tag: short("c") }.into(),
        crate::codec::generated::channel::OpenOk.into(),
        crate::codec::generated::channel::Close::default().into(),
        crate::codec::generated::channel::CloseOk.into(),
        crate::codec::generated::channel::Flow { active: false }.into(),
        crate::codec::generated::channel::Flow { active: true }.into(),
    ];
    let method = prop::sample::select(methods).prop_map(|method| {
        let mut payload = Vec::new();
        method.encode(&mut payload);
        payload
    });
    let header = (0_u8..3).prop_map(|size| vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, size, 0, 0]);
    prop_oneof![6 => method, 3 => header, 3 => vec(Just(b'b'), 0..3), 1 => vec(any::<u8>(), 0..30)]
}
