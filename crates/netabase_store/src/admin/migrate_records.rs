//! Rewriting records of earlier model versions in the present one.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::admin::left_record::{LeftReason, LeftRecord, LeftRecords, read_entry};
use crate::admin::limits::{BATCH_BYTES, BATCH_RECORDS, STEP_ENTRIES};
use crate::engine::{Entry, Span};
use crate::error::{DamageError, SchemaError, StoreError, WriteError};
use crate::model::schema::{EncodedRecord, payload_version};
use crate::store::NetabaseStore;
use crate::tables::ModelTables;
use crate::version::envelope::Envelope;
use crate::write::apply::{Expected, Lease};
use crate::write::planned_write::{Answers, PlannedWrite};

/// The progress of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrationProgress {
    /// The records that were looked at.
    pub done: u64,
    /// The number of records at the beginning.
    pub total: u64,
    /// The records that were rewritten.
    pub rewritten: u64,
}

/// The result of a migration.
#[derive(Debug, Clone, Default)]
#[must_use = "a migration may have left records as they were"]
#[non_exhaustive]
pub struct MigrationReport {
    /// The records that were rewritten.
    pub rewritten: u64,
    /// The records that had the present version already.
    pub present: u64,
    /// The records of an earlier version that others have signed. Nobody else can sign them anew:
    /// they are converted whenever they are read, until their authors write them again.
    pub other_authors: u64,
    /// The records that another writer has changed meanwhile; their new versions stay.
    pub overtaken: u64,
    /// The records of a later version than this program knows.
    pub newer: u64,
    /// The records that are damaged or cannot be converted.
    pub unreadable: u64,
    /// The records whose primary key the conversion changes.
    pub key_changed: u64,
    /// The records whose converted value the store does not take, such as one that is too large.
    pub refused: u64,
    /// The first 100 records of the last four kinds.
    pub left: Vec<LeftRecord>,
    /// Whether the migration is complete: the callback did not stop it.
    pub complete: bool,
}

