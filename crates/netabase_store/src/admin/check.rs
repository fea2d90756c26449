//! Checks of a whole database, and repairs of data that follows from its records.

use std::error::Error;
use std::ops::ControlFlow;

use thiserror::Error;

use crate::admin::limits::MAX_PROBLEMS;
use crate::admin::migrate;
use crate::admin::progress::{OnProgress, Progress};
use crate::error::StoreError;
use crate::model::blob::BlobHash;
use crate::options::NonExhaustive;
use crate::store::NetabaseStore;
use crate::version::envelope::EnvelopeError;
use crate::version::record_key::{RecordKey, WritePolicy};

mod blobs;
mod examine;
mod repair;

use examine::{Damage, Examination};

/// Options of [`NetabaseStore::check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckOptions {
    /// Whether signatures are verified, which takes most of the time where records are signed.
    /// Default: `true`.
    pub signatures: bool,
    /// Whether data that follows from the records is repaired. Default: `false`.
    pub repair: bool,
    #[doc(hidden)]
    pub non_exhaustive: NonExhaustive,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { signatures: true, repair: false, non_exhaustive: NonExhaustive::default() }
    }
}

/// The result of [`NetabaseStore::check`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// The number of checked records of the schema's models.
    pub records: u64,
    /// The number of those that a later version of the program wrote: only their envelopes can be
    /// checked.
    pub newer: u64,
    /// The number of checked records of other models.
    pub foreign: u64,
    /// The number of checked tombstones.
    pub tombstones: u64,
    /// The number of verified signatures: one of each record, or of each author of a merged one.
    pub signatures: u64,
    /// The number of records and tombstones without a signature.
    pub unsigned: u64,
    /// The number of checked index entries.
    pub index_entries: u64,
    /// The number of checked changes of the history.
    pub changes: u64,
    /// The first 1000 problems; after a repair, those that are left.
    pub problems: Vec<Problem>,
    /// The number of problems, listed or not.
    pub total_problems: u64,
    /// The number of problems that are faults of the database, see [`Problem::is_fault`].
    pub faults: u64,
    /// The listed problems that the repair has fixed.
    pub repaired: Vec<Problem>,
    /// Whether the check is complete: the callback did not stop it.
    pub is_complete: bool,
}

impl CheckReport {
    /// Returns whether everything was checked and the database has no fault.
    pub fn is_clean(&self) -> bool {
        self.is_complete && self.faults == 0
    }

    fn add(&mut self, problem: Problem) {
        self.total_problems += 1;
        self.faults += u64::from(problem.is_fault());
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }
}

