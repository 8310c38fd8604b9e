//! Random lines: few names, so that they meet.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// A run: queues and exchanges to begin with, then whatever comes.
pub(crate) fn lines() -> impl Strategy<Value = Vec<String>> {
    let setup = (good(), good(), vec(prop_oneof![declare(), exchange(), bind(), confirm()], 0..4));
    let rest = vec(on_a_channel(), 4..24);
    (setup, rest).prop_map(|((one, two, more), rest)| {
        let setup = [format!("declare q1{one}"), format!("declare q2{two}")].into_iter().chain(more);
        let setup = setup.map(|line| format!("a1 {line}"));
        number_bodies(setup.chain(rest).collect())
    })
}

fn confirm() -> impl Strategy<Value = String> {
    of(&["confirm.select", "tx.select", "qos 1", "qos 2"])
}

/// Arguments that a queue may have.
fn good() -> impl Strategy<Value = String> {
    let classic = || some(GOOD, 0.15).prop_map(sensible);
    prop_oneof![
        3 => classic(),
        2 => classic().prop_map(|arguments| format!(" durable{arguments}")),
        2 => some(QUORUM, 0.25).prop_map(|rest| sensible(format!(" durable x-queue-type=quorum{rest}"))),
    ]
}

/// A routing key for dead letters needs an exchange.
fn sensible(arguments: String) -> String {
    let lacks = arguments.contains("routing-key") && !arguments.contains("letter-exchange");
    if lacks { arguments + " x-dead-letter-exchange=-" } else { arguments }
}

/// Each body says which line published it.
fn number_bodies(lines: Vec<String>) -> Vec<String> {
    let number = |(index, line): (usize, String)| line.replace("body=?", &format!("body=m{index}"));
    lines.into_iter().enumerate().map(number).collect()
}

fn on_a_channel() -> impl Strategy<Value = String> {
    let place = select(vec!["a1", "a1", "a1", "a1", "a2", "a2", "b1", "b1"]);
    (place, operation()).prop_map(|(place, line)| format!("{place} {line}"))
}

fn operation() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => declare(),
        2 => exchange(),
        4 => bind(),
        20 => publish(),
        8 => get(),
        8 => consume(),
        12 => settle(),
        3 => of(&["qos 0", "qos 1", "qos 2", "qos 1 global", "qos 0 global", "qos 2 global", "qos 1 size"]),
        2 => of(&["recover requeue", "recover-async requeue", "recover"]),
        2 => of(&["tx.select", "tx.commit", "tx.rollback"]),
        2 => of(&["confirm.select", "confirm.select no-wait"]),
        3 => delete(),
        2 => of(&["close", "open", "flow", "flow active", "close-connection", "cut"]),
        1 => of(&["reply body=?", "reply body=? mandatory"]),
    ]
}

fn of(lines: &[&str]) -> BoxedStrategy<String> {
    select(lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()).boxed()
}

/// Words, each there or not.
fn some(words: &'static [&'static str], likely: f64) -> impl Strategy<Value = String> {
    words
        .iter()
        .map(|word| {
            prop::bool::weighted(likely)
                .prop_map(move |is| if is { format!(" {word}") } else { String::new() })
        })
        .collect::<Vec<_>>()
        .prop_map(|words| words.concat())
}

fn queue() -> impl Strategy<Value = &'static str> {
    select(vec!["q1", "q1", "q1", "q1", "q1", "q2", "q2", "q2", "q3", "-"])
}

fn exchange_name() -> impl Strategy<Value = &'static str> {
    select(vec!["x1", "x1", "x2", "x3"])
}

fn key() -> impl Strategy<Value = &'static str> {
    select(vec!["q1", "q2", "k", "k.l", "k.*", "#", "*.l", "-", "k.l.m"])
}

fn declare() -> BoxedStrategy<String> {
    let name =
        select(vec!["q1", "q1", "q1", "q1", "q1", "q1", "q2", "q2", "q2", "q2", "q3", "q3", "-", "amq.own"]);
    let flags = prop_oneof![
        6 => Just(String::new()),
        3 => Just(" durable".to_owned()),
        3 => some(&["durable", "exclusive", "auto-delete", "passive", "no-wait"], 0.25),
    ];
    let arguments = prop_oneof![
        8 => Just(String::new()),
        4 => some(GOOD, 0.12),
        1 => vec(select(ODD), 1..3).prop_map(|words| unique(&words)),
        2 => some(QUORUM, 0.3).prop_map(|rest| format!(" durable x-queue-type=quorum{rest}")),
    ];
    (name, flags, arguments)
        .prop_map(|(name, flags, arguments)| format!("declare {name}{flags}{arguments}"))
        .boxed()
}

