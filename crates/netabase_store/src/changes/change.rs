//! Changes and events of a store.

use crate::version::admit::Refusal;
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;

/// The source of a version of a record.
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
    /// The kind of the change.
    pub kind: ChangeKind,
    /// The new version; for an expired or evicted record the removed version. `None` if a store
    /// without an identity deleted the record.
    pub envelope: Option<Envelope>,
    /// The live version that was there before.
    pub previous: Option<Envelope>,
    /// The source of the new version.
    pub origin: Origin,
}

impl Change {
    pub(crate) fn is_removal(&self) -> bool {
        self.kind == ChangeKind::Removed
    }
}

/// The kind of a change to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// A new record was stored.
    Stored,
    /// A newer version replaced the record.
    Updated,
    /// The record was deleted, here or by a peer.
    Removed,
    /// The record's lifetime ended.
    Expired,
    /// This store has evicted its copy of another author's record, which other nodes still have:
    /// because its quota was full, or because it was offline for too long to know whether the
    /// record was deleted.
    Evicted,
}

/// An event that a store reports to its observer.
#[derive(Debug, Clone)]
pub enum StoreEvent {
    /// A change was committed.
    Changed(Change),
    /// A record from a peer was refused, and nothing changed.
    Refused {
        /// The key it was sent under, if that was one.
        key: Option<RecordKey>,
        /// The reason.
        reason: Refusal,
    },
}

/// Receives every event of a store: changes from the writer in the order of their commits, refusals
/// on the thread that offered the record. The function must not block.
pub type Observer = dyn Fn(StoreEvent) + Send + Sync;