/// A problem of a database.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// A fact in the database about itself is wrong.
    #[error("the database does not say `{fact}` as it should, so programs may misread it; repair it")]
    Fact {
        /// The name of the fact.
        fact: String,
    },
    /// The bytes of a record are not an envelope.
    #[error("the record {key} is damaged and cannot be read ({reason}); put it again, or remove it")]
    Envelope {
        /// The record.
        key: RecordKey,
        /// The reason.
        reason: EnvelopeError,
    },
    /// The signature of a record is not its author's: some byte of it has changed.
    #[error("the record {key} is not what its author signed; put it again, or remove it")]
    Signature {
        /// The record.
        key: RecordKey,
    },
    /// The payload of a record is not a value of the model.
    #[error(
        "the record {key} cannot be read as a value of its model; put it again, or use the program that wrote it"
    )]
    Unreadable {
        /// The record.
        key: RecordKey,
    },
    /// The value of a merged record is not the merge of its contributions.
    #[error("the value of the record {key} is not the merge of its contributions; repair the database")]
    NotMerged {
        /// The record.
        key: RecordKey,
    },
    /// A record is in the wrong table.
    #[error("the record {key} in the table `{table}` belongs elsewhere; remove it, and put it again")]
    Misplaced {
        /// The name that it is stored under.
        key: RecordKey,
        /// The table that it is in.
        table: String,
    },
    /// A record and a tombstone have the same key.
    #[error("the record {key} is both live and deleted, and is read as live; remove it")]
    LiveAndDeleted {
        /// The record.
        key: RecordKey,
    },
    /// The key or the value of an entry has no sense.
    #[error(
        "the table `{table}` has an entry that means nothing, key {entry:02x?}; restore a backup, or leave it"
    )]
    Malformed {
        /// The table.
        table: String,
        /// The key of the entry.
        entry: Vec<u8>,
    },
    /// A record is not found by one of its secondary keys.
    #[error("the record {key} is not found by its key `{index}`; repair the database")]
    MissingIndexEntry {
        /// The record.
        key: RecordKey,
        /// The secondary key's name.
        index: &'static str,
    },
    /// A record would be found by a secondary key that it does not have.
    #[error("an entry of the key `{index}` leads to {key}, which is not so; repair the database")]
    SuperfluousIndexEntry {
        /// The record that the entry names.
        key: RecordKey,
        /// The secondary key's name.
        index: &'static str,
    },
    /// The value of an index entry is not the length of its key.
    #[error("an entry of the key `{index}` is damaged; repair the database")]
    DamagedIndexEntry {
        /// The secondary key's name.
        index: &'static str,
        /// The key of the entry.
        entry: Vec<u8>,
    },
    /// Two records have the same value of a unique key. This program prevents that, but peers may
    /// cause it.
    #[error("the records {first} and {second} have the same unique key `{index}`; change one of them")]
    NotUnique {
        /// The secondary key's name.
        index: &'static str,
        /// One of the records.
        first: RecordKey,
        /// The other one.
        second: RecordKey,
    },
    /// Records of a model were written under another write policy than the program's, so no tree
    /// has them.
    #[error(
        "{records} records of the model `{model}` are {found} and not {expected}, so they are not found; open the \
         database with the schema that wrote them to export them"
    )]
    OtherPolicy {
        /// The model's name.
        model: &'static str,
        /// The policy that they were written under.
        found: WritePolicy,
        /// The policy in this program.
        expected: WritePolicy,
        /// The number of records.
        records: u64,
    },
    /// A blob that a record names may be deleted.
    #[error("the record {key} names the blob {hash}, which may be deleted all the same; repair the database")]
    MissingBlobReference {
        /// The record.
        key: RecordKey,
        /// The blob.
        hash: BlobHash,
    },
    /// A blob is kept for a record that does not name it.
    #[error("the blob {hash} is kept for the record {key}, which does not name it; repair the database")]
    SuperfluousBlobReference {
        /// The record.
        key: RecordKey,
        /// The blob.
        hash: BlobHash,
    },
    /// A record that expires would stay.
    #[error("the record {key} will not be deleted when it expires; repair the database")]
    MissingExpiry {
        /// The record.
        key: RecordKey,
    },
    /// The database would look for a record to expire that does not, or at another time.
    #[error("the record {key} is said to expire at {time}, which is not so; repair the database")]
    SuperfluousExpiry {
        /// The record.
        key: RecordKey,
        /// The stored time of expiry, in milliseconds since the Unix epoch.
        time: u64,
    },
    /// A scheduled record would not be published.
    #[error("the record {key} will not be published as scheduled; repair the database")]
    MissingDue {
        /// The record.
        key: RecordKey,
    },
    /// A record would be published that is not scheduled, or at another time.
    #[error("the record {key} is said to be due at {time}, which is not so; repair the database")]
    SuperfluousDue {
        /// The record.
        key: RecordKey,
        /// The stored due time, in milliseconds since the Unix epoch.
        time: u64,
    },
    /// A record is scheduled that is not here.
    #[error("the record {key} is to be published but is not here; repair the database")]
    ScheduledWithoutRecord {
        /// The record.
        key: RecordKey,
    },
    /// A signed record is not found by its place in the keyspace, or in another version.
    #[error("the record {key} is not where peers look for it; repair the database")]
    MissingPosition {
        /// The record.
        key: RecordKey,
    },
    /// A record would be found in the keyspace that is not here.
    #[error("an entry of the keyspace leads to {key}, which is not so; repair the database")]
    SuperfluousPosition {
        /// The record that the entry names.
        key: RecordKey,
    },
    /// A signed version is not in the set that is compared with others.
    #[error("the record {key} is missing in the set that peers compare; repair the database")]
    MissingSyncItem {
        /// The record.
        key: RecordKey,
    },
    /// The set that is compared with others has versions that are not here.
    #[error("the set of the model `{model}` has a version that is not here; repair the database")]
    SuperfluousSyncItem {
        /// The model's name.
        model: &'static str,
    },
    /// The sums of a set are not those of its items.
    #[error("the sums of the set of the model `{model}` are wrong; repair the database")]
    WrongSyncSums {
        /// The model's name.
        model: &'static str,
    },
    /// The lease of a record is not that of a record that is here.
    #[error("the record {key} is not the lease that it is said to be; repair the database")]
    WrongLease {
        /// The record.
        key: RecordKey,
    },
    /// A lease would not be renewed.
    #[error("the record {key} will not be renewed before it expires; repair the database")]
    MissingRenewal {
        /// The record.
        key: RecordKey,
    },
    /// A record would be renewed that is no lease, or at another time.
    #[error("the record {key} is said to be renewed at {time}, which is not so; repair the database")]
    SuperfluousRenewal {
        /// The record.
        key: RecordKey,
        /// The stored time of renewal, in milliseconds since the Unix epoch.
        time: u64,
    },
    /// The table of deletions names a tombstone that is not here.
    #[error("the deletion of {key} is said to wait for a peer, but is not here; repair the database")]
    SuperfluousDeletion {
        /// The record.
        key: RecordKey,
    },
    /// A tombstone would never be deleted.
    #[error("the tombstone of {key} will not be deleted when it is old enough; repair the database")]
    MissingBurial {
        /// The record that was deleted.
        key: RecordKey,
    },
    /// The database would look for a tombstone that is not here, or is of another time.
    #[error("the record {key} is said to have been deleted at {time}, which is not so; repair the database")]
    SuperfluousBurial {
        /// The record.
        key: RecordKey,
        /// The stored time of deletion, in milliseconds since the Unix epoch.
        time: u64,
    },
    /// The stored usage of an author differs from the size of its records.
    #[error("the records of some author take another number of bytes than is said; repair the database")]
    WrongUsage,
    /// An entry of a table does not match its checksum.
    #[error(
        "the entry {} of the table `{table}` is damaged; put the record again or restore a backup, or repair the \
         database, which removes the entry, so that peers send the record again",
        entry.escape_ascii()
    )]
    DamagedEntry {
        /// The table.
        table: String,
        /// The key of the entry, as it is stored.
        entry: Vec<u8>,
    },
    /// An entry of a table is there, and is not found by its key.
    #[error(
        "the entry {} of the table `{table}` is not found by its key: the file is damaged; export what can be read, \
         and restore a backup or begin a new database, which peers fill again",
        entry.escape_ascii()
    )]
    Unreachable {
        /// The table.
        table: String,
        /// The key of the entry.
        entry: Vec<u8>,
    },
    /// A table has the right number of entries, and some are not those that were written.
    #[error(
        "entries of the table `{table}` are not those that were written; restore a backup, or repair the database \
         and let peers send the newer versions again"
    )]
    WrongSum {
        /// The table.
        table: String,
    },
    /// Writes that were on the disk are lost.
    #[error(
        "the newest writes are gone from the database; restore a backup, or repair the database and let peers send \
         them again"
    )]
    LostWrites,
    /// The engine cannot read its file, or has panicked on it.
    #[error(
        "the database file is damaged ({reason}); export what can be read, and restore a backup or begin a new \
         database, which peers fill again"
    )]
    DamagedFile {
        /// The engine's error.
        reason: String,
    },
    /// A table has another number of entries than were written.
    #[error(
        "the table `{table}` should have {stored} entries and has {counted}; restore a backup, or repair the \
         database and let peers send the records again"
    )]
    WrongCount {
        /// The table.
        table: String,
        /// The stored number.
        stored: u64,
        /// The actual number.
        counted: u64,
    },
    /// Changes of the history cannot be read.
    #[error("changes from number {first} on cannot be read; followers must list the records anew")]
    DamagedHistory {
        /// The number of the first one.
        first: u64,
    },
    /// Changes are missing between two others.
    #[error("changes are missing before number {next}; followers must list the records anew")]
    HistoryGap {
        /// The number of the change after the gap.
        next: u64,
    },
}

