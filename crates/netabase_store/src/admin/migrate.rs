//! Brings the tables of a database in line with the models of this program.
//!
//! The database remembers each model's version and indexes. If they differ from the program's, the
//! model's indexes are rebuilt. Records that came while the program did not know their model, or
//! whose model it knows no more, are foreign records; they move to other tables when the schema
//! gains or loses the model. A model is known by its name with the mark of its policy: under
//! another policy it is another model.
//!
//! The work is done in steps of bounded size. The first step marks the model as unfinished, the
//! last one writes its new description, so that a program which finds it in between begins anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::admin::limits::{STEP_BYTES, STEP_ENTRIES};
use crate::admin::rebuild::rebuild;
use crate::engine::{Engine, Snapshot, Span, Sync, TableName, WriteTables, unless_damaged};
use crate::error::{DamageError, OpenError, StoreError};
use crate::model::blob::BLOB_HASH_BYTES;
use crate::model::dynamic::{Difference, Shape};
use crate::model::key_range::after_prefix;
use crate::model::merge;
use crate::model::schema::{DefinitionSchema, Encoding, IndexKeys, split_payload};
use crate::options::StorageBackend;
use crate::replica::lease::LeaseRow;
use crate::replica::sync_set;
use crate::replica::usage::UsageChanges;
use crate::tables::{self, Description, Layout, ModelTables, any_payload};
use crate::version::admit::check_index_keys;
use crate::version::envelope::Envelope;
use crate::version::record_key::{RecordKey, WritePolicy};
use crate::write::index_changes::IndexChanges;

/// The table in which sled kept the numbers of entries, in formats without checksums.
const FORMER_COUNTS: &str = "counts";

/// Refuses a database of another format or definition, and marks a new one; returns the format.
pub(crate) fn check_format(
    engine: &Engine,
    path: &Path,
    backend: StorageBackend,
    schema: Option<&'static DefinitionSchema>,
) -> Result<u32, StoreError> {
    // A store without a schema has a definition without a name.
    let expected = schema.map_or("", |schema| schema.name);
    let not_ours = |why: &str| {
        let source = Arc::new(io::Error::other(why));
        StoreError::Open(OpenError::NotADatabase { path: path.to_owned(), backend, source })
    };
    let snapshot = engine.snapshot()?;
    let found = match Found::read(&snapshot)? {
        Some(found) => found,
        None if snapshot.is_empty()? => {
            return engine.write(Sync::Now, |tables| {
                write_format(tables)?;
                tables.insert(&tables::META, tables::META_DEFINITION, expected.as_bytes())?;
                Ok(tables::FORMAT)
            });
        }
        None => return Err(not_ours("it holds the tables of another program")),
    };
    let format = match found.format {
        0 => return Err(not_ours("its format number is damaged")),
        found if found > tables::FORMAT => {
            return Err(StoreError::Open(OpenError::UnknownFormat { found, known: tables::FORMAT }));
        }
        format => format,
    };
    if let Some(found) = found.definition.filter(|found| found != expected.as_bytes()) {
        return Err(StoreError::Open(OpenError::OtherDefinition {
            found: String::from_utf8_lossy(&found).into_owned(),
            expected,
        }));
    }
    Ok(format)
}

/// The facts in a database about itself.
pub(crate) struct Found {
    /// 0 if it is damaged.
    pub(crate) format: u32,
    /// `None` if it is damaged.
    definition: Option<Vec<u8>>,
    /// Whether its facts have checksums.
    pub(crate) is_checked: bool,
}

impl Found {
    /// Reads it from the facts, or from those of a format without checksums; `None` if there are
    /// neither.
    pub(crate) fn read(snapshot: &Snapshot) -> Result<Option<Self>, StoreError> {
        let bare_meta = bare_meta();
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_be_bytes);
        let bare = snapshot.get_with(&bare_meta, tables::META_FORMAT, number)?;
        let newer = bare.filter(|format| *format > tables::FORMAT);
        if let Some(format) = newer {
            return Ok(Some(Self { format, definition: None, is_checked: true }));
        }
        let (format, is_checked) = match snapshot.get_with(&tables::META, tables::META_FORMAT, number) {
            // The table without checksums has the same format, unless an upgrade was interrupted.
            Err(StoreError::Damage(DamageError::Entry { .. })) => (bare.unwrap_or(tables::FORMAT), true),
            Ok(Some(format)) => (format, true),
            Ok(None) => match bare {
                Some(format) => (format, false),
                None => return Ok(None),
            },
            Err(error) => return Err(error),
        };
        let definition = if is_checked {
            match snapshot.get(&tables::META, tables::META_DEFINITION) {
                Err(StoreError::Damage(DamageError::Entry { .. })) => None,
                definition => Some(definition?.unwrap_or_default()),
            }
        } else {
            Some(snapshot.get(&bare_meta, tables::META_DEFINITION)?.unwrap_or_default())
        };
        Ok(Some(Self { format, definition, is_checked }))
    }
}

