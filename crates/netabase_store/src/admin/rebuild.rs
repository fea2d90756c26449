//! Makes the tables that follow from signed records anew: positions, ages of tombstones, usage, and
//! the sets that are compared with others.

use crate::admin::migrate::{for_each, remove_each};
use crate::engine::{Engine, Span, TableName};
use crate::error::StoreError;
use crate::replica::sync_set;
use crate::replica::usage::UsageChanges;
use crate::tables::{self, Layout};
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;
use crate::write::index_changes::IndexChanges;

/// Makes the tables anew from the records. Nobody may be writing.
pub(crate) fn rebuild(engine: &Engine, layout: &Layout) -> Result<(), StoreError> {
    for table in [&tables::POSITIONS, &tables::TOMBSTONE_TIMES, &tables::AUTHORS] {
        remove_each(engine, table, |_| true)?;
    }
    let rebuilding = Rebuilding { engine, layout };
    let of_whole_key = |key: &[u8]| RecordKey::parse(key).ok();
    rebuilding.follow(&tables::TOMBSTONES, of_whole_key)?;
    rebuilding.follow(&tables::FOREIGN, of_whole_key)?;
    let definition = layout.schema().map_or("", |schema| schema.name);
    layout.models().iter().try_for_each(|model| {
        rebuilding.follow(&model.records, |primary| model.schema.record_key(definition, primary).ok())?;
        sync_set::build(engine, definition, model)
    })
}

struct Rebuilding<'a> {
    engine: &'a Engine,
    layout: &'a Layout,
}

impl Rebuilding<'_> {
    /// Adds the data that follows from the records of a table.
    fn follow(&self, table: &TableName, name: impl Fn(&[u8]) -> Option<RecordKey>) -> Result<(), StoreError> {
        let are_tombstones = *table == tables::TOMBSTONES;
        for_each(self.engine, table, Span::ALL, |tables, entries| {
            let (mut indexes, mut usage) = (IndexChanges::default(), UsageChanges::default());
            for (key, envelope) in entries {
                let (Some(key), Ok(envelope)) = (name(key), Envelope::parse(envelope)) else { continue };
                let place = self.layout.place(&key);
                // A record that is both live and deleted is read as live.
                let is_read = !are_tombstones || !tables.contains(place.table, place.key)?;
                if !envelope.is_signed() || !is_read {
                    continue;
                }
                indexes.push_position(&key, Some(envelope.fingerprint()));
                usage.add(&key, &envelope);
                if let Some(time) = envelope.counts_as_tombstone_from().filter(|_| are_tombstones) {
                    indexes.push_tombstone_time(time, &key, true);
                }
            }
            indexes.flush(tables)?;
            usage.flush(tables).map(drop)
        })
    }
}
