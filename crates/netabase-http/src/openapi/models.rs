//! JSON Schemas of the node's own models.

use netabase::dynamic::{Field, Type, TypeBody, Variant, VariantBody};
use netabase::netabase_store::schema::ModelSchema;
use serde_json::{Map, Value, json};

use super::reference;
use crate::app::App;

/// Adds the schemas of values, records and pages of each model, and of the types in them.
pub(super) fn add(app: &App, schemas: &mut Map<String, Value>) {
    let described = app.keys.described();
    for ty in described.iter().flat_map(|schema| schema.types()) {
        let schema = match &ty.body {
            TypeBody::Struct(fields) => object(fields),
            TypeBody::Tuple(parts) => parts_of(parts),
            TypeBody::Enum(variants) => json!({ "oneOf": variants.iter().map(variant).collect::<Vec<_>>() }),
            _ => json!({}),
        };
        schemas.insert(format!("Type.{}", ty.name), schema);
    }
    for model in app.node.schema().models {
        let name = model.name;
        let fields = described.and_then(|schema| schema.model(name)).map(netabase::dynamic::Model::fields);
        schemas.insert(format!("Value.{name}"), fields.map_or_else(|| json!({ "type": "object" }), object));
        let value = json!({ "anyOf": [reference(&format!("Value.{name}")), { "type": "null" }] });
        let record = json!({
            "allOf": [reference("Record")],
            "properties": { "model": { "const": name }, "value": value },
        });
        schemas.insert(format!("Record.{name}"), record);
        let page = json!({
            "allOf": [reference("Page")],
            "properties": { "records": { "items": reference(&format!("Record.{name}")) } },
        });
        schemas.insert(format!("Page.{name}"), page);
    }
}

/// The part of a request that has the key of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyPlace {
    Path,
    Query,
}

/// Returns the schema of a key in a path or query string.
pub(super) fn key_schema(app: &App, model: &ModelSchema, place: KeyPlace) -> Value {
    let described = app.keys.described().and_then(|schema| schema.model(model.name));
    let mut fields = described.iter().flat_map(|model| model.primary_key());
    let (Some(field), None) = (fields.next(), fields.next()) else { return text() };
    match &field.ty {
        Type::Bool => json!({ "type": "boolean" }),
        Type::AuthorKey | Type::BlobName => of(&Type::AuthorKey),
        integer @ (Type::U8
        | Type::U16
        | Type::U32
        | Type::U64
        | Type::I8
        | Type::I16
        | Type::I32
        | Type::I64) => of(integer),
        Type::Text => match place {
            // A segment of a path cannot be empty, `.` or `..`.
            KeyPlace::Path => json!({ "type": "string", "pattern": r"^(?!\.{1,2}$)[\s\S]+$" }),
            KeyPlace::Query => json!({ "type": "string" }),
        },
        _ => text(),
    }
}

fn text() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

fn object(fields: &[Field]) -> Value {
    let properties: Map<_, _> = fields.iter().map(|field| (field.name.to_string(), of(&field.ty))).collect();
    let needed = fields.iter().filter(|field| !matches!(field.ty, Type::Optional(_)));
    let required: Vec<_> = needed.map(|field| field.name.to_string()).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn parts_of(parts: &[Type]) -> Value {
    match parts {
        [part] => of(part),
        parts => tuple(parts),
    }
}

fn tuple(parts: &[Type]) -> Value {
    json!({
        "type": "array",
        "prefixItems": parts.iter().map(of).collect::<Vec<_>>(),
        "minItems": parts.len(),
        "maxItems": parts.len(),
    })
}

fn variant(variant: &Variant) -> Value {
    let name = &*variant.name;
    let inside = match &variant.body {
        VariantBody::Unit => return json!({ "const": name }),
        VariantBody::Tuple(parts) => parts_of(parts),
        VariantBody::Struct(fields) => object(fields),
        _ => json!({}),
    };
    json!({
        "type": "object",
        "properties": { name: inside },
        "required": [name],
        "additionalProperties": false,
    })
}

fn integer(min: impl Into<Value>, max: impl Into<Value>) -> Value {
    json!({ "type": "integer", "minimum": min.into(), "maximum": max.into() })
}

/// Returns the schema of a type in its JSON form, which is that of serde.
fn of(ty: &Type) -> Value {
    match ty {
        Type::Bool => json!({ "type": "boolean" }),
        Type::U8 => integer(0, u8::MAX),
        Type::U16 => integer(0, u16::MAX),
        Type::U32 => integer(0, u32::MAX),
        Type::U64 => integer(0, u64::MAX),
        Type::U128 => json!({ "type": "integer", "minimum": 0 }),
        Type::I8 => integer(i8::MIN, i8::MAX),
        Type::I16 => integer(i16::MIN, i16::MAX),
        Type::I32 => integer(i32::MIN, i32::MAX),
        Type::I64 => integer(i64::MIN, i64::MAX),
        Type::I128 => json!({ "type": "integer" }),
        Type::F32 => json!({ "type": "number", "minimum": f32::MIN, "maximum": f32::MAX }),
        Type::F64 => json!({ "type": "number" }),
        Type::Char => json!({ "type": "string", "minLength": 1, "maxLength": 1 }),
        Type::Text => json!({ "type": "string" }),
        Type::Bytes => json!({ "type": "array", "items": integer(0, u8::MAX) }),
        Type::WallTime => time("secs_since_epoch", "nanos_since_epoch"),
        Type::TimeSpan => time("secs", "nanos"),
        Type::AuthorKey => json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" }),
        Type::BlobName => json!({
            "type": "object",
            "properties": { "hash": of(&Type::AuthorKey), "size": of(&Type::U64) },
            "required": ["hash", "size"],
            "additionalProperties": false,
        }),
        Type::Optional(inner) => json!({ "anyOf": [of(inner), { "type": "null" }] }),
        Type::List(item) | Type::Set(item) => json!({ "type": "array", "items": of(item) }),
        Type::Map(key, value) => {
            let mut map = json!({ "type": "object", "additionalProperties": of(value) });
            if let (Some(pattern), Some(fields)) = (key_pattern(key), map.as_object_mut()) {
                fields.insert("propertyNames".to_owned(), json!({ "pattern": pattern }));
            }
            map
        }
        Type::Tuple(parts) => tuple(parts),
        Type::Array(item, len) => {
            json!({ "type": "array", "items": of(item), "minItems": len, "maxItems": len })
        }
        Type::Named { name, .. } => reference(&format!("Type.{name}")),
        _ => json!({}),
    }
}

fn key_pattern(key: &Type) -> Option<&'static str> {
    match key {
        Type::Bool => Some("^(true|false)$"),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::U128 => Some("^[0-9]+$"),
        Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::I128 => Some("^-?[0-9]+$"),
        Type::Char => Some("^.$"),
        _ => None,
    }
}

fn time(seconds: &str, nanos: &str) -> Value {
    json!({
        "type": "object",
        "properties": { seconds: integer(0, i64::MAX), nanos: integer(0, 999_999_999) },
        "required": [seconds, nanos],
        "additionalProperties": false,
    })
}
