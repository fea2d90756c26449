//! Reading values of described types, out of postcard as out of JSON.
//!
//! Every type makes the calls of serde that the derived code of the Rust type would make, so that
//! both accept the same bytes. Nothing is allocated by a length that is only claimed, and how deep
//! and large a value may be is bounded.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use super::model::Field;
use super::number::NumberOrText;
use super::schema::{TypeBody, Types, Variant, VariantBody};
use super::types::Type;
use super::value::{Numbers, Value};
use crate::model::blob::Blob;
use crate::model::limits::{MAX_VALUE_DEPTH, MAX_VALUE_PARTS};
use crate::version::envelope::Author;

/// The state that all parts of a value share while it is read.
pub(super) struct Reading<'a> {
    types: &'a Types,
    numbers: Numbers,
    /// The number of parts that may follow.
    left: Cell<usize>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(types: &'a Types, numbers: Numbers) -> Self {
        Self { types, numbers, left: Cell::new(MAX_VALUE_PARTS) }
    }

    /// Counts a part of the value.
    fn count<E: Error>(&self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1);
        let left = left.ok_or_else(|| {
            E::custom(format_args!("a value has at most {MAX_VALUE_PARTS} parts; a byte string is one"))
        })?;
        self.left.set(left);
        Ok(())
    }

    /// Reads a value of a type.
    pub(super) fn seed(&'a self, ty: &'a Type) -> Seed<'a> {
        Seed { reading: self, ty, depth: 0 }
    }

    /// Reads the fields of a struct.
    pub(super) fn fields_seed(&'a self, fields: &'a [Field]) -> FieldsSeed<'a> {
        FieldsSeed { fields, inner: Inner { reading: self, depth: 0 } }
    }
}

/// Reads a value of a type.
#[derive(Clone, Copy)]
pub(super) struct Seed<'a> {
    reading: &'a Reading<'a>,
    pub(super) ty: &'a Type,
    depth: usize,
}

/// The place at which the parts of a value are read.
#[derive(Clone, Copy)]
pub(super) struct Inner<'a> {
    reading: &'a Reading<'a>,
    depth: usize,
}

impl<'a> Inner<'a> {
    pub(super) fn seed(self, ty: &'a Type) -> Seed<'a> {
        Seed { reading: self.reading, ty, depth: self.depth }
    }

    pub(super) fn body(self, position: usize) -> Option<&'a TypeBody> {
        self.reading.types.body(position)
    }

