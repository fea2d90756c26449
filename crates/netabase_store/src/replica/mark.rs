//! Marks: small values that a node keeps over restarts.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::Replica;
use crate::engine::{Engine, unless_damaged};
use crate::error::{StoreError, WriteError};
use crate::replica::limits::{MAX_MARK_BYTES, MAX_MARK_NAME_BYTES, MAX_MARKS};
use crate::tables;
use crate::write::apply::Op;

/// The marks, which are all in memory.
#[derive(Debug, Default)]
pub(crate) struct Marks(Mutex<BTreeMap<String, Vec<u8>>>);

impl Marks {
    pub(crate) fn load(engine: &Engine) -> Result<Self, StoreError> {
        let mut marks = BTreeMap::new();
        for entry in engine.snapshot()?.prefix(&tables::META, tables::META_MARK)?.take(MAX_MARKS) {
            let Some(entry) = unless_damaged(entry.map(Some))? else { continue };
            let name = entry.key().get(tables::META_MARK.len()..).unwrap_or_default();
            marks.insert(String::from_utf8_lossy(name).into_owned(), entry.value().to_vec());
        }
        Ok(Self(Mutex::new(marks)))
    }
}

impl Replica<'_> {
    /// Keeps a few bytes under a name of the caller's, such as the progress of a task.
    ///
    /// [`Replica::mark`] returns the value at once. The write joins a later commit within half a
    /// second; a crash before may restore the earlier value. Fails with
    /// [`WriteError::Mark`] beyond 64 marks, a name of 64 bytes or a value
    /// of 1024 bytes.
    pub fn set_mark(self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        let mut marks = self.core().marks().0.lock();
        let is_full = marks.len() >= MAX_MARKS && !marks.contains_key(name);
        if is_full || name.len() > MAX_MARK_NAME_BYTES || value.len() > MAX_MARK_BYTES {
            return Err(WriteError::Mark { name: name.to_owned() }.into());
        }
        marks.insert(name.to_owned(), value.to_vec());
        let key = [tables::META_MARK, name.as_bytes()].concat();
        self.core().queue().push_lazy(Op::Set { table: &tables::META, key, value: Some(value.to_vec()) });
        Ok(())
    }

    /// Returns what [`Replica::set_mark`] has kept under a name, by this program or an
    /// earlier one.
    pub fn mark(self, name: &str) -> Option<Vec<u8>> {
        self.core().marks().0.lock().get(name).cloned()
    }
}
