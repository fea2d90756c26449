//! Reading and writing the payloads of a described model.

use std::fmt;
use std::sync::OnceLock;

use serde::de::DeserializeSeed;

use super::decode::Reading;
use super::key;
use super::merge::Merge;
use super::model::{Index, IndexKind, Model};
use super::types::Type;
use super::value::{Fields, Numbers, Typed, Value};
use crate::error::ValueError;
use crate::model::blob::Blob;
use crate::model::fields::{ValueReader, noticing_unknown};
use crate::model::schema::{
    Encoded, EncodedRecord, Encoding, ModelCodec, ModelSchema, RecordKeys, begin_payload, carried,
    is_canonical, split_payload,
};

/// The [`ModelCodec`] of a model that is described at run time.
///
/// The codec is part of a [`Schema::definition`](super::Schema::definition). It reads payloads of
/// the model's own version; a payload of any other fails with [`ValueError::Version`].
pub struct DynamicCodec {
    model: Model,
    /// The schema that this is the codec of; it is set before anybody sees either.
    schema: OnceLock<&'static ModelSchema>,
}

impl fmt::Debug for DynamicCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DynamicCodec").field(&self.model.name).finish()
    }
}

impl DynamicCodec {
    pub(super) fn new(model: Model) -> Self {
        Self { model, schema: OnceLock::new() }
    }

    pub(super) fn belongs_to(&self, schema: &'static ModelSchema) {
        let _ = self.schema.set(schema);
    }

    fn reading(&self) -> Reading<'_> {
        Reading::new(&self.model.types, Numbers::Serde)
    }

    fn check_version(&self, found: u32) -> Result<(), ValueError> {
        let known = self.model.version;
        if found == known { Ok(()) } else { Err(ValueError::Version { found, known }) }
    }

    fn decode(&self, payload: &[u8]) -> Result<Value, ValueError> {
        let (version, encoded) = split_payload(payload)?;
        self.check_version(version)?;
        let reading = self.reading();
        let fields = reading.fields_seed(&self.model.fields);
        let bytes = match encoded {
            Encoded::Fields(mut bytes) => return Ok(fields.read(ValueReader::record(&mut bytes))?),
            Encoded::Postcard(bytes) => bytes,
            Encoded::Json(json) => return self.decode_json(json),
        };
        let mut from = postcard::Deserializer::from_bytes(bytes);
        let value = fields.deserialize(&mut from).map_err(ValueError::Decode)?;
        match from.finalize().map_err(ValueError::Decode)? {
            [] => Ok(value),
            rest => Err(ValueError::TrailingBytes { extra: rest.len() }),
        }
    }

    fn decode_json(&self, json: &str) -> Result<Value, ValueError> {
        let mut from = serde_json::Deserializer::from_str(json);
        let reading = self.reading();
        let value = reading.fields_seed(&self.model.fields).deserialize(&mut from);
        let value = value.and_then(|value| from.end().map(|()| value));
        value.map_err(|error| ValueError::json(&error))
    }

    fn encode(&self, value: &Value) -> Result<EncodedRecord, ValueError> {
        let Some(model) = self.schema.get() else {
            return Err(ValueError::UnknownModel { name: self.model.name.to_string() });
        };
        Ok(EncodedRecord {
            model,
            keys: self.keys_of(value),
            payload: self.payload(value, Encoding::Fields)?,
        })
    }

    fn payload(&self, value: &Value, encoding: Encoding) -> Result<Vec<u8>, ValueError> {
        let mut payload = begin_payload(self.model.version, encoding, 64)?;
        let record = self.record(value);
        if encoding == Encoding::Fields {
            record.write_record(&mut payload)?;
            return Ok(payload);
        }
        postcard::to_extend(&record, payload).map_err(ValueError::Encode)
    }

    /// Returns a payload with the elements of sets and the entries of maps in their order.
    pub(super) fn sorted(&self, payload: &[u8]) -> Result<Vec<u8>, ValueError> {
        self.payload(&self.decode(payload)?, Encoding::Fields)
    }

    fn record<'a>(&'a self, value: &'a Value) -> Fields<'a> {
        // A record is no part of a value, so that its type is never asked for.
        let whole = Typed { value, ty: &Type::Bool, types: &self.model.types, numbers: Numbers::Serde };
        Fields { whole, values: value.fields(), described: &self.model.fields }
    }

    fn keys_of(&self, value: &Value) -> RecordKeys {
        let primary = self.key_of(value, &self.model.primary);
        let mut keys = RecordKeys { primary, ..RecordKeys::default() };
        for (position, index) in self.model.indexes.iter().enumerate() {
            self.index_keys(value, index, |key| keys.secondary.push(position, key));
        }
        for (field, value) in self.model.fields.iter().zip(value.fields()) {
            if field.blob {
                each_blob(value, &mut |blob| keys.secondary.push_blob(blob));
            }
        }
        keys
    }

    /// Decodes the contributions to the record that `primary` names, as far as they can be read.
    fn readable(&self, primary: &[u8], contributions: &[&[u8]]) -> Vec<Value> {
        let values = contributions.iter().filter_map(|payload| self.decode(payload).ok());
        values.filter(|value| self.key_of(value, &self.model.primary) == primary).collect()
    }

    /// Returns the key that is made of whole fields.
    fn key_of(&self, value: &Value, positions: &[usize]) -> Vec<u8> {
        let mut out = Vec::new();
        for position in positions {
            if let (Some(value), Some(field)) =
                (value.fields().get(*position), self.model.fields.get(*position))
            {
                key::encode(value, &field.ty, &self.model.types, &mut out);
            }
        }
        out
    }

    /// Lists the keys that an index has of a record.
    fn index_keys(&self, value: &Value, index: &Index, mut push: impl FnMut(Vec<u8>)) {
        if let IndexKind::Plain | IndexKind::Compound = index.kind {
            return push(self.key_of(value, &index.fields));
        }
        let types = self.model.index_types(index);
        let field = index.fields.first().and_then(|position| value.fields().get(*position));
        let (Some(ty), Some(field)) = (types.first(), field) else { return };
        let mut push = |value: &Value| {
            let mut out = Vec::new();
            key::encode(value, ty, &self.model.types, &mut out);
            push(out);
        };
        match field {
            Value::Option(Some(value)) => push(value),
            Value::List(items) => items.iter().for_each(push),
            _ => {}
        }
    }
}

