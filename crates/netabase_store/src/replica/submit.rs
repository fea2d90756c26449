//! Writes of this program that are signed and queued at once, so that the caller can publish them.

use super::Replica;
use crate::changes::change::{Change, ChangeKind, Origin};
use crate::error::{StoreError, WriteError};
use crate::model::schema::{EncodedRecord, IndexKeys};
use crate::replica::lease::Lifetime;
use crate::tables::ModelTables;
use crate::version::envelope::{ContentHash, Envelope};
use crate::version::record_key::RecordKey;
use crate::write::apply::{Expected, Lease, Op};
use crate::write::writer::Batch;

/// The condition of a write, see [`Replica::submit_if`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedVersion {
    /// There is no live record.
    Absent,
    /// The record is this very envelope, which [`Envelope::content_hash`] names.
    Content(ContentHash),
}

impl Replica<'_> {
    /// Signs a record and queues it, without waiting for the disk.
    ///
    /// The version is seen by [`NetabaseStore::envelope`](crate::NetabaseStore::envelope) at once,
    /// unless it [may be refused](Replica::may_refuse); `done` is called by the writer when it is
    /// as durable as the store's options say, with its change. `None` means that it changed
    /// nothing, because a later version, such as a peer's, came between the signing and the
    /// writing: the caller may have passed on the version already, so it is not signed again.
    /// Blocks only while the queue of writes is full, and never in a callback of the store.
    pub fn submit(
        self,
        record: &EncodedRecord,
        done: impl FnOnce(Result<Option<ChangeKind>, StoreError>) + Send + 'static,
    ) -> Result<(RecordKey, Envelope), StoreError> {
        self.submit_with(record, Lifetime::Default, done)
    }

    /// Submits a record with its own lifetime, as [`Replica::submit`] does.
    pub fn submit_with(
        self,
        record: &EncodedRecord,
        lifetime: Lifetime,
        done: impl FnOnce(Result<Option<ChangeKind>, StoreError>) + Send + 'static,
    ) -> Result<(RecordKey, Envelope), StoreError> {
        let op = self.core().put_op_for(record.clone(), lifetime)?;
        let Op::Put { key, envelope, .. } = &op else {
            return Err(WriteError::NoIdentity.into());
        };
        let written = (key.clone(), envelope.clone());
        self.store.submit_op(op, done);
        Ok(written)
    }

    /// Submits a record as [`Replica::submit_with`] does, if the stored record is as `expected` at
    /// the time of the write; otherwise `done` gets
    /// [`WriteError::Conflict`].
    ///
    /// The version is not seen before it is written, and is signed again if it does not come after
    /// the version that it replaces: `done` gets the envelope that was written.
    pub fn submit_if(
        self,
        record: &EncodedRecord,
        lifetime: Lifetime,
        expected: ExpectedVersion,
        done: impl FnOnce(Result<(ChangeKind, Envelope), StoreError>) + Send + 'static,
    ) -> Result<RecordKey, StoreError> {
        let op = self.core().put_op_for(record.clone(), lifetime)?;
        self.submit_op_if(op, expected, done)
    }

    /// Signs a tombstone for `key` and queues it, without waiting for the disk.
    ///
    /// Blocks only while the queue of writes is full.
    ///
    /// Returns `None`, and drops `done`, if the store has no live record under the key; then
    /// nothing is written. `done` is called as in [`Replica::submit`]. Fails without an identity,
    /// which a tombstone needs.
    pub fn submit_removal(
        self,
        key: &RecordKey,
        done: impl FnOnce(Result<Option<ChangeKind>, StoreError>) + Send + 'static,
    ) -> Result<Option<Envelope>, StoreError> {
        let (op, is_live) = self.removal_op(key, None)?;
        let Op::Put { envelope, .. } = &op else { return Err(WriteError::NoIdentity.into()) };
        let envelope = is_live.then(|| envelope.clone());
        if envelope.is_some() {
            self.store.submit_op(op, done);
        }
        Ok(envelope)
    }

    /// Submits a tombstone as [`Replica::submit_removal`] does, on the condition of
    /// [`Replica::submit_if`].
    pub fn submit_removal_if(
        self,
        key: &RecordKey,
        expected: ExpectedVersion,
        done: impl FnOnce(Result<(ChangeKind, Envelope), StoreError>) + Send + 'static,
    ) -> Result<RecordKey, StoreError> {
        let (op, _) = self.removal_op(key, None)?;
        self.submit_op_if(op, expected, done)
    }

    /// Submits a tombstone, as [`Replica::submit_removal`] does, for a record of which a peer has
    /// the version `found`. It comes after that version and after the stored one, if any.
    pub fn submit_removal_after(
        self,
        key: &RecordKey,
        found: &Envelope,
        done: impl FnOnce(Result<Option<ChangeKind>, StoreError>) + Send + 'static,
    ) -> Result<Envelope, StoreError> {
        let (op, _) = self.removal_op(key, Some(found))?;
        let Op::Put { envelope, .. } = &op else { return Err(WriteError::NoIdentity.into()) };
        let envelope = envelope.clone();
        self.store.submit_op(op, done);
        Ok(envelope)
    }

    /// Returns whether the writer may still refuse a well-formed local write to this record, for a
    /// unique key or a record of a later version.
    ///
    /// Such a write is not shown before it is done, and should not be passed on before.
    pub fn may_refuse(self, key: &RecordKey) -> bool {
        self.core().layout().place(key).model.is_some_and(ModelTables::may_refuse)
    }

    /// Makes the write that deletes a record; returns whether the store has a live one.
    fn removal_op(self, key: &RecordKey, found: Option<&Envelope>) -> Result<(Op, bool), StoreError> {
        let core = self.core();
        core.check_owner(key)?;
        let current = core.current(key);
        // A record that is damaged is there, and can be removed.
        let is_damaged = current.as_ref().is_err_and(StoreError::is_of_entry);
        let here = if is_damaged { None } else { current? };
        let now = core.options().clock.unix_millis();
        let is_live = is_damaged || here.as_ref().is_some_and(|here| here.is_live(now));
        let after = match (here, found) {
            (Some(here), Some(found)) => Some(here.join(found)),
            (here, found) => here.or_else(|| found.cloned()),
        };
        let envelope = core.sign(key, after.as_ref(), None, 0).ok_or(WriteError::NoIdentity)?;
        core.check_local_member(key, &envelope)?;
        let (key, secondary, origin) = (key.clone(), IndexKeys::default(), Origin::Local);
        Ok((Op::Put { key, envelope, secondary, origin, lease: Lease::None }, is_live))
    }

    fn submit_op_if(
        self,
        op: Op,
        expected: ExpectedVersion,
        done: impl FnOnce(Result<(ChangeKind, Envelope), StoreError>) + Send + 'static,
    ) -> Result<RecordKey, StoreError> {
        let Op::Put { key, .. } = &op else { return Err(WriteError::NoIdentity.into()) };
        let key = key.clone();
        let expected = match expected {
            ExpectedVersion::Absent => Expected::Absent,
            ExpectedVersion::Content(hash) => Expected::Content(Some(hash)),
        };
        let changed = key.clone();
        let done = Box::new(move |result: Result<Vec<Option<Change>>, StoreError>| {
            let written = result.and_then(|changes| {
                let change = changes.into_iter().next().flatten();
                // The condition held: a write changes nothing only if there is nothing to delete.
                let written = change.and_then(|change| Some((change.kind, change.envelope?)));
                written.ok_or(StoreError::Write(WriteError::Conflict { key: changed.clone() }))
            });
            done(written.map_err(|error| match error {
                StoreError::Write(WriteError::Exists { key }) => {
                    StoreError::Write(WriteError::Conflict { key })
                }
                error => error,
            }));
        });
        let batch = Batch::new(vec![op], done);
        self.core().push(Batch { resign: true, expected: vec![(key.clone(), expected)], ..batch });
        Ok(key)
    }
}
