//! What a model is: the traits that the macros implement, and the schema they describe.
//!
//! The typed half of the crate works on [`NetabaseModel`] and [`NetabaseDefinition`]. The untyped
//! half (engines, writer, record store) works on keys, bytes and a [`DefinitionSchema`].

use std::fmt::{self, Debug};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

use crate::error::ValueError;
use crate::key::KeyField;

/// A set of models that share one database and one network.
///
/// Implemented by the enum that `#[netabase_definition_module(Definition, Keys)]` generates, with a
/// variant for each model.
pub trait NetabaseDefinition: Clone + Send + Sync + Sized + 'static {
    /// The enum of every model's keys.
    type Keys: Clone + Debug + Send + Sync + 'static;

    /// The names and indexes of the models.
    const SCHEMA: &'static DefinitionSchema;

    /// Returns the primary key of the model inside.
    fn key(&self) -> Self::Keys;

    /// Encodes the model inside, with its keys.
    fn encode(&self) -> Result<EncodedRecord, ValueError>;

    /// Decodes a payload of the model called `model`.
    fn decode(model: &str, payload: &[u8]) -> Result<Self, ValueError>;
}

/// A record type: a struct with a primary key and any number of secondary keys.
///
/// Implemented by `#[derive(NetabaseModel)]` inside a definition module.
///
/// Every model is `Clone`, `Serialize` and `Deserialize`, too. Those are no supertraits, so that a
/// model that forgets one is one error: generic code that needs them names them.
pub trait NetabaseModel: Send + Sync + Sized + 'static {
    /// The definition that the model belongs to; it implements `From<Self>`.
    type Definition: NetabaseDefinition + DefinitionOf<Self>;
    /// The generated primary key type.
    type PrimaryKey: PrimaryKey<Model = Self>;
    /// The generated enum of secondary keys; it has no variants where the model has none.
    type SecondaryKeys: SecondaryKeys<Model = Self>;
    /// The generated enum of all keys of the model.
    type Key: Clone + Debug + Send + Sync + 'static;

    /// The model's name, version and indexes.
    const SCHEMA: &'static ModelSchema;

    /// Returns the primary key of this record.
    fn primary_key(&self) -> Self::PrimaryKey;

    /// Returns the secondary keys of this record, in the order of the fields.
    fn secondary_keys(&self) -> Vec<Self::SecondaryKeys>;

    /// Appends the bytes of the primary key to `out`.
    fn encode_primary_key(&self, out: &mut Vec<u8>);

    /// Adds the bytes of every secondary key to `keys`.
    fn encode_index_keys(&self, keys: &mut IndexKeys);

    /// Appends the postcard bytes of this record to `out`.
    #[doc(hidden)]
    fn encode_value(&self, out: Vec<u8>) -> Result<Vec<u8>, ValueError>;

    /// Decodes what [`encode_value`](Self::encode_value) appended; bytes left over are an error.
    #[doc(hidden)]
    fn decode_value(value: &[u8]) -> Result<Self, ValueError>;
}

/// A definition whose module has the model `M`.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{M}` is not in the module of `{Self}`",
    label = "the definition has no model `{M}`",
    note = "move the struct into the module marked #[netabase_definition_module({Self}, ..)]"
)]
pub trait DefinitionOf<M>: From<M> {}

/// A generated primary key type, such as `UserPrimaryKey`.
pub trait PrimaryKey: KeyField {
    /// The model whose records it names.
    type Model: NetabaseModel<PrimaryKey = Self>;
}

/// A generated secondary key type, such as `UserEmailSecondaryKey`.
pub trait SecondaryKey: KeyField {
    /// The model whose records it finds.
    type Model: NetabaseModel;
    /// The position of its index in [`ModelSchema::indexes`].
    const INDEX: usize;
}

/// A generated enum of a model's secondary keys, such as `UserSecondaryKeys`.
pub trait SecondaryKeys: Clone + Debug + Send + Sync + 'static {
    /// The model whose records it finds.
    type Model: NetabaseModel;

    /// The position of the index in [`ModelSchema::indexes`].
    fn index(&self) -> usize;

    /// Appends the bytes of the key to `out`.
    fn encode_key(&self, out: &mut Vec<u8>);
}

/// The models of a definition, as the untyped core sees them.
#[derive(Debug)]
pub struct DefinitionSchema {
    /// The first part of every record key.
    pub name: &'static str,
    /// The models, in the order of their declaration.
    pub models: &'static [&'static ModelSchema],
}

impl DefinitionSchema {
    /// Finds a model by its name.
    pub fn model(&self, name: &str) -> Option<&'static ModelSchema> {
        self.models.iter().copied().find(|model| model.name == name)
    }
}

/// A model, as the untyped core sees it.
pub struct ModelSchema {
    /// The second part of every record key.
    pub name: &'static str,
    /// The version that this program writes; payloads start with it.
    pub version: u32,
    /// The secondary keys, in the order of the fields.
    pub indexes: &'static [IndexSchema],
    /// Reads the keys out of a payload, and in doing so checks that the payload is a whole record.
    pub extract: &'static ExtractKeys,
}

