//! Schemas of models, and the traits that the macros implement.
//!
//! The typed half of the crate works on [`NetabaseModel`] and [`NetabaseDefinition`]. The untyped
//! half (engines, writer, record store) works on keys, bytes and a [`DefinitionSchema`].

use std::fmt::{self, Debug, Display};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use postcard::ser_flavors::{ExtendFlavor, Flavor};
use serde::{Deserialize, Serialize};

use crate::error::ValueError;
use crate::model::blob::Blob;
use crate::model::depth;
use crate::model::described::{FieldSchema, Order};
use crate::model::dynamic::sorted_payload;
use crate::model::fields::{self, Fault, Reader, Writer};
use crate::model::json_tokens::integral;
use crate::model::key::KeyField;
use crate::model::limits::{MAX_MODEL_VERSION, MAX_RECORD_BLOBS};
use crate::model::merge::Merge;
use crate::version::envelope::Author;
use crate::version::limits::{MAX_INDEX_KEY_BYTES, MAX_INDEX_KEYS};
use crate::version::record_key::{RecordKey, RecordKeyError, WritePolicy};

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

/// A version of a model: a type that values of one version number are decoded as.
///
/// Implemented by `#[derive(NetabaseModel)]` for the present version, and by
/// `#[derive(NetabaseVersion)]` for the earlier ones that it migrates from.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no version of a model",
    label = "no version of a model",
    note = "write #[derive(NetabaseVersion)] and #[netabase(version = 1)] above the earlier version of a model"
)]
pub trait ModelVersion: Sized {
    /// The number of the version; payloads start with it.
    const VERSION: u32;

    /// Decodes a value that has the version `version`, which may be an earlier one.
    fn decode_version(version: u32, value: Encoded<'_>) -> Result<Self, ValueError>;
}

/// A value without its version, in one of its encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoded<'a> {
    /// The fields under their tags, as in a payload.
    Fields(&'a [u8]),
    /// The postcard bytes, as in a payload of an earlier program.
    Postcard(&'a [u8]),
    /// JSON, as in an export.
    Json(&'a str),
}

impl Encoded<'_> {
    pub(crate) fn encoding(self) -> Encoding {
        match self {
            Self::Fields(_) => Encoding::Fields,
            Self::Postcard(_) => Encoding::Postcard,
            Self::Json(_) => Encoding::Json,
        }
    }

    /// The bound is `DeserializeOwned` spelt out: serde explains a missing `Deserialize`, but not
    /// that.
    fn decode<T: for<'de> Deserialize<'de>>(self) -> Result<T, ValueError> {
        match self {
            Self::Fields(bytes) => Ok(fields::read(bytes)?),
            Self::Postcard(bytes) => {
                let mut from = postcard::Deserializer::from_bytes(bytes);
                let value = depth::deserialize(&mut from).map_err(ValueError::Decode)?;
                let value = value.ok_or(ValueError::TOO_DEEP)?;
                match from.finalize().map_err(ValueError::Decode)? {
                    [] => Ok(value),
                    rest => Err(ValueError::TrailingBytes { extra: rest.len() }),
                }
            }
            Self::Json(json) => {
                let mut from = serde_json::Deserializer::from_str(json);
                let value = depth::deserialize(&mut from).map_err(|error| ValueError::json(&error))?;
                from.end().map_err(|error| ValueError::json(&error))?;
                value.ok_or(ValueError::TOO_DEEP)
            }
        }
    }
}

/// A record type: a struct with a primary key and any number of secondary keys.
///
/// Implemented by `#[derive(NetabaseModel)]` inside a definition module.
///
/// Every model is `Clone`, `Serialize` and `Deserialize`, too. These are not supertraits, so that a
/// missing derive is one error; generic code that needs them names them.
pub trait NetabaseModel: ModelVersion + Send + Sync + 'static {
    /// The definition that the model belongs to; it implements `From<Self>`.
    type Definition: NetabaseDefinition + DefinitionOf<Self>;
    /// The generated primary key type.
    type PrimaryKey: PrimaryKey<Model = Self>;
    /// The generated enum of secondary keys, without variants if the model has no secondary keys.
    type SecondaryKeys: SecondaryKeys<Model = Self>;
    /// The generated enum of all keys of the model.
    type Key: Clone + Debug + Send + Sync + 'static;

    /// The model's name, version and indexes.
    const SCHEMA: &'static ModelSchema;

    /// Returns the primary key of this record.
    fn primary_key(&self) -> Self::PrimaryKey;

    /// Returns the secondary keys of this record, in the order of the indexes.
    ///
    /// An optional key that is `None` gives no entry, a multi-valued one gives an entry for each
    /// value.
    fn secondary_keys(&self) -> Vec<Self::SecondaryKeys>;

    /// Appends the bytes of the primary key to `out`.
    fn encode_primary_key(&self, out: &mut Vec<u8>);

    /// Adds the bytes of every secondary key to `keys`.
    fn encode_index_keys(&self, keys: &mut IndexKeys);

    /// Adds the blobs that this record names in fields with `#[blob]` to `found`.
    fn blobs(&self, found: &mut Vec<Blob>) {
        let _ = found;
    }

    /// Merges the fields that are not simply those of the latest contribution.
    #[doc(hidden)]
    fn merge_fields(&mut self, how: &Merge<'_, Self>) {
        let _ = how;
    }

    /// Appends this record to `out`, without its version.
    #[doc(hidden)]
    fn encode_value(&self, encoding: Encoding, out: Vec<u8>) -> Result<Vec<u8>, ValueError>;
}

/// The encoding of a value: that of payloads, that of earlier programs' payloads, or JSON.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Fields,
    Postcard,
    Json,
}

