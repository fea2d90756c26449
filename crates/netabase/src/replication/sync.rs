//! Sync: replication of a scope, so that this node has every record of a definition, of a model or
//! with one value.
//!
//! A node that replicates a scope compares its versions with those of peers by range-based set
//! reconciliation, fetches missing ones, and sends missing ones to peers that replicate the scope,
//! too. If a peer has many more records, they are streamed in the order of time, so that an
//! interrupted session resumes where it ended. The responder keeps no state between requests.

use netabase_store::{Envelope, RecordKey};

use crate::replication::sync::limits::SYNC_FRAME_BYTES;

mod blobs;
pub(crate) mod limits;
mod refused;
mod replication;
mod replicator;
mod report;
mod respond;
mod running;
mod session;
mod turns;

pub(crate) use blobs::BlobKeeper;
pub use blobs::BlobsKept;
pub(crate) use replication::Replications;
pub use replication::{ReplicateOptions, Replication, ReplicationProgress};
pub(crate) use replicator::{Replicator, SyncPeers};
pub use report::{SyncFailure, SyncReport};
pub(crate) use respond::Responder;

/// Returns the length of the longest frame: [`SYNC_FRAME_BYTES`], or the length of a single record
/// of the largest size with its overhead.
pub(crate) const fn longest_frame(max_value_bytes: usize) -> usize {
    SYNC_FRAME_BYTES + max_value_bytes + Envelope::OVERHEAD_BYTES + 2 * RecordKey::MAX_BYTES
}