impl NetabaseStore {
    /// Rewrites every record of an earlier model version in the present one.
    ///
    /// Blocks in proportion to the size of the database; in an async function use `spawn_blocking`.
    ///
    /// A migration is optional: records are converted whenever they are read. It saves that work,
    /// and a program can drop the old version's type once [`MigrationReport::other_authors`] is 0,
    /// too.
    ///
    /// A record that this store's identity has signed is signed anew and keeps its time of expiry,
    /// an unsigned one stays unsigned. A record that another writer changes meanwhile keeps the new
    /// version. The work is done in batches of bounded size, and `progress` is called after each;
    /// if it stops the migration, or the program ends, the next one continues with the rest.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    ///
    /// use netabase_store::{NetabaseStore, netabase_definition_module};
    ///
    /// mod earlier {
    ///     # use netabase_store::netabase_definition_module;
    ///     #[netabase_definition_module(Notes, NotesKeys)]
    ///     pub mod notes {
    ///         # use netabase_store::NetabaseModel;
    ///         # use serde::{Deserialize, Serialize};
    ///         #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    ///         #[netabase(Notes)]
    ///         pub struct Note { #[primary_key] pub id: u32, pub text: String }
    ///     }
    ///     pub use notes::*;
    /// }
    ///
    /// #[netabase_definition_module(Notes, NotesKeys)]
    /// mod notes {
    ///     # use netabase_store::{NetabaseModel, NetabaseVersion};
    ///     # use serde::{Deserialize, Serialize};
    ///     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    ///     #[netabase(Notes, version = 2, migrate_from = NoteV1)]
    ///     pub struct Note { #[primary_key] pub id: u32, pub text: String, pub done: bool }
    ///
    ///     #[derive(NetabaseVersion, Serialize, Deserialize)]
    ///     #[netabase(version = 1)]
    ///     pub struct NoteV1 { pub id: u32, pub text: String }
    ///
    ///     impl From<NoteV1> for Note {
    ///         fn from(NoteV1 { id, text }: NoteV1) -> Self {
    ///             Self { id, text, done: false }
    ///         }
    ///     }
    /// }
    /// use notes::*;
    ///
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let path = directory.path().join("notes");
    /// let store = NetabaseStore::open::<earlier::Notes>(&path)?;
    /// store.open_tree()?.put(&earlier::Note { id: 7, text: "milk".into() })?;
    /// drop(store);
    ///
    /// let store = NetabaseStore::open::<Notes>(&path)?;
    /// let report = store.migrate(|_| ControlFlow::Continue(()))?;
    /// assert_eq!(report.rewritten, 1);
    /// assert_eq!(store.migrate(|_| ControlFlow::Continue(()))?.rewritten, 0);
    /// let note = store.open_tree()?.get(&NotePrimaryKey(7))?;
    /// assert_eq!(note, Some(Note { id: 7, text: "milk".into(), done: false }));
    /// # Ok::<(), netabase_store::StoreError>(())
    /// ```
    pub fn migrate(
        &self,
        mut progress: impl FnMut(MigrationProgress) -> ControlFlow<()>,
    ) -> Result<MigrationReport, StoreError> {
        self.check_not_in_callback()?;
        self.schema().ok_or(SchemaError::Missing)?;
        let mut migration = Migration {
            store: self,
            done: 0,
            left: LeftRecords::default(),
            report: MigrationReport { complete: true, ..MigrationReport::default() },
        };
        let mut total = 0;
        for model in self.core().layout().models() {
            total += self.core().engine().snapshot()?.len(&model.records)?;
        }
        'models: for model in self.core().layout().models() {
            let mut next = Some(Vec::new());
            while let Some(start) = next {
                next = migration.step(model, &start)?;
                let (done, rewritten) = (migration.done, migration.report.rewritten);
                if progress(MigrationProgress { done, total, rewritten }).is_break() {
                    migration.report.complete = false;
                    break 'models;
                }
            }
        }
        Ok(MigrationReport { left: migration.left.into_vec(), ..migration.report })
    }
}

/// A migration on its way.
struct Migration<'a> {
    store: &'a NetabaseStore,
    /// The records that were looked at.
    done: u64,
    left: LeftRecords,
    report: MigrationReport,
}