/// The table of facts of formats without checksums.
fn bare_meta() -> TableName {
    TableName::bare(tables::META.as_str())
}

fn is_marker(table: &TableName) -> bool {
    table.as_str() == tables::META.as_str()
}

pub(crate) fn write_format(tables: &mut dyn WriteTables) -> Result<(), StoreError> {
    write_marker(tables)?;
    tables.insert(&tables::META, tables::META_FORMAT, &tables::FORMAT.to_be_bytes())
}

/// Refuses a database that has records of a model of the layout under another write policy; it may
/// still be one of a format without checksums.
pub(crate) fn check_policies(engine: &Engine, layout: &Layout) -> Result<(), StoreError> {
    let snapshot = engine.snapshot()?;
    let mut known = known_models(&snapshot, &bare_meta())?;
    known.append(&mut known_models(&snapshot, &tables::META)?);
    for name in known.keys() {
        let (found, unmarked) = WritePolicy::take_mark(name.as_bytes());
        let model = layout.models().iter().find(|model| model.schema.name.as_bytes() == unmarked);
        let Some(model) = model.map(|model| model.schema).filter(|model| model.policy != found) else {
            continue;
        };
        let table = tables::records_table(name);
        let mut records = snapshot.len(&TableName::once(&table))?;
        for entry in snapshot.all(&TableName::bare(&table))? {
            entry?;
            records += 1;
        }
        if records > 0 {
            return Err(StoreError::Open(OpenError::OtherPolicy {
                model: model.name,
                found,
                expected: model.policy,
                records,
            }));
        }
    }
    Ok(())
}

/// Refuses a database that has records of a model in another shape under the same version, or,
/// unless they are to be kept unread, of an earlier version that this program cannot convert.
pub(crate) fn check_shapes(engine: &Engine, layout: &Layout, keep_unread: bool) -> Result<(), StoreError> {
    let snapshot = engine.snapshot()?;
    let mut known = known_models(&snapshot, &bare_meta())?;
    known.append(&mut known_models(&snapshot, &tables::META)?);
    for model in layout.models() {
        let (name, version) = (model.schema.name, model.schema.version);
        let mut earlier = BTreeSet::new();
        for encoding in ENCODINGS {
            let mut shapes = known_shapes(&snapshot, model, encoding)?;
            let shape = shapes.remove(&version).flatten();
            let difference = shape.and_then(|shape| match encoding {
                Encoding::Fields => shape.difference_by_fields(&model.shape),
                _ => shape.difference(&model.shape),
            });
            if let Some(Difference { place, found, expected }) = difference {
                let records = count_of_version(&snapshot, model, version, Some(encoding))?;
                if records > 0 {
                    let model = name;
                    return Err(
                        OpenError::OtherShape { model, version, records, place, found, expected }.into()
                    );
                }
            }
            earlier.extend(shapes.into_keys());
        }
        earlier
            .extend(known.get(&model.marked).and_then(|description| Description::parse(description).version));
        earlier.retain(|earlier| *earlier < version && !keep_unread && !model.reads(*earlier));
        for earlier in earlier {
            let records = count_of_version(&snapshot, model, earlier, None)?;
            if records > 0 {
                return Err(OpenError::NoConversion { model: name, found: earlier, version, records }.into());
            }
        }
    }
    Ok(())
}

/// The encodings of payloads.
const ENCODINGS: [Encoding; 2] = [Encoding::Fields, Encoding::Postcard];

