//! The typed view of one model's records.

use std::collections::HashSet;
use std::fmt;

use crate::changes::change::Change;
use crate::changes::watch::{Watch, WatchFrom};
use crate::error::{StoreError, WriteError};
use crate::model::query::{Query, QueryKey};
use crate::model::schema::{EncodedRecord, NetabaseModel, decode_payload};
use crate::read::limits::MAX_UPDATE_ATTEMPTS;
use crate::read::tree_query::TreeQuery;
use crate::read::view::{Rows, Scan, StoredRecord, View};
use crate::replica::lease::Lifetime;
use crate::store::NetabaseStore;
use crate::version::envelope::ContentHash;
use crate::version::record_key::{RecordKey, WritePolicy};
use crate::write::apply::{Expected, Op};
use crate::write::writer::Batch;

/// The records of one model in a [`NetabaseStore`].
///
/// Cloning is cheap. There is no async runtime: reads run on the calling thread, and writes block
/// it until they are written; `docs/store.md` lists what blocks on what. Writes return when they
/// are as durable as [`StoreOptions::durability`](crate::StoreOptions::durability) says; reads see
/// the last commit.
pub struct Tree<M> {
    view: View<M>,
}

impl<M> Clone for Tree<M> {
    fn clone(&self) -> Self {
        Self { view: self.view.clone() }
    }
}

impl<M: NetabaseModel> Tree<M> {
    pub(crate) fn new(store: NetabaseStore, model: usize) -> Self {
        Self { view: View::new(store, model, None) }
    }

    pub(crate) fn store(&self) -> &NetabaseStore {
        &self.view.store
    }

    /// Stores a record in place of any earlier one with the same primary key.
    ///
    /// Blocks until the writer has it on the disk; in an async function use `spawn_blocking`, or
    /// the methods of a node.
    pub fn put(&self, record: &M) -> Result<(), StoreError> {
        self.commit(vec![self.put_op(record)?]).map(drop)
    }

    /// Stores a record with a lifetime of its own, which ends with the next version of the record.
    ///
    /// Blocks until the writer has it on the disk; in an async function use `spawn_blocking`, or
    /// the methods of a node.
    ///
    /// Fails with [`WriteError::NoIdentity`](crate::WriteError::NoIdentity) if the lifetime has an
    /// end and the store has no identity to sign it with.
    pub fn put_with_lifetime(&self, record: &M, lifetime: Lifetime) -> Result<(), StoreError> {
        let op = self.store().core().put_op_for(EncodedRecord::of(record)?, lifetime)?;
        self.commit(vec![op]).map(drop)
    }