    /// Returns the value of a field, which may be absent if it is an option or has a default.
    pub(super) fn present<E: Error>(self, field: &'a Field, value: Option<Value>) -> Result<Value, E> {
        match (value, &field.default, &field.ty) {
            (Some(value), ..) => Ok(value),
            (None, Some(default), _) => {
                let mut from = serde_json::Deserializer::from_str(default);
                self.seed(&field.ty).deserialize(&mut from).map_err(E::custom)
            }
            (None, None, Type::Optional(_)) => self.reading.count().map(|()| Value::Option(None)),
            (None, None, _) => Err(E::custom(format_args!("missing field `{}`", field.name))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        let inner = self.enter::<D::Error>()?;
        let text = self.reading.numbers == Numbers::Text && from.is_human_readable();
        Ok(match self.ty {
            Type::Bool => Value::Bool(bool::deserialize(from)?),
            Type::U8 => Value::Unsigned(u8::deserialize(from)?.into()),
            Type::U16 => Value::Unsigned(u16::deserialize(from)?.into()),
            Type::U32 => Value::Unsigned(u32::deserialize(from)?.into()),
            Type::U64 => Value::Unsigned(u64::deserialize(from)?),
            Type::I8 => Value::Signed(i8::deserialize(from)?.into()),
            Type::I16 => Value::Signed(i16::deserialize(from)?.into()),
            Type::I32 => Value::Signed(i32::deserialize(from)?.into()),
            Type::I64 => Value::Signed(i64::deserialize(from)?),
            Type::U128 if text => Value::WideUnsigned(Box::new(from.deserialize_any(NumberOrText::new())?)),
            Type::I128 if text => Value::WideSigned(Box::new(from.deserialize_any(NumberOrText::new())?)),
            Type::F32 if text => Value::F32(from.deserialize_any(NumberOrText::new())?),
            Type::F64 if text => Value::F64(from.deserialize_any(NumberOrText::new())?),
            Type::U128 => Value::WideUnsigned(Box::new(u128::deserialize(from)?)),
            Type::I128 => Value::WideSigned(Box::new(i128::deserialize(from)?)),
            Type::F32 => Value::F32(f32::deserialize(from)?),
            Type::F64 => Value::F64(f64::deserialize(from)?),
            Type::Char => Value::Char(char::deserialize(from)?),
            Type::Text => Value::Text(String::deserialize(from)?),
            Type::WallTime => Value::SystemTime(SystemTime::deserialize(from)?),
            Type::TimeSpan => Value::Duration(Duration::deserialize(from)?),
            Type::AuthorKey => Value::Author(Box::new(Author::deserialize(from)?)),
            Type::BlobName => Value::Blob(Box::new(Blob::deserialize(from)?)),
            Type::Bytes => from.deserialize_seq(BytesVisitor)?,
            Type::Optional(of) => from.deserialize_option(OptionVisitor(inner.seed(of)))?,
            Type::List(item) => Value::List(from.deserialize_seq(ListVisitor(inner.seed(item)))?),
            Type::Set(item) => Value::set(from.deserialize_seq(ListVisitor(inner.seed(item)))?),
            Type::Map(key, value) => {
                from.deserialize_map(MapVisitor { key: inner.seed(key), value: inner.seed(value) })?
            }
            Type::Tuple(types) => Value::List(parts(types, inner, from)?),
            Type::Array(item, len) => {
                let visitor = ArrayVisitor { item: inner.seed(item), len: *len };
                Value::List(from.deserialize_tuple(*len, visitor)?)
            }
            Type::Named { position, .. } => match self.reading.types.body(*position) {
                Some(TypeBody::Struct(fields)) => FieldsSeed { fields, inner }.deserialize(from)?,
                Some(TypeBody::Tuple(types)) => match types.as_slice() {
                    [only] => Value::List(vec![inner.seed(only).deserialize(from)?]),
                    types => Value::List(parts(types, inner, from)?),
                },
                Some(TypeBody::Enum(variants)) => {
                    let is_json = from.is_human_readable();
                    from.deserialize_enum("", &[], EnumVisitor { variants, is_json, inner })?
                }
                None => return Err(D::Error::custom("the type is not in the schema")),
            },
        })
    }
}

impl<'a> Seed<'a> {
    /// Counts this part of the value, and enters one level.
    pub(super) fn enter<E: Error>(&self) -> Result<Inner<'a>, E> {
        if self.depth >= MAX_VALUE_DEPTH {
            return Err(E::custom(format_args!("values nest at most {MAX_VALUE_DEPTH} levels deep")));
        }
        self.reading.count()?;
        Ok(Inner { reading: self.reading, depth: self.depth + 1 })
    }
}

fn parts<'de, D: Deserializer<'de>>(
    types: &[Type],
    inner: Inner<'_>,
    from: D,
) -> Result<Vec<Value>, D::Error> {
    from.deserialize_tuple(types.len(), PartsVisitor { types: types.iter(), len: types.len(), inner })
}

/// Reads the fields of a struct: an object or an array in JSON, one value after the other in
/// postcard.
#[derive(Clone, Copy)]
pub(super) struct FieldsSeed<'a> {
    pub(super) fields: &'a [Field],
    pub(super) inner: Inner<'a>,
}

impl<'de> DeserializeSeed<'de> for FieldsSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        let values = if from.is_human_readable() {
            from.deserialize_struct("", &[], FieldsVisitor(self))
        } else {
            from.deserialize_tuple(self.fields.len(), FieldsVisitor(self))
        };
        values.map(Value::List)
    }
}

struct FieldsVisitor<'a>(FieldsSeed<'a>);

impl<'de> Visitor<'de> for FieldsVisitor<'_> {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with {} fields", self.0.fields.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<Value>, A::Error> {
        let FieldsSeed { fields, inner } = self.0;
        let types = fields.iter().map(|field| &field.ty);
        PartsVisitor { types, len: fields.len(), inner }.visit_seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Value>, A::Error> {
        let FieldsSeed { fields, inner } = self.0;
        let mut values = vec![None; fields.len()];
        let names = FieldName(fields);
        while let Some(position) = map.next_key_seed(names)? {
            // The seed returns positions of fields alone.
            let (Some(place), Some(field)) = (values.get_mut(position), fields.get(position)) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if place.is_some() {
                return Err(A::Error::custom(format_args!("duplicate field `{}`", field.name)));
            }
            *place = Some(map.next_value_seed(inner.seed(&field.ty))?);
        }
        fields.iter().zip(values).map(|(field, value)| inner.present(field, value)).collect()
    }
}

/// Reads the name of a field as its position.
#[derive(Clone, Copy)]
struct FieldName<'a>(&'a [Field]);

impl<'de> DeserializeSeed<'de> for FieldName<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<usize, D::Error> {
        from.deserialize_identifier(self)
    }
}

