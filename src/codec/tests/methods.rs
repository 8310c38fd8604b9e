//! Every method against the table of the protocol's fact sheet: numbers, sender, fields in their order.

use std::collections::HashSet;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{hex, method, wire};
use crate::codec::generated::queue;
use crate::codec::{DecodeError, Method, MethodId, Sender};
use crate::fuzzing;

/// Numbers, name, sender (C, S, B), `*` if a content follows, fields. Those in brackets are bits of one
/// octet, the first in the lowest; `rsv` is sent empty and ignored.
const TABLE: &str = "
10,10 connection.start S version-major:u8, version-minor:u8, server-properties:tbl, mechanisms:ls, locales:ls
10,11 connection.start-ok C client-properties:tbl, mechanism:ss, response:ls, locale:ss
10,20 connection.secure S challenge:ls
10,21 connection.secure-ok C response:ls
10,30 connection.tune S channel-max:u16, frame-max:u32, heartbeat:u16
10,31 connection.tune-ok C channel-max:u16, frame-max:u32, heartbeat:u16
10,40 connection.open C virtual-host:ss, rsv-1:ss, [rsv-2]
10,41 connection.open-ok S rsv-1:ss
10,50 connection.close B reply-code:u16, reply-text:ss, class-id:u16, method-id:u16
10,51 connection.close-ok B
10,60 connection.blocked S reason:ss
10,61 connection.unblocked S
10,70 connection.update-secret C new-secret:ls, reason:ss
10,71 connection.update-secret-ok S
20,10 channel.open C rsv-1:ss
20,11 channel.open-ok S rsv-1:ls
20,20 channel.flow B [active]
20,21 channel.flow-ok B [active]
20,40 channel.close B reply-code:u16, reply-text:ss, class-id:u16, method-id:u16
20,41 channel.close-ok B
30,10 access.request C realm:ss, [exclusive passive active write read]
30,11 access.request-ok S ticket:u16
40,10 exchange.declare C rsv-1:u16, exchange:ss, type:ss, [passive durable auto-delete internal no-wait], arguments:tbl
40,11 exchange.declare-ok S
40,20 exchange.delete C rsv-1:u16, exchange:ss, [if-unused no-wait]
40,21 exchange.delete-ok S
40,30 exchange.bind C rsv-1:u16, destination:ss, source:ss, routing-key:ss, [no-wait], arguments:tbl
40,31 exchange.bind-ok S
40,40 exchange.unbind C rsv-1:u16, destination:ss, source:ss, routing-key:ss, [no-wait], arguments:tbl
40,51 exchange.unbind-ok S
50,10 queue.declare C rsv-1:u16, queue:ss, [passive durable exclusive auto-delete no-wait], arguments:tbl
50,11 queue.declare-ok S queue:ss, message-count:u32, consumer-count:u32
50,20 queue.bind C rsv-1:u16, queue:ss, exchange:ss, routing-key:ss, [no-wait], arguments:tbl
50,21 queue.bind-ok S
50,30 queue.purge C rsv-1:u16, queue:ss, [no-wait]
50,31 queue.purge-ok S message-count:u32
50,40 queue.delete C rsv-1:u16, queue:ss, [if-unused if-empty no-wait]
50,41 queue.delete-ok S message-count:u32
50,50 queue.unbind C rsv-1:u16, queue:ss, exchange:ss, routing-key:ss, arguments:tbl
50,51 queue.unbind-ok S
60,10 basic.qos C prefetch-size:u32, prefetch-count:u16, [global]
60,11 basic.qos-ok S
60,20 basic.consume C rsv-1:u16, queue:ss, consumer-tag:ss, [no-local no-ack exclusive no-wait], arguments:tbl
60,21 basic.consume-ok S consumer-tag:ss
60,30 basic.cancel B consumer-tag:ss, [no-wait]
60,31 basic.cancel-ok B consumer-tag:ss
60,40 basic.publish C* rsv-1:u16, exchange:ss, routing-key:ss, [mandatory immediate]
60,50 basic.return S* reply-code:u16, reply-text:ss, exchange:ss, routing-key:ss
60,60 basic.deliver S* consumer-tag:ss, delivery-tag:u64, [redelivered], exchange:ss, routing-key:ss
60,70 basic.get C rsv-1:u16, queue:ss, [no-ack]
60,71 basic.get-ok S* delivery-tag:u64, [redelivered], exchange:ss, routing-key:ss, message-count:u32
60,72 basic.get-empty S rsv-1:ss
60,80 basic.ack B delivery-tag:u64, [multiple]
60,90 basic.reject C delivery-tag:u64, [requeue]
60,100 basic.recover-async C [requeue]
60,110 basic.recover C [requeue]
60,111 basic.recover-ok S
60,120 basic.nack B delivery-tag:u64, [multiple requeue]
85,10 confirm.select C [no-wait]
85,11 confirm.select-ok S
90,10 tx.select C
90,11 tx.select-ok S
90,20 tx.commit C
90,21 tx.commit-ok S
90,30 tx.rollback C
90,31 tx.rollback-ok S
";

