//! One operation, as a line of text: `a1 declare q1 durable x-max-length=2` on channel 1 of connection a.
//!
//! A word with `=` is an argument; numbers, `true` and `false` become what they look like, `s:1` is a string,
//! `l:1` a number of eight octets, `d:1` one with a point, `v:` nothing. `-` stands for an empty name. Names such as `q1` and `x1` get
//! the run's prefix wherever they stand, so that runs do not meet.

use bytes::Bytes;
use lepus::{FieldTable, FieldValue, ShortStr};

use crate::client::short;

/// A line, cut into words.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// `a` or `b`.
    pub(crate) peer: char,
    pub(crate) channel: u16,
    pub(crate) verb: String,
    names: Vec<String>,
    arguments: Vec<(String, String)>,
    prefix: String,
}

impl Line {
    pub(crate) fn parse(text: &str, prefix: &str) -> Self {
        let mut words = text.split_whitespace();
        let mut place = words.next().unwrap().chars();
        let peer = place.next().unwrap();
        let channel = place.as_str().parse().unwrap_or_else(|_| panic!("no channel in: {text}"));
        let verb = words.next().unwrap_or_else(|| panic!("no verb in: {text}")).to_owned();
        let (arguments, names): (Vec<_>, Vec<_>) = words.partition(|word| word.contains('='));
        let arguments = arguments.into_iter().filter_map(|word| word.split_once('='));
        Self {
            peer,
            channel,
            verb,
            names: names.into_iter().map(str::to_owned).collect(),
            arguments: arguments.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            prefix: prefix.to_owned(),
        }
    }

    fn expand(&self, word: &str) -> String {
        match word.as_bytes() {
            b"-" => String::new(),
            [b'q' | b'x', b'0'..=b'9'] => format!("{}{word}", self.prefix),
            _ => word.to_owned(),
        }
    }

    /// The name at this place; empty if there is none.
    pub(crate) fn name(&self, index: usize) -> ShortStr {
        short(&self.names.get(index).map(|word| self.expand(word)).unwrap_or_default())
    }

    /// The number at this place.
    pub(crate) fn number(&self, index: usize) -> u64 {
        self.names.get(index).and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    /// The number behind a `#`.
    pub(crate) fn exact_tag(&self) -> Option<u64> {
        self.names.first()?.strip_prefix('#')?.parse().ok()
    }

    /// Whether the word is there.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.names.iter().any(|word| word == flag)
    }

    /// An argument that is no part of a table.
    pub(crate) fn option(&self, name: &str) -> Option<ShortStr> {
        let (_, value) = self.arguments.iter().find(|(other, _)| other == name)?;
        Some(short(&self.expand(value)))
    }

    /// The names in an argument, which commas part.
    pub(crate) fn list(&self, name: &str) -> Option<FieldValue> {
        let (_, value) = self.arguments.iter().find(|(other, _)| other == name)?;
        let names = value.split(',').map(|word| FieldValue::from(self.expand(word).as_str()));
        Some(FieldValue::Array(names.collect()))
    }

    /// The arguments whose names begin like this, without it.
    pub(crate) fn table(&self, start: &str) -> FieldTable {
        let mut table = FieldTable::new();
        for (name, value) in &self.arguments {
            if let Some(name) = name.strip_prefix(start) {
                table.insert(name, self.value(value)).unwrap();
            }
        }
        table
    }

    fn value(&self, text: &str) -> FieldValue {
        let string = |text: &str| FieldValue::LongStr(Bytes::from(self.expand(text)));
        match text.split_once(':') {
            Some(("s", text)) => string(text),
            Some(("l", text)) => FieldValue::I64(text.parse().unwrap()),
            Some(("d", text)) => FieldValue::F64(text.parse().unwrap()),
            Some(("v", _)) => FieldValue::Void,
            _ => match text {
                "true" => FieldValue::Bool(true),
                "false" => FieldValue::Bool(false),
                _ => text.parse().map_or_else(|_| string(text), FieldValue::I32),
            },
        }
    }
}
