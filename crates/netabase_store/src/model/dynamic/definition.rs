//! Schemas that live as long as the program.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::codec::DynamicCodec;
use super::model::{MergeRule, Model};
use super::schema::Schema;
use crate::model::described::FieldSchema;
use crate::model::schema::{DefinitionSchema, IndexSchema, ModelSchema};

/// The leaked definitions, by the text of their schema.
static LEAKED: Mutex<Option<HashMap<String, (Schema, &'static DefinitionSchema)>>> = Mutex::new(None);

pub(super) fn definition(schema: &Schema) -> &'static DefinitionSchema {
    let mut leaked = LEAKED.lock();
    let leaked = leaked.get_or_insert_default();
    leaked.entry(schema.to_toml()).or_insert_with(|| (schema.clone(), leak(schema))).1
}

/// Returns the schema that a definition was made of.
pub(super) fn schema_of(definition: &'static DefinitionSchema) -> Option<Schema> {
    let leaked = LEAKED.lock();
    let mut all = leaked.iter().flat_map(HashMap::values);
    all.find(|(_, known)| std::ptr::eq(*known, definition)).map(|(schema, _)| schema.clone())
}

fn leak(schema: &Schema) -> &'static DefinitionSchema {
    let models: Vec<&'static ModelSchema> = schema.models().iter().map(leak_model).collect();
    Box::leak(Box::new(DefinitionSchema { name: text(schema.name()), models: models.leak() }))
}

fn leak_model(model: &Model) -> &'static ModelSchema {
    let codec: &'static DynamicCodec = Box::leak(Box::new(DynamicCodec::new(model.clone())));
    let indexes: Vec<_> = model
        .indexes()
        .iter()
        .map(|index| IndexSchema {
            name: text(&index.name),
            source: text(&model.source(index)),
            unique: index.unique,
        })
        .collect();
    let fields: Vec<_> = model
        .fields()
        .iter()
        .map(|field| FieldSchema {
            name: text(&field.name),
            rust_type: text(&field.ty.to_string()),
            ty: None,
            merge: (field.merge != MergeRule::Latest).then(|| field.merge.name()),
            default: None,
            aliases: &[],
        })
        .collect();
    let primary_key: Vec<_> = model.primary_key().map(|field| text(&field.name)).collect();
    let schema: &'static ModelSchema = Box::leak(Box::new(ModelSchema {
        name: text(model.name()),
        version: model.version(),
        policy: model.policy(),
        lifetime: model.lifetime(),
        merge: text(&model.merge_text()),
        blobs: text(&model.blobs_text()),
        fields: fields.leak(),
        primary_key: primary_key.leak(),
        indexes: indexes.leak(),
        codec,
    }));
    codec.belongs_to(schema);
    schema
}

fn text(text: &str) -> &'static str {
    String::from(text).leak()
}
