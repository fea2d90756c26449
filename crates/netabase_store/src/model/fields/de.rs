//! Reading.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};

use super::{FORM, Fault, Form, HAS_UNKNOWN, Kind, MORE, TAG_BYTES, tag};
use crate::model::limits::MAX_LEVELS;

/// Reads the fields of a record whose tags are known beforehand, in their order.
#[derive(Debug)]
pub struct Reader<'de> {
    rest: &'de [u8],
    /// The tag of the field before.
    before: Option<u16>,
}

impl<'de> Reader<'de> {
    pub(crate) fn new(rest: &'de [u8]) -> Self {
        Self { rest, before: None }
    }

    /// Reads the next field. One that is absent is `None` if it is an option, and missing if it is
    /// not.
    #[inline]
    pub fn field<T: Deserialize<'de>>(&mut self, tag: u16, name: &'static str) -> Result<T, Fault> {
        match self.next(tag)? {
            Some(form) => T::deserialize(self.value(form)),
            None => T::deserialize(Absent(name)),
        }
    }

    /// Reads the next field, or returns the default if it is absent.
    #[inline]
    pub fn field_or<T: Deserialize<'de>>(
        &mut self,
        tag: u16,
        default: impl FnOnce() -> T,
    ) -> Result<T, Fault> {
        match self.next(tag)? {
            Some(form) => T::deserialize(self.value(form)),
            None => Ok(default()),
        }
    }

    #[inline]
    fn value(&mut self, form: u16) -> Value<'_, 'de> {
        Value { rest: &mut self.rest, place: Place::Field(form), left: MAX_LEVELS - 1 }
    }

    /// Returns the form of a field if it is the next one of those that the program knows.
    #[inline]
    fn next(&mut self, tag: u16) -> Result<Option<u16>, Fault> {
        match self.rest {
            [high, low, after @ ..] if u16::from_be_bytes([*high, *low]) & !FORM == tag => {
                self.rest = after;
                self.before = Some(tag);
                Ok(Some(u16::from(*low) & FORM))
            }
            [high, low, ..] if u16::from_be_bytes([*high, *low]) & !FORM > tag => Ok(None),
            [] => Ok(None),
            _ => self.pass_over(tag),
        }
    }

    /// Passes over fields that the program does not know, up to a tag.
    #[cold]
    fn pass_over(&mut self, tag: u16) -> Result<Option<u16>, Fault> {
        HAS_UNKNOWN.set(true);
        while !self.rest.is_empty() {
            let (found, after) = self.rest.split_first_chunk().ok_or(Kind::End)?;
            let found = u16::from_be_bytes(*found);
            let this = found & !FORM;
            if self.before >= Some(this) {
                return Err(Kind::Order.into());
            }
            if this > tag {
                return Ok(None);
            }
            self.rest = after;
            self.before = Some(this);
            if this == tag {
                return Ok(Some(found & FORM));
            }
            pass(Form::of(found).ok_or(Kind::Other("a field"))?, &mut self.rest)?;
        }
        Ok(None)
    }

    /// Passes over what is left.
    pub(crate) fn finish(mut self) -> Result<(), Fault> {
        // No tag has the bits of the form set.
        if self.rest.is_empty() { Ok(()) } else { self.pass_over(u16::MAX).map(drop) }
    }
}

/// The value of a field that is absent.
struct Absent(&'static str);

impl<'de> Deserializer<'de> for Absent {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fault> {
        Err(Fault::missing_field(self.0))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_none()
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Stands for the name of a variant that the program does not know: no variant has it.
const NO_NAME: &str = "";

/// Where a value stands, and so what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The whole record.
    Record,
    /// A field, whose tag says the form of its value.
    Field(u16),
    /// A field, of whose value an option has been read already.
    Some(u16),
    /// A part of a list, tuple, map or option.
    Element,
}

/// Reads a value from the beginning of what is left.
pub(crate) struct Value<'a, 'de> {
    rest: &'a mut &'de [u8],
    place: Place,
    /// How many levels deeper it may go.
    left: usize,
}

#[inline]
fn take<'de>(rest: &mut &'de [u8], count: usize) -> Result<&'de [u8], Fault> {
    let (taken, after) = rest.split_at_checked(count).ok_or(Kind::End)?;
    *rest = after;
    Ok(taken)
}

