//! A typed, local-first, peer-to-peer database.
//!
//! Declare models in a definition module. [`Netabase`] keeps their records in an embedded database
//! on this machine and shares them with other peers over libp2p. A Kademlia distributed hash table
//! stores the records on the closest peers, multicast DNS and bootstrap peers discover each other,
//! and every change is an event. Everything works offline and is eventually consistent. Every
//! record carries its author's signature, and a node verifies whatever a peer sends.
//!
//! Start with [`Netabase`] and configure it with [`NetabaseConfig`]. Follow changes with
//! [`Netabase::watch`], or untyped events with
//! [`Netabase::subscribe_to_broadcasts`](Node::subscribe_to_broadcasts). Query peers with
//! [`Netabase::query`]. Use secondary keys and transactions with [`Netabase::store`](Node::store).
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "a test uses clocks, tasks and threads directly")
)]

mod admission;
mod blobs;
mod config;
mod connection;
mod dht;
mod error;
mod event;
mod event_loop;
mod identity;
mod jitter;
pub mod limits;
mod live;
mod mdns;
mod netabase;
mod node;
mod ops;
mod outcome;
mod peers;
mod platform;
mod protocol;
pub mod query;
mod replication;
mod rpc;
mod swarm;
mod telemetry;
#[doc(hidden)]
pub mod units;
mod update;

pub use config::{ConnectionConfig, DHTDiscoveryConfig, DhtMode, MDNSDiscoveryConfig, NetabaseConfig};
pub use error::{ConfigError, NetabaseError};
pub use event::{EventError, Events, NetabaseSwarmEvent, RecordEvent};
#[doc(hidden)]
pub use event_loop::behaviour::NetabaseBehaviour;
pub use identity::Identity;
pub use libp2p;
pub use libp2p::identity::Keypair;
pub use libp2p::kad::Mode;
pub use libp2p::{Multiaddr, PeerId};
pub use live::LiveWatch;
pub use netabase::Netabase;
// The whole crate is public, too, for operations on a store such as `check`, `backup` and
// `import_json`.
pub use netabase_store;
pub use netabase_store::{
    Author, Blob, Cursor, Durability, Envelope, FieldType, Lifetime, NetabaseDefinition, NetabaseKey,
    NetabaseModel, NetabaseStore, NetabaseVersion, Query, RecordKey, RedbStore, Refusal, Scope, SledStore,
    StorageBackend, StoreError, StoreOptions, Timestamp, Tree, Version, Watch, WatchEvent, WatchFrom,
    WriteTransaction, dynamic, exact, netabase_definition_module, prefix, starts_with,
};
pub use node::{IdentityChange, Node};
pub use outcome::{Consistency, GetOptions, Health, PutOptions, ReadOutcome, WriteOutcome};
pub use query::report::{Freshness, QueryOptions};
pub use replication::sync::{ReplicateOptions, Replication};
pub use telemetry::metrics::Metrics;
pub use telemetry::trace_context::{TraceContext, TraceContextError};

/// Large values: fetching them, and their state in a store.
pub mod blob {
    pub use netabase_store::blob::*;

    pub use crate::blobs::{BlobHolder, BlobProgress, BlobReader, Blobs, Fetch, FetchOutcome, HolderConduct};
}

/// The history of changes, for applications that read it without a watch.
pub mod changes {
    pub use netabase_store::changes::*;
}

/// The replication of records, the conduct of peers, and this node's standing with its peers.
pub mod health {
    pub use crate::outcome::{HolderState, PeerAnswer, ReadAnswer, ReadSource, VersionId, WriteAnswer};
    pub use crate::peers::connections::ConnectionInfo;
    pub use crate::peers::other_roots::OtherRoot;
    pub use crate::peers::score::{PeerReport, PeerState};
    pub use crate::peers::standing::{BanNotice, ClockComparison, Standing};
    pub use crate::replication::live::LiveStats;
    pub use crate::replication::repair::RepairReport;
    pub use crate::telemetry::metrics::NodeCounters;
    pub use crate::telemetry::trace::{Trace, TraceEvent, TraceKind, Written};
}

/// Keys, key ranges and their errors.
pub mod key {
    pub use netabase_store::RecordKeyError;
    pub use netabase_store::key::*;
}

/// The member list of a closed network.
pub mod members {
    pub use netabase_store::members::*;
}

/// The traits that the macros implement, and the schemas they generate.
pub mod schema {
    pub use netabase_store::schema::*;
}

/// Replication of a scope to this node.
pub mod sync {
    pub use netabase_store::ScopePart;

    pub use crate::replication::sync::{BlobsKept, ReplicationProgress, SyncFailure, SyncReport};
}

#[doc(hidden)]
pub use netabase_store::__private;

/// Runs the code of the first chapter.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/start.md")]
struct Start;

/// Runs the code of the chapter on an application for a club.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/club.md")]
struct Club;

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
