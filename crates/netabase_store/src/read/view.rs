//! Reading one model's records.

use std::fmt;
use std::marker::PhantomData;

use crate::changes::watch::{Watch, WatchFrom};
use crate::engine::{Entries, Snapshot};
use crate::error::{DamageError, StoreError, ValueError};
use crate::model::key_range::KeySpan;
use crate::model::schema::{IndexKeys, NetabaseModel, PrimaryKey, SecondaryKeys, decode_payload};
use crate::store::NetabaseStore;
use crate::tables::{self, ModelTables};
use crate::version::clock::Timestamp;
use crate::version::envelope::{Author, ContentHash, Envelope, EnvelopeRef};
use crate::version::limits::MAX_PRIMARY_KEY_BYTES;
use crate::version::record_key::{RecordKey, RecordKeyError};

/// A record with the facts of its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord<M> {
    /// The record.
    pub record: M,
    envelope: Envelope,
}

impl<M> StoredRecord<M> {
    /// Returns the hash of this version, for
    /// [`Tree::compare_and_swap`](crate::Tree::compare_and_swap).
    pub fn content_hash(&self) -> ContentHash {
        self.envelope.content_hash()
    }

    /// Returns the author, or `None` in a store without an identity.
    pub fn author(&self) -> Option<Author> {
        self.envelope.author()
    }

    /// Returns who has contributed to it, which are several where it is merged.
    pub fn authors(&self) -> Vec<Author> {
        let parts = self.envelope.contributions().into_iter().filter(|part| !part.is_tombstone());
        parts.filter_map(|part| part.author()).collect()
    }

    /// Returns when it was written, if it is signed.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.envelope.timestamp()
    }

    /// Returns when it expires, in milliseconds since the Unix epoch.
    pub fn expires(&self) -> Option<u64> {
        self.envelope.expires()
    }
}

/// The table, entries and order of a read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scan {
    /// The position of an index; `None` reads the records by primary key.
    pub(crate) index: Option<usize>,
    pub(crate) span: KeySpan,
    pub(crate) reverse: bool,
    pub(crate) limit: Option<u64>,
}

/// One model's records, as they are now or as they were when a snapshot was taken.
pub(crate) struct View<M> {
    pub(crate) store: NetabaseStore,
    pub(crate) model: usize,
    pinned: Option<Pinned>,
    marker: PhantomData<fn() -> M>,
}

/// A moment that a view is held at.
#[derive(Debug, Clone)]
pub(crate) struct Pinned {
    pub(crate) snapshot: Snapshot,
    /// In milliseconds since the Unix epoch.
    pub(crate) now: u64,
}

impl<M> Clone for View<M> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            model: self.model,
            pinned: self.pinned.clone(),
            marker: PhantomData,
        }
    }
}

impl<M: NetabaseModel> View<M> {
    pub(crate) fn new(store: NetabaseStore, model: usize, pinned: Option<Pinned>) -> Self {
        Self { store, model, pinned, marker: PhantomData }
    }

    pub(crate) fn get(&self, key: &M::PrimaryKey) -> Result<Option<M>, StoreError> {
        let pending = self.pending(key)?;
        self.reader()?.get(key, pending)
    }

