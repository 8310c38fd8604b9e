//! Properties: flags, order, padding.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{hex, properties, wire};
use crate::codec::content::are_whole;
use crate::codec::{DecodeError, Properties};
use crate::fuzzing;

/// The types from the highest flag to the lowest; the lowest two flags have no property.
const KINDS: [&str; 14] =
    ["ss", "ss", "tbl", "u8", "u8", "ss", "ss", "ss", "ss", "ts", "ss", "ss", "ss", "ss"];

/// Flags and what they announce.
fn any_properties() -> impl Strategy<Value = Vec<u8>> {
    let nothing = Just((0_u16, Vec::new())).boxed();
    KINDS
        .into_iter()
        .zip((2..16).rev())
        .fold(nothing, |before, (kind, bit)| {
            let present = wire::field(kind).prop_map(move |value| (1 << bit, value));
            let absent = Just((0, Vec::new()));
            (before, prop_oneof![present, absent])
                .prop_map(|((flags, values), (flag, value))| (flags | flag, [values, value].concat()))
                .boxed()
        })
        .prop_map(|(flags, values)| [flags.to_be_bytes().to_vec(), values].concat())
}

fn encoded(properties: &Properties) -> Vec<u8> {
    let mut out = Vec::new();
    properties.encode(&mut out);
    out
}

#[test]
fn each_flag_has_its_property() {
    let text = |text: &str| Some(text.try_into().unwrap());
    let all = hex("fffc 0161 0162 00000000 01 02 0163 0164 0165 0166 0000000000000003 0167 0168 0169 016a");
    let expected = Properties {
        content_type: text("a"),
        content_encoding: text("b"),
        headers: Some(crate::codec::FieldTable::new()),
        delivery_mode: Some(1),
        priority: Some(2),
        correlation_id: text("c"),
        reply_to: text("d"),
        expiration: text("e"),
        message_id: text("f"),
        timestamp: Some(crate::codec::Timestamp(3)),
        kind: text("g"),
        user_id: text("h"),
        app_id: text("i"),
        cluster_id: text("j"),
    };
    assert_eq!(properties(&all), Ok(expected.clone()));
    assert_eq!(encoded(&expected), all);
}

#[test]
fn absent_differs_from_empty() {
    let empty = properties(&hex("8000 00")).unwrap();
    assert_eq!(empty.content_type, Some("".try_into().unwrap()));
    assert_eq!(properties(&hex("0000")).unwrap().content_type, None);
    assert_eq!(encoded(&empty), hex("8000 00"));
}

#[test]
fn b17_further_words_of_flags_are_read_and_ignored() {
    let expected = Properties { priority: Some(7), ..Properties::default() };
    assert_eq!(properties(&hex("0801 0000 07")), Ok(expected.clone()));
    assert_eq!(properties(&hex("0801 ffff 0000 07")), Ok(expected.clone()));
    // the bit without a property says nothing
    assert_eq!(properties(&hex("0802 07")), Ok(expected));
    assert_eq!(properties(&hex("0801")), Err(DecodeError::Truncated));
    assert_eq!(properties(&[0xff; 64]), Err(DecodeError::Truncated));
}

#[test]
fn b18_octets_behind_the_properties_are_ignored() {
    let expected = Properties { delivery_mode: Some(2), ..Properties::default() };
    assert_eq!(properties(&hex("1000 02 000000")), Ok(expected));
}

proptest! {
    #[test]
    fn properties_are_read_and_written_as_the_table_says(bytes in any_properties()) {
        prop_assert_eq!(encoded(&properties(&bytes).unwrap()), bytes);
    }

    #[test]
    fn properties_cut_anywhere_are_refused(bytes in any_properties(), cut in any::<prop::sample::Index>()) {
        prop_assert_eq!(properties(&bytes[..cut.index(bytes.len())]), Err(DecodeError::Truncated));
    }

    #[test]
    fn damaged_properties_are_refused_or_read_the_same_again(
        mut bytes in any_properties(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for (at, octet) in damage {
            *at.get_mut(&mut bytes) = octet;
        }
        fuzzing::properties(&bytes);
    }
}

proptest! {
    /// The check that every delivery goes through sees what is cut short, and only that.
    #[test]
    fn what_is_cut_short_is_seen_without_reading_it(bytes in any_properties()) {
        prop_assert!(are_whole(&bytes));
        for length in 0..bytes.len() {
            let cut = &bytes[..length];
            let read = properties(cut).map(drop);
            // where only octets that mean nothing are missing, both take it
            prop_assert_eq!(are_whole(cut), read != Err(DecodeError::Truncated), "{} octets", length);
        }
    }
}

#[test]
fn a_value_of_an_unknown_type_is_not_cut_short() {
    // headers: one value of the type U
    let unknown = hex("2000 00000003 0161 55");
    assert_eq!(properties(&unknown), Err(DecodeError::UnknownTag(b'U')));
    assert!(are_whole(&unknown));
    // and continued flags
    assert!(are_whole(&hex("0001 0000")));
    assert!(!are_whole(&hex("0001 00")));
}