#[inline]
fn byte(rest: &mut &[u8]) -> Result<u8, Fault> {
    let (byte, after) = rest.split_first().ok_or(Kind::End)?;
    *rest = after;
    Ok(*byte)
}

#[inline]
fn varint(rest: &mut &[u8]) -> Result<u64, Fault> {
    match rest.split_first() {
        Some((first @ ..0x80, after)) => {
            *rest = after;
            Ok(u64::from(*first))
        }
        _ => long(rest),
    }
}

fn long(rest: &mut &[u8]) -> Result<u64, Fault> {
    let mut bytes = [0; 8];
    let after = if let Some((whole, after)) = rest.split_first_chunk() {
        bytes = *whole;
        after
    } else {
        bytes.get_mut(..rest.len()).ok_or(Kind::End)?.copy_from_slice(rest);
        &[]
    };
    let word = u64::from_le_bytes(bytes);
    let ends = !word & MORE;
    if ends != 0 {
        let bits = ends.trailing_zeros() + 1;
        let word = word & (u64::MAX >> (64 - bits));
        if word >> (bits - 8) == 0 {
            return Err(Kind::Number.into());
        }
        let (_, after) = rest.split_at_checked(bits as usize / 8).ok_or(Kind::End)?;
        *rest = after;
        return Ok(packed(word));
    }
    let (high, after) = match after {
        // The highest bit of nine bytes that go on is that of the tenth.
        [high @ 1..0x80, after @ ..] | [high, 1, after @ ..] => (u64::from(*high), after),
        [] | [0x80..=0xff] => return Err(Kind::End.into()),
        _ => return Err(Kind::Number.into()),
    };
    *rest = after;
    Ok(packed(word) | high << 56)
}

/// Puts the lower seven bits of each byte beside each other.
#[inline]
fn packed(word: u64) -> u64 {
    let word = word & !MORE;
    let word = word & 0x007f_007f_007f_007f | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let word = word & 0x0000_3fff_0000_3fff | (word & 0x3fff_0000_3fff_0000) >> 2;
    word & 0x0fff_ffff | (word & 0x0fff_ffff_0000_0000) >> 4
}

fn long_varint(rest: &mut &[u8]) -> Result<u128, Fault> {
    let (mut value, mut shift) = (0_u128, 0);
    loop {
        let next = byte(rest)?;
        let bits = u128::from(next & 0x7f);
        if shift == 126 && bits > 3 {
            return Err(Kind::Number.into());
        }
        value |= bits << shift;
        if next < 0x80 {
            return if next == 0 && shift > 0 { Err(Kind::Number.into()) } else { Ok(value) };
        }
        shift += 7;
        if shift > 126 {
            return Err(Kind::Number.into());
        }
    }
}

#[inline]
fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[inline]
fn sized<'de>(rest: &mut &'de [u8]) -> Result<&'de [u8], Fault> {
    let length = usize::try_from(varint(rest)?).map_err(|_| Fault::from(Kind::End))?;
    take(rest, length)
}

/// Passes over a value of this form, and returns its bytes without a length.
pub(super) fn pass<'de>(form: Form, rest: &mut &'de [u8]) -> Result<&'de [u8], Fault> {
    match form {
        Form::Number => {
            let start = *rest;
            long_varint(rest)?;
            start.get(..start.len() - rest.len()).ok_or_else(|| Kind::End.into())
        }
        Form::Four => take(rest, 4),
        Form::Eight => take(rest, 8),
        Form::Bytes | Form::Fields => sized(rest),
    }
}

fn nothing(rest: &[u8]) -> Result<(), Fault> {
    if rest.is_empty() { Ok(()) } else { Err(Kind::Left(rest.len()).into()) }
}

