//! Key bytes that keep the order of the values they encode.
//!
//! Comparing two encodings byte by byte compares the values, so every engine can answer range and
//! prefix questions by walking its keys. Each encoding also ends by itself, so encodings can be
//! concatenated: compound keys are their parts, one after the other. `docs/formats.md` lists the
//! bytes of every type.

use std::fmt::Debug;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::KeyError;

/// Ends a string, a byte string or a list.
pub(crate) const END: u8 = 0x00;
/// Escapes the two bytes below that may not stand for themselves, and opens a list item.
pub(crate) const ESCAPE: u8 = 0x01;
const ESCAPED_END: u8 = 0x01;
const ESCAPED_ESCAPE: u8 = 0x02;

/// A type that can be, or be part of, a primary or secondary key.
///
/// Implemented for the integers, `bool`, `char`, `f32`, `f64`, `String`, `Vec<T>`, `[u8; N]`,
/// `Option<T>`, tuples of up to six parts, [`SystemTime`], [`Duration`] and
/// [`Author`](crate::Author); derive it for your own newtypes, structs and enums with
/// `#[derive(NetabaseKey)]`.
///
/// An implementation must keep three promises: `decode_key` reads exactly the bytes that
/// `encode_key` wrote; no encoding is a prefix of another; and byte order is value order.
///
/// ```
/// use netabase_store::KeyField;
///
/// let (low, high) = (-7_i32, 300_i32);
/// assert!(low.to_key_bytes() < high.to_key_bytes());
/// assert_eq!(i32::from_key_bytes(&high.to_key_bytes())?, 300);
/// # Ok::<(), netabase_store::KeyError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a key: it has no ordered key encoding",
    label = "not a key type",
    note = "use an integer, bool, char, float, String, Vec, Option, array of bytes or tuple of these",
    note = "or write #[derive(NetabaseKey)] on your own newtype, struct or enum"
)]
pub trait KeyField: Clone + Debug + Send + Sync + Sized + 'static {
    /// Appends the ordered encoding of `self` to `out`.
    fn encode_key(&self, out: &mut Vec<u8>);

    /// Reads one value from the front of `input` and moves `input` past it.
    fn decode_key(input: &mut &[u8]) -> Result<Self, KeyError>;

    /// Returns the ordered encoding of `self` on its own.
    fn to_key_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        self.encode_key(&mut out);
        out
    }

    /// Reads a value that must fill `bytes` exactly.
    fn from_key_bytes(mut bytes: &[u8]) -> Result<Self, KeyError> {
        let value = Self::decode_key(&mut bytes)?;
        if bytes.is_empty() { Ok(value) } else { Err(KeyError::TrailingBytes { extra: bytes.len() }) }
    }

    /// Encodes a list of this type; overridden by `u8`, whose lists are byte strings.
    #[doc(hidden)]
    fn encode_list(items: &[Self], out: &mut Vec<u8>) {
        for item in items {
            out.push(ESCAPE);
            item.encode_key(out);
        }
        out.push(END);
    }

    /// Decodes the bytes of [`KeyField::encode_list`].
    #[doc(hidden)]
    fn decode_list(input: &mut &[u8]) -> Result<Vec<Self>, KeyError> {
        let mut items = Vec::new();
        loop {
            match take_byte(input)? {
                END => return Ok(items),
                ESCAPE => items.push(Self::decode_key(input)?),
                _ => return Err(KeyError::Malformed { expected: "a list" }),
            }
        }
    }
}

/// Reads `N` bytes from the front of `input`.
fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], KeyError> {
    let (head, tail) = input.split_first_chunk::<N>().ok_or(KeyError::Truncated)?;
    *input = tail;
    Ok(*head)
}

fn take_byte(input: &mut &[u8]) -> Result<u8, KeyError> {
    take::<1>(input).map(|[byte]| byte)
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    encode_open_bytes(bytes, out);
    out.push(END);
}

/// Encodes the start of a byte string.
pub(crate) fn encode_open_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + 1);
    for &byte in bytes {
        match byte {
            END => out.extend([ESCAPE, ESCAPED_END]),
            ESCAPE => out.extend([ESCAPE, ESCAPED_ESCAPE]),
            other => out.push(other),
        }
    }
}

/// Encodes text as a `String` is encoded.
pub(crate) fn encode_text(text: &str, out: &mut Vec<u8>) {
    encode_bytes(text.as_bytes(), out);
}

fn decode_bytes(input: &mut &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut bytes = Vec::new();
    loop {
        match take_byte(input)? {
            END => return Ok(bytes),
            ESCAPE => match take_byte(input)? {
                ESCAPED_END => bytes.push(END),
                ESCAPED_ESCAPE => bytes.push(ESCAPE),
                _ => return Err(KeyError::Malformed { expected: "an escaped byte" }),
            },
            byte => bytes.push(byte),
        }
    }
}

