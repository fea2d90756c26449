//! In place of sled, where the feature `sled` is off: a store that cannot be opened.

use std::any::Any;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use super::checksum::{Checksum, StoredTables};
use super::guard::Health;
use super::{Span, Sync, TableName};
use crate::error::StoreError;
use crate::options::StorageBackend;

/// A handle that cannot be constructed.
#[derive(Debug, Clone)]
pub struct SledStore(Infallible);

pub(crate) struct SledRange(Infallible);
pub(crate) struct SledEntry(Infallible);
pub(super) struct Changes(Infallible);

const UNSUPPORTED: StoreError = StoreError::Unsupported {
    backend: StorageBackend::Sled,
    what: "code in this program: build it with the feature `sled`",
};

impl SledStore {
    pub(super) fn open_copy(_: &Path, _: usize, _: Arc<Health>) -> Result<Self, StoreError> {
        Err(UNSUPPORTED)
    }

    pub(super) fn open(
        _: &Path,
        _: usize,
        _: Arc<Health>,
        _: Option<Infallible>,
    ) -> Result<Self, StoreError> {
        Err(UNSUPPORTED)
    }

    pub(super) fn has_lost(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn accept_loss(&self) -> Result<(), StoreError> {
        match self.0 {}
    }

    pub(super) fn health(&self) -> &Arc<Health> {
        match self.0 {}
    }

    pub(super) fn get(&self, _: &TableName, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.0 {}
    }

    pub(super) fn range(&self, _: &TableName, _: Span<'_>) -> SledRange {
        match self.0 {}
    }

    pub(super) fn is_empty(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn write<T>(
        &self,
        _: Sync,
        _: impl FnOnce(&mut Changes) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match self.0 {}
    }

    pub(super) fn tables(&self) -> Result<Vec<String>, StoreError> {
        match self.0 {}
    }

    pub(super) fn disk_bytes(&self) -> Result<u64, StoreError> {
        match self.0 {}
    }
}

impl StoredTables for Changes {
    fn get(&mut self, _: &TableName, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.0 {}
    }

    fn insert(&mut self, _: &TableName, _: &[u8], _: &[u8]) -> Result<Option<Checksum>, StoreError> {
        match self.0 {}
    }

    fn replace(&mut self, _: &TableName, _: &[u8], _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.0 {}
    }

    fn remove(&mut self, _: &TableName, _: &[u8]) -> Result<Option<Checksum>, StoreError> {
        match self.0 {}
    }

    fn keys(&mut self, _: &TableName, _: Span<'_>, _: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        match self.0 {}
    }

    fn len(&mut self, _: &TableName) -> Result<Option<u64>, StoreError> {
        match self.0 {}
    }
}

impl SledRange {
    pub(super) fn step(&mut self, _: bool) -> Result<Option<SledEntry>, StoreError> {
        match self.0 {}
    }
}

impl SledEntry {
    pub(super) fn key(&self) -> &[u8] {
        match self.0 {}
    }

    pub(super) fn value(&self) -> &[u8] {
        match self.0 {}
    }
}

pub(crate) fn is_sled_corruption(_: &dyn Any) -> bool {
    false
}