const GOOD: &[&str] = &[
    "x-max-length=2",
    "x-max-length-bytes=5",
    "x-overflow=reject-publish",
    "x-dead-letter-exchange=-",
    "x-dead-letter-routing-key=q2",
    "x-max-priority=3",
    "x-single-active-consumer=true",
    "x-message-ttl=0",
];

const QUORUM: &[&str] = &[
    "x-delivery-limit=1",
    "x-dead-letter-exchange=-",
    "x-dead-letter-routing-key=q2",
    "x-max-length=2",
    "x-overflow=reject-publish",
    "x-single-active-consumer=true",
];

/// Arguments that are refused, or mean nothing, or are rare.
const ODD: &[&str] = &[
    "x-max-length=0",
    "x-max-length=l:2",
    "x-max-length=-1",
    "x-max-length=s:2",
    "x-max-length-bytes=true",
    "x-overflow=nonsense",
    "x-overflow=drop-head",
    "x-overflow=reject-publish-dlx",
    "x-overflow=1",
    "x-dead-letter-exchange=x1",
    "x-dead-letter-exchange=1",
    "x-dead-letter-routing-key=q1",
    "x-dead-letter-routing-key=1",
    "x-max-priority=0",
    "x-max-priority=255",
    "x-max-priority=256",
    "x-max-priority=-1",
    "x-max-priority=true",
    "x-single-active-consumer=1",
    "x-single-active-consumer=false",
    "x-message-ttl=60000",
    "x-message-ttl=-1",
    "x-message-ttl=d:1.5",
    "x-message-ttl=s:x",
    "x-expires=0",
    "x-expires=60000",
    "x-expires=-5",
    "x-expires=v:",
    "x-queue-type=classic",
    "x-queue-type=quorum",
    "x-queue-type=nonsense",
    "x-queue-type=1",
    "x-queue-mode=lazy",
    "x-queue-mode=nonsense",
    "x-queue-version=2",
    "x-queue-version=7",
    "x-delivery-limit=1",
    "x-queue-leader-locator=client-local",
    "x-queue-leader-locator=nonsense",
    "x-max-age=1h",
    "x-unknown=1",
];

/// No name twice.
fn unique(words: &[&str]) -> String {
    let mut names = std::collections::BTreeSet::new();
    let kept = words.iter().filter(|word| names.insert(word.split('=').next()));
    kept.flat_map(|word| [" ", word]).collect()
}

fn exchange() -> BoxedStrategy<String> {
    let kind = select(vec![
        "direct", "direct", "fanout", "fanout", "topic", "topic", "headers", "headers", "nonsense",
    ]);
    let name = prop_oneof![8 => exchange_name(), 1 => select(vec!["-", "amq.direct", "amq.own"])];
    let flags = some(&["durable", "internal", "auto-delete", "passive"], 0.15);
    let arguments =
        select(vec!["", "", "", " alternate-exchange=x2", " alternate-exchange=-", " alternate-exchange=1"]);
    (name, kind, flags, arguments)
        .prop_map(|(name, kind, flags, arguments)| format!("exchange {name} {kind}{flags}{arguments}"))
        .boxed()
}

fn bind() -> BoxedStrategy<String> {
    let arguments = select(vec![
        "",
        "",
        "",
        " x-match=all a=1 b=t",
        " x-match=any a=1 b=t",
        " x-match=any-with-x x-a=1",
        " x-match=all-with-x x-a=1 a=1",
        " x-match=nonsense a=1",
        " x-match=1",
        " a=v:",
        " a=l:1",
    ]);
    let source = prop_oneof![6 => exchange_name(), 2 => select(vec!["-", "amq.topic", "amq.headers"])];
    let verb = select(vec!["bind", "bind", "bind", "unbind"]);
    let queues =
        (verb, queue(), source, key(), arguments).prop_map(|(verb, queue, source, key, arguments)| {
            format!("{verb} {queue} {source} {key}{arguments}")
        });
    let exchanges = (select(vec!["bind-x", "bind-x", "unbind-x"]), exchange_name(), exchange_name(), key())
        .prop_map(|(verb, one, two, key)| format!("{verb} {one} {two} {key}"));
    prop_oneof![4 => queues, 1 => exchanges].boxed()
}

