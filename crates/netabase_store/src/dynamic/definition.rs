//! Schemas that live as long as the program.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::codec::DynamicCodec;
use super::model::Model;
use super::schema::Schema;
use crate::schema::{DefinitionSchema, IndexSchema, ModelSchema};

/// What was leaked, by the text of the schema. Definitions that come from here are found in it again.
static LEAKED: Mutex<Option<HashMap<String, (Schema, &'static DefinitionSchema)>>> = Mutex::new(None);

pub(super) fn definition(schema: &Schema) -> &'static DefinitionSchema {
    let mut leaked = LEAKED.lock();
    let leaked = leaked.get_or_insert_default();
    leaked.entry(schema.to_toml()).or_insert_with(|| (schema.clone(), leak(schema))).1
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
    let schema: &'static ModelSchema = Box::leak(Box::new(ModelSchema {
        name: text(model.name()),
        version: model.version(),
        policy: model.policy(),
        lifetime: model.lifetime(),
        merge: text(&model.merge_text()),
        blobs: text(&model.blobs_text()),
        indexes: indexes.leak(),
        codec,
    }));
    codec.belongs_to(schema);
    schema
}

fn text(text: &str) -> &'static str {
    String::from(text).leak()
}
