//! Writes `schema.toml`, and reads it with the feature `toml`.

use std::fmt::Write as _;

use super::error::SchemaProblem;
use super::model::{Field, MergeRule, Model};
use super::schema::{NamedType, Schema, TypeBody, Variant, VariantBody};
use super::types::Type;
use super::validate;
use crate::version::record_key::WritePolicy;

#[cfg(feature = "toml")]
mod read;

#[cfg(feature = "toml")]
pub(super) use read::parse;

/// The units of lifetimes, in milliseconds.
const UNITS: [(char, u64); 4] = [('d', 86_400_000), ('h', 3_600_000), ('m', 60_000), ('s', 1000)];

impl Schema {
    /// Writes the schema as a `schema.toml`, which [`from_toml`](Self::from_toml) reads as the same
    /// schema.
    ///
    /// Equal schemas have the same text.
    pub fn to_toml(&self) -> String {
        let mut out = format!("name = \"{}\"\n", self.name());
        for model in self.models() {
            write_model(model, &mut out);
        }
        for NamedType { name, body } in self.types() {
            let _ = write!(out, "\n[[types]]\nname = \"{name}\"\n");
            match body {
                TypeBody::Struct(fields) => write_list("fields", fields.iter().map(part_text), &mut out),
                TypeBody::Tuple(types) => {
                    let _ = writeln!(out, "tuple = {}", tuple_text(types));
                }
                TypeBody::Enum(variants) => {
                    write_list("variants", variants.iter().map(variant_text), &mut out);
                }
            }
        }
        out
    }
}

// Names have no characters that TOML would escape, and writing to a string does not fail.

fn write_model(model: &Model, out: &mut String) {
    let policy = match model.policy {
        WritePolicy::Owned => "owned",
        WritePolicy::Merged => "merged",
        WritePolicy::Open | WritePolicy::Root => "open",
    };
    let _ = write!(out, "\n[[models]]\nname = \"{}\"\nversion = {}\n", model.name, model.version);
    let _ = writeln!(out, "policy = \"{policy}\"");
    if let Some(millis) = model.lifetime {
        let _ = writeln!(out, "lifetime = \"{}\"", lifetime_text(millis));
    }
    let _ = writeln!(out, "primary_key = {}", names_text(model.primary_key().map(|field| &*field.name)));
    write_list("fields", model.fields.iter().map(field_text), out);
    for index in &model.indexes {
        let fields = names_text(model.index_fields(index).map(|field| &*field.name));
        let _ = write!(out, "\n[[models.secondary_keys]]\nname = \"{}\"\nfields = {fields}\n", index.name);
        let _ = writeln!(out, "unique = {}", index.unique);
    }
}

fn write_list(key: &str, items: impl Iterator<Item = String>, out: &mut String) {
    let _ = writeln!(out, "{key} = [");
    for item in items {
        let _ = writeln!(out, "  {item},");
    }
    out.push_str("]\n");
}

fn field_text(field: &Field) -> String {
    let mut text = format!("{{ name = \"{}\", type = \"{}\"", field.name, field.ty);
    if field.merge != MergeRule::Latest {
        let _ = write!(text, ", merge = \"{}\"", field.merge.name());
    }
    if field.blob != validate::names_blobs(&field.ty) {
        let _ = write!(text, ", blob = {}", field.blob);
    }
    text + &absence_text(field) + " }"
}

fn part_text(field: &Field) -> String {
    format!("{{ name = \"{}\", type = \"{}\"{} }}", field.name, field.ty, absence_text(field))
}

/// Returns what a field is in values that lack it, or have it under a former name.
fn absence_text(field: &Field) -> String {
    let mut text = String::new();
    let default = field.default.as_ref().and_then(|json| serde_json::from_str(json).ok());
    if let Some(default) = default.as_ref().and_then(json_text) {
        let _ = write!(text, ", default = {default}");
    }
    if !field.aliases.is_empty() {
        let _ = write!(text, ", aliases = {}", names_text(field.aliases.iter().map(|name| &**name)));
    }
    text
}

/// Writes JSON as a value of TOML, which has no null.
fn json_text(json: &serde_json::Value) -> Option<String> {
    Some(match json {
        serde_json::Value::Null => return None,
        serde_json::Value::Array(items) => {
            format!("[{}]", items.iter().map(json_text).collect::<Option<Vec<_>>>()?.join(", "))
        }
        serde_json::Value::Object(entries) => {
            let entry = |(name, value): (&String, &serde_json::Value)| {
                Some(format!("{} = {}", serde_json::Value::from(name.as_str()), json_text(value)?))
            };
            format!("{{ {} }}", entries.iter().map(entry).collect::<Option<Vec<_>>>()?.join(", "))
        }
        // Escapes of JSON are escapes of TOML.
        other => other.to_string(),
    })
}

fn variant_text(variant: &Variant) -> String {
    let name = &variant.name;
    match &variant.body {
        VariantBody::Unit => format!("{{ name = \"{name}\" }}"),
        VariantBody::Tuple(types) => format!("{{ name = \"{name}\", tuple = {} }}", tuple_text(types)),
        VariantBody::Struct(fields) => {
            let fields = fields.iter().map(part_text).collect::<Vec<_>>().join(", ");
            format!("{{ name = \"{name}\", fields = [{fields}] }}")
        }
    }
}

fn tuple_text(types: &[Type]) -> String {
    let types = types.iter().map(|ty| format!("\"{ty}\"")).collect::<Vec<_>>();
    format!("[{}]", types.join(", "))
}

fn names_text<'a>(names: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", "))
}

fn lifetime_text(millis: u64) -> String {
    let fitting = UNITS.into_iter().find(|(_, factor)| millis.is_multiple_of(*factor));
    let (unit, factor) = fitting.unwrap_or(('s', 1000));
    format!("{}{unit}", millis / factor)
}

/// Finds fields by their names.
pub(super) fn positions<N: AsRef<str>>(names: &[N], fields: &[Field]) -> Result<Vec<usize>, SchemaProblem> {
    let position = |name: &N| {
        let found = fields.iter().position(|field| &*field.name == name.as_ref());
        found.ok_or_else(|| SchemaProblem::UnknownField { name: name.as_ref().to_owned() })
    };
    names.iter().map(position).collect()
}
