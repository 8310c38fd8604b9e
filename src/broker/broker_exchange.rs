//! Exchanges and their bindings.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use crate::codec::table::put_table_body;
use crate::codec::{FieldTable, FieldValue, ShortStr};

use super::topic;

/// How an exchange chooses among its bindings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Direct,
    Fanout,
    Topic,
    Headers,
}

impl Kind {
    pub(super) fn parse(name: &ShortStr) -> Option<Self> {
        Some(match name.as_bytes() {
            b"direct" => Self::Direct,
            b"fanout" => Self::Fanout,
            b"topic" => Self::Topic,
            b"headers" => Self::Headers,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

/// What a binding leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Destination {
    Queue(ShortStr),
    Exchange(ShortStr),
}

/// What tells a binding from others of the same exchange.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BindingKey {
    pub routing_key: ShortStr,
    pub destination: Destination,
    /// Encoded and sorted by name: the order in which arguments were given does not matter.
    arguments: Vec<u8>,
}

impl BindingKey {
    pub(super) fn new(routing_key: ShortStr, destination: Destination, arguments: &FieldTable) -> Self {
        let mut pairs: Vec<_> = arguments.iter().collect();
        pairs.sort_by(|a, b| a.0.cmp(b.0));
        let mut encoded = Vec::new();
        for (name, value) in pairs {
            let mut one = FieldTable::new();
            // a name that was read fits
            if one.insert(name.clone(), value.clone()).is_ok() {
                put_table_body(&mut encoded, &one);
            }
        }
        Self { routing_key, destination, arguments: encoded }
    }
}

/// An exchange.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub kind: Kind,
    pub durable: bool,
    pub auto_delete: bool,
    pub internal: bool,
    pub arguments: FieldTable,
    /// The arguments stand in the value.
    pub bindings: BTreeMap<BindingKey, FieldTable>,
}

impl Exchange {
    /// One that was there before any client.
    pub(super) fn predeclared(kind: Kind, internal: bool) -> Self {
        Self {
            kind,
            durable: true,
            auto_delete: false,
            internal,
            arguments: FieldTable::new(),
            bindings: BTreeMap::new(),
        }
    }

    /// Where unroutable messages go.
    pub(super) fn alternate(&self) -> Option<ShortStr> {
        let name = self.arguments.get("alternate-exchange")?.as_bytes()?;
        ShortStr::try_from(name.clone()).ok()
    }

    /// The bindings that match a message.
    pub(super) fn matching<'a>(
        &'a self,
        key: &'a ShortStr,
        headers: Option<&'a FieldTable>,
    ) -> Vec<&'a Destination> {
        let all = || self.bindings.iter();
        match self.kind {
            Kind::Direct => self.bound_with(key).collect(),
            Kind::Fanout => all().map(|(binding, _)| &binding.destination).collect(),
            Kind::Topic => all()
                .filter(|(binding, _)| topic::matches(binding.routing_key.as_bytes(), key.as_bytes()))
                .map(|(binding, _)| &binding.destination)
                .collect(),
            Kind::Headers => {
                // a table is looked through name by name, and both may be large
                let headers: HashMap<_, _> = headers.into_iter().flat_map(FieldTable::iter).collect();
                all()
                    .filter(|(_, arguments)| headers_match(arguments, &headers))
                    .map(|(binding, _)| &binding.destination)
                    .collect()
            }
        }
    }

    fn bound_with<'a>(&'a self, key: &'a ShortStr) -> impl Iterator<Item = &'a Destination> {
        let least = BindingKey {
            routing_key: key.clone(),
            destination: Destination::Queue(ShortStr::empty()),
            arguments: Vec::new(),
        };
        let from = self.bindings.range((Bound::Included(least), Bound::Unbounded));
        from.take_while(move |(binding, _)| binding.routing_key == *key)
            .map(|(binding, _)| &binding.destination)
    }
}

/// Whether a headers exchange routes by a binding with these arguments. `x-match` says whether all or any
/// of them must be there; names that begin with `x-` only count for `all-with-x` and `any-with-x`.
fn headers_match(arguments: &FieldTable, headers: &HashMap<&ShortStr, &FieldValue>) -> bool {
    let rule = arguments.get("x-match").and_then(FieldValue::as_str).unwrap_or("all");
    let (any, with_x) = match rule {
        "any" => (true, false),
        "any-with-x" => (true, true),
        "all-with-x" => (false, true),
        _ => (false, false),
    };
    let mut wanted = arguments
        .iter()
        .filter(|(name, _)| name.as_bytes() != b"x-match" && (with_x || !name.as_bytes().starts_with(b"x-")));
    let holds = |(name, value): (&ShortStr, &FieldValue)| {
        // without a value, the name's presence is enough
        headers.get(name).is_some_and(|found| *value == FieldValue::Void || same(found, value))
    };
    if any { wanted.any(holds) } else { wanted.all(holds) }
}

/// Numbers are equal whatever their width.
fn same(one: &FieldValue, other: &FieldValue) -> bool {
    match (one.as_integer(), other.as_integer()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}
