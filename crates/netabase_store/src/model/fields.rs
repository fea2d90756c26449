//! Values by fields: each field of a struct stands under a tag that its name makes, so that
//! programs with other fields read what they know.
//!
//! A struct is its fields in the order of their tags. A tag has 2 bytes, big-endian: 13 bits of the
//! name's hash (FNV-1a), and 3 bits that tell who does not know the field how long its value is
//! ([`Form`]). An option that is `None` is no field at all. An enum is the tag of its variant, and
//! then its fields. Numbers are varints, which are minimal, so that an integer may become wider.
//!
//! By serde ([`write`], [`read`]) it works for every type with serde's derives. The macros, which
//! know the order of the tags beforehand, generate calls of [`Writer`] and [`Reader`] for the
//! fields of a model. `docs/formats.md` has the format.

use std::cell::Cell;
use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use crate::error::ValueError;
use crate::model::limits::MAX_LEVELS;

mod carry;
mod de;
mod ser;

pub(crate) use carry::carried;
pub use de::Reader;
pub(crate) use de::{Parts as PartsReader, Value as ValueReader};
pub use ser::Writer;
pub(crate) use ser::{Fields as FieldsWriter, Value as ValueWriter};

/// The bytes of a tag.
const TAG_BYTES: usize = 2;
/// The bits of a tag that are the form of the value.
const FORM_BITS: u32 = 3;
const FORM: u16 = (1 << FORM_BITS) - 1;
/// The highest bit of each byte, which says that a varint goes on.
const MORE: u64 = 0x8080_8080_8080_8080;

/// How a value is delimited, for who does not know the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A varint.
    Number = 0,
    /// 4 bytes.
    Four = 1,
    /// 8 bytes.
    Eight = 2,
    /// A length, as a varint, and as many bytes.
    Bytes = 3,
    /// The same, and the bytes are the fields of a struct.
    Fields = 4,
}

impl Form {
    const fn of(tag: u16) -> Option<Self> {
        match tag & FORM {
            0 => Some(Self::Number),
            1 => Some(Self::Four),
            2 => Some(Self::Eight),
            3 => Some(Self::Bytes),
            4 => Some(Self::Fields),
            _ => None,
        }
    }
}

