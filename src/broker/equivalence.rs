//! Whether a second declaration is equivalent to what is there.

use crate::codec::{FieldTable, FieldValue};

use super::refusal::Refusal;
use super::settings::{QueueKind, type_name};

/// Arguments that a second declaration must repeat, in the order in which they are compared.
pub(super) fn queue_arguments(kind: QueueKind) -> &'static [&'static str] {
    match kind {
        QueueKind::Classic => &CLASSIC_ARGUMENTS,
        QueueKind::Quorum => &QUORUM_ARGUMENTS,
    }
}

/// What a classic queue understands.
pub(super) const CLASSIC_ARGUMENTS: [&str; 14] = [
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-queue-master-locator",
    "x-queue-leader-locator",
];

/// What a quorum queue understands.
pub(super) const QUORUM_ARGUMENTS: [&str; 16] = [
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-overflow",
    "x-single-active-consumer",
    "x-queue-type",
    "x-quorum-initial-group-size",
    "x-delivery-limit",
    "x-message-ttl",
    "x-queue-leader-locator",
    "x-consumer-timeout",
];

/// Arguments of an exchange that a second declaration must repeat.
pub(super) const EXCHANGE_ARGUMENTS: [&str; 1] = ["alternate-exchange"];

/// Refuses a declaration that differs from what is there. `thing` is worded by
/// [`refusal::queue`] or [`refusal::exchange`].
pub(super) fn same_flag(name: &str, thing: &str, received: bool, current: bool) -> Result<(), Refusal> {
    same_text(name, thing, &received.to_string(), &current.to_string())
}

/// Like [`same_flag`] for a word, such as an exchange's type.
pub(super) fn same_text(name: &str, thing: &str, received: &str, current: &str) -> Result<(), Refusal> {
    if received == current {
        return Ok(());
    }
    Err(Refusal::precondition_failed(format_args!(
        "inequivalent arg '{name}' for {thing}: received '{received}' but current is '{current}'"
    )))
}

/// Like [`same_flag`] for the arguments of these names.
pub(super) fn same_arguments(
    names: &[&str],
    thing: &str,
    received: &FieldTable,
    current: &FieldTable,
) -> Result<(), Refusal> {
    for name in names {
        let (new, old) = (argument(name, received), argument(name, current));
        let (new_text, old_text) = match (&new, &old) {
            (None, None) => continue,
            (Some(new), Some(old)) if plain(new) == plain(old) => continue,
            (Some(new), Some(old)) => (format!("'{}'", value_text(new)), format!("'{}'", value_text(old))),
            (new, old) => (worded(new.as_ref()), worded(old.as_ref())),
        };
        return Err(Refusal::precondition_failed(format_args!(
            "inequivalent arg '{name}' for {thing}: received {new_text} but current is {old_text}"
        )));
    }
    Ok(())
}

/// An argument as it was meant: who does not name a queue's type means a classic one.
fn argument(name: &str, table: &FieldTable) -> Option<FieldValue> {
    let default = || (name == "x-queue-type").then(|| FieldValue::from("classic"));
    table.get(name).cloned().or_else(default)
}

/// Integers are compared by value.
fn plain(value: &FieldValue) -> FieldValue {
    value.as_integer().map_or_else(|| value.clone(), FieldValue::I64)
}

fn worded(value: Option<&FieldValue>) -> String {
    let Some(value) = value else { return "none".into() };
    format!("the value '{}' of type '{}'", value_text(value), type_name(value))
}

/// A value as reply texts show it.
pub(super) fn value_text(value: &FieldValue) -> String {
    match value {
        FieldValue::LongStr(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        FieldValue::Bool(truth) => truth.to_string(),
        FieldValue::Void => "undefined".into(),
        FieldValue::F32(number) => format!("{number:?}"),
        FieldValue::F64(number) => format!("{number:?}"),
        other => other.as_integer().map_or_else(|| format!("{other:?}"), |number| number.to_string()),
    }
}
