//! Limits of models, schemas and their values.

use crate::version::limits::{MAX_INDEX_KEYS, MAX_NAME_BYTES};

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

/// The most fields of a key; `MAX_PARTS` of the macros is the same.
pub const MAX_KEY_FIELDS: usize = 6;

/// The deepest nesting of a type's text, as in `list<option<u8>>`.
pub const MAX_TYPE_DEPTH: usize = 16;

/// The most parts of a tuple.
pub const MAX_TUPLE_PARTS: usize = 16;

/// The most items of an array, which is serde's limit.
pub const MAX_ARRAY_ITEMS: usize = 32;

/// The deepest nesting of a value, also of a recursive type.
pub const MAX_VALUE_DEPTH: usize = 64;

/// The most parts of a value: the items of its lists, the fields of its structs and so on. A byte
/// string is one part.
pub const MAX_VALUE_PARTS: usize = 4 * 1024 * 1024;

/// The deepest nesting of a value of a Rust type, in levels of serde. One level of a run-time
/// schema may be several of serde.
pub(crate) const MAX_LEVELS: usize = MAX_VALUE_DEPTH + 8;

/// The highest version of a model. The macros have the same limit.
pub(crate) const MAX_MODEL_VERSION: u32 = 8191;

/// The longest lifetime of a model's records: 1000 years. The macros have the same limit.
#[cfg(feature = "toml")]
pub(crate) const MAX_LIFETIME_MILLIS: u64 = 365_250 * 24 * 60 * 60 * 1000;

/// The most digits of an integer.
pub(crate) const MAX_DIGITS: usize = 39;

/// The most blobs that one record names.
pub(crate) const MAX_RECORD_BLOBS: usize = 1024;

// A key writes the number of a variant as one byte.
const _: () = assert!(MAX_SCHEMA_VARIANTS <= u8::MAX as usize + 1);
// A record may have a key in each index of its model.
const _: () = assert!(MAX_SCHEMA_INDEXES <= MAX_INDEX_KEYS);
// A key is made of fields of its model.
const _: () = assert!(MAX_KEY_FIELDS <= MAX_SCHEMA_FIELDS);
// Each level of a type's text is a level of its values.
const _: () = assert!(MAX_TYPE_DEPTH < MAX_VALUE_DEPTH);
// The names of the most models fit the text of a schema.
const _: () = assert!(MAX_SCHEMA_MODELS * MAX_NAME_BYTES < MAX_SCHEMA_BYTES);
// The largest integer has as many digits.
const _: () = assert!(u128::MAX.ilog10() as usize + 1 == MAX_DIGITS);
// A record with the longest lifetime ends at a time that can be shown as a date.
#[cfg(feature = "toml")]
const _: () = assert!(2 * MAX_LIFETIME_MILLIS < crate::version::limits::MAX_SHOWN_MILLIS);
