//! What the arguments of a queue mean.

use std::time::Duration;

use crate::codec::{FieldTable, FieldValue, ShortStr};

use super::queue_policy;
use super::refusal::{self, Refusal};

/// What happens to a message that a full queue has no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Overflow {
    #[default]
    DropHead,
    RejectPublish,
    /// Refused and dead-lettered.
    RejectPublishDlx,
}

/// The queue's type. A quorum queue is one replica here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum QueueKind {
    #[default]
    Classic,
    Quorum,
}

impl QueueKind {
    /// The type as reply texts name it.
    pub(super) fn module(self) -> &'static str {
        match self {
            Self::Classic => "rabbit_classic_queue",
            Self::Quorum => "rabbit_quorum_queue",
        }
    }
}

/// How often a quorum queue delivers a message before it gives it up: the default of `RabbitMQ` 4.
const DELIVERY_LIMIT: u32 = 20;

/// A queue's arguments, understood.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub kind: QueueKind,
    pub message_ttl: Option<Duration>,
    pub expires: Option<Duration>,
    pub max_length: Option<u64>,
    pub max_length_bytes: Option<u64>,
    pub overflow: Overflow,
    pub dead_letter_exchange: Option<ShortStr>,
    pub dead_letter_routing_key: Option<ShortStr>,
    pub max_priority: Option<u8>,
    pub single_active: bool,
    pub delivery_limit: Option<u32>,
}

/// Which kinds of queue a declaration asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flags {
    pub durable: bool,
    pub exclusive: bool,
    pub auto_delete: bool,
}

impl Settings {
    /// Reads the arguments of `queue.declare`. Those that are unknown are kept and mean nothing.
    pub(super) fn parse(
        vhost: &str,
        name: &ShortStr,
        flags: Flags,
        arguments: &FieldTable,
    ) -> Result<Self, Refusal> {
        let kind = queue_policy::check(vhost, name, arguments)?;
        if kind == QueueKind::Quorum {
            let wrong = [
                (flags.auto_delete, "auto-delete"),
                (flags.exclusive, "exclusive-owner"),
                (!flags.durable, "non-durable"),
            ];
            if let Some((_, property)) = wrong.iter().find(|(wrong, _)| *wrong) {
                return Err(Refusal::precondition_failed(format_args!(
                    "invalid property '{property}' for {}",
                    refusal::queue(vhost, name)
                )));
            }
        }
        let number = |name| arguments.get(name).and_then(FieldValue::as_integer).map(i64::unsigned_abs);
        let text = |name| ShortStr::try_from(arguments.get(name)?.as_bytes()?.clone()).ok();
        let overflow = match text("x-overflow").as_ref().map(ShortStr::as_bytes) {
            Some(b"reject-publish") => Overflow::RejectPublish,
            // a quorum queue does not know it, and drops
            Some(b"reject-publish-dlx") if kind == QueueKind::Classic => Overflow::RejectPublishDlx,
            _ => Overflow::DropHead,
        };
        let delivery_limit = arguments.get("x-delivery-limit").and_then(FieldValue::as_integer);
        let delivery_limit = match (kind, delivery_limit) {
            (QueueKind::Classic, _) => None,
            (QueueKind::Quorum, None) => Some(DELIVERY_LIMIT),
            // a negative number is no limit
            (QueueKind::Quorum, Some(limit)) => u32::try_from(limit).ok(),
        };
        let max_priority = number("x-max-priority").and_then(|most| u8::try_from(most).ok());
        Ok(Self {
            kind,
            message_ttl: number("x-message-ttl").map(Duration::from_millis),
            expires: number("x-expires").map(Duration::from_millis),
            max_length: number("x-max-length"),
            max_length_bytes: number("x-max-length-bytes"),
            overflow,
            dead_letter_exchange: text("x-dead-letter-exchange"),
            dead_letter_routing_key: text("x-dead-letter-routing-key"),
            max_priority: max_priority.filter(|_| kind == QueueKind::Classic),
            single_active: arguments.get("x-single-active-consumer").and_then(FieldValue::as_bool)
                == Some(true),
            delivery_limit,
        })
    }
}

/// A value's type, as reply texts name it.
pub(super) fn type_name(value: &FieldValue) -> &'static str {
    match value {
        FieldValue::Bool(_) => "bool",
        FieldValue::I8(_) => "byte",
        FieldValue::U8(_) => "unsignedbyte",
        FieldValue::I16(_) => "short",
        FieldValue::U16(_) => "unsignedshort",
        FieldValue::I32(_) => "signedint",
        FieldValue::U32(_) => "unsignedint",
        FieldValue::I64(_) => "long",
        FieldValue::F32(_) => "float",
        FieldValue::F64(_) => "double",
        FieldValue::Decimal { .. } => "decimal",
        FieldValue::LongStr(_) => "longstr",
        FieldValue::Array(_) => "array",
        FieldValue::Timestamp(_) => "timestamp",
        FieldValue::Table(_) => "table",
        FieldValue::Void => "void",
        FieldValue::ByteArray(_) => "binary",
    }
}
