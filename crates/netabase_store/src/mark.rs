//! Marks: a few facts that those above the store want to find again after a restart.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::apply::Op;
use crate::engine::Engine;
use crate::error::StoreError;
use crate::store::NetabaseStore;
use crate::tables;

/// The most marks of a store.
pub const MAX_MARKS: usize = 64;
/// The longest name of a mark, in bytes.
pub const MAX_MARK_NAME_BYTES: usize = 64;
/// The longest value of a mark, in bytes.
pub const MAX_MARK_BYTES: usize = 1024;

/// The marks, which are all in memory.
#[derive(Debug, Default)]
pub(crate) struct Marks(Mutex<BTreeMap<String, Vec<u8>>>);

impl Marks {
    pub(crate) fn load(engine: &Engine) -> Result<Self, StoreError> {
        let mut marks = BTreeMap::new();
        for entry in engine.snapshot()?.prefix(&tables::META, tables::META_MARK)?.take(MAX_MARKS) {
            let entry = entry?;
            let name = entry.key().get(tables::META_MARK.len()..).unwrap_or_default();
            marks.insert(String::from_utf8_lossy(name).into_owned(), entry.value().to_vec());
        }
        Ok(Self(Mutex::new(marks)))
    }
}

impl NetabaseStore {
    /// Keeps a few bytes under a name of the caller's, such as how far a task has come.
    ///
    /// [`NetabaseStore::mark`] returns them at once. They join a later write of the store, within half a
    /// second, and a crash before may bring back the earlier ones. Fails with [`StoreError::Mark`] beyond
    /// [`MAX_MARKS`], [`MAX_MARK_NAME_BYTES`] or [`MAX_MARK_BYTES`].
    pub fn set_mark(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        let mut marks = self.core().marks().0.lock();
        let is_full = marks.len() >= MAX_MARKS && !marks.contains_key(name);
        if is_full || name.len() > MAX_MARK_NAME_BYTES || value.len() > MAX_MARK_BYTES {
            return Err(StoreError::Mark { name: name.to_owned() });
        }
        marks.insert(name.to_owned(), value.to_vec());
        let key = [tables::META_MARK, name.as_bytes()].concat();
        self.core().queue().push_lazy(Op::Set { table: &tables::META, key, value: Some(value.to_vec()) });
        Ok(())
    }

    /// Returns what [`NetabaseStore::set_mark`] has kept under a name, by this program or an earlier one.
    pub fn mark(&self, name: &str) -> Option<Vec<u8>> {
        self.core().marks().0.lock().get(name).cloned()
    }
}