impl<'a, 'de> Value<'a, 'de> {
    pub(crate) fn record(rest: &'a mut &'de [u8]) -> Self {
        Self { rest, place: Place::Record, left: MAX_LEVELS }
    }

    #[inline]
    fn expect(&self, form: Form, what: &'static str) -> Result<(), Fault> {
        match self.place {
            Place::Element => Ok(()),
            Place::Field(found) | Place::Some(found) if found == form as u16 => Ok(()),
            _ => Err(Kind::Other(what).into()),
        }
    }

    fn down(&self) -> Result<usize, Fault> {
        self.left.checked_sub(1).ok_or_else(|| Fault::from(Kind::TooDeep))
    }

    #[inline]
    fn number(self, what: &'static str) -> Result<u64, Fault> {
        self.expect(Form::Number, what)?;
        varint(self.rest)
    }

    #[inline]
    fn narrow<T: TryFrom<u64>>(self, what: &'static str) -> Result<T, Fault> {
        T::try_from(self.number(what)?).map_err(|_| Fault::from(Kind::Number))
    }

    #[inline]
    fn narrow_signed<T: TryFrom<i64>>(self, what: &'static str) -> Result<T, Fault> {
        T::try_from(unzigzag(self.number(what)?)).map_err(|_| Fault::from(Kind::Number))
    }

    #[inline]
    fn bytes(self, what: &'static str) -> Result<&'de [u8], Fault> {
        self.sized(Form::Bytes, what)
    }

    #[inline]
    fn sized(self, form: Form, what: &'static str) -> Result<&'de [u8], Fault> {
        self.expect(form, what)?;
        sized(self.rest)
    }

    #[inline]
    fn text(self) -> Result<&'de str, Fault> {
        str::from_utf8(self.bytes("text")?).map_err(|_| Fault::from(Kind::Text))
    }

    fn parts(self, what: &'static str) -> Result<Parts<'de>, Fault> {
        let left = self.down()?;
        Ok(Parts { rest: self.bytes(what)?, left })
    }

    /// Reads the parts of a list, a set, a map or a tuple.
    pub(crate) fn all_parts<T>(
        self,
        read: impl FnOnce(&mut Parts<'de>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.parts("a list")?.all(read)
    }

    /// Reads the only part of a tuple struct.
    pub(crate) fn inside(self) -> Result<Self, Fault> {
        let left = self.down()?;
        Ok(Self { left, ..self })
    }

    /// Reads an option.
    pub(crate) fn option<T>(
        self,
        read: impl FnOnce(Value<'_, 'de>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        let left = self.down()?;
        match self.place {
            Place::Field(form) => read(Value { place: Place::Some(form), left, ..self }).map(Some),
            Place::Element => match byte(self.rest)? {
                0 => Ok(None),
                1 => read(Value { left, ..self }).map(Some),
                _ => Err(Kind::Other("an option").into()),
            },
            Place::Some(_) | Place::Record => {
                self.parts("an option")?.all(|parts| match byte(&mut parts.rest)? {
                    0 => Ok(None),
                    1 => read(parts.next()).map(Some),
                    _ => Err(Kind::Other("an option").into()),
                })
            }
        }
    }

    /// Reads the tag of a variant, and its parts.
    pub(crate) fn variant<T>(
        self,
        read: impl FnOnce(u16, &mut Parts<'de>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let (found, parts) = self.begin_variant()?;
        parts.all(|parts| read(found, parts))
    }

    fn begin_variant(self) -> Result<(u16, Parts<'de>), Fault> {
        let mut parts = self.parts("an enum")?;
        let found = take(&mut parts.rest, TAG_BYTES)?.first_chunk().copied().unwrap_or_default();
        Ok((u16::from_be_bytes(found), parts))
    }

    /// Reads the fields of a struct, in the order of their tags. `read` returns whether it knows
    /// the tag, and leaves the value where it is if not.
    pub(crate) fn fields(
        self,
        read: impl FnMut(u16, Value<'_, 'de>) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        let left = self.down()?;
        if self.place == Place::Record {
            return read_fields(self.rest, left, read);
        }
        read_fields(&mut self.sized(Form::Fields, "a struct")?, left, read)
    }
}

fn read_fields<'de>(
    rest: &mut &'de [u8],
    left: usize,
    mut read: impl FnMut(u16, Value<'_, 'de>) -> Result<bool, Fault>,
) -> Result<(), Fault> {
    let mut before = None;
    while let Some((found, form)) = next_tag(rest, &mut before)? {
        if !read(found, Value { rest, place: Place::Field(form as u16), left })? {
            HAS_UNKNOWN.set(true);
            pass(form, rest)?;
        }
    }
    Ok(())
}

/// Returns the tag of the next field and its form, `None` at the end.
#[inline]
pub(super) fn next_tag(rest: &mut &[u8], before: &mut Option<u16>) -> Result<Option<(u16, Form)>, Fault> {
    if rest.is_empty() {
        return Ok(None);
    }
    let (whole, after) = rest.split_first_chunk::<TAG_BYTES>().ok_or(Kind::End)?;
    let whole = u16::from_be_bytes(*whole);
    let found = whole & !FORM;
    if *before >= Some(found) {
        return Err(Kind::Order.into());
    }
    (*rest, *before) = (after, Some(found));
    Ok(Some((found, Form::of(whole).ok_or(Kind::Other("a field"))?)))
}

/// Reads the parts of a value, to the end of its bytes.
pub(crate) struct Parts<'de> {
    rest: &'de [u8],
    left: usize,
}

impl<'de> Parts<'de> {
    /// Returns where the next part is to be read.
    pub(crate) fn next(&mut self) -> Value<'_, 'de> {
        Value { rest: &mut self.rest, place: Place::Element, left: self.left }
    }

    /// Returns whether all parts were read.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads fields, which are the last of the parts; see [`Value::fields`].
    pub(crate) fn fields(
        &mut self,
        read: impl FnMut(u16, Value<'_, 'de>) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        read_fields(&mut self.rest, self.left, read)
    }

    /// Reads all parts, of which none may be left.
    fn all<T>(mut self, read: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        let value = read(&mut self)?;
        nothing(self.rest)?;
        Ok(value)
    }
}

impl<'de> SeqAccess<'de> for &mut Parts<'de> {
    type Error = Fault;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        if self.rest.is_empty() { Ok(None) } else { seed.deserialize(self.next()).map(Some) }
    }
}

impl<'de> MapAccess<'de> for &mut Parts<'de> {
    type Error = Fault;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self.next())
    }
}

