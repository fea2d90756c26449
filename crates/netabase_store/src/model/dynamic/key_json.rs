//! Keys as JSON and as text, as people and programs without types write them.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::Value as Json;

use super::decode::Reading;
use super::error::DynamicKeyError;
use super::key;
use super::model::{Index, IndexKind, Model};
use super::query::KeyInput;
use super::schema::{TypeBody, VariantBody};
use super::types::Type;
use super::value::{Numbers, Typed, Value};
use crate::model::key::encode_open_bytes;

/// The fields and types of a key.
pub(super) struct KeyShape<'a> {
    model: &'a Model,
    types: Vec<&'a Type>,
    /// Whether it is written as an array.
    is_compound: bool,
}

impl Model {
    pub(super) fn primary_shape(&self) -> KeyShape<'_> {
        KeyShape { model: self, types: self.primary_types(), is_compound: self.primary.len() > 1 }
    }

    pub(super) fn index_shape(&self, name: &str) -> Result<KeyShape<'_>, DynamicKeyError> {
        let unknown =
            || DynamicKeyError::UnknownIndex { model: self.name.to_string(), index: name.to_owned() };
        let index: &Index = self.index(name).ok_or_else(unknown)?;
        let is_compound = index.kind == IndexKind::Compound;
        Ok(KeyShape { model: self, types: self.index_types(index), is_compound })
    }

    /// Returns the bytes of a primary key: of its JSON value, or of an array of the values of its
    /// fields if it has several.
    ///
    /// Numbers of more than 64 bits are text, and so are `NaN`, `inf` and `-inf`.
    pub fn primary_key_from_json(&self, json: &Json) -> Result<Vec<u8>, DynamicKeyError> {
        self.primary_shape().whole(json.into())
    }

    /// Returns the bytes of a primary key that is given as text.
    ///
    /// A string, a character, an author and the name of a variant are the text itself; everything
    /// else, and a key of several fields, is JSON, as
    /// [`primary_key_from_json`](Self::primary_key_from_json) takes it.
    pub fn primary_key_from_text(&self, text: &str) -> Result<Vec<u8>, DynamicKeyError> {
        self.primary_shape().whole(text.into())
    }

    /// Returns the JSON of a primary key, which
    /// [`primary_key_from_json`](Self::primary_key_from_json) reads.
    pub fn primary_key_to_json(&self, bytes: &[u8]) -> Result<Json, DynamicKeyError> {
        self.primary_shape().to_json(bytes)
    }

    /// Returns the text of a primary key, which
    /// [`primary_key_from_text`](Self::primary_key_from_text) reads.
    pub fn primary_key_to_text(&self, bytes: &[u8]) -> Result<String, DynamicKeyError> {
        self.primary_shape().to_text(bytes)
    }

    /// Returns the bytes of a key of the secondary key called `index`: of its JSON value, or of an
    /// array of the values of its fields if it has several. The key of an `option`, a `list` or a
    /// `set` is one value in it.
    pub fn index_key_from_json(&self, index: &str, json: &Json) -> Result<Vec<u8>, DynamicKeyError> {
        self.index_shape(index)?.whole(json.into())
    }

    /// Returns the bytes of a key of a secondary key that is given as text, as
    /// [`primary_key_from_text`](Self::primary_key_from_text) takes it.
    pub fn index_key_from_text(&self, index: &str, text: &str) -> Result<Vec<u8>, DynamicKeyError> {
        self.index_shape(index)?.whole(text.into())
    }

    /// Returns the prefix of the keys whose first values are those of the array; or, of a string or
    /// bytes, of the keys that start with it.
    pub fn index_prefix_from_json(&self, index: &str, json: &Json) -> Result<Vec<u8>, DynamicKeyError> {
        self.index_shape(index)?.prefix(json.into())
    }

    /// Returns the JSON of a key of a secondary key, which
    /// [`index_key_from_json`](Self::index_key_from_json) reads.
    pub fn index_key_to_json(&self, index: &str, bytes: &[u8]) -> Result<Json, DynamicKeyError> {
        self.index_shape(index)?.to_json(bytes)
    }

    /// Returns the text of a key of a secondary key, which
    /// [`index_key_from_text`](Self::index_key_from_text) reads.
    pub fn index_key_to_text(&self, index: &str, bytes: &[u8]) -> Result<String, DynamicKeyError> {
        self.index_shape(index)?.to_text(bytes)
    }
}

