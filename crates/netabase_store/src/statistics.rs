//! How many records there are, and how much space they take.

use crate::engine::{Snapshot, TableName};
use crate::envelope::EnvelopeRef;
use crate::error::StoreError;
use crate::history::{Position, Row};
use crate::store::NetabaseStore;
use crate::tables::{self, ModelTables};

/// What [`NetabaseStore::statistics`] has counted.
///
/// Sizes are those of the keys and values themselves: what the database needs around them, and what it
/// has not given back, is only part of [`disk_bytes`](Self::disk_bytes).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// The models of the schema, in its order.
    pub models: Vec<ModelStatistics>,
    /// Records of models that the schema does not have.
    pub foreign: TableStatistics,
    /// What is kept of records that were deleted.
    pub tombstones: TableStatistics,
    /// How many records expire.
    pub expiring: u64,
    /// How many records are to be published at some time.
    pub scheduled: u64,
    /// The changes that are kept for those who follow them.
    pub history: HistoryStatistics,
    /// The size of the database's file, or of the files in its directory; `None` in memory.
    pub disk_bytes: Option<u64>,
    /// How many groups of writes were committed since the store was opened.
    pub commits: u64,
}

/// The records of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelStatistics {
    /// The model's name.
    pub name: &'static str,
    /// Its records, with their envelopes.
    pub records: TableStatistics,
    /// How many of them were written by a later version of the program.
    pub newer: u64,
    /// Its secondary keys, in the order of the schema.
    pub indexes: Vec<IndexStatistics>,
}

/// The entries of one secondary key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexStatistics {
    /// The secondary key's name.
    pub name: &'static str,
    /// Its entries.
    pub entries: TableStatistics,
}

/// The entries of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TableStatistics {
    /// How many there are.
    pub count: u64,
    /// The size of their keys, in bytes.
    pub key_bytes: u64,
    /// The size of their values, in bytes.
    pub value_bytes: u64,
}

/// The changes that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HistoryStatistics {
    /// How many there are.
    pub changes: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// The number of the oldest; `None` if none is kept.
    pub first: Option<u64>,
    /// The number of the newest change ever, kept or not; 0 if there was none yet.
    pub last: u64,
}

impl NetabaseStore {
    /// Counts and measures everything in the store.
    ///
    /// It reads the whole database once, without holding up any writer and without keeping more than
    /// one entry in memory. The numbers are those of one moment; on sled, which has no snapshots, each
    /// table is as it was while it was read.
    pub fn statistics(&self) -> Result<Statistics, StoreError> {
        let core = self.core();
        let snapshot = core.whole_snapshot()?;
        let count = |table| measure(&snapshot, table, |_| ()).map(|table| table.count);
        let models = core.layout().models().iter().map(|model| model_of(&snapshot, model));
        Ok(Statistics {
            models: models.collect::<Result<Vec<_>, StoreError>>()?,
            foreign: measure(&snapshot, &tables::FOREIGN, |_| ())?,
            tombstones: measure(&snapshot, &tables::TOMBSTONES, |_| ())?,
            expiring: count(&tables::EXPIRY)?,
            scheduled: count(&tables::SCHEDULE)?,
            history: history_of(&snapshot)?,
            disk_bytes: core.engine().disk_bytes()?,
            commits: core.commits(),
        })
    }
}

fn model_of(snapshot: &Snapshot, model: &ModelTables) -> Result<ModelStatistics, StoreError> {
    let mut newer = 0;
    let records = measure(snapshot, &model.records, |envelope| {
        let envelope = EnvelopeRef::parse(envelope);
        newer += u64::from(envelope.is_ok_and(|envelope| model.is_newer(envelope.payload())));
    })?;
    let index = |(schema, table): (&crate::schema::IndexSchema, &TableName)| {
        Ok(IndexStatistics { name: schema.name, entries: measure(snapshot, table, |_| ())? })
    };
    let indexes = model.schema.indexes.iter().zip(&model.indexes).map(index);
    let indexes = indexes.collect::<Result<Vec<_>, StoreError>>()?;
    Ok(ModelStatistics { name: model.schema.name, records, newer, indexes })
}

/// Measures a table, and calls `look` with every value.
fn measure(
    snapshot: &Snapshot,
    table: &TableName,
    mut look: impl FnMut(&[u8]),
) -> Result<TableStatistics, StoreError> {
    let mut statistics = TableStatistics::default();
    for entry in snapshot.all(table)? {
        let entry = entry?;
        statistics.count += 1;
        statistics.key_bytes += bytes(entry.key());
        statistics.value_bytes += bytes(entry.value());
        look(entry.value());
    }
    Ok(statistics)
}

fn history_of(snapshot: &Snapshot) -> Result<HistoryStatistics, StoreError> {
    let mut history = HistoryStatistics { last: Position::load(snapshot)?.next - 1, ..Default::default() };
    for entry in snapshot.all(&tables::HISTORY)? {
        let entry = entry?;
        history.bytes += bytes(entry.value());
        if let Some(row) = Row::parse(entry.key(), entry.value()).filter(|row| row.is_kept) {
            history.first.get_or_insert(row.first);
            history.changes += row.count;
        }
    }
    Ok(history)
}

fn bytes(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
