//! A typed embedded record store: models, secondary keys, signed versions, group commit.
//!
//! [`NetabaseStore`] keeps the records of one definition in redb, sled or memory, and is usable on
//! its own: no network, no async runtime. The `netabase` crate puts it under a libp2p node, for
//! which the feature `libp2p` makes it a Kademlia record store.
//!
//! A definition is a module of models; the macros generate its key types and schema. [`Tree`] is
//! the typed view of a model, [`WriteTransaction`] writes to several at once. Below them everything
//! is a [`RecordKey`] and an [`Envelope`].

mod admit;
mod apply;
mod change;
mod clock;
mod core;
mod engine;
mod envelope;
mod error;
mod key;
mod migrate;
mod options;
#[cfg(feature = "libp2p")]
mod provider;
mod record_key;
#[cfg(feature = "libp2p")]
mod record_store;
mod schema;
mod store;
mod tables;
mod transaction;
mod tree;
mod writer;

// Generated code names this crate by its path from outside.
extern crate self as netabase_store;

pub use admit::{MAX_CLOCK_SKEW, MAX_INDEX_KEY_BYTES, MAX_INDEX_KEYS, Refusal};
pub use change::{Change, ChangeKind, Observer, Origin, StoreEvent};
pub use clock::{Clock, Timestamp};
pub use ed25519_dalek::SigningKey;
pub use engine::{Engine, RedbStorage, RedbStore, SledStore};
pub use envelope::{Author, ENVELOPE_OVERHEAD_BYTES, Envelope, EnvelopeError, Version};
pub use error::{KeyError, StoreError, ValueError};
pub use key::KeyField;
pub use netabase_macros::{NetabaseKey, NetabaseModel, netabase_definition_module};
pub use options::{DEFAULT_CACHE_BYTES, DEFAULT_MAX_VALUE_BYTES, StorageBackend, StoreOptions};
pub use record_key::{
    MAX_NAME_BYTES, MAX_PRIMARY_KEY_BYTES, MAX_RECORD_KEY_BYTES, RecordKey, RecordKeyError, is_name,
};
pub use schema::{
    DefinitionSchema, EncodedRecord, ExtractKeys, IndexKeys, IndexSchema, ModelSchema, NetabaseDefinition,
    NetabaseModel, PrimaryKey, RecordKeys, SecondaryKey, SecondaryKeys, decode_payload,
};
pub use store::{CheckedRecord, NetabaseStore};
pub use transaction::WriteTransaction;
pub use tree::{Iter, Tree};

#[doc(hidden)]
pub mod __private {
    pub use crate::error::{KeyError, ValueError};
    pub use crate::key::KeyField;
    pub use crate::schema::{
        DefinitionOf, DefinitionSchema, EncodedRecord, IndexKeys, IndexSchema, ModelSchema,
        NetabaseDefinition, NetabaseModel, PrimaryKey, SecondaryKey, SecondaryKeys, decode_payload,
        decode_value, encode_value, extract_keys,
    };
}