/// The type of the primary key's field, or the tuple of its fields.
pub type PrimaryFields<M> = <<M as NetabaseModel>::PrimaryKey as PrimaryKey>::Fields;

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
    /// The type of its field, or the tuple of its fields: a [`KeyField`] with the key's encoding.
    ///
    /// The bound is left out, so that a field of another type is one error and not two.
    type Fields: 'static;
}

/// The type of the first field of an owned model's primary key: [`Author`].
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "the primary key of an owned model starts with its owner, an `Author`, and not with `{Self}`",
    label = "not the owner of the record",
    note = "make the first field with `#[primary_key]` an `Author`, or let anybody write: remove `owned`"
)]
pub trait Owner {}

impl Owner for Author {}

/// Compiles if `T` can be the owner of a record.
#[doc(hidden)]
pub const fn owner_of<T: Owner>() {}

/// A generated secondary key type, such as `UserEmailSecondaryKey`.
pub trait SecondaryKey: KeyField {
    /// The model whose records it finds.
    type Model: NetabaseModel;
    /// The type of its field, or the tuple of its fields: a [`KeyField`] with the key's encoding.
    ///
    /// The bound is left out, so that a field of another type is one error and not two.
    type Fields: 'static;
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
    /// The authors that may write its records.
    pub policy: WritePolicy,
    /// The TTL of its records from their write or renewal, in milliseconds; `None` if the store's
    /// options decide.
    pub lifetime: Option<u64>,
    /// The merge rules of a merged model's fields, such as `votes=counter,tags=set`; fields that
    /// are not named are those of the latest contribution.
    pub merge: &'static str,
    /// The fields that name blobs, such as `cover,pages`.
    pub blobs: &'static str,
    /// The fields, in the order in which payloads have them; of a model that is described at run
    /// time only their names are here.
    pub fields: &'static [FieldSchema],
    /// The names of the fields that the primary key is made of, in its order.
    pub primary_key: &'static [&'static str],
    /// The secondary keys: first those of fields, then those declared on the struct.
    pub indexes: &'static [IndexSchema],
    /// Reads and writes payloads.
    pub codec: &'static dyn ModelCodec,
}

