//! Validates schemas from any source.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::de::DeserializeSeed;

use super::decode::Reading;
use super::error::{SchemaError, SchemaProblem};
use super::key::is_key;
use super::model::{Field, Index, IndexKind, MergeRule, Model};
use super::schema::{Inner, NamedType, Schema, TypeBody, Types, VariantBody};
use super::types::Type;
use super::value::Numbers;
use crate::model::fields::tag;
use crate::model::limits::{
    MAX_KEY_FIELDS, MAX_MODEL_VERSION, MAX_SCHEMA_FIELDS, MAX_SCHEMA_INDEXES, MAX_SCHEMA_MODELS,
    MAX_SCHEMA_TYPES, MAX_SCHEMA_VARIANTS,
};
use crate::version::limits::MAX_NAME_BYTES;
use crate::version::record_key::{WritePolicy, is_name};

/// Returns the schema if it is one.
pub(super) fn checked(schema: Inner) -> Result<Schema, SchemaError> {
    let Inner { name, models, types, .. } = &schema;
    key_name(name)?;
    lengths(&[("models", models.len()), ("types", types.0.len())])?;
    distinct("models", models.iter().map(|model| &model.name))?;
    distinct("types", types.0.iter().map(|ty| &ty.name))?;
    for (position, ty) in types.0.iter().enumerate() {
        let of_type = |error: SchemaError| SchemaError { named_type: Some(ty.name.to_string()), ..error };
        named_type(ty).map_err(of_type)?;
        if is_endless(position, types) {
            return Err(of_type(SchemaProblem::Endless.into()));
        }
        named_fields(&ty.body).into_iter().try_for_each(|fields| defaults(fields, types)).map_err(of_type)?;
    }
    for of in models {
        model(of).map_err(|error| SchemaError { model: Some(of.name.to_string()), ..error })?;
    }
    Ok(Schema(Arc::new(schema)))
}

/// Checks the number of some items.
pub(super) fn lengths(lengths: &[(&'static str, usize)]) -> Result<(), SchemaProblem> {
    for &(what, len) in lengths {
        let limit = match what {
            "models" => MAX_SCHEMA_MODELS,
            "types" => MAX_SCHEMA_TYPES,
            "secondary keys" => MAX_SCHEMA_INDEXES,
            "variants" => MAX_SCHEMA_VARIANTS,
            _ => MAX_SCHEMA_FIELDS,
        };
        if len > limit {
            return Err(SchemaProblem::TooMany { what, limit });
        }
    }
    Ok(())
}

fn key_name(name: &str) -> Result<(), SchemaProblem> {
    // Paths of URLs cannot have the names of directories.
    let good = is_name(name.as_bytes()) && ![".", ".."].contains(&name);
    if good { Ok(()) } else { Err(SchemaProblem::Name { name: name.to_owned() }) }
}

fn identifier(name: &str) -> Result<(), SchemaProblem> {
    let is_first = |c: char| c.is_alphabetic() || c == '_';
    let good = name.len() <= MAX_NAME_BYTES
        && name.starts_with(is_first)
        && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if good { Ok(()) } else { Err(SchemaProblem::Identifier { name: name.to_owned() }) }
}

fn distinct<'a>(what: &'static str, names: impl Iterator<Item = &'a Arc<str>>) -> Result<(), SchemaProblem> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(SchemaProblem::Duplicate { what, name: name.to_string() });
        }
    }
    Ok(())
}

fn fields_are_named(fields: &[Field]) -> Result<(), SchemaError> {
    lengths(&[("fields", fields.len())])?;
    for field in fields {
        let mut names = std::iter::once(&field.name).chain(&field.aliases);
        names.try_for_each(|name| identifier(name)).map_err(|problem| at(&field.name, problem))?;
    }
    let names = || fields.iter().flat_map(|field| std::iter::once(&field.name).chain(&field.aliases));
    distinct("fields", names())?;
    Ok(tags(names())?)
}

/// Checks that fields, or variants, have different tags.
fn tags<'a>(names: impl Iterator<Item = &'a Arc<str>>) -> Result<(), SchemaProblem> {
    let mut seen = HashMap::new();
    for name in names {
        if let Some(other) = seen.insert(tag(name), name) {
            return Err(SchemaProblem::SameTag { name: name.to_string(), other: other.to_string() });
        }
    }
    Ok(())
}

