//! Field tables: every type, and what a hostile peer may put there.

use std::thread;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{hex, pairs, properties, table, value, wire};
use crate::codec::decode::MAX_NESTING;
use crate::codec::encode::put_table;
use crate::codec::{DecodeError, FieldTable, FieldValue, ShortStr, Timestamp};
use crate::fuzzing;

fn encoded(table: &FieldTable) -> Vec<u8> {
    let mut out = Vec::new();
    put_table(&mut out, table);
    out
}

/// The type tag and octets of a value.
fn tagged(value: impl Into<FieldValue>) -> Vec<u8> {
    let mut table = FieldTable::new();
    table.insert("k", value).unwrap();
    // behind the table's length and the name
    encoded(&table)[6..].to_vec()
}

/// Tables, or arrays in a table, nested `depth` deep.
fn nested(depth: usize, tag: u8) -> Vec<u8> {
    let name: &[u8] = if tag == b'F' { b"\0" } else { b"" };
    let mut body = Vec::new();
    for _ in 1..depth {
        body = [name, &[tag], &wire::long_str(&body)].concat();
    }
    let name: &[u8] = if tag == b'F' { b"" } else { b"\0" };
    wire::long_str(&if body.is_empty() { body } else { [name, &body].concat() })
}

#[test]
fn every_type_has_its_tag() {
    let bytes = Bytes::from_static(b"\xff\0");
    let values = [
        ("74 01", FieldValue::Bool(true)),
        ("74 00", FieldValue::Bool(false)),
        ("62 80", FieldValue::I8(-128)),
        ("42 80", FieldValue::U8(128)),
        ("73 8000", FieldValue::I16(i16::MIN)),
        ("75 8000", FieldValue::U16(1 << 15)),
        ("49 80000000", FieldValue::I32(i32::MIN)),
        ("69 80000000", FieldValue::U32(1 << 31)),
        ("6c 8000000000000000", FieldValue::I64(i64::MIN)),
        ("66 3fc00000", FieldValue::F32(1.5)),
        ("64 3ff8000000000000", FieldValue::F64(1.5)),
        ("44 02 0000013a", FieldValue::Decimal { scale: 2, value: 314 }),
        ("44 ff ffffffff", FieldValue::Decimal { scale: 255, value: -1 }),
        ("53 00000002 ff00", FieldValue::LongStr(bytes.clone())),
        ("78 00000002 ff00", FieldValue::ByteArray(bytes)),
        ("41 00000003 56 74 01", FieldValue::Array(vec![FieldValue::Void, FieldValue::Bool(true)])),
        ("54 ffffffffffffffff", FieldValue::Timestamp(Timestamp(u64::MAX))),
        ("46 00000000", FieldValue::Table(FieldTable::new())),
        ("56", FieldValue::Void),
    ];
    for (bytes, expected) in values {
        let bytes = hex(bytes);
        assert_eq!(value(&bytes), Ok(expected.clone()));
        assert_eq!(tagged(expected), bytes);
    }
}

#[test]
fn b2_a_string_beyond_its_table_is_refused() {
    // a name, a string and a number that all would end within the frame, but not within the table
    for body in ["05 6b", "01 6b 53 00000004 616263", "01 6b 49 0000"] {
        let frame = [wire::long_str(&hex(body)), vec![0; 16]].concat();
        assert_eq!(table(&frame), Err(DecodeError::Truncated), "{body}");
    }
    assert_eq!(table(&hex("00000010 016b 56")), Err(DecodeError::Truncated), "the table itself");
}

#[test]
fn b3_a_claimed_length_in_a_table_is_refused_without_allocation() {
    for tag in *b"SxAF" {
        for length in [0x8000_0000_u32, 0xffff_fff0, u32::MAX] {
            let body = [b"\x01k", [tag].as_slice(), &length.to_be_bytes(), &[0; 13]].concat();
            assert_eq!(pairs(&body), Err(DecodeError::Truncated));
        }
    }
    assert_eq!(table(&[0xff; 20]), Err(DecodeError::Truncated));
}

/// On a stack that would not hold ten thousand levels; neither may what is accepted overflow it later.
#[test]
fn b4_deep_nesting_is_refused_and_the_deepest_accepted_is_safe() {
    let checks = || {
        for tag in *b"FA" {
            assert_eq!(table(&nested(10_000, tag)), Err(DecodeError::TooDeep));
            assert_eq!(table(&nested(MAX_NESTING + 1, tag)), Err(DecodeError::TooDeep));
            let deepest = nested(MAX_NESTING, tag);
            let accepted = table(&deepest).unwrap();
            assert_eq!(accepted.clone(), accepted);
            assert_eq!(format!("{accepted:?}").matches(['{', '[']).count(), MAX_NESTING);
            assert_eq!(encoded(&accepted), deepest);
        }
    };
    thread::Builder::new().stack_size(256 << 10).spawn(checks).unwrap().join().unwrap();
}

#[test]
fn b5_a_million_empty_entries_take_memory_in_proportion() {
    let million = 1_000_000;
    let table = pairs(&b"\0V".repeat(million)).unwrap();
    assert_eq!(table.len(), million);
    // a pair is the worst: two octets on the wire
    assert!(size_of::<(ShortStr, FieldValue)>() <= 80);
    let array = pairs(&[b"\0A".to_vec(), wire::long_str(&b"V".repeat(million))].concat()).unwrap();
    assert_eq!(array.get("").and_then(FieldValue::as_array).map(<[_]>::len), Some(million));
    assert!(size_of::<FieldValue>() <= 48);
}

