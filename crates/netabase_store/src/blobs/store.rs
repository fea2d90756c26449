//! The interface of applications to the large values beside a store.

use std::fmt;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::error::BlobError;
use super::partial::PartialBlob;
use super::{Blobs, Hold};
use crate::model::blob::{Blob, BlobHash};
use crate::platform::files;
use crate::store::NetabaseStore;

/// The large values beside a store. Cloning is cheap, and keeps the store open.
///
/// Its calls block on the disk and hash the bytes that they read, so an async program calls them on
/// blocking threads. Every byte is verified against the hash before it is returned: a damaged file
/// is an error and never a wrong value.
///
/// ```
/// # use netabase_store::{NetabaseStore, netabase_definition_module};
/// # #[netabase_definition_module(LibraryDefinition, LibraryKeys)]
/// # mod library {
/// #     use netabase_store::NetabaseModel;
/// #     use serde::{Deserialize, Serialize};
/// #     #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
/// #     #[netabase(LibraryDefinition)]
/// #     pub struct Book { #[primary_key] pub isbn: String }
/// # }
/// # use library::*;
/// let store = NetabaseStore::in_memory::<LibraryDefinition>()?;
/// let blobs = store.blobs();
/// let blob = blobs.add_reader(&b"as long as you like"[..])?;
/// assert!(blobs.has(&blob));
/// assert_eq!(blobs.read(&blob, 3..7)?, b"long");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct BlobStore {
    pub(super) store: NetabaseStore,
}

/// The present part of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlobStatus {
    /// No part of the blob is here.
    Absent,
    /// A part of the blob is here.
    Partial {
        /// The number of verified bytes.
        present: u64,
    },
    /// The whole blob is here.
    Whole,
}

/// The space that large values take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobStatistics {
    /// The number of blobs that this program has added.
    pub added: u64,
    /// The bytes of blobs that this program has added.
    pub added_bytes: u64,
    /// The number of complete blobs from peers.
    pub fetched: u64,
    /// The number of partial blobs.
    pub partial: u64,
    /// The bytes of blobs from peers, complete or partial, which
    /// [`StoreOptions::max_blob_bytes`](crate::StoreOptions::max_blob_bytes) bounds.
    pub fetched_bytes: u64,
}

impl NetabaseStore {
    /// Returns the large values beside the store.
    pub fn blobs(&self) -> BlobStore {
        BlobStore { store: self.clone() }
    }
}

impl BlobStore {
    /// The most groups of [`Blob::GROUP_BYTES`] that one encoded slice has, so that peers agree on
    /// the size of an answer.
    pub const MAX_SLICE_GROUPS: u64 = crate::blobs::limits::MAX_SLICE_GROUPS;

    pub(super) fn inner(&self) -> &Arc<Blobs> {
        self.store.core().blobs()
    }

    /// Adds a value that is in memory; returns its name.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    ///
    /// A value that exists already is not stored twice. A blob that no record names is deleted when
    /// [`StoreOptions::blob_grace`](crate::StoreOptions::blob_grace) has passed since it was added.
    pub fn add_bytes(&self, value: &[u8]) -> Result<Blob, BlobError> {
        self.add_reader(value)
    }

    /// Copies a file; returns the name of its content.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    pub fn add_file(&self, path: impl AsRef<Path>) -> Result<Blob, BlobError> {
        let path = path.as_ref();
        self.add_reader(files::open(path).map_err(|error| BlobError::file(path, error))?)
    }

    /// Adds the value that a reader yields; returns its name.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    ///
    /// The value is hashed while it is copied, and gets its name when it is on the disk. Fails with
    /// [`BlobError::TooLarge`] beyond [`Blob::MAX_BYTES`](crate::Blob::MAX_BYTES).
    pub fn add_reader(&self, reader: impl Read) -> Result<Blob, BlobError> {
        self.inner().add(reader)
    }

    /// Returns whether all of a blob is here.
    pub fn has(&self, blob: &Blob) -> bool {
        self.inner().has(blob)
    }

    /// Returns the state of a blob.
    pub fn status(&self, blob: &Blob) -> BlobStatus {
        self.inner().status(blob)
    }

    /// Reads a range of bytes, verified; a range beyond the end of the blob is truncated.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    ///
    /// Fails with [`BlobError::Missing`] if a part of the range is not here.
    pub fn read(&self, blob: &Blob, bytes: Range<u64>) -> Result<Vec<u8>, BlobError> {
        let mut read = Vec::new();
        self.inner().read(blob, bytes, |part| {
            read.extend_from_slice(part);
            Ok(())
        })?;
        Ok(read)
    }

    /// Writes all of a blob to `out`, verified; memory is bounded.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    pub fn copy_to(&self, blob: &Blob, mut out: impl Write) -> Result<(), BlobError> {
        self.inner().read(blob, 0..blob.size, |part| out.write_all(part))
    }

    /// Reads all of a blob and compares it with its hash.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    pub fn verify(&self, blob: &Blob) -> Result<(), BlobError> {
        self.inner().read(blob, 0..blob.size, |_| Ok(()))
    }

    /// Encodes a range of groups of 16 KiB, at most [`MAX_SLICE_GROUPS`](Self::MAX_SLICE_GROUPS),
    /// with the hashes that prove that they are of the blob, for [`PartialBlob::write_slice`].
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    pub fn slice(&self, blob: &Blob, groups: Range<u64>) -> Result<Vec<u8>, BlobError> {
        self.inner().slice(blob, &groups)
    }

    /// Begins to fetch a blob, or continues an interrupted fetch.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    ///
    /// Fails with [`BlobError::TooLarge`] beyond [`Blob::MAX_BYTES`](crate::Blob::MAX_BYTES).
    pub fn partial(&self, blob: &Blob) -> Result<PartialBlob, BlobError> {
        self.inner().partial(blob)
    }

    /// Returns complete blobs in the order of their hashes, after `after`, at most `limit`.
    pub fn whole_after(&self, after: Option<BlobHash>, limit: usize) -> Vec<Blob> {
        self.inner().whole_after(after, limit)
    }

    /// Returns a number that changes whenever a blob becomes complete or is removed.
    pub fn generation(&self) -> u64 {
        self.inner().state.lock().generation
    }

    /// Counts and measures the blobs.
    pub fn statistics(&self) -> BlobStatistics {
        self.inner().state.lock().statistics()
    }

    /// Removes a blob, complete or partial, even if records name it; returns whether it was here.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    ///
    /// The call is meant for a [damaged](BlobError::Damaged) blob, before it is added or fetched
    /// again.
    pub fn remove(&self, hash: &BlobHash) -> Result<bool, BlobError> {
        self.inner().remove(hash)
    }

    /// Keeps a blob from being deleted while the returned value lives, whether the blob is here or
    /// not.
    pub fn hold(&self, blob: &Blob) -> BlobHold {
        BlobHold { _hold: Hold::new(self.inner(), blob.hash), _store: self.store.clone() }
    }
}

impl fmt::Debug for BlobStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobStore").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}

/// Keeps a blob from being deleted while it lives.
#[derive(Debug)]
pub struct BlobHold {
    _hold: Hold,
    _store: NetabaseStore,
}
