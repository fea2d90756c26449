//! Reading.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{FORM, Fault, Form, Kind, MAX_LEVELS, MORE, TAG_BYTES, tag};

/// Reads the fields of a record whose tags are known beforehand, in their order.
pub(in crate::format) struct Reader<'de> {
    rest: &'de [u8],
    /// The tag of the field before.
    before: u16,
}

impl<'de> Reader<'de> {
    pub(in crate::format) fn new(rest: &'de [u8]) -> Self {
        Self { rest, before: 0 }
    }

    /// Reads the next field, and passes over those before it that the program does not know.
    #[inline]
    pub(in crate::format) fn field<T: Deserialize<'de>>(&mut self, tag: u16) -> Result<T, Fault> {
        let form = match self.rest {
            [high, low, after @ ..] if u16::from_be_bytes([*high, *low]) & !FORM == tag => {
                self.rest = after;
                u16::from(*low) & FORM
            }
            _ => self.find(tag)?,
        };
        self.before = tag;
        T::deserialize(Value { rest: &mut self.rest, place: Place::Field(form), left: MAX_LEVELS - 1 })
    }

    #[cold]
    fn find(&mut self, tag: u16) -> Result<u16, Fault> {
        loop {
            let (found, after) = self.rest.split_first_chunk().ok_or(Kind::Missing(tag))?;
            let found = u16::from_be_bytes(*found);
            match found & !FORM {
                this if this == tag => {
                    self.rest = after;
                    return Ok(found & FORM);
                }
                this if this > tag => return Err(Kind::Missing(tag).into()),
                this if this <= self.before => return Err(Kind::Order.into()),
                this => self.before = this,
            }
            self.rest = after;
            skip(Form::of(found).ok_or(Kind::Other("a field"))?, &mut self.rest)?;
        }
    }

    /// Passes over what is left.
    pub(in crate::format) fn finish(mut self) -> Result<(), Fault> {
        match self.find(u16::MAX) {
            Err(Fault(kind)) if *kind == Kind::Missing(u16::MAX) && self.rest.is_empty() => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(Kind::Order.into()),
        }
    }
}

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
pub(super) struct Value<'a, 'de> {
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

/// Leaves out a value of this form.
fn skip(form: Form, rest: &mut &[u8]) -> Result<(), Fault> {
    match form {
        Form::Number => long_varint(rest).map(drop),
        Form::Four => take(rest, 4).map(drop),
        Form::Eight => take(rest, 8).map(drop),
        Form::Bytes => sized(rest).map(drop),
    }
}

fn nothing(rest: &[u8]) -> Result<(), Fault> {
    if rest.is_empty() { Ok(()) } else { Err(Kind::Left(rest.len()).into()) }
}

impl<'a, 'de> Value<'a, 'de> {
    pub(super) fn record(rest: &'a mut &'de [u8]) -> Self {
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
        self.expect(Form::Bytes, what)?;
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
}

/// Reads the parts of a value, to the end of its bytes.
struct Parts<'de> {
    rest: &'de [u8],
    left: usize,
}

impl<'de> Parts<'de> {
    fn element(&mut self) -> Value<'_, 'de> {
        Value { rest: &mut self.rest, place: Place::Element, left: self.left }
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
        if self.rest.is_empty() { Ok(None) } else { seed.deserialize(self.element()).map(Some) }
    }
}

impl<'de> MapAccess<'de> for &mut Parts<'de> {
    type Error = Fault;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self.element())
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
        while !self.rest.is_empty() {
            let (whole, after) = self.rest.split_first_chunk::<TAG_BYTES>().ok_or(Kind::End)?;
            *self.rest = after;
            let whole = u16::from_be_bytes(*whole);
            let form = Form::of(whole).ok_or(Kind::Other("a field"))?;
            let found = whole & !FORM;
            if self.before >= Some(found) {
                return Err(Kind::Order.into());
            }
            self.before = Some(found);
            if let Some(name) = self.known.iter().find(|name| tag(name) == found) {
                self.form = form;
                return seed.deserialize(BorrowedStrDeserializer::<Fault>::new(name)).map(Some);
            }
            skip(form, self.rest)?;
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
    name: &'static str,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        Ok((seed.deserialize(BorrowedStrDeserializer::<Fault>::new(self.name))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        nothing(self.parts.rest)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        self.parts.all(|parts| seed.deserialize(parts.element()))
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
                    1 => visitor.visit_some(parts.element()),
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
        let left = self.down()?;
        visitor.visit_newtype_struct(Value { left, ..self })
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
        if self.place == Place::Record {
            let left = self.down()?;
            return Fields::read(self.rest, left, fields, visitor);
        }
        self.parts("a struct")?.all(|parts| Fields::read(&mut parts.rest, parts.left, fields, visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let mut parts = self.parts("an enum")?;
        let found = take(&mut parts.rest, TAG_BYTES)?.first_chunk().copied().unwrap_or_default();
        let found = u16::from_be_bytes(found);
        let name = variants.iter().find(|name| tag(name) == found);
        visitor.visit_enum(Variant { parts, name: name.ok_or(Kind::Missing(found))? })
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}
