//! Writing.

use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};
use serde::{Serialize, Serializer};

use super::{Fault, Form, Kind, MORE, tag};
use crate::model::limits::MAX_LEVELS;

type Written = Result<(), Fault>;

/// Writes the fields of a record whose tags are known beforehand, in their order.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(out: Vec<u8>) -> Self {
        Self { out }
    }

    /// Writes the next field.
    #[inline]
    pub fn field<T: Serialize + ?Sized>(&mut self, tag: u16, value: &T) -> Result<(), Fault> {
        value.serialize(Value { out: &mut self.out, place: Place::Field(tag), left: MAX_LEVELS - 1 })
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// Where a value stands.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// The whole record.
    Record,
    /// A field that has this tag.
    Field(u16),
    /// A field that is there because an option around the value is.
    Some(u16),
    /// A part of a list, tuple, map or option.
    Element,
}

/// Writes a value.
pub(crate) struct Value<'a> {
    out: &'a mut Vec<u8>,
    place: Place,
    /// How many levels deeper it may go.
    left: usize,
}

impl<'a> Value<'a> {
    pub(crate) fn record(out: &'a mut Vec<u8>) -> Self {
        Self { out, place: Place::Record, left: MAX_LEVELS }
    }

    #[inline]
    fn begin(&mut self, form: Form) -> Written {
        match self.place {
            Place::Field(tag) | Place::Some(tag) => {
                self.out.extend_from_slice(&(tag | form as u16).to_be_bytes());
                Ok(())
            }
            Place::Element => Ok(()),
            Place::Record => Err(Kind::Unsupported("a record that is no struct").into()),
        }
    }

    fn down(&self) -> Result<usize, Fault> {
        self.left.checked_sub(1).ok_or_else(|| Kind::TooDeep.into())
    }

    #[inline]
    fn number(mut self, value: u64) -> Written {
        self.begin(Form::Number)?;
        varint(value, self.out);
        Ok(())
    }

    /// Writes a number of one byte: in a list, which may be of bytes, it takes one.
    #[inline]
    fn byte(self, value: u8, number: u64) -> Written {
        if let Place::Element = self.place {
            self.out.push(value);
            Ok(())
        } else {
            self.number(number)
        }
    }

    #[inline]
    fn bytes(mut self, bytes: &[u8]) -> Written {
        self.begin(Form::Bytes)?;
        sized(bytes, self.out);
        Ok(())
    }

    /// Begins a value of parts, whose length is not known yet.
    pub(crate) fn parts(self) -> Result<Parts<'a>, Fault> {
        self.parts_of(Form::Bytes)
    }

    fn parts_of(mut self, form: Form) -> Result<Parts<'a>, Fault> {
        let left = self.down()?;
        self.begin(form)?;
        self.out.push(0);
        let start = self.out.len();
        Ok(Parts { out: self.out, start, left })
    }

    /// Writes the only part of a tuple struct.
    pub(crate) fn inside(self) -> Result<Self, Fault> {
        let left = self.down()?;
        Ok(Self { left, ..self })
    }

    /// Writes an option.
    #[inline]
    pub(crate) fn option<T>(
        mut self,
        value: Option<T>,
        write: impl FnOnce(T, Value<'_>) -> Written,
    ) -> Written {
        let left = self.down()?;
        match (self.place, value) {
            (Place::Field(_), None) => Ok(()),
            (Place::Field(tag), Some(value)) => write(value, Value { place: Place::Some(tag), left, ..self }),
            (Place::Element, None) => {
                self.out.push(0);
                Ok(())
            }
            (Place::Element, Some(value)) => {
                self.out.push(1);
                write(value, Value { left, ..self })
            }
            (Place::Some(_) | Place::Record, None) => {
                self.begin(Form::Bytes)?;
                self.out.extend_from_slice(&[1, 0]);
                Ok(())
            }
            (Place::Some(_) | Place::Record, Some(value)) => {
                let mut parts = self.parts()?;
                parts.out.push(1);
                write(value, parts.next())?;
                parts.end();
                Ok(())
            }
        }
    }

    /// Begins a struct of at most so many fields.
    pub(crate) fn fields(self, count: usize) -> Result<Fields<'a>, Fault> {
        if let Place::Record = self.place {
            let left = self.down()?;
            return Ok(Fields::new(self.out, None, left, count));
        }
        let Parts { out, start, left } = self.parts_of(Form::Fields)?;
        Ok(Fields::new(out, Some(start), left, count))
    }

    /// Begins a variant, whose parts follow.
    pub(crate) fn variant(self, tag: u16) -> Result<Parts<'a>, Fault> {
        let parts = self.parts()?;
        parts.out.extend_from_slice(&tag.to_be_bytes());
        Ok(parts)
    }
}