/// Reads the fields of a struct that the program knows.
struct Fields<'a, 'de> {
    rest: &'a mut &'de [u8],
    left: usize,
    known: &'static [&'static str],
    /// The tag of the field before.
    before: Option<u16>,
    form: Form,
}

impl<'a, 'de> Fields<'a, 'de> {
    fn read<V: Visitor<'de>>(
        rest: &'a mut &'de [u8],
        left: usize,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_map(Self { rest, left, known, before: None, form: Form::Bytes })
    }
}

impl<'de> MapAccess<'de> for Fields<'_, 'de> {
    type Error = Fault;

    #[inline]
    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        while let Some((found, form)) = next_tag(self.rest, &mut self.before)? {
            if let Some(name) = self.known.iter().find(|name| tag(name) == found) {
                self.form = form;
                return seed.deserialize(BorrowedStrDeserializer::<Fault>::new(name)).map(Some);
            }
            HAS_UNKNOWN.set(true);
            pass(form, self.rest)?;
        }
        Ok(None)
    }

    #[inline]
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(Value { rest: self.rest, place: Place::Field(self.form as u16), left: self.left })
    }
}

/// An enum, after its variant.
struct Variant<'de> {
    parts: Parts<'de>,
    /// The name, or `None` if the program does not know it: a type may take some variant of its own
    /// for all others, as with `#[serde(other)]`.
    name: Option<&'static str>,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name = self.name.unwrap_or(NO_NAME);
        Ok((seed.deserialize(BorrowedStrDeserializer::<Fault>::new(name))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        if self.name.is_none() { Ok(()) } else { nothing(self.parts.rest) }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        self.parts.all(|parts| seed.deserialize(parts.next()))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.parts.all(|parts| visitor.visit_seq(parts))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.parts.all(|parts| Fields::read(&mut parts.rest, parts.left, fields, visitor))
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $narrow:ident)*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.$visit(self.$narrow("a number")?)
        })*
    };
}

