//! Deletes large values that no record names any more.

use std::ops::Bound;

use super::error::BlobError;
use super::{BlobStore, Blobs};
use crate::blobs::limits::{COLLECT_INTERVAL_MILLIS, COLLECT_STEP, MAX_DELETED};
use crate::core::Core;
use crate::engine::{Snapshot, Span};
use crate::error::StoreError;
use crate::model::blob::{BLOB_HASH_BYTES, Blob, BlobHash};
use crate::tables;
use crate::version::record_key::RecordKey;
use crate::write::apply::Op;
use crate::write::writer::millis;

#[cfg(test)]
mod tests;

/// The result of [`BlobStore::collect`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Collected {
    /// The number of blobs that were looked at.
    pub examined: u64,
    /// The number of blobs without references.
    pub unreferenced: u64,
    /// The number of deleted blobs.
    pub deleted: u64,
}

/// The state of the writer's garbage collection of blobs.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    /// The time of the next step, in milliseconds since the Unix epoch.
    due: u64,
    /// The blob after which the walk continues.
    after: Option<BlobHash>,
}

impl Collector {
    /// Looks at some blobs, if a step is due; returns the writes.
    pub(crate) fn step(&mut self, core: &Core, now: u64) -> Result<Vec<Op>, StoreError> {
        if now < self.due {
            return Ok(Vec::new());
        }
        self.due = now.saturating_add(COLLECT_INTERVAL_MILLIS);
        let (mut ops, mut done) = (Vec::new(), Collected::default());
        core.collect_step(now, &mut self.after, &mut ops, &mut done)?;
        Ok(ops)
    }
}

impl Blobs {
    /// Returns the hashes of blobs, complete or not, after `after`.
    fn hashes_after(&self, after: Option<BlobHash>) -> Vec<BlobHash> {
        let state = self.state.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let whole = state.whole.range((from, Bound::Unbounded)).map(|(hash, _)| *hash);
        let from = after.map_or(Bound::Unbounded, |hash| Bound::Excluded(Blob { hash, size: u64::MAX }));
        let partial = state.partial.range((from, Bound::Unbounded)).map(|(blob, _)| blob.hash);
        let mut hashes: Vec<BlobHash> = whole.take(COLLECT_STEP).chain(partial.take(COLLECT_STEP)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes.truncate(COLLECT_STEP);
        hashes
    }
}

impl Core {
    /// Looks at some blobs after `after`, which becomes the last of them, or `None` after the last
    /// of all. To be called by the writer, so that no record names a blob meanwhile.
    fn collect_step(
        &self,
        now: u64,
        after: &mut Option<BlobHash>,
        ops: &mut Vec<Op>,
        done: &mut Collected,
    ) -> Result<(), StoreError> {
        let hashes = self.blobs().hashes_after(*after);
        *after = hashes.last().copied().filter(|_| hashes.len() == COLLECT_STEP);
        if hashes.is_empty() {
            return Ok(());
        }
        let (snapshot, grace) = (self.engine().snapshot()?, millis(self.options().blob_grace));
        let mut deleted = 0;
        for hash in hashes {
            done.examined += 1;
            let since = snapshot.get(&tables::BLOBS, hash.as_bytes())?;
            let set = |value| Op::Set { table: &tables::BLOBS, key: hash.as_bytes().to_vec(), value };
            let touched = self.blobs().state.lock().touched(&hash);
            let touched = match touched {
                Some(touched) if !is_referenced(&snapshot, &hash)? => touched,
                _ => {
                    ops.extend(since.map(|_| set(None)));
                    continue;
                }
            };
            #[cfg(test)]
            self.blobs().looked.at(&hash);
            done.unreferenced += 1;
            let since = since.and_then(|since| since.try_into().ok()).map(u64::from_be_bytes);
            let Some(since) = since else {
                ops.push(set(Some(now.to_be_bytes().to_vec())));
                continue;
            };
            let is_old = |touched: u64| now.saturating_sub(since.max(touched)) >= grace;
            if !is_old(touched) || deleted == MAX_DELETED {
                continue;
            }
            // The blob may have been added again or be held since it was looked at.
            match self.blobs().remove_if(&hash, |state| Ok(state.touched(&hash).is_some_and(is_old))) {
                Ok(true) => {
                    deleted += 1;
                    ops.push(set(None));
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, blob = %hash, "cannot delete a blob that no record names");
                }
            }
        }
        done.deleted += deleted as u64;
        Ok(())
    }
}

