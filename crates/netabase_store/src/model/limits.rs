//! Bounds of models, schemas and their values.

/// The longest `schema.toml`, in bytes.
pub const MAX_SCHEMA_BYTES: usize = 256 * 1024;

/// The most models of a schema.
pub const MAX_SCHEMA_MODELS: usize = 256;

/// The most named types of a schema.
pub const MAX_SCHEMA_TYPES: usize = 256;

/// The most fields of a model, of a struct or of a variant.
pub const MAX_SCHEMA_FIELDS: usize = 256;

/// The most secondary keys of a model.
pub const MAX_SCHEMA_INDEXES: usize = 64;

/// The most variants of an enum.
pub const MAX_SCHEMA_VARIANTS: usize = 256;

/// The most fields that a key is made of.
pub const MAX_KEY_FIELDS: usize = 6;

/// How deep the text of a type nests, as in `list<option<u8>>`.
pub const MAX_TYPE_DEPTH: usize = 16;

/// The most parts of a tuple.
pub const MAX_TUPLE_PARTS: usize = 16;

/// The most items of an array, as serde has it.
pub const MAX_ARRAY_ITEMS: usize = 32;

/// How deep values nest, those of recursive types, too; deeper ones are refused.
pub const MAX_VALUE_DEPTH: usize = 64;

/// The most parts of a value: the items of its lists, the fields of its structs and so on; a byte
/// string is one.
pub const MAX_VALUE_PARTS: usize = 4 * 1024 * 1024;

/// How many levels values of types nest at most: what is one level to a run-time schema may be
/// several to serde.
pub(crate) const MAX_LEVELS: usize = MAX_VALUE_DEPTH + 8;

/// The longest lifetime of a model's records: 1000 years.
pub(crate) const MAX_LIFETIME_MILLIS: u64 = 365_250 * 24 * 60 * 60 * 1000;

/// The most digits of an integer, which are those of the largest one of 128 bits.
pub(crate) const MAX_DIGITS: usize = 39;

/// The most blobs that one record names.
pub(crate) const MAX_RECORD_BLOBS: usize = 1024;
