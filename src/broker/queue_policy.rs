//! Which arguments a queue or a consumer may have: checked in `RabbitMQ`'s order, refused in its words.

use std::fmt::Display;

use crate::codec::{FieldTable, FieldValue, ShortStr};

use super::equivalence::{CLASSIC_ARGUMENTS, queue_arguments};
use super::refusal::{self, Refusal};
use super::settings::{QueueKind, type_name};

/// What a value must be.
#[derive(Clone, Copy, Debug)]
enum Check {
    /// A number of milliseconds.
    Time,
    /// The same, and not 0.
    Expires,
    /// A number that is not negative.
    Count,
    /// The same, and not 0.
    Size,
    Priority,
    Truth,
    Version,
    Text,
    /// A text that makes no sense without a dead-letter exchange.
    DeadLetterKey,
    /// One of these words; else it is refused with the last one.
    Word(&'static [&'static str], &'static str),
}

/// What is checked, in this order.
const CHECKS: [(&str, Check); 16] = [
    ("x-expires", Check::Expires),
    ("x-message-ttl", Check::Time),
    ("x-dead-letter-exchange", Check::Text),
    ("x-dead-letter-routing-key", Check::DeadLetterKey),
    ("x-dead-letter-strategy", Check::Word(&["at-most-once", "at-least-once"], "invalid_dlx_strategy")),
    ("x-max-length", Check::Count),
    ("x-max-length-bytes", Check::Count),
    ("x-max-in-memory-length", Check::Count),
    ("x-max-in-memory-bytes", Check::Count),
    ("x-max-priority", Check::Priority),
    ("x-overflow", Check::Word(&["drop-head", "reject-publish", "reject-publish-dlx"], "invalid_overflow")),
    ("x-queue-version", Check::Version),
    ("x-single-active-consumer", Check::Truth),
    ("x-consumer-timeout", Check::Count),
    ("x-quorum-initial-group-size", Check::Size),
    ("x-queue-leader-locator", Check::Word(&["client-local", "balanced"], "invalid_queue_locator_arg")),
];

/// What only streams understand.
const STREAM_ARGUMENTS: [&str; 4] =
    ["x-initial-cluster-size", "x-max-age", "x-stream-filter-size-bytes", "x-stream-max-segment-size-bytes"];

/// What only the consumers of streams understand.
const STREAM_CONSUMER_ARGUMENTS: [&str; 3] =
    ["x-stream-offset", "x-stream-filter", "x-stream-match-unfiltered"];

/// The longest time, in milliseconds: ten years.
const TIME_MAX: i64 = 315_360_000_000;

/// Checks the arguments of a queue that is to be made, and says of which type it is.
pub(super) fn check(vhost: &str, name: &ShortStr, arguments: &FieldTable) -> Result<QueueKind, Refusal> {
    let thing = refusal::queue(vhost, name);
    let kind = kind(&thing, arguments)?;
    let known = queue_arguments(kind);
    for (argument, check) in CHECKS.iter().filter(|(argument, _)| known.contains(argument)) {
        if let Some(value) = arguments.get(argument) {
            check.apply(value, arguments).map_err(|reason| invalid(argument, &thing, reason))?;
        }
    }
    let understood = |name: &str| {
        CLASSIC_ARGUMENTS.contains(&name)
            || queue_arguments(QueueKind::Quorum).contains(&name)
            || STREAM_ARGUMENTS.contains(&name)
    };
    let mut names: Vec<_> = arguments.iter().filter_map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    match names.into_iter().find(|name| understood(name) && !known.contains(name)) {
        None => Ok(kind),
        Some(name) => Err(misplaced(name, &thing, kind)),
    }
}

/// The type of queue that is asked for.
pub(super) fn kind(thing: &str, arguments: &FieldTable) -> Result<QueueKind, Refusal> {
    let Some(value) = arguments.get("x-queue-type") else { return Ok(QueueKind::Classic) };
    let FieldValue::LongStr(text) = value else {
        return Err(invalid("x-queue-type", thing, unacceptable(value)));
    };
    match text.as_ref() {
        b"classic" => Ok(QueueKind::Classic),
        b"quorum" => Ok(QueueKind::Quorum),
        b"stream" => Err(Refusal::precondition_failed(format_args!(
            "streams are not implemented by this test broker: {thing}"
        ))),
        other => {
            let other = String::from_utf8_lossy(other);
            let reason = format!("\"unsupported queue type '{other}'\"");
            Err(invalid("x-queue-type", thing, reason))
        }
    }
}

