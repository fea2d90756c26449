//! Schemas at run time: models that are declared in `schema.toml`, without Rust.
//!
//! A [`Schema`] yields the same keys, payloads, indexes and JSON as the macros do for the same
//! models, so that a node can keep, verify, index and show the records of an application whose code
//! it does not have. Values are JSON outside and postcard inside. `docs/schemas.md` is the guide.
//!
//! ```
//! use netabase_store::{NetabaseStore, StoreOptions};
//! use netabase_store::dynamic::Schema;
//! use serde_json::json;
//!
//! let schema = Schema::from_toml(r#"
//!     name = "ChatDefinition"
//!
//!     [[models]]
//!     name = "Message"
//!     primary_key = ["id"]
//!     fields = [
//!       { name = "id", type = "u64" },
//!       { name = "room", type = "string" },
//!     ]
//!
//!     [[models.secondary_keys]]
//!     name = "room"
//!     fields = ["room"]
//! "#)?;
//! let message = schema.definition().model("Message").unwrap();
//! let record = message.codec.from_json(1, r#"{"id":7,"room":"general"}"#)?;
//! assert_eq!(record.payload, b"\x01\x07\x07general");
//! let key = schema.model("Message").unwrap().primary_key_to_json(&record.keys.primary)?;
//! assert_eq!(key, json!(7));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod codec;
mod decode;
mod definition;
mod error;
mod key;
mod key_json;
mod merge;
mod model;
mod number;
mod of;
mod query;
mod schema;
mod sorted;
mod toml;
mod types;
mod validate;
mod value;

pub(crate) use sorted::sorted_payload;

pub use codec::DynamicCodec;
pub use error::{DynamicKeyError, SchemaError, SchemaProblem};
pub use model::{Field, Index, IndexKind, MergeRule, Model};
pub use query::{DynamicQuery, KeyInput};
pub use schema::{NamedType, Schema, TypeBody, Variant, VariantBody};
pub use types::Type;

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
