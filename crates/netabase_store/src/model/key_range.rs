//! Ranges of keys: Rust values and ranges as spans of key bytes.
//!
//! Key bytes keep the order of values and no encoding is the prefix of another one. So the keys in
//! any Rust range, and the keys with a prefix, are all the bytes from one string up to another.

use std::ops::{Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::model::key::{KeyField, encode_open_bytes, encode_text};
use crate::version::envelope::Author;

/// A half-open span of encoded keys, together with everything that may follow them.
///
/// ```
/// use netabase_store::{KeyField, KeyRange};
///
/// let span = KeyRange::<u64>::span(&(5..7));
/// assert!(span.contains(&6_u64.to_key_bytes()));
/// assert!(!span.contains(&7_u64.to_key_bytes()));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySpan {
    /// The first bytes that belong to the span.
    pub start: Vec<u8>,
    /// The first bytes after the span; `None` if it has no end.
    pub end: Option<Vec<u8>>,
}

impl KeySpan {
    /// Returns the span of everything.
    pub const fn all() -> Self {
        Self { start: Vec::new(), end: None }
    }

    /// Returns the span of everything that starts with `prefix`.
    pub fn prefix(prefix: Vec<u8>) -> Self {
        Self { end: after_prefix(&prefix), start: prefix }
    }

    /// Returns whether `key` is in the span.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start.as_slice() <= key && self.end.as_deref().is_none_or(|end| key < end)
    }

    /// Returns whether nothing is in the span, as after a range whose start comes after its end.
    pub fn is_empty(&self) -> bool {
        self.end.as_deref().is_some_and(|end| end <= self.start.as_slice())
    }

    /// Returns the span as bounds that are in order, which an ordered map can be asked for.
    pub fn bounds(self) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let end = match self.end {
            Some(end) => Bound::Excluded(end.max(self.start.clone())),
            None => Bound::Unbounded,
        };
        (Bound::Included(self.start), end)
    }

    /// Returns the span of keys that are `leading` followed by a key in this span.
    fn after(self, leading: &[u8]) -> Self {
        let join = |bytes: Vec<u8>| [leading, &bytes].concat();
        Self {
            start: join(self.start),
            end: self.end.map_or_else(|| after_prefix(leading), |end| Some(join(end))),
        }
    }
}

/// Returns the first bytes after everything that starts with `prefix`, if there are any.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// Some keys of the type `K`: one, a range, or those with a prefix.
///
/// | keys | written |
/// | --- | --- |
/// | one | `7`, `"general"` for a `String`, a generated key, a reference to a key |
/// | a range | `5..9`, `5..=9`, `5..`, `..9`, `..=9`, `"a".."c"` |
/// | every one | `..` |
/// | strings and byte strings that start with something | [`prefix("gen")`](prefix) |
/// | of a compound key: leading parts, and some of the last | `("general", 5..9)` |
/// | of a compound key: only leading parts | [`starts_with(("general",))`](starts_with) |
/// | one of a type that implements [`KeyField`] by hand | [`exact(value)`](exact) |
///
/// A range whose start comes after its end has no keys.
///
/// ```
/// use netabase_store::{KeyField, KeyRange, prefix, starts_with};
///
/// fn contains(keys: impl KeyRange<(String, u64)>, room: &str, sent: u64) -> bool {
///     keys.span().contains(&(room.to_owned(), sent).to_key_bytes())
/// }
///
/// assert!(contains(("general", 5..=9), "general", 9));
/// assert!(contains(starts_with(("general",)), "general", 700));
/// assert!(contains(starts_with((prefix("gen"),)), "gentle", 1));
/// assert!(!contains(("general", 5..), "generals", 5));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say which keys of the type `{K}` are meant",
    label = "not a `{K}`, nor a range of them",
    note = "write a value, a range such as `a..b` or `a..=b`, `..` for every key, or `prefix(\"..\")` for strings",
    note = "of a compound key, write a tuple of its parts, the last of which may be a range, or `starts_with((part,))`",
    note = "write `exact(value)` for a type that implements `KeyField` by hand"
)]
pub trait KeyRange<K> {
    /// Returns where the encodings of the keys are.
    fn span(&self) -> KeySpan;
}

