//! Which keys a Rust value or range stands for.
#![allow(clippy::needless_pass_by_value, reason = "queries take ranges by value")]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netabase_store::key::KeySpan;
use netabase_store::{KeyField, KeyRange, NetabaseKey, exact, prefix, starts_with};
use proptest::prelude::*;

/// The bytes that follow a key in an index.
const PRIMARY_KEYS: [&[u8]; 3] = [b"", b"\0", b"\xff\xff"];

/// Asserts that `keys` are in the range exactly where `expected` says so.
fn check<K: KeyField>(range: impl KeyRange<K>, keys: &[K], expected: impl Fn(&K) -> bool) {
    let span = range.span();
    let mut entries = BTreeSet::new();
    for key in keys {
        for primary in PRIMARY_KEYS {
            let entry = [&key.to_key_bytes()[..], primary].concat();
            assert_eq!(span.contains(&entry), expected(key), "{key:?} in {span:?}");
            entries.insert(entry);
        }
    }
    let in_span = entries.iter().filter(|entry| span.contains(entry)).count();
    assert_eq!(entries.range(span.clone().bounds()).count(), in_span, "{span:?}");
    assert!(in_span == 0 || !span.is_empty(), "{span:?}");
}

/// Asserts that a range of keys has the keys that Rust says it has.
fn check_range<K, R>(range: R, keys: &[K])
where
    K: KeyField + PartialOrd,
    R: KeyRange<K> + RangeBounds<K> + Clone,
{
    check(range.clone(), keys, |key| range.contains(key));
}

/// Asserts it of every range between two keys, whatever their order.
fn check_ranges<K: KeyField + PartialOrd>(low: &K, high: &K, keys: &[K]) {
    let (from, to) = (|| low.clone(), || high.clone());
    let keys = &[keys, &[from(), to()]].concat();
    check_range(from()..to(), keys);
    check_range(from()..=to(), keys);
    check_range(from().., keys);
    check_range(..to(), keys);
    check_range(..=to(), keys);
    check(.., keys, |_| true);
    check(low, keys, |key| key == low);
    check(exact(from()), keys, |key| key == low);
}

/// A key type of the user's own, whose encoding may be empty of anything but its variant.
#[derive(NetabaseKey, Clone, Debug, PartialEq, PartialOrd)]
enum Shape {
    Point,
    Circle(u8),
    Named { name: String },
}

/// Strings that begin each other, and have bytes that are escaped.
fn text() -> impl Strategy<Value = String> + Clone {
    "[\u{0}-\u{2}ab\u{10ffff}]{0,3}"
}

fn bytes() -> impl Strategy<Value = Vec<u8>> + Clone {
    prop::collection::vec(prop::sample::select(vec![0_u8, 1, 2, 254, 255]), 0..4)
}

fn shape() -> impl Strategy<Value = Shape> + Clone {
    prop_oneof![
        Just(Shape::Point),
        (253..=255_u8).prop_map(Shape::Circle),
        text().prop_map(|name| Shape::Named { name }),
    ]
}

fn time() -> impl Strategy<Value = SystemTime> + Clone {
    (-2_000_i64..2_000).prop_map(|millis| {
        let offset = Duration::from_millis(millis.unsigned_abs());
        if millis < 0 { UNIX_EPOCH - offset } else { UNIX_EPOCH + offset }
    })
}

/// Two ends of a range, and some keys.
fn keys_of<K: Debug>(key: impl Strategy<Value = K> + Clone) -> impl Strategy<Value = (K, K, Vec<K>)> {
    (key.clone(), key.clone(), prop::collection::vec(key, 0..8))
}

macro_rules! ranges_of {
    ($($name:ident: $key:expr),* $(,)?) => {
        proptest! {$(
            #[test]
            fn $name((low, high, keys) in keys_of($key)) {
                check_ranges(&low, &high, &keys);
            }
        )*}
    };
}
ranges_of! {
    ranges_of_bytes: any::<u8>(),
    ranges_of_small_numbers: 0..4_u16,
    ranges_of_large_numbers: any::<u128>(),
    ranges_of_the_largest_numbers: u64::MAX - 2..=u64::MAX,
    ranges_of_signed_numbers: -2..2_i64,
    ranges_of_any_signed_numbers: any::<i32>(),
    ranges_of_floats: any::<f64>(),
    ranges_of_bools: any::<bool>(),
    ranges_of_chars: any::<char>(),
    ranges_of_strings: text(),
    ranges_of_any_strings: any::<String>(),
    ranges_of_byte_strings: bytes(),
    ranges_of_lists: prop::collection::vec(0..3_u16, 0..4),
    ranges_of_lists_of_strings: prop::collection::vec(text(), 0..3),
    ranges_of_options: prop::option::of(text()),
    ranges_of_arrays: any::<[u8; 2]>(),
    ranges_of_times: time(),
    ranges_of_derived_keys: shape(),
    ranges_of_tuples: (text(), 0..3_u8),
    ranges_of_nested_tuples: ((text(), prop::option::of(0..2_u8)), bytes(), any::<bool>()),
}