    pub(crate) fn get_many<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a M::PrimaryKey>,
    ) -> Result<Vec<Option<M>>, StoreError> {
        let pending = |key| Ok((key, self.pending(key)?));
        let keys = keys.into_iter().map(pending).collect::<Result<Vec<_>, StoreError>>()?;
        let reader = self.reader()?;
        keys.into_iter().map(|(key, pending)| reader.get(key, pending)).collect()
    }

    pub(crate) fn entry(&self, key: &M::PrimaryKey) -> Result<Option<StoredRecord<M>>, StoreError> {
        let pending = self.pending(key)?;
        let Some(envelope) = self.reader()?.live::<M>(key, pending)? else { return Ok(None) };
        Ok(Some(StoredRecord { record: decode_payload(envelope.payload())?, envelope }))
    }

    pub(crate) fn contains(&self, key: &M::PrimaryKey) -> Result<bool, StoreError> {
        let pending = self.pending(key)?;
        let reader = self.reader()?;
        if pending.is_some() {
            return Ok(reader.live::<M>(key, pending)?.is_some());
        }
        let expired =
            |bytes: &[u8]| EnvelopeRef::parse(bytes).map(|envelope| envelope.is_expired(reader.now));
        let expired = reader.snapshot.get_with(&reader.tables.records, &key_bytes(key)?, expired)?;
        Ok(!expired.transpose().map_err(DamageError::Record)?.unwrap_or(true))
    }

    pub(crate) fn len(&self) -> Result<u64, StoreError> {
        self.settle()?;
        let reader = self.reader()?;
        reader.snapshot.len(&reader.tables.records)
    }

    pub(crate) fn find(&self, key: impl Into<M::SecondaryKeys>) -> Result<Vec<M>, StoreError> {
        let key = key.into();
        let mut start = Vec::new();
        key.encode_key(&mut start);
        let span = KeySpan::prefix(start);
        self.rows(&Scan { index: Some(key.index()), span, ..Scan::default() })?.collect()
    }

    pub(crate) fn rows(&self, scan: &Scan) -> Result<Rows<M>, StoreError> {
        self.settle()?;
        // Asked before the snapshot is taken, too: the indexes may be built again in between.
        let was_stale = self.store.core().model(self.model)?.may_be_stale();
        let reader = self.reader()?;
        let entries = reader.entries(scan)?;
        let may_be_stale = match self.pinned {
            Some(_) => reader.tables.may_have_been_stale(),
            None => was_stale || reader.tables.may_be_stale(),
        };
        let verify = scan.index.is_some() && (may_be_stale || !self.store.core().engine().has_snapshots());
        Ok(Rows {
            entries: Some(entries),
            reading: Reading {
                store: self.store.clone(),
                snapshot: reader.snapshot,
                now: reader.now,
                model: self.model,
                index: scan.index,
                verify,
                hash: None,
                with_hash: false,
            },
            reverse: scan.reverse,
            left: scan.limit.unwrap_or(u64::MAX),
            last: Vec::new(),
            keep_last: false,
            skipped: 0,
            marker: PhantomData,
        })
    }

    pub(crate) fn watch(&self, scan: Scan, from: WatchFrom) -> Result<Watch<M>, StoreError> {
        Ok(Watch::new(self.store.changes(from)?, scan))
    }

    pub(crate) fn count(&self, scan: &Scan) -> Result<u64, StoreError> {
        self.settle()?;
        let reader = self.reader()?;
        let limit = scan.limit.unwrap_or(u64::MAX);
        if scan.index.is_none() && scan.span == KeySpan::all() {
            return Ok(reader.snapshot.len(&reader.tables.records)?.min(limit));
        }
        let (mut entries, mut count) = (reader.entries(scan)?, 0);
        while count < limit
            && let Some(entry) = entries.visit(true, |_, _| ())
        {
            entry?;
            count += 1;
        }
        Ok(count)
    }

    /// Has the versions committed that a read of a single record shows, unless the view is a
    /// snapshot.
    fn settle(&self) -> Result<(), StoreError> {
        if self.pinned.is_none() {
            let core = self.store.core();
            core.settle(core.model(self.model)?);
        }
        Ok(())
    }

    fn reader(&self) -> Result<Reader<'_>, StoreError> {
        let core = self.store.core();
        let tables = core.model(self.model)?;
        let pinned = match &self.pinned {
            Some(pinned) => pinned.clone(),
            None => Pinned { snapshot: core.engine().snapshot()?, now: core.options().clock.unix_millis() },
        };
        Ok(Reader { store: &self.store, snapshot: pinned.snapshot, tables, now: pinned.now })
    }

    /// Returns the version of a record that waits for the disk.
    ///
    /// To be asked before the snapshot is taken, which has what waits no longer.
    fn pending(&self, key: &M::PrimaryKey) -> Result<Option<Envelope>, StoreError> {
        let core = self.store.core();
        if self.pinned.is_some() || !core.has_pending() {
            return Ok(None);
        }
        Ok(core.pending(&RecordKey::of(key)?))
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
    fn get<M: NetabaseModel>(
        &self,
        key: &M::PrimaryKey,
        pending: Option<Envelope>,
    ) -> Result<Option<M>, StoreError> {
        if pending.is_some() {
            let envelope = self.live::<M>(key, pending)?;
            return Ok(envelope.map(|envelope| decode_payload(envelope.payload())).transpose()?);
        }
        let mut record = Ok(None);
        let decode = |bytes: &[u8]| record = decode_live(bytes, self.now);
        self.snapshot.get_with(&self.tables.records, &key_bytes(key)?, decode)?;
        record
    }

    /// Returns the newest live version, whether on the disk yet or not.
    fn live<M: NetabaseModel>(
        &self,
        key: &M::PrimaryKey,
        pending: Option<Envelope>,
    ) -> Result<Option<Envelope>, StoreError> {
        let newest = if let Some(pending) = pending {
            Some(self.store.core().newest(&self.snapshot, &RecordKey::of(key)?, pending)?)
        } else {
            let stored = self.snapshot.get_with(&self.tables.records, &key_bytes(key)?, Envelope::parse)?;
            stored.transpose().map_err(DamageError::Record)?
        };
        Ok(newest.filter(|newest| !newest.is_tombstone() && !newest.is_expired(self.now)))
    }

    fn entries(&self, scan: &Scan) -> Result<Entries, StoreError> {
        let table = match scan.index {
            Some(index) => self.tables.index(index)?,
            None => &self.tables.records,
        };
        self.snapshot.range(table, (&scan.span).into())
    }
}