impl ModelSchema {
    /// Returns whether records of `other` have the same keys, tables and rules; the types of fields
    /// are not compared.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let Self {
            name,
            version,
            policy,
            lifetime: _,
            merge,
            blobs,
            fields: _,
            primary_key,
            indexes,
            codec: _,
        } = self;
        std::ptr::eq(self, other)
            || (*name, *version, *policy, *merge, *blobs, *primary_key, *indexes)
                == (
                    other.name,
                    other.version,
                    other.policy,
                    other.merge,
                    other.blobs,
                    other.primary_key,
                    other.indexes,
                )
    }

    /// Returns the key of a record of this model in the definition called `definition`.
    pub fn record_key(&self, definition: &str, primary_key: &[u8]) -> Result<RecordKey, RecordKeyError> {
        RecordKey::with_policy(self.policy, definition, self.name, primary_key)
    }

    /// Returns the name of the model with the mark of its [`policy`](Self::policy) in front, as in
    /// a record key.
    pub fn marked_name(&self) -> String {
        self.policy.marked(self.name)
    }

    /// Reads the keys out of a payload from a peer or from the disk; `None` if it is no record.
    ///
    /// The model's own code may panic on a peer's bytes, which must stop neither the swarm nor the
    /// writer.
    pub(crate) fn keys_of(&self, payload: &[u8]) -> Option<RecordKeys> {
        let keys = self.guarded(|codec| codec.keys(payload)).ok()?;
        Some(RecordKeys { secondary: self.bounded(keys.secondary), ..keys })
    }

    /// Reads the keys out of a payload from a peer, which has to be the one encoding of its value.
    pub(crate) fn canonical_keys_of(&self, payload: &[u8]) -> Result<RecordKeys, ValueError> {
        let keys = self.guarded(|codec| codec.canonical_keys(payload))?;
        Ok(RecordKeys { secondary: self.bounded(keys.secondary), ..keys })
    }

    /// Returns the blobs that a payload names, or an empty list if it is no record.
    pub fn blobs_of(&self, payload: &[u8]) -> Vec<Blob> {
        if self.blobs.is_empty() {
            return Vec::new();
        }
        self.keys_of(payload).map_or_else(Vec::new, |keys| keys.secondary.blobs)
    }

    /// Returns as many secondary keys and blobs as a record may have.
    ///
    /// A merged record may have too many, since its authors have not seen each other's
    /// contributions. Valid contributions cannot be refused for their sum, so the first keys are
    /// kept.
    pub(crate) fn bounded(&self, mut keys: IndexKeys) -> IndexKeys {
        if self.policy == WritePolicy::Merged {
            keys.keys.retain(|(_, key)| key.len() <= MAX_INDEX_KEY_BYTES);
            keys.keys.truncate(MAX_INDEX_KEYS);
            keys.blobs.truncate(MAX_RECORD_BLOBS);
        }
        keys
    }

    /// Encodes the JSON of a value that has the version `version`, which comes from outside.
    ///
    /// Integers may be written with a decimal point or an exponent.
    pub fn read_json(&self, version: u32, json: &str) -> Result<EncodedRecord, ValueError> {
        match self.guarded(|codec| codec.from_json(version, json)) {
            Err(error) => match integral(json) {
                Some(json) => self.guarded(|codec| codec.from_json(version, &json)),
                None => Err(error),
            },
            Ok(record) => Ok(record),
        }
    }

    /// Returns the payload `edited` with the parts of `before`, the payload that it replaces, that
    /// this program does not know; `None` if there are none.
    pub(crate) fn carried(&self, before: &[u8], edited: &[u8]) -> Option<Vec<u8>> {
        self.guarded(|codec| Ok(codec.carried(before, edited))).ok().flatten()
    }

    /// Calls the codec with input from outside, and returns a panic of the model's own code as
    /// [`ValueError::Panicked`].
    pub fn guarded<T>(
        &self,
        read: impl FnOnce(&dyn ModelCodec) -> Result<T, ValueError>,
    ) -> Result<T, ValueError> {
        catch_unwind(AssertUnwindSafe(|| read(self.codec))).unwrap_or_else(|_| {
            tracing::error!(model = self.name, "a model panicked while it was decoded");
            Err(ValueError::Panicked)
        })
    }
}