/// Checks that the defaults of fields are values of their types.
fn defaults(fields: &[Field], types: &Types) -> Result<(), SchemaError> {
    for field in fields {
        let Some(default) = &field.default else { continue };
        let reading = Reading::new(types, Numbers::Serde);
        let mut from = serde_json::Deserializer::from_str(default);
        reading.seed(&field.ty).deserialize(&mut from).map_err(|error| {
            at(&field.name, SchemaProblem::Default { ty: field.ty.to_string(), message: error.to_string() })
        })?;
    }
    Ok(())
}

fn at(field: &str, problem: SchemaProblem) -> SchemaError {
    SchemaError { field: Some(field.to_owned()), ..problem.into() }
}

fn named_type(ty: &NamedType) -> Result<(), SchemaError> {
    identifier(&ty.name)?;
    if Type::is_reserved(&ty.name) {
        return Err(SchemaProblem::Reserved { name: ty.name.to_string() }.into());
    }
    // Every value takes at least a byte, which bounds the lists of it.
    match &ty.body {
        TypeBody::Struct(fields) if !fields.is_empty() => fields_are_named(fields),
        TypeBody::Tuple(types) if !types.is_empty() => Ok(lengths(&[("parts", types.len())])?),
        TypeBody::Enum(variants) if !variants.is_empty() => {
            lengths(&[("variants", variants.len())])?;
            for variant in variants {
                identifier(&variant.name).map_err(|problem| at(&variant.name, problem))?;
                match &variant.body {
                    VariantBody::Unit => {}
                    VariantBody::Tuple(types) => lengths(&[("parts", types.len())])?,
                    VariantBody::Struct(fields) => fields_are_named(fields)?,
                }
            }
            distinct("variants", variants.iter().map(|variant| &variant.name))?;
            Ok(tags(variants.iter().map(|variant| &variant.name))?)
        }
        _ => Err(SchemaProblem::TypeBody.into()),
    }
}

/// Returns the fields of a struct, or of the variants of an enum.
fn named_fields(body: &TypeBody) -> Vec<&[Field]> {
    match body {
        TypeBody::Struct(fields) => vec![fields],
        TypeBody::Tuple(_) => Vec::new(),
        TypeBody::Enum(variants) => {
            let fields = variants.iter().filter_map(|variant| match &variant.body {
                VariantBody::Struct(fields) => Some(fields.as_slice()),
                VariantBody::Unit | VariantBody::Tuple(_) => None,
            });
            fields.collect()
        }
    }
}

/// Returns whether every value of a type has another one in it.
fn is_endless(start: usize, types: &Types) -> bool {
    let (mut seen, mut todo) = (HashSet::new(), vec![start]);
    while let Some(position) = todo.pop() {
        let mut inner = Vec::new();
        match types.body(position) {
            Some(TypeBody::Struct(fields)) => {
                for field in fields {
                    always_in(&field.ty, &mut inner);
                }
            }
            Some(TypeBody::Tuple(parts)) => parts.iter().for_each(|part| always_in(part, &mut inner)),
            // Some variant may have none.
            Some(TypeBody::Enum(_)) | None => {}
        }
        if inner.contains(&start) {
            return true;
        }
        todo.extend(inner.into_iter().filter(|position| seen.insert(*position)));
    }
    false
}

/// Lists the named types that every value of a type has in it.
fn always_in(ty: &Type, found: &mut Vec<usize>) {
    match ty {
        Type::Named { position, .. } => found.push(*position),
        Type::Array(item, _) => always_in(item, found),
        Type::Tuple(parts) => parts.iter().for_each(|part| always_in(part, found)),
        _ => {}
    }
}

fn model(model: &Model) -> Result<(), SchemaError> {
    key_name(&model.name)?;
    if !(1..=MAX_MODEL_VERSION).contains(&model.version) {
        return Err(SchemaProblem::Version.into());
    }
    lengths(&[("secondary keys", model.indexes.len())])?;
    fields_are_named(&model.fields)?;
    defaults(&model.fields, &model.types)?;
    primary_key(model)?;
    for (position, field) in model.fields.iter().enumerate() {
        merge_rule(model, field, model.primary.contains(&position))
            .and_then(|()| blob_field(field))
            .map_err(|problem| at(&field.name, problem))?;
    }
    for index in &model.indexes {
        identifier(&index.name)
            .and_then(|()| secondary_key(model, index))
            .map_err(|problem| at(&index.name, problem))?;
    }
    Ok(distinct("secondary keys", model.indexes.iter().map(|index| &index.name))?)
}

