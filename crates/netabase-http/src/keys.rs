//! Keys as clients write them.

use std::ops::Bound;

use netabase::dynamic::{DynamicKeyError, DynamicQuery, KeyInput, Model, Schema};
use netabase::netabase_store::{DefinitionSchema, KeyField, ModelSchema};
use netabase::{KeySpan, RawQuery, RecordKey};
use serde_json::Value;

use crate::problem::{Answer, Kind, Problem};
use crate::render::hex;

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
#[derive(Debug)]
pub(crate) struct Keys {
    definition: &'static DefinitionSchema,
    /// What the fields are; none if the program does not describe them all, and then keys are text.
    described: Option<Schema>,
}

impl Keys {
    pub(crate) fn new(definition: &'static DefinitionSchema) -> Self {
        let described = Schema::of_definition(definition);
        if let Err(error) = &described {
            tracing::info!(%error, "the fields are not described: keys are taken as text");
        }
        Self { definition, described: described.ok() }
    }

    /// Returns what the fields are, if it is known.
    pub(crate) fn described(&self) -> Option<&Schema> {
        self.described.as_ref()
    }

    /// Finds a model.
    pub(crate) fn model(&self, name: &str) -> Answer<&'static ModelSchema> {
        let unknown = || {
            let known: Vec<_> = self.definition.models.iter().map(|model| model.name).collect();
            let known = known.join(", ");
            Problem::new(Kind::UnknownModel, format!("the schema has no model `{name}`, only {known}"))
        };
        self.definition.model(name).ok_or_else(unknown)
    }

    fn fields_of(&self, model: &str) -> Option<&Model> {
        self.described.as_ref().and_then(|schema| schema.model(model))
    }

    /// Returns the key of the record that `text` names, as in a path.
    pub(crate) fn record(&self, model: &ModelSchema, text: &str) -> Answer<RecordKey> {
        let primary = match self.fields_of(model.name) {
            Some(fields) => fields.primary_key_from_text(text).map_err(|error| invalid("key", &error))?,
            None => text.to_owned().to_key_bytes(),
        };
        model.record_key(self.definition.name, &primary).map_err(|error| Problem::parameter("key", error))
    }

    /// Returns a primary key as JSON.
    pub(crate) fn to_json(&self, model: &str, primary: &[u8]) -> Value {
        let known = self.fields_of(model).and_then(|fields| fields.primary_key_to_json(primary).ok());
        known.unwrap_or_else(|| Value::String(as_text(primary)))
    }

    /// Returns a primary key as the path has it, without escapes.
    pub(crate) fn to_text(&self, model: &str, primary: &[u8]) -> String {
        let known = self.fields_of(model).and_then(|fields| fields.primary_key_to_text(primary).ok());
        known.unwrap_or_else(|| as_text(primary))
    }

    /// Makes the query of a selection; `from` is included, and `to` is not.
    pub(crate) fn query(&self, model: &ModelSchema, selection: &Selection) -> Answer<RawQuery> {
        let raw = match &self.described {
            Some(schema) => {
                let query = schema.query(model.name).map_err(|error| invalid("model", &error))?;
                described_query(query, selection)?.raw()
            }
            None => self.text_query(model, selection),
        };
        Ok(raw)
    }

    fn text_query(&self, model: &ModelSchema, selection: &Selection) -> RawQuery {
        let bytes = |text: &String| text.clone().to_key_bytes();
        let span = match (&selection.key, &selection.prefix) {
            (Some(key), _) => KeySpan::prefix(bytes(key)),
            (None, Some(prefix)) => KeySpan::prefix(prefix.as_bytes().to_vec()),
            (None, None) => KeySpan {
                start: selection.from.as_ref().map(bytes).unwrap_or_default(),
                end: selection.to.as_ref().map(bytes),
            },
        };
        RawQuery {
            definition: self.definition.name.to_owned(),
            model: model.name.to_owned(),
            index: selection.index.clone(),
            span,
            reverse: false,
            limit: None,
            after: None,
        }
    }
}

fn described_query<'a>(mut query: DynamicQuery<'a>, selection: &Selection) -> Answer<DynamicQuery<'a>> {
    let Selection { index, key, prefix, from, to } = selection;
    if let Some(index) = index {
        query = query.index(index).map_err(|error| invalid("index", &error))?;
    }
    if let Some(key) = key {
        return query.equal(KeyInput::Text(key)).map_err(|error| invalid("key", &error));
    }
    if let Some(prefix) = prefix {
        return query.prefix(KeyInput::Text(prefix)).map_err(|error| invalid("prefix", &error));
    }
    let from = from.as_deref().map_or(Bound::Unbounded, |from| Bound::Included(KeyInput::Text(from)));
    let to = to.as_deref().map_or(Bound::Unbounded, |to| Bound::Excluded(KeyInput::Text(to)));
    query.range(from, to).map_err(|error| invalid("from", &error))
}

fn invalid(name: &str, error: &DynamicKeyError) -> Problem {
    Problem::parameter(name, format!("is not valid: {error}"))
}

fn as_text(primary: &[u8]) -> String {
    String::from_key_bytes(primary).unwrap_or_else(|_| hex(primary))
}