/// Returns the shapes in which records of a model were written in an encoding, by version; a shape
/// is `None` if it cannot be read.
fn known_shapes(
    snapshot: &Snapshot,
    model: &ModelTables,
    encoding: Encoding,
) -> Result<BTreeMap<u32, Option<Shape>>, StoreError> {
    let (prefix, mut known) = (tables::shapes_prefix(encoding, &model.marked), BTreeMap::new());
    for entry in snapshot.prefix(&tables::META, &prefix)? {
        let Some(entry) = unless_damaged(entry.map(Some))? else { continue };
        if let Some(version) = entry.key().strip_prefix(prefix.as_slice()).and_then(|key| key.try_into().ok())
        {
            known.insert(u32::from_be_bytes(version), Shape::parse(entry.value()));
        }
    }
    Ok(known)
}

/// Counts the records of a model that were written in a version, at least in part, in one encoding
/// or in any.
fn count_of_version(
    snapshot: &Snapshot,
    model: &ModelTables,
    version: u32,
    encoding: Option<Encoding>,
) -> Result<u64, StoreError> {
    let is_of_version = |payload: &[u8]| {
        split_payload(payload).is_ok_and(|(found, value)| {
            found == version && encoding.is_none_or(|encoding| value.encoding() == encoding)
        })
    };
    let table = tables::records_table(&model.marked);
    let mut records = 0;
    for table in [TableName::once(&table), TableName::bare(&table)] {
        for entry in snapshot.all(&table)? {
            let Some(entry) = unless_damaged(entry.map(Some))? else { continue };
            let envelope = Envelope::parse(entry.value());
            records += u64::from(envelope.is_ok_and(|envelope| any_payload(&envelope, is_of_version)));
        }
    }
    Ok(records)
}

/// Remembers the shape of all that was written of a model's version, and forgets those of versions
/// of which there are no records any more.
fn write_shape(engine: &Engine, model: &ModelTables, keep_unread: bool) -> Result<(), StoreError> {
    let (snapshot, version) = (engine.snapshot()?, model.schema.version);
    let is_gone = |earlier: &u32| *earlier < version && !keep_unread && !model.reads(*earlier);
    let mut gone = Vec::new();
    let mut shape = model.shape.clone();
    for encoding in ENCODINGS {
        let known = known_shapes(&snapshot, model, encoding)?;
        let of = |version| tables::shape_key(encoding, &model.marked, version);
        gone.extend(known.keys().copied().filter(is_gone).map(of));
        let Some(former) = known.get(&version).and_then(Option::as_ref) else { continue };
        match encoding {
            // The database has been checked: what differs is not there.
            Encoding::Fields if former.difference_by_fields(&model.shape).is_none() => {
                shape = shape.with(former);
            }
            Encoding::Fields => {}
            _ if former.difference(&model.shape).is_some() => gone.push(of(version)),
            _ => {}
        }
    }
    let key = tables::shape_key(Encoding::Fields, &model.marked, version);
    let bytes = shape.to_bytes();
    let is_known = snapshot.get(&tables::META, &key)?.is_some_and(|known| *known == *bytes);
    if gone.is_empty() && is_known {
        return Ok(());
    }
    engine.write(Sync::Now, |tables| {
        gone.iter().try_for_each(|gone| tables.remove(&tables::META, gone))?;
        tables.insert(&tables::META, &key, &bytes)
    })
}

/// Tells programs of formats without checksums that they cannot read the database.
pub(crate) fn write_marker(tables: &mut dyn WriteTables) -> Result<(), StoreError> {
    tables.insert(&bare_meta(), tables::META_FORMAT, &tables::FORMAT.to_be_bytes())
}

/// Adds the checksums to a database that is of a format without them, at least in part.
fn add_missing_checksums(engine: &Engine) -> Result<(), StoreError> {
    let snapshot = engine.snapshot()?;
    let is_checked = Found::read(&snapshot)?.is_none_or(|found| found.is_checked);
    let has_bare = snapshot.bare_tables()?.iter().any(|table| !is_marker(table));
    drop(snapshot);
    if has_bare || !is_checked { add_checksums(engine) } else { Ok(()) }
}