impl KeyField for u8 {
    fn encode_key(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn decode_key(input: &mut &[u8]) -> Result<Self, KeyError> {
        take_byte(input)
    }

    fn encode_list(items: &[Self], out: &mut Vec<u8>) {
        encode_bytes(items, out);
    }

    fn decode_list(input: &mut &[u8]) -> Result<Vec<Self>, KeyError> {
        decode_bytes(input)
    }
}

/// Unsigned integers are big-endian.
macro_rules! unsigned_key {
    ($($int:ty),*) => {$(
        impl KeyField for $int {
            fn encode_key(&self, out: &mut Vec<u8>) {
                out.extend(self.to_be_bytes());
            }

            fn decode_key(input: &mut &[u8]) -> Result<Self, KeyError> {
                take(input).map(Self::from_be_bytes)
            }
        }
    )*};
}
unsigned_key!(u16, u32, u64, u128);

/// Signed integers are big-endian with the sign bit flipped, which puts negatives first.
macro_rules! signed_key {
    ($($int:ty),*) => {$(
        impl KeyField for $int {
            fn encode_key(&self, out: &mut Vec<u8>) {
                out.extend((*self ^ Self::MIN).to_be_bytes());
            }

            fn decode_key(input: &mut &[u8]) -> Result<Self, KeyError> {
                take(input).map(|bytes| Self::from_be_bytes(bytes) ^ Self::MIN)
            }
        }
    )*};
}
signed_key!(i8, i16, i32, i64, i128);

/// Floats keep numeric order: positive ones flip the sign bit, negative ones flip every bit. The
/// two zeros are one key, and so are all NaNs, which sort after infinity.
macro_rules! float_key {
    ($($float:ty => $bits:ty),*) => {$(
        impl KeyField for $float {
            fn encode_key(&self, out: &mut Vec<u8>) {
                const SIGN: $bits = 1 << (<$bits>::BITS - 1);
                let bits = if self.is_nan() {
                    <$float>::NAN.to_bits() & !SIGN
                } else if *self == 0.0 {
                    0
                } else {
                    self.to_bits()
                };
                let ordered = if bits & SIGN == 0 { bits | SIGN } else { !bits };
                out.extend(ordered.to_be_bytes());
            }

            fn decode_key(input: &mut &[u8]) -> Result<Self, KeyError> {
                const SIGN: $bits = 1 << (<$bits>::BITS - 1);
                let ordered = <$bits>::from_be_bytes(take(input)?);
                let bits = if ordered & SIGN == 0 { !ordered } else { ordered & !SIGN };
                Ok(Self::from_bits(bits))
            }
        }
    )*};
}
float_key!(f32 => u32, f64 => u64);

impl KeyField for bool {
    fn encode_key(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn decode_key(input: &mut &[u8]) -> Result<Self, KeyError> {
        match take_byte(input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(KeyError::Malformed { expected: "a bool" }),
        }
    }
}

impl KeyField for char {
    fn encode_key(&self, out: &mut Vec<u8>) {
        u32::from(*self).encode_key(out);
    }

    fn decode_key(input: &mut &[u8]) -> Result<Self, KeyError> {
        Self::from_u32(u32::decode_key(input)?).ok_or(KeyError::Malformed { expected: "a char" })
    }
}

impl KeyField for String {
    fn encode_key(&self, out: &mut Vec<u8>) {
        encode_text(self, out);
    }

    fn decode_key(input: &mut &[u8]) -> Result<Self, KeyError> {
        Self::from_utf8(decode_bytes(input)?).map_err(|_| KeyError::Malformed { expected: "UTF-8" })
    }
}

impl<T: KeyField> KeyField for Vec<T> {
    fn encode_key(&self, out: &mut Vec<u8>) {
        T::encode_list(self, out);
    }

    fn decode_key(input: &mut &[u8]) -> Result<Self, KeyError> {
        T::decode_list(input)
    }
}

impl<const N: usize> KeyField for [u8; N] {
    fn encode_key(&self, out: &mut Vec<u8>) {
        out.extend(self);
    }

    fn decode_key(input: &mut &[u8]) -> Result<Self, KeyError> {
        take(input)
    }
}

impl<T: KeyField> KeyField for Option<T> {
    fn encode_key(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(value) = self {
            value.encode_key(out);
        }
    }

    fn decode_key(input: &mut &[u8]) -> Result<Self, KeyError> {
        bool::decode_key(input)?.then(|| T::decode_key(input)).transpose()
    }
}

/// Seconds from the Unix epoch, negative before it, then nanoseconds forward from there.
impl KeyField for SystemTime {
    fn encode_key(&self, out: &mut Vec<u8>) {
        let nanos = match self.duration_since(UNIX_EPOCH) {
            Ok(after) => i128::try_from(after.as_nanos()).unwrap_or(i128::MAX),
            Err(before) => i128::try_from(before.duration().as_nanos()).map_or(i128::MIN, |nanos| -nanos),
        };
        let seconds = nanos.div_euclid(NANOS_PER_SECOND);
        i64::try_from(seconds).unwrap_or(i64::MAX).encode_key(out);
        u32::try_from(nanos.rem_euclid(NANOS_PER_SECOND)).unwrap_or(0).encode_key(out);
    }

