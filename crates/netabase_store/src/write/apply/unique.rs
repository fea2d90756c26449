//! Unique keys, which hold among the writes of this program.

use super::{Applier, ApplyError, Op};
use crate::changes::change::Origin;
use crate::engine::Span;
use crate::error::{StoreError, WriteError};
use crate::model::key_range::after_prefix;
use crate::tables::{ModelTables, Place};
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;

impl Applier<'_> {
    /// Refuses a write of this program that gives a record a unique key of another one. A peer's
    /// version is not asked: all peers must come to hold the same one.
    ///
    /// `written` says that the write was done: it may have been overtaken, or replaced by a later
    /// one of its batch, and then the record does not have the key.
    pub(super) fn check_unique(&mut self, op: &Op, written: bool) -> Result<(), ApplyError> {
        let Op::Put { key, secondary, origin: Origin::Local, .. } = op else { return Ok(()) };
        let Place { key: place, model: Some(model), .. } = self.layout.place(key) else { return Ok(()) };
        for (position, index_key) in secondary.iter().filter(|(position, _)| model.is_unique(*position)) {
            let entry = [index_key, place].concat();
            if written && !self.tables.contains(model.index(position)?, &entry)? {
                continue;
            }
            // Peers may have given two records one key. Either may go on with it, and either may be
            // changed away.
            if let Some(holder) = self.other_holder(key, model, position, index_key)?
                && !self.held_before(key, model, position, index_key, written)?
            {
                let index = model.schema.indexes.get(position).map_or("", |index| index.name);
                return Err(ApplyError::Batch(StoreError::Write(WriteError::NotUnique { index, holder })));
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
        // The number of holders of a unique key that are looked up at a time; usually there is at
        // most one.
        const HOLDERS: usize = 2;
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

    /// Returns whether the record had a unique key before this batch, and so does not get it by
    /// this write.
    fn held_before(
        &mut self,
        key: &RecordKey,
        model: &ModelTables,
        position: usize,
        index_key: &[u8],
        written: bool,
    ) -> Result<bool, StoreError> {
        if !written {
            return self.holds(key, model, position, index_key);
        }
        let place = key.primary_key();
        let first = self.undo.iter().flatten().find(|undo| *undo.table == model.records && undo.key == place);
        let before = first.and_then(|undo| Envelope::parse(undo.value.as_deref()?).ok());
        Ok(before.is_some_and(|before| self.has_key(&before, model, position, index_key)))
    }

    /// Returns whether a record really has the key of an index entry: it may have expired, or a
    /// damaged record may have left the entry.
    fn holds(
        &mut self,
        holder: &RecordKey,
        model: &ModelTables,
        position: usize,
        index_key: &[u8],
    ) -> Result<bool, StoreError> {
        let current = self.current(holder)?;
        Ok(current.is_some_and(|current| self.has_key(&current, model, position, index_key)))
    }

    fn has_key(&self, version: &Envelope, model: &ModelTables, position: usize, index_key: &[u8]) -> bool {
        let is_live = version.is_live(self.core.options().clock.unix_millis());
        let keys = is_live.then(|| model.schema.keys_of(version.payload())).flatten();
        keys.is_some_and(|keys| keys.secondary.iter().any(|key| key == (position, index_key)))
    }
}