fn is_referenced(snapshot: &Snapshot, hash: &BlobHash) -> Result<bool, StoreError> {
    for entry in snapshot.prefix(&tables::BLOBS, hash.as_bytes())? {
        if entry?.key().len() > BLOB_HASH_BYTES {
            return Ok(true);
        }
    }
    Ok(false)
}

impl BlobStore {
    /// Looks at every blob, and deletes blobs that no record has named for
    /// [`StoreOptions::blob_grace`](crate::StoreOptions::blob_grace).
    ///
    /// Blocks until the writer has it on the disk; in an async function use `spawn_blocking`.
    ///
    /// The store does so by itself, some at a time, within minutes. The grace period begins when
    /// the store first finds that a blob has no references, and this time is stored. Writers wait
    /// meanwhile; blobs that are being [held](BlobStore::hold) or fetched stay.
    pub fn collect(&self) -> Result<Collected, BlobError> {
        let mut done = Collected::default();
        let mut after = None;
        loop {
            let found = self.store.while_paused_to_write(move |core, ops| {
                let (mut done, mut after) = (Collected::default(), after);
                core.collect_step(core.options().clock.unix_millis(), &mut after, ops, &mut done)?;
                Ok((done, after))
            });
            let (step, next) = found?;
            done.examined += step.examined;
            done.unreferenced += step.unreferenced;
            done.deleted += step.deleted;
            after = next;
            if after.is_none() {
                return Ok(done);
            }
        }
    }

    /// Returns the records that name a blob, at most `limit`.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    pub fn references(&self, hash: &BlobHash, limit: usize) -> Result<Vec<RecordKey>, StoreError> {
        let snapshot = self.store.core().engine().snapshot()?;
        let mut records = Vec::new();
        for entry in snapshot.prefix(&tables::BLOBS, hash.as_bytes())? {
            let entry = entry?;
            let key = entry.key().get(BLOB_HASH_BYTES..).filter(|key| !key.is_empty());
            records.extend(key.and_then(|key| RecordKey::parse(key).ok()));
            if records.len() >= limit {
                records.truncate(limit);
                break;
            }
        }
        Ok(records)
    }
}

/// The place at which a walk over the references to blobs continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobReference {
    /// The blob.
    pub hash: BlobHash,
    /// A record that names it.
    pub record: RecordKey,
}

impl BlobStore {
    /// Returns up to `limit` pairs of a blob and a record that names it, whether the blob is here
    /// or not, in the order of hashes after `after`. Blocks on the disk.
    pub fn references_after(
        &self,
        after: Option<&BlobReference>,
        limit: usize,
    ) -> Result<Vec<BlobReference>, StoreError> {
        let after =
            after.map(|after| [after.hash.as_bytes().as_slice(), after.record.as_bytes(), &[0]].concat());
        let start = after.unwrap_or_default();
        let mut references = Vec::new();
        for entry in
            self.store.core().engine().snapshot()?.range(&tables::BLOBS, Span { start: &start, end: None })?
        {
            let entry = entry?;
            let named = entry.key().split_first_chunk::<BLOB_HASH_BYTES>();
            let Some((hash, record)) = named.filter(|(_, record)| !record.is_empty()) else { continue };
            if let Ok(record) = RecordKey::parse(record) {
                references.push(BlobReference { hash: BlobHash::from_bytes(*hash), record });
            }
            if references.len() >= limit {
                break;
            }
        }
        Ok(references)
    }
}

/// A test's callback between finding a blob without references and deciding whether to delete it.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Looked(pub(super) parking_lot::Mutex<Option<Act>>);

#[cfg(test)]
type Act = Box<dyn FnOnce(&BlobHash) + Send>;

#[cfg(test)]
impl Looked {
    fn at(&self, hash: &BlobHash) {
        let act = self.0.lock().take();
        if let Some(act) = act {
            act(hash);
        }
    }
}

#[cfg(test)]
impl std::fmt::Debug for Looked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Looked").finish_non_exhaustive()
    }
}