/// One key of the type `K`, or one part of a compound key.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not one key of the type `{K}`",
    label = "not a `{K}`",
    note = "of a compound key, only the last part may be a range"
)]
pub trait ExactKey<K> {
    /// Appends the ordered encoding of the key to `out`.
    fn encode_exact(&self, out: &mut Vec<u8>);
}

/// Returns the span of one key.
pub fn exact_span<K>(key: &impl ExactKey<K>) -> KeySpan {
    let mut bytes = Vec::with_capacity(16);
    key.encode_exact(&mut bytes);
    KeySpan::prefix(bytes)
}

/// Returns the span between two keys.
fn between<K>(start: Bound<&impl ExactKey<K>>, end: Bound<&impl ExactKey<K>>) -> KeySpan {
    let start = match start {
        Bound::Unbounded => Some(Vec::new()),
        Bound::Included(key) => Some(exact_span(key).start),
        Bound::Excluded(key) => exact_span(key).end,
    };
    let end = match end {
        Bound::Unbounded => None,
        Bound::Included(key) => exact_span(key).end,
        Bound::Excluded(key) => Some(exact_span(key).start),
    };
    match start {
        Some(start) => KeySpan { start, end },
        // Nothing comes after the last key.
        None => KeySpan { start: Vec::new(), end: Some(Vec::new()) },
    }
}

/// A value of a type is one key of it.
macro_rules! exact_keys {
    ($([$($parameters:tt)*] $key:ty),* $(,)?) => {$(
        impl<$($parameters)*> ExactKey<$key> for $key {
            fn encode_exact(&self, out: &mut Vec<u8>) {
                self.encode_key(out);
            }
        }

        impl<$($parameters)*> KeyRange<$key> for $key {
            fn span(&self) -> KeySpan {
                exact_span(self)
            }
        }
    )*};
}
exact_keys!([] u8, [] u16, [] u32, [] u64, [] u128, [] i8, [] i16, [] i32, [] i64, [] i128);
exact_keys!([] f32, [] f64, [] bool, [] char, [] String, [] SystemTime, [] Duration, [] Author);
exact_keys!([T: KeyField] Vec<T>, [T: KeyField] Option<T>, [const N: usize] [u8; N]);

impl<K: KeyField> ExactKey<K> for &K {
    fn encode_exact(&self, out: &mut Vec<u8>) {
        self.encode_key(out);
    }
}

impl<K: KeyField> KeyRange<K> for &K {
    fn span(&self) -> KeySpan {
        exact_span(self)
    }
}

impl ExactKey<String> for &str {
    fn encode_exact(&self, out: &mut Vec<u8>) {
        encode_text(self, out);
    }
}

impl KeyRange<String> for &str {
    fn span(&self) -> KeySpan {
        exact_span(self)
    }
}

/// One key; see [`exact`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exact<K>(K);

/// Returns the one key `key`, of any type that can be a key.
pub fn exact<K: KeyField>(key: K) -> Exact<K> {
    Exact(key)
}

impl<K: KeyField> ExactKey<K> for Exact<K> {
    fn encode_exact(&self, out: &mut Vec<u8>) {
        self.0.encode_key(out);
    }
}

impl<K: KeyField> KeyRange<K> for Exact<K> {
    fn span(&self) -> KeySpan {
        exact_span(self)
    }
}

macro_rules! ranges {
    ($($range:ident),*) => {$(
        impl<K: KeyField> KeyRange<K> for $range<K> {
            fn span(&self) -> KeySpan {
                let (start, end): (Bound<&K>, Bound<&K>) = (self.start_bound(), self.end_bound());
                between(start.as_ref(), end.as_ref())
            }
        }

        impl KeyRange<String> for $range<&str> {
            fn span(&self) -> KeySpan {
                between::<String>(self.start_bound(), self.end_bound())
            }
        }
    )*};
}
ranges!(Range, RangeFrom, RangeInclusive, RangeTo, RangeToInclusive);