/// A line of the table.
struct Row {
    id: MethodId,
    name: &'static str,
    sender: &'static str,
    fields: Vec<Field>,
}

#[derive(Clone)]
enum Field {
    /// Names of bits.
    Bits(Vec<&'static str>),
    Value {
        name: &'static str,
        kind: &'static str,
    },
}

fn rows() -> impl Iterator<Item = Row> {
    TABLE.trim().lines().map(|line| {
        let mut parts = line.splitn(4, ' ');
        let mut part = || parts.next().unwrap_or_default();
        let (class, method) = part().split_once(',').unwrap();
        Row {
            id: MethodId::new(class.parse().unwrap(), method.parse().unwrap()),
            name: part(),
            sender: part(),
            fields: part().split(", ").filter(|field| !field.is_empty()).map(Field::parse).collect(),
        }
    })
}

impl Field {
    fn parse(text: &'static str) -> Self {
        match text.strip_prefix('[') {
            Some(bits) => Self::Bits(bits.trim_end_matches(']').split(' ').collect()),
            None => text.split_once(':').map(|(name, kind)| Self::Value { name, kind }).unwrap(),
        }
    }

    /// The field as a correct peer writes it.
    fn octets(&self) -> BoxedStrategy<Vec<u8>> {
        match self {
            Self::Bits(names) => {
                let bits = names.iter().enumerate();
                let mask = bits.map(|(bit, name)| u8::from(!name.starts_with("rsv")) << bit).sum::<u8>();
                any::<u8>().prop_map(move |octet| vec![octet & mask]).boxed()
            }
            Self::Value { name, kind } if name.starts_with("rsv") => Just(wire::reserved(kind)).boxed(),
            Self::Value { kind, .. } => wire::field(kind),
        }
    }

    /// The names that a struct of ours has.
    fn names(&self) -> Vec<String> {
        let names = match self {
            Self::Bits(names) => names.clone(),
            Self::Value { name, .. } => vec![*name],
        };
        let ours = names.into_iter().filter(|name| !name.starts_with("rsv"));
        ours.map(|name| if name == "type" { "kind".into() } else { name.replace('-', "_") }).collect()
    }
}

impl Row {
    /// The payload of a method frame.
    fn payload(self) -> impl Strategy<Value = Vec<u8>> {
        let id = [self.id.class.to_be_bytes(), self.id.method.to_be_bytes()].concat();
        self.fields.into_iter().fold(Just(id).boxed(), |head, field| {
            (head, field.octets()).prop_map(|(head, field)| [head, field].concat()).boxed()
        })
    }

    /// The least payload: every number, length and bit is zero.
    fn zeroes(&self) -> Vec<u8> {
        let mut payload = [self.id.class.to_be_bytes(), self.id.method.to_be_bytes()].concat();
        for field in &self.fields {
            payload.extend(match field {
                Field::Bits(_) | Field::Value { kind: "u8" | "ss", .. } => vec![0],
                Field::Value { kind: "u16", .. } => vec![0; 2],
                Field::Value { kind: "u64", .. } => vec![0; 8],
                Field::Value { .. } => vec![0; 4],
            });
        }
        payload
    }
}

/// A correct payload of any method.
fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    proptest::strategy::Union::new(rows().map(|row| row.payload().boxed()))
}

