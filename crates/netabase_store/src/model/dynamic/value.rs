//! Values of described types: their order, and how serde writes them.

use std::cmp::Ordering;
use std::time::{Duration, SystemTime};

use serde::ser::{Error, SerializeMap, SerializeSeq, SerializeTuple};
use serde::{Serialize, Serializer};

use super::model::Field;
use super::schema::{TypeBody, Types, VariantBody};
use super::types::Type;
use crate::model::blob::Blob;
use crate::version::envelope::Author;

/// A value, whose type is kept beside it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    WideUnsigned(Box<u128>),
    WideSigned(Box<i128>),
    F32(f32),
    F64(f64),
    Char(char),
    Text(String),
    Bytes(Vec<u8>),
    SystemTime(SystemTime),
    Duration(Duration),
    Author(Box<Author>),
    Blob(Box<Blob>),
    Option(Option<Box<Value>>),
    /// The items of a list, an array or a tuple, the fields of a struct, or the sorted elements of
    /// a set.
    List(Vec<Value>),
    /// Sorted by key.
    Map(Vec<(Value, Value)>),
    /// The position of a variant, and its fields.
    Variant(u32, Box<[Value]>),
}

impl Value {
    /// Compares two values of one type, as the types of Rust do whose order is derived.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Unsigned(a), Self::Unsigned(b)) => a.cmp(b),
            (Self::Signed(a), Self::Signed(b)) => a.cmp(b),
            (Self::WideUnsigned(a), Self::WideUnsigned(b)) => a.cmp(b),
            (Self::WideSigned(a), Self::WideSigned(b)) => a.cmp(b),
            (Self::F32(a), Self::F32(b)) => a.total_cmp(b),
            (Self::F64(a), Self::F64(b)) => a.total_cmp(b),
            (Self::Char(a), Self::Char(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            (Self::SystemTime(a), Self::SystemTime(b)) => a.cmp(b),
            (Self::Duration(a), Self::Duration(b)) => a.cmp(b),
            (Self::Author(a), Self::Author(b)) => a.cmp(b),
            (Self::Blob(a), Self::Blob(b)) => a.cmp(b),
            (Self::Option(a), Self::Option(b)) => match (a, b) {
                (Some(a), Some(b)) => a.order(b),
                (a, b) => a.is_some().cmp(&b.is_some()),
            },
            (Self::List(a), Self::List(b)) => order_all(a, b),
            (Self::Map(a), Self::Map(b)) => {
                let pairs = a.iter().zip(b).map(|((k, v), (l, w))| k.order(l).then_with(|| v.order(w)));
                first_difference(pairs).then_with(|| a.len().cmp(&b.len()))
            }
            (Self::Variant(a, x), Self::Variant(b, y)) => a.cmp(b).then_with(|| order_all(x, y)),
            // Never of one type.
            _ => Ordering::Equal,
        }
    }

    /// Makes a set of elements in any order.
    pub(super) fn set(mut elements: Vec<Self>) -> Self {
        elements.sort_by(Self::order);
        elements.dedup_by(|a, b| a.order(b).is_eq());
        Self::List(elements)
    }

    /// Makes a map of entries in any order, of which later ones replace earlier ones.
    pub(super) fn map(mut entries: Vec<(Self, Self)>) -> Self {
        entries.reverse();
        // The sort is stable: of equal keys the last one stays the first.
        entries.sort_by(|(a, _), (b, _)| a.order(b));
        entries.dedup_by(|(a, _), (b, _)| a.order(b).is_eq());
        Self::Map(entries)
    }

    /// Returns the fields of a record, or the items of a list.
    pub(super) fn fields(&self) -> &[Self] {
        if let Self::List(fields) = self { fields } else { &[] }
    }
}

fn order_all(a: &[Value], b: &[Value]) -> Ordering {
    first_difference(a.iter().zip(b).map(|(a, b)| a.order(b))).then_with(|| a.len().cmp(&b.len()))
}