impl Visitor<'_> for FieldName<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<usize, E> {
        self.0.iter().position(|field| field.is_called(name)).ok_or_else(|| {
            let known = self.0.iter().map(|field| format!("`{}`", field.name)).collect::<Vec<_>>().join(", ");
            E::custom(format_args!("unknown field `{name}`, expected one of {known}"))
        })
    }
}

/// Reads one value of each type.
struct PartsVisitor<'a, I> {
    types: I,
    len: usize,
    inner: Inner<'a>,
}

impl<'de, 'a, I: Iterator<Item = &'a Type>> Visitor<'de> for PartsVisitor<'a, I> {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values", self.len)
    }

    /// Accepts the unit for which `serde_json::Value` takes an empty array in a variant.
    fn visit_unit<E: Error>(self) -> Result<Vec<Value>, E> {
        if self.len == 0 { Ok(Vec::new()) } else { Err(E::invalid_length(0, &self)) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Value>, A::Error> {
        let mut values = Vec::new();
        for ty in self.types {
            let value = seq.next_element_seed(self.inner.seed(ty))?;
            values.push(value.ok_or_else(|| {
                A::Error::custom(format_args!(
                    "invalid length {}, expected {} values",
                    values.len(),
                    self.len
                ))
            })?);
        }
        Ok(values)
    }
}

struct ArrayVisitor<'a> {
    item: Seed<'a>,
    len: usize,
}

impl<'de> Visitor<'de> for ArrayVisitor<'_> {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {} items", self.len)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Value>, A::Error> {
        let mut items = Vec::new();
        while items.len() < self.len {
            let item = seq.next_element_seed(self.item)?;
            items.push(item.ok_or_else(|| A::Error::invalid_length(items.len(), &self))?);
        }
        Ok(items)
    }
}

struct ListVisitor<'a>(Seed<'a>);

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Value>, A::Error> {
        // The list grows with its actual items, since the declared length may be a lie.
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self.0)? {
            items.push(item);
        }
        Ok(items)
    }
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of bytes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        Ok(Value::Bytes(bytes))
    }
}

struct OptionVisitor<'a>(Seed<'a>);

impl<'de> Visitor<'de> for OptionVisitor<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or nothing")
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Option(None))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Option(None))
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        self.0.deserialize(from).map(|value| Value::Option(Some(Box::new(value))))
    }
}

struct MapVisitor<'a> {
    key: Seed<'a>,
    value: Seed<'a>,
}

impl<'de> Visitor<'de> for MapVisitor<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry_seed(self.key, self.value)? {
            entries.push(entry);
        }
        Ok(Value::map(entries))
    }
}

#[derive(Clone, Copy)]
struct EnumVisitor<'a> {
    variants: &'a [Variant],
    is_json: bool,
    inner: Inner<'a>,
}

impl<'de> Visitor<'de> for EnumVisitor<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an enum")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        let (index, content) = access.variant_seed(VariantName(self.variants))?;
        let variant = usize::try_from(index).ok().and_then(|index| self.variants.get(index));
        let variant = variant.ok_or_else(|| A::Error::custom(format_args!("no variant {index}")))?;
        let inner = self.inner;
        let values = match &variant.body {
            VariantBody::Unit => content.unit_variant().map(|()| Vec::new()),
            VariantBody::Tuple(types) => match types.as_slice() {
                [only] => content.newtype_variant_seed(inner.seed(only)).map(|value| vec![value]),
                types => {
                    let visitor = PartsVisitor { types: types.iter(), len: types.len(), inner };
                    content.tuple_variant(types.len(), visitor)
                }
            },
            VariantBody::Struct(fields) => {
                let visitor = FieldsVisitor(FieldsSeed { fields, inner });
                if self.is_json {
                    content.struct_variant(&[], visitor)
                } else {
                    content.tuple_variant(fields.len(), visitor)
                }
            }
        };
        Ok(Value::Variant(index, values?.into_boxed_slice()))
    }
}

/// Reads the name of a variant, or its position, as its position.
struct VariantName<'a>(&'a [Variant]);

impl<'de> DeserializeSeed<'de> for VariantName<'_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<u32, D::Error> {
        from.deserialize_identifier(self)
    }
}

impl Visitor<'_> for VariantName<'_> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a variant")
    }

    fn visit_u64<E: Error>(self, index: u64) -> Result<u32, E> {
        u32::try_from(index).map_err(|_| E::custom(format_args!("no variant {index}")))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<u32, E> {
        let position = self.0.iter().position(|variant| &*variant.name == name);
        position.and_then(|position| u32::try_from(position).ok()).ok_or_else(|| {
            let known = self.0.iter().map(|known| format!("`{}`", known.name)).collect::<Vec<_>>().join(", ");
            E::custom(format_args!("unknown variant `{name}`, expected one of {known}"))
        })
    }
}