impl Migration<'_> {
    /// Rewrites a bounded number of records from `start` on; returns the start of the next step.
    fn step(&mut self, model: &ModelTables, start: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let snapshot = self.store.core().engine().snapshot()?;
        let (mut writes, mut bytes, mut next) = (Vec::new(), 0, None);
        for (number, entry) in snapshot.range(&model.records, Span { start, end: None })?.enumerate() {
            let entry = match entry {
                Err(StoreError::Damage(DamageError::Entry { entry, .. })) => {
                    self.leave(model, &entry, LeftReason::Checksum);
                    continue;
                }
                entry => entry?,
            };
            if number >= STEP_ENTRIES || writes.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES {
                next = Some(entry.key().to_vec());
                break;
            }
            self.done += 1;
            match self.plan(model, &entry) {
                Ok(Some(write)) => {
                    bytes += write.bytes();
                    writes.push(write);
                }
                Ok(None) => {}
                Err(reason) => self.leave(model, entry.key(), reason),
            }
        }
        drop(snapshot);
        let _ = self.store.commit_each(&writes, &mut Step { migration: self, model })?;
        Ok(next)
    }

    /// Returns the write that converts a record, if it is one to convert.
    fn plan(&mut self, model: &ModelTables, entry: &Entry) -> Result<Option<PlannedWrite>, LeftReason> {
        let core = self.store.core();
        let (envelope, version) = read_entry(model, entry.value())?;
        if envelope.is_bundle() {
            return self.plan_contribution(model, entry, &envelope);
        }
        if envelope.is_expired(core.options().clock.unix_millis()) {
            return Ok(None);
        }
        if version == model.schema.version {
            self.report.present += 1;
            return Ok(None);
        }
        if envelope.is_signed() && envelope.author() != core.author() {
            self.report.other_authors += 1;
            return Ok(None);
        }
        let payload = envelope.payload();
        let record = model.schema.guarded(|codec| codec.upgrade(payload)).map_err(LeftReason::Value)?;
        if record.keys.primary != entry.key() {
            return Err(LeftReason::KeyChanged);
        }
        self.convert(&envelope, envelope.expires(), record)
            .map(Some)
            .map_err(|error| LeftReason::Refused(Arc::new(error)))
    }

    /// Returns the write that converts this author's contribution to a merged record.
    ///
    /// The merged value has the present version, and the contributions may have any.
    fn plan_contribution(
        &mut self,
        model: &ModelTables,
        entry: &Entry,
        bundle: &Envelope,
    ) -> Result<Option<PlannedWrite>, LeftReason> {
        let author = self.store.core().author();
        let parts = bundle.contributions();
        let is_earlier = |part: &&Envelope| {
            let version = payload_version(part.payload());
            !part.is_tombstone() && version.is_ok_and(|version| version < model.schema.version)
        };
        let earlier: Vec<_> = parts.iter().filter(is_earlier).collect();
        let Some(ours) = earlier.iter().find(|part| part.author() == author) else {
            let count =
                if earlier.is_empty() { &mut self.report.present } else { &mut self.report.other_authors };
            *count += 1;
            return Ok(None);
        };
        let payload = ours.payload();
        let record = model.schema.guarded(|codec| codec.upgrade(payload)).map_err(LeftReason::Value)?;
        if record.keys.primary != entry.key() {
            return Err(LeftReason::KeyChanged);
        }
        self.convert(bundle, ours.expires(), record)
            .map(Some)
            .map_err(|error| LeftReason::Refused(Arc::new(error)))
    }

    fn convert(
        &self,
        current: &Envelope,
        expires: Option<u64>,
        record: EncodedRecord,
    ) -> Result<PlannedWrite, StoreError> {
        let core = self.store.core();
        let key = core.check_record(&record)?;
        core.check_share(&key, &record.payload)?;
        let envelope = match &core.options().identity {
            Some(identity) if current.is_signed() => {
                let timestamp = core.options().clock.tick(current.timestamp());
                Envelope::sign_for(
                    identity,
                    &key,
                    timestamp,
                    expires.unwrap_or_default(),
                    Some(&record.payload),
                )
            }
            _ => Envelope::unsigned(&record.payload),
        };
        let expected = Some(Expected::Content(Some(current.content_hash())));
        let (secondary, lease) = (record.keys.secondary, Lease::Kept);
        Ok(PlannedWrite { tag: 0, key, envelope, secondary, lease, expected })
    }

    fn leave(&mut self, model: &ModelTables, primary_key: &[u8], reason: LeftReason) {
        let report = &mut self.report;
        let count = match reason {
            LeftReason::Newer { .. } => &mut report.newer,
            LeftReason::Damaged(_) | LeftReason::Checksum | LeftReason::Value(_) => &mut report.unreadable,
            LeftReason::KeyChanged => &mut report.key_changed,
            LeftReason::Refused(_) => &mut report.refused,
        };
        *count += 1;
        self.left.push(model, primary_key, reason);
    }
}

/// The writes of one step.
struct Step<'a, 'b> {
    migration: &'a mut Migration<'b>,
    model: &'a ModelTables,
}

impl Answers for Step<'_, '_> {
    fn patience(&self) -> usize {
        usize::MAX
    }

    fn answer(&mut self, write: &PlannedWrite, refusal: Option<StoreError>) -> ControlFlow<()> {
        match refusal {
            None => self.migration.report.rewritten += 1,
            Some(StoreError::Write(WriteError::Conflict { .. })) => self.migration.report.overtaken += 1,
            Some(error) => {
                let reason = LeftReason::Refused(Arc::new(error));
                self.migration.leave(self.model, write.key.primary_key(), reason);
            }
        }
        ControlFlow::Continue(())
    }
}