/// Encodes a primary key that can name a record.
fn key_bytes<K: PrimaryKey>(key: &K) -> Result<Vec<u8>, StoreError> {
    let bytes = key.to_key_bytes();
    let len = bytes.len();
    if len > MAX_PRIMARY_KEY_BYTES { Err(RecordKeyError::TooLong { len }.into()) } else { Ok(bytes) }
}

/// Decodes a record from the bytes of its envelope, unless its lifetime is over.
fn decode_live<M: NetabaseModel>(bytes: &[u8], now: u64) -> Result<Option<M>, StoreError> {
    let envelope = EnvelopeRef::parse(bytes).map_err(DamageError::Record)?;
    if envelope.is_expired(now) {
        return Ok(None);
    }
    Ok(Some(decode_payload(envelope.payload())?))
}

/// The records that a query finds, in its order.
///
/// The records are as they were when the query was made. On sled, which has no snapshots, each
/// record is as it is when it is read, and a record whose secondary key changes meanwhile may be
/// found under both keys or under neither. The iterator keeps the store open, and ends after an
/// error of the database. Records of a later version of the model than this program knows are
/// skipped and counted.
pub struct Rows<M> {
    /// `None` after the end, or after an error, which some engines would return for ever.
    entries: Option<Entries>,
    reading: Reading,
    reverse: bool,
    left: u64,
    /// The key of the last entry that was looked at, where that is asked for.
    last: Vec<u8>,
    keep_last: bool,
    skipped: u64,
    marker: PhantomData<fn() -> M>,
}

/// The state with which entries become records.
struct Reading {
    store: NetabaseStore,
    snapshot: Snapshot,
    now: u64,
    model: usize,
    /// The position of the index that the entries are of.
    index: Option<usize>,
    /// Whether an index entry may belong to another version of its record.
    verify: bool,
    /// Names the version of the last record, where that is asked for.
    hash: Option<ContentHash>,
    with_hash: bool,
}

impl<M: NetabaseModel> Rows<M> {
    /// Returns how many records were skipped so far because a later version of the program wrote
    /// them.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Returns the rows, which remember where they are for [`Rows::last_key`].
    pub(crate) fn keeping_last(mut self) -> Self {
        self.keep_last = true;
        self
    }