#[test]
fn every_method_is_known_by_its_numbers_and_no_other_is() {
    let known: HashSet<MethodId> = rows().map(|row| row.id).collect();
    assert_eq!(known.len(), 66);
    for row in rows() {
        let (sender, content) = match row.sender.strip_suffix('*') {
            Some(sender) => (sender, true),
            None => (row.sender, false),
        };
        let sender = match sender {
            "C" => Sender::Client,
            "S" => Sender::Server,
            _ => Sender::Both,
        };
        assert_eq!(Method::name(row.id), row.name);
        assert_eq!(Method::sender(row.id), Some(sender), "{}", row.name);
        assert_eq!(Method::has_content(row.id), content, "{}", row.name);
    }
    for (class, number) in (0..=100).flat_map(|class| (0..=130).map(move |number| (class, number))) {
        let id = MethodId::new(class, number);
        if !known.contains(&id) {
            let payload = [class.to_be_bytes(), number.to_be_bytes(), [0; 2], [0; 2]].concat();
            assert_eq!(method(&payload), Err(DecodeError::UnknownMethod(id)));
            assert_eq!((Method::name(id), Method::sender(id)), ("unknown", None));
        }
    }
}

/// Where two neighbours have one type, a swap would go unnoticed on the wire.
#[test]
fn fields_have_the_protocols_names_in_the_protocols_order() {
    for row in rows() {
        let method = method(&row.zeroes()).unwrap();
        // as in `QueueDeclareOk(DeclareOk { queue: "", message_count: 0 })`, here over several lines
        let shown = format!("{method:#?}");
        let names: Vec<_> = shown.lines().filter_map(|line| line.trim().split_once(": ")).collect();
        let names: Vec<_> = names.into_iter().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names, row.fields.iter().flat_map(Field::names).collect::<Vec<_>>(), "{}", row.name);
    }
}

#[test]
fn h10_exchange_unbind_ok_is_method_51() {
    assert_eq!(Method::name(MethodId::new(40, 51)), "exchange.unbind-ok");
    assert!(method(&hex("0028 0029")).is_err());
}

#[test]
fn b2_a_declare_ok_cut_anywhere_is_refused() {
    let whole = hex("0032 000b 03 616263 00000001 00000002");
    let ok = queue::DeclareOk { queue: "abc".try_into().unwrap(), message_count: 1, consumer_count: 2 };
    assert_eq!(method(&whole), Ok(ok.into()));
    for length in 0..whole.len() {
        assert_eq!(method(&whole[..length]), Err(DecodeError::Truncated), "{length} bytes");
    }
}

#[test]
fn b13_a_name_that_is_not_utf8_is_read_and_shown() {
    let Ok(Method::QueueDeclareOk(ok)) = method(&hex("0032 000b 02 fffe 00000000 00000000")) else {
        panic!("declare-ok was refused");
    };
    assert_eq!((ok.queue.as_bytes(), ok.queue.as_str()), (b"\xff\xfe".as_slice(), None));
    assert_eq!(ok.queue.to_string(), "\u{fffd}\u{fffd}");
}

proptest! {
    #[test]
    fn every_method_is_read_and_written_as_the_table_says(payload in any_payload()) {
        let method = method(&payload).unwrap();
        let mut written = Vec::new();
        method.encode(&mut written);
        prop_assert_eq!(written, payload);
    }

    /// `RabbitMQ` ignores them too.
    #[test]
    fn octets_behind_the_last_argument_are_ignored(payload in any_payload(), more in vec(any::<u8>(), 1..9)) {
        let longer = Bytes::from([payload.clone(), more].concat());
        let mut written = Vec::new();
        Method::from_payload(&longer, &longer).unwrap().encode(&mut written);
        prop_assert_eq!(written, payload);
    }

    #[test]
    fn damaged_methods_are_refused_or_read_the_same_again(
        mut payload in any_payload(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        for (at, octet) in damage {
            *at.get_mut(&mut payload) = octet;
        }
        fuzzing::method(&payload);
        fuzzing::method(&payload[..cut.index(payload.len())]);
    }
}
