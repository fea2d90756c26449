//! Write transactions over any number of models.

use std::collections::{BTreeMap, HashMap};

use crate::error::{StoreError, WriteError};
use crate::model::schema::{EncodedRecord, NetabaseModel, PrimaryKey, decode_payload};
use crate::store::NetabaseStore;
use crate::version::envelope::{ContentHash, Envelope};
use crate::version::record_key::RecordKey;
use crate::write::apply::Expected;
use crate::write::writer::Batch;

/// A transaction: its writes become visible and durable together, at [`WriteTransaction::commit`].
///
/// A transaction sees its own writes and holds no lock. If another writer has changed a record that
/// it has read by `get` or `insert`, the commit fails with
/// [`WriteError::Conflict`](crate::WriteError::Conflict) and writes nothing. Records that it only
/// writes are not compared, nor are reads of trees and queries. Dropping a transaction discards its
/// writes.
///
/// Reads are of the moment when each is made, not of one moment; the commit succeeds only if all of
/// them still hold. The writes are in memory until then.
///
/// ```
/// # use netabase_store::{NetabaseModel, NetabaseStore, netabase_definition_module};
/// # #[netabase_definition_module(BankDefinition, BankKeys)]
/// # mod bank {
/// #     use netabase_store::NetabaseModel;
/// #     use serde::{Deserialize, Serialize};
/// #     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
/// #     #[netabase(BankDefinition)]
/// #     pub struct Account { #[primary_key] pub owner: String, pub cents: u64 }
/// #     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
/// #     #[netabase(BankDefinition)]
/// #     pub struct Transfer { #[primary_key] pub id: u64, pub cents: u64 }
/// # }
/// # use bank::*;
/// let store = NetabaseStore::in_memory::<BankDefinition>()?;
/// let mut transaction = store.begin_write();
/// transaction.put(&Account { owner: "ada".into(), cents: 70 })?;
/// transaction.put(&Transfer { id: 1, cents: 30 })?;
/// transaction.commit()?;
/// assert_eq!(store.open_tree::<Transfer>()?.len()?, 1);
/// # Ok::<(), netabase_store::StoreError>(())
/// ```
#[derive(Debug)]
#[must_use = "a transaction does nothing unless it is committed"]
pub struct WriteTransaction {
    store: NetabaseStore,
    /// The last write to each record; `None` deletes it. Signed at the commit, so that it comes
    /// after whatever was committed before.
    writes: BTreeMap<RecordKey, Option<EncodedRecord>>,
    /// The content of each record that was read from the store.
    reads: HashMap<RecordKey, Option<ContentHash>>,
}

impl WriteTransaction {
    pub(crate) fn new(store: NetabaseStore) -> Self {
        Self { store, writes: BTreeMap::new(), reads: HashMap::new() }
    }

    /// Stores a record in place of any earlier one with the same primary key.
    pub fn put<M: NetabaseModel>(&mut self, record: &M) -> Result<(), StoreError> {
        // Refuses models of other definitions.
        self.store.model_position::<M>()?;
        let record = EncodedRecord::of(record)?;
        self.writes.insert(self.store.core().check_record(&record)?, Some(record));
        Ok(())
    }

    /// Stores a record whose primary key is free; fails with
    /// [`WriteError::Exists`](crate::WriteError::Exists) if it is not.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn insert<M: NetabaseModel>(&mut self, record: &M) -> Result<(), StoreError> {
        let key = record.primary_key();
        if self.get(&key)?.is_some() {
            return Err(WriteError::Exists { key: RecordKey::of(&key)? }.into());
        }
        self.put(record)
    }

    /// Deletes the record under `key`, if there is one.
    pub fn remove<K: PrimaryKey>(&mut self, key: &K) -> Result<(), StoreError> {
        self.store.model_position::<K::Model>()?;
        self.writes.insert(RecordKey::of(key)?, None);
        Ok(())
    }

    /// Returns the record under `key`, as this transaction would leave it.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn get<K: PrimaryKey>(&mut self, key: &K) -> Result<Option<K::Model>, StoreError> {
        self.store.model_position::<K::Model>()?;
        let key = RecordKey::of(key)?;
        if let Some(written) = self.writes.get(&key) {
            let record = written.as_ref().map(|record| decode_payload(&record.payload));
            return Ok(record.transpose()?);
        }
        let live = self.read(&key)?.filter(|envelope| !envelope.is_tombstone());
        Ok(live.map(|envelope| decode_payload(envelope.payload())).transpose()?)
    }

    /// Makes the writes durable and visible, all of them or none.
    ///
    /// Blocks until the writer has it on the disk; in an async function use `spawn_blocking`, or
    /// the methods of a node.
    ///
    /// Besides [`WriteError::Conflict`](crate::WriteError::Conflict), fails with
    /// [`WriteError::NotUnique`](crate::WriteError::NotUnique) or
    /// [`WriteError::NewerRecord`](crate::WriteError::NewerRecord) where a put of a record alone
    /// would.
    pub fn commit(self) -> Result<(), StoreError> {
        let core = self.store.core();
        let op = |(key, record): (_, Option<EncodedRecord>)| match record {
            Some(record) => core.put_op(record),
            None => core.remove_op(key),
        };
        let ops = self.writes.into_iter().map(op).collect::<Result<_, StoreError>>()?;
        let expected = |(key, hash)| (key, Expected::Content(hash));
        let expected = self.reads.into_iter().map(expected).collect();
        self.store.commit(Batch { ops, expected, ..Batch::default() }).map(drop)
    }

    /// Reads from the store and remembers what was there.
    fn read(&mut self, key: &RecordKey) -> Result<Option<Envelope>, StoreError> {
        let core = self.store.core();
        let current = core.current(key)?;
        let hash = current.as_ref().map(Envelope::content_hash);
        self.reads.entry(key.clone()).or_insert(hash);
        let now = core.options().clock.unix_millis();
        Ok(current.filter(|current| !current.is_expired(now)))
    }
}
