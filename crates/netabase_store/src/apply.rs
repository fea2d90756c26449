//! What each write does to the tables, inside the writer's transaction.

use crate::change::{Change, ChangeKind, Origin};
use crate::clock::Timestamp;
use crate::core::Core;
use crate::engine::WriteTables;
use crate::envelope::{Author, Envelope, EnvelopeError};
use crate::error::StoreError;
use crate::record_key::RecordKey;
use crate::schema::IndexKeys;
use crate::tables::{self, Layout, ModelTables, Place};

/// One write.
#[derive(Debug)]
pub(crate) enum Op {
    /// Stores a version, unless a newer one is there.
    Put { key: RecordKey, envelope: Envelope, secondary: IndexKeys, origin: Origin },
    /// Deletes a record without leaving a tombstone, as a store without an identity does.
    Delete { key: RecordKey },
    /// Deletes a record whose lifetime ended at `time`, in milliseconds since the Unix epoch.
    Expire { key: RecordKey, time: u64 },
    /// Sets when a record is to be published next, if it has the version that was published; `None`
    /// takes it off the schedule.
    Schedule { key: RecordKey, published: Option<Published>, due: Option<u64> },
    /// Sets or removes an entry of a table that needs nothing else.
    #[cfg(feature = "libp2p")]
    Set { table: &'static str, key: Vec<u8>, value: Option<Vec<u8>> },
}

/// Which version was published: when it was signed, and by whom.
pub(crate) type Published = (Timestamp, Author);

/// Returns what tells an envelope from the other versions of its record; an unsigned one has nothing.
pub(crate) fn published(envelope: &Envelope) -> Option<Published> {
    envelope.timestamp().zip(envelope.author())
}

impl Op {
    /// About how much memory it takes while it waits.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put { key, envelope, .. } => key.as_bytes().len() + envelope.as_bytes().len(),
            Self::Delete { key } | Self::Expire { key, .. } | Self::Schedule { key, .. } => {
                key.as_bytes().len()
            }
            #[cfg(feature = "libp2p")]
            Self::Set { key, value, .. } => key.len() + value.as_ref().map_or(0, Vec::len),
        }
    }
}

/// What the writes of one transaction need to know.
pub(crate) struct Applier<'a> {
    pub(crate) core: &'a Core,
    pub(crate) layout: &'a Layout,
    /// Whose records are put on the publishing schedule.
    pub(crate) author: Option<Author>,
    /// When they are due first, in milliseconds since the Unix epoch.
    pub(crate) first_due: u64,
    pub(crate) tables: &'a mut dyn WriteTables,
}