impl<K> KeyRange<K> for RangeFull {
    fn span(&self) -> KeySpan {
        KeySpan::all()
    }
}

/// The strings or byte strings with a prefix; see [`prefix`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(Vec<u8>);

/// Returns the strings or byte strings that start with `start`.
///
/// ```
/// use netabase_store::{KeyField, KeyRange, prefix};
///
/// let span = KeyRange::<String>::span(&prefix("gen"));
/// assert!(span.contains(&"general".to_owned().to_key_bytes()));
/// assert!(!span.contains(&"go".to_owned().to_key_bytes()));
/// ```
pub fn prefix(start: impl AsRef<[u8]>) -> Prefix {
    Prefix(start.as_ref().to_vec())
}

impl Prefix {
    fn bytes_span(&self) -> KeySpan {
        let mut bytes = Vec::with_capacity(self.0.len());
        encode_open_bytes(&self.0, &mut bytes);
        KeySpan::prefix(bytes)
    }
}

impl KeyRange<String> for Prefix {
    fn span(&self) -> KeySpan {
        self.bytes_span()
    }
}

impl KeyRange<Vec<u8>> for Prefix {
    fn span(&self) -> KeySpan {
        self.bytes_span()
    }
}

/// The compound keys that start with some parts; see [`starts_with`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartsWith<P>(P);

/// Returns the compound keys whose first parts are those of the tuple `parts`; the last of them may
/// be a range.
pub fn starts_with<P>(parts: P) -> StartsWith<P> {
    StartsWith(parts)
}

/// For each part: the type of the key's part, the type of the given value, and its place.
macro_rules! tuple_ranges {
    ([$($key:ident $given:ident $index:tt),*] $last:ident $range:ident $position:tt; $($rest:ident)*) => {
        impl<$($key, $given,)* $last, $range> KeyRange<($($key,)* $last,)> for ($($given,)* $range,)
        where
            $($given: ExactKey<$key>,)*
            $range: KeyRange<$last>,
        {
            fn span(&self) -> KeySpan {
                #[allow(unused_mut, reason = "the first part is also the last one")]
                let mut leading = Vec::new();
                $(self.$index.encode_exact(&mut leading);)*
                self.$position.span().after(&leading)
            }
        }

        impl<$($key, $given,)* $last, $range> ExactKey<($($key,)* $last,)> for ($($given,)* $range,)
        where
            $($given: ExactKey<$key>,)*
            $range: ExactKey<$last>,
        {
            fn encode_exact(&self, out: &mut Vec<u8>) {
                $(self.$index.encode_exact(out);)*
                self.$position.encode_exact(out);
            }
        }

        starting_tuples!([$($key $given),*] $last $range; $($rest)*);
    };
}

macro_rules! starting_tuples {
    ([$($key:ident $given:ident),*] $last:ident $range:ident; $next:ident $($rest:ident)*) => {
        impl<$($key, $given,)* $last, $range, $next, $($rest),*>
            KeyRange<($($key,)* $last, $next, $($rest),*)> for StartsWith<($($given,)* $range,)>
        where
            ($($given,)* $range,): KeyRange<($($key,)* $last,)>,
        {
            fn span(&self) -> KeySpan {
                KeyRange::<($($key,)* $last,)>::span(&self.0)
            }
        }

        starting_tuples!([$($key $given),*] $last $range; $($rest)*);
    };
    ([$($key:ident $given:ident),*] $last:ident $range:ident;) => {};
}
tuple_ranges!([] A GivenA 0; B C D E F);
tuple_ranges!([A GivenA 0] B GivenB 1; C D E F);
tuple_ranges!([A GivenA 0, B GivenB 1] C GivenC 2; D E F);
tuple_ranges!([A GivenA 0, B GivenB 1, C GivenC 2] D GivenD 3; E F);
tuple_ranges!([A GivenA 0, B GivenB 1, C GivenC 2, D GivenD 3] E GivenE 4; F);
tuple_ranges!([A GivenA 0, B GivenB 1, C GivenC 2, D GivenD 3, E GivenE 4] F GivenF 5;);
