//! Keys as clients write them.

use std::str;

use netabase::netabase_store::{DefinitionSchema, KeyField, ModelSchema};
use netabase::{KeySpan, RawQuery, RecordKey};
use serde_json::Value;

use crate::problem::{Answer, Kind, Problem};

/// Which records of a model a request asks for.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    pub(crate) index: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) prefix: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
}

/// Reads and writes the keys of a schema.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys {
    schema: &'static DefinitionSchema,
}

impl Keys {
    pub(crate) fn new(schema: &'static DefinitionSchema) -> Self {
        Self { schema }
    }

    /// Finds a model.
    pub(crate) fn model(&self, name: &str) -> Answer<&'static ModelSchema> {
        let unknown = || {
            let known: Vec<_> = self.schema.models.iter().map(|model| model.name).collect();
            let known = known.join(", ");
            Problem::new(Kind::UnknownModel, format!("the schema has no model `{name}`, only {known}"))
        };
        self.schema.model(name).ok_or_else(unknown)
    }

    /// Returns the key of the record that `text` names, as in a path.
    pub(crate) fn record(&self, model: &ModelSchema, text: &str) -> Answer<RecordKey> {
        let primary = text.to_owned().to_key_bytes();
        model.record_key(self.schema.name, &primary).map_err(|error| Problem::parameter("key", error))
    }

    /// Returns a primary key as JSON.
    pub(crate) fn to_json(self, _model: &str, primary: &[u8]) -> Value {
        match String::from_key_bytes(primary) {
            Ok(text) => Value::String(text),
            Err(_) => Value::String(crate::render::hex(primary)),
        }
    }

    /// Returns a primary key as the path has it, without escapes.
    pub(crate) fn to_text(self, model: &str, primary: &[u8]) -> String {
        match self.to_json(model, primary) {
            Value::String(text) => text,
            other => other.to_string(),
        }
    }

    /// Makes the query of a selection.
    pub(crate) fn query(&self, model: &ModelSchema, selection: &Selection) -> Answer<RawQuery> {
        let bytes = |text: &String| text.clone().to_key_bytes();
        let span = match (&selection.key, &selection.prefix) {
            (Some(key), _) => KeySpan::prefix(bytes(key)),
            (None, Some(prefix)) => KeySpan::prefix(prefix.as_bytes().to_vec()),
            (None, None) => KeySpan {
                start: selection.from.as_ref().map(bytes).unwrap_or_default(),
                end: selection.to.as_ref().map(bytes),
            },
        };
        Ok(RawQuery {
            definition: self.schema.name.to_owned(),
            model: model.name.to_owned(),
            index: selection.index.clone(),
            span,
            reverse: false,
            limit: None,
            after: None,
        })
    }
}
