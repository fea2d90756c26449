//! A typed embedded record store: models, secondary keys, signed versions, group commit.
//!
//! [`NetabaseStore`] keeps the records of one definition in redb, sled or memory, and is usable on
//! its own: no network, no async runtime. The `netabase` crate puts it under a libp2p node, for
//! which the feature `libp2p` makes it a Kademlia record store.
//!
//! A definition is a module of models; the macros generate its key types and schema. [`Tree`] is
//! the typed view of a model, [`WriteTransaction`] writes to several at once. Below them everything
//! is a [`RecordKey`] and an [`Envelope`]. `docs/models.md` says what can be declared, and
//! `docs/store.md` is the guide.
//!
//! The root has what applications name every day. Each module has all of its subject:
//!
//! | module | subject |
//! | --- | --- |
//! | [`query`], [`key`] | queries, pages and cursors; keys and ranges of them |
//! | [`schema`], [`dynamic`] | models as the macros describe them, and schemas at run time |
//! | [`changes`] | following the changes of a store or of a query |
//! | [`blob`] | large values beside the database |
//! | [`admin`], [`export`], [`import`] | checks, backups, figures, and records as files |
//! | [`version`] | envelopes, timestamps and authors |
//! | [`text`] | text of others, written so that it can be shown |
//! | [`replica`], [`members`] | what a node needs of a store, and an application does not |
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "a test uses files, threads and clocks directly")
)]

pub mod admin;
#[cfg(feature = "blobs")]
mod blobs;
pub mod changes;
mod core;
mod engine;
mod error;
mod limits;
mod model;
mod options;
mod platform;
mod read;
pub mod replica;
mod store;
mod tables;
pub mod text;
pub mod version;
mod write;

// Generated code names this crate by its path from outside.
extern crate self as netabase_store;

/// Large values, which are files beside the database: `NetabaseStore::blobs`.
///
/// A record names a blob by its BLAKE3 hash. `docs/blobs.md` is the guide.
pub mod blob {
    #[cfg(feature = "blobs")]
    pub use crate::blobs::{
        BlobBackup, BlobError, BlobHold, BlobReference, BlobStatistics, BlobStatus, BlobStore, Collected,
        PartialBlob,
    };
    pub use crate::model::blob::{Blob, BlobHash, ParseBlobHashError};
}

/// Records written as lines of JSON: see [`NetabaseStore::export_json`].
#[cfg(feature = "import-export")]
pub mod export {
    pub use crate::admin::export::{ExportOptions, ExportProgress, ExportReport};
}

/// Records read from JSON and CSV: see [`NetabaseStore::import_json`].
#[cfg(feature = "import-export")]
pub mod import {
    pub use crate::admin::import::{
        BadLine, ImportEnd, ImportError, ImportFormat, ImportOptions, ImportProgress, ImportReport,
        LineError, OnConflict,
    };
}

/// Keys as bytes, in the order of their values: those of fields and of records, and ranges of them.
pub mod key {
    pub use crate::error::KeyError;
    pub use crate::model::key::KeyField;
    pub use crate::model::key_range::{
        Exact, ExactKey, KeyRange, KeySpan, Prefix, StartsWith, exact, prefix, starts_with,
    };
    pub use crate::version::record_key::{RecordKey, RecordKeyError, WritePolicy, is_name};
}

/// The member list of a closed network, which names the authors that may write: see
/// [`Replica::members`].
///
/// `docs/trust.md` is the guide.
///
/// [`Replica::members`]: crate::replica::Replica::members
pub mod members {
    pub use crate::version::members::{MemberList, MembersError, Membership, SignedMembers};
}

/// Queries of a model's records, typed and by names, and pages of their results.
pub mod query {
    pub use crate::model::query::{Query, QueryError, QueryKey, RawQuery, Select};
    pub use crate::model::raw_query::{PageBounds, PageEnd, ResolvedQuery};
    pub use crate::read::cursor::{Cursor, CursorError};
    pub use crate::read::tree_query::{Page, TreeQuery};
    pub use crate::read::view::{Rows, StoredRecord};
}

/// Models as a store sees them: the traits that the macros implement, and the schemas that they
/// generate.
pub mod schema {
    pub use crate::error::{SchemaError, ValueError};
    pub use crate::model::described::{BodySchema, FieldSchema, FieldType, TypeSchema};
    pub use crate::model::schema::{
        DefinitionSchema, Encoded, EncodedRecord, IndexKeys, IndexSchema, ModelCodec, ModelSchema,
        ModelVersion, NetabaseDefinition, NetabaseModel, PrimaryFields, PrimaryKey, RecordKeys, SecondaryKey,
        SecondaryKeys, TypedCodec, decode_payload, payload_version,
    };
}

pub use blob::Blob;
pub use changes::{Change, ChangeKind, Changes, Origin, Watch, WatchEvent, WatchFrom};
pub use engine::{Engine, RedbStorage, RedbStore, SledStore};
pub use error::{OpenError, StoreError, WriteError};
pub use key::{
    KeyError, KeyField, KeyRange, RecordKey, RecordKeyError, WritePolicy, exact, prefix, starts_with,
};
pub use model::dynamic;
pub use netabase_macros::{
    FieldType, NetabaseKey, NetabaseModel, NetabaseVersion, netabase_definition_module,
};
pub use options::{Durability, StorageBackend, StoreOptions, WriterMode};
pub use query::{Cursor, Page, Query, Rows, StoredRecord, TreeQuery};
pub use read::snapshot::{ReadSnapshot, SnapshotTree};
pub use read::tree::Tree;
pub use replica::{Refusal, Scope, ScopePart};
pub use schema::{
    FieldType, ModelVersion, NetabaseDefinition, NetabaseModel, PrimaryKey, SecondaryKey, SecondaryKeys,
    ValueError,
};
pub use store::NetabaseStore;
pub use version::{Author, Clock, Envelope, Lifetime, SigningKey, Timestamp, Version};
pub use write::transaction::WriteTransaction;

#[doc(hidden)]
pub mod __private {
    pub use crate::error::{KeyError, ValueError};
    pub use crate::model::blob::{Blob, BlobField};
    pub use crate::model::described::{
        BodySchema, Described, FieldSchema, FieldType, TypeSchema, Undescribed, default_json,
    };
    pub use crate::model::fields::{Fault, Reader, Writer, tag};
    pub use crate::model::key::KeyField;
    pub use crate::model::key_range::{ExactKey, KeyRange, KeySpan, exact_span};
    pub use crate::model::merge::{Counter, Elements, Merge, merge_counter, merge_max, merge_min, merge_set};
    pub use crate::model::query::{QueryKey, QueryOf, Select};
    pub use crate::model::schema::{
        DefinitionOf, DefinitionSchema, Encoded, EncodedRecord, Encoding, IndexKeys, IndexSchema,
        ModelSchema, ModelVersion, NetabaseDefinition, NetabaseModel, Owner, PrimaryKey, SecondaryKey,
        SecondaryKeys, TypedCodec, decode_fields, decode_payload, decode_value, encode_fields, encode_value,
        migrate_value, owner_of,
    };
    pub use crate::options::NonExhaustive;
    pub use crate::version::record_key::WritePolicy;
}

/// Runs the code of the chapter on models.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/models.md")]
struct Models;

/// Runs the code of the guide.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/store.md")]
struct Guide;

/// Runs the code of the guide to schemas at run time.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/schemas.md")]
struct Schemas;