/// The priority of a consumer, whose other arguments are checked, too.
pub(super) fn consumer_priority(
    thing: &str,
    kind: QueueKind,
    arguments: &FieldTable,
) -> Result<i64, Refusal> {
    let priority = match arguments.get("x-priority") {
        None => 0,
        Some(value) => number(value).map_err(|reason| invalid("x-priority", thing, reason))?,
    };
    match STREAM_CONSUMER_ARGUMENTS.iter().find(|name| arguments.get(name).is_some()) {
        None => Ok(priority),
        Some(name) => Err(misplaced(name, thing, kind)),
    }
}

impl Check {
    /// Whether a value is acceptable; the reason if it is not.
    fn apply(self, value: &FieldValue, all: &FieldTable) -> Result<(), String> {
        let one_of = |words: &[&str], reason: &str| match value {
            FieldValue::LongStr(text) if words.iter().any(|word| word.as_bytes() == text) => Ok(()),
            FieldValue::LongStr(_) => Err(reason.to_owned()),
            other => Err(unacceptable(other)),
        };
        match self {
            Self::Time => time(number(value)?),
            Self::Expires => not_zero(number(value)?).and_then(time),
            Self::Count => count(value).map(drop),
            Self::Size => count(value).and_then(not_zero).map(drop),
            Self::Priority => match count(value)? {
                0..=255 => Ok(()),
                more => Err(format!("{{max_value_exceeded,{more}}}")),
            },
            Self::Truth => value.as_bool().map(drop).ok_or_else(|| unacceptable(value)),
            Self::Version => match count(value)? {
                2 => Ok(()),
                other => Err(format!("\"unsupported queue version '{other}'\"")),
            },
            Self::Text => text(value),
            Self::DeadLetterKey => {
                text(value)?;
                let is_used = all.get("x-dead-letter-exchange").is_some();
                if is_used { Ok(()) } else { Err("routing_key_but_no_dlx_defined".to_owned()) }
            }
            Self::Word(words, reason) => one_of(words, reason),
        }
    }
}

fn text(value: &FieldValue) -> Result<(), String> {
    match value {
        FieldValue::LongStr(_) => Ok(()),
        other => Err(unacceptable(other)),
    }
}

fn number(value: &FieldValue) -> Result<i64, String> {
    value.as_integer().ok_or_else(|| format!("\"expected integer, got {}\"", type_name(value)))
}

fn count(value: &FieldValue) -> Result<i64, String> {
    let number = number(value)?;
    if number < 0 { Err(format!("{{value_negative,{number}}}")) } else { Ok(number) }
}

fn not_zero(number: i64) -> Result<i64, String> {
    if number == 0 { Err("{value_zero,0}".to_owned()) } else { Ok(number) }
}

/// A time to live or to be kept, in milliseconds.
pub(super) fn time(number: i64) -> Result<(), String> {
    match number {
        ..0 => Err(format!("{{value_negative,{number}}}")),
        0..=TIME_MAX => Ok(()),
        _ => Err(format!("{{value_too_large,{number}}}")),
    }
}

fn unacceptable(value: &FieldValue) -> String {
    format!("{{unacceptable_type,{}}}", type_name(value))
}

/// Another type of queue understands the argument.
fn misplaced(argument: &str, thing: &str, kind: QueueKind) -> Refusal {
    let kind = kind.module();
    Refusal::precondition_failed(format_args!("invalid arg '{argument}' for {thing} of queue type {kind}"))
}

fn invalid(argument: &str, thing: &str, reason: impl Display) -> Refusal {
    Refusal::precondition_failed(format_args!("invalid arg '{argument}' for {thing}: {reason}"))
}

/// Refuses an argument that should name an exchange and is no string.
pub(super) fn names_an_exchange(argument: &str, thing: &str, arguments: &FieldTable) -> Result<(), Refusal> {
    match arguments.get(argument) {
        None | Some(FieldValue::LongStr(_)) => Ok(()),
        Some(other) => Err(Refusal::precondition_failed(format_args!(
            "invalid type '{}' for arg '{argument}' in {thing}",
            type_name(other)
        ))),
    }
}