fn each_blob(value: &Value, push: &mut impl FnMut(Blob)) {
    match value {
        Value::Blob(blob) => push(**blob),
        Value::Option(Some(value)) => each_blob(value, push),
        Value::List(items) => items.iter().for_each(|item| each_blob(item, push)),
        _ => {}
    }
}

impl ModelCodec for DynamicCodec {
    fn keys(&self, payload: &[u8]) -> Result<RecordKeys, ValueError> {
        Ok(self.keys_of(&self.decode(payload)?))
    }

    fn canonical_keys(&self, payload: &[u8]) -> Result<RecordKeys, ValueError> {
        let (value, has_unknown) = noticing_unknown(|| self.decode(payload));
        let value = value?;
        let encoding = split_payload(payload)?.1.encoding();
        // What other fields are like is for programs to judge that know them.
        if has_unknown || is_canonical(payload, &self.payload(&value, encoding)?) {
            Ok(self.keys_of(&value))
        } else {
            Err(ValueError::NotCanonical)
        }
    }

    fn carried(&self, before: &[u8], edited: &[u8]) -> Option<Vec<u8>> {
        let write = |value: &Value| self.payload(value, Encoding::Fields);
        carried(before, edited, self.model.version, |payload| self.decode(payload), write)
    }

    fn upgrade(&self, payload: &[u8]) -> Result<EncodedRecord, ValueError> {
        let mut record = self.encode(&self.decode(payload)?)?;
        if let Some(carried) = self.carried(payload, &record.payload) {
            record.payload = carried;
        }
        Ok(record)
    }

    fn to_json(&self, payload: &[u8]) -> Result<String, ValueError> {
        let value = self.decode(payload)?;
        serde_json::to_string(&self.record(&value)).map_err(|error| ValueError::json(&error))
    }

    fn from_json(&self, version: u32, json: &str) -> Result<EncodedRecord, ValueError> {
        // JSON names its fields: what an earlier version has written is read where nothing is
        // missing that must be there.
        if version > self.model.version {
            self.check_version(version)?;
        }
        self.encode(&self.decode_json(json)?)
    }

    fn merge(&self, primary: &[u8], contributions: &[&[u8]]) -> Result<Option<EncodedRecord>, ValueError> {
        let mut readable = self.readable(primary, contributions);
        let Some(mut merged) = readable.pop() else { return Ok(None) };
        Merge::All(&readable).apply(&mut merged, &self.model.fields);
        self.encode(&merged).map(Some)
    }

    fn contribution(
        &self,
        wanted: &[u8],
        own: Option<&[u8]>,
        others: &[&[u8]],
    ) -> Result<EncodedRecord, ValueError> {
        let mut value = self.decode(wanted)?;
        let own = own.and_then(|own| self.decode(own).ok());
        let others = self.readable(&self.key_of(&value, &self.model.primary), others);
        Merge::Own { own: own.as_ref(), others: &others }.apply(&mut value, &self.model.fields);
        self.encode(&value)
    }
}
