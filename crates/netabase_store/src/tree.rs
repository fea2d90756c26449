//! The typed view of one model's records.

use std::fmt;
use std::marker::PhantomData;

use crate::apply::Op;
use crate::change::Change;
use crate::engine::{Entry, EntryIter, Snapshot};
use crate::envelope::Envelope;
use crate::error::StoreError;
use crate::record_key::RecordKey;
use crate::schema::{EncodedRecord, IndexKeys, NetabaseModel, PrimaryKey, SecondaryKeys, decode_payload};
use crate::store::NetabaseStore;
use crate::tables::ModelTables;
use crate::writer::Batch;

/// The records of one model in a [`NetabaseStore`].
///
/// Cloning is cheap. Writes return when they are durable; reads see the last commit.
#[derive(Clone)]
pub struct Tree<M> {
    pub(crate) store: NetabaseStore,
    pub(crate) model: usize,
    pub(crate) marker: PhantomData<fn() -> M>,
}

impl<M: NetabaseModel> Tree<M> {
    /// Stores a record in place of any earlier one with the same primary key.
    pub fn put(&self, record: &M) -> Result<(), StoreError> {
        let (_, _, op) = self.store.core().put_op(&EncodedRecord::of(record)?)?;
        self.commit(vec![op]).map(drop)
    }

    /// Stores all records, or none of them if one cannot be stored.
    pub fn put_many<'a>(&self, records: impl IntoIterator<Item = &'a M>) -> Result<(), StoreError> {
        let op = |record| Ok(self.store.core().put_op(&EncodedRecord::of(record)?)?.2);
        let ops = records.into_iter().map(op).collect::<Result<Vec<_>, StoreError>>()?;
        self.commit(ops).map(drop)
    }

    /// Returns the record under `key`.
    pub fn get(&self, key: &M::PrimaryKey) -> Result<Option<M>, StoreError> {
        let pending = self.pending(key)?;
        self.reader()?.get(key, pending)
    }

    /// Returns the record under each key, in the order of the keys, from one snapshot.
    pub fn get_many<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a M::PrimaryKey>,
    ) -> Result<Vec<Option<M>>, StoreError> {
        let pending = |key| Ok((key, self.pending(key)?));
        let keys = keys.into_iter().map(pending).collect::<Result<Vec<_>, StoreError>>()?;
        let reader = self.reader()?;
        keys.into_iter().map(|(key, pending)| reader.get(key, pending)).collect()
    }

    /// Returns whether there is a record under `key`.
    pub fn contains(&self, key: &M::PrimaryKey) -> Result<bool, StoreError> {
        let pending = self.pending(key)?;
        Ok(self.reader()?.live(key, pending)?.is_some())
    }

    /// Deletes the record under `key`; returns whether there was one.
    ///
    /// A store with an identity leaves a signed tombstone, so that the deletion can be shared.
    pub fn remove(&self, key: &M::PrimaryKey) -> Result<bool, StoreError> {
        let op = self.store.core().remove_op(RecordKey::of(key)?)?;
        Ok(self.commit(vec![op])?.into_iter().flatten().any(|change| change.is_removal()))
    }

    /// Returns the records with this secondary key, in the order of their primary keys.
    pub fn find(&self, key: impl Into<M::SecondaryKeys>) -> Result<Vec<M>, StoreError> {
        let key = key.into();
        let mut prefix = Vec::new();
        key.encode_key(&mut prefix);
        let reader = self.reader()?;
        let entries = reader.snapshot.prefix(reader.tables.index(key.index())?, &prefix)?;
        let mut records = Vec::new();
        for entry in entries {
            let (entry, _) = entry?;
            let primary = entry.get(prefix.len()..).unwrap_or_default();
            let Some(envelope) = reader.stored(primary)? else { continue };
            let record: M = decode_payload(envelope.payload())?;
            // Without snapshots, or after a version that could not be read, an entry may be stale.
            let mut keys = IndexKeys::default();
            record.encode_index_keys(&mut keys);
            if keys.iter().any(|found| found == (key.index(), prefix.as_slice())) {
                records.push(record);
            }
        }
        Ok(records)
    }

    /// Returns all records in the order of their primary keys, as they are now.
    #[expect(clippy::iter_not_returning_iterator, reason = "the snapshot is taken first, which may fail")]
    pub fn iter(&self) -> Result<Iter<M>, StoreError> {
        let reader = self.reader()?;
        let entries = Some(reader.snapshot.all(&reader.tables.records)?);
        Ok(Iter { entries, now: reader.now, _store: self.store.clone(), marker: PhantomData })
    }

    /// Returns the number of records, without reading them.
    ///
    /// A record whose lifetime is over counts until it is swept, at most a minute later.
    pub fn len(&self) -> Result<u64, StoreError> {
        let reader = self.reader()?;
        reader.snapshot.len(&reader.tables.records)
    }

    /// Returns whether there are no records.
    pub fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(self.len()? == 0)
    }

    fn reader(&self) -> Result<Reader<'_>, StoreError> {
        let core = self.store.core();
        Ok(Reader {
            store: &self.store,
            snapshot: core.engine().snapshot()?,
            tables: core.model(self.model)?,
            now: core.options().clock.unix_millis(),
        })
    }

    /// Returns the version of a record that waits for the disk.
    ///
    /// To be asked before the snapshot is taken, which has what waits no longer.
    fn pending(&self, key: &M::PrimaryKey) -> Result<Option<Envelope>, StoreError> {
        Ok(self.store.core().pending(&RecordKey::of(key)?))
    }

    fn commit(&self, ops: Vec<Op>) -> Result<Vec<Option<Change>>, StoreError> {
        self.store.check_not_in_callback()?;
        for op in &ops {
            self.store.core().show_pending(op);
        }
        self.store.commit(Batch { ops, ..Batch::default() })
    }
}