impl<'de> Deserializer<'de> for Value<'_, 'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fault> {
        Err(Kind::Unsupported("a value whose type is only known from its bytes").into())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_any(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_any(visitor)
    }

    numbers! {
        deserialize_u16 visit_u16 narrow
        deserialize_u32 visit_u32 narrow
        deserialize_u64 visit_u64 number
        deserialize_i16 visit_i16 narrow_signed
        deserialize_i32 visit_i32 narrow_signed
        deserialize_i64 visit_i64 narrow_signed
    }

    #[inline]
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_u8(if self.place == Place::Element {
            byte(self.rest)?
        } else {
            self.narrow("a number")?
        })
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_i8(if self.place == Place::Element {
            byte(self.rest)?.cast_signed()
        } else {
            self.narrow_signed("a number")?
        })
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.expect(Form::Number, "a number")?;
        visitor.visit_u128(long_varint(self.rest)?)
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.expect(Form::Number, "a number")?;
        let value = long_varint(self.rest)?;
        visitor.visit_i128((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.number("a truth value")? {
            0 => visitor.visit_bool(false),
            1 => visitor.visit_bool(true),
            _ => Err(Kind::Number.into()),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let scalar = char::from_u32(self.narrow("a character")?);
        visitor.visit_char(scalar.ok_or(Kind::Number)?)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.expect(Form::Four, "a number")?;
        let bytes = take(self.rest, 4)?.first_chunk().copied().unwrap_or_default();
        visitor.visit_f32(f32::from_bits(u32::from_le_bytes(bytes)))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.expect(Form::Eight, "a number")?;
        let bytes = take(self.rest, 8)?.first_chunk().copied().unwrap_or_default();
        visitor.visit_f64(f64::from_bits(u64::from_le_bytes(bytes)))
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.text()?)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_bytes(self.bytes("bytes")?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_bytes(self.bytes("bytes")?)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let left = self.down()?;
        match self.place {
            Place::Field(form) => visitor.visit_some(Value { place: Place::Some(form), left, ..self }),
            Place::Element => match byte(self.rest)? {
                0 => visitor.visit_none(),
                1 => visitor.visit_some(Value { left, ..self }),
                _ => Err(Kind::Other("an option").into()),
            },
            Place::Some(_) | Place::Record => {
                self.parts("an option")?.all(|parts| match byte(&mut parts.rest)? {
                    0 => visitor.visit_none(),
                    1 => visitor.visit_some(parts.next()),
                    _ => Err(Kind::Other("an option").into()),
                })
            }
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        nothing(self.bytes("nothing")?)?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_unit(visitor)
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self.inside()?)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.parts("a list")?.all(|parts| visitor.visit_seq(parts))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.parts("a map")?.all(|parts| visitor.visit_map(parts))
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let left = self.down()?;
        if self.place == Place::Record {
            return Fields::read(self.rest, left, fields, visitor);
        }
        let mut rest = self.sized(Form::Fields, "a struct")?;
        let value = Fields::read(&mut rest, left, fields, visitor)?;
        nothing(rest)?;
        Ok(value)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let (found, parts) = self.begin_variant()?;
        let name = variants.iter().find(|name| tag(name) == found).copied();
        if name.is_none() {
            HAS_UNKNOWN.set(true);
        }
        visitor.visit_enum(Variant { parts, name }).map_err(|fault| match name {
            None if matches!(&*fault.0, Kind::Said(_)) => Kind::Variant(found).into(),
            _ => fault,
        })
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}
