//! The bytes of keys of described types; they are those of the Rust types' [`KeyField`].

use std::iter;

use super::schema::{TypeBody, Types, VariantBody};
use super::types::Type;
use super::value::Value;
use crate::error::KeyError;
use crate::model::key::{END, ESCAPE as ITEM, KeyField};
use crate::model::limits::{MAX_KEY_FIELDS, MAX_SCHEMA_VARIANTS, MAX_VALUE_DEPTH};
use crate::version::envelope::Author;

/// Returns whether values of a type can be part of a key.
pub(super) fn is_key(ty: &Type, types: &Types) -> bool {
    is_key_within(ty, types, MAX_VALUE_DEPTH, &mut Vec::new())
}

/// `seen` are the named types that were looked at, which bounds the work.
fn is_key_within(ty: &Type, types: &Types, depth: usize, seen: &mut Vec<usize>) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    let mut all = |parts: &[Type]| parts.iter().all(|part| is_key_within(part, types, depth, seen));
    match ty {
        Type::BlobName | Type::Set(_) | Type::Map(..) => false,
        Type::Array(item, _) => **item == Type::U8,
        Type::Tuple(parts) => parts.len() <= MAX_KEY_FIELDS && all(parts),
        // Of two kinds of nothing JSON has one.
        Type::Optional(inner) if is_nullable(inner, types, depth) => false,
        Type::Optional(inner) | Type::List(inner) => is_key_within(inner, types, depth, seen),
        Type::Named { position, .. } if seen.contains(position) => true,
        Type::Named { position, .. } => {
            seen.push(*position);
            let mut is_key = |ty: &Type| is_key_within(ty, types, depth, seen);
            match types.body(*position) {
                Some(TypeBody::Struct(fields)) => fields.iter().all(|field| is_key(&field.ty)),
                Some(TypeBody::Tuple(parts)) => parts.iter().all(is_key),
                Some(TypeBody::Enum(variants)) => {
                    variants.len() <= MAX_SCHEMA_VARIANTS
                        && variants.iter().all(|variant| variant.body.types().all(&mut is_key))
                }
                None => false,
            }
        }
        _ => true,
    }
}

/// Returns whether a value of a type may be `null` in JSON.
fn is_nullable(ty: &Type, types: &Types, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    match ty {
        Type::Optional(_) => true,
        Type::Named { position, .. } => match types.body(*position) {
            Some(TypeBody::Tuple(parts)) => {
                matches!(parts.as_slice(), [only] if is_nullable(only, types, depth))
            }
            _ => false,
        },
        _ => false,
    }
}

/// Appends the key bytes of a value.
pub(super) fn encode(value: &Value, ty: &Type, types: &Types, out: &mut Vec<u8>) {
    match (ty, value) {
        (_, Value::Bool(value)) => value.encode_key(out),
        (_, Value::Unsigned(value)) => {
            let bytes = value.to_be_bytes();
            out.extend(bytes.get(bytes.len() - unsigned_width(ty)..).unwrap_or_default());
        }
        (Type::I8, Value::Signed(value)) => i8::try_from(*value).unwrap_or_default().encode_key(out),
        (Type::I16, Value::Signed(value)) => i16::try_from(*value).unwrap_or_default().encode_key(out),
        (Type::I32, Value::Signed(value)) => i32::try_from(*value).unwrap_or_default().encode_key(out),
        (_, Value::Signed(value)) => value.encode_key(out),
        (_, Value::WideUnsigned(value)) => value.encode_key(out),
        (_, Value::WideSigned(value)) => value.encode_key(out),
        (_, Value::F32(value)) => value.encode_key(out),
        (_, Value::F64(value)) => value.encode_key(out),
        (_, Value::Char(value)) => value.encode_key(out),
        (_, Value::Text(value)) => value.encode_key(out),
        (_, Value::Bytes(value)) => value.encode_key(out),
        (_, Value::SystemTime(value)) => value.encode_key(out),
        (_, Value::Duration(value)) => value.encode_key(out),
        (_, Value::Author(value)) => value.encode_key(out),
        (Type::Optional(inner), Value::Option(value)) => {
            out.push(u8::from(value.is_some()));
            if let Some(value) = value {
                encode(value, inner, types, out);
            }
        }
        (Type::List(item), Value::List(items)) => {
            for value in items {
                out.push(ITEM);
                encode(value, item, types, out);
            }
            out.push(END);
        }
        (Type::Array(item, _), Value::List(items)) => {
            encode_all(items, iter::repeat(&**item), types, out);
        }
        (Type::Tuple(parts), Value::List(values)) => encode_all(values, parts, types, out),
        (Type::Named { position, .. }, value) => match (types.body(*position), value) {
            (Some(TypeBody::Struct(fields)), Value::List(values)) => {
                encode_all(values, fields.iter().map(|field| &field.ty), types, out);
            }
            (Some(TypeBody::Tuple(parts)), Value::List(values)) => encode_all(values, parts, types, out),
            (Some(TypeBody::Enum(variants)), Value::Variant(index, values)) => {
                out.push(u8::try_from(*index).unwrap_or_default());
                let variant = usize::try_from(*index).ok().and_then(|index| variants.get(index));
                let types_of = variant.into_iter().flat_map(|variant| variant.body.types());
                encode_all(values, types_of, types, out);
            }
            _ => {}
        },
        // Types that are no keys have been refused.
        _ => {}
    }
}

