//! The number of records that this program has written without a put.
//!
//! Records that trees, transactions and imports write are on the publishing schedule, one by one.
//! If there are many, a complete comparison distributes them sooner, and in few messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use netabase_store::changes::StoreEvent;
use netabase_store::{ChangeKind, Origin};
use tokio::sync::Notify;

use crate::replication::repair::limits::{MUCH_WRITTEN, UNCOMMITTED_RECORDS};

/// The number of records that were written here and that no put sends. It outlives the swarm.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backlog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    records: AtomicI64,
    news: Notify,
}

impl Backlog {
    /// Counts the committed records of an event.
    pub(crate) fn observe(&self, event: &StoreEvent) {
        if let StoreEvent::Changed(change) = event
            && change.origin == Origin::Local
            && matches!(change.kind, ChangeKind::Stored | ChangeKind::Updated | ChangeKind::Removed)
            && self.0.records.fetch_add(1, Ordering::Relaxed) + 1 == MUCH_WRITTEN
        {
            self.0.news.notify_one();
        }
    }

    /// Discounts a record that a put sends, possibly before the record is committed, or without a
    /// commit.
    pub(crate) fn is_sent(&self) {
        let less = |records: i64| Some((records - 1).max(-UNCOMMITTED_RECORDS));
        let _ = self.0.records.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Waits until there are many. This method is cancel safe.
    pub(super) async fn is_much(&self) {
        self.0.news.notified().await;
    }

    /// Resets the count; returns whether there were any.
    pub(super) fn take(&self) -> bool {
        self.0.records.swap(0, Ordering::Relaxed) > 0
    }
}
