//! Data that follows from signed records: their places in the keyspace, the ages of tombstones, the
//! usage of each author, and their items in the sets that stores compare.

use super::{Applier, Old};
use crate::error::StoreError;
use crate::replica::sync_set::SyncItem;
use crate::version::clock::Timestamp;
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;

impl Applier<'_> {
    /// Keeps the tables in line with a record that had the version `old` and now has `new`.
    pub(super) fn track(
        &mut self,
        key: &RecordKey,
        old: Old<'_>,
        new: Option<&Envelope>,
    ) -> Result<(), StoreError> {
        let new = new.filter(|new| new.is_signed());
        let (was_there, old) = match old {
            Old::Absent => (false, None),
            Old::Version(old) => (old.is_signed(), Some(old).filter(|old| old.is_signed())),
            // Nobody can tell whose it was; `check` corrects the sums.
            Old::Unreadable => (true, None),
        };
        let layout = self.layout;
        let model = || layout.place(key).model;
        if let Some(old) = old {
            self.usage.remove(key, old);
            if let (Some(model), Some(item)) = (model(), SyncItem::of(key, old)) {
                self.sync.push(model, item, None);
            }
            if let Some(time) = deleted_at(old) {
                self.indexes.push_tombstone_time(time, key, false);
            }
        }
        if let Some(new) = new {
            self.usage.add(key, new);
            let fingerprint = new.fingerprint();
            self.indexes.push_position(key, Some(fingerprint));
            if let Some(model) = model() {
                let item = SyncItem::with_fingerprint(key, new, &fingerprint);
                self.sync.push(model, item, Some(key.primary_key()));
            }
            if let Some(time) = deleted_at(new) {
                self.indexes.push_tombstone_time(time, key, true);
            }
        } else if was_there {
            self.indexes.push_position(key, None);
        }
        self.sync.flush_if_full(self.layout, self.tables, self.undo.is_some())?;
        self.indexes.flush_if_full(self.tables, self.undo.is_some())
    }
}

/// Returns when a tombstone was written, in milliseconds since the Unix epoch.
fn deleted_at(envelope: &Envelope) -> Option<u64> {
    envelope.timestamp().filter(|_| envelope.is_tombstone()).map(Timestamp::unix_millis)
}