/// Returns the tag of a field or variant of this name, with the bits of the form clear.
pub const fn tag(name: &str) -> u16 {
    let mut hash: u32 = 0x811c_9dc5;
    let mut rest = name.as_bytes();
    while let [first, after @ ..] = rest {
        hash = (hash ^ *first as u32).wrapping_mul(0x0100_0193);
        rest = after;
    }
    let [low, high, ..] = ((hash ^ hash >> 16) << FORM_BITS).to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Appends the fields of a struct.
pub(crate) fn write<T: Serialize + ?Sized>(value: &T, mut out: Vec<u8>) -> Result<Vec<u8>, Fault> {
    value.serialize(ser::Value::record(&mut out))?;
    Ok(out)
}

/// Reads the fields of a struct, which are all of `bytes`.
///
/// The bound is `DeserializeOwned` spelt out: serde explains a missing `Deserialize`, but not that.
pub(crate) fn read<T: for<'de> Deserialize<'de>>(mut bytes: &[u8]) -> Result<T, Fault> {
    T::deserialize(de::Value::record(&mut bytes))
}

thread_local! {
    /// Whether a value was read on this thread of which the program does not know a part. It is
    /// set where that is met, which is rare.
    static HAS_UNKNOWN: Cell<bool> = const { Cell::new(false) };
}

/// Reads, and returns whether there is a part that the program does not know.
pub(crate) fn noticing_unknown<T>(read: impl FnOnce() -> T) -> (T, bool) {
    let before = HAS_UNKNOWN.replace(false);
    let done = read();
    (done, HAS_UNKNOWN.replace(before))
}

/// Why a value cannot be written or read. It is a pointer, so that the result of reading a number
/// stays in registers.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault(Box<Kind>);

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// The bytes end in the middle of a value.
    End,
    /// There are bytes after the last part of a value.
    Left(usize),
    /// A number has more bytes than it needs, or more bits than its type.
    Number,
    /// Fields are not in the order of their tags, or one is there twice.
    Order,
    /// A value of another form stands in place of this.
    Other(&'static str),
    /// Text is no UTF-8.
    Text,
    /// Two fields of a struct have names of the same tag.
    SameTag(&'static str, &'static str),
    /// There is no such variant.
    Variant(u16),
    /// The value nests more than [`MAX_LEVELS`] levels deep.
    TooDeep,
    /// serde asks for what only a format with types in it has.
    Unsupported(&'static str),
    /// What a type says of its value.
    Said(String),
}

impl Fault {
    /// Says that a value is of another type than its description.
    pub(crate) fn other_type() -> Self {
        Kind::Said("the value is of another type".into()).into()
    }

    pub(crate) fn unknown_variant(tag: u16) -> Self {
        Kind::Variant(tag).into()
    }
}

impl From<Kind> for Fault {
    #[cold]
    fn from(kind: Kind) -> Self {
        Self(Box::new(kind))
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Kind::End => f.write_str("the value is cut off"),
            Kind::Left(bytes) => write!(f, "{bytes} bytes are left over"),
            Kind::Number => f.write_str("a number is longer than it may be"),
            Kind::Order => f.write_str("the fields are not in the order of their tags"),
            Kind::Other(wanted) => write!(f, "something else stands in place of {wanted}"),
            Kind::Text => f.write_str("text is not UTF-8"),
            Kind::SameTag(one, other) => {
                write!(f, "`{one}` and `{other}` have the same tag: give one of them another name")
            }
            Kind::Variant(tag) => write!(f, "no variant has the tag {tag:#06x}"),
            Kind::TooDeep => write!(f, "the value nests more than {MAX_LEVELS} levels deep"),
            Kind::Unsupported(what) => write!(f, "{what} cannot be stored"),
            Kind::Said(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for ValueError {
    fn from(fault: Fault) -> Self {
        match *fault.0 {
            Kind::TooDeep => Self::TOO_DEEP,
            Kind::Left(extra) => Self::TrailingBytes { extra },
            _ => Self::Fields { message: fault.to_string() },
        }
    }
}

impl serde::ser::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Kind::Said(message.to_string()).into()
    }
}

impl serde::de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Kind::Said(message.to_string()).into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Plain,
        Text(String),
        At { x: i32, y: i32 },
        Pair(u8, u8),
    }

    #[expect(clippy::option_option, reason = "a user may have one")]
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Everything {
        zulu: bool,
        kind: Kind,
        names: Vec<String>,
        below: Option<Box<Everything>>,
        twice: Option<Option<u8>>,
        bytes: Vec<u8>,
        map: BTreeMap<String, i64>,
        kinds: Vec<Kind>,
        letter: char,
        ratio: f64,
        small: f32,
        pair: (u8, i16),
        four: [u8; 4],
        unsigned: u128,
        signed: i128,
        unit: (),
        narrow: i8,
        options: Vec<Option<u64>>,
    }

    fn everything() -> Everything {
        let leaf = Everything {
            zulu: true,
            kind: Kind::At { x: -5, y: i32::MAX },
            names: vec!["a".into(), String::new()],
            below: None,
            twice: Some(None),
            bytes: vec![0, 1, 200],
            map: [("k".to_owned(), i64::MIN)].into(),
            kinds: vec![Kind::Plain, Kind::Text("x".repeat(200)), Kind::Pair(1, 255)],
            letter: '\u{10ffff}',
            ratio: -0.5,
            small: 1.5,
            pair: (255, i16::MIN),
            four: [1, 2, 3, 255],
            unsigned: u128::MAX,
            signed: i128::MIN,
            unit: (),
            narrow: -128,
            options: vec![None, Some(u64::MAX), Some(1 << 56), Some((1 << 56) - 1), Some(1 << 63), Some(127)],
        };
        Everything { below: Some(Box::new(leaf.clone())), twice: Some(Some(3)), ..leaf }
    }

    #[test]
    fn a_value_comes_back_and_no_part_of_it_is_one() {
        let value = everything();
        let bytes = write(&value, Vec::new()).unwrap();
        assert_eq!(read::<Everything>(&bytes).unwrap(), value);
        for end in 0..bytes.len() {
            assert!(read::<Everything>(bytes.get(..end).unwrap()).is_err(), "{end}");
        }
    }

    #[test]
    fn no_changed_byte_is_a_second_encoding() {
        let bytes = write(&everything(), Vec::new()).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                *changed.get_mut(at).unwrap() ^= 1 << bit;
                if let Ok(value) = read::<Everything>(&changed) {
                    let again = write(&value, Vec::new()).unwrap();
                    // A changed tag is a field that nobody knows.
                    assert!(again == changed || again.len() < changed.len(), "{at}, {bit}");
                    assert_ne!(again, bytes);
                }
            }
        }
    }

    #[test]
    fn programs_with_other_fields_read_what_they_know() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Before {
            name: String,
            count: u8,
            gone: Vec<u32>,
        }

        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct After {
            #[serde(default)]
            rating: f64,
            count: u64,
            note: Option<String>,
            #[serde(alias = "name")]
            title: String,
        }

        let before = Before { name: "a".into(), count: 200, gone: vec![1, 300] };
        let after = read::<After>(&write(&before, Vec::new()).unwrap()).unwrap();
        assert_eq!(after, After { rating: 0.0, count: 200, note: None, title: "a".into() });
        let missing = read::<Before>(&write(&after, Vec::new()).unwrap()).unwrap_err();
        assert_eq!(missing.to_string(), "missing field `name`");
    }

    #[test]
    fn two_fields_of_one_tag_are_refused_and_named() {
        #[derive(Serialize)]
        struct Both {
            pieces: Option<u8>,
            name: Option<u8>,
        }

        assert_eq!(tag("pieces"), tag("name"));
        let both = Both { pieces: None, name: Some(1) };
        let refused = write(&both, Vec::new()).unwrap_err().to_string();
        assert!(refused.contains("`pieces`") && refused.contains("`name`"), "{refused}");
    }

    #[test]
    fn a_value_that_nests_without_end_is_refused() {
        let mut value = everything();
        for _ in 0..MAX_LEVELS {
            value = Everything { below: Some(Box::new(value)), ..everything() };
        }
        assert_eq!(write(&value, Vec::new()), Err(super::Kind::TooDeep.into()));
    }
}