/// Moves every table of a format without checksums to one with them, a bounded number of entries in
/// each transaction. After an interruption the next call continues from there.
pub(crate) fn add_checksums(engine: &Engine) -> Result<(), StoreError> {
    let bare_meta = bare_meta();
    // The facts go first, and together, so that they are in one of the two tables.
    let facts = step(engine, &bare_meta, Span::ALL)?;
    engine.write(Sync::Now, |tables| {
        if tables.get(&tables::META, tables::META_FORMAT)?.is_none() {
            for (key, value) in &facts {
                tables.insert(&tables::META, key, value)?;
            }
        }
        facts.iter().try_for_each(|(key, _)| tables.remove(&bare_meta, key))?;
        write_marker(tables)
    })?;
    for bare in engine.snapshot()?.bare_tables()?.iter().filter(|table| !is_marker(table)) {
        let table = TableName::once(bare.as_str());
        // sled's numbers of entries, which are kept otherwise now.
        let is_kept = bare.as_str() != FORMER_COUNTS;
        for_each(engine, bare, Span::ALL, |tables, entries| {
            for (key, value) in entries {
                if is_kept {
                    tables.insert(&table, key, value)?;
                }
                tables.remove(bare, key)?;
            }
            Ok(())
        })?;
        engine.drop_empty(bare)?;
    }
    Ok(())
}

/// Brings a database of format `format` up to date before its first use.
pub(crate) fn migrate(
    engine: &Engine,
    layout: &Layout,
    format: u32,
    keep_unread: bool,
) -> Result<(), StoreError> {
    let definition = layout.schema().map_or("", |schema| schema.name);
    let migration = Migration { definition, engine };
    add_missing_checksums(engine)?;
    if format < tables::INDEXES_FORMAT {
        leave_former_format(engine)?;
    }
    let known = known_models(&engine.snapshot()?, &tables::META)?;
    for (name, description) in &known {
        let is_ours = layout.models().iter().any(|model| model.marked == *name);
        if layout.schema().is_some() && !is_ours {
            tracing::info!(
                model = name,
                "the program has no such model any more: its records become foreign"
            );
            migration.retire(name, &Description::parse(description))?;
        }
    }
    for model in layout.models() {
        let before = known.get(&model.marked);
        if before != Some(&model.description()) {
            let before = before.map(|before| Description::parse(before));
            migration.update(model, before)?;
        }
        write_shape(engine, model, keep_unread)?;
    }
    if format < tables::SETS_FORMAT {
        // Not before every record is in its table; a program that finds the former format begins
        // anew.
        rebuild(engine, layout)?;
    }
    if format < tables::FORMAT {
        engine.write(Sync::Now, write_format)?;
    }
    load_flags(&engine.snapshot()?, layout)
}

/// Rebuilds data that follows from signed records. Until the end the database has the former
/// format, so that an interrupted rebuild is repeated when the database is opened. No write may be
/// in progress.
pub(crate) fn rebuild_marked(engine: &Engine, layout: &Layout) -> Result<(), StoreError> {
    engine.write(Sync::Now, |tables| {
        tables.insert(&tables::META, tables::META_FORMAT, &tables::REBUILT_FORMAT.to_be_bytes())
    })?;
    rebuild(engine, layout)?;
    engine.write(Sync::Now, write_format)
}

/// Makes a database of format 1 one of format 2, all of whose models are unfinished.
fn leave_former_format(engine: &Engine) -> Result<(), StoreError> {
    let known = known_models(&engine.snapshot()?, &tables::META)?;
    engine.write(Sync::Now, |tables| {
        for (name, description) in &known {
            let indexes = tables::indexes_of_format_1(description);
            let unfinished = tables::unfinished_description(&indexes);
            tables.insert(&tables::META, &tables::model_key(name), &unfinished)?;
        }
        tables.insert(&tables::META, tables::META_FORMAT, &tables::INDEXES_FORMAT.to_be_bytes())
    })
}

/// Builds all indexes of all models again. Nobody may be writing.
pub(crate) fn rebuild_all_indexes(engine: &Engine, layout: &Layout) -> Result<(), StoreError> {
    let definition = layout.schema().map_or("", |schema| schema.name);
    remove_each(engine, &tables::BLOBS, |entry| entry.len() != BLOB_HASH_BYTES)?;
    layout.models().iter().try_for_each(|model| rebuild_indexes(engine, definition, model))?;
    load_flags(&engine.snapshot()?, layout)
}

