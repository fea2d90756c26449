//! Values of described types under the tags of their fields, as the code of the macros writes and
//! reads them.

use serde::Serialize;
use serde::de::{DeserializeSeed, Error};

use super::decode::{FieldsSeed, Inner, Seed};
use super::schema::{TypeBody, Variant, VariantBody};
use super::types::Type;
use super::value::{Fields, Typed, Value};
use crate::model::fields::{Fault, FieldsWriter, PartsReader, ValueReader, ValueWriter, tag};

/// Reads a field, and returns whether there is one of this tag.
type ReadField<'a, 'de> = dyn FnMut(u16, ValueReader<'_, 'de>) -> Result<bool, Fault> + 'a;

impl Typed<'_> {
    /// Writes the value.
    pub(super) fn write(&self, to: ValueWriter<'_>) -> Result<(), Fault> {
        match (self.ty, self.value) {
            (Type::Optional(inner), Value::Option(value)) => {
                to.option(value.as_ref(), |value, to| self.at(value, inner).write(to))
            }
            (Type::List(item) | Type::Set(item) | Type::Array(item, _), Value::List(items)) => {
                let mut parts = to.parts()?;
                items.iter().try_for_each(|value| self.at(value, item).write(parts.next()))?;
                parts.end();
                Ok(())
            }
            (Type::Map(key, value), Value::Map(entries)) => {
                let mut parts = to.parts()?;
                for (of, entry) in entries {
                    self.at(of, key).write(parts.next())?;
                    self.at(entry, value).write(parts.next())?;
                }
                parts.end();
                Ok(())
            }
            (Type::Tuple(types), Value::List(values)) => self.write_parts(types, values, to),
            (Type::Named { position, .. }, value) => match (self.types.body(*position), value) {
                (Some(TypeBody::Struct(fields)), Value::List(values)) => {
                    Fields { whole: *self, values, described: fields }.write(to)
                }
                (Some(TypeBody::Tuple(types)), Value::List(values)) => {
                    match (types.as_slice(), values.as_slice()) {
                        ([ty], [value]) => self.at(value, ty).write(to.inside()?),
                        _ => self.write_parts(types, values, to),
                    }
                }
                (Some(TypeBody::Enum(variants)), Value::Variant(index, values)) => {
                    let variant = usize::try_from(*index).ok().and_then(|index| variants.get(index));
                    let variant = variant.ok_or_else(Fault::other_type)?;
                    self.write_variant(variant, values, to)
                }
                _ => Err(Fault::other_type()),
            },
            _ => self.serialize(to),
        }
    }

    fn write_parts(&self, types: &[Type], values: &[Value], to: ValueWriter<'_>) -> Result<(), Fault> {
        let mut parts = to.parts()?;
        types.iter().zip(values).try_for_each(|(ty, value)| self.at(value, ty).write(parts.next()))?;
        parts.end();
        Ok(())
    }

    fn write_variant(&self, variant: &Variant, values: &[Value], to: ValueWriter<'_>) -> Result<(), Fault> {
        let mut parts = to.variant(tag(&variant.name))?;
        match &variant.body {
            VariantBody::Unit => {}
            VariantBody::Tuple(types) => {
                types
                    .iter()
                    .zip(values)
                    .try_for_each(|(ty, value)| self.at(value, ty).write(parts.next()))?;
            }
            VariantBody::Struct(fields) => {
                let mut to = parts.fields(fields.len());
                Fields { whole: *self, values, described: fields }.write_each(&mut to)?;
                return to.end();
            }
        }
        parts.end();
        Ok(())
    }
}

impl Fields<'_> {
    /// Writes the fields of a model.
    pub(super) fn write_record(&self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut to = ValueWriter::record(out).fields(self.described.len())?;
        for (field, value) in self.described.iter().zip(self.values) {
            let tag = tag(field.stored_name());
            to.with(tag, "", |to| self.whole.at(value, &field.ty).write(to))?;
        }
        to.end()
    }

    /// Writes a struct, as serde writes it, which does not tell of former names.
    fn write(&self, to: ValueWriter<'_>) -> Result<(), Fault> {
        let mut to = to.fields(self.described.len())?;
        self.write_each(&mut to)?;
        to.end()
    }

    fn write_each(&self, to: &mut FieldsWriter<'_>) -> Result<(), Fault> {
        self.described.iter().zip(self.values).try_for_each(|(field, value)| {
            // A schema has no two fields of one tag in a struct.
            to.with(tag(&field.name), "", |to| self.whole.at(value, &field.ty).write(to))
        })
    }
}

