//! Reading `schema.toml`.

use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::super::error::{SchemaError, SchemaProblem};
use super::super::model::{Field, Index, IndexKind, MergeRule, Model};
use super::super::schema::{Inner, NamedType, Schema, TypeBody, Types, Variant, VariantBody};
use super::super::types::Type;
use super::super::validate;
use super::{UNITS, positions};
use crate::model::limits::{MAX_LIFETIME_MILLIS, MAX_SCHEMA_BYTES};
use crate::version::record_key::WritePolicy;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSchema {
    name: String,
    #[serde(default)]
    models: Vec<Spanned<RawModel>>,
    #[serde(default)]
    types: Vec<Spanned<RawType>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawModel {
    name: String,
    #[serde(default = "first_version")]
    version: u32,
    policy: Option<String>,
    lifetime: Option<String>,
    #[serde(default)]
    primary_key: Vec<String>,
    #[serde(default)]
    fields: Vec<Spanned<RawField>>,
    #[serde(default)]
    secondary_keys: Vec<Spanned<RawIndex>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawField {
    name: String,
    r#type: String,
    merge: Option<String>,
    blob: Option<bool>,
    default: Option<toml::Value>,
    #[serde(default)]
    aliases: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIndex {
    name: String,
    fields: Vec<String>,
    #[serde(default)]
    unique: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawType {
    name: String,
    fields: Option<Vec<Spanned<RawPart>>>,
    tuple: Option<Vec<String>>,
    variants: Option<Vec<Spanned<RawVariant>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVariant {
    name: String,
    fields: Option<Vec<Spanned<RawPart>>>,
    tuple: Option<Vec<String>>,
}

/// A field of a struct or a variant.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPart {
    name: String,
    r#type: String,
    default: Option<toml::Value>,
    #[serde(default)]
    aliases: Vec<String>,
}

fn first_version() -> u32 {
    1
}

/// Reads and checks a schema.
pub(in super::super) fn parse(text: &str) -> Result<Schema, SchemaError> {
    if text.len() > MAX_SCHEMA_BYTES {
        return Err(SchemaProblem::TooLong { len: text.len() }.into());
    }
    let raw: RawSchema = toml::from_str(text).map_err(|error| {
        let problem = SchemaProblem::Toml { message: error.message().to_owned() };
        SchemaError { line: error.span().map(|span| line_of(text, &span)), ..problem.into() }
    })?;
    let found = convert(&raw);
    found
        .map_err(|error| SchemaError { line: locate(&raw, &error).map(|span| line_of(text, &span)), ..error })
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()
}

/// Finds what an error is about in the text.
fn locate(raw: &RawSchema, error: &SchemaError) -> Option<Range<usize>> {
    let field = error.field.as_deref();
    if let Some(name) = &error.model {
        let model = raw.models.iter().rfind(|model| model.get_ref().name == *name)?;
        let RawModel { fields, secondary_keys, .. } = model.get_ref();
        let fields = fields.iter().rfind(|of| field == Some(&of.get_ref().name)).map(Spanned::span);
        let index = secondary_keys.iter().rfind(|of| field == Some(&of.get_ref().name)).map(Spanned::span);
        let of_index = error.problem.is_of_key().then_some(index.clone()).flatten();
        return of_index.or(fields).or(index).or_else(|| Some(model.span()));
    }
    let name = error.named_type.as_ref()?;
    let ty = raw.types.iter().rfind(|ty| ty.get_ref().name == *name)?;
    let RawType { fields, variants, .. } = ty.get_ref();
    let fields = fields.iter().flatten().rfind(|of| field == Some(&of.get_ref().name)).map(Spanned::span);
    let mut variants = variants.iter().flatten();
    let variant = variants.rfind(|of| field == Some(&of.get_ref().name)).map(Spanned::span);
    fields.or(variant).or_else(|| Some(ty.span()))
}

fn convert(raw: &RawSchema) -> Result<Schema, SchemaError> {
    validate::lengths(&[("models", raw.models.len()), ("types", raw.types.len())])?;
    let names: Vec<Arc<str>> = raw.types.iter().map(|ty| ty.get_ref().name.as_str().into()).collect();
    let types = raw.types.iter().map(|ty| named_type(ty.get_ref(), &names));
    let types = Arc::new(Types(types.collect::<Result<_, _>>()?));
    let models = raw.models.iter().map(|raw| {
        let raw = raw.get_ref();
        model(raw, &names, &types).map_err(|error| SchemaError { model: Some(raw.name.clone()), ..error })
    });
    let models = models.collect::<Result<_, _>>()?;
    validate::checked(Inner::new(&raw.name, models, types))
}

fn named_type(raw: &RawType, names: &[Arc<str>]) -> Result<NamedType, SchemaError> {
    let of_type = |error: SchemaError| SchemaError { named_type: Some(raw.name.clone()), ..error };
    let body = match (&raw.fields, &raw.tuple, &raw.variants) {
        (Some(fields), None, None) => parts(fields, names).map(TypeBody::Struct),
        (None, Some(tuple), None) => tuple_types(tuple, names).map(TypeBody::Tuple),
        (None, None, Some(variants)) => {
            let variants = variants.iter().map(|raw| variant(raw.get_ref(), names));
            variants.collect::<Result<_, _>>().map(TypeBody::Enum)
        }
        _ => Err(SchemaProblem::TypeBody.into()),
    };
    Ok(NamedType { name: raw.name.as_str().into(), body: body.map_err(of_type)? })
}

fn variant(raw: &RawVariant, names: &[Arc<str>]) -> Result<Variant, SchemaError> {
    let body = match (&raw.fields, &raw.tuple) {
        (None, None) => Ok(VariantBody::Unit),
        (Some(fields), None) => parts(fields, names).map(VariantBody::Struct),
        (None, Some(tuple)) => tuple_types(tuple, names).map(VariantBody::Tuple),
        (Some(_), Some(_)) => Err(SchemaProblem::VariantBody.into()),
    };
    let of_variant = |error: SchemaError| SchemaError { field: Some(raw.name.clone()), ..error };
    Ok(Variant { name: raw.name.as_str().into(), body: body.map_err(of_variant)? })
}

fn parts(raw: &[Spanned<RawPart>], names: &[Arc<str>]) -> Result<Vec<Field>, SchemaError> {
    let part = |raw: &Spanned<RawPart>| {
        let RawPart { name, r#type, default, aliases } = raw.get_ref();
        let of_field = |problem: SchemaProblem| SchemaError { field: Some(name.clone()), ..problem.into() };
        let ty = Type::parse(r#type, names).map_err(of_field)?;
        let default = default.as_ref().map(json).transpose().map_err(of_field)?;
        let aliases = aliases.iter().map(|alias| alias.as_str().into()).collect();
        Ok(Field { name: name.as_str().into(), ty, merge: MergeRule::Latest, blob: false, default, aliases })
    };
    raw.iter().map(part).collect()
}

fn tuple_types(raw: &[String], names: &[Arc<str>]) -> Result<Vec<Type>, SchemaError> {
    raw.iter().map(|text| Type::parse(text, names).map_err(SchemaError::from)).collect()
}

fn model(raw: &RawModel, names: &[Arc<str>], types: &Arc<Types>) -> Result<Model, SchemaError> {
    let policy = match raw.policy.as_deref() {
        None | Some("open") => WritePolicy::Open,
        Some("owned") => WritePolicy::Owned,
        Some("merged") => WritePolicy::Merged,
        Some(other) => return Err(SchemaProblem::Policy { name: other.to_owned() }.into()),
    };
    let lifetime = raw
        .lifetime
        .as_deref()
        .map(|text| parse_lifetime(text).ok_or_else(|| SchemaProblem::Lifetime { text: text.to_owned() }));
    let fields = raw.fields.iter().map(|raw| {
        let of_field = |problem: SchemaProblem| SchemaError {
            field: Some(raw.get_ref().name.clone()),
            ..problem.into()
        };
        field(raw.get_ref(), names).map_err(of_field)
    });
    let fields = fields.collect::<Result<Vec<_>, _>>()?;
    let indexes = raw.secondary_keys.iter().map(|raw| {
        let raw = raw.get_ref();
        let of_index =
            |problem: SchemaProblem| SchemaError { field: Some(raw.name.clone()), ..problem.into() };
        index(raw, &fields).map_err(of_index)
    });
    let indexes = indexes.collect::<Result<_, _>>()?;
    Ok(Model {
        name: raw.name.as_str().into(),
        version: raw.version,
        policy,
        lifetime: lifetime.transpose()?,
        primary: positions(&raw.primary_key, &fields)?,
        fields,
        indexes,
        types: Arc::clone(types),
    })
}

fn field(raw: &RawField, names: &[Arc<str>]) -> Result<Field, SchemaProblem> {
    let ty = Type::parse(&raw.r#type, names)?;
    let merge = raw
        .merge
        .as_deref()
        .map(|name| MergeRule::parse(name).ok_or_else(|| SchemaProblem::Merge { name: name.to_owned() }));
    let blob = raw.blob.unwrap_or_else(|| validate::names_blobs(&ty));
    Ok(Field {
        name: raw.name.as_str().into(),
        ty,
        merge: merge.transpose()?.unwrap_or_default(),
        blob,
        default: raw.default.as_ref().map(json).transpose()?,
        aliases: raw.aliases.iter().map(|alias| alias.as_str().into()).collect(),
    })
}

/// Writes a value of TOML as JSON.
fn json(value: &toml::Value) -> Result<Arc<str>, SchemaProblem> {
    let json =
        serde_json::to_string(value).map_err(|error| SchemaProblem::Toml { message: error.to_string() })?;
    Ok(json.into())
}

fn index(raw: &RawIndex, fields: &[Field]) -> Result<Index, SchemaProblem> {
    let positions = positions(&raw.fields, fields)?;
    let kind = match positions.as_slice() {
        [only] => fields.get(*only).map_or(IndexKind::Plain, |field| IndexKind::of(&field.ty)),
        _ => IndexKind::Compound,
    };
    Ok(Index { name: raw.name.as_str().into(), kind, unique: raw.unique, fields: positions })
}

fn parse_lifetime(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let digits = text.strip_suffix(unit).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let millis = digits.parse::<u64>().ok()?.checked_mul(factor)?;
    (1..=MAX_LIFETIME_MILLIS).contains(&millis).then_some(millis)
}
