//! Giving space back to the file system.

use crate::error::StoreError;
use crate::options::StorageBackend;
use crate::store::NetabaseStore;

/// The result of [`NetabaseStore::compact`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    /// The size of the file before, in bytes.
    pub before_bytes: u64,
    /// The size of the file after it, in bytes.
    pub after_bytes: u64,
}

impl NetabaseStore {
    /// Makes the file as small as its contents allow.
    ///
    /// Blocks in proportion to the size of the database; in an async function use `spawn_blocking`.
    ///
    /// redb uses the space of deleted records again, but its file never shrinks by itself.
    /// Compacting moves pages from the end of the file into the gaps, which takes time in
    /// proportion to the moved bytes; reads and writes that begin meanwhile wait until it is done.
    ///
    /// Fails with [`AdminError::InUse`](crate::admin::AdminError::InUse) if an iterator or a
    /// [`ReadSnapshot`](crate::ReadSnapshot) still is in use after half a second, and with
    /// [`StoreError::Unsupported`] on sled, which reclaims space by itself, and in memory, where
    /// there is no file.
    pub fn compact(&self) -> Result<Compaction, StoreError> {
        self.while_paused(|core| {
            if let Some(failure) = core.poisoned() {
                return Err(failure);
            }
            let bytes = || {
                let unsupported =
                    StoreError::Unsupported { backend: StorageBackend::Memory, what: "compaction" };
                core.engine().disk_bytes()?.ok_or(unsupported)
            };
            let before_bytes = bytes()?;
            core.engine().compact()?;
            Ok(Compaction { before_bytes, after_bytes: bytes()? })
        })
    }
}
