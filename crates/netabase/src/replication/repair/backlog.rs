//! How much this program has written that no put sends to its holders.
//!
//! What trees, transactions and imports write is on the publishing schedule, a record at a time.
//! Where it is much, a comparison of everything brings it to its holders sooner, and in few
//! messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use netabase_store::changes::StoreEvent;
use netabase_store::{ChangeKind, Origin};
use tokio::sync::Notify;

use crate::replication::repair::limits::{MUCH_WRITTEN, UNCOMMITTED_RECORDS};

/// Counts the records that were written here and that no put sends. It outlives the swarm.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backlog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    records: AtomicI64,
    news: Notify,
}

impl Backlog {
    /// Counts what was committed.
    pub(crate) fn observe(&self, event: &StoreEvent) {
        if let StoreEvent::Changed(change) = event
            && change.origin == Origin::Local
            && matches!(change.kind, ChangeKind::Stored | ChangeKind::Updated | ChangeKind::Removed)
            && self.0.records.fetch_add(1, Ordering::Relaxed) + 1 == MUCH_WRITTEN
        {
            self.0.news.notify_one();
        }
    }

    /// A put sends a record itself. It may do so before the record is committed, or without that.
    pub(crate) fn is_sent(&self) {
        let less = |records: i64| Some((records - 1).max(-UNCOMMITTED_RECORDS));
        let _ = self.0.records.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Waits until there is much. Cancelling the call loses nothing.
    pub(super) async fn is_much(&self) {
        self.0.news.notified().await;
    }

    /// Begins to count anew; returns whether there was anything.
    pub(super) fn take(&self) -> bool {
        self.0.records.swap(0, Ordering::Relaxed) > 0
    }
}