impl KeyShape<'_> {
    /// Returns the bytes of a whole key.
    pub(super) fn whole(&self, input: KeyInput<'_>) -> Result<Vec<u8>, DynamicKeyError> {
        Ok(self.encode(&self.read(input, true)?))
    }

    /// Returns the bytes of a key, or of the first values of a compound one.
    pub(super) fn leading(&self, input: KeyInput<'_>) -> Result<Vec<u8>, DynamicKeyError> {
        Ok(self.encode(&self.read(input, false)?))
    }

    /// Returns the prefix of the keys that start with `input`.
    pub(super) fn prefix(&self, input: KeyInput<'_>) -> Result<Vec<u8>, DynamicKeyError> {
        let values = self.read(input, false)?;
        if self.is_compound {
            return Ok(self.encode(&values));
        }
        let mut value = values.first();
        // A struct of one part is its part.
        while let Some(Value::List(parts)) = value {
            value = parts.first().filter(|_| parts.len() == 1);
        }
        let mut out = Vec::new();
        match value {
            Some(Value::Text(text)) => encode_open_bytes(text.as_bytes(), &mut out),
            Some(Value::Bytes(bytes)) => encode_open_bytes(bytes, &mut out),
            _ => return Err(DynamicKeyError::NoPrefix { expected: self.expected() }),
        }
        Ok(out)
    }

    fn encode(&self, values: &[Value]) -> Vec<u8> {
        let mut out = Vec::new();
        key::encode_all(values, self.types.iter().copied(), &self.model.types, &mut out);
        out
    }

    fn read(&self, input: KeyInput<'_>, whole: bool) -> Result<Vec<Value>, DynamicKeyError> {
        let reading = Reading::new(&self.model.types, Numbers::Text);
        let seed = KeySeed { shape: self, reading: &reading, whole };
        let values = match input {
            KeyInput::Json(json) => seed.deserialize(json),
            KeyInput::Text(text) => {
                if let Some(json) = self.plain_text(text) {
                    seed.deserialize(&json)
                } else {
                    let mut from = serde_json::Deserializer::from_str(text);
                    seed.deserialize(&mut from).and_then(|values| from.end().map(|()| values))
                }
            }
        };
        let message = |error: serde_json::Error| error.to_string();
        values.map_err(|error| DynamicKeyError::Value { expected: self.expected(), message: message(error) })
    }

    /// Returns the JSON of a text that stands for itself.
    fn plain_text(&self, text: &str) -> Option<Json> {
        let [ty] = self.types.as_slice() else { return None };
        let ty = self.innermost(ty);
        let itself = match ty {
            Type::Text | Type::Char | Type::AuthorKey
            // Not all of these are numbers of JSON.
            | Type::U128 | Type::I128 | Type::F32 | Type::F64 => true,
            Type::Named { position, .. } => match self.model.types.body(*position) {
                Some(TypeBody::Enum(variants)) => {
                    let mut units = variants.iter().filter(|variant| variant.body == VariantBody::Unit);
                    units.any(|variant| &*variant.name == text)
                }
                _ => false,
            },
            _ => false,
        };
        (itself && !self.is_compound).then(|| Json::String(text.to_owned()))
    }

    /// Looks through structs of one part.
    fn innermost<'a>(&'a self, mut ty: &'a Type) -> &'a Type {
        for _ in &self.model.types.0 {
            let Type::Named { position, .. } = ty else { break };
            let Some(TypeBody::Tuple(parts)) = self.model.types.body(*position) else { break };
            let [only] = parts.as_slice() else { break };
            ty = only;
        }
        ty
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Json, DynamicKeyError> {
        let values = key::decode_key(self.types.iter().copied(), &self.model.types, bytes);
        let values = values.map_err(DynamicKeyError::Bytes)?;
        let parts = self.types.iter().zip(&values).map(|(ty, value)| {
            serde_json::to_value(Typed { value, ty, types: &self.model.types, numbers: Numbers::Text })
        });
        let parts = parts.collect::<Result<Vec<_>, _>>().map_err(|error| DynamicKeyError::Value {
            expected: self.expected(),
            message: error.to_string(),
        })?;
        if self.is_compound {
            return Ok(Json::Array(parts));
        }
        Ok(parts.into_iter().next().unwrap_or_default())
    }

    fn to_text(&self, bytes: &[u8]) -> Result<String, DynamicKeyError> {
        let json = self.to_json(bytes)?;
        Ok(match json {
            Json::String(text) if self.plain_text(&text).is_some() => text,
            other => other.to_string(),
        })
    }

    /// Returns the description of a key, for messages.
    fn expected(&self) -> String {
        let types = self.types.iter().map(|ty| format!("`{ty}`")).collect::<Vec<_>>().join(", ");
        if self.is_compound { format!("an array of {types}") } else { types }
    }
}

/// Reads the values of a key.
struct KeySeed<'a> {
    shape: &'a KeyShape<'a>,
    reading: &'a Reading<'a>,
    /// Whether all values are required.
    whole: bool,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Vec<Value>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Vec<Value>, D::Error> {
        match self.shape.types.as_slice() {
            [only] if !self.shape.is_compound => {
                self.reading.seed(only).deserialize(from).map(|value| vec![value])
            }
            _ => from.deserialize_seq(self),
        }
    }
}

impl<'de> Visitor<'de> for KeySeed<'_> {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shape.expected())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Value>, A::Error> {
        let mut values = Vec::new();
        for ty in &self.shape.types {
            match seq.next_element_seed(self.reading.seed(ty))? {
                Some(value) => values.push(value),
                None if self.whole || values.is_empty() => {
                    return Err(A::Error::invalid_length(values.len(), &self));
                }
                None => break,
            }
        }
        Ok(values)
    }
}