fn rebuild_indexes(engine: &Engine, definition: &str, model: &ModelTables) -> Result<(), StoreError> {
    let description = engine.snapshot()?.get(&tables::META, &tables::model_key(&model.marked))?;
    let description = description.map(|description| Description::parse(&description));
    Migration { definition, engine }.update(model, description)
}

/// Returns the description of each model that the database has tables for.
fn known_models(snapshot: &Snapshot, facts: &TableName) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
    let mut known = BTreeMap::new();
    for entry in snapshot.prefix(facts, tables::META_MODEL)? {
        // A model of which nothing can be read is brought up to date as one that is new.
        let Some(entry) = unless_damaged(entry.map(Some))? else { continue };
        let name = entry.key().strip_prefix(tables::META_MODEL).unwrap_or_default();
        known.insert(String::from_utf8_lossy(name).into_owned(), entry.value().to_vec());
    }
    Ok(known)
}

fn load_flags(snapshot: &Snapshot, layout: &Layout) -> Result<(), StoreError> {
    for model in layout.models() {
        let is_set = |key: &[u8]| match snapshot.get_with(&tables::META, key, |_| ()) {
            // An entry that cannot be read may exist.
            Err(StoreError::Damage(DamageError::Entry { .. })) => Ok(true),
            set => set.map(|set| set.is_some()),
        };
        let newer = is_set(&tables::newer_key(&model.marked))?;
        model.set_flags(newer, is_set(&tables::stale_key(&model.marked))?);
    }
    Ok(())
}

struct Migration<'a> {
    definition: &'a str,
    engine: &'a Engine,
}

/// An entry that a step is about.
pub(crate) type OwnedEntry = (Vec<u8>, Vec<u8>);