impl Debug for ModelSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, policy, lifetime, merge, blobs, fields, primary_key, indexes, codec: _ } =
            self;
        f.debug_struct("ModelSchema")
            .field("name", name)
            .field("version", version)
            .field("policy", policy)
            .field("lifetime", lifetime)
            .field("merge", merge)
            .field("blobs", blobs)
            .field("fields", fields)
            .field("primary_key", primary_key)
            .field("indexes", indexes)
            .finish_non_exhaustive()
    }
}

/// The operations of the untyped core on the payloads of a model.
pub trait ModelCodec: Send + Sync {
    /// Reads the keys out of a payload, and checks that the payload is a complete record.
    fn keys(&self, payload: &[u8]) -> Result<RecordKeys, ValueError>;

    /// Reads the keys like [`keys`](Self::keys), and fails with [`ValueError::NotCanonical`] if the
    /// payload has the version that this program writes and is not the canonical encoding of its
    /// value.
    ///
    /// By default nothing more is checked.
    fn canonical_keys(&self, payload: &[u8]) -> Result<RecordKeys, ValueError> {
        self.keys(payload)
    }

    /// Returns the payload `edited`, of this program, with the parts of `before` that this program
    /// does not know; `None` if there are none, and by default.
    fn carried(&self, before: &[u8], edited: &[u8]) -> Option<Vec<u8>> {
        let _ = (before, edited);
        None
    }

    /// Encodes the value of a payload anew, in the version that this program writes.
    fn upgrade(&self, payload: &[u8]) -> Result<EncodedRecord, ValueError>;

    /// Returns the value of a payload as JSON on one line, in the version that this program writes.
    fn to_json(&self, payload: &[u8]) -> Result<String, ValueError>;

    /// Encodes the JSON of a value that has the version `version`.
    #[expect(clippy::wrong_self_convention, reason = "the codec is what knows the type")]
    fn from_json(&self, version: u32, json: &str) -> Result<EncodedRecord, ValueError>;

    /// Merges the payloads of the contributions to a record, the earliest first.
    ///
    /// Contributions that cannot be read or belong under another primary key are left out. Returns
    /// `None` if none is left, and by default.
    fn merge(&self, primary: &[u8], contributions: &[&[u8]]) -> Result<Option<EncodedRecord>, ValueError> {
        let _ = (primary, contributions);
        Ok(None)
    }

    /// Encodes the contribution of an author that wants to read the value of the payload `wanted`,
    /// given its former contribution and those of others.
    ///
    /// By default it is the value.
    fn contribution(
        &self,
        wanted: &[u8],
        own: Option<&[u8]>,
        others: &[&[u8]],
    ) -> Result<EncodedRecord, ValueError> {
        let _ = (own, others);
        self.upgrade(wanted)
    }
}

/// The [`ModelCodec`] of a Rust type.
pub struct TypedCodec<M>(PhantomData<fn() -> M>);

impl<M> TypedCodec<M> {
    /// Returns the codec; it is nothing but its type.
    #[expect(clippy::new_without_default, reason = "only a constant needs one")]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<M> Debug for TypedCodec<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TypedCodec")
    }
}

impl<M: NetabaseModel> ModelCodec for TypedCodec<M> {
    fn keys(&self, payload: &[u8]) -> Result<RecordKeys, ValueError> {
        decode_payload::<M>(payload).map(|model| record_keys(&model))
    }

    fn canonical_keys(&self, payload: &[u8]) -> Result<RecordKeys, ValueError> {
        let (version, value) = split_payload(payload)?;
        let (model, has_unknown) = fields::noticing_unknown(|| M::decode_version(version, value));
        let model = model?;
        // What other fields are like is for programs to judge that know them.
        if version == M::VERSION && !has_unknown {
            let written = encode_payload(&model, value.encoding())?;
            // If the order of the model's own types is not fixed or not known, only a longer
            // encoding can be detected.
            let same_size =
                |written: usize| written == payload.len() && Order::of(M::SCHEMA.fields) != Order::Fixed;
            if !is_canonical(payload, &written) && !same_size(written.len()) {
                return Err(ValueError::NotCanonical);
            }
        }
        Ok(record_keys(&model))
    }