    fn decode_key(input: &mut &[u8]) -> Result<Self, KeyError> {
        let (seconds, nanos) = (i64::decode_key(input)?, u32::decode_key(input)?);
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let start = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
        start
            .and_then(|start| start.checked_add(Duration::from_nanos(nanos.into())))
            .ok_or(KeyError::Malformed { expected: "a time" })
    }
}

const NANOS_PER_SECOND: i128 = 1_000_000_000;

impl KeyField for Duration {
    fn encode_key(&self, out: &mut Vec<u8>) {
        self.as_secs().encode_key(out);
        self.subsec_nanos().encode_key(out);
    }

    fn decode_key(input: &mut &[u8]) -> Result<Self, KeyError> {
        let (seconds, nanos) = (u64::decode_key(input)?, u32::decode_key(input)?);
        Self::from_secs(seconds)
            .checked_add(Self::from_nanos(nanos.into()))
            .ok_or(KeyError::Malformed { expected: "a duration" })
    }
}

macro_rules! tuple_key {
    ($($part:ident . $index:tt),+) => {
        impl<$($part: KeyField),+> KeyField for ($($part,)+) {
            fn encode_key(&self, out: &mut Vec<u8>) {
                $(self.$index.encode_key(out);)+
            }

            fn decode_key(input: &mut &[u8]) -> Result<Self, KeyError> {
                Ok(($($part::decode_key(input)?,)+))
            }
        }
    };
}
tuple_key!(A.0);
tuple_key!(A.0, B.1);
tuple_key!(A.0, B.1, C.2);
tuple_key!(A.0, B.1, C.2, D.3);
tuple_key!(A.0, B.1, C.2, D.3, E.4);
tuple_key!(A.0, B.1, C.2, D.3, E.4, F.5);

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    fn order<T: KeyField>(left: &T, right: &T) -> Ordering {
        left.to_key_bytes().cmp(&right.to_key_bytes())
    }

    /// Byte order is value order, values survive a round trip, and encodings of two values can be
    /// concatenated.
    fn check<T: KeyField + PartialOrd>(left: &T, right: &T) {
        assert_eq!(Some(order(left, right)), left.partial_cmp(right), "{left:?} {right:?}");
        let pair = (left.clone(), right.clone());
        let (l, r) = <(T, T)>::from_key_bytes(&pair.to_key_bytes()).unwrap();
        assert!(l == *left && r == *right, "{l:?} {r:?}");
    }

    proptest! {
        #[test]
        fn unsigned(a: (u8, u16, u32), b: (u8, u16, u32)) { check(&a, &b); }
        #[test]
        fn wide(a: (u64, u128), b: (u64, u128)) { check(&a, &b); }
        #[test]
        fn signed(a: (i8, i16, i32), b: (i8, i16, i32)) { check(&a, &b); }
        #[test]
        fn wide_signed(a: (i64, i128), b: (i64, i128)) { check(&a, &b); }
        #[test]
        fn doubles(a: f64, b: f64) { check(&a, &b); }
        #[test]
        fn floats(a: f32, b: f32) { check(&a, &b); }
        #[test]
        fn strings(a: String, b: String) { check(&a, &b); }
        #[test]
        fn byte_strings(a in prop::collection::vec(0_u8..4, 0..6), b in prop::collection::vec(0_u8..4, 0..6)) {
            check(&a, &b);
        }
        #[test]
        fn lists(a in prop::collection::vec(0_u16..3, 0..6), b in prop::collection::vec(0_u16..3, 0..6)) {
            check(&a, &b);
        }
        #[test]
        fn options_and_tuples(a: (Option<String>, bool, char), b: (Option<String>, bool, char)) { check(&a, &b); }
        #[test]
        fn times(a in -1_000_000_000_000_i64..1_000_000_000_000, b in -1_000_000_000_000_i64..1_000_000_000_000) {
            let time = |ms: i64| {
                let offset = Duration::from_millis(ms.unsigned_abs());
                if ms < 0 { UNIX_EPOCH - offset } else { UNIX_EPOCH + offset }
            };
            check(&time(a), &time(b));
            check(&Duration::from_millis(a.unsigned_abs()), &Duration::from_millis(b.unsigned_abs()));
        }
        #[test]
        fn any_bytes_decode_or_fail_without_panic(bytes: Vec<u8>) {
            let _ = <(String, Vec<u32>, Option<char>)>::from_key_bytes(&bytes);
            let _ = <(SystemTime, Duration, bool)>::from_key_bytes(&bytes);
        }
    }

    #[test]
    fn equal_floats_are_one_key() {
        assert_eq!(order(&0.0_f64, &-0.0), Ordering::Equal);
        assert_eq!(order(&f64::NAN, &-f64::NAN), Ordering::Equal);
        assert_eq!(order(&f64::NAN, &f64::INFINITY), Ordering::Greater);
    }
}