fn first_difference(mut orders: impl Iterator<Item = Ordering>) -> Ordering {
    orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// The form of numbers that JSON does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// As serde's derives have it.
    Serde,
    /// As text if they have more than 64 bits, are infinite or are NaN: for keys, which are shown.
    Text,
}

/// A value together with its type, which serde can write.
#[derive(Clone, Copy)]
pub(super) struct Typed<'a> {
    pub(super) value: &'a Value,
    pub(super) ty: &'a Type,
    pub(super) types: &'a Types,
    pub(super) numbers: Numbers,
}

impl<'a> Typed<'a> {
    pub(super) fn at(self, value: &'a Value, ty: &'a Type) -> Self {
        Self { value, ty, ..self }
    }
}

impl Serialize for Typed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.ty, self.value) {
            (Type::Bool, Value::Bool(value)) => serializer.serialize_bool(*value),
            (Type::U8, Value::Unsigned(value)) => serializer.serialize_u8(narrow(*value)?),
            (Type::U16, Value::Unsigned(value)) => serializer.serialize_u16(narrow(*value)?),
            (Type::U32, Value::Unsigned(value)) => serializer.serialize_u32(narrow(*value)?),
            (Type::U64, Value::Unsigned(value)) => serializer.serialize_u64(*value),
            (Type::I8, Value::Signed(value)) => serializer.serialize_i8(narrow(*value)?),
            (Type::I16, Value::Signed(value)) => serializer.serialize_i16(narrow(*value)?),
            (Type::I32, Value::Signed(value)) => serializer.serialize_i32(narrow(*value)?),
            (Type::I64, Value::Signed(value)) => serializer.serialize_i64(*value),
            (Type::U128, Value::WideUnsigned(value)) => match (self.numbers, u64::try_from(**value)) {
                (Numbers::Serde, _) => serializer.serialize_u128(**value),
                (Numbers::Text, Ok(value)) => serializer.serialize_u64(value),
                (Numbers::Text, Err(_)) => serializer.collect_str(value),
            },
            (Type::I128, Value::WideSigned(value)) => match (self.numbers, i64::try_from(**value)) {
                (Numbers::Serde, _) => serializer.serialize_i128(**value),
                (Numbers::Text, Ok(value)) => serializer.serialize_i64(value),
                (Numbers::Text, Err(_)) => serializer.collect_str(value),
            },
            (Type::F32, Value::F32(value)) if self.numbers == Numbers::Text && !value.is_finite() => {
                serializer.collect_str(value)
            }
            (Type::F64, Value::F64(value)) if self.numbers == Numbers::Text && !value.is_finite() => {
                serializer.collect_str(value)
            }
            (Type::F32, Value::F32(value)) => serializer.serialize_f32(*value),
            (Type::F64, Value::F64(value)) => serializer.serialize_f64(*value),
            (Type::Char, Value::Char(value)) => serializer.serialize_char(*value),
            (Type::Text, Value::Text(value)) => serializer.serialize_str(value),
            (Type::Bytes, Value::Bytes(value)) => serializer.collect_seq(value),
            (Type::WallTime, Value::SystemTime(value)) => value.serialize(serializer),
            (Type::TimeSpan, Value::Duration(value)) => value.serialize(serializer),
            (Type::AuthorKey, Value::Author(value)) => value.serialize(serializer),
            (Type::BlobName, Value::Blob(value)) => value.serialize(serializer),
            (Type::Optional(inner), Value::Option(value)) => match value {
                Some(value) => serializer.serialize_some(&self.at(value, inner)),
                None => serializer.serialize_none(),
            },
            (Type::List(item) | Type::Set(item), Value::List(items)) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|value| list.serialize_element(&self.at(value, item)))?;
                list.end()
            }
            (Type::Array(item, _), Value::List(items)) => {
                let mut array = serializer.serialize_tuple(items.len())?;
                items.iter().try_for_each(|value| array.serialize_element(&self.at(value, item)))?;
                array.end()
            }
            (Type::Map(key, value), Value::Map(entries)) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (of, entry) in entries {
                    map.serialize_entry(&self.at(of, key), &self.at(entry, value))?;
                }
                map.end()
            }
            (Type::Tuple(parts), Value::List(values)) => {
                Parts { whole: *self, values, types: parts }.serialize(serializer)
            }
            (Type::Named { position, .. }, value) => match (self.types.body(*position), value) {
                (Some(TypeBody::Struct(fields)), Value::List(values)) => {
                    Fields { whole: *self, values, described: fields }.serialize(serializer)
                }
                (Some(TypeBody::Tuple(types)), Value::List(values)) => {
                    Parts { whole: *self, values, types }.serialize_newtype(serializer)
                }
                (Some(TypeBody::Enum(variants)), Value::Variant(index, values)) => {
                    let variant = usize::try_from(*index).ok().and_then(|index| variants.get(index));
                    let variant = variant.ok_or_else(|| S::Error::custom(OTHER_TYPE))?;
                    let content = Content { whole: *self, values, body: &variant.body };
                    content.serialize_variant(*index, &variant.name, serializer)
                }
                _ => Err(S::Error::custom(OTHER_TYPE)),
            },
            _ => Err(S::Error::custom(OTHER_TYPE)),
        }
    }
}