impl Applier<'_> {
    /// Applies `op`; returns the change that readers will see, if any.
    ///
    /// A local version that was overtaken by the stored one gives way, or with `resign` is signed again
    /// and comes after it.
    pub(crate) fn apply(&mut self, op: &Op, resign: bool) -> Result<Option<Change>, StoreError> {
        match op {
            Op::Put { key, envelope, secondary, origin } => {
                let current = self.current(key)?;
                let overtaken = envelope.is_signed()
                    && current.as_ref().is_some_and(|current| envelope.cmp_version(current).is_le());
                if !overtaken {
                    return self.put(key, current, envelope, secondary, *origin);
                }
                if !resign {
                    return Ok(None);
                }
                let payload = (!envelope.is_tombstone()).then(|| envelope.payload());
                match self.core.sign(key, current.as_ref(), payload) {
                    Some(again) => self.put(key, current, &again, secondary, *origin),
                    None => Ok(None),
                }
            }
            Op::Delete { key } => {
                let previous = self.take(key)?;
                Ok(previous.map(|previous| removal(key, ChangeKind::Removed, None, previous)))
            }
            Op::Expire { key, time } => self.expire(key, *time),
            Op::Schedule { key, published, due } => self.reschedule(key, *published, *due).map(|()| None),
            #[cfg(feature = "libp2p")]
            Op::Set { table, key, value } => match value {
                Some(value) => self.tables.insert(table, key, value).map(|()| None),
                None => self.tables.remove(table, key).map(|()| None),
            },
        }
    }

    /// Returns the version that is stored, tombstones included.
    ///
    /// One that is damaged is nothing: no write may fail for ever because of what was there before.
    pub(crate) fn current(&mut self, key: &RecordKey) -> Result<Option<Envelope>, StoreError> {
        let Place { table, key: place, .. } = self.layout.place(key);
        let bytes = match self.tables.get(table, place)? {
            Some(bytes) => Some(bytes),
            None => self.tables.get(tables::TOMBSTONES, key.as_bytes())?,
        };
        let damaged =
            |error: &EnvelopeError| tracing::warn!(%key, %error, "a damaged record was passed over");
        Ok(bytes.and_then(|bytes| Envelope::parse(&bytes).inspect_err(damaged).ok()))
    }

    /// Stores a version in place of `current`, which is older.
    fn put(
        &mut self,
        key: &RecordKey,
        current: Option<Envelope>,
        envelope: &Envelope,
        secondary: &IndexKeys,
        origin: Origin,
    ) -> Result<Option<Change>, StoreError> {
        self.replace(key, current.as_ref(), envelope, secondary)?;
        if envelope.author().is_some() && envelope.author() == self.author {
            self.schedule(key, Some(self.first_due))?;
        } else if current.is_some() {
            self.schedule(key, None)?;
        }
        let previous = current.filter(|current| !current.is_tombstone());
        let kind = match (&previous, envelope.is_tombstone()) {
            (None, true) => return Ok(None),
            (Some(_), true) => ChangeKind::Removed,
            (None, false) => ChangeKind::Stored,
            (Some(_), false) => ChangeKind::Updated,
        };
        Ok(Some(Change { key: key.clone(), kind, envelope: Some(envelope.clone()), previous, origin }))
    }

    /// Puts `new` where `old` was, in the record, tombstone, index and expiry tables.
    fn replace(
        &mut self,
        key: &RecordKey,
        old: Option<&Envelope>,
        new: &Envelope,
        secondary: &IndexKeys,
    ) -> Result<(), StoreError> {
        let Place { table, key: place, model } = self.layout.place(key);
        if let Some(old) = old {
            self.remove_expiry(key, old)?;
            if old.is_tombstone() != new.is_tombstone() {
                let table = if old.is_tombstone() { tables::TOMBSTONES } else { table };
                let place = if old.is_tombstone() { key.as_bytes() } else { place };
                self.tables.remove(table, place)?;
            }
        }
        if let Some(model) = model {
            self.reindex(model, place, old, secondary)?;
        }
        if let Some(expires) = new.expires() {
            self.tables.insert(tables::EXPIRY, &tables::time_key(expires, key), &[])?;
        }
        if new.is_tombstone() {
            self.tables.insert(tables::TOMBSTONES, key.as_bytes(), new.as_bytes())
        } else {
            self.tables.insert(table, place, new.as_bytes())
        }
    }

    /// Removes the index entries that only `old` has and adds those that only `new` has.
    fn reindex(
        &mut self,
        model: &ModelTables,
        primary: &[u8],
        old: Option<&Envelope>,
        new: &IndexKeys,
    ) -> Result<(), StoreError> {
        let old = match old.filter(|old| !old.is_tombstone() && !model.indexes.is_empty()) {
            // A record that this program cannot read any more must not stop its replacement.
            Some(old) => model.schema.keys_of(old.payload()).unwrap_or_default().secondary,
            None => IndexKeys::default(),
        };
        for (index, key) in old.iter().filter(|entry| !new.iter().any(|new| new == *entry)) {
            self.tables.remove(model.index(index)?, &[key, primary].concat())?;
        }
        for (index, key) in new.iter().filter(|entry| !old.iter().any(|old| old == *entry)) {
            self.tables.insert(model.index(index)?, &[key, primary].concat(), &[])?;
        }
        Ok(())
    }

    /// Removes every trace of a record; returns it if it was live.
    fn take(&mut self, key: &RecordKey) -> Result<Option<Envelope>, StoreError> {
        let Some(current) = self.current(key)? else { return Ok(None) };
        let Place { table, key: place, model } = self.layout.place(key);
        self.remove_expiry(key, &current)?;
        self.schedule(key, None)?;
        if current.is_tombstone() {
            self.tables.remove(tables::TOMBSTONES, key.as_bytes())?;
            return Ok(None);
        }
        if let Some(model) = model {
            self.reindex(model, place, Some(&current), &IndexKeys::default())?;
        }
        self.tables.remove(table, place)?;
        Ok(Some(current))
    }

    fn expire(&mut self, key: &RecordKey, time: u64) -> Result<Option<Change>, StoreError> {
        // Whatever else is there, the entry goes, or the next sweep would find it again for ever.
        self.tables.remove(tables::EXPIRY, &tables::time_key(time, key))?;
        if self.current(key)?.and_then(|current| current.expires()) != Some(time) {
            return Ok(None);
        }
        let previous = self.take(key)?;
        Ok(previous.map(|previous| removal(key, ChangeKind::Expired, Some(previous.clone()), previous)))
    }

    fn remove_expiry(&mut self, key: &RecordKey, old: &Envelope) -> Result<(), StoreError> {
        match old.expires() {
            Some(expires) => self.tables.remove(tables::EXPIRY, &tables::time_key(expires, key)),
            None => Ok(()),
        }
    }

    /// Schedules a record for a caller who waited: it may have gone, or have another version by now.
    fn reschedule(
        &mut self,
        key: &RecordKey,
        expected: Option<Published>,
        due: Option<u64>,
    ) -> Result<(), StoreError> {
        let current = self.current(key)?;
        if current.as_ref().and_then(published) != expected {
            return Ok(());
        }
        self.schedule(key, due.filter(|_| current.is_some()))
    }

    fn schedule(&mut self, key: &RecordKey, due: Option<u64>) -> Result<(), StoreError> {
        let scheduled = self.tables.get(tables::SCHEDULE, key.as_bytes())?;
        let time = scheduled.as_deref().and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        if time.is_some() && time == due {
            return Ok(());
        }
        if let Some(time) = time {
            self.tables.remove(tables::DUE, &tables::time_key(time, key))?;
        }
        match due {
            Some(due) => {
                self.tables.insert(tables::SCHEDULE, key.as_bytes(), &due.to_be_bytes())?;
                self.tables.insert(tables::DUE, &tables::time_key(due, key), &[])
            }
            None if scheduled.is_some() => self.tables.remove(tables::SCHEDULE, key.as_bytes()),
            None => Ok(()),
        }
    }
}

fn removal(key: &RecordKey, kind: ChangeKind, envelope: Option<Envelope>, previous: Envelope) -> Change {
    Change { key: key.clone(), kind, envelope, previous: Some(previous), origin: Origin::Local }
}
