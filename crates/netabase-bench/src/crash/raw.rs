//! The index tables without the store, which passes over entries that lead nowhere.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use redb::{ReadableDatabase, ReadableTableMetadata, TableDefinition, TableError};

use super::Backend;

/// How long sled's own threads may hold a database that was closed.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Counts the indexes that have not as many entries as they must.
pub(super) fn wrong_indexes(
    path: &Path,
    backend: Backend,
    entries: &BTreeMap<(&str, &str), u64>,
) -> anyhow::Result<u64> {
    let tables = entries.iter().map(|((model, index), count)| (format!("index/{model}/{index}"), *count));
    match backend {
        Backend::Redb => redb(path, tables),
        Backend::Sled => sled(path, tables),
    }
}

fn redb(path: &Path, tables: impl Iterator<Item = (String, u64)>) -> anyhow::Result<u64> {
    let database = redb::Database::open(path)?;
    let snapshot = database.begin_read()?;
    let mut wrong = 0;
    for (table, count) in tables {
        let definition: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(&table);
        let found = match snapshot.open_table(definition) {
            Ok(table) => table.len()?,
            Err(TableError::TableDoesNotExist(_)) => 0,
            Err(error) => return Err(error.into()),
        };
        wrong += u64::from(found != count);
    }
    Ok(wrong)
}

fn sled(path: &Path, tables: impl Iterator<Item = (String, u64)>) -> anyhow::Result<u64> {
    let begin = Instant::now();
    let database = loop {
        match sled::open(path) {
            Err(sled::Error::Io(_)) if begin.elapsed() < LOCK_PATIENCE => {
                thread::sleep(Duration::from_millis(1));
            }
            opened => break opened?,
        }
    };
    let mut wrong = 0;
    for (table, count) in tables {
        let mut prefix = u16::try_from(table.len())?.to_be_bytes().to_vec();
        prefix.extend(table.as_bytes());
        let mut found = 0;
        for entry in database.scan_prefix(prefix) {
            entry?;
            found += 1;
        }
        wrong += u64::from(found != count);
    }
    Ok(wrong)
}
