//! A typed embedded record store: models, secondary keys, signed versions, group commit.
//!
//! [`NetabaseStore`] keeps the records of one definition in redb, sled or memory, and is usable on
//! its own: no network, no async runtime. The `netabase` crate puts it under a libp2p node, for
//! which the feature `libp2p` makes it a Kademlia record store.
//!
//! A definition is a module of models; the macros generate its key types and schema. [`Tree`] is
//! the typed view of a model, [`WriteTransaction`] writes to several at once. Below them everything
//! is a [`RecordKey`] and an [`Envelope`]. `docs/models.md` says what can be declared, and `docs/store.md` is the guide.

mod admit;
mod apply;
mod away;
mod backup;
mod blobs;
mod change;
mod check;
mod clock;
mod coalesce;
mod compact;
mod core;
mod counters;
mod depth;
mod described;
pub mod dynamic;
mod engine;
mod envelope;
mod error;
mod export;
mod feed;
mod histogram;
mod history;
mod import;
mod index_changes;
mod index_values;
mod key;
mod key_range;
mod keyspace;
mod lease;
mod left_record;
mod line_reader;
mod mark;
mod members;
mod merge;
mod migrate;
mod migrate_records;
mod options;
mod planned_write;
mod progress;
#[cfg(feature = "libp2p")]
mod provider;
mod query;
mod raw_query;
mod rebuild;
mod record_key;
#[cfg(feature = "libp2p")]
mod record_store;
mod room;
mod schema;
mod scope;
mod snapshot;
mod statistics;
mod store;
mod sweep;
mod sync_set;
mod tables;
mod transaction;
mod tree;
mod tree_query;
mod usage;
mod view;
mod watch;
mod writer;

// Generated code names this crate by its path from outside.
extern crate self as netabase_store;