type Triple = (String, u8, String);

fn triple() -> impl Strategy<Value = Triple> + Clone {
    (text(), prop::sample::select(vec![0_u8, 1, 254, 255]), text())
}

proptest! {
    #[test]
    fn strings_are_asked_for_by_slices((low, high, keys) in keys_of(text())) {
        let (from, to) = (low.as_str(), high.as_str());
        check::<String>(from..to, &keys, |key| (from..to).contains(&key.as_str()));
        check::<String>(from..=to, &keys, |key| (from..=to).contains(&key.as_str()));
        check::<String>(from.., &keys, |key| (from..).contains(&key.as_str()));
        check::<String>(..to, &keys, |key| (..to).contains(&key.as_str()));
        check::<String>(..=to, &keys, |key| (..=to).contains(&key.as_str()));
        check::<String>(from, &keys, |key| key == from);
    }

    #[test]
    fn a_prefix_has_the_strings_that_start_with_it((start, _, keys) in keys_of(text())) {
        check::<String>(prefix(&start), &keys, |key| key.starts_with(&start));
    }

    #[test]
    fn a_prefix_has_the_byte_strings_that_start_with_it((start, _, keys) in keys_of(bytes())) {
        check::<Vec<u8>>(prefix(&start), &keys, |key| key.starts_with(&start));
    }

    #[test]
    fn the_last_part_of_a_tuple_may_be_a_range((low, high, keys) in keys_of(triple())) {
        let ((room, number, from), to) = (&low, &high.2);
        let keys = &[&keys[..], &[low.clone(), (room.clone(), *number, to.clone())]].concat();
        let same = |key: &Triple| key.0 == *room && key.1 == *number;
        let (start, end) = (from.as_str(), to.as_str());
        check((room, *number, start..end), keys, |key| same(key) && (start..end).contains(&key.2.as_str()));
        check((room.as_str(), *number, from.clone()..=to.clone()), keys, |key| {
            same(key) && (from..=to).contains(&&key.2)
        });
        check((room, *number, start..), keys, |key| same(key) && key.2 >= *from);
        check((room, *number, ..end), keys, |key| same(key) && key.2 < *to);
        check((room, *number, ..), keys, same);
        check((room, *number, prefix(from)), keys, |key| same(key) && key.2.starts_with(from));
        check((room, *number, from), keys, |key| *key == low);
        check(low.clone(), keys, |key| *key == low);
    }

    #[test]
    fn a_tuple_may_start_with_parts_and_a_range((low, high, keys) in keys_of(triple())) {
        let ((room, from, _), to) = (&low, high.1);
        let from = *from;
        let keys = &[&keys[..], &[low.clone(), high.clone()]].concat();
        check::<Triple>(starts_with((room,)), keys, |key| key.0 == *room);
        check::<Triple>(starts_with((prefix(room),)), keys, |key| key.0.starts_with(room));
        check::<Triple>(starts_with((room.as_str()..,)), keys, |key| key.0 >= *room);
        check::<Triple>(starts_with((room, from)), keys, |key| key.0 == *room && key.1 == from);
        check::<Triple>(starts_with((room, from..to)), keys, |key| {
            key.0 == *room && (from..to).contains(&key.1)
        });
        check::<Triple>(starts_with((room, from..=to)), keys, |key| {
            key.0 == *room && (from..=to).contains(&key.1)
        });
    }
}

#[test]
fn a_range_that_ends_before_it_starts_is_empty() {
    let (five, nine) = (5_u64, 9_u64);
    for span in [(nine..five).span(), (nine..=five).span(), (nine..nine).span()] {
        assert!(span.is_empty(), "{span:?}");
        assert_eq!(BTreeSet::from([nine.to_key_bytes()]).range(span.bounds()).count(), 0);
    }
    let of_last: KeySpan = KeyRange::<(u8, u64)>::span(&(1_u8, nine..five));
    assert!(of_last.is_empty());
}

#[test]
fn numbers_need_no_type() {
    fn span(keys: impl KeyRange<(String, i16)>) -> KeySpan {
        keys.span()
    }
    assert_eq!(span(("a", 5)), span(("a", 5..=5)));
    assert_eq!(span(("a", ..)), span(starts_with(("a",))));
}

#[test]
fn a_span_without_an_end_has_everything_after_its_start() {
    assert!(KeySpan::all().contains(b"") && KeySpan::all().contains(b"\xff\xff"));
    assert_eq!(KeySpan::prefix(vec![0xff, 0xff]).end, None);
    assert_eq!(KeySpan::prefix(vec![1, 0xff]).end, Some(vec![2]));
    assert_eq!(KeySpan::default(), KeySpan::all());
}