fn primary_key(model: &Model) -> Result<(), SchemaProblem> {
    if model.primary.is_empty() {
        return Err(SchemaProblem::NoPrimaryKey);
    }
    key_fields(model, &model.primary, &model.primary_types())?;
    let first = model.primary_types().first().copied();
    if model.policy == WritePolicy::Owned && first != Some(&Type::AuthorKey) {
        return Err(SchemaProblem::NoOwner);
    }
    Ok(())
}

fn key_fields(model: &Model, positions: &[usize], types: &[&Type]) -> Result<(), SchemaProblem> {
    if positions.is_empty() {
        return Err(SchemaProblem::NoKeyFields);
    }
    if positions.len() > MAX_KEY_FIELDS {
        return Err(SchemaProblem::KeyFields);
    }
    let name =
        |position: &usize| model.fields.get(*position).map_or_else(String::new, |of| of.name.to_string());
    for (at, position) in positions.iter().enumerate() {
        if positions.iter().take(at).any(|earlier| earlier == position) {
            return Err(SchemaProblem::RepeatedField { name: name(position) });
        }
    }
    for (position, ty) in positions.iter().zip(types) {
        if !is_key(ty, &model.types) {
            return Err(SchemaProblem::NotAKey { name: name(position), ty: ty.to_string() });
        }
    }
    Ok(())
}

fn secondary_key(model: &Model, index: &Index) -> Result<(), SchemaProblem> {
    if index.unique && model.policy == WritePolicy::Merged {
        return Err(SchemaProblem::UniqueMerged);
    }
    let types = model.index_types(index);
    if let (IndexKind::Optional | IndexKind::Many, Some(ty)) = (index.kind, types.first()) {
        let inner = IndexKind::of(ty);
        if inner == IndexKind::Optional || (index.kind, inner) == (IndexKind::Optional, IndexKind::Many) {
            let whole = model.index_fields(index).next().map(|field| field.ty.to_string());
            return Err(SchemaProblem::UnclearKey { ty: whole.unwrap_or_default() });
        }
    }
    key_fields(model, &index.fields, &types)
}

fn merge_rule(model: &Model, field: &Field, is_primary: bool) -> Result<(), SchemaProblem> {
    if field.merge == MergeRule::Latest {
        return Ok(());
    }
    if model.policy != WritePolicy::Merged {
        return Err(SchemaProblem::NotMerged);
    }
    if is_primary {
        return Err(SchemaProblem::MergedKey);
    }
    let write = match field.merge {
        MergeRule::Counter if !is_counter(&field.ty) => "use an integer of at most 64 bits",
        MergeRule::Set if !matches!(field.ty, Type::Set(_)) => "use a `set`",
        MergeRule::Max | MergeRule::Min if has_float(&field.ty) => "floats have no order: use integers",
        _ => return Ok(()),
    };
    Err(SchemaProblem::MergeType { rule: field.merge.name(), ty: field.ty.to_string(), write })
}

fn is_counter(ty: &Type) -> bool {
    matches!(ty, Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::I8 | Type::I16 | Type::I32 | Type::I64)
}

/// Returns whether values of a type are floats, or have some outside of named types.
fn has_float(ty: &Type) -> bool {
    match ty {
        Type::F32 | Type::F64 => true,
        Type::Optional(item) | Type::List(item) | Type::Set(item) | Type::Array(item, _) => has_float(item),
        Type::Map(key, value) => has_float(key) || has_float(value),
        Type::Tuple(parts) => parts.iter().any(has_float),
        _ => false,
    }
}

fn blob_field(field: &Field) -> Result<(), SchemaProblem> {
    if field.blob && !names_blobs(&field.ty) {
        return Err(SchemaProblem::NotABlob { ty: field.ty.to_string() });
    }
    Ok(())
}

/// Returns whether a field of a type can name blobs that the node keeps.
pub(super) fn names_blobs(ty: &Type) -> bool {
    match ty {
        Type::BlobName => true,
        Type::Optional(item) | Type::List(item) => **item == Type::BlobName,
        _ => false,
    }
}

#[cfg(feature = "toml")]
impl SchemaProblem {
    /// Returns whether a secondary key has it, and not the field of the same name.
    pub(super) fn is_of_key(&self) -> bool {
        matches!(
            self,
            Self::UniqueMerged
                | Self::UnclearKey { .. }
                | Self::KeyFields
                | Self::NoKeyFields
                | Self::UnknownField { .. }
                | Self::RepeatedField { .. }
                | Self::NotAKey { .. }
        )
    }
}