const OTHER_TYPE: &str = "the value is of another type";

fn narrow<W: TryInto<N>, N, E: Error>(wide: W) -> Result<N, E> {
    wide.try_into().map_err(|_| E::custom(OTHER_TYPE))
}

/// The fields of a struct: an object in JSON, and one value after the other in postcard.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) whole: Typed<'a>,
    pub(super) values: &'a [Value],
    pub(super) described: &'a [Field],
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = self.described.iter().zip(self.values);
        if serializer.is_human_readable() {
            let mut map = serializer.serialize_map(Some(self.described.len()))?;
            fields.try_for_each(|(field, value)| {
                map.serialize_entry(&*field.name, &self.whole.at(value, &field.ty))
            })?;
            return map.end();
        }
        let mut tuple = serializer.serialize_tuple(self.described.len())?;
        fields.try_for_each(|(field, value)| tuple.serialize_element(&self.whole.at(value, &field.ty)))?;
        tuple.end()
    }
}

/// The parts of a tuple.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) whole: Typed<'a>,
    pub(super) values: &'a [Value],
    pub(super) types: &'a [Type],
}

impl Parts<'_> {
    /// Writes the only part of a tuple struct as if it were the struct.
    fn serialize_newtype<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.types, self.values) {
            ([ty], [value]) => self.whole.at(value, ty).serialize(serializer),
            _ => self.serialize(serializer),
        }
    }
}

impl Serialize for Parts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.types.len())?;
        for (ty, value) in self.types.iter().zip(self.values) {
            tuple.serialize_element(&self.whole.at(value, ty))?;
        }
        tuple.end()
    }
}

/// The content of a variant.
#[derive(Clone, Copy)]
struct Content<'a> {
    whole: Typed<'a>,
    values: &'a [Value],
    body: &'a VariantBody,
}

impl Content<'_> {
    fn serialize_variant<S: Serializer>(
        &self,
        index: u32,
        name: &str,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match (serializer.is_human_readable(), self.body) {
            (true, VariantBody::Unit) => serializer.serialize_str(name),
            (true, _) => serializer.collect_map([(name, self)]),
            (false, VariantBody::Unit) => serializer.serialize_u32(index),
            (false, _) => {
                let mut tuple = serializer.serialize_tuple(2)?;
                tuple.serialize_element(&index)?;
                tuple.serialize_element(self)?;
                tuple.end()
            }
        }
    }
}

impl Serialize for Content<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { whole, values, body } = *self;
        match body {
            VariantBody::Unit => serializer.serialize_unit(),
            VariantBody::Tuple(types) => Parts { whole, values, types }.serialize_newtype(serializer),
            VariantBody::Struct(fields) => Fields { whole, values, described: fields }.serialize(serializer),
        }
    }
}
