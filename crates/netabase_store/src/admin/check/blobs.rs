//! Compares the references to blobs with the records that name them.

use super::Problem;
use super::examine::Examination;
use crate::admin::migrate::{Reading, read};
use crate::engine::Entry;
use crate::error::StoreError;
use crate::model::blob::{BLOB_HASH_BYTES, Blob, BlobHash};
use crate::tables;
use crate::version::record_key::RecordKey;

impl Examination<'_> {
    /// Returns whether a record's references exist, and counts them.
    pub(super) fn refers(&mut self, key: &RecordKey, blobs: &[Blob]) -> Result<(), StoreError> {
        let mut hashes: Vec<_> = blobs.iter().map(|blob| blob.hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        for hash in hashes {
            let entry = [&hash.as_bytes()[..], key.as_bytes()].concat();
            if self.is_there(&tables::BLOBS, &entry)? {
                self.referred += 1;
            } else {
                self.damaged_index(Problem::MissingBlobReference { key: key.clone(), hash });
            }
        }
        Ok(())
    }

    /// Looks for references without a record, if there are more references than records name.
    pub(super) fn blobs(&mut self) -> Result<(), StoreError> {
        let mut references = 0;
        self.walk(&tables::BLOBS, |_, entry| {
            references += u64::from(entry.key().len() != BLOB_HASH_BYTES);
            Ok(())
        })?;
        if references == self.referred {
            return Ok(());
        }
        for entry in self.snapshot.all(&tables::BLOBS)?.readable() {
            let entry = entry?;
            self.pace.step()?;
            if entry.key().len() != BLOB_HASH_BYTES {
                self.reference(&entry)?;
            }
        }
        Ok(())
    }

    fn reference(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let split = entry.key().split_first_chunk::<BLOB_HASH_BYTES>();
        let split =
            split.and_then(|(hash, key)| Some((BlobHash::from_bytes(*hash), RecordKey::parse(key).ok()?)));
        let Some((hash, key)) = split else {
            self.damaged_index(Problem::Malformed {
                table: tables::BLOBS.as_str().to_owned(),
                entry: entry.key().to_vec(),
            });
            return Ok(());
        };
        let core = self.core;
        let place = core.layout().place(&key);
        let names = |bytes: &[u8]| match place.model.map(|model| read(model, key.primary_key(), bytes)) {
            Some(Reading::Record(keys)) => keys.blobs().iter().any(|blob| blob.hash == hash),
            _ => false,
        };
        if self.matches(place.table, place.key, names)? != Some(true) {
            self.damaged_index(Problem::SuperfluousBlobReference { key, hash });
        }
        Ok(())
    }
}
