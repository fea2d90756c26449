//! Walks every table and compares related tables.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use super::{CheckOptions, CheckReport, Problem};
use crate::admin::migrate::{Reading, read};
use crate::admin::progress::{OnProgress, Pace};
use crate::changes::history::Row;
use crate::core::{Core, is_in_tombstones};
use crate::engine::{Entry, Snapshot, TALLIES, TableName, Tally};
use crate::error::{AdminError, DamageError, StoreError};
use crate::model::merge;
use crate::model::schema::{IndexKeys, ModelSchema};
use crate::replica::keyspace::Placed;
use crate::replica::lease::LeaseRow;
use crate::replica::sync_set::{Examined, SyncItem, item_key};
use crate::replica::usage::{self, Usage, author_of};
use crate::tables::{self, ModelTables, entry_value};
use crate::version::envelope::{Author, Envelope};
use crate::version::record_key::RecordKey;

/// The damage that can be repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is repaired on its own")]
pub(super) struct Damage {
    /// Indexes, or their descriptions.
    pub(super) indexes: bool,
    /// Data that follows from signed records: positions, ages of tombstones, usage, and sets.
    pub(super) signed: bool,
    /// Expiry, schedule, leases and due times.
    pub(super) times: bool,
    /// The numbers of entries, and their sums.
    pub(super) counts: bool,
    /// Entries whose checksums are wrong.
    pub(super) entries: bool,
}

/// A check that is going on.
pub(super) struct Examination<'a> {
    pub(super) core: &'a Core,
    pub(super) definition: &'static str,
    pub(super) snapshot: Snapshot,
    signatures: bool,
    pub(super) pace: Pace<'a>,
    report: CheckReport,
    damage: Damage,
    /// The number of records with a correct position.
    placed: u64,
    /// The number of correct references to blobs.
    pub(super) referred: u64,
    /// The number of signed versions in the set of each model.
    in_sets: Vec<u64>,
    /// The usage of the signed records, and a checksum of it over all authors.
    usage: Usage,
    weight: u64,
    /// The names of the tables that were walked.
    walked: BTreeSet<String>,
}

impl<'a> Examination<'a> {
    pub(super) fn new(
        core: &'a Core,
        options: CheckOptions,
        progress: &'a mut OnProgress<'a>,
    ) -> Result<Self, StoreError> {
        let snapshot = core.whole_snapshot()?;
        let models = core.layout().models();
        let mut total = 0;
        let others = [
            &tables::FOREIGN,
            &tables::TOMBSTONES,
            &tables::POSITIONS,
            &tables::TOMBSTONE_TIMES,
            &tables::AUTHORS,
            &tables::EXPIRY,
            &tables::SCHEDULE,
            &tables::DUE,
            &tables::LEASES,
            &tables::RENEWALS,
            &tables::DELETIONS,
            &tables::HISTORY,
            &tables::BLOBS,
        ];
        let of_models =
            models.iter().flat_map(|model| model.indexes.iter().chain([&model.records, &model.sync]));
        for table in of_models.chain(others) {
            // The total only serves the progress.
            total += snapshot.len(table).unwrap_or_default();
        }
        Ok(Self {
            core,
            definition: core.layout().schema().map_or("", |schema| schema.name),
            snapshot,
            signatures: options.signatures,
            pace: Pace::new(total, progress),
            report: CheckReport::default(),
            damage: Damage::default(),
            placed: 0,
            referred: 0,
            in_sets: vec![0; models.len()],
            usage: Usage::default(),
            weight: 0,
            walked: BTreeSet::new(),
        })
    }

    /// Checks all tables until the callback stops the check.
    pub(super) fn run(mut self) -> Result<(CheckReport, Damage), StoreError> {
        match self.examine() {
            Ok(()) => self.report.is_complete = true,
            Err(StoreError::Admin(AdminError::Stopped)) => {}
            Err(error) => return Err(error),
        }
        // Another thread may have met the panic.
        if let Some(failure) = self.core.engine().health().failure() {
            self.damaged_file(&failure);
        }
        Ok((self.report, self.damage))
    }

