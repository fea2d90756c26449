//! Which table holds what. `docs/formats.md` describes the contents.

use crate::error::StoreError;
use crate::record_key::RecordKey;
use crate::schema::{DefinitionSchema, IndexSchema, ModelSchema};

/// The version of the tables below; a database says which it has.
pub(crate) const FORMAT: u32 = 1;

/// Facts about the database itself.
pub(crate) const META: &str = "meta";
/// The key of the format version in [`META`].
pub(crate) const META_FORMAT: &[u8] = b"format";
/// The key of the definition's name in [`META`].
pub(crate) const META_DEFINITION: &[u8] = b"definition";
/// The start of the key of each model that has tables, in [`META`]; its name follows.
pub(crate) const META_MODEL: &[u8] = b"model/";
/// Live records of models that the schema does not have, by whole record key.
pub(crate) const FOREIGN: &str = "foreign";
/// Tombstones of all models, by whole record key.
pub(crate) const TOMBSTONES: &str = "tombstones";
/// Expiry time, then record key, of every record that expires.
pub(crate) const EXPIRY: &str = "expiry";
/// When each record of our own is to be published next, by record key.
pub(crate) const SCHEDULE: &str = "schedule";
/// The same by time: due time, then record key.
pub(crate) const DUE: &str = "due";
/// Provider records: key with its length in front, then provider.
#[cfg(feature = "libp2p")]
pub(crate) const PROVIDERS: &str = "providers";

/// The tables of a schema.
#[derive(Debug)]
pub(crate) struct Layout {
    schema: Option<&'static DefinitionSchema>,
    models: Vec<ModelTables>,
}

/// The tables of a model.
#[derive(Debug)]
pub(crate) struct ModelTables {
    pub(crate) schema: &'static ModelSchema,
    /// Live records, by primary key.
    pub(crate) records: String,
    /// For each index: index key, then primary key, with empty values.
    pub(crate) indexes: Vec<String>,
}

/// Where the live version of a record is kept.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) table: &'a str,
    pub(crate) key: &'a [u8],
    pub(crate) model: Option<&'a ModelTables>,
}

impl Layout {
    pub(crate) fn new(schema: Option<&'static DefinitionSchema>) -> Self {
        let models = schema.map_or(&[][..], |schema| schema.models);
        Self { schema, models: models.iter().map(|model| ModelTables::new(model)).collect() }
    }

    pub(crate) fn schema(&self) -> Option<&'static DefinitionSchema> {
        self.schema
    }

    pub(crate) fn models(&self) -> &[ModelTables] {
        &self.models
    }

    pub(crate) fn model(&self, name: &str) -> Option<&ModelTables> {
        self.models.iter().find(|model| model.schema.name == name)
    }

    pub(crate) fn place<'a>(&'a self, key: &'a RecordKey) -> Place<'a> {
        let ours = self.schema.is_some_and(|schema| schema.name == key.definition());
        match self.model(key.model()).filter(|_| ours) {
            Some(model) => Place { table: &model.records, key: key.primary_key(), model: Some(model) },
            None => Place { table: FOREIGN, key: key.as_bytes(), model: None },
        }
    }
}

impl ModelTables {
    fn new(schema: &'static ModelSchema) -> Self {
        Self {
            schema,
            records: records_table(schema.name),
            indexes: schema.indexes.iter().map(|index| index_table(schema.name, index.name)).collect(),
        }
    }

    /// Returns what the database remembers of the model: its version, and of each index the name, what
    /// the key is made of, and whether it is unique.
    pub(crate) fn description(&self) -> Vec<u8> {
        let mut description = self.schema.version.to_be_bytes().to_vec();
        for IndexSchema { name, source, unique } in self.schema.indexes {
            for text in [name, source] {
                description.extend(text.as_bytes());
                description.push(0);
            }
            description.push(u8::from(*unique));
        }
        description
    }

    pub(crate) fn index(&self, position: usize) -> Result<&str, StoreError> {
        let index = self.indexes.get(position).map(String::as_str);
        index.ok_or(StoreError::OtherModel { definition: "", model: self.schema.name })
    }
}

/// Returns the name of the table of a model's live records.
pub(crate) fn records_table(model: &str) -> String {
    format!("records/{model}")
}

/// Returns the name of the table of an index.
pub(crate) fn index_table(model: &str, index: &str) -> String {
    format!("index/{model}/{index}")
}

/// Returns the key under which [`META`] remembers a model.
pub(crate) fn model_key(name: &str) -> Vec<u8> {
    [META_MODEL, name.as_bytes()].concat()
}

/// Returns the names of the indexes in what [`ModelTables::description`] made.
pub(crate) fn described_indexes(description: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = description.get(4..).unwrap_or_default();
    while let Some((name, after)) = split_text(rest) {
        names.push(String::from_utf8_lossy(name).into_owned());
        let flags = split_text(after).map(|(_, flags)| flags).unwrap_or_default();
        rest = flags.get(1..).unwrap_or_default();
    }
    names
}

/// Splits a text and the zero after it off the front.
fn split_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// Makes the key of an entry that is ordered by time, then by record.
pub(crate) fn time_key(unix_millis: u64, key: &RecordKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + key.as_bytes().len());
    bytes.extend(unix_millis.to_be_bytes());
    bytes.extend(key.as_bytes());
    bytes
}

/// Takes apart what [`time_key`] made.
pub(crate) fn split_time_key(bytes: &[u8]) -> Option<(u64, RecordKey)> {
    let (time, key) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*time), RecordKey::parse(key).ok()?))
}