impl Migration<'_> {
    /// Turns the records of a model that the schema no longer has into foreign records.
    fn retire(&self, name: &str, before: &Description) -> Result<(), StoreError> {
        self.begin(name, before)?;
        let (records, prefix) =
            (TableName::once(&tables::records_table(name)), RecordKey::prefix(self.definition, name));
        self.for_each(&records, Span::ALL, |tables, entries| {
            for (primary, envelope) in entries {
                let key = [prefix.as_slice(), primary].concat();
                let sent = Envelope::parse(envelope).map(|envelope| envelope.to_wire());
                let envelope = sent.as_ref().map_or(envelope.as_slice(), Envelope::as_bytes);
                tables.insert(&tables::FOREIGN, &key, envelope)?;
                tables.remove(&records, primary)?;
            }
            Ok(())
        })?;
        self.clear_indexes(name, before)?;
        sync_set::clear(self.engine, &TableName::once(&tables::sync_table(name)))?;
        self.engine.write(Sync::Now, |tables| {
            tables.remove(&tables::META, &tables::newer_key(name))?;
            tables.remove(&tables::META, &tables::stale_key(name))?;
            tables.remove(&tables::META, &tables::model_key(name))
        })
    }

    /// Takes in the foreign records of a model that is new, and builds its indexes.
    fn update(&self, model: &ModelTables, before: Option<Description>) -> Result<(), StoreError> {
        let name = model.marked.as_str();
        let is_new = before.as_ref().is_none_or(|before| before.version.is_none());
        let mut before = before.unwrap_or_default();
        before.indexes.extend(model.schema.indexes.iter().map(|index| index.name.to_owned()));
        self.begin(name, &before)?;
        self.clear_indexes(name, &before)?;
        if is_new {
            self.adopt(model)?;
        }
        let mut newer = false;
        self.for_each(&model.records, Span::ALL, |tables, entries| {
            let mut indexes = IndexChanges::default();
            for (primary, envelope) in entries {
                let merged = merge_anew(model, primary, envelope);
                if let Some(merged) = merged.as_ref().filter(|merged| *merged != envelope) {
                    tables.insert(&model.records, primary, merged)?;
                }
                let envelope = merged.as_ref().unwrap_or(envelope);
                newer |= model.schema.policy == WritePolicy::Merged && has_newer(model, envelope);
                match read(model, primary, envelope) {
                    Reading::Record(keys) => {
                        for (index, key) in keys.iter() {
                            indexes.push(model.index(index)?, key, primary, true);
                        }
                        self.refer(model, primary, &keys, &mut indexes)?;
                    }
                    Reading::Newer => newer = true,
                    Reading::Unreadable | Reading::Misplaced => {}
                }
            }
            indexes.flush(tables)
        })?;
        if is_new {
            sync_set::build(self.engine, self.definition, model)?;
        }
        self.engine.write(Sync::Now, |tables| {
            if newer {
                tables.insert(&tables::META, &tables::newer_key(name), &[])?;
            } else {
                tables.remove(&tables::META, &tables::newer_key(name))?;
            }
            tables.remove(&tables::META, &tables::stale_key(name))?;
            tables.insert(&tables::META, &tables::model_key(name), &model.description())
        })
    }

    /// Marks a model as unfinished.
    fn begin(&self, name: &str, description: &Description) -> Result<(), StoreError> {
        let unfinished = tables::unfinished_description(&description.indexes);
        self.engine
            .write(Sync::Now, |tables| tables.insert(&tables::META, &tables::model_key(name), &unfinished))
    }

    fn adopt(&self, model: &ModelTables) -> Result<(), StoreError> {
        let prefix = RecordKey::prefix(self.definition, &model.marked);
        let end = after_prefix(&prefix);
        self.for_each(&tables::FOREIGN, Span { start: &prefix, end: end.as_deref() }, |tables, entries| {
            for (key, envelope) in entries {
                let primary = key.get(prefix.len()..).unwrap_or_default();
                tables.remove(&tables::FOREIGN, key)?;
                let merged = merge_anew(model, primary, envelope);
                // Records from peers were not checked against the model.
                if matches!(read(model, primary, merged.as_ref().unwrap_or(envelope)), Reading::Misplaced) {
                    forget(tables, &RecordKey::parse(key)?, envelope)?;
                } else {
                    tables.insert(&model.records, primary, envelope)?;
                }
            }
            Ok(())
        })
    }

    /// Adds the references of a record to the blobs that it names.
    fn refer(
        &self,
        model: &ModelTables,
        primary: &[u8],
        keys: &IndexKeys,
        indexes: &mut IndexChanges<'_>,
    ) -> Result<(), StoreError> {
        if keys.blobs().is_empty() {
            return Ok(());
        }
        let key = model.schema.record_key(self.definition, primary)?;
        for blob in keys.blobs() {
            indexes.push(&tables::BLOBS, blob.hash.as_bytes(), key.as_bytes(), true);
        }
        Ok(())
    }

    /// Removes the references of a model's records to blobs, and those whose record key cannot be
    /// read.
    fn clear_references(&self, name: &str) -> Result<(), StoreError> {
        let prefix = RecordKey::prefix(self.definition, name);
        remove_each(self.engine, &tables::BLOBS, |entry| {
            let key = entry.get(BLOB_HASH_BYTES..).filter(|key| !key.is_empty());
            key.is_some_and(|key| key.starts_with(&prefix) || RecordKey::parse(key).is_err())
        })
    }

    fn clear_indexes(&self, name: &str, description: &Description) -> Result<(), StoreError> {
        self.clear_references(name)?;
        for index in &description.indexes {
            remove_each(self.engine, &TableName::once(&tables::index_table(name, index)), |_| true)?;
        }
        Ok(())
    }

    fn for_each(
        &self,
        table: &TableName,
        span: Span<'_>,
        change: impl FnMut(&mut dyn WriteTables, &[OwnedEntry]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for_each(self.engine, table, span, change)
    }
}

/// Returns the stored form of a bundle: its contributions, merged by this program's model.
fn merge_anew(model: &ModelTables, primary: &[u8], envelope: &[u8]) -> Option<Vec<u8>> {
    let bundle = Envelope::parse(envelope).ok().filter(Envelope::is_bundle)?;
    Some(merge::merged(model.schema, primary, &bundle).0.as_bytes().to_vec())
}

fn has_newer(model: &ModelTables, envelope: &[u8]) -> bool {
    Envelope::parse(envelope).is_ok_and(|envelope| model.has_newer(&envelope))
}

