//! Applies writes to the tables, inside the writer's transaction.

use crate::changes::change::{Change, ChangeKind, Origin};
use crate::core::Core;
use crate::engine::{Replaced, TableName, WriteTables, unless_damaged};
use crate::error::{DamageError, StoreError, WriteError};
use crate::model::schema::{IndexKeys, payload_version};
use crate::replica::sync_set::SyncChanges;
use crate::replica::usage::{Usage, UsageChanges};
use crate::tables::{self, Layout, ModelTables, Place, entry_value};
use crate::version::clock::Timestamp;
use crate::version::envelope::{Author, ContentHash, Envelope, EnvelopeError};
use crate::version::record_key::RecordKey;
use crate::write::index_changes::IndexChanges;
use crate::write::writer::millis;

mod blob_refs;
mod deletion;
mod lease;
mod redate;
mod schedule;
mod track;
mod unique;

pub(crate) use deletion::UNSENT;

/// One write.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// Stores a version, unless a newer one is there.
    Put { key: RecordKey, envelope: Envelope, secondary: IndexKeys, origin: Origin, lease: Lease },
    /// Deletes a record without leaving a tombstone, as a store without an identity does.
    Delete { key: RecordKey },
    /// Deletes a record whose lifetime ended at `time`, in milliseconds since the Unix epoch; if an
    /// earlier version with a later end may still exist (`outlived`), the version is kept.
    Expire { key: RecordKey, time: u64, outlived: bool },
    /// Deletes a tombstone that was written at `time`, in milliseconds since the Unix epoch.
    Forget { key: RecordKey, time: u64 },
    /// Records that a peer has a tombstone of this author at `time`, in milliseconds since the Unix
    /// epoch.
    Heard { key: RecordKey, published: Option<Published>, time: u64 },
    /// Deletes this store's copy of another author's record or tombstone.
    Evict { key: RecordKey },
    /// Stores a renewal with its lifetime in milliseconds, or ends a lease, if the record still has
    /// the version that was renewed.
    Renew { key: RecordKey, replaced: Option<Published>, renewal: Option<(Envelope, u64)> },
    /// Sets when a record is to be published next, if it has the version that was published; `None`
    /// takes it off the schedule.
    Schedule { key: RecordKey, published: Option<Published>, due: Option<u64> },
    /// Signs a version of this author again that is from the future and that every peer has
    /// refused, if the record still has it.
    Redate { key: RecordKey, refused: Option<Published> },
    /// Removes a record, or those of its contributions, that the member list does not allow any
    /// more or whose author is refused, or is `author`; leaves no tombstone.
    Exclude { key: RecordKey, author: Option<Author> },
    /// Sets or removes an entry of a table that needs nothing else.
    Set { table: &'static TableName, key: Vec<u8>, value: Option<Vec<u8>> },
}

/// Whether a version is to be renewed by its author.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Lease {
    /// No.
    #[default]
    None,
    /// The version is a lease of so many milliseconds.
    For(u64),
    /// The version keeps the lease of the version that it replaces, with its end.
    Kept,
}

/// A condition of a batch, without which it fails as a whole.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    /// The record has exactly this envelope, or with `None` no envelope.
    Content(Option<ContentHash>),
    /// There is no live record.
    Absent,
}

/// The identity of a published version: its timestamp and author.
pub(crate) type Published = (Timestamp, Author);

/// Returns what tells an envelope from the other versions of its record that `author` publishes; an
/// unsigned one has nothing.
pub(crate) fn published(envelope: &Envelope, author: Option<Author>) -> Option<Published> {
    if envelope.is_bundle() {
        let ours = envelope.contribution_of(author?)?;
        return ours.timestamp().zip(author);
    }
    envelope.timestamp().zip(envelope.author())
}

impl Op {
    /// Returns the bytes of the key that it writes to.
    fn key_bytes(&self) -> &[u8] {
        match self {
            Self::Put { key, .. }
            | Self::Delete { key }
            | Self::Expire { key, .. }
            | Self::Forget { key, .. }
            | Self::Heard { key, .. }
            | Self::Evict { key }
            | Self::Renew { key, .. }
            | Self::Schedule { key, .. }
            | Self::Redate { key, .. }
            | Self::Exclude { key, .. } => key.as_bytes(),
            Self::Set { key, .. } => key,
        }
    }

