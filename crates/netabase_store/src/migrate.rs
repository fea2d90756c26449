//! Brings the tables of a database in line with the models of this program.
//!
//! The database remembers each model's version and indexes. An index that is new, or whose model has
//! another version, is built again. Records that came while the program did not know their model, or
//! whose model it knows no more, are foreign records; they change tables when the model comes or goes.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::admit::check_index_keys;
use crate::engine::{Engine, Snapshot, WriteTables};
use crate::envelope::Envelope;
use crate::error::StoreError;
use crate::options::StorageBackend;
use crate::record_key::RecordKey;
use crate::schema::{DefinitionSchema, IndexKeys};
use crate::tables::{self, Layout, ModelTables};

/// Refuses a database of another format or definition, and marks a new one.
pub(crate) fn check_format(
    engine: &Engine,
    path: &Path,
    backend: StorageBackend,
    schema: Option<&'static DefinitionSchema>,
) -> Result<(), StoreError> {
    // A store without a schema has a definition without a name.
    let expected = schema.map_or("", |schema| schema.name);
    let not_ours = |why: &str| {
        let source = Arc::new(io::Error::other(why));
        StoreError::NotADatabase { path: path.to_owned(), backend, source }
    };
    let snapshot = engine.snapshot()?;
    let Some(format) = snapshot.get(tables::META, tables::META_FORMAT)? else {
        if !snapshot.is_empty()? {
            return Err(not_ours("it holds the tables of another program"));
        }
        return engine.write(|tables| {
            tables.insert(tables::META, tables::META_FORMAT, &tables::FORMAT.to_be_bytes())?;
            tables.insert(tables::META, tables::META_DEFINITION, expected.as_bytes())
        });
    };
    let found = format.as_slice().try_into().map_or(0, u32::from_be_bytes);
    if found == 0 {
        return Err(not_ours("its format number is damaged"));
    }
    if found != tables::FORMAT {
        return Err(StoreError::UnknownFormat { found, known: tables::FORMAT });
    }
    let found = snapshot.get(tables::META, tables::META_DEFINITION)?.unwrap_or_default();
    if found != expected.as_bytes() {
        return Err(StoreError::OtherDefinition {
            found: String::from_utf8_lossy(&found).into_owned(),
            expected,
        });
    }
    Ok(())
}

/// Does what is needed, all or nothing, before anybody uses the database.
pub(crate) fn migrate(engine: &Engine, layout: &Layout) -> Result<(), StoreError> {
    let Some(schema) = layout.schema() else { return Ok(()) };
    let snapshot = engine.snapshot()?;
    let known = known_models(&snapshot)?;
    let changed: Vec<_> = layout
        .models()
        .iter()
        .filter(|model| known.get(model.schema.name) != Some(&model.description()))
        .collect();
    let gone: Vec<_> = known.iter().filter(|(name, _)| layout.model(name).is_none()).collect();
    if changed.is_empty() && gone.is_empty() {
        return Ok(());
    }
    engine.write(|tables| {
        let mut migration = Migration { definition: schema.name, snapshot: &snapshot, tables };
        for (name, description) in &gone {
            migration.retire(name, description)?;
        }
        for model in &changed {
            migration.update(model, known.get(model.schema.name))?;
        }
        Ok(())
    })
}

/// Returns what the database says of each model that it has tables for.
fn known_models(snapshot: &Snapshot) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
    let mut known = BTreeMap::new();
    for entry in snapshot.prefix(tables::META, tables::META_MODEL)? {
        let (key, description) = entry?;
        let name = key.strip_prefix(tables::META_MODEL).unwrap_or_default();
        known.insert(String::from_utf8_lossy(name).into_owned(), description);
    }
    Ok(known)
}

struct Migration<'a> {
    definition: &'static str,
    /// The tables before the migration.
    snapshot: &'a Snapshot,
    tables: &'a mut dyn WriteTables,
}

impl Migration<'_> {
    /// Makes the records of a model that has gone foreign records.
    fn retire(&mut self, name: &str, description: &[u8]) -> Result<(), StoreError> {
        let records = tables::records_table(name);
        for entry in self.snapshot.all(&records)? {
            let (primary, envelope) = entry?;
            let key = RecordKey::new(self.definition, name, &primary)?;
            self.tables.insert(tables::FOREIGN, key.as_bytes(), &envelope)?;
            self.tables.remove(&records, &primary)?;
        }
        self.clear_indexes(name, description)?;
        self.tables.remove(tables::META, &tables::model_key(name))
    }

    /// Takes in the foreign records of a model that is new, and builds the indexes of one that has
    /// changed.
    fn update(&mut self, model: &ModelTables, before: Option<&Vec<u8>>) -> Result<(), StoreError> {
        let name = model.schema.name;
        match before {
            Some(description) => {
                self.clear_indexes(name, description)?;
                for entry in self.snapshot.all(&model.records)? {
                    let (primary, envelope) = entry?;
                    if let Reading::Record(keys) = read(model, &primary, &envelope) {
                        self.index(model, &primary, &keys)?;
                    }
                }
            }
            None => self.adopt(model)?,
        }
        self.tables.insert(tables::META, &tables::model_key(name), &model.description())
    }

    fn adopt(&mut self, model: &ModelTables) -> Result<(), StoreError> {
        let prefix = RecordKey::new(self.definition, model.schema.name, &[])?;
        for entry in self.snapshot.prefix(tables::FOREIGN, prefix.as_bytes())? {
            let (key, envelope) = entry?;
            let primary = key.get(prefix.as_bytes().len()..).unwrap_or_default();
            self.tables.remove(tables::FOREIGN, &key)?;
            // What peers have sent was not checked against the model.
            let reading = read(model, primary, &envelope);
            if !matches!(reading, Reading::Misplaced) {
                self.tables.insert(&model.records, primary, &envelope)?;
            }
            if let Reading::Record(keys) = reading {
                self.index(model, primary, &keys)?;
            }
        }
        Ok(())
    }

    fn index(&mut self, model: &ModelTables, primary: &[u8], keys: &IndexKeys) -> Result<(), StoreError> {
        for (index, key) in keys.iter() {
            self.tables.insert(model.index(index)?, &[key, primary].concat(), &[])?;
        }
        Ok(())
    }

    fn clear_indexes(&mut self, name: &str, description: &[u8]) -> Result<(), StoreError> {
        for index in tables::described_indexes(description) {
            let table = tables::index_table(name, &index);
            for entry in self.snapshot.all(&table)? {
                self.tables.remove(&table, &entry?.0)?;
            }
        }
        Ok(())
    }
}

/// What this program makes of what is stored as a record of a model.
enum Reading {
    /// A record with these secondary keys.
    Record(IndexKeys),
    /// Nothing, but a program with another version of the model may; it is kept for that one.
    Unreadable,
    /// A record that belongs under another key, or has more secondary keys than any may have.
    Misplaced,
}

fn read(model: &ModelTables, primary: &[u8], envelope: &[u8]) -> Reading {
    let envelope = Envelope::parse(envelope).ok();
    match envelope.and_then(|envelope| model.schema.keys_of(envelope.payload())) {
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
