//! What a store tells its observer.

use crate::version::admit::Refusal;
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;

/// Who brought a version of a record to this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// This program wrote it.
    Local,
    /// A peer sent it.
    Network,
}

/// A committed change to one record.
#[derive(Debug, Clone)]
pub struct Change {
    /// The record.
    pub key: RecordKey,
    /// What happened to it.
    pub kind: ChangeKind,
    /// The new version; for an expired or evicted record the one that went; none where a store
    /// without an identity deleted the record.
    pub envelope: Option<Envelope>,
    /// The live version that was there before.
    pub previous: Option<Envelope>,
    /// Who brought it.
    pub origin: Origin,
}

impl Change {
    pub(crate) fn is_removal(&self) -> bool {
        self.kind == ChangeKind::Removed
    }
}

/// What happened to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// A record came to be where there was none.
    Stored,
    /// A newer version replaced the record.
    Updated,
    /// The record was deleted, here or by a peer.
    Removed,
    /// The record's lifetime ended.
    Expired,
    /// This store has given up its copy of somebody else's record, which others still have: to make
    /// room for those that are closer to it, or because it was away for too long to vouch for it.
    Evicted,
}

/// What a store tells its observer.
#[derive(Debug, Clone)]
pub enum StoreEvent {
    /// A change was committed.
    Changed(Change),
    /// A record from a peer was refused, and nothing changed.
    Refused {
        /// The key it was sent under, if that was one.
        key: Option<RecordKey>,
        /// Why it was refused.
        reason: Refusal,
    },
}

/// Receives every event of a store: changes from the writer in the order of their commits, refusals
/// on the thread that offered the record. It must not block.
pub type Observer = dyn Fn(StoreEvent) + Send + Sync;
