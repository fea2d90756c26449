//! Items that come and go in a group of writes, until its end.

use super::item::SyncItem;
use super::sums;
use crate::engine::{Replaced, WriteTables};
use crate::error::StoreError;
use crate::replica::limits::MAX_SET_CHANGES;
use crate::tables::{Layout, ModelTables};

/// Items to add and to remove.
#[derive(Default)]
pub(crate) struct SyncChanges {
    changes: Vec<SyncChange>,
    /// The primary keys of the records, one after the other.
    keys: Vec<u8>,
}

#[derive(Clone, Copy)]
struct SyncChange {
    /// The place of the model in the schema.
    model: usize,
    item: SyncItem,
    /// The place of the primary key, or `None` if the item is to be removed.
    primary: Option<(usize, usize)>,
}

impl SyncChanges {
    /// Adds the item of a version that is stored under the primary key `primary`, or removes it
    /// with `None`.
    pub(crate) fn push(&mut self, model: &ModelTables, item: SyncItem, primary: Option<&[u8]>) {
        let primary = primary.map(|primary| {
            let start = self.keys.len();
            self.keys.extend_from_slice(primary);
            (start, self.keys.len())
        });
        self.changes.push(SyncChange { model: model.position, item, primary });
    }

    /// A point to go back to.
    pub(crate) fn mark(&self) -> usize {
        self.changes.len()
    }

    /// Drops what came after `mark` and was not written yet.
    pub(crate) fn forget_since(&mut self, mark: usize) {
        self.changes.truncate(mark);
    }

    /// Writes the items if there are many, unless they may have to be forgotten.
    pub(crate) fn flush_if_full(
        &mut self,
        layout: &Layout,
        tables: &mut dyn WriteTables,
        hold: bool,
    ) -> Result<(), StoreError> {
        if self.changes.len() < MAX_SET_CHANGES || hold { Ok(()) } else { self.flush(layout, tables) }
    }

    /// Writes the items in their order, and then the sums that they have changed, each once.
    ///
    /// If it fails, the sums in memory differ from those on the disk; the store then refuses
    /// writes.
    pub(crate) fn flush(&mut self, layout: &Layout, tables: &mut dyn WriteTables) -> Result<(), StoreError> {
        let (mut changes, keys) = (std::mem::take(&mut self.changes), std::mem::take(&mut self.keys));
        // The sort is stable, so changes to one item keep their order.
        changes.sort_by(|left, right| (left.model, &left.item).cmp(&(right.model, &right.item)));
        for changes in changes.chunk_by(|left, right| left.model == right.model) {
            let model = changes.first().and_then(|change| layout.models().get(change.model));
            let Some(model) = model else { continue };
            let mut sums = model.sums().lock();
            for same in changes.chunk_by(|left, right| left.item == right.item) {
                // Of several changes to one item the last one counts.
                let Some(change) = same.last() else { continue };
                let key = sums::item_key(&change.item);
                // A table that was damaged may have what should not be there, and the sums must
                // not.
                if let Some((start, end)) = change.primary {
                    let primary = keys.get(start..end).unwrap_or_default();
                    if tables.replace(&model.sync, &key, primary)? == Replaced::Nothing {
                        sums.add(&change.item);
                    }
                } else if tables.contains(&model.sync, &key)? {
                    tables.remove(&model.sync, &key)?;
                    sums.remove(&change.item);
                }
            }
            sums.write(&model.sync, tables)?;
        }
        Ok(())
    }
}
