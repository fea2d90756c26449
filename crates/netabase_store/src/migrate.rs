//! Brings the tables of a database in line with the models of this program.
//!
//! The database remembers each model's version and indexes. If they differ from the program's, the
//! model's indexes are built again. Records that came while the program did not know their model, or
//! whose model it knows no more, are foreign records; they change tables when the model comes or goes. A
//! model is known by its name with the mark of its policy: under another policy it is another model.
//!
//! The work is done in steps of bounded size. The first step marks the model as unfinished, the last
//! one writes its new description, so that a program which finds it in between begins anew.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::admit::check_index_keys;
use crate::blobs::BLOB_HASH_BYTES;
use crate::engine::{Engine, Snapshot, Span, Sync, TableName, WriteTables};
use crate::envelope::Envelope;
use crate::error::StoreError;
use crate::index_changes::IndexChanges;
use crate::key_range::after_prefix;
use crate::lease::LeaseRow;
use crate::merge;
use crate::options::StorageBackend;
use crate::rebuild::rebuild;
use crate::record_key::{RecordKey, WritePolicy};
use crate::schema::{DefinitionSchema, IndexKeys};
use crate::sync_set;
use crate::tables::{self, Description, Layout, ModelTables};
use crate::usage::UsageChanges;

/// The most entries that one step changes.
const STEP_ENTRIES: usize = 16_384;
/// The most bytes that one step reads, unless one entry is larger.
const STEP_BYTES: usize = 8 * 1024 * 1024;

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
        StoreError::NotADatabase { path: path.to_owned(), backend, source }
    };
    let snapshot = engine.snapshot()?;
    let Some(format) = snapshot.get(&tables::META, tables::META_FORMAT)? else {
        if !snapshot.is_empty()? {
            return Err(not_ours("it holds the tables of another program"));
        }
        return engine.write(Sync::Now, |tables| {
            write_format(tables)?;
            tables.insert(&tables::META, tables::META_DEFINITION, expected.as_bytes())?;
            Ok(tables::FORMAT)
        });
    };
    let format = format.as_slice().try_into().map_or(0, u32::from_be_bytes);
    if format == 0 {
        return Err(not_ours("its format number is damaged"));
    }
    if format > tables::FORMAT {
        return Err(StoreError::UnknownFormat { found: format, known: tables::FORMAT });
    }
    let found = snapshot.get(&tables::META, tables::META_DEFINITION)?.unwrap_or_default();
    if found != expected.as_bytes() {
        return Err(StoreError::OtherDefinition {
            found: String::from_utf8_lossy(&found).into_owned(),
            expected,
        });
    }
    Ok(format)
}

fn write_format(tables: &mut dyn WriteTables) -> Result<(), StoreError> {
    tables.insert(&tables::META, tables::META_FORMAT, &tables::FORMAT.to_be_bytes())
}

/// Does what is needed before anybody uses a database of format `format`.
pub(crate) fn migrate(engine: &Engine, layout: &Layout, format: u32) -> Result<(), StoreError> {
    let definition = layout.schema().map_or("", |schema| schema.name);
    let migration = Migration { definition, engine };
    if format < tables::INDEXES_FORMAT {
        leave_former_format(engine)?;
    }
    let known = known_models(&engine.snapshot()?)?;
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
    }
    if format < tables::FORMAT {
        // Not before every record is in its table; a program that finds the former format begins anew.
        rebuild(engine, layout)?;
        engine.write(Sync::Now, write_format)?;
    }
    load_flags(&engine.snapshot()?, layout)
}

/// Makes anew what follows from signed records. Until that is done the database is one of the former format, so that it
/// is done when the database is opened if the program ends before. Nobody may be writing.
pub(crate) fn rebuild_marked(engine: &Engine, layout: &Layout) -> Result<(), StoreError> {
    engine.write(Sync::Now, |tables| {
        tables.insert(&tables::META, tables::META_FORMAT, &tables::REBUILT_FORMAT.to_be_bytes())
    })?;
    rebuild(engine, layout)?;
    engine.write(Sync::Now, write_format)
}

/// Makes a database of format 1 one of format 2, all of whose models are unfinished.
fn leave_former_format(engine: &Engine) -> Result<(), StoreError> {
    let known = known_models(&engine.snapshot()?)?;
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
    for_each(engine, &tables::BLOBS, Span::ALL, |tables, entries| {
        let references = entries.iter().filter(|(entry, _)| entry.len() != BLOB_HASH_BYTES);
        references.into_iter().try_for_each(|(entry, _)| tables.remove(&tables::BLOBS, entry))
    })?;
    layout.models().iter().try_for_each(|model| rebuild_indexes(engine, definition, model))?;
    load_flags(&engine.snapshot()?, layout)
}

