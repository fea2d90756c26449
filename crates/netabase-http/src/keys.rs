//! The text and JSON forms of keys.

use std::ops::Bound;

use netabase::RecordKey;
use netabase::dynamic::{DynamicKeyError, DynamicQuery, KeyInput, Model, Schema};
use netabase::key::KeySpan;
use netabase::netabase_store::KeyField;
use netabase::netabase_store::schema::{DefinitionSchema, ModelSchema};
use netabase::query::RawQuery;
use serde_json::Value;

use crate::problem::{Answer, Kind, Problem};
use crate::render::{hex, unhex};

/// The prefix of keys that are written as hexadecimal digits.
const BYTES_MARK: &str = "0x";

/// The selection of records in a request.
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
    /// The schema of the models whose types the program describes.
    described: Option<Schema>,
    /// Whether `described` has all models.
    is_complete: bool,
}

impl Keys {
    pub(crate) fn new(definition: &'static DefinitionSchema) -> Self {
        let (described, left_out) = Schema::of_described(definition);
        for error in &left_out {
            tracing::info!(%error, "a model is not described: its keys are read as text or as bytes");
        }
        Self { definition, described: described.ok(), is_complete: left_out.is_empty() }
    }

    /// Returns the schema of the models whose types the program describes.
    pub(crate) fn described(&self) -> Option<&Schema> {
        self.described.as_ref()
    }

    /// Returns the schema of all models, or `None` if the program does not describe them all.
    pub(crate) fn complete(&self) -> Option<&Schema> {
        self.described().filter(|_| self.is_complete)
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

    /// Parses the key of a record, in the form that paths have.
    pub(crate) fn record(&self, model: &ModelSchema, text: &str) -> Answer<RecordKey> {
        let primary = match self.fields_of(model.name) {
            Some(fields) => fields.primary_key_from_text(text).map_err(|error| invalid("key", &error))?,
            None => undescribed_key(model, "key", text)?,
        };
        model.record_key(self.definition.name, &primary).map_err(|error| Problem::parameter("key", error))
    }

    /// Returns a primary key as JSON.
    pub(crate) fn to_json(&self, model: &str, primary: &[u8]) -> Value {
        let known = self.fields_of(model).and_then(|fields| fields.primary_key_to_json(primary).ok());
        known.unwrap_or_else(|| Value::String(self.undescribed_text(model, primary)))
    }

    /// Returns a primary key in the form that paths have, without percent-encoding.
    pub(crate) fn to_text(&self, model: &str, primary: &[u8]) -> String {
        let known = self.fields_of(model).and_then(|fields| fields.primary_key_to_text(primary).ok());
        known.unwrap_or_else(|| self.undescribed_text(model, primary))
    }

    fn undescribed_text(&self, model: &str, primary: &[u8]) -> String {
        let is_text = self.definition.model(model).is_some_and(has_text_key);
        let text = is_text.then(|| String::from_key_bytes(primary).ok()).flatten();
        text.unwrap_or_else(|| format!("{BYTES_MARK}{}", hex(primary)))
    }

    /// Makes the query of a selection. `from` is inclusive, and `to` exclusive.
    pub(crate) fn query(&self, model: &ModelSchema, selection: &Selection) -> Answer<RawQuery> {
        let raw = match &self.described {
            Some(schema) if schema.model(model.name).is_some() => {
                let query = schema.query(model.name).map_err(|error| invalid("model", &error))?;
                described_query(query, selection)?.raw()
            }
            _ => self.undescribed_query(model, selection)?,
        };
        Ok(raw)
    }

    fn undescribed_query(&self, model: &ModelSchema, selection: &Selection) -> Answer<RawQuery> {
        let bytes = |name: &str, text: &String| match selection.index {
            Some(_) => Ok(bytes_of(name, text)?.unwrap_or_else(|| text.clone().to_key_bytes())),
            None => undescribed_key(model, name, text),
        };
        let span = match (&selection.key, &selection.prefix) {
            (Some(key), _) => KeySpan::prefix(bytes("key", key)?),
            (None, Some(prefix)) => {
                let is_text = selection.index.is_none() && has_text_key(model);
                let bytes = if is_text { None } else { bytes_of("prefix", prefix)? };
                KeySpan::prefix(bytes.unwrap_or_else(|| prefix.as_bytes().to_vec()))
            }
            (None, None) => KeySpan {
                start: selection
                    .from
                    .as_ref()
                    .map(|from| bytes("from", from))
                    .transpose()?
                    .unwrap_or_default(),
                end: selection.to.as_ref().map(|to| bytes("to", to)).transpose()?,
            },
        };
        Ok(RawQuery {
            definition: self.definition.name.to_owned(),
            model: model.name.to_owned(),
            index: selection.index.clone(),
            span,
            reverse: false,
            limit: None,
            after: None,
        })
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
    // First with `from` alone, so that an error of the second call is about `to`.
    query = query.range(from, Bound::Unbounded).map_err(|error| invalid("from", &error))?;
    query.range(from, to).map_err(|error| invalid("to", &error))
}

fn invalid(name: &str, error: &DynamicKeyError) -> Problem {
    Problem::parameter(name, format!("is not valid: {error}"))
}

/// Returns whether the primary key of a model is a single `String`.
fn has_text_key(model: &ModelSchema) -> bool {
    let is_text = |name: &&str| {
        model.fields.iter().any(|field| field.name == *name && matches!(field.rust_type, "String" | "string"))
    };
    matches!(model.primary_key, [only] if is_text(only))
}

/// Parses a primary key of a model whose types the program does not describe.
fn undescribed_key(model: &ModelSchema, name: &str, text: &str) -> Answer<Vec<u8>> {
    if has_text_key(model) {
        return Ok(text.to_owned().to_key_bytes());
    }
    bytes_of(name, text)?.ok_or_else(|| {
        let detail = format!("must be bytes such as {BYTES_MARK}00ff: {} is not described", model.name);
        Problem::parameter(name, detail)
    })
}

/// Parses hexadecimal digits after `0x`. Returns `None` for other text.
fn bytes_of(name: &str, text: &str) -> Answer<Option<Vec<u8>>> {
    let Some(digits) = text.strip_prefix(BYTES_MARK) else { return Ok(None) };
    let bytes = unhex(digits)
        .ok_or_else(|| Problem::parameter(name, "has other characters than pairs of hexadecimal digits"));
    bytes.map(Some)
}
