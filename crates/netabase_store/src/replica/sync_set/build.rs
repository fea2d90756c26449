//! Makes the items and sums of a model anew.

use super::item::SyncItem;
use super::sums::{self, Row};
use crate::admin::migrate::{for_each, remove_each};
use crate::engine::{Engine, Span, Sync, TableName, WriteTables};
use crate::error::StoreError;
use crate::model::key_range::{KeySpan, after_prefix};
use crate::replica::limits::FULL_PIECE;
use crate::tables::{self, ModelTables};
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;

/// Makes the items and sums of a model anew from its records and tombstones. Nobody may be writing.
pub(crate) fn build(engine: &Engine, definition: &str, model: &ModelTables) -> Result<(), StoreError> {
    clear(engine, &model.sync)?;
    add_items(engine, model, &model.records, Span::ALL, |primary| {
        model.schema.record_key(definition, primary).ok()
    })?;
    let prefix = RecordKey::prefix(definition, &model.marked);
    let span = KeySpan { end: after_prefix(&prefix), start: prefix };
    add_items(engine, model, &tables::TOMBSTONES, (&span).into(), |key| RecordKey::parse(key).ok())?;
    add_sums(engine, model)
}

/// Removes all items and sums.
pub(crate) fn clear(engine: &Engine, table: &TableName) -> Result<(), StoreError> {
    remove_each(engine, table, |_| true)
}

fn add_items(
    engine: &Engine,
    model: &ModelTables,
    table: &TableName,
    span: Span<'_>,
    name: impl Fn(&[u8]) -> Option<RecordKey>,
) -> Result<(), StoreError> {
    let are_tombstones = *table == tables::TOMBSTONES;
    for_each(engine, table, span, |tables, entries| {
        let mut items = Vec::with_capacity(entries.len());
        for (key, envelope) in entries {
            let (Some(key), Ok(envelope)) = (name(key), Envelope::parse(envelope)) else { continue };
            // A record that is both live and deleted is read as live.
            let is_read = !are_tombstones || !tables.contains(&model.records, key.primary_key())?;
            items.extend(SyncItem::of(&key, &envelope).filter(|_| is_read).map(|item| (item, key)));
        }
        items.sort_unstable_by_key(|(item, _)| *item);
        items
            .iter()
            .try_for_each(|(item, key)| tables.insert(&model.sync, &sums::item_key(item), key.primary_key()))
    })
}

/// Adds up the items.
fn add_sums(engine: &Engine, model: &ModelTables) -> Result<(), StoreError> {
    let (mut first, mut row) = (SyncItem::FIRST, Row::default());
    let full = u32::try_from(FULL_PIECE).unwrap_or(u32::MAX);
    let span = sums::span();
    let items = Span { start: span.end.as_deref().unwrap_or_default(), end: None };
    for_each(engine, &model.sync, items, |tables, entries| {
        for item in entries.iter().filter_map(|(key, _)| sums::parse_item_key(key)) {
            if row.count >= full {
                sums::write_row(tables, &model.sync, &first, row)?;
                (first, row) = (item, Row::default());
            }
            row.add(&item);
        }
        Ok(())
    })?;
    if row.count > 0 {
        engine.write(Sync::Now, |tables: &mut dyn WriteTables| {
            sums::write_row(tables, &model.sync, &first, row)
        })?;
    }
    Ok(())
}
