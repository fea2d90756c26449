//! The references of records to blobs.

use super::Applier;
use crate::error::StoreError;
use crate::model::blob::{Blob, BlobHash};
use crate::model::schema::IndexKeys;
use crate::tables::{self, ModelTables};

impl Applier<'_> {
    /// Keeps the references in line with a record that named the blobs of `old` and now names those
    /// of `new`.
    pub(super) fn refer(
        &mut self,
        model: &ModelTables,
        primary: &[u8],
        old: &IndexKeys,
        new: &IndexKeys,
    ) -> Result<(), StoreError> {
        let (old, new) = (old.blobs(), new.blobs());
        if old.is_empty() && new.is_empty() {
            return Ok(());
        }
        let definition = self.layout.schema().map_or("", |schema| schema.name);
        let key = model.schema.record_key(definition, primary)?;
        // Of two sizes that are told of one hash, one is wrong; the file is the same.
        let names = |blobs: &[Blob], hash: &BlobHash| blobs.iter().any(|blob| blob.hash == *hash);
        for Blob { hash, .. } in old.iter().filter(|blob| !names(new, &blob.hash)) {
            self.indexes.push(&tables::BLOBS, hash.as_bytes(), key.as_bytes(), false);
        }
        for Blob { hash, .. } in new.iter().filter(|blob| !names(old, &blob.hash)) {
            self.indexes.push(&tables::BLOBS, hash.as_bytes(), key.as_bytes(), true);
            // The time since when no record names it: it begins anew.
            self.indexes.push(&tables::BLOBS, hash.as_bytes(), &[], false);
        }
        self.indexes.flush_if_full(self.tables, self.undo.is_some())
    }
}