impl Problem {
    /// Returns whether the database is at fault, and not a peer's record or the program's schema.
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::NotUnique { .. } | Self::OtherPolicy { .. })
    }
}

impl NetabaseStore {
    /// Checks all tables of the store against each other: envelopes, signatures, payloads, keys,
    /// index entries, references to blobs, positions, sets, expiry, schedule, leases, counts and
    /// history.
    ///
    /// Blocks in proportion to the size of the database; in an async function use `spawn_blocking`.
    ///
    /// The check reads the whole database, looks up the index entries of every record, and verifies
    /// a few ten thousand signatures per second; memory is bounded. On redb it reads a snapshot
    /// while writers continue; on sled they wait until it is done. Problems are no error but part
    /// of the report. Every entry is compared with its checksum and looked up by its key, and every
    /// table is compared with the number and the sum of its entries, so entries that the engine has
    /// lost are detected, too.
    ///
    /// With [`CheckOptions::repair`] writers wait on any backend. Data that follows from the
    /// records is repaired: indexes are rebuilt, and meanwhile queries by secondary key may miss
    /// records; positions, expiry, schedule and counts are corrected. Then everything is checked
    /// again for the report. An entry with a wrong checksum is removed, even a record: it cannot be
    /// read, and peers that have the record send it again. No other record is ever deleted.
    ///
    /// ```
    /// # use netabase_store::{NetabaseStore, netabase_definition_module};
    /// # use netabase_store::admin::CheckOptions;
    /// # #[netabase_definition_module(LibraryDefinition, LibraryKeys)]
    /// # mod library {
    /// #     use netabase_store::NetabaseModel;
    /// #     use serde::{Deserialize, Serialize};
    /// #     #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    /// #     #[netabase(LibraryDefinition)]
    /// #     pub struct Book { #[primary_key] pub isbn: String, #[secondary_key] pub title: String }
    /// # }
    /// # use library::*;
    /// let store = NetabaseStore::in_memory::<LibraryDefinition>()?;
    /// let title = "The C Programming Language".into();
    /// store.open_tree()?.put(&Book { isbn: "978-0-13-110362-7".into(), title })?;
    /// let report = store.check(CheckOptions::default())?;
    /// for problem in &report.problems {
    ///     eprintln!("{problem}");
    /// }
    /// assert!(report.is_clean());
    /// assert_eq!((report.records, report.index_entries), (1, 1));
    /// # Ok::<(), netabase_store::StoreError>(())
    /// ```
    pub fn check(&self, options: CheckOptions) -> Result<CheckReport, StoreError> {
        self.check_with(options, |_| ControlFlow::Continue(()))
    }