    fn carried(&self, before: &[u8], edited: &[u8]) -> Option<Vec<u8>> {
        let write = |model: &M| EncodedRecord::of(model).map(|record| record.payload);
        carried(before, edited, M::VERSION, decode_payload, write)
    }

    fn upgrade(&self, payload: &[u8]) -> Result<EncodedRecord, ValueError> {
        let mut record = EncodedRecord::of(&decode_payload::<M>(payload)?)?;
        if let Some(carried) = self.carried(payload, &record.payload) {
            record.payload = carried;
        }
        Ok(record)
    }

    fn to_json(&self, payload: &[u8]) -> Result<String, ValueError> {
        let json = decode_payload::<M>(payload)?.encode_value(Encoding::Json, Vec::new())?;
        String::from_utf8(json).map_err(|error| ValueError::Json { message: error.to_string() })
    }

    fn from_json(&self, version: u32, json: &str) -> Result<EncodedRecord, ValueError> {
        EncodedRecord::of(&M::decode_version(version, Encoded::Json(json))?)
    }

    fn merge(&self, primary: &[u8], contributions: &[&[u8]]) -> Result<Option<EncodedRecord>, ValueError> {
        let mut readable = readable::<M>(primary, contributions);
        let Some(mut merged) = readable.pop() else { return Ok(None) };
        merged.merge_fields(&Merge::All(&readable));
        EncodedRecord::of(&merged).map(Some)
    }

    fn contribution(
        &self,
        wanted: &[u8],
        own: Option<&[u8]>,
        others: &[&[u8]],
    ) -> Result<EncodedRecord, ValueError> {
        let mut model = decode_payload::<M>(wanted)?;
        let own = own.and_then(|own| decode_payload::<M>(own).ok());
        let others = readable::<M>(&record_keys(&model).primary, others);
        model.merge_fields(&Merge::Own { own: own.as_ref(), others: &others });
        EncodedRecord::of(&model)
    }
}

/// Decodes the contributions to the record that `primary` names, as far as this program can read
/// them.
fn readable<M: NetabaseModel>(primary: &[u8], contributions: &[&[u8]]) -> Vec<M> {
    let read = |payload: &&[u8]| decode_payload::<M>(payload).ok();
    let mut models: Vec<M> = contributions.iter().filter_map(read).collect();
    models.retain(|model| record_keys(model).primary == primary);
    models
}

/// A secondary key of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexSchema {
    /// Its name: that of the field, or the one given on the struct.
    pub name: &'static str,
    /// The source of the key. An index whose source has changed is rebuilt.
    ///
    /// `room` for a field, `reply_to?` for an optional and `tags*` for a multi-valued one,
    /// `room,sent_at` for a compound key, `=Message::domain` for a computed one.
    pub source: &'static str,
    /// Whether two records may not have the same key.
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

/// The secondary keys of one record: pairs of an index position and key bytes; and the blobs that
/// it names.
///
/// An index may appear any number of times, or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexKeys {
    keys: Vec<(usize, Vec<u8>)>,
    blobs: Vec<Blob>,
}

impl IndexKeys {
    /// The longest secondary key, as bytes; a longer one is refused.
    pub const MAX_KEY_BYTES: usize = MAX_INDEX_KEY_BYTES;
    /// The most secondary keys of one record; more are refused.
    pub const MAX_KEYS: usize = MAX_INDEX_KEYS;

    /// Adds the bytes of a key to the index at position `index`.
    pub fn push(&mut self, index: usize, key: Vec<u8>) {
        self.keys.push((index, key));
    }

    /// Adds a blob that the record names.
    pub fn push_blob(&mut self, blob: Blob) {
        self.blobs.push(blob);
    }

    /// Returns the blobs that the record names.
    pub fn blobs(&self) -> &[Blob] {
        &self.blobs
    }

    /// Returns the pairs of index position and key bytes.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.keys.iter().map(|(index, key)| (*index, key.as_slice()))
    }
}

/// A record ready to be stored: its model, keys and payload.
#[derive(Debug, Clone)]
pub struct EncodedRecord {
    /// The model it belongs to.
    pub model: &'static ModelSchema,
    /// Its keys.
    pub keys: RecordKeys,
    /// The model version and the fields of the value.
    pub payload: Vec<u8>,
}