impl ModelSchema {
    /// Reads the keys out of a payload from a peer or from the disk; `None` if it is no record.
    ///
    /// The model's own code may panic on bytes that nobody expected. That must stop neither the
    /// network nor the writer, which this is called from.
    pub(crate) fn keys_of(&self, payload: &[u8]) -> Option<RecordKeys> {
        let keys = catch_unwind(AssertUnwindSafe(|| (self.extract)(payload)));
        let panicked = |_: &_| tracing::error!(model = self.name, "a model panicked while it was decoded");
        keys.inspect_err(panicked).ok()?.ok()
    }
}

impl Debug for ModelSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, indexes, extract: _ } = self;
        f.debug_struct("ModelSchema")
            .field("name", name)
            .field("version", version)
            .field("indexes", indexes)
            .finish_non_exhaustive()
    }
}

/// Reads the keys out of a payload.
pub type ExtractKeys = dyn Fn(&[u8]) -> Result<RecordKeys, ValueError> + Send + Sync;

/// A secondary key of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexSchema {
    /// The field's name.
    pub name: &'static str,
    /// What the key is made of.
    pub source: &'static str,
    /// Whether no two local records may have the same key.
    pub unique: bool,
}

/// The keys of one record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordKeys {
    /// The bytes of the primary key.
    pub primary: Vec<u8>,
    /// The bytes of the secondary keys.
    pub secondary: IndexKeys,
}

/// The secondary keys of one record: pairs of an index position and key bytes.
///
/// An index may appear any number of times, or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexKeys(Vec<(usize, Vec<u8>)>);

impl IndexKeys {
    /// Adds the bytes of a key to the index at position `index`.
    pub fn push(&mut self, index: usize, key: Vec<u8>) {
        self.0.push((index, key));
    }

    /// Returns the pairs of index position and key bytes.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.0.iter().map(|(index, key)| (*index, key.as_slice()))
    }
}

/// A record ready to be stored: its model, keys and payload.
#[derive(Debug, Clone)]
pub struct EncodedRecord {
    /// The model it belongs to.
    pub model: &'static ModelSchema,
    /// Its keys.
    pub keys: RecordKeys,
    /// The model version and the postcard bytes of the value.
    pub payload: Vec<u8>,
}

impl EncodedRecord {
    /// Encodes a model.
    pub fn of<M: NetabaseModel>(model: &M) -> Result<Self, ValueError> {
        Ok(Self { model: M::SCHEMA, keys: record_keys(model), payload: encode_payload(model)? })
    }
}

/// The implementation of [`ModelSchema::extract`] for a Rust type.
pub fn extract_keys<M: NetabaseModel>(payload: &[u8]) -> Result<RecordKeys, ValueError> {
    decode_payload::<M>(payload).map(|model| record_keys(&model))
}

/// Returns every key of `model`.
pub(crate) fn record_keys<M: NetabaseModel>(model: &M) -> RecordKeys {
    let mut keys = RecordKeys::default();
    model.encode_primary_key(&mut keys.primary);
    model.encode_index_keys(&mut keys.secondary);
    keys
}

/// Encodes the model version, then the value.
pub(crate) fn encode_payload<M: NetabaseModel>(model: &M) -> Result<Vec<u8>, ValueError> {
    let version =
        postcard::to_extend(&M::SCHEMA.version, Vec::with_capacity(64)).map_err(ValueError::Encode)?;
    model.encode_value(version)
}

/// Returns the model version that a payload begins with.
pub fn payload_version(payload: &[u8]) -> Result<u32, ValueError> {
    postcard::take_from_bytes(payload).map(|(version, _)| version).map_err(ValueError::Decode)
}

/// Decodes a payload: the model version, then the value. Bytes left over are an error.
pub fn decode_payload<M: NetabaseModel>(payload: &[u8]) -> Result<M, ValueError> {
    let (version, value) = postcard::take_from_bytes::<u32>(payload).map_err(ValueError::Decode)?;
    if version != M::SCHEMA.version {
        return Err(ValueError::Version { found: version, known: M::SCHEMA.version });
    }
    M::decode_value(value)
}

/// The implementation of [`NetabaseModel::encode_value`].
pub fn encode_value<T: Serialize>(value: &T, out: Vec<u8>) -> Result<Vec<u8>, ValueError> {
    postcard::to_extend(value, out).map_err(ValueError::Encode)
}

/// The implementation of [`NetabaseModel::decode_value`].
///
/// The bound is `DeserializeOwned` spelt out: serde explains a missing `Deserialize`, but not that.
pub fn decode_value<T: for<'de> Deserialize<'de>>(value: &[u8]) -> Result<T, ValueError> {
    match postcard::take_from_bytes(value).map_err(ValueError::Decode)? {
        (value, []) => Ok(value),
        (_, rest) => Err(ValueError::TrailingBytes { extra: rest.len() }),
    }
}
