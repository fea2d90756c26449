//! Counts records and the space that they take.

use crate::admin::limits::MAX_LISTED_AUTHORS;
use crate::changes::history::{Position, Row};
use crate::engine::{Snapshot, TableName};
use crate::error::StoreError;
use crate::replica::usage::Usage;
use crate::store::NetabaseStore;
use crate::tables::{self, ModelTables};
use crate::version::envelope::{Author, EnvelopeRef};

/// The result of [`NetabaseStore::statistics`].
///
/// Sizes are those of the keys and values themselves; the overhead of the database and its free
/// pages count only in [`disk_bytes`](Self::disk_bytes).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// The models of the schema, in its order.
    pub models: Vec<ModelStatistics>,
    /// Records of models that the schema does not have.
    pub foreign: TableStatistics,
    /// The tombstones.
    pub tombstones: TableStatistics,
    /// The number of records with an expiry.
    pub expiring: u64,
    /// The number of records with a time of publication.
    pub scheduled: u64,
    /// The usage of this store's own author, tombstones included.
    pub own: Usage,
    /// The usage of all other authors, which
    /// [`StoreOptions::max_replica_bytes`](crate::StoreOptions) bounds.
    pub others: Usage,
    /// The authors with the largest usage, this store's own included, the largest first; at most
    /// 16. Records of several authors count under a key of zeros.
    pub largest_authors: Vec<(Author, Usage)>,
    /// The number of this store's own records that are renewed before they expire.
    pub leases: u64,
    /// The changes that are kept for followers.
    pub history: HistoryStatistics,
    /// The size of the database's file, or of the files in its directory; `None` in memory.
    pub disk_bytes: Option<u64>,
    /// The number of groups of writes that were committed since the store was opened.
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
    /// The number of those that a later version of the program wrote.
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
    /// The number of entries.
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
    /// The number of changes.
    pub changes: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// The number of the oldest kept change, or `None` if none is kept.
    pub first: Option<u64>,
    /// The number of the newest change, kept or not, or 0 if there was none yet.
    pub last: u64,
}

impl NetabaseStore {
    /// Counts and measures the store's tables.
    ///
    /// Blocks in proportion to the size of the database; in an async function use `spawn_blocking`.
    ///
    /// The call reads the whole database once, without blocking writers, and keeps one entry in
    /// memory at a time. The numbers are those of a snapshot; on sled, which has none, each table
    /// is as it was while it was read.
    pub fn statistics(&self) -> Result<Statistics, StoreError> {
        let core = self.core();
        let snapshot = core.whole_snapshot()?;
        let count = |table| measure(&snapshot, table, |_| ()).map(|table| table.count);
        let (own, others, largest_authors) = authors_of(&snapshot, core.author())?;
        let models = core.layout().models().iter().map(|model| model_of(&snapshot, model));
        Ok(Statistics {
            models: models.collect::<Result<Vec<_>, StoreError>>()?,
            foreign: measure(&snapshot, &tables::FOREIGN, |_| ())?,
            tombstones: measure(&snapshot, &tables::TOMBSTONES, |_| ())?,
            expiring: count(&tables::EXPIRY)?,
            scheduled: count(&tables::SCHEDULE)?,
            own,
            others,
            largest_authors,
            leases: count(&tables::LEASES)?,
            history: history_of(&snapshot)?,
            disk_bytes: core.engine().disk_bytes()?,
            commits: core.commits(),
        })
    }

    /// Returns the number of records of each model, in the order of the schema, without reading
    /// them.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    ///
    /// A record whose lifetime is over counts until it is swept, at most a minute later, and so
    /// does one of a later version of the model.
    pub fn record_counts(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        let core = self.core();
        let snapshot = core.engine().snapshot()?;
        let models = core.layout().models().iter();
        models.map(|model| Ok((model.schema.name, snapshot.len(&model.records)?))).collect()
    }

    /// Returns why the store takes no more writes; `None` as long as it does.
    pub fn failure(&self) -> Option<StoreError> {
        self.core().poisoned().or_else(|| self.core().engine().health().failure())
    }
}

/// Returns the authors with the largest usage.
pub(crate) fn largest_authors(snapshot: &Snapshot) -> Result<Largest, StoreError> {
    authors_of(snapshot, None).map(|(_, _, largest)| largest)
}

/// Returns the usage of this store's own author and of all others, and the largest authors.
fn authors_of(snapshot: &Snapshot, own: Option<Author>) -> Result<(Usage, Usage, Largest), StoreError> {
    let (mut ours, mut others, mut largest) = (Usage::default(), Usage::default(), Largest::new());
    for entry in snapshot.all(&tables::AUTHORS)?.readable() {
        let entry = entry?;
        let (Ok(author), Some(usage)) = (entry.key().try_into(), Usage::parse(entry.value())) else {
            continue;
        };
        let author = Author::from_bytes(author);
        let sum = if Some(author) == own { &mut ours } else { &mut others };
        *sum = sum.plus(usage);
        let place = largest.partition_point(|(_, larger)| larger.bytes() >= usage.bytes());
        if place < MAX_LISTED_AUTHORS {
            largest.truncate(MAX_LISTED_AUTHORS - 1);
            largest.insert(place.min(largest.len()), (author, usage));
        }
    }
    Ok((ours, others, largest))
}

pub(crate) type Largest = Vec<(Author, Usage)>;

fn model_of(snapshot: &Snapshot, model: &ModelTables) -> Result<ModelStatistics, StoreError> {
    let mut newer = 0;
    let records = measure(snapshot, &model.records, |envelope| {
        let envelope = EnvelopeRef::parse(envelope);
        newer += u64::from(envelope.is_ok_and(|envelope| model.is_newer(envelope.payload())));
    })?;
    let index = |(schema, table): (&crate::model::schema::IndexSchema, &TableName)| {
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
    for entry in snapshot.all(table)?.readable() {
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
    for entry in snapshot.all(&tables::HISTORY)?.readable() {
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