    /// Checks the database as [`NetabaseStore::check`] does, and calls `progress` at intervals.
    ///
    /// Blocks in proportion to the size of the database; in an async function use `spawn_blocking`.
    ///
    /// With [`ControlFlow::Break`] the check ends without further repairs, and the report is marked
    /// as incomplete. The callback must not write to the store: while writers wait that fails with
    /// [`StoreError::InCallback`].
    pub fn check_with(
        &self,
        options: CheckOptions,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<CheckReport, StoreError> {
        let core = self.core();
        let alone = options.repair || !core.engine().has_snapshots();
        let _held = if alone { Some(core.hold_writer()?) } else { None };
        let (mut found, damage) = self.examine(options, &mut progress)?;
        if found.is_clean() && core.options().read_only {
            // Damage to redb's own pages shows in no read, and makes the next write panic.
            if let Err(error) = core.engine().check_pages() {
                let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                found.add(Problem::DamagedFile { reason });
            }
        }
        if !options.repair || !found.is_complete || damage == Damage::default() {
            return Ok(found);
        }
        // A file that cannot be read cannot be repaired, and is not written.
        if core.engine().health().failure().is_some() {
            return Ok(found);
        }
        if let Some(failure) = core.poisoned() {
            return Err(failure);
        }
        // Half a repair is worse than none: nothing more is written, and the next opening completes
        // it.
        repair::repair(core, damage).map_err(|error| core.poison(error))?;
        let (mut report, _) = self.examine(options, &mut progress)?;
        if report.is_complete {
            let gone = found.problems.into_iter().filter(|problem| !report.problems.contains(problem));
            report.repaired = gone.collect();
        }
        Ok(report)
    }

    /// Rebuilds the indexes of all models from the records.
    ///
    /// Blocks in proportion to the size of the database; in an async function use `spawn_blocking`.
    ///
    /// Writers wait meanwhile, and queries by secondary key may miss records. If the program ends
    /// before it is done, opening the store does it again.
    pub fn rebuild_indexes(&self) -> Result<(), StoreError> {
        self.while_paused(|core| {
            if let Some(failure) = core.poisoned() {
                return Err(failure);
            }
            let _rebuilding = core.rebuilding().lock();
            let rebuilt = migrate::rebuild_all_indexes(core.engine(), core.layout());
            let rebuilt = rebuilt.and_then(|()| core.load_sums());
            // Indexes that are half built must not be used; the next opening completes them.
            rebuilt.map_err(|error| core.poison(error))
        })
    }

    fn examine(
        &self,
        options: CheckOptions,
        progress: &mut OnProgress<'_>,
    ) -> Result<(CheckReport, Damage), StoreError> {
        let mut progress = |at| progress(at);
        Examination::new(self.core(), options, &mut progress)?.run()
    }
}