    fn examine(&mut self) -> Result<(), StoreError> {
        self.part(Self::facts)?;
        for model in self.core.layout().models() {
            self.part(|this| this.model(model))?;
        }
        for part in [
            Self::foreign,
            Self::tombstones,
            Self::positions,
            Self::sync_sets,
            Self::tombstone_times,
            Self::authors,
            Self::expiry,
            Self::schedule,
            Self::due,
            Self::leases,
            Self::renewals,
            Self::deletions,
            Self::history,
            Self::blobs,
            Self::others,
        ] {
            self.part(part)?;
        }
        if self.core.engine().has_lost() {
            self.damaged_count(Problem::LostWrites);
        }
        self.pace.finish()
    }

    /// Does a part of the check. If the engine cannot read a part of its file, the other parts may
    /// still be checked.
    fn part(&mut self, part: impl FnOnce(&mut Self) -> Result<(), StoreError>) -> Result<(), StoreError> {
        match part(self) {
            Err(error @ StoreError::Damage(DamageError::File { .. })) => {
                self.damaged_file(&error);
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Walks the remaining tables: those of other models, and tables that this program does not
    /// use.
    fn others(&mut self) -> Result<(), StoreError> {
        let mut tables = self.snapshot.tables()?;
        tables.extend(self.snapshot.tallied()?);
        for table in tables {
            if !self.walked.contains(table.as_str()) {
                self.walk(&table, |_, _| Ok(()))?;
            }
        }
        for entry in self.snapshot.all(&TALLIES)? {
            if let Err(StoreError::Damage(DamageError::Entry { table, entry, .. })) = entry {
                self.damaged_count(Problem::DamagedEntry { table, entry });
            } else {
                entry?;
            }
        }
        Ok(())
    }

    /// Calls `look` with every entry of a table that can be read, and counts all.
    pub(super) fn walk(
        &mut self,
        table: &TableName,
        mut look: impl FnMut(&mut Self, &Entry) -> Result<(), StoreError>,
    ) -> Result<u64, StoreError> {
        let (mut tally, mut damaged) = (Tally::default(), false);
        self.walked.insert(table.as_str().to_owned());
        for entry in self.snapshot.all(table)? {
            let entry = match entry {
                Err(StoreError::Damage(DamageError::Entry { table, entry, .. })) => {
                    tally.entries += 1;
                    damaged = true;
                    self.damaged_entry(Problem::DamagedEntry { table, entry });
                    continue;
                }
                entry => entry?,
            };
            tally.add(entry.checksum());
            if !self.is_there(table, entry.key())? {
                let (table, entry) = (table.as_str().to_owned(), entry.key().to_vec());
                self.report.add(Problem::Unreachable { table, entry });
            }
            look(self, &entry)?;
            self.pace.step()?;
        }
        self.compare(table, tally, damaged)?;
        Ok(tally.entries)
    }

    /// Compares the entries of a table with its tally.
    fn compare(&mut self, table: &TableName, found: Tally, is_damaged: bool) -> Result<(), StoreError> {
        // A row that cannot be read is reported after all tables are walked.
        let Some(written) = self.snapshot.tally(table)? else { return Ok(()) };
        let (stored, counted, table) = (written.entries, found.entries, table.as_str().to_owned());
        if stored != counted {
            self.damaged_count(Problem::WrongCount { table, stored, counted });
        } else if !is_damaged && written.sum != found.sum {
            self.damaged_count(Problem::WrongSum { table });
        }
        Ok(())
    }

    fn damaged_entry(&mut self, problem: Problem) {
        // Nobody can tell what followed from it.
        self.damage = Damage { indexes: true, signed: true, times: true, counts: true, entries: true };
        self.report.add(problem);
    }

    /// Says once that the engine cannot read its file.
    fn damaged_file(&mut self, error: &StoreError) {
        let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        if !self.report.problems.iter().any(|problem| matches!(problem, Problem::DamagedFile { .. })) {
            self.report.add(Problem::DamagedFile { reason });
        }
    }

    fn damaged_count(&mut self, problem: Problem) {
        self.damage.counts = true;
        self.report.add(problem);
    }

    pub(super) fn damaged_index(&mut self, problem: Problem) {
        self.damage.indexes = true;
        self.report.add(problem);
    }

    fn damaged_times(&mut self, problem: Problem) {
        self.damage.times = true;
        self.report.add(problem);
    }

    fn damaged_signed(&mut self, problem: Problem) {
        self.damage.signed = true;
        self.report.add(problem);
    }

    pub(super) fn malformed(&mut self, table: &TableName, entry: &Entry) {
        let (table, entry) = (table.as_str().to_owned(), entry.key().to_vec());
        self.report.add(Problem::Malformed { table, entry });
    }

    /// Checks the facts in [`tables::META`].
    fn facts(&mut self) -> Result<(), StoreError> {
        self.fact(tables::META_FORMAT, &tables::FORMAT.to_be_bytes())?;
        self.fact(tables::META_DEFINITION, self.definition.as_bytes())?;
        for model in self.core.layout().models() {
            self.fact(&tables::model_key(&model.marked), &model.description())?;
        }
        self.walk(&tables::META, |_, _| Ok(())).map(drop)
    }

    fn fact(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        if self.matches(&tables::META, key, |found| found == value)? != Some(true) {
            self.damaged_index(Problem::Fact { fact: String::from_utf8_lossy(key).into_owned() });
        }
        Ok(())
    }

    fn model(&mut self, model: &'a ModelTables) -> Result<(), StoreError> {
        let before = self.report.newer;
        let mut found = vec![0; model.indexes.len()];
        self.walk(&model.records, |this, entry| this.record(model, entry, &mut found))?;
        if self.report.newer > before {
            self.fact(&tables::newer_key(&model.marked), &[])?;
        }
        for (position, found) in found.into_iter().enumerate() {
            let counted = self.index(model, position)?;
            self.report.index_entries += counted;
            // Every entry belongs to one record, so if as many belong to some, then all do.
            if counted != found {
                self.superfluous(model, position)?;
            }
        }
        Ok(())
    }

    /// Checks a record of a model; adds the index entries that it has to `found`.
    fn record(&mut self, model: &'a ModelTables, entry: &Entry, found: &mut [u64]) -> Result<(), StoreError> {
        self.report.records += 1;
        let Ok(key) = model.schema.record_key(self.definition, entry.key()) else {
            self.malformed(&model.records, entry);
            return Ok(());
        };
        let Some(envelope) = self.envelope(&key, entry.value())? else { return Ok(()) };
        self.signed(&key, &envelope)?;
        if envelope.is_tombstone() {
            self.misplaced(key, &model.records);
            return Ok(());
        }
        if envelope.is_bundle() && merge::merged(model.schema, entry.key(), &envelope).0 != envelope {
            self.damaged_index(Problem::NotMerged { key: key.clone() });
        }
        match read(model, entry.key(), entry.value()) {
            Reading::Record(keys) => return self.index_entries(model, &key, &keys, found),
            Reading::Newer => self.report.newer += 1,
            Reading::Unreadable => self.report.add(Problem::Unreadable { key }),
            Reading::Misplaced => self.misplaced(key, &model.records),
        }
        Ok(())
    }

    fn misplaced(&mut self, key: RecordKey, table: &TableName) {
        self.report.add(Problem::Misplaced { key, table: table.as_str().to_owned() });
    }

    /// Checks the form, the signature and the expiry of the envelope under `key`.
    fn envelope(&mut self, key: &RecordKey, bytes: &[u8]) -> Result<Option<Envelope>, StoreError> {
        let envelope = match Envelope::parse(bytes) {
            Ok(envelope) => envelope,
            Err(reason) => {
                self.report.add(Problem::Envelope { key: key.clone(), reason });
                return Ok(None);
            }
        };
        if !envelope.is_signed() {
            self.report.unsigned += 1;
        } else if self.signatures {
            self.report.signatures += u64::try_from(envelope.contributions().len()).unwrap_or(u64::MAX);
            if envelope.verify(key).is_err() {
                self.report.add(Problem::Signature { key: key.clone() });
            }
        }
        if let Some(expires) = envelope.expires()
            && !self.is_there(&tables::EXPIRY, &tables::time_key(expires, key))?
            // An expired version is kept in place of a tombstone.
            && !is_in_tombstones(&self.snapshot, key)?
        {
            self.damaged_times(Problem::MissingExpiry { key: key.clone() });
        }
        Ok(Some(envelope))
    }

    pub(super) fn is_there(&self, table: &TableName, key: &[u8]) -> Result<bool, StoreError> {
        self.matches(table, key, |_| true).map(|found| found.is_some())
    }

    /// Returns whether a value is right or missing. A damaged value counts as right, since the walk
    /// over its table reports it.
    pub(super) fn matches(
        &self,
        table: &TableName,
        key: &[u8],
        is_right: impl FnOnce(&[u8]) -> bool,
    ) -> Result<Option<bool>, StoreError> {
        match self.snapshot.get_with(table, key, is_right) {
            Err(StoreError::Damage(DamageError::Entry { .. })) => Ok(Some(true)),
            found => found,
        }
    }

    /// Checks that a record's index entries exist, and counts them.
    fn index_entries(
        &mut self,
        model: &'a ModelTables,
        key: &RecordKey,
        index_keys: &IndexKeys,
        found: &mut [u64],
    ) -> Result<(), StoreError> {
        let mut keys: Vec<_> = index_keys.iter().collect();
        // A list may have the same value twice.
        keys.sort_unstable();
        keys.dedup();
        self.refers(key, index_keys.blobs())?;
        for (position, index_key) in keys {
            let index = index_name(model, position);
            let entry = [index_key, key.primary_key()].concat();
            let expected = entry_value(index_key.len());
            let right = self.matches(model.index(position)?, &entry, |value| value == expected)?;
            if let (Some(_), Some(found)) = (right, found.get_mut(position)) {
                *found += 1;
            }
            match right {
                Some(true) => {}
                Some(false) => self.damaged_index(Problem::DamagedIndexEntry { index, entry }),
                None => self.damaged_index(Problem::MissingIndexEntry { key: key.clone(), index }),
            }
        }
        Ok(())
    }

    /// Counts the entries of an index; looks for records with the same key in a unique one.
    fn index(&mut self, model: &'a ModelTables, position: usize) -> Result<u64, StoreError> {
        let mut previous: Option<(Vec<u8>, Vec<u8>)> = None;
        let is_unique = model.is_unique(position);
        self.walk(model.index(position)?, |this, entry| {
            let Some((key, primary)) = tables::split_entry(entry.key(), entry.value()).filter(|_| is_unique)
            else {
                return Ok(());
            };
            if let Some((_, holder)) = previous.as_ref().filter(|(previous, _)| previous == key) {
                let index = index_name(model, position);
                let name = |primary| model.schema.record_key(this.definition, primary);
                if let (Ok(first), Ok(second)) = (name(holder), name(primary)) {
                    this.report.add(Problem::NotUnique { index, first, second });
                }
            }
            previous = Some((key.to_vec(), primary.to_vec()));
            Ok(())
        })
    }

    /// Looks for entries of an index that belong to no record.
    fn superfluous(&mut self, model: &'a ModelTables, position: usize) -> Result<(), StoreError> {
        let index = index_name(model, position);
        for entry in self.snapshot.all(model.index(position)?)?.readable() {
            let entry = entry?;
            self.pace.step()?;
            let split = tables::split_entry(entry.key(), entry.value());
            let named = split.and_then(|(index_key, primary)| {
                let key = model.schema.record_key(self.definition, primary).ok()?;
                Some((index_key, key))
            });
            let Some((index_key, key)) = named else {
                self.damaged_index(Problem::DamagedIndexEntry { index, entry: entry.key().to_vec() });
                continue;
            };
            let reading = |bytes: &[u8]| read(model, key.primary_key(), bytes);
            let belongs = |bytes: &[u8]| match reading(bytes) {
                Reading::Record(keys) => keys.iter().any(|found| found == (position, index_key)),
                _ => false,
            };
            if self.matches(&model.records, key.primary_key(), belongs)? != Some(true) {
                self.damaged_index(Problem::SuperfluousIndexEntry { key, index });
            }
        }
        Ok(())
    }

    fn foreign(&mut self) -> Result<(), StoreError> {
        let mut set_aside: BTreeMap<(&'static str, String), Problem> = BTreeMap::new();
        let flow = self.walk(&tables::FOREIGN, |this, entry| {
            this.report.foreign += 1;
            let Ok(key) = RecordKey::parse(entry.key()) else {
                this.malformed(&tables::FOREIGN, entry);
                return Ok(());
            };
            let Some(envelope) = this.envelope(&key, entry.value())? else { return Ok(()) };
            this.signed(&key, &envelope)?;
            let layout = this.core.layout();
            let model = layout.model(key.model()).filter(|_| layout.has_other_policy(&key));
            if let Some(ModelSchema { name: model, policy: expected, .. }) = model.map(|model| model.schema) {
                let (found, expected) = (key.policy(), *expected);
                let named = (*model, found.marked(model));
                let none = || Problem::OtherPolicy { model, found, expected, records: 0 };
                if let Problem::OtherPolicy { records, .. } = set_aside.entry(named).or_insert_with(none) {
                    *records += 1;
                }
            }
            if envelope.is_tombstone() || this.core.layout().place(&key).model.is_some() {
                this.misplaced(key, &tables::FOREIGN);
            }
            Ok(())
        });
        for problem in set_aside.into_values() {
            self.report.add(problem);
        }
        flow.map(drop)
    }

    fn tombstones(&mut self) -> Result<(), StoreError> {
        self.walk(&tables::TOMBSTONES, |this, entry| {
            this.report.tombstones += 1;
            let Ok(key) = RecordKey::parse(entry.key()) else {
                this.malformed(&tables::TOMBSTONES, entry);
                return Ok(());
            };
            let Some(envelope) = this.envelope(&key, entry.value())? else { return Ok(()) };
            let place = this.core.layout().place(&key);
            if this.is_there(place.table, place.key)? {
                this.report.add(Problem::LiveAndDeleted { key });
                return Ok(());
            }
            this.signed(&key, &envelope)?;
            let now = this.core.options().clock.unix_millis();
            if !envelope.is_tombstone() && !envelope.is_expired(now) {
                this.misplaced(key, &tables::TOMBSTONES);
            } else if let Some(time) = envelope.counts_as_tombstone_from()
                && !this.is_there(&tables::TOMBSTONE_TIMES, &tables::time_key(time, &key))?
            {
                this.damaged_signed(Problem::MissingBurial { key });
            }
            Ok(())
        })
        .map(drop)
    }

    /// Checks that a signed record is found by its place in the keyspace, and counts it and its
    /// bytes.
    fn signed(&mut self, key: &RecordKey, envelope: &Envelope) -> Result<(), StoreError> {
        if !envelope.is_signed() {
            return Ok(());
        }
        let usage = Usage::of(key, envelope);
        self.usage = self.usage.plus(usage);
        self.weight = self.weight.wrapping_add(usage.weigh(author_of(envelope)));
        let is_right = |value: &[u8]| value == envelope.fingerprint();
        match self.matches(&tables::POSITIONS, &tables::position_key(key), is_right)? {
            Some(true) => self.placed += 1,
            _ => self.damaged_signed(Problem::MissingPosition { key: key.clone() }),
        }
        let model = self.core.layout().place(key).model;
        let Some((model, item)) = model.zip(SyncItem::of(key, envelope)) else { return Ok(()) };
        let is_right = |value: &[u8]| value == key.primary_key();
        match (self.matches(&model.sync, &item_key(&item), is_right)?, self.in_sets.get_mut(model.position)) {
            (Some(true), Some(count)) => *count += 1,
            _ => self.damaged_signed(Problem::MissingSyncItem { key: key.clone() }),
        }
        Ok(())
    }

    /// Checks that the sets have only stored versions, and that their sums are right.
    fn sync_sets(&mut self) -> Result<(), StoreError> {
        for model in self.core.layout().models() {
            let mut examined = Examined::default();
            self.walk(&model.sync, |this, entry| {
                if !examined.look(entry.key(), entry.value()) {
                    this.damage.signed = true;
                    this.malformed(&model.sync, entry);
                }
                Ok(())
            })?;
            let name = model.schema.name;
            if self.in_sets.get(model.position) != Some(&examined.items()) {
                self.damaged_signed(Problem::SuperfluousSyncItem { model: name });
            }
            if !examined.adds_up() {
                self.damaged_signed(Problem::WrongSyncSums { model: name });
            }
        }
        Ok(())
    }

    /// Looks for positions without a record, if there are more positions than records.
    fn positions(&mut self) -> Result<(), StoreError> {
        let counted = self.walk(&tables::POSITIONS, |_, _| Ok(()))?;
        if counted == self.placed {
            return Ok(());
        }
        for entry in self.snapshot.all(&tables::POSITIONS)?.readable() {
            let entry = entry?;
            self.pace.step()?;
            let Some(placed) = Placed::parse(entry.key(), entry.value()) else {
                self.damage.signed = true;
                self.malformed(&tables::POSITIONS, &entry);
                continue;
            };
            let stored = match self.core.stored(&self.snapshot, &placed.key) {
                // Nobody can tell.
                Err(error) if error.is_of_entry() => continue,
                stored => stored?,
            };
            let is_here = stored.is_some_and(|stored| stored.is_signed());
            if !is_here || placed.position != placed.key.position() {
                self.damaged_signed(Problem::SuperfluousPosition { key: placed.key });
            }
        }
        Ok(())
    }

    fn tombstone_times(&mut self) -> Result<(), StoreError> {
        self.walk(&tables::TOMBSTONE_TIMES, |this, entry| {
            let Some((time, key)) = tables::split_time_key(entry.key()) else {
                this.damage.signed = true;
                this.malformed(&tables::TOMBSTONE_TIMES, entry);
                return Ok(());
            };
            let place = this.core.layout().place(&key);
            let stored = match this.core.stored(&this.snapshot, &key) {
                Err(error) if error.is_of_entry() => None,
                stored => stored?,
            };
            let is_live = this.is_there(place.table, place.key)?;
            let ended = stored.filter(|_| !is_live).and_then(|stored| stored.counts_as_tombstone_from());
            if ended != Some(time) {
                this.damaged_signed(Problem::SuperfluousBurial { key, time });
            }
            Ok(())
        })
        .map(drop)
    }

    /// Returns whether the sums by author are those of the records.
    fn authors(&mut self) -> Result<(), StoreError> {
        let (mut total, mut weight) = (Usage::default(), 0_u64);
        self.walk(&tables::AUTHORS, |this, entry| {
            match (entry.key().try_into(), Usage::parse(entry.value())) {
                (_, Some(usage)) if entry.key() == usage::TOTAL => total = usage,
                (Ok(author), Some(usage)) => {
                    weight = weight.wrapping_add(usage.weigh(Author::from_bytes(author)));
                }
                _ => {
                    this.damage.signed = true;
                    this.malformed(&tables::AUTHORS, entry);
                }
            }
            Ok(())
        })?;
        if (total, weight) != (self.usage, self.weight) {
            self.damaged_signed(Problem::WrongUsage);
        }
        Ok(())
    }

    fn expiry(&mut self) -> Result<(), StoreError> {
        self.walk(&tables::EXPIRY, |this, entry| {
            let Some((time, key)) = tables::split_time_key(entry.key()) else {
                this.damage.times = true;
                this.malformed(&tables::EXPIRY, entry);
                return Ok(());
            };
            let stored = match this.core.stored(&this.snapshot, &key) {
                Err(error) if error.is_of_entry() => None,
                stored => stored?,
            };
            let in_tombstones = is_in_tombstones(&this.snapshot, &key)?;
            if stored.filter(|_| !in_tombstones).and_then(|stored| stored.expires()) != Some(time) {
                this.damaged_times(Problem::SuperfluousExpiry { key, time });
            }
            Ok(())
        })
        .map(drop)
    }

    fn schedule(&mut self) -> Result<(), StoreError> {
        self.walk(&tables::SCHEDULE, |this, entry| {
            let (Ok(key), Ok(time)) = (RecordKey::parse(entry.key()), entry.value().try_into()) else {
                this.damage.times = true;
                this.malformed(&tables::SCHEDULE, entry);
                return Ok(());
            };
            let place = this.core.layout().place(&key);
            let is_here = this.is_there(place.table, place.key)?
                || this.is_there(&tables::TOMBSTONES, key.as_bytes())?;
            if !is_here {
                this.damaged_times(Problem::ScheduledWithoutRecord { key });
            } else if !this.is_there(&tables::DUE, &tables::time_key(u64::from_be_bytes(time), &key))? {
                this.damaged_times(Problem::MissingDue { key });
            }
            Ok(())
        })
        .map(drop)
    }

    fn due(&mut self) -> Result<(), StoreError> {
        self.walk(&tables::DUE, |this, entry| {
            let Some((time, key)) = tables::split_time_key(entry.key()) else {
                this.damage.times = true;
                this.malformed(&tables::DUE, entry);
                return Ok(());
            };
            let is_right = |scheduled: &[u8]| scheduled == time.to_be_bytes();
            if this.matches(&tables::SCHEDULE, key.as_bytes(), is_right)? != Some(true) {
                this.damaged_times(Problem::SuperfluousDue { key, time });
            }
            Ok(())
        })
        .map(drop)
    }

    fn leases(&mut self) -> Result<(), StoreError> {
        self.walk(&tables::LEASES, |this, entry| {
            let (Ok(key), Some(lease)) = (RecordKey::parse(entry.key()), LeaseRow::parse(entry.value()))
            else {
                this.damage.times = true;
                this.malformed(&tables::LEASES, entry);
                return Ok(());
            };
            let stored = match this.core.stored(&this.snapshot, &key) {
                Err(error) if error.is_of_entry() => None,
                stored => stored?,
            };
            let expires = stored.and_then(|stored| stored.expires());
            if expires.is_none_or(|expires| LeaseRow::new(lease.lifetime, expires) != lease) {
                this.damaged_times(Problem::WrongLease { key });
            } else if !this.is_there(&tables::RENEWALS, &tables::time_key(lease.due, &key))? {
                this.damaged_times(Problem::MissingRenewal { key });
            }
            Ok(())
        })
        .map(drop)
    }

    fn renewals(&mut self) -> Result<(), StoreError> {
        self.walk(&tables::RENEWALS, |this, entry| {
            let Some((time, key)) = tables::split_time_key(entry.key()) else {
                this.damage.times = true;
                this.malformed(&tables::RENEWALS, entry);
                return Ok(());
            };
            let is_right = |row: &[u8]| LeaseRow::parse(row).is_some_and(|lease| lease.due == time);
            if this.matches(&tables::LEASES, key.as_bytes(), is_right)? != Some(true) {
                this.damaged_times(Problem::SuperfluousRenewal { key, time });
            }
            Ok(())
        })
        .map(drop)
    }

    fn deletions(&mut self) -> Result<(), StoreError> {
        self.walk(&tables::DELETIONS, |this, entry| {
            let (Ok(key), 8) = (RecordKey::parse(entry.key()), entry.value().len()) else {
                this.damage.times = true;
                this.malformed(&tables::DELETIONS, entry);
                return Ok(());
            };
            if !this.is_there(&tables::TOMBSTONES, key.as_bytes())? {
                this.damaged_times(Problem::SuperfluousDeletion { key });
            }
            Ok(())
        })
        .map(drop)
    }

    fn history(&mut self) -> Result<(), StoreError> {
        let mut previous: Option<Row> = None;
        self.walk(&tables::HISTORY, |this, entry| {
            let Some(row) = Row::parse(entry.key(), entry.value()) else {
                this.malformed(&tables::HISTORY, entry);
                return Ok(());
            };
            if row.is_kept {
                this.report.changes += row.count;
            }
            if !row.is_readable(entry.value()) {
                this.report.add(Problem::DamagedHistory { first: row.first });
            }
            if previous.is_some_and(|previous| !row.follows(&previous)) {
                this.report.add(Problem::HistoryGap { next: row.first });
            }
            previous = Some(row);
            Ok(())
        })
        .map(drop)
    }
}

fn index_name(model: &ModelTables, position: usize) -> &'static str {
    model.schema.indexes.get(position).map_or("", |index| index.name)
}