impl EncodedRecord {
    /// Encodes a model.
    pub fn of<M: NetabaseModel>(model: &M) -> Result<Self, ValueError> {
        let mut payload = encode_payload(model, Encoding::Fields)?;
        if Order::of(M::SCHEMA.fields) == Order::Hashed
            && let Some(sorted) = sorted_payload(M::SCHEMA, &payload)
        {
            payload = sorted;
        }
        Ok(Self { model: M::SCHEMA, keys: record_keys(model), payload })
    }
}

/// Returns every key of `model`.
pub(crate) fn record_keys<M: NetabaseModel>(model: &M) -> RecordKeys {
    let mut keys = RecordKeys::default();
    model.encode_primary_key(&mut keys.primary);
    model.encode_index_keys(&mut keys.secondary);
    let mut blobs = Vec::new();
    model.blobs(&mut blobs);
    for blob in blobs {
        keys.secondary.push_blob(blob);
    }
    keys
}

/// What is added to the version of a payload by fields. Programs that know no fields take it for a
/// later version of the model: they keep the record and pass it on.
const BY_FIELDS: u32 = MAX_MODEL_VERSION + 1;

/// Encodes the model version, then the value.
pub(crate) fn encode_payload<M: NetabaseModel>(model: &M, encoding: Encoding) -> Result<Vec<u8>, ValueError> {
    model.encode_value(encoding, begin_payload(M::VERSION, encoding, 64)?)
}

/// Begins a payload with the model version.
pub(crate) fn begin_payload(version: u32, encoding: Encoding, bytes: usize) -> Result<Vec<u8>, ValueError> {
    let version = if encoding == Encoding::Fields { BY_FIELDS + version } else { version };
    postcard::to_extend(&version, Vec::with_capacity(bytes)).map_err(ValueError::Encode)
}

/// Returns whether a payload is the one encoding of a value that this program writes as `written`,
/// as far as it can tell: an earlier program did not write a field that has a default.
pub(crate) fn is_canonical(payload: &[u8], written: &[u8]) -> bool {
    let by_fields = || matches!(split_payload(payload), Ok((_, Encoded::Fields(_))));
    written == payload || (written.len() > payload.len() && by_fields())
}

/// Returns the payload `edited` with the parts of `before` that a program does not know. It is a
/// program with the version `version` of the model.
pub(crate) fn carried<T>(
    before: &[u8],
    edited: &[u8],
    version: u32,
    read: impl Fn(&[u8]) -> Result<T, ValueError>,
    write: impl Fn(&T) -> Result<Vec<u8>, ValueError>,
) -> Option<Vec<u8>> {
    let by_fields = |payload| match split_payload(payload) {
        Ok((found, Encoded::Fields(fields))) if found == version => Some(fields),
        _ => None,
    };
    let (was, now) = (by_fields(before)?, by_fields(edited)?);
    let (value, has_unknown) = fields::noticing_unknown(|| read(before));
    let known = write(&value.ok().filter(|_| has_unknown)?).ok()?;
    let joined = fields::carried(was, by_fields(&known)?, now).ok()?;
    let mut payload = begin_payload(version, Encoding::Fields, joined.len() + 5).ok()?;
    payload.extend_from_slice(&joined);
    // A field that the program knows by another name, too, is not kept under both.
    let again = write(&read(&payload).ok()?).ok()?;
    (again == edited).then_some(payload)
}

/// Decodes a payload: the model version, then the value. Bytes left over are an error.
///
/// A value of an earlier version is migrated to the present one, if the model declares the
/// conversion.
pub fn decode_payload<M: ModelVersion>(payload: &[u8]) -> Result<M, ValueError> {
    let (version, value) = split_payload(payload)?;
    M::decode_version(version, value)
}

/// Returns the model version that a payload starts with.
///
/// ```
/// assert_eq!(netabase_store::schema::payload_version(&[2, 0x61])?, 2);
/// // Of fields under their tags.
/// assert_eq!(netabase_store::schema::payload_version(&[0x82, 0x40])?, 2);
/// # Ok::<(), netabase_store::ValueError>(())
/// ```
pub fn payload_version(payload: &[u8]) -> Result<u32, ValueError> {
    split_payload(payload).map(|(version, _)| version)
}