pub use admit::{MAX_CLOCK_SKEW, MAX_INDEX_KEY_BYTES, MAX_INDEX_KEYS, Refusal};
pub use away::Discarded;
pub use blobs::{
    BLOB_GROUP_BYTES, BLOB_HASH_BYTES, Blob, BlobBackup, BlobError, BlobHash, BlobHold, BlobStatistics,
    BlobStatus, BlobStore, Collected, MAX_BLOB_BYTES, MAX_RECORD_BLOBS, MAX_SLICE_GROUPS, ParseBlobHashError,
    PartialBlob,
};
pub use change::{Change, ChangeKind, Observer, Origin, StoreEvent};
pub use check::{CheckOptions, CheckReport, MAX_PROBLEMS, Problem};
pub use clock::{Clock, Timestamp};
pub use compact::Compaction;
pub use counters::StoreCounters;
pub use described::{BodySchema, FieldSchema, FieldType, TypeSchema};
pub use ed25519_dalek::SigningKey;
pub use engine::{Engine, RedbStorage, RedbStore, SledStore};
pub use envelope::{
    Author, ContentHash, ENVELOPE_OVERHEAD_BYTES, Envelope, EnvelopeError, FINGERPRINT_BYTES,
    MAX_CONTRIBUTIONS, ParseAuthorError, Version,
};
pub use error::{KeyError, StoreError, ValueError};
pub use export::{ExportOptions, ExportProgress, ExportReport};
pub use histogram::{Histogram, HistogramReading};
pub use import::{
    BadLine, DEFAULT_IMPORT_BATCH, DEFAULT_MAX_LINE_BYTES, ImportEnd, ImportError, ImportOptions,
    ImportProgress, ImportReport, LineError, OnConflict,
};
pub use key::KeyField;
pub use key_range::{Exact, ExactKey, KeyRange, KeySpan, Prefix, StartsWith, exact, prefix, starts_with};
pub use keyspace::Placed;
pub use lease::Lifetime;
pub use left_record::{LeftReason, LeftRecord, MAX_REPORTED};
pub use mark::{MAX_MARK_BYTES, MAX_MARK_NAME_BYTES, MAX_MARKS};
pub use members::{MAX_MEMBERS, MemberList, MembersError, Membership, SignedMembers};
pub use migrate_records::{MigrationProgress, MigrationReport};
pub use netabase_macros::{
    FieldType, NetabaseKey, NetabaseModel, NetabaseVersion, netabase_definition_module,
};
pub use options::{
    DEFAULT_BLOB_GRACE, DEFAULT_CACHE_BYTES, DEFAULT_HISTORY_BYTES, DEFAULT_MAX_AUTHOR_BYTES,
    DEFAULT_MAX_BLOB_BYTES, DEFAULT_MAX_REPLICA_BYTES, DEFAULT_MAX_VALUE_BYTES, DEFAULT_TOMBSTONE_FLOOR,
    Durability, FLUSH_INTERVAL, StorageBackend, StoreOptions,
};
pub use progress::{Progress, ProgressCallback};
pub use query::{Cursor, Query, QueryError, QueryKey, RawQuery, Select};
pub use raw_query::{PageBounds, PageEnd, ResolvedQuery};
pub use record_key::{
    MAX_NAME_BYTES, MAX_PRIMARY_KEY_BYTES, MAX_RECORD_KEY_BYTES, POSITION_BYTES, RecordKey, RecordKeyError,
    WritePolicy, is_name,
};
pub use schema::{
    DefinitionSchema, Encoded, EncodedRecord, IndexKeys, IndexSchema, ModelCodec, ModelSchema, ModelVersion,
    NetabaseDefinition, NetabaseModel, PrimaryFields, PrimaryKey, RecordKeys, SecondaryKey, SecondaryKeys,
    TypedCodec, decode_payload, payload_version,
};
pub use scope::{Scope, ScopePart};
pub use snapshot::{ReadSnapshot, SnapshotTree};
pub use statistics::{
    HistoryStatistics, IndexStatistics, MAX_LISTED_AUTHORS, ModelStatistics, Statistics, TableStatistics,
};
pub use store::{CheckedRecord, ExpectedVersion, NetabaseStore};
pub use sync_set::{
    MAX_VALUE_ITEMS, MIN_SYNC_MESSAGE_BYTES, MODEL_TAG_BYTES, Pin, SYNC_FINGERPRINT_BYTES, SYNC_ID_BYTES,
    SyncBound, SyncDifference, SyncError, SyncItem, SyncNeed, SyncSet, SyncStep,
};
pub use transaction::WriteTransaction;
pub use tree::{MAX_UPDATE_ATTEMPTS, Tree};
pub use tree_query::{Page, TreeQuery};
pub use usage::Usage;
pub use view::{Rows, StoredRecord};
pub use watch::{
    ChangeStream, Changes, NumberedChange, RemovalReason, Watch, WatchEvent, WatchFrom, WatchStream, Watched,
};

#[doc(hidden)]
pub mod __private {
    pub use crate::blobs::{Blob, BlobField};
    pub use crate::described::{BodySchema, Described, FieldSchema, FieldType, TypeSchema, Undescribed};
    pub use crate::error::{KeyError, ValueError};
    pub use crate::key::KeyField;
    pub use crate::key_range::{ExactKey, KeyRange, KeySpan, exact_span};
    pub use crate::merge::{Counter, Elements, Merge, merge_counter, merge_max, merge_min, merge_set};
    pub use crate::query::{QueryKey, Select};
    pub use crate::record_key::WritePolicy;
    pub use crate::schema::{
        DefinitionOf, DefinitionSchema, Encoded, EncodedRecord, Encoding, IndexKeys, IndexSchema,
        ModelSchema, ModelVersion, NetabaseDefinition, NetabaseModel, Owner, PrimaryKey, SecondaryKey,
        SecondaryKeys, TypedCodec, decode_payload, decode_value, encode_value, migrate_value, owner_of,
    };
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