    /// About how much memory it takes while it waits.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put { key, envelope, secondary, .. } => {
                let secondary = secondary.iter().map(|(_, key)| key.len()).sum::<usize>();
                key.as_bytes().len() + envelope.as_bytes().len() + secondary
            }
            Self::Renew { key, renewal, .. } => {
                let renewal = renewal.as_ref().map_or(0, |(envelope, _)| envelope.as_bytes().len());
                key.as_bytes().len() + renewal
            }
            Self::Delete { key }
            | Self::Expire { key, .. }
            | Self::Forget { key, .. }
            | Self::Heard { key, .. }
            | Self::Evict { key }
            | Self::Schedule { key, .. }
            | Self::Redate { key, .. }
            | Self::Exclude { key, .. } => key.as_bytes().len(),
            Self::Set { key, value, .. } => key.len() + value.as_ref().map_or(0, Vec::len),
        }
    }
}

/// A batch that cannot be applied, or a database that failed.
pub(crate) enum ApplyError {
    /// The batch is to be undone; others are not concerned.
    Batch(StoreError),
    /// Nothing more can be written.
    Store(StoreError),
}

impl From<StoreError> for ApplyError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Applies the writes of one transaction.
pub(crate) struct Applier<'a> {
    core: &'a Core,
    layout: &'a Layout,
    /// The author whose records are put on the publishing schedule.
    author: Option<Author>,
    /// The first due time, in milliseconds since the Unix epoch.
    first_due: u64,
    tables: &'a mut dyn WriteTables,
    indexes: IndexChanges<'a>,
    usage: UsageChanges,
    sync: SyncChanges,
    /// The entries to restore, from the back, to undo the batch; kept only if the batch can fail
    /// after its first write.
    undo: Option<Vec<Undo<'a>>>,
    /// Whether there are any tombstones, and any scheduled records, as far as it is known.
    has_tombstones: Option<bool>,
    scheduled: Option<bool>,
}

/// The entry that a new version has replaced.
#[derive(Clone, Copy)]
enum Old<'a> {
    Absent,
    Version(&'a Envelope),
    Unreadable,
}

impl<'a> Old<'a> {
    fn of(version: Option<&'a Envelope>) -> Self {
        version.map_or(Self::Unreadable, Self::Version)
    }
}