/// Appends bytes behind their length.
#[inline]
pub(super) fn sized(bytes: &[u8], out: &mut Vec<u8>) {
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends a varint, the lowest seven bits first.
#[inline]
fn varint(value: u64, out: &mut Vec<u8>) {
    match u8::try_from(value) {
        Ok(short @ ..0x80) => out.push(short),
        _ => long(value, out),
    }
}

fn long(value: u64, out: &mut Vec<u8>) {
    let (low, high) = (value & (u64::MAX >> 8), value >> 56);
    let spread = low & 0x0fff_ffff | (low & 0x00ff_ffff_f000_0000) << 4;
    let spread = spread & 0x0000_3fff_0000_3fff | (spread & 0x0fff_c000_0fff_c000) << 2;
    let spread = spread & 0x007f_007f_007f_007f | (spread & 0x3f80_3f80_3f80_3f80) << 1;
    if high > 0 {
        out.extend_from_slice(&(spread | MORE).to_le_bytes());
        return varint(high, out);
    }
    let count = (64 - spread.leading_zeros()).div_ceil(8);
    let more = MORE & (u64::MAX >> (72 - 8 * count));
    let bytes = (spread | more).to_le_bytes();
    out.extend_from_slice(bytes.get(..count as usize).unwrap_or_default());
}

#[inline]
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

/// Writes the parts of a value after the place of their length, which is one byte.
pub(crate) struct Parts<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    left: usize,
}

impl<'a> Parts<'a> {
    /// Returns where the next part is to be written.
    #[inline]
    pub(crate) fn next(&mut self) -> Value<'_> {
        Value { out: self.out, place: Place::Element, left: self.left }
    }

    #[inline]
    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        value.serialize(self.next())
    }

    /// Goes on with fields, which are the last of the parts.
    pub(crate) fn fields(self, count: usize) -> Fields<'a> {
        Fields::new(self.out, Some(self.start), self.left, count)
    }

    /// Sets the length.
    pub(crate) fn end(self) {
        end(self.out, self.start);
    }
}

/// Sets the length of what begins at `start`, after one byte for it.
fn end(out: &mut Vec<u8>, start: usize) {
    let length = out.len() - start;
    if let (Ok(short @ ..0x80), Some(byte)) = (u8::try_from(length), out.get_mut(start - 1)) {
        *byte = short;
    } else {
        let mut bytes = Vec::with_capacity(10);
        varint(length as u64, &mut bytes);
        out.splice(start - 1..start, bytes);
    }
}

/// Writes the fields of a struct in whatever order, and sorts them in the end.
pub(crate) struct Fields<'a> {
    out: &'a mut Vec<u8>,
    /// Where the length stands, unless the struct is the record.
    length: Option<usize>,
    start: usize,
    left: usize,
    written: Vec<Field>,
}

/// Where a field was written; one that is absent is counted, too, since another one of its tag
/// would be taken for it.
struct Field {
    tag: u16,
    name: &'static str,
    start: usize,
    end: usize,
}