fn publish() -> BoxedStrategy<String> {
    let target = prop_oneof![
        6 => select(vec!["- q1", "- q1", "- q2", "- q3", "- nowhere"]).prop_map(str::to_owned),
        4 => (exchange_name(), key()).prop_map(|(exchange, key)| format!("{exchange} {key}")),
        1 => select(vec!["amq.topic k.l", "amq.headers k", "amq.rabbitmq.log k", "- amq.rabbitmq.reply-to"]).prop_map(str::to_owned),
    ];
    let flags = some(&["mandatory"], 0.3);
    let common = some(
        &[
            "priority=2",
            "expiration=0",
            "delivery-mode=2",
            "h.a=1",
            "h.b=t",
            "h.x-a=1",
            "CC=q2",
            "BCC=q3,q2",
            "expiration=60000",
        ],
        0.1,
    )
    .prop_map(|words| unique(&words.split_whitespace().collect::<Vec<_>>()));
    let odd = prop_oneof![
        9 => Just(""),
        1 => select(vec![
            " immediate",
            " user-id=guest",
            " user-id=other",
            " expiration=soon",
            " expiration=-1",
            " priority=9",
            " reply-to=amq.rabbitmq.reply-to",
            " CC-as-text=q2",
            " CC=",
            " h.x-death=1",
            " h.x-delivery-count=5",
        ]),
    ];
    (target, flags, common, odd)
        .prop_map(|(target, flags, common, odd)| {
            let words = format!("{flags}{common}{odd}");
            format!("publish {target}{} body=?", unique(&words.split_whitespace().collect::<Vec<_>>()))
        })
        .boxed()
}

fn get() -> BoxedStrategy<String> {
    (queue(), some(&["no-ack"], 0.5)).prop_map(|(queue, flags)| format!("get {queue}{flags}")).boxed()
}

fn consume() -> BoxedStrategy<String> {
    let tag = select(vec!["t1", "t2", "t3", "-"]);
    let queue = prop_oneof![12 => queue(), 1 => Just("amq.rabbitmq.reply-to")];
    let arguments = prop_oneof![
        6 => Just(""),
        1 => select(vec![" x-priority=5", " x-priority=-1", " x-priority=s:1", " x-unknown=1", " x-stream-offset=first"]),
    ];
    let begin = (queue, tag, some(&["no-ack"], 0.4), some(&["exclusive"], 0.1), arguments).prop_map(
        |(queue, tag, no_ack, exclusive, arguments)| {
            format!("consume {queue} {tag}{no_ack}{exclusive}{arguments}")
        },
    );
    prop_oneof![3 => begin, 1 => of(&["cancel t1", "cancel t2", "cancel t3"])].boxed()
}

fn settle() -> BoxedStrategy<String> {
    let verb = select(vec!["ack", "nack", "nack requeue", "reject", "reject requeue"]);
    let which = prop_oneof![12 => select(vec!["0", "1", "2"]), 1 => select(vec!["#0", "#1", "#77"])];
    (verb, which, some(&["multiple"], 0.25))
        .prop_map(|(verb, which, multiple)| {
            let (verb, requeue) = verb.split_once(' ').unwrap_or((verb, ""));
            let multiple = if verb == "reject" { "" } else { &multiple };
            format!("{verb} {which} {requeue}{multiple}")
        })
        .boxed()
}

fn delete() -> BoxedStrategy<String> {
    let queues = (queue(), some(&["if-unused", "if-empty"], 0.3))
        .prop_map(|(queue, flags)| format!("delete {queue}{flags}"));
    let exchanges = (exchange_name(), some(&["if-unused"], 0.5))
        .prop_map(|(exchange, flags)| format!("unexchange {exchange}{flags}"));
    prop_oneof![3 => queues, 2 => queue().prop_map(|queue| format!("purge {queue}")), 2 => exchanges, 1 => of(&["unexchange -", "unexchange amq.direct", "unexchange amq.none"])].boxed()
}
