//! Serde for names, times and field tables (feature `serde`), in the form that a configuration file has them.

use std::fmt::{self, Display};

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, Serialize, Serializer};

use super::{FieldTable, FieldValue, ShortStr, Timestamp};

/// Reads a text and parses it. `expecting` completes "expected …" where there is something else.
pub(crate) fn parse_text<'de, D: Deserializer<'de>, T, E: Display>(
    deserializer: D,
    expecting: &'static str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, D::Error> {
    struct Text<F> {
        expecting: &'static str,
        parse: F,
    }

    impl<T, E: Display, F: FnOnce(&str) -> Result<T, E>> Visitor<'_> for Text<F> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.expecting)
        }

        fn visit_str<Fault: serde::de::Error>(self, text: &str) -> Result<T, Fault> {
            (self.parse)(text).map_err(Fault::custom)
        }
    }

    deserializer.deserialize_str(Text { expecting, parse })
}

impl Serialize for ShortStr {
    /// A string. Fails where it is not UTF-8.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_str() {
            Some(text) => serializer.serialize_str(text),
            None => Err(S::Error::custom("a short string that is not UTF-8")),
        }
    }
}

impl<'de> Deserialize<'de> for ShortStr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_text(deserializer, "a string of at most 255 bytes", |text| Self::try_from(text))
    }
}

impl Serialize for Timestamp {
    /// The seconds, as a number.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Self)
    }
}

impl Serialize for FieldValue {
    /// As what comes nearest in serde's data model: a timestamp as its seconds, a decimal number as floating point, bytes
    /// that are not UTF-8 as bytes.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::I8(value) => serializer.serialize_i8(*value),
            Self::U8(value) => serializer.serialize_u8(*value),
            Self::I16(value) => serializer.serialize_i16(*value),
            Self::U16(value) => serializer.serialize_u16(*value),
            Self::I32(value) => serializer.serialize_i32(*value),
            Self::U32(value) => serializer.serialize_u32(*value),
            Self::I64(value) => serializer.serialize_i64(*value),
            Self::F32(value) => serializer.serialize_f32(*value),
            Self::F64(value) => serializer.serialize_f64(*value),
            Self::Decimal { scale, value } => {
                serializer.serialize_f64(f64::from(*value) / 10_f64.powi((*scale).into()))
            }
            Self::LongStr(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => serializer.serialize_str(text),
                Err(_) => serializer.serialize_bytes(bytes),
            },
            Self::Array(values) => serializer.collect_seq(values),
            Self::Timestamp(time) => time.serialize(serializer),
            Self::Table(table) => table.serialize(serializer),
            Self::Void => serializer.serialize_unit(),
            Self::ByteArray(bytes) => serializer.serialize_bytes(bytes),
        }
    }
}

impl<'de> Deserialize<'de> for FieldValue {
    /// Whatever a self-describing format has: integers become [`I64`](Self::I64), texts [`LongStr`](Self::LongStr).
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Value)
    }
}

struct Value;

impl<'de> Visitor<'de> for Value {
    type Value = FieldValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a truth value, a number, a string, bytes, a list, a table or nothing")
    }

    fn visit_bool<E>(self, value: bool) -> Result<FieldValue, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<FieldValue, E> {
        Ok(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<FieldValue, E> {
        value.try_into().map_err(E::custom)
    }

    fn visit_f64<E>(self, value: f64) -> Result<FieldValue, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<FieldValue, E> {
        Ok(text.into())
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<FieldValue, E> {
        Ok(FieldValue::ByteArray(Bytes::copy_from_slice(bytes)))
    }

    fn visit_unit<E>(self) -> Result<FieldValue, E> {
        Ok(FieldValue::Void)
    }

    fn visit_none<E>(self) -> Result<FieldValue, E> {
        Ok(FieldValue::Void)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<FieldValue, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<FieldValue, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = elements.next_element()? {
            values.push(value);
        }
        Ok(FieldValue::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, pairs: A) -> Result<FieldValue, A::Error> {
        Table.visit_map(pairs).map(FieldValue::Table)
    }
}

impl Serialize for FieldTable {
    /// A map. Fails where a name is not UTF-8.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for FieldTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Table)
    }
}

struct Table;

impl<'de> Visitor<'de> for Table {
    type Value = FieldTable;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of names and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<FieldTable, A::Error> {
        let mut table = FieldTable::new();
        while let Some((name, value)) = pairs.next_entry::<ShortStr, FieldValue>()? {
            table.insert(name, value).map_err(A::Error::custom)?;
        }
        Ok(table)
    }
}
