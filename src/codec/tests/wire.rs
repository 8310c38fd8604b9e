//! Strategies that write the wire format by hand, so that what is tested does not check itself.

use proptest::collection::vec;
use proptest::prelude::*;

/// A length octet and bytes.
pub(super) fn short_str(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// Four length octets and bytes.
pub(super) fn long_str(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// The octets of a field, by the name of its type in the protocol's tables.
pub(super) fn field(kind: &str) -> BoxedStrategy<Vec<u8>> {
    match kind {
        "u8" => octets(1),
        "u16" => octets(2),
        "u32" => octets(4),
        "u64" | "ts" => octets(8),
        "ss" => any_short_str(),
        "ls" => any_long_str(),
        "tbl" => any_table(),
        other => panic!("no such type: {other}"),
    }
}

/// A reserved field as a client sends it.
pub(super) fn reserved(kind: &str) -> Vec<u8> {
    match kind {
        "u16" => vec![0; 2],
        "ss" => vec![0],
        "ls" => vec![0; 4],
        other => panic!("no reserved field has type {other}"),
    }
}

fn octets(count: usize) -> BoxedStrategy<Vec<u8>> {
    vec(any::<u8>(), count).boxed()
}

fn any_short_str() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..20), vec(any::<u8>(), 250..=255)]
        .prop_map(|bytes| short_str(&bytes))
        .boxed()
}

fn any_long_str() -> BoxedStrategy<Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..20), vec(any::<u8>(), 250..300)]
        .prop_map(|bytes| long_str(&bytes))
        .boxed()
}

/// A table with values of every type, nested up to eight deep.
pub(super) fn any_table() -> BoxedStrategy<Vec<u8>> {
    table_of(tagged_value())
}

fn table_of(value: impl Strategy<Value = Vec<u8>> + 'static) -> BoxedStrategy<Vec<u8>> {
    let pair = (any_short_str(), value).prop_map(|(name, value)| [name, value].concat());
    vec(pair, 0..5).prop_map(|pairs| long_str(&pairs.concat())).boxed()
}

/// A type tag and its value. A truth value is written as 0 or 1, and `L` not at all: these are read, but
/// written in another form.
fn tagged_value() -> BoxedStrategy<Vec<u8>> {
    let tagged = |tag: u8, value: BoxedStrategy<Vec<u8>>| {
        value.prop_map(move |value| [vec![tag], value].concat()).boxed()
    };
    let fixed = [(b'b', 1), (b'B', 1), (b's', 2), (b'u', 2), (b'I', 4), (b'i', 4), (b'l', 8), (b'f', 4)]
        .into_iter()
        .chain([(b'd', 8), (b'D', 5), (b'T', 8), (b'V', 0)])
        .map(|(tag, length)| tagged(tag, octets(length)));
    let leaf = fixed.chain([
        any::<bool>().prop_map(|value| vec![b't', value.into()]).boxed(),
        tagged(b'S', any_long_str()),
        tagged(b'x', any_long_str()),
    ]);
    proptest::strategy::Union::new(leaf)
        .prop_recursive(8, 48, 5, move |inner| {
            let array = vec(inner.clone(), 0..5).prop_map(|values| long_str(&values.concat())).boxed();
            prop_oneof![tagged(b'A', array), tagged(b'F', table_of(inner))]
        })
        .boxed()
}