    /// Returns the key of the last entry that was looked at, if there was one.
    pub(crate) fn last_key(&self) -> Option<&[u8]> {
        Some(self.last.as_slice()).filter(|last| !last.is_empty())
    }

    /// Returns whether there are entries that were not looked at.
    pub(crate) fn has_more(&mut self) -> Result<bool, StoreError> {
        let Some(entries) = &mut self.entries else { return Ok(false) };
        entries.visit(!self.reverse, |_, _| ()).transpose().map(|next| next.is_some())
    }

    /// Returns the next record in the order of the query, or in the opposite one from the back.
    fn advance(&mut self, from_front: bool) -> Option<Result<M, StoreError>> {
        while self.left > 0 {
            let Self { entries, reading, last, keep_last, .. } = self;
            // Filled where the bytes are: records are too large to be handed from layer to layer.
            let mut record = Ok(None);
            let visited = entries.as_mut()?.visit(from_front != self.reverse, |key, value| {
                if *keep_last {
                    last.clear();
                    last.extend_from_slice(key);
                }
                record = reading.record(key, value);
            });
            let Some(Ok(())) = visited else {
                let error = visited.and_then(Result::err);
                // The entries after a damaged one are read.
                if !error.as_ref().is_some_and(StoreError::is_of_entry) {
                    self.entries = None;
                }
                return error.map(Err);
            };
            match record {
                Ok(None) => {}
                Err(StoreError::Value(ValueError::Version { found, known })) if found > known => {
                    self.skipped += 1;
                }
                Ok(Some(record)) => {
                    self.left -= 1;
                    return Some(Ok(record));
                }
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }

    /// Returns the rows with the name of each one's version, for [`Rows::next_version`].
    pub(crate) fn with_versions(mut self) -> Self {
        self.reading.with_hash = true;
        self
    }

    /// Returns the next record and the name of its version.
    pub(crate) fn next_version(&mut self) -> Option<Result<(M, Option<ContentHash>), StoreError>> {
        let record = self.advance(true)?;
        Some(record.map(|record| (record, self.reading.hash)))
    }
}

impl Reading {
    /// Returns the record of an entry, or `None` if it no longer exists.
    fn record<M: NetabaseModel>(&mut self, key: &[u8], value: &[u8]) -> Result<Option<M>, StoreError> {
        let (now, with_hash) = (self.now, self.with_hash);
        let read = |bytes: &[u8]| (with_hash.then(|| ContentHash::of(bytes)), decode_live::<M>(bytes, now));
        let Some(index) = self.index else {
            let (hash, record) = read(value);
            self.hash = hash;
            return record;
        };
        let tables = self.store.core().model(self.model)?;
        let damaged = || {
            StoreError::Damage(DamageError::Table {
                table: tables.index(index).map(|table| table.as_str().to_owned()).unwrap_or_default(),
            })
        };
        let (key, primary) = tables::split_entry(key, value).ok_or_else(damaged)?;
        let (mut hash, mut record) = (None, Ok(None));
        self.snapshot.get_with(&tables.records, primary, |bytes| (hash, record) = read(bytes))?;
        let Some(record) = record? else { return Ok(None) };
        if self.verify && !has_index_key::<M>(&record, index, key) {
            return Ok(None);
        }
        self.hash = hash;
        Ok(Some(record))
    }
}

fn has_index_key<M: NetabaseModel>(record: &M, index: usize, key: &[u8]) -> bool {
    let mut keys = IndexKeys::default();
    record.encode_index_keys(&mut keys);
    keys.iter().any(|found| found == (index, key))
}

impl<M: NetabaseModel> Iterator for Rows<M> {
    type Item = Result<M, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance(true)
    }
}

/// The limit of the query counts the records from both ends together.
impl<M: NetabaseModel> DoubleEndedIterator for Rows<M> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.advance(false)
    }
}

impl<M> fmt::Debug for Rows<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("left", &self.left)
            .field("skipped", &self.skipped)
            .finish_non_exhaustive()
    }
}