/// Appends the key bytes of values, one after the other.
pub(super) fn encode_all<'a>(
    values: &[Value],
    of: impl IntoIterator<Item = &'a Type>,
    types: &Types,
    out: &mut Vec<u8>,
) {
    for (value, ty) in values.iter().zip(of) {
        encode(value, ty, types, out);
    }
}

fn unsigned_width(ty: &Type) -> usize {
    match ty {
        Type::U8 => 1,
        Type::U16 => 2,
        Type::U32 => 4,
        _ => 8,
    }
}

/// Reads one value from the front of `input`.
pub(super) fn decode(ty: &Type, types: &Types, input: &mut &[u8], depth: usize) -> Result<Value, KeyError> {
    let depth = depth.checked_sub(1).ok_or(KeyError::Malformed { expected: "so deep" })?;
    Ok(match ty {
        Type::Bool => Value::Bool(bool::decode_key(input)?),
        Type::U8 => Value::Unsigned(u8::decode_key(input)?.into()),
        Type::U16 => Value::Unsigned(u16::decode_key(input)?.into()),
        Type::U32 => Value::Unsigned(u32::decode_key(input)?.into()),
        Type::U64 => Value::Unsigned(u64::decode_key(input)?),
        Type::U128 => Value::WideUnsigned(Box::new(u128::decode_key(input)?)),
        Type::I8 => Value::Signed(i8::decode_key(input)?.into()),
        Type::I16 => Value::Signed(i16::decode_key(input)?.into()),
        Type::I32 => Value::Signed(i32::decode_key(input)?.into()),
        Type::I64 => Value::Signed(i64::decode_key(input)?),
        Type::I128 => Value::WideSigned(Box::new(i128::decode_key(input)?)),
        Type::F32 => Value::F32(f32::decode_key(input)?),
        Type::F64 => Value::F64(f64::decode_key(input)?),
        Type::Char => Value::Char(char::decode_key(input)?),
        Type::Text => Value::Text(String::decode_key(input)?),
        Type::Bytes => Value::Bytes(Vec::decode_key(input)?),
        Type::WallTime => Value::SystemTime(KeyField::decode_key(input)?),
        Type::TimeSpan => Value::Duration(KeyField::decode_key(input)?),
        Type::AuthorKey => Value::Author(Box::new(Author::decode_key(input)?)),
        Type::Optional(inner) => {
            let is_some = bool::decode_key(input)?;
            let value = is_some.then(|| decode(inner, types, input, depth)).transpose()?;
            Value::Option(value.map(Box::new))
        }
        Type::List(item) => {
            let mut items = Vec::new();
            loop {
                match u8::decode_key(input)? {
                    END => break Value::List(items),
                    ITEM => items.push(decode(item, types, input, depth)?),
                    _ => return Err(KeyError::Malformed { expected: "a list" }),
                }
            }
        }
        Type::Array(item, len) => {
            Value::List((0..*len).map(|_| decode(item, types, input, depth)).collect::<Result<_, _>>()?)
        }
        Type::Tuple(parts) => Value::List(decode_all(parts, types, input, depth)?),
        Type::Named { position, .. } => match types.body(*position) {
            Some(TypeBody::Struct(fields)) => {
                Value::List(decode_all(fields.iter().map(|field| &field.ty), types, input, depth)?)
            }
            Some(TypeBody::Tuple(parts)) => Value::List(decode_all(parts, types, input, depth)?),
            Some(TypeBody::Enum(variants)) => {
                let index = u8::decode_key(input)?;
                let variant = variants.get(usize::from(index));
                let body = &variant.ok_or(KeyError::Malformed { expected: "a variant" })?.body;
                let values = match body {
                    VariantBody::Unit => Vec::new(),
                    body => decode_all(body.types(), types, input, depth)?,
                };
                Value::Variant(index.into(), values.into_boxed_slice())
            }
            None => return Err(KeyError::Malformed { expected: "a type of the schema" }),
        },
        Type::BlobName | Type::Set(_) | Type::Map(..) => {
            return Err(KeyError::Malformed { expected: "a key type" });
        }
    })
}

/// Reads one value of each type from the front of `input`.
fn decode_all<'a>(
    of: impl IntoIterator<Item = &'a Type>,
    types: &Types,
    input: &mut &[u8],
    depth: usize,
) -> Result<Vec<Value>, KeyError> {
    of.into_iter().map(|ty| decode(ty, types, input, depth)).collect()
}

/// Reads the values of a whole key.
pub(super) fn decode_key<'a>(
    of: impl IntoIterator<Item = &'a Type>,
    types: &Types,
    mut bytes: &[u8],
) -> Result<Vec<Value>, KeyError> {
    let values = decode_all(of, types, &mut bytes, MAX_VALUE_DEPTH)?;
    if bytes.is_empty() { Ok(values) } else { Err(KeyError::TrailingBytes { extra: bytes.len() }) }
}