    /// Stores all records, or none of them if one cannot be stored.
    ///
    /// Blocks until the writer has it on the disk; in an async function use `spawn_blocking`, or
    /// the methods of a node.
    ///
    /// All records are in memory until they are written: split batches that do not fit.
    pub fn put_many<'a>(&self, records: impl IntoIterator<Item = &'a M>) -> Result<(), StoreError> {
        let ops = records.into_iter().map(|record| self.put_op(record)).collect::<Result<_, _>>()?;
        self.commit(ops).map(drop)
    }

    /// Stores a record whose primary key is free; fails with
    /// [`WriteError::Exists`](crate::WriteError::Exists) if it is not.
    ///
    /// Blocks until the writer has it on the disk; in an async function use `spawn_blocking`, or
    /// the methods of a node.
    pub fn insert(&self, record: &M) -> Result<(), StoreError> {
        let key = RecordKey::of(&record.primary_key())?;
        self.commit_if(vec![self.put_op(record)?], key, Expected::Absent)
    }

    /// Stores a record if the stored version still is the `expected` one, or with `None` if there
    /// is none; fails with [`WriteError::Conflict`](crate::WriteError::Conflict) otherwise.
    ///
    /// Blocks until the writer has it on the disk; in an async function use `spawn_blocking`, or
    /// the methods of a node.
    ///
    /// [`Tree::entry`] returns a record with the name of its version. Without an identity a version
    /// is named by its bytes alone: a record that was changed and changed back has the name that it
    /// had.
    pub fn compare_and_swap(&self, record: &M, expected: Option<ContentHash>) -> Result<(), StoreError> {
        let key = RecordKey::of(&record.primary_key())?;
        let expected = expected.map_or(Expected::Absent, |hash| Expected::Content(Some(hash)));
        let outcome = self.commit_if(vec![self.put_op(record)?], key, expected);
        outcome.map_err(|error| match error {
            StoreError::Write(WriteError::Exists { key }) => StoreError::Write(WriteError::Conflict { key }),
            error => error,
        })
    }

    /// Changes the record under `key` with `change` and stores it; returns the stored record, or
    /// `None` if there is none.
    ///
    /// The stored record of a merged model is the merge of all contributions, which may differ from
    /// the result of `change`: an author cannot undo the contributions of others.
    ///
    /// Blocks until the writer has it on the disk; in an async function use `spawn_blocking`, or
    /// the methods of a node.
    ///
    /// If another writer changes the record in the meantime, `change` is called again with the new
    /// value, up to [`NetabaseStore::MAX_UPDATE_ATTEMPTS`] times before this fails with
    /// [`WriteError::Conflict`](crate::WriteError::Conflict). `change` must not change the primary
    /// key.
    pub fn update(
        &self,
        key: &M::PrimaryKey,
        mut change: impl FnMut(&mut M),
    ) -> Result<Option<M>, StoreError> {
        let key = RecordKey::of(key)?;
        let core = self.store().core();
        // A later update does not overtake those that have met a conflict, or these might starve.
        let mut turn = if core.is_contended(&key) { core.take_turn(&key) } else { None };
        for _ in 0..MAX_UPDATE_ATTEMPTS {
            match self.try_update(&key, &mut change) {
                Err(StoreError::Write(WriteError::Conflict { .. })) => {}
                outcome => return outcome,
            }
            turn = turn.or_else(|| core.take_turn(&key));
        }
        Err(StoreError::Write(WriteError::Conflict { key }))
    }

    fn try_update(&self, key: &RecordKey, change: &mut impl FnMut(&mut M)) -> Result<Option<M>, StoreError> {
        let core = self.store().core();
        let now = core.options().clock.unix_millis();
        let current =
            core.current(key)?.filter(|current| !current.is_tombstone() && !current.is_expired(now));
        let Some(current) = current else { return Ok(None) };
        let mut record: M = decode_payload(current.payload())?;
        change(&mut record);
        if RecordKey::of(&record.primary_key())? != *key {
            return Err(WriteError::KeyChanged { key: key.clone() }.into());
        }
        let expected = vec![(key.clone(), Expected::Content(Some(current.content_hash())))];
        let ops = vec![self.put_op(&record)?];
        let changes = self.store().commit(Batch { ops, expected, ..Batch::default() })?;
        if M::SCHEMA.policy != WritePolicy::Merged {
            return Ok(Some(record));
        }
        let stored = changes.into_iter().flatten().find_map(|change| change.envelope);
        Ok(Some(stored.map_or(Ok(record), |stored| decode_payload(stored.payload()))?))
    }

    /// Returns the record under `key`.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn get(&self, key: &M::PrimaryKey) -> Result<Option<M>, StoreError> {
        self.view.get(key)
    }

    /// Returns the record under each key, in the order of the keys, from one snapshot; on sled,
    /// which has none, each is as it is when it is read.
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

    /// Deletes the record under `key`; returns whether it existed.
    ///
    /// Blocks until the writer has it on the disk; in an async function use `spawn_blocking`, or
    /// the methods of a node.
    ///
    /// A store with an identity leaves a signed tombstone, so that peers receive the deletion;
    /// without a record there is no tombstone.
    pub fn remove(&self, key: &M::PrimaryKey) -> Result<bool, StoreError> {
        let op = self.store().core().remove_op(RecordKey::of(key)?)?;
        Ok(self.commit(vec![op])?.into_iter().flatten().any(|change| change.is_removal()))
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

    /// Deletes the records that a query finds, atomically; returns their number.
    ///
    /// Blocks until the writer has it on the disk; in an async function use `spawn_blocking`, or
    /// the methods of a node.
    ///
    /// If another writer changes one of them in the meantime, the query runs again, up to
    /// [`NetabaseStore::MAX_UPDATE_ATTEMPTS`] times before this fails with
    /// [`WriteError::Conflict`](crate::WriteError::Conflict). Records that are added while it runs
    /// may or may not be removed. All keys are in memory: use a limit, and repeat, if they do not
    /// fit.
    ///
    /// ```
    /// # use netabase_store::{NetabaseModel, NetabaseStore, Query, netabase_definition_module};
    /// # #[netabase_definition_module(LogDefinition, LogKeys)]
    /// # mod log {
    /// #     use netabase_store::NetabaseModel;
    /// #     use serde::{Deserialize, Serialize};
    /// #     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    /// #     #[netabase(LogDefinition)]
    /// #     pub struct Line { #[primary_key] pub number: u64, pub text: String }
    /// # }
    /// # use log::*;
    /// let store = NetabaseStore::in_memory::<LogDefinition>()?;
    /// let lines = store.open_tree::<Line>()?;
    /// lines.put_many(&[Line { number: 1, text: "old".into() }, Line { number: 7, text: "new".into() }])?;
    /// assert_eq!(lines.remove_all(Query::new().number(..5))?, 1);
    /// assert_eq!(lines.len()?, 1);
    /// # Ok::<(), netabase_store::StoreError>(())
    /// ```
    pub fn remove_all<K: QueryKey<M>>(&self, query: Query<M, K>) -> Result<u64, StoreError> {
        let query = self.ask(query);
        let mut outcome = self.try_remove_all(&query);
        for _ in 1..MAX_UPDATE_ATTEMPTS {
            match outcome {
                Err(StoreError::Write(WriteError::Conflict { .. })) => outcome = self.try_remove_all(&query),
                outcome => return outcome,
            }
        }
        outcome
    }

    fn try_remove_all<K: QueryKey<M>>(&self, query: &TreeQuery<M, K>) -> Result<u64, StoreError> {
        let mut batch = Batch::default();
        let mut rows = query.rows()?.with_versions();
        let mut seen = HashSet::new();
        while let Some(version) = rows.next_version() {
            let (record, hash) = version?;
            let key = RecordKey::of(&record.primary_key())?;
            // A record is found under each of several values.
            if seen.insert(key.clone()) {
                batch.ops.push(self.store().core().remove_op(key.clone())?);
                batch.expected.push((key, Expected::Content(hash)));
            }
        }
        let changes = self.store().commit(batch)?;
        let removed = changes.iter().flatten().filter(|change| change.is_removal()).count();
        Ok(u64::try_from(removed).unwrap_or(u64::MAX))
    }

    /// Returns all records in the order of their primary keys, as they are now; see [`Rows`] for
    /// sled.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    #[expect(clippy::iter_not_returning_iterator, reason = "the snapshot is taken first, which may fail")]
    pub fn iter(&self) -> Result<Rows<M>, StoreError> {
        self.view.rows(&Scan::default())
    }

    /// Follows the changes of these records in the order of their commits.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn watch(&self, from: WatchFrom) -> Result<Watch<M>, StoreError> {
        self.view.watch(Scan::default(), from)
    }

    /// Returns the number of records, without reading them.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    ///
    /// An expired record counts until it is swept, at most a minute later. A record of a later
    /// version of the model counts, too.
    pub fn len(&self) -> Result<u64, StoreError> {
        self.view.len()
    }

    /// Returns whether there are no records.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(self.len()? == 0)
    }

    fn put_op(&self, record: &M) -> Result<Op, StoreError> {
        self.store().core().put_op(EncodedRecord::of(record)?)
    }

    fn commit(&self, ops: Vec<Op>) -> Result<Vec<Option<Change>>, StoreError> {
        self.store().commit(Batch { ops, ..Batch::default() })
    }

    fn commit_if(&self, ops: Vec<Op>, key: RecordKey, expected: Expected) -> Result<(), StoreError> {
        self.store().commit(Batch { ops, expected: vec![(key, expected)], ..Batch::default() }).map(drop)
    }
}

impl<M: NetabaseModel> fmt::Debug for Tree<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("model", &M::SCHEMA.name).finish_non_exhaustive()
    }
}