/// Splits a payload into its version and the value.
pub(crate) fn split_payload(payload: &[u8]) -> Result<(u32, Encoded<'_>), ValueError> {
    let (version, value): (u32, _) = postcard::take_from_bytes(payload).map_err(ValueError::Decode)?;
    Ok(match version.checked_sub(BY_FIELDS) {
        Some(version) => (version, Encoded::Fields(value)),
        None => (version, Encoded::Postcard(value)),
    })
}

/// The implementation of [`NetabaseModel::encode_value`].
pub fn encode_value<T: Serialize>(
    value: &T,
    encoding: Encoding,
    mut out: Vec<u8>,
) -> Result<Vec<u8>, ValueError> {
    match encoding {
        Encoding::Fields => Ok(fields::write(value, out)?),
        Encoding::Postcard => {
            let mut to = postcard::Serializer { output: ExtendFlavor::new(out) };
            let written = depth::serialize(value, &mut to).map_err(ValueError::Encode)?;
            written.ok_or(ValueError::TOO_DEEP)?;
            to.output.finalize().map_err(ValueError::Encode)
        }
        Encoding::Json => {
            let written = depth::serialize(value, &mut serde_json::Serializer::new(&mut out));
            written.map_err(|error| ValueError::json(&error))?.ok_or(ValueError::TOO_DEEP)?;
            Ok(out)
        }
    }
}

/// The implementation of [`NetabaseModel::encode_value`] for a model whose fields are written by
/// `write`, in the order of their tags.
pub fn encode_fields<T: Serialize>(
    value: &T,
    encoding: Encoding,
    out: Vec<u8>,
    write: impl FnOnce(&T, &mut Writer) -> Result<(), Fault>,
) -> Result<Vec<u8>, ValueError> {
    if encoding != Encoding::Fields {
        return encode_value(value, encoding, out);
    }
    let mut to = Writer::new(out);
    write(value, &mut to)?;
    Ok(to.finish())
}

/// The implementation of [`ModelVersion::decode_version`] for a model whose fields are read by
/// `read`, in the order of their tags.
pub fn decode_fields<T>(
    version: u32,
    value: Encoded<'_>,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, Fault>,
) -> Result<T, ValueError>
where
    T: ModelVersion + for<'de> Deserialize<'de>,
{
    match value {
        Encoded::Fields(bytes) if version == T::VERSION => {
            let mut from = Reader::new(bytes);
            let value = read(&mut from)?;
            from.finish()?;
            Ok(value)
        }
        _ => decode_value(version, value),
    }
}

/// The implementation of [`ModelVersion::decode_version`] for the version of `T` itself.
pub fn decode_value<T>(version: u32, value: Encoded<'_>) -> Result<T, ValueError>
where
    T: ModelVersion + for<'de> Deserialize<'de>,
{
    if version == T::VERSION { value.decode() } else { Err(unknown_version::<T>(version)) }
}

/// The implementation of [`ModelVersion::decode_version`] for versions before that of `New`.
///
/// The functions of `Old` are arguments, so that a type that is no version is one error and not
/// two.
pub fn migrate_value<Old, New>(
    version: u32,
    value: Encoded<'_>,
    decode: fn(u32, Encoded<'_>) -> Result<Old, ValueError>,
    from: u32,
) -> Result<New, ValueError>
where
    New: ModelVersion + TryFrom<Old>,
    New::Error: Display,
{
    let old = decode(version, value).map_err(|error| match error {
        // The error names the newest version, also if an earlier one of the chain has failed.
        ValueError::Version { found, .. } if found == version => unknown_version::<New>(version),
        other => other,
    })?;
    New::try_from(old).map_err(|error| ValueError::Migration {
        from,
        to: New::VERSION,
        message: error.to_string(),
    })
}

fn unknown_version<T: ModelVersion>(found: u32) -> ValueError {
    ValueError::Version { found, known: T::VERSION }
}
