//! Unique keys, which hold among the writes of this program.

use super::{Applier, ApplyError, Op};
use crate::change::Origin;
use crate::engine::Span;
use crate::error::StoreError;
use crate::key_range::after_prefix;
use crate::record_key::RecordKey;
use crate::tables::{ModelTables, Place};

/// How many holders of a unique key are looked up at a time; mostly there is one at most.
const HOLDERS: usize = 2;

impl Applier<'_> {
    /// Refuses a write of this program that gives a record a unique key of another one. A peer's version
    /// is not asked: all peers must come to hold the same one.
    ///
    /// `written` says that the write was done: it may have been overtaken, or replaced by a later one of
    /// its batch, and then the record does not have the key.
    pub(super) fn check_unique(&mut self, op: &Op, written: bool) -> Result<(), ApplyError> {
        let Op::Put { key, secondary, origin: Origin::Local, .. } = op else { return Ok(()) };
        let Place { key: place, model: Some(model), .. } = self.layout.place(key) else { return Ok(()) };
        for (position, index_key) in secondary.iter().filter(|(position, _)| model.is_unique(*position)) {
            let entry = [index_key, place].concat();
            if written && self.tables.get(model.index(position)?, &entry)?.is_none() {
                continue;
            }
            if let Some(holder) = self.other_holder(key, model, position, index_key)? {
                let index = model.schema.indexes.get(position).map_or("", |index| index.name);
                return Err(ApplyError::Batch(StoreError::NotUnique { index, holder }));
            }
        }
        Ok(())
    }

    /// Returns a record other than `key` that has a unique key.
    fn other_holder(
        &mut self,
        key: &RecordKey,
        model: &ModelTables,
        position: usize,
        index_key: &[u8],
    ) -> Result<Option<RecordKey>, StoreError> {
        let end = after_prefix(index_key);
        let mut start = index_key.to_vec();
        loop {
            let span = Span { start: &start, end: end.as_deref() };
            let entries = self.tables.keys(model.index(position)?, span, HOLDERS)?;
            for entry in &entries {
                let primary = entry.get(index_key.len()..).unwrap_or_default();
                let holder = key.sibling(primary)?;
                if holder != *key && self.holds(&holder, model, position, index_key)? {
                    return Ok(Some(holder));
                }
            }
            match entries.last() {
                Some(last) if entries.len() == HOLDERS => start = [last.as_slice(), &[0]].concat(),
                _ => return Ok(None),
            }
        }
    }

    /// Whether a record really has a key that an index says it has: it may have expired, or the entry
    /// may be one that a damaged record has left.
    fn holds(
        &mut self,
        holder: &RecordKey,
        model: &ModelTables,
        position: usize,
        index_key: &[u8],
    ) -> Result<bool, StoreError> {
        let now = self.core.options().clock.unix_millis();
        let current = self.current(holder)?.filter(|current| !current.is_expired(now));
        let keys = current.and_then(|current| model.schema.keys_of(current.payload()));
        Ok(keys.is_some_and(|keys| keys.secondary.iter().any(|key| key == (position, index_key))))
    }
}
