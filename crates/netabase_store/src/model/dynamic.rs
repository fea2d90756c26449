//! Schemas at run time: models that are declared in `schema.toml`, without Rust.
//!
//! A [`Schema`] yields the same keys, payloads, indexes and JSON as the macros do for the same
//! models, so that a node can keep, verify, index and show the records of an application whose code
//! it does not have. Values are JSON outside. `docs/schemas.md` is the guide.
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
//! assert_eq!(message.codec.to_json(&record.payload)?, r#"{"id":7,"room":"general"}"#);
//! let key = schema.model("Message").unwrap().primary_key_to_json(&record.keys.primary)?;
//! assert_eq!(key, json!(7));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod by_fields;
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
mod shape;
mod sorted;
mod toml;
mod types;
mod validate;
mod value;

pub(crate) use shape::{Difference, Shape};
pub(crate) use sorted::sorted_payload;

pub use crate::model::limits::{
    MAX_ARRAY_ITEMS, MAX_KEY_FIELDS, MAX_SCHEMA_BYTES, MAX_SCHEMA_FIELDS, MAX_SCHEMA_INDEXES,
    MAX_SCHEMA_MODELS, MAX_SCHEMA_TYPES, MAX_SCHEMA_VARIANTS, MAX_TUPLE_PARTS, MAX_TYPE_DEPTH,
    MAX_VALUE_DEPTH, MAX_VALUE_PARTS,
};
pub use codec::DynamicCodec;
pub use error::{DynamicKeyError, SchemaError, SchemaProblem};
pub use model::{Field, Index, IndexKind, MergeRule, Model};
pub use query::{DynamicQuery, KeyInput};
pub use schema::{NamedType, Schema, TypeBody, Variant, VariantBody};
pub use types::Type;
