//! A typed, local-first, peer-to-peer database.
//!
//! Declare models in a definition module; [`Netabase`] keeps their records in an embedded database
//! on this machine and shares them with other peers over libp2p: a Kademlia distributed hash table
//! holds them, multicast DNS and bootstrap peers find each other, and every change is an event.
//! Everything works offline and converges later. Every record carries its author's signature, and
//! nothing that a peer sends is believed unchecked.
//!
//! Start with [`Netabase`]; configure with [`NetabaseConfig`]; follow what happens with
//! [`Netabase::subscribe_to_broadcasts`](Node::subscribe_to_broadcasts), or typed with [`Netabase::watch`]; ask peers with [`Netabase::query`]; use
//! secondary keys and transactions with
//! [`Netabase::store`](Node::store).

mod blobs;
mod config;
mod error;
mod event;
mod find;
mod identity;
mod live;
mod metrics;
mod netabase;
mod network;
mod node;
mod outcome;
mod trace_context;

pub use blobs::{BlobHolder, BlobProgress, BlobReader, Blobs, Fetch, FetchOutcome, HolderConduct};
pub use config::{
    ConnectionConfig, DHTDiscoveryConfig, DhtMode, MAX_VALUE_BYTES, MDNSDiscoveryConfig, NetabaseConfig,
};
pub use error::{ConfigError, NetabaseError};
pub use event::{EVENT_CAPACITY, EventError, Events, NetabaseSwarmEvent, RecordEvent};
pub use find::report::{
    CutOff, Freshness, HolderAnswer, HolderFailure, HolderReport, QueryOptions, QueryReport,
};
pub use find::{DEFAULT_PAGE_RECORDS, NetworkPage, NetworkQuery, NetworkRows, NodePage};
pub use libp2p;
pub use libp2p::identity::Keypair;
pub use libp2p::kad::Mode;
pub use libp2p::{Multiaddr, PeerId, StreamProtocol};
pub use live::LiveWatch;
pub use metrics::{Metrics, NodeCounters};
pub use netabase::Netabase;
pub use trace_context::{TraceContext, TraceContextError};
// Whole, too: for what is done to a store as a whole, such as `check`, `backup` and `import_json`.
pub use netabase_store;
pub use netabase_store::{
    Author, BLOB_GROUP_BYTES, Blob, BlobError, BlobHash, BlobStatistics, BlobStatus, BlobStore, Change,
    ChangeKind, ChangeStream, Changes, ContentHash, Cursor, Durability, Envelope, Exact, ExactKey,
    ExpectedVersion, FieldType, KeyError, KeyField, KeyRange, KeySpan, Lifetime, MemberList, MembersError,
    Membership, ModelVersion, NetabaseDefinition, NetabaseKey, NetabaseModel, NetabaseStore, NetabaseVersion,
    NumberedChange, Origin, Page, ParseAuthorError, Prefix, PrimaryKey, Query, QueryError, QueryKey,
    RawQuery, ReadSnapshot, RecordKey, RecordKeyError, RedbStore, Refusal, RemovalReason, Rows, Scope,
    ScopePart, SecondaryKey, SecondaryKeys, Select, SignedMembers, SledStore, SnapshotTree, StartsWith,
    StorageBackend, StoreError, StoredRecord, Timestamp, Tree, TreeQuery, ValueError, Version, Watch,
    WatchEvent, WatchFrom, WatchStream, Watched, WritePolicy, WriteTransaction, dynamic, exact,
    netabase_definition_module, prefix, starts_with,
};
pub use network::{
    BAN, BAN_AT, COMMAND_CAPACITY, ConnectionInfo, LiveStats, MAX_BAN, MAX_TOPICS, MAX_TRACE_EVENTS,
    MAX_TRACKED_PEERS, NetabaseBehaviour, PeerReport, PeerState, RECORD_BURST, RECORDS_PER_SECOND,
    RepairReport, Replication, ReplicationProgress, SLOW_AT, SYNC_FRAME_BYTES, SYNC_GIVE_BYTES, SyncFailure,
    SyncReport, Trace, TraceEvent, TraceKind, Written,
};
pub use node::Node;
pub use outcome::{
    Consistency, GetOptions, Health, HolderState, PeerAnswer, PutOptions, ReadAnswer, ReadOutcome,
    ReadSource, VersionId, WriteAnswer, WriteOutcome,
};

#[doc(hidden)]
pub use netabase_store::__private;

/// Runs the code of the first chapter.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/start.md")]
struct Start;

/// Runs the code of the chapter on the network.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/network.md")]
struct Network;

/// Runs the code of the guide to live changes.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/live.md")]
struct LiveChanges;

/// Runs the code of the guide to trust.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/trust.md")]
struct Trust;

/// Runs the code of the guide to queries of the network.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/find.md")]
struct Find;

/// Runs the code of the guide to large values.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/blobs.md")]
struct LargeValues;

/// Runs the code of the guide to keeping a scope.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/sync.md")]
struct Sync;

/// Runs the code of the chapter on metrics.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/metrics.md")]
struct MetricsOfANode;

/// Runs the code of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