impl<M: NetabaseModel> fmt::Debug for Tree<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("model", &M::SCHEMA.name).finish_non_exhaustive()
    }
}

/// One model's tables in one snapshot.
struct Reader<'a> {
    store: &'a NetabaseStore,
    snapshot: Snapshot,
    tables: &'a ModelTables,
    now: u64,
}

impl Reader<'_> {
    fn get<K: PrimaryKey>(&self, key: &K, pending: Option<Envelope>) -> Result<Option<K::Model>, StoreError> {
        let envelope = self.live(key, pending)?;
        Ok(envelope.map(|envelope| decode_payload(envelope.payload())).transpose()?)
    }

    /// Returns the newest live version, whether on the disk yet or not.
    fn live<K: PrimaryKey>(
        &self,
        key: &K,
        pending: Option<Envelope>,
    ) -> Result<Option<Envelope>, StoreError> {
        let Some(pending) = pending else { return self.stored(&key.to_key_bytes()) };
        let newest = self.store.core().newest(&self.snapshot, &RecordKey::of(key)?, pending)?;
        Ok(Some(newest).filter(|newest| !newest.is_tombstone() && !newest.is_expired(self.now)))
    }

    /// Returns the live version in the snapshot.
    fn stored(&self, primary: &[u8]) -> Result<Option<Envelope>, StoreError> {
        let bytes = self.snapshot.get(&self.tables.records, primary)?;
        let envelope = bytes.map(|bytes| Envelope::parse(&bytes).map_err(StoreError::Damaged)).transpose()?;
        Ok(envelope.filter(|envelope| !envelope.is_expired(self.now)))
    }
}

/// The records of a model in the order of their primary keys; see [`Tree::iter`].
///
/// It keeps the store open, and ends after an error of the database.
pub struct Iter<M> {
    /// `None` after an error, which some engines would return for ever.
    entries: Option<EntryIter>,
    now: u64,
    _store: NetabaseStore,
    marker: PhantomData<fn() -> M>,
}

impl<M: NetabaseModel> Iter<M> {
    /// Returns the next record that has not expired, from either end.
    fn advance(&mut self, next: impl Fn(&mut EntryIter) -> Option<Entry>) -> Option<Result<M, StoreError>> {
        loop {
            let bytes = match next(self.entries.as_mut()?)? {
                Ok((_, bytes)) => bytes,
                Err(error) => {
                    self.entries = None;
                    return Some(Err(error));
                }
            };
            match Envelope::parse(&bytes) {
                Ok(envelope) if envelope.is_expired(self.now) => {}
                Ok(envelope) => return Some(decode_payload(envelope.payload()).map_err(StoreError::from)),
                Err(error) => return Some(Err(StoreError::Damaged(error))),
            }
        }
    }
}

impl<M: NetabaseModel> Iterator for Iter<M> {
    type Item = Result<M, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance(Iterator::next)
    }
}

impl<M: NetabaseModel> DoubleEndedIterator for Iter<M> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.advance(DoubleEndedIterator::next_back)
    }
}

impl<M> fmt::Debug for Iter<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").finish_non_exhaustive()
    }
}
