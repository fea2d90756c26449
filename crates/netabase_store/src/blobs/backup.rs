//! Copying large values, which are not part of the backup of a database.

use std::path::Path;

use super::error::BlobError;
use super::files::{Directory, Source};
use super::tree::BLOB_GROUP_BYTES;
use super::{BlobStore, Blobs};
use crate::blobs::limits::MAX_LISTED_BLOBS;
use crate::model::blob::{BLOB_HASH_BYTES, Blob, BlobHash};
use crate::platform::files;
use crate::tables;

/// The result of [`BlobStore::backup`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobBackup {
    /// The number of copied blobs.
    pub copied: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The number of blobs that the directory had already.
    pub kept: u64,
    /// The first 1000 blobs that records name and that are not complete here.
    pub missing: Vec<BlobHash>,
    /// The number of missing blobs.
    pub total_missing: u64,
    /// Blobs whose files are damaged, which were not copied.
    pub damaged: Vec<BlobHash>,
}

impl BlobStore {
    /// Copies every complete blob into the directory `directory`, and reports blobs that it does
    /// not copy.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    ///
    /// [`NetabaseStore::backup`](crate::NetabaseStore::backup) copies the database alone. A
    /// database that is restored at `books.redb` has the blobs that are in `books.redb.blobs`. Each
    /// is verified while it is copied; one that exists already is left as it is, so that a second
    /// backup into the same directory copies only new blobs.
    pub fn backup(&self, directory: impl AsRef<Path>) -> Result<BlobBackup, BlobError> {
        // Blobs are looked up so many at a time.
        const STEP: usize = 1024;
        let (blobs, target) = (self.inner(), Directory::new(Some(directory.as_ref().to_owned())));
        target.make()?;
        let mut report = BlobBackup::default();
        let mut after = None;
        loop {
            let some = blobs.whole_after(after, STEP);
            let Some(last) = some.last() else { break };
            after = Some(last.hash);
            for blob in some {
                self.back_up(&blob, &target, &mut report)?;
            }
        }
        target.sync(&target.of_source(Source::Added))?;
        self.list_missing(blobs, &mut report)?;
        Ok(report)
    }

    fn back_up(&self, blob: &Blob, target: &Directory, report: &mut BlobBackup) -> Result<(), BlobError> {
        let to = target.whole(&blob.hash, Source::Added);
        if files::exists(&to.data) {
            report.kept += 1;
            return Ok(());
        }
        // Collected since it was listed, or damaged.
        match self.verify(blob) {
            Ok(()) => {}
            Err(BlobError::Missing { .. }) => return Ok(()),
            Err(BlobError::Damaged { hash, .. }) => {
                report.damaged.push(hash);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let temporary = target.temporary()?.join(blob.hash.to_string());
        self.inner().with_files(blob, &(0..blob.size), |data, tree| {
            if blob.size > BLOB_GROUP_BYTES {
                let mut copy = files::create(&temporary)?;
                std::io::copy(&mut tree.file(), &mut copy)?;
                copy.sync_all()?;
                files::rename(&temporary, &to.tree)?;
            }
            let mut copy = files::create(&temporary)?;
            std::io::copy(&mut data.file(), &mut copy)?;
            copy.sync_all()?;
            Ok(files::rename(&temporary, &to.data)?)
        })?;
        report.copied += 1;
        report.bytes += blob.size;
        Ok(())
    }

    /// Lists blobs that records name and that are not here.
    fn list_missing(&self, blobs: &Blobs, report: &mut BlobBackup) -> Result<(), BlobError> {
        let snapshot = self.store.core().engine().snapshot()?;
        let mut previous = None;
        for entry in snapshot.all(&tables::BLOBS)? {
            let entry = entry?;
            let Some((hash, key)) = entry.key().split_first_chunk::<BLOB_HASH_BYTES>() else { continue };
            let hash = BlobHash::from_bytes(*hash);
            if key.is_empty() || previous == Some(hash) {
                continue;
            }
            previous = Some(hash);
            if !blobs.state.lock().whole.contains_key(&hash) {
                report.total_missing += 1;
                if report.missing.len() < MAX_LISTED_BLOBS {
                    report.missing.push(hash);
                }
            }
        }
        Ok(())
    }
}