impl<'a> Fields<'a> {
    fn new(out: &'a mut Vec<u8>, length: Option<usize>, left: usize, count: usize) -> Self {
        let start = out.len();
        Self { out, length, start, left, written: Vec::with_capacity(count) }
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Written {
        self.with(tag(name), name, |to| value.serialize(to))
    }

    /// Writes a field that has this tag. The name is for the error if another one has it.
    #[inline]
    pub(crate) fn with(
        &mut self,
        tag: u16,
        name: &'static str,
        write: impl FnOnce(Value<'_>) -> Written,
    ) -> Written {
        let start = self.out.len();
        write(Value { out: self.out, place: Place::Field(tag), left: self.left })?;
        self.written.push(Field { tag, name, start, end: self.out.len() });
        Ok(())
    }

    /// Puts the fields in order, and sets the length.
    pub(crate) fn end(mut self) -> Written {
        if !self.written.is_sorted_by(|one, next| one.tag < next.tag) {
            self.sort()?;
        }
        if let Some(length) = self.length {
            end(self.out, length);
        }
        Ok(())
    }

    fn sort(&mut self) -> Written {
        self.written.sort_unstable_by_key(|field| field.tag);
        for (one, next) in self.written.iter().zip(self.written.iter().skip(1)) {
            if one.tag == next.tag {
                return Err(Kind::SameTag(one.name, next.name).into());
            }
        }
        let end = self.out.len();
        for field in &self.written {
            self.out.extend_from_within(field.start..field.end);
        }
        self.out.copy_within(end.., self.start);
        self.out.truncate(end);
        Ok(())
    }
}

macro_rules! numbers {
    ($($method:ident($type:ty) $as:expr;)*) => {
        $(#[inline]
        fn $method(self, value: $type) -> Written {
            self.number($as(value))
        })*
    };
}

impl<'a> Serializer for Value<'a> {
    type Ok = ();
    type Error = Fault;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Parts<'a>;
    type SerializeTupleVariant = Parts<'a>;
    type SerializeMap = Parts<'a>;
    type SerializeStruct = Fields<'a>;
    type SerializeStructVariant = Fields<'a>;

    numbers! {
        serialize_bool(bool) u64::from;
        serialize_u16(u16) u64::from;
        serialize_u32(u32) u64::from;
        serialize_u64(u64) u64::from;
        serialize_char(char) u64::from;
        serialize_i16(i16) |value| zigzag(i64::from(value));
        serialize_i32(i32) |value| zigzag(i64::from(value));
        serialize_i64(i64) zigzag;
    }

    #[inline]
    fn serialize_u8(self, value: u8) -> Written {
        self.byte(value, u64::from(value))
    }

    #[inline]
    fn serialize_i8(self, value: i8) -> Written {
        self.byte(value.cast_unsigned(), zigzag(i64::from(value)))
    }

    fn serialize_u128(mut self, mut value: u128) -> Written {
        self.begin(Form::Number)?;
        while value >= 0x80 {
            let [low, ..] = value.to_le_bytes();
            self.out.push(low | 0x80);
            value >>= 7;
        }
        let [low, ..] = value.to_le_bytes();
        self.out.push(low);
        Ok(())
    }

    fn serialize_i128(self, value: i128) -> Written {
        self.serialize_u128((value << 1 ^ value >> 127).cast_unsigned())
    }

    fn serialize_f32(mut self, value: f32) -> Written {
        self.begin(Form::Four)?;
        self.out.extend_from_slice(&value.to_bits().to_le_bytes());
        Ok(())
    }

    fn serialize_f64(mut self, value: f64) -> Written {
        self.begin(Form::Eight)?;
        self.out.extend_from_slice(&value.to_bits().to_le_bytes());
        Ok(())
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Written {
        self.bytes(value.as_bytes())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Written {
        self.bytes(value)
    }

    #[inline]
    fn serialize_none(self) -> Written {
        self.option(None::<()>, |(), _| Ok(()))
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        self.option(Some(value), |value, to| value.serialize(to))
    }

    fn serialize_unit(self) -> Written {
        self.bytes(&[])
    }

    fn serialize_unit_struct(self, _: &'static str) -> Written {
        self.bytes(&[])
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Written {
        self.down()?;
        self.bytes(&tag(variant).to_be_bytes())
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Written {
        value.serialize(self.inside()?)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Written {
        let mut parts = self.variant(tag(variant))?;
        parts.part(value)?;
        parts.end();
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts<'a>, Fault> {
        self.parts()
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts<'a>, Fault> {
        self.parts()
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts<'a>, Fault> {
        self.parts()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, Fault> {
        self.variant(tag(variant))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts<'a>, Fault> {
        self.parts()
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, fields: usize) -> Result<Fields<'a>, Fault> {
        self.fields(fields)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        fields: usize,
    ) -> Result<Fields<'a>, Fault> {
        Ok(self.variant(tag(variant))?.fields(fields))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

macro_rules! parts {
    ($($name:ident::$method:ident)*) => {
        $(impl $name for Parts<'_> {
            type Ok = ();
            type Error = Fault;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
                self.part(value)
            }

            fn end(self) -> Written {
                Parts::end(self);
                Ok(())
            }
        })*
    };
}

parts! {
    SerializeSeq::serialize_element
    SerializeTuple::serialize_element
    SerializeTupleStruct::serialize_field
    SerializeTupleVariant::serialize_field
}

impl SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = Fault;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Written {
        self.part(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.part(value)
    }

    fn end(self) -> Written {
        Parts::end(self);
        Ok(())
    }
}

macro_rules! fields {
    ($($name:ident)*) => {
        $(impl $name for Fields<'_> {
            type Ok = ();
            type Error = Fault;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Written {
                self.field(name, value)
            }

            fn end(self) -> Written {
                Fields::end(self)
            }
        })*
    };
}

fields! { SerializeStruct SerializeStructVariant }
