//! Questions about described models.

use std::ops::Bound;

use serde_json::Value as Json;

use super::error::DynamicKeyError;
use super::key_json::KeyShape;
use super::model::Model;
use crate::model::key_range::{KeySpan, after_prefix};
use crate::model::query::RawQuery;
use crate::read::cursor::Cursor;

/// A key that is given as JSON, or as text.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum KeyInput<'a> {
    /// As [`Model::primary_key_from_json`] takes it.
    Json(&'a Json),
    /// As [`Model::primary_key_from_text`] takes it.
    Text(&'a str),
}

impl<'a> From<&'a Json> for KeyInput<'a> {
    fn from(json: &'a Json) -> Self {
        Self::Json(json)
    }
}

impl<'a> From<&'a str> for KeyInput<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

/// A query of the records of a described model: by default all of them in the order of their
/// primary keys.
///
/// ```
/// use std::ops::Bound;
///
/// use netabase_store::dynamic::Schema;
/// use serde_json::json;
///
/// let schema = Schema::from_toml(r#"
///     name = "Chat"
///     [[models]]
///     name = "Message"
///     primary_key = ["id"]
///     fields = [
///       { name = "id", type = "u64" },
///       { name = "room", type = "string" },
///       { name = "sent", type = "u64" },
///     ]
///     [[models.secondary_keys]]
///     name = "room_sent"
///     fields = ["room", "sent"]
/// "#)?;
/// let (from, to) = (json!(["general", 5]), json!(["general"]));
/// let query = schema.query("Message")?.index("room_sent")?;
/// let query = query.range(Bound::Included((&from).into()), Bound::Included((&to).into()))?;
/// let raw = query.reverse(true).limit(Some(10)).raw();
/// assert_eq!(raw.span.start, b"general\0\0\0\0\0\0\0\0\x05");
/// assert!(schema.query("Message")?.equal("seven".into()).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct DynamicQuery<'a> {
    model: &'a Model,
    raw: RawQuery,
}

impl<'a> DynamicQuery<'a> {
    pub(super) fn new(definition: &str, model: &'a Model) -> Self {
        let raw = RawQuery {
            definition: definition.to_owned(),
            model: model.name().to_owned(),
            index: None,
            span: KeySpan::all(),
            reverse: false,
            limit: None,
            after: None,
        };
        Self { model, raw }
    }

    /// Asks by a secondary key, in whose order the records come. Replaces an earlier selection.
    pub fn index(mut self, name: &str) -> Result<Self, DynamicKeyError> {
        self.model.index_shape(name)?;
        self.raw.index = Some(name.to_owned());
        self.raw.span = KeySpan::all();
        Ok(self)
    }

    /// Asks for one key, or for the keys that start with the values of an array with fewer values
    /// than a compound key.
    pub fn equal(mut self, key: KeyInput<'_>) -> Result<Self, DynamicKeyError> {
        self.raw.span = KeySpan::prefix(self.shape()?.leading(key)?);
        Ok(self)
    }

    /// Asks for the keys that start with a string or bytes, or with the values of an array.
    pub fn prefix(mut self, key: KeyInput<'_>) -> Result<Self, DynamicKeyError> {
        self.raw.span = KeySpan::prefix(self.shape()?.prefix(key)?);
        Ok(self)
    }

    /// Asks for the keys between two, which may both have only the first values of a compound key:
    /// an included one is every key that starts with them.
    pub fn range(
        mut self,
        from: Bound<KeyInput<'_>>,
        to: Bound<KeyInput<'_>>,
    ) -> Result<Self, DynamicKeyError> {
        let shape = self.shape()?;
        let start = match from {
            Bound::Unbounded => Some(Vec::new()),
            Bound::Included(key) => Some(shape.leading(key)?),
            Bound::Excluded(key) => after_prefix(&shape.leading(key)?),
        };
        let end = match to {
            Bound::Unbounded => None,
            Bound::Included(key) => after_prefix(&shape.leading(key)?),
            Bound::Excluded(key) => Some(shape.leading(key)?),
        };
        self.raw.span = match start {
            Some(start) => KeySpan { start, end },
            // Nothing comes after the last key.
            None => KeySpan { start: Vec::new(), end: Some(Vec::new()) },
        };
        Ok(self)
    }

    /// Sets whether the last record comes first.
    pub fn reverse(mut self, reverse: bool) -> Self {
        self.raw.reverse = reverse;
        self
    }

    /// Sets the most records of the result.
    pub fn limit(mut self, limit: Option<u64>) -> Self {
        self.raw.limit = limit;
        self
    }

    /// Continues after a page.
    pub fn after(mut self, cursor: Option<Cursor>) -> Self {
        self.raw.after = cursor;
        self
    }

    /// Returns the question as stores and peers take it.
    pub fn raw(self) -> RawQuery {
        self.raw
    }

    fn shape(&self) -> Result<KeyShape<'a>, DynamicKeyError> {
        match &self.raw.index {
            Some(index) => self.model.index_shape(index),
            None => Ok(self.model.primary_shape()),
        }
    }
}