/// Removes the position, expiry and schedule of a record that is removed.
pub(crate) fn forget(
    tables: &mut dyn WriteTables,
    key: &RecordKey,
    envelope: &[u8],
) -> Result<(), StoreError> {
    if let Some(lease) = unless_damaged(tables.get(&tables::LEASES, key.as_bytes()))? {
        if let Some(lease) = LeaseRow::parse(&lease) {
            tables.remove(&tables::RENEWALS, &tables::time_key(lease.due, key))?;
        }
        tables.remove(&tables::LEASES, key.as_bytes())?;
    }
    let mut usage = UsageChanges::default();
    if let Some(signed) = Envelope::parse(envelope).ok().filter(Envelope::is_signed) {
        tables.remove(&tables::POSITIONS, &tables::position_key(key))?;
        usage.remove(key, &signed);
    }
    usage.flush(tables)?;
    if let Some(expires) = Envelope::parse(envelope).ok().and_then(|envelope| envelope.expires()) {
        tables.remove(&tables::EXPIRY, &tables::time_key(expires, key))?;
    }
    if let Some(due) = unless_damaged(tables.get(&tables::SCHEDULE, key.as_bytes()))? {
        let due = due.as_slice().try_into().map_or(0, u64::from_be_bytes);
        tables.remove(&tables::SCHEDULE, key.as_bytes())?;
        tables.remove(&tables::DUE, &tables::time_key(due, key))?;
    }
    Ok(())
}

/// Removes the entries of a table whose keys are chosen, damaged ones too, a bounded number in each
/// transaction.
pub(crate) fn remove_each(
    engine: &Engine,
    table: &TableName,
    is_chosen: impl Fn(&[u8]) -> bool,
) -> Result<(), StoreError> {
    let mut start = Vec::new();
    loop {
        let keys = step_keys(engine, table, &start)?;
        let Some(last) = keys.last() else { return Ok(()) };
        start.clone_from(last);
        start.push(0);
        engine.write(Sync::Now, |tables| {
            keys.iter().filter(|key| is_chosen(key)).try_for_each(|key| tables.remove(table, key))
        })?;
    }
}

fn step_keys(engine: &Engine, table: &TableName, start: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut keys = Vec::new();
    for entry in engine.snapshot()?.range(table, Span { start, end: None })?.take(STEP_ENTRIES) {
        match entry {
            Err(StoreError::Damage(DamageError::Entry { entry, .. })) => keys.push(entry),
            entry => keys.push(entry?.key().to_vec()),
        }
    }
    Ok(keys)
}

/// Calls `change` with the entries of a span that can be read, a bounded number in each
/// transaction.
pub(crate) fn for_each(
    engine: &Engine,
    table: &TableName,
    span: Span<'_>,
    mut change: impl FnMut(&mut dyn WriteTables, &[OwnedEntry]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut start = span.start.to_vec();
    loop {
        let entries = step(engine, table, Span { start: &start, end: span.end })?;
        let Some((last, _)) = entries.last() else { return Ok(()) };
        start.clone_from(last);
        start.push(0);
        engine.write(Sync::Now, |tables| change(tables, &entries))?;
    }
}

fn step(engine: &Engine, table: &TableName, span: Span<'_>) -> Result<Vec<OwnedEntry>, StoreError> {
    let mut entries = Vec::new();
    let mut bytes = 0;
    for entry in engine.snapshot()?.range(table, span)?.readable() {
        let entry = entry?;
        bytes += entry.key().len() + entry.value().len();
        entries.push((entry.key().to_vec(), entry.value().to_vec()));
        if entries.len() >= STEP_ENTRIES || bytes >= STEP_BYTES {
            break;
        }
    }
    Ok(entries)
}

/// The result of reading a stored record of a model.
pub(crate) enum Reading {
    /// A record with these secondary keys.
    Record(IndexKeys),
    /// A record of a later version of the model; it is kept for a program that knows it.
    Newer,
    /// Nothing, but a program with another version of the model may; it is kept for that one.
    Unreadable,
    /// A record that belongs under another key, or has more secondary keys than any may have.
    Misplaced,
}

pub(crate) fn read(model: &ModelTables, primary: &[u8], envelope: &[u8]) -> Reading {
    let Ok(envelope) = Envelope::parse(envelope) else { return Reading::Unreadable };
    if model.is_newer(envelope.payload()) {
        return Reading::Newer;
    }
    match model.schema.keys_of(envelope.payload()) {
        None => Reading::Unreadable,
        Some(keys)
            if keys.primary != primary
                || check_index_keys(model.schema.indexes, &keys.secondary).is_err() =>
        {
            Reading::Misplaced
        }
        Some(keys) => Reading::Record(keys.secondary),
    }
}
