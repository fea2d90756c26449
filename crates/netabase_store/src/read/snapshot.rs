//! Reads that all see one moment.

use std::fmt;

use crate::changes::history::Position;
use crate::changes::position::{ChangePosition, Histories};
use crate::error::StoreError;
use crate::model::query::{Query, QueryKey};
use crate::model::schema::NetabaseModel;
use crate::read::tree_query::TreeQuery;
use crate::read::view::{Pinned, Rows, Scan, StoredRecord, View};
use crate::store::NetabaseStore;

/// All records of a store as they were when [`NetabaseStore::read`] was called.
///
/// A snapshot blocks no writer, but the space of its versions cannot be used again while it lives,
/// so do not keep it for long. Cloning is cheap.
#[derive(Clone)]
pub struct ReadSnapshot {
    store: NetabaseStore,
    pinned: Pinned,
}

impl ReadSnapshot {
    pub(crate) fn new(store: NetabaseStore, pinned: Pinned) -> Self {
        Self { store, pinned }
    }

    /// Returns the number of the last change that this snapshot has seen; 0 if there was none yet.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    ///
    /// To list records and then follow them without a gap, list them in a snapshot and watch from
    /// [`WatchFrom::After`](crate::WatchFrom::After) this number. With a lesser
    /// [`Durability`](crate::Durability) it may not be on the disk yet, and is not to be kept for
    /// later.
    pub fn sequence(&self) -> Result<u64, StoreError> {
        Ok(Position::load(&self.pinned.snapshot)?.next - 1)
    }

    /// Returns the same with its history, for [`WatchFrom::Position`](crate::WatchFrom::Position).
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn position(&self) -> Result<ChangePosition, StoreError> {
        Ok(Histories::load(&self.pinned.snapshot)?.position(self.sequence()?))
    }

    /// Returns the records of one model.
    pub fn open_tree<M: NetabaseModel>(&self) -> Result<SnapshotTree<M>, StoreError> {
        let model = self.store.model_position::<M>()?;
        Ok(SnapshotTree { view: View::new(self.store.clone(), model, Some(self.pinned.clone())) })
    }
}

impl fmt::Debug for ReadSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadSnapshot").field("store", &self.store).finish_non_exhaustive()
    }
}

/// The records of one model in a [`ReadSnapshot`].
pub struct SnapshotTree<M> {
    view: View<M>,
}

impl<M> Clone for SnapshotTree<M> {
    fn clone(&self) -> Self {
        Self { view: self.view.clone() }
    }
}

impl<M: NetabaseModel> SnapshotTree<M> {
    /// Returns the record under `key`.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn get(&self, key: &M::PrimaryKey) -> Result<Option<M>, StoreError> {
        self.view.get(key)
    }

    /// Returns the record under each key, in the order of the keys.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    pub fn get_many<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a M::PrimaryKey>,
    ) -> Result<Vec<Option<M>>, StoreError> {
        self.view.get_many(keys)
    }

    /// Returns the record under `key` with its version, author and expiry.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn entry(&self, key: &M::PrimaryKey) -> Result<Option<StoredRecord<M>>, StoreError> {
        self.view.entry(key)
    }

    /// Returns whether there is a record under `key`.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn contains(&self, key: &M::PrimaryKey) -> Result<bool, StoreError> {
        self.view.contains(key)
    }

    /// Returns the records with this secondary key, in the order of their primary keys.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    pub fn find(&self, key: impl Into<M::SecondaryKeys>) -> Result<Vec<M>, StoreError> {
        self.view.find(key)
    }

    /// Begins a query, to which a key, an order and a limit can be added.
    pub fn query(&self) -> TreeQuery<M> {
        TreeQuery::new(self.view.clone())
    }

    /// Runs a given query.
    pub fn ask<K: QueryKey<M>>(&self, query: Query<M, K>) -> TreeQuery<M, K> {
        TreeQuery::with(self.view.clone(), query)
    }

    /// Returns all records in the order of their primary keys.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    #[expect(clippy::iter_not_returning_iterator, reason = "reading begins first, which may fail")]
    pub fn iter(&self) -> Result<Rows<M>, StoreError> {
        self.view.rows(&Scan::default())
    }

    /// Returns the number of records, without reading them; those that
    /// [`Tree::len`](crate::Tree::len) counts.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn len(&self) -> Result<u64, StoreError> {
        self.view.len()
    }

    /// Returns whether there are no records.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(self.len()? == 0)
    }
}

impl<M: NetabaseModel> fmt::Debug for SnapshotTree<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotTree").field("model", &M::SCHEMA.name).finish_non_exhaustive()
    }
}
