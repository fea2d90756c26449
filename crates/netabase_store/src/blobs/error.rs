//! Errors of large values.

use std::io;
use std::path::Path;

use thiserror::Error;

use crate::error::StoreError;
use crate::model::blob::{Blob, BlobHash};

/// An error of a [`BlobStore`](crate::blob::BlobStore).
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The blob, or a part of it that was asked for, is not here.
    #[error("the blob {blob} is not here as far as it was asked for; fetch it")]
    Missing {
        /// The blob.
        blob: Blob,
    },
    /// The bytes on the disk do not match the hash.
    #[error(
        "the file of the blob {hash} is damaged at byte {offset}; remove the blob, and fetch or add it again"
    )]
    Damaged {
        /// Its hash.
        hash: BlobHash,
        /// The approximate offset.
        offset: u64,
    },
    /// The bytes to store do not match the hash.
    #[error("the bytes received for the blob {hash} do not match its hash")]
    Invalid {
        /// Its hash.
        hash: BlobHash,
    },
    /// The range is not inside of the blob.
    #[error("the range begins at byte {start} and the blob has {size}")]
    OutOfRange {
        /// The start of the range.
        start: u64,
        /// The size of the blob.
        size: u64,
    },
    /// The blob is larger than any may be.
    #[error("the blob has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The quota for fetched blobs is full.
    #[error("fetched blobs may take {limit} bytes, and this quota is full; raise `max_blob_bytes`")]
    Full {
        /// The quota for fetched blobs, in bytes.
        limit: u64,
    },
    /// The input could not be read.
    #[error("the input cannot be read")]
    Input(#[source] std::sync::Arc<io::Error>),
    /// A file or the database could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BlobError {
    /// Returns it as an error of opening a store.
    pub(crate) fn into_store(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            error => StoreError::backend(error),
        }
    }

    pub(super) fn file(path: &Path, source: io::Error) -> Self {
        Self::Store(StoreError::file(path, source))
    }
}