fn rebuild_indexes(engine: &Engine, definition: &str, model: &ModelTables) -> Result<(), StoreError> {
    let description = engine.snapshot()?.get(&tables::META, &tables::model_key(&model.marked))?;
    let description = description.map(|description| Description::parse(&description));
    Migration { definition, engine }.update(model, description)
}

/// Returns what the database says of each model that it has tables for.
fn known_models(snapshot: &Snapshot) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
    let mut known = BTreeMap::new();
    for entry in snapshot.prefix(&tables::META, tables::META_MODEL)? {
        let entry = entry?;
        let name = entry.key().strip_prefix(tables::META_MODEL).unwrap_or_default();
        known.insert(String::from_utf8_lossy(name).into_owned(), entry.value().to_vec());
    }
    Ok(known)
}

fn load_flags(snapshot: &Snapshot, layout: &Layout) -> Result<(), StoreError> {
    for model in layout.models() {
        let newer = snapshot.get(&tables::META, &tables::newer_key(&model.marked))?;
        let stale = snapshot.get(&tables::META, &tables::stale_key(&model.marked))?;
        model.set_flags(newer.is_some(), stale.is_some());
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
    /// Makes the records of a model that has gone foreign records.
    fn retire(&self, name: &str, before: &Description) -> Result<(), StoreError> {
        self.begin(name, before)?;
        let (records, prefix) =
            (TableName::once(tables::records_table(name)), RecordKey::prefix(self.definition, name));
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
        sync_set::clear(self.engine, &TableName::once(tables::sync_table(name)))?;
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
                // What peers have sent was not checked against the model.
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
        for hash in keys.blobs() {
            indexes.push(&tables::BLOBS, hash.as_bytes(), key.as_bytes(), true);
        }
        Ok(())
    }

    /// Removes the references of a model's records to blobs, and those of records that nobody can name.
    fn clear_references(&self, name: &str) -> Result<(), StoreError> {
        let prefix = RecordKey::prefix(self.definition, name);
        self.for_each(&tables::BLOBS, Span::ALL, |tables, entries| {
            for (entry, _) in entries {
                let Some(key) = entry.get(BLOB_HASH_BYTES..).filter(|key| !key.is_empty()) else { continue };
                if key.starts_with(&prefix) || RecordKey::parse(key).is_err() {
                    tables.remove(&tables::BLOBS, entry)?;
                }
            }
            Ok(())
        })
    }

    fn clear_indexes(&self, name: &str, description: &Description) -> Result<(), StoreError> {
        self.clear_references(name)?;
        for index in &description.indexes {
            let table = TableName::once(tables::index_table(name, index));
            self.for_each(&table, Span::ALL, |tables, entries| {
                entries.iter().try_for_each(|(key, _)| tables.remove(&table, key))
            })?;
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

/// Returns what is to be stored of a bundle: its contributions, merged as this program's model says.
fn merge_anew(model: &ModelTables, primary: &[u8], envelope: &[u8]) -> Option<Vec<u8>> {
    let bundle = Envelope::parse(envelope).ok().filter(Envelope::is_bundle)?;
    Some(merge::merged(model.schema, primary, &bundle).0.as_bytes().to_vec())
}

fn has_newer(model: &ModelTables, envelope: &[u8]) -> bool {
    Envelope::parse(envelope).is_ok_and(|envelope| model.has_newer(&envelope))
}

/// Removes what says where a record is that goes, and when it expires and is to be published.
pub(crate) fn forget(
    tables: &mut dyn WriteTables,
    key: &RecordKey,
    envelope: &[u8],
) -> Result<(), StoreError> {
    if let Some(lease) = tables.get(&tables::LEASES, key.as_bytes())? {
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
    if let Some(due) = tables.get(&tables::SCHEDULE, key.as_bytes())? {
        let due = due.as_slice().try_into().map_or(0, u64::from_be_bytes);
        tables.remove(&tables::SCHEDULE, key.as_bytes())?;
        tables.remove(&tables::DUE, &tables::time_key(due, key))?;
    }
    Ok(())
}

/// Calls `change` with the entries of a span, a bounded number in each transaction.
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
    for entry in engine.snapshot()?.range(table, span)? {
        let entry = entry?;
        bytes += entry.key().len() + entry.value().len();
        entries.push((entry.key().to_vec(), entry.value().to_vec()));
        if entries.len() >= STEP_ENTRIES || bytes >= STEP_BYTES {
            break;
        }
    }
    Ok(entries)
}

/// What this program makes of what is stored as a record of a model.
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