/// An entry before it was changed.
struct Undo<'a> {
    table: &'a TableName,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl<'a> Applier<'a> {
    pub(crate) fn new(core: &'a Core, tables: &'a mut dyn WriteTables) -> Self {
        Self {
            core,
            layout: core.layout(),
            author: core.author(),
            first_due: 0,
            tables,
            indexes: IndexChanges::default(),
            usage: UsageChanges::default(),
            sync: SyncChanges::default(),
            undo: None,
            has_tombstones: None,
            scheduled: None,
        }
    }

    /// Sets the first due time of this author's records in the next batch.
    pub(crate) fn set_first_due(&mut self, first_due: u64) {
        self.first_due = first_due;
    }

    /// Applies a batch, or nothing of it.
    pub(crate) fn apply_batch(
        &mut self,
        ops: &[Op],
        expected: &[(RecordKey, Expected)],
        resign: bool,
    ) -> Result<Vec<Option<Change>>, ApplyError> {
        for (key, expected) in expected {
            self.check(key, expected)?;
        }
        ops.iter().try_for_each(|op| self.check_member(op))?;
        self.undo = (ops.len() > 1 && ops.iter().any(|op| self.may_fail(op))).then(Vec::new);
        let marks = (self.indexes.mark(), self.usage.mark(), self.sync.mark());
        let changes = self.apply_all(ops, resign);
        if let (Err(ApplyError::Batch(_)), Some(undo)) = (&changes, self.undo.take()) {
            self.restore(undo)?;
            self.indexes.forget_since(marks.0);
            self.usage.forget_since(marks.1);
            self.sync.forget_since(marks.2);
        }
        changes
    }

    fn apply_all(&mut self, ops: &[Op], resign: bool) -> Result<Vec<Option<Change>>, ApplyError> {
        // The size from which a batch is applied in the order of its keys.
        const SORTED_OPS: usize = 64;
        if let [op] = ops {
            // Asked first, there is nothing to undo.
            self.check_unique(op, false)?;
            return Ok(vec![self.apply(op, resign)?]);
        }
        let changes = if ops.len() < SORTED_OPS {
            ops.iter().map(|op| self.apply(op, resign)).collect::<Result<_, _>>()?
        } else {
            self.apply_sorted(ops, resign)?
        };
        // Asked last, a value may pass from one record to another whichever of them is written
        // first.
        ops.iter().try_for_each(|op| self.check_unique(op, true))?;
        Ok(changes)
    }

    /// Applies writes in the order of their keys, in which a B-tree takes them faster; returns the
    /// changes in the order of the writes.
    fn apply_sorted(&mut self, ops: &[Op], resign: bool) -> Result<Vec<Option<Change>>, ApplyError> {
        let mut order = ops.iter().enumerate().collect::<Vec<_>>();
        // The sort is stable: writes to the same record keep their order.
        order.sort_by_key(|(_, op)| op.key_bytes());
        let mut changes = vec![None; ops.len()];
        for (position, op) in order {
            let change = self.apply(op, resign)?;
            if let Some(slot) = changes.get_mut(position) {
                *slot = change;
            }
        }
        Ok(changes)
    }

    /// Writes what was gathered; to be called once, after the last batch. Returns how much all
    /// signed records take if that has changed.
    pub(crate) fn finish(mut self) -> Result<Option<Usage>, StoreError> {
        self.indexes.flush(self.tables)?;
        self.sync.flush(self.layout, self.tables)?;
        self.usage.flush(self.tables)
    }

    fn check(&mut self, key: &RecordKey, expected: &Expected) -> Result<(), ApplyError> {
        let current = self.current(key)?;
        let holds = match expected {
            Expected::Content(hash) => current.map(|current| current.content_hash()) == *hash,
            Expected::Absent => {
                let now = self.core.options().clock.unix_millis();
                current.is_none_or(|current| current.is_tombstone() || current.is_expired(now))
            }
        };
        match expected {
            _ if holds => Ok(()),
            Expected::Content(_) => {
                Err(ApplyError::Batch(StoreError::Write(WriteError::Conflict { key: key.clone() })))
            }
            Expected::Absent => {
                Err(ApplyError::Batch(StoreError::Write(WriteError::Exists { key: key.clone() })))
            }
        }
    }

    /// Refuses a write of this program that the member list does not allow, whatever it did when it
    /// was signed.
    fn check_member(&self, op: &Op) -> Result<(), ApplyError> {
        let Op::Put { key, envelope, origin: Origin::Local, .. } = op else { return Ok(()) };
        self.core.check_local_member(key, envelope).map_err(ApplyError::Batch)
    }

    /// Returns whether the write may be refused after writes before it in the same batch were
    /// applied.
    fn may_fail(&self, op: &Op) -> bool {
        let Op::Put { key, origin: Origin::Local, .. } = op else { return false };
        self.layout.place(key).model.is_some_and(ModelTables::may_refuse)
    }

    /// Applies `op`; returns the change that readers will see, if any.
    ///
    /// A local version that was overtaken by the stored one gives way, or with `resign` is signed
    /// again and comes after it.
    fn apply(&mut self, op: &Op, resign: bool) -> Result<Option<Change>, ApplyError> {
        match op {
            Op::Put { key, envelope, secondary, origin, lease } => {
                match origin {
                    Origin::Local => self.check_newer(key, envelope)?,
                    // A newer list came after the version was admitted.
                    Origin::Network if self.core.is_excluded(key, envelope.view()) => return Ok(None),
                    Origin::Network => {}
                }
                let change = self.put(key, envelope, secondary, *origin, resign)?;
                // Other authors' contributions to a merged record leave this store's own unchanged.
                let is_theirs = *origin == Origin::Network && envelope.is_bundle();
                if let Some(change) = change.as_ref().filter(|_| !is_theirs) {
                    self.set_lease(key, change.previous.as_ref(), change.envelope.as_ref(), *lease)?;
                }
                Ok(change)
            }
            Op::Renew { key, replaced, renewal } => {
                self.renew(key, *replaced, renewal.as_ref())?;
                Ok(None)
            }
            Op::Delete { key } => {
                let previous = self.take(key)?;
                Ok(previous.map(|previous| removal(key, ChangeKind::Removed, None, previous)))
            }
            Op::Expire { key, time, outlived } => Ok(self.expire(key, *time, *outlived)?),
            Op::Forget { key, time } => {
                self.forget(key, *time)?;
                Ok(None)
            }
            Op::Heard { key, published, time } => {
                self.note_heard(key, *published, *time)?;
                Ok(None)
            }
            Op::Evict { key } => Ok(self.evict(key)?),
            Op::Schedule { key, published, due } => {
                self.reschedule(key, *published, *due)?;
                Ok(None)
            }
            Op::Redate { key, refused } => Ok(self.redate(key, *refused)?),
            Op::Exclude { key, author } => Ok(self.exclude(key, *author)?),
            Op::Set { table, key, value } => {
                match value {
                    Some(value) => self.insert(table, key, value)?,
                    None => self.remove(table, key)?,
                }
                Ok(None)
            }
        }
    }

    /// Refuses a write of this program over a record of a later version of the model.
    fn check_newer(&mut self, key: &RecordKey, envelope: &Envelope) -> Result<(), ApplyError> {
        let Some(model) = self.layout.place(key).model else { return Ok(()) };
        if envelope.is_tombstone() || !model.may_hold_newer() {
            return Ok(());
        }
        let Some(mut current) = self.current(key)? else { return Ok(()) };
        if current.is_bundle() {
            // Other authors' contributions stay.
            let ours = self.author.and_then(|author| current.contribution_of(author));
            let Some(ours) = ours else { return Ok(()) };
            current = ours;
        }
        let (found, known) = (payload_version(current.payload()).unwrap_or_default(), model.schema.version);
        if !current.is_tombstone() && found > known {
            return Err(ApplyError::Batch(StoreError::Write(WriteError::NewerRecord {
                key: key.clone(),
                found,
                known,
            })));
        }
        Ok(())
    }

    /// Returns the version that is stored, tombstones included.
    ///
    /// A damaged version counts as none: no write may fail because of earlier damage.
    fn current(&mut self, key: &RecordKey) -> Result<Option<Envelope>, StoreError> {
        let Place { table, key: place, .. } = self.layout.place(key);
        match self.replaced(table, place)? {
            Replaced::Nothing => self.tombstone(key),
            there => Ok(parse(key, &there)),
        }
    }

    /// Returns what is stored, damaged or not.
    fn replaced(&mut self, table: &TableName, key: &[u8]) -> Result<Replaced, StoreError> {
        match self.tables.get(table, key) {
            Ok(found) => Ok(found.map_or(Replaced::Nothing, Replaced::Value)),
            Err(StoreError::Damage(DamageError::Entry { .. })) => Ok(Replaced::Damaged),
            Err(error) => Err(error),
        }
    }

    fn tombstone(&mut self, key: &RecordKey) -> Result<Option<Envelope>, StoreError> {
        let has_tombstones = match self.has_tombstones {
            Some(has_tombstones) => has_tombstones,
            None => *self.has_tombstones.insert(self.tables.len(&tables::TOMBSTONES)? > 0),
        };
        if !has_tombstones {
            return Ok(None);
        }
        Ok(parse(key, &self.replaced(&tables::TOMBSTONES, key.as_bytes())?))
    }

    /// Stores a version, unless what is there is newer.
    fn put(
        &mut self,
        key: &RecordKey,
        envelope: &Envelope,
        secondary: &IndexKeys,
        origin: Origin,
        resign: bool,
    ) -> Result<Option<Change>, StoreError> {
        let joined = if envelope.is_bundle() {
            let Some(joined) = self.join(key, envelope, resign)? else { return Ok(None) };
            Some(joined)
        } else {
            None
        };
        let (envelope, secondary) =
            joined.as_ref().map_or((envelope, secondary), |(joined, keys)| (joined, keys));
        if envelope.is_tombstone() {
            return self.put_tombstone(key, envelope, origin, resign);
        }
        if self.comes_expired(envelope, origin) {
            let Place { table, key: place, .. } = self.layout.place(key);
            let ends = self.tables.get(table, place)?.is_some();
            return if ends { self.put_tombstone(key, envelope, origin, resign) } else { Ok(None) };
        }
        let Place { table, key: place, model } = self.layout.place(key);
        // Most versions are newer than what they replace, so one walk down the tree does for both.
        let replaced = self.replace(table, place, envelope.as_bytes())?;
        let current = match &replaced {
            Replaced::Nothing => self.tombstone(key)?,
            there => parse(key, there),
        };
        let is_new = replaced == Replaced::Nothing;
        let mut stored = envelope.clone();
        if is_overtaken(envelope, current.as_ref()) {
            let Some(again) = self.sign_again(key, current.as_ref(), envelope, resign) else {
                match &replaced {
                    Replaced::Value(bytes) => self.insert(table, place, bytes)?,
                    Replaced::Nothing | Replaced::Damaged => self.remove(table, place)?,
                }
                return Ok(None);
            };
            self.insert(table, place, again.as_bytes())?;
            stored = again;
        }
        // Nothing has looked yet at what an unsigned version replaces.
        let replaced = current.as_ref().filter(|_| origin == Origin::Local && !stored.is_signed());
        let carried = replaced
            .zip(model)
            .and_then(|(current, model)| model.schema.carried(current.payload(), stored.payload()));
        if let Some(carried) = carried {
            stored = Envelope::unsigned(&carried);
            self.insert(table, place, stored.as_bytes())?;
        }
        let outlived = self.is_outlived(key, current.as_ref(), &stored, is_new)?;
        if let Some(current) = &current {
            self.remove_expiry(key, current)?;
            if is_new {
                self.remove_tombstone(key, current)?;
            }
        }
        if let Some(model) = model {
            let old = if is_new { Old::Absent } else { Old::of(current.as_ref()) };
            self.reindex(model, place, old, secondary)?;
            if origin == Origin::Network && !model.may_hold_newer() && model.has_newer(&stored) {
                self.insert(&tables::META, &tables::newer_key(&model.marked), &[])?;
                model.note_newer();
            }
        }
        if let Some(expires) = stored.expires() {
            let value = if outlived { tables::OUTLIVED } else { &[] };
            self.insert(&tables::EXPIRY, &tables::time_key(expires, key), value)?;
        }
        let before = match &current {
            None if is_new => Old::Absent,
            current => Old::of(current.as_ref()),
        };
        self.track(key, before, Some(&stored))?;
        self.schedule_version(key, current.as_ref(), &stored)?;
        let previous = current.filter(|_| !is_new);
        let kind = if previous.is_some() { ChangeKind::Updated } else { ChangeKind::Stored };
        Ok(Some(Change { key: key.clone(), kind, envelope: Some(stored), previous, origin }))
    }

    /// Joins a bundle to what is there and merges it; `None` if it adds nothing.
    fn join(
        &mut self,
        key: &RecordKey,
        bundle: &Envelope,
        resign: bool,
    ) -> Result<Option<(Envelope, IndexKeys)>, StoreError> {
        let Some(current) = self.current(key)? else {
            return Ok(Some(self.core.merged(key, bundle)));
        };
        // A write of this program comes after what it did not see.
        let is_late = bundle.view().moment() <= current.view().moment();
        let again = if is_late { self.sign_again(key, Some(&current), bundle, resign) } else { None };
        let bundle = again.as_ref().unwrap_or(bundle);
        Ok(bundle.adds_to(&current).then(|| self.core.merged(key, &current.join(bundle))))
    }

    /// Stores a tombstone, or a peer's version that has expired and ends an earlier one, unless
    /// what is there is newer.
    fn put_tombstone(
        &mut self,
        key: &RecordKey,
        tombstone: &Envelope,
        origin: Origin,
        resign: bool,
    ) -> Result<Option<Change>, StoreError> {
        let Place { table, key: place, model } = self.layout.place(key);
        let live = self.replaced(table, place)?;
        let is_live = live != Replaced::Nothing;
        let current = if is_live { parse(key, &live) } else { self.tombstone(key)? };
        // A removal that no peer has yet leaves no tombstone if there is nothing to remove.
        if resign && origin == Origin::Local {
            let now = self.core.options().clock.unix_millis();
            if !is_live || current.as_ref().is_some_and(|current| !current.is_live(now)) {
                return Ok(None);
            }
        }
        let mut stored = tombstone.clone();
        if is_overtaken(tombstone, current.as_ref()) {
            match self.sign_again(key, current.as_ref(), tombstone, resign) {
                Some(again) => stored = again,
                None => return Ok(None),
            }
        }
        if let Some(current) = &current {
            self.remove_expiry(key, current)?;
        }
        if is_live {
            self.remove(table, place)?;
            if let Some(model) = model {
                self.reindex(model, place, Old::of(current.as_ref()), &IndexKeys::default())?;
            }
        }
        let expired = current.as_ref().filter(|current| !is_live && !current.is_tombstone());
        if let Some(end) = expired.and_then(Envelope::counts_as_tombstone_from) {
            self.indexes.push_tombstone_time(end, key, false);
        }
        self.insert(&tables::TOMBSTONES, key.as_bytes(), stored.as_bytes())?;
        if let Some(time) = stored.counts_as_tombstone_from().filter(|_| !stored.is_tombstone()) {
            self.indexes.push_tombstone_time(time, key, true);
        }
        let before = match &current {
            None if !is_live => Old::Absent,
            current => Old::of(current.as_ref()),
        };
        self.track(key, before, Some(&stored))?;
        self.has_tombstones = Some(true);
        if stored.is_tombstone() {
            self.track_deletion(key, current.as_ref(), &stored, origin)?;
            self.schedule_version(key, current.as_ref(), &stored)?;
        } else {
            self.schedule(key, None)?;
        }
        let previous = current.filter(|_| is_live);
        let (kind, envelope) = if stored.is_tombstone() {
            (ChangeKind::Removed, Some(stored))
        } else {
            (ChangeKind::Expired, previous.clone())
        };
        Ok(previous.map(|previous| Change {
            key: key.clone(),
            kind,
            envelope,
            previous: Some(previous),
            origin,
        }))
    }

    /// Returns whether a peer's version has expired, and was admitted because it ends an earlier
    /// one that is here.
    fn comes_expired(&self, envelope: &Envelope, origin: Origin) -> bool {
        origin == Origin::Network
            && !envelope.is_bundle()
            && envelope.expires().is_some_and(|end| end <= self.core.options().clock.unix_millis())
    }

    /// Returns whether the version `stored` has to be kept after its expiry, so that the version
    /// that it has replaced does not come back from a peer. `was_tombstone` says that `current` was
    /// not a live record.
    fn is_outlived(
        &mut self,
        key: &RecordKey,
        current: Option<&Envelope>,
        stored: &Envelope,
        was_tombstone: bool,
    ) -> Result<bool, StoreError> {
        let (Some(end), Some(current)) = (stored.expires(), current) else { return Ok(false) };
        // A merged record ends with the last of its contributions.
        if stored.is_bundle() || !current.is_signed() {
            return Ok(false);
        }
        let Some(before) = current.expires().filter(|_| !was_tombstone) else { return Ok(true) };
        if before > end {
            return Ok(true);
        }
        let value = self.tables.get(&tables::EXPIRY, &tables::time_key(before, key))?;
        Ok(value.as_deref() == Some(tables::OUTLIVED))
    }

    /// Removes a tombstone, or an expired version in the place of one.
    fn remove_tombstone(&mut self, key: &RecordKey, tombstone: &Envelope) -> Result<(), StoreError> {
        self.remove(&tables::TOMBSTONES, key.as_bytes())?;
        self.remove(&tables::DELETIONS, key.as_bytes())?;
        // The time of a tombstone is removed with its place in the keyspace.
        if let Some(time) = tombstone.counts_as_tombstone_from().filter(|_| !tombstone.is_tombstone()) {
            self.indexes.push_tombstone_time(time, key, false);
        }
        Ok(())
    }

    fn sign_again(
        &self,
        key: &RecordKey,
        current: Option<&Envelope>,
        envelope: &Envelope,
        resign: bool,
    ) -> Option<Envelope> {
        if !resign {
            return None;
        }
        let signed = envelope.view().bundle().and_then(|bundle| bundle.iter().next());
        let payload = (!envelope.is_tombstone()).then(|| signed.unwrap_or(envelope.view()).payload());
        let expires = signed.unwrap_or(envelope.view()).expires().unwrap_or_default();
        let model = self.layout.place(key).model.filter(|_| signed.is_none());
        let carried = model
            .zip(current)
            .zip(payload)
            .and_then(|((model, current), payload)| model.schema.carried(current.payload(), payload));
        self.core.sign(key, current, carried.as_deref().or(payload), expires)
    }

    /// Removes the index entries that only the old version has and adds those that only the new one
    /// has.
    fn reindex(
        &mut self,
        model: &'a ModelTables,
        primary: &[u8],
        old: Old<'_>,
        new: &IndexKeys,
    ) -> Result<(), StoreError> {
        if model.indexes.is_empty() && model.schema.blobs.is_empty() {
            return Ok(());
        }
        let keys = match old {
            Old::Absent => Some(IndexKeys::default()),
            Old::Unreadable => None,
            Old::Version(old) if model.is_newer(old.payload()) => Some(IndexKeys::default()),
            Old::Version(old) => model.schema.keys_of(old.payload()).map(|keys| keys.secondary),
        };
        if keys.is_none() {
            // Nobody can tell its entries any more, so readers have to look twice.
            self.insert(&tables::META, &tables::stale_key(&model.marked), &[])?;
            model.note_stale();
        }
        let old = keys.unwrap_or_default();
        self.refer(model, primary, &old, new)?;
        for (index, key) in old.iter().filter(|entry| !new.iter().any(|new| new == *entry)) {
            self.change_entry(model, index, key, primary, false)?;
        }
        for (index, key) in new.iter().filter(|entry| !old.iter().any(|old| old == *entry)) {
            self.change_entry(model, index, key, primary, true)?;
        }
        Ok(())
    }

    fn change_entry(
        &mut self,
        model: &'a ModelTables,
        index: usize,
        key: &[u8],
        primary: &[u8],
        there: bool,
    ) -> Result<(), StoreError> {
        let table = model.index(index)?;
        if !model.is_unique(index) {
            self.indexes.push(table, key, primary, there);
            return self.indexes.flush_if_full(self.tables, self.undo.is_some());
        }
        // Later writes of the group look for it.
        let entry = [key, primary].concat();
        if there { self.insert(table, &entry, &entry_value(key.len())) } else { self.remove(table, &entry) }
    }

    /// Removes every trace of a record; returns it if it was live.
    fn take(&mut self, key: &RecordKey) -> Result<Option<Envelope>, StoreError> {
        let Place { table, key: place, model } = self.layout.place(key);
        let there = self.replaced(table, place)?;
        if there == Replaced::Nothing {
            if let Some(tombstone) = self.tombstone(key)? {
                self.remove_expiry(key, &tombstone)?;
                self.schedule(key, None)?;
                self.remove_tombstone(key, &tombstone)?;
                self.track(key, Old::Version(&tombstone), None)?;
            }
            return Ok(None);
        }
        let current = parse(key, &there);
        if let Some(current) = &current {
            self.remove_expiry(key, current)?;
        }
        self.set_lease(key, current.as_ref(), None, Lease::None)?;
        self.schedule(key, None)?;
        if let Some(model) = model {
            self.reindex(model, place, Old::of(current.as_ref()), &IndexKeys::default())?;
        }
        self.remove(table, place)?;
        self.track(key, Old::of(current.as_ref()), None)?;
        Ok(current)
    }

    /// Removes a record, unless the version that is there by now may stay.
    fn exclude(&mut self, key: &RecordKey, author: Option<Author>) -> Result<Option<Change>, StoreError> {
        let core = self.core;
        let is_excluded = |part: &Envelope| {
            core.is_excluded(key, part.view()) || (author.is_some() && part.author() == author)
        };
        let has_excluded = |current: &Envelope| current.contributions().iter().any(is_excluded);
        let Some(current) = self.current(key)?.filter(has_excluded) else { return Ok(None) };
        let lease = if current.is_bundle() { self.lease(key)? } else { None };
        let previous = self.take(key)?;
        if current.is_bundle() {
            let mut parts = current.contributions();
            parts.retain(|part| !is_excluded(part));
            if let Some(allowed) = Envelope::bundle(&parts) {
                let none = IndexKeys::default();
                let change = self.put(key, &allowed, &none, Origin::Network, false)?;
                if let (Some(lease), Some(change)) = (lease, &change) {
                    let lease = Lease::For(lease.lifetime);
                    self.set_lease(key, Some(&current), change.envelope.as_ref(), lease)?;
                }
                let kind = |previous: &Envelope, change: &Change| match change.kind {
                    ChangeKind::Stored if !previous.is_tombstone() => ChangeKind::Updated,
                    kind => kind,
                };
                return Ok(change.zip(previous).map(|(change, previous)| Change {
                    kind: kind(&previous, &change),
                    previous: Some(previous),
                    ..change
                }));
            }
        }
        let change = |previous| Change {
            origin: Origin::Network,
            ..removal(key, ChangeKind::Removed, None, previous)
        };
        Ok(previous.map(change))
    }

    fn expire(&mut self, key: &RecordKey, time: u64, outlived: bool) -> Result<Option<Change>, StoreError> {
        // The entry is removed in any case, or each sweep would find it again.
        self.remove(&tables::EXPIRY, &tables::time_key(time, key))?;
        let Place { table, key: place, .. } = self.layout.place(key);
        let current = parse(key, &self.replaced(table, place)?);
        let Some(current) = current.filter(|current| current.expires() == Some(time)) else {
            return Ok(None);
        };
        let previous = self.take(key)?;
        let now = self.core.careful_millis();
        let floor = millis(self.core.options().tombstone_floor);
        if outlived && previous.is_some() && now < time.saturating_add(floor) {
            // The order of versions ends what it has replaced, here and at peers, as a tombstone
            // would.
            self.put_tombstone(key, &current, Origin::Network, false)?;
        }
        Ok(previous.map(|previous| removal(key, ChangeKind::Expired, Some(previous.clone()), previous)))
    }

    fn forget(&mut self, key: &RecordKey, time: u64) -> Result<(), StoreError> {
        // As with those that expire, the entry goes in any case.
        self.remove(&tables::TOMBSTONE_TIMES, &tables::time_key(time, key))?;
        let Place { table, key: place, .. } = self.layout.place(key);
        let tombstone = if self.tables.get(table, place)?.is_none() { self.tombstone(key)? } else { None };
        if tombstone.and_then(|tombstone| tombstone.counts_as_tombstone_from()) == Some(time) {
            self.take(key)?;
        }
        Ok(())
    }

    fn evict(&mut self, key: &RecordKey) -> Result<Option<Change>, StoreError> {
        // This author may have written a version since the record was chosen.
        if !self.current(key)?.is_some_and(|current| self.core.is_replica(key, &current)) {
            return Ok(None);
        }
        let previous = self.take(key)?;
        Ok(previous.map(|previous| removal(key, ChangeKind::Evicted, Some(previous.clone()), previous)))
    }

    fn remove_expiry(&mut self, key: &RecordKey, old: &Envelope) -> Result<(), StoreError> {
        match old.expires() {
            Some(expires) => self.remove(&tables::EXPIRY, &tables::time_key(expires, key)),
            None => Ok(()),
        }
    }

    /// Returns a value that follows from others; one that is damaged is nothing.
    fn get(&mut self, table: &TableName, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        unless_damaged(self.tables.get(table, key))
    }

    fn insert(&mut self, table: &'a TableName, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        if self.undo.is_none() {
            return self.tables.insert(table, key, value);
        }
        self.replace(table, key, value).map(drop)
    }

    fn replace(&mut self, table: &'a TableName, key: &[u8], value: &[u8]) -> Result<Replaced, StoreError> {
        let previous = self.tables.replace(table, key, value)?;
        if let Some(undo) = &mut self.undo {
            let value = match &previous {
                Replaced::Value(value) => Some(value.clone()),
                Replaced::Nothing | Replaced::Damaged => None,
            };
            undo.push(Undo { table, key: key.to_vec(), value });
        }
        Ok(previous)
    }

    fn remove(&mut self, table: &'a TableName, key: &[u8]) -> Result<(), StoreError> {
        if let Some(undo) = &mut self.undo {
            let value = unless_damaged(self.tables.get(table, key))?;
            undo.push(Undo { table, key: key.to_vec(), value });
        }
        self.tables.remove(table, key)
    }

    fn restore(&mut self, undo: Vec<Undo<'a>>) -> Result<(), StoreError> {
        // Cached facts about the tables may be undone, too.
        (self.has_tombstones, self.scheduled) = (None, None);
        for Undo { table, key, value } in undo.into_iter().rev() {
            match value {
                Some(value) => self.tables.insert(table, &key, &value)?,
                None => self.tables.remove(table, &key)?,
            }
        }
        Ok(())
    }
}

/// Returns whether a signed version is no newer than the stored one.
fn is_overtaken(envelope: &Envelope, current: Option<&Envelope>) -> bool {
    envelope.is_signed() && current.is_some_and(|current| !envelope.adds_to(current))
}

fn parse(key: &RecordKey, there: &Replaced) -> Option<Envelope> {
    let damaged = |error: &EnvelopeError| tracing::warn!(%key, %error, "a damaged record was passed over");
    match there {
        Replaced::Nothing => None,
        Replaced::Value(bytes) => Envelope::parse(bytes).inspect_err(damaged).ok(),
        Replaced::Damaged => {
            tracing::warn!(%key, "a record whose checksum is wrong was passed over");
            None
        }
    }
}

fn removal(key: &RecordKey, kind: ChangeKind, envelope: Option<Envelope>, previous: Envelope) -> Change {
    Change { key: key.clone(), kind, envelope, previous: Some(previous), origin: Origin::Local }
}