#[test]
fn b6_an_unknown_tag_is_an_error_with_the_tag() {
    for tag in *b"Uq" {
        assert_eq!(value(&[tag, 0, 0]), Err(DecodeError::UnknownTag(tag)));
        let headers = [b"\x20\0".to_vec(), wire::long_str(&[1, b'k', tag, 0, 0])].concat();
        assert_eq!(properties(&headers), Err(DecodeError::UnknownTag(tag)));
    }
}

#[test]
fn b7_tag_s_is_a_number_and_the_next_name_stands_behind_it() {
    let table = pairs(&hex("01 61 73 0080 01 62 56")).unwrap();
    assert_eq!(table.get("a"), Some(&FieldValue::I16(128)));
    assert_eq!(table.get("b"), Some(&FieldValue::Void));
}

#[test]
fn b8_one_octet_signed_and_unsigned() {
    assert_eq!(value(b"b\xff"), Ok(FieldValue::I8(-1)));
    assert_eq!(value(b"B\xff"), Ok(FieldValue::U8(255)));
}

#[test]
fn b9_both_tags_of_eight_octets_are_signed() {
    for tag in *b"lL" {
        let bytes = [&[tag], [0xff; 8].as_slice()].concat();
        assert_eq!(value(&bytes), Ok(FieldValue::I64(-1)));
    }
}

#[test]
fn b10_unsigned_numbers_with_the_high_bit() {
    assert_eq!(value(b"u\xff\xff").unwrap().as_integer(), Some(65_535));
    assert_eq!(value(b"i\xff\xff\xff\xff").unwrap().as_integer(), Some(4_294_967_295));
}

#[test]
fn b11_any_truth_value_but_zero_is_true() {
    assert_eq!(value(b"t\x02"), Ok(FieldValue::Bool(true)));
}

#[test]
fn b14_a_string_that_is_not_utf8_is_bytes() {
    let value = value(b"S\0\0\0\x02\xff\xfe").unwrap();
    assert_eq!(value.as_str(), None);
    assert_eq!(value.as_bytes().map(AsRef::as_ref), Some(b"\xff\xfe".as_slice()));
}

#[test]
fn b15_odd_names_are_accepted() {
    let long = [b'n'; 255];
    let mut body = hex("01 61 62 01 01 61 62 02 00 62 03");
    body.extend(wire::short_str(&long));
    body.extend(b"b\x04");
    let table = pairs(&body).unwrap();
    assert_eq!(table.len(), 4);
    assert_eq!(table.get("a"), Some(&FieldValue::I8(2)), "the last of a name counts");
    assert_eq!(table.get(""), Some(&FieldValue::I8(3)));
    assert_eq!(table.get(long), Some(&FieldValue::I8(4)));
    assert_eq!(encoded(&table), wire::long_str(&body), "both pairs of a name are kept");
}

#[test]
fn f15_awkward_numbers_keep_to_the_tags_that_servers_read() {
    assert!(FieldValue::try_from(u64::MAX).is_err());
    assert!(FieldValue::try_from(i64::MAX as u64 + 1).is_err());
    assert_eq!(tagged(FieldValue::try_from(i64::MAX as u64).unwrap()), hex("6c 7fffffffffffffff"));
    // quiet and signalling NaN, with a payload: what matters is that no bit changes
    for bits in [0x7fc0_0001, 0x7f80_0001, 0xffff_ffff_u32] {
        let bytes = [b"f".as_slice(), &bits.to_be_bytes()].concat();
        assert_eq!(tagged(value(&bytes).unwrap()), bytes);
    }
    for bits in [0x7ff8_0000_0000_0001, 0x7ff0_0000_0000_0001, u64::MAX] {
        let bytes = [b"d".as_slice(), &bits.to_be_bytes()].concat();
        assert_eq!(tagged(value(&bytes).unwrap()), bytes);
    }
    assert_eq!(tagged(FieldValue::Decimal { scale: 255, value: i32::MIN }), hex("44 ff 80000000"));
    // read as eight signed octets, never written under the tag that old servers do not know
    assert_eq!(tagged(value(b"L\0\0\0\0\0\0\0\x01").unwrap()), hex("6c 0000000000000001"));
}

proptest! {
    #[test]
    fn tables_are_read_and_written_as_the_wire_has_them(bytes in wire::any_table()) {
        prop_assert_eq!(encoded(&table(&bytes).unwrap()), bytes);
    }

    #[test]
    fn tables_cut_anywhere_are_refused(bytes in wire::any_table(), cut in any::<prop::sample::Index>()) {
        prop_assert_eq!(table(&bytes[..cut.index(bytes.len())]), Err(DecodeError::Truncated));
    }

    #[test]
    fn damaged_tables_are_refused_or_read_the_same_again(
        mut bytes in wire::any_table(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for (at, octet) in damage {
            *at.get_mut(&mut bytes) = octet;
        }
        fuzzing::table(&bytes);
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read_the_same_again(bytes in vec(any::<u8>(), 0..64)) {
        fuzzing::table(&wire::long_str(&bytes));
        fuzzing::properties(&bytes);
        fuzzing::method(&bytes);
        fuzzing::frame(&bytes);
    }
}