impl Seed<'_> {
    /// Reads a value.
    fn read(self, from: ValueReader<'_, '_>) -> Result<Value, Fault> {
        let inner = match self.ty {
            Type::Optional(_)
            | Type::List(_)
            | Type::Set(_)
            | Type::Map(..)
            | Type::Tuple(_)
            | Type::Array(..)
            | Type::Named { .. } => self.enter::<Fault>()?,
            // Those without described parts.
            _ => return self.deserialize(from),
        };
        Ok(match self.ty {
            Type::Optional(of) => Value::Option(from.option(|from| inner.seed(of).read(from))?.map(Box::new)),
            Type::List(item) => Value::List(from.all_parts(|parts| inner.items(item, parts))?),
            Type::Set(item) => Value::set(from.all_parts(|parts| inner.items(item, parts))?),
            Type::Array(item, len) => Value::List(
                from.all_parts(|parts| (0..*len).map(|_| inner.seed(item).read(parts.next())).collect())?,
            ),
            Type::Map(key, value) => Value::map(from.all_parts(|parts| {
                let mut entries = Vec::new();
                while !parts.is_empty() {
                    entries
                        .push((inner.seed(key).read(parts.next())?, inner.seed(value).read(parts.next())?));
                }
                Ok(entries)
            })?),
            Type::Tuple(types) => Value::List(from.all_parts(|parts| inner.each(types, parts))?),
            Type::Named { position, .. } => match inner.body(*position) {
                Some(TypeBody::Struct(fields)) => FieldsSeed { fields, inner }.read(from)?,
                Some(TypeBody::Tuple(types)) => Value::List(match types.as_slice() {
                    [only] => vec![inner.seed(only).read(from.inside()?)?],
                    types => from.all_parts(|parts| inner.each(types, parts))?,
                }),
                Some(TypeBody::Enum(variants)) => inner.variant(variants, from)?,
                None => return Err(Fault::other_type()),
            },
            _ => return Err(Fault::other_type()),
        })
    }
}

impl<'a> Inner<'a> {
    fn items(self, item: &'a Type, parts: &mut PartsReader<'_>) -> Result<Vec<Value>, Fault> {
        let mut items = Vec::new();
        while !parts.is_empty() {
            items.push(self.seed(item).read(parts.next())?);
        }
        Ok(items)
    }

    fn each(self, types: &'a [Type], parts: &mut PartsReader<'_>) -> Result<Vec<Value>, Fault> {
        types.iter().map(|ty| self.seed(ty).read(parts.next())).collect()
    }

    fn variant(self, variants: &'a [Variant], from: ValueReader<'_, '_>) -> Result<Value, Fault> {
        from.variant(|found, parts| {
            let mut all = (0_u32..).zip(variants);
            let (index, variant) = all
                .find(|(_, variant)| tag(&variant.name) == found)
                .ok_or_else(|| Fault::unknown_variant(found))?;
            let values = match &variant.body {
                VariantBody::Unit => Vec::new(),
                VariantBody::Tuple(types) => self.each(types, parts)?,
                VariantBody::Struct(fields) => {
                    let seed = FieldsSeed { fields, inner: self };
                    seed.read_each(|read| parts.fields(read))?
                }
            };
            Ok(Value::Variant(index, values.into_boxed_slice()))
        })
    }
}

impl FieldsSeed<'_> {
    /// Reads a struct.
    pub(super) fn read(self, from: ValueReader<'_, '_>) -> Result<Value, Fault> {
        self.read_each(|read| from.fields(read)).map(Value::List)
    }

    fn read_each<'de>(
        self,
        read_all: impl FnOnce(&mut ReadField<'_, 'de>) -> Result<(), Fault>,
    ) -> Result<Vec<Value>, Fault> {
        let Self { fields, inner } = self;
        let mut values = vec![None; fields.len()];
        read_all(&mut |found, from| {
            let known = fields.iter().zip(&mut values).find(|(field, _)| field.has_tag(found));
            let Some((field, value)) = known else { return Ok(false) };
            if value.is_some() {
                return Err(Error::custom(format_args!("duplicate field `{}`", field.name)));
            }
            *value = Some(inner.seed(&field.ty).read(from)?);
            Ok(true)
        })?;
        fields.iter().zip(values).map(|(field, value)| inner.present(field, value)).collect()
    }
}
