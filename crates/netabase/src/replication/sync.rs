//! Keeping a scope: every record of a definition, of a model or with one value, on this node and
//! current.
//!
//! A node that keeps a scope compares its versions with those of peers by range-based set
//! reconciliation, fetches what it lacks, and gives what they lack to those who keep the scope,
//! too. Where a peer has many more, its records are streamed in the order of time, which is also
//! how a session goes on that was broken off: what has come is there. The peer that answers keeps
//! nothing between requests.

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

/// Returns the length of the longest frame: [`SYNC_FRAME_BYTES`] or, alone with what goes with it,
/// a record of the largest size.
pub(crate) const fn longest_frame(max_value_bytes: usize) -> usize {
    SYNC_FRAME_BYTES + max_value_bytes + Envelope::OVERHEAD_BYTES + 2 * RecordKey::MAX_BYTES
}
