//! The sums over the items of a model, as the writer knows them, and their rows.

use std::collections::{BTreeMap, BTreeSet};

use super::item::{ITEM_BYTES, SYNC_ID_BYTES, Sum, SyncItem};
use crate::engine::{Snapshot, Span, TableName, WriteTables, unless_damaged};
use crate::error::StoreError;
use crate::model::key_range::KeySpan;
use crate::replica::limits::{FULL_PIECE, MAX_PIECE, MERGE_AT};

/// The first byte of the keys of sums, and of items.
const SUM: u8 = 0;
const ITEM: u8 = 1;

/// The number of items in a piece, and their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Row {
    pub(crate) count: u32,
    pub(crate) sum: Sum,
}

impl Row {
    /// Reads a row, and where its piece begins.
    pub(crate) fn parse(key: &[u8], value: &[u8]) -> Option<(SyncItem, Self)> {
        let first = SyncItem::parse(key.strip_prefix(&[SUM])?)?;
        let (count, sum) = value.split_first_chunk()?;
        let sum: &[u8; SYNC_ID_BYTES] = sum.try_into().ok()?;
        Some((first, Self { count: u32::from_be_bytes(*count), sum: Sum::of(sum) }))
    }

    fn to_bytes(self) -> Vec<u8> {
        [&self.count.to_be_bytes()[..], &self.sum.to_bytes()].concat()
    }

    pub(crate) fn add(&mut self, item: &SyncItem) {
        self.count = self.count.saturating_add(1);
        self.sum.add(item);
    }

    fn remove(&mut self, item: &SyncItem) {
        self.count = self.count.saturating_sub(1);
        self.sum = self.sum.minus(Sum::of(&item.id));
    }
}

/// Returns the span of the rows of sums.
pub(super) fn span() -> KeySpan {
    KeySpan { start: vec![SUM], end: Some(vec![ITEM]) }
}

/// Returns the key of an item in its table.
pub(crate) fn item_key(item: &SyncItem) -> Vec<u8> {
    key(ITEM, item)
}

pub(crate) fn parse_item_key(key: &[u8]) -> Option<SyncItem> {
    SyncItem::parse(key.strip_prefix(&[ITEM])?)
}

fn key(kind: u8, item: &SyncItem) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + ITEM_BYTES);
    key.push(kind);
    key.extend(item.to_bytes());
    key
}

/// The sums of a model: the start of each piece, and its sum. The first one begins before
/// everything.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    rows: BTreeMap<SyncItem, Row>,
    /// No item comes after it.
    last: SyncItem,
    /// The pieces whose rows are not written yet.
    touched: BTreeSet<SyncItem>,
}

impl Sums {
    /// Reads the sums of a table.
    pub(crate) fn load(snapshot: &Snapshot, table: &TableName) -> Result<Self, StoreError> {
        let mut sums = Self::default();
        for entry in snapshot.range(table, (&span()).into())? {
            let Some(entry) = unless_damaged(entry.map(Some))? else { continue };
            sums.rows.extend(Row::parse(entry.key(), entry.value()));
        }
        let mut items = snapshot.range(table, Span { start: &[ITEM], end: None })?;
        let last = unless_damaged(items.visit(false, |key, _| parse_item_key(key)).transpose())?.flatten();
        // If it cannot be read, nothing is after it, and every piece is looked into.
        let end = SyncItem { timestamp: u64::MAX, id: [u8::MAX; SYNC_ID_BYTES] };
        sums.last = last.unwrap_or(if sums.rows.is_empty() { SyncItem::FIRST } else { end });
        Ok(sums)
    }

    /// Adds an item that was not there.
    pub(super) fn add(&mut self, item: &SyncItem) {
        let is_last = *item > self.last;
        let full = u32::try_from(FULL_PIECE).unwrap_or(u32::MAX);
        let is_full = |(_, row): (&SyncItem, &Row)| row.count >= full;
        // An item that comes in the order of time needs no read.
        if is_last && self.rows.last_key_value().is_some_and(is_full) {
            self.rows.insert(*item, Row::default());
        }
        let (first, row) = self.piece(item);
        row.add(item);
        self.touched.insert(first);
        if is_last {
            self.last = *item;
        }
    }

    /// Takes an item away that was there.
    pub(super) fn remove(&mut self, item: &SyncItem) {
        let (first, row) = self.piece(item);
        row.remove(item);
        self.touched.insert(first);
    }

    fn piece(&mut self, item: &SyncItem) -> (SyncItem, &mut Row) {
        let first = self.rows.range(..=*item).next_back().map_or(SyncItem::FIRST, |(first, _)| *first);
        (first, self.rows.entry(first).or_default())
    }

    /// Writes the rows that have changed, and cuts or joins pieces that have too many items or too
    /// few.
    pub(super) fn write(
        &mut self,
        table: &TableName,
        tables: &mut dyn WriteTables,
    ) -> Result<(), StoreError> {
        let max = u32::try_from(MAX_PIECE).unwrap_or(u32::MAX);
        for first in std::mem::take(&mut self.touched) {
            let Some(row) = self.rows.get(&first).copied() else { continue };
            if row.count > max {
                self.cut(first, table, tables)?;
            } else if !self.join(first, row, table, tables)? {
                tables.insert(table, &key(SUM, &first), &row.to_bytes())?;
            }
        }
        Ok(())
    }

    /// Cuts a piece into several.
    fn cut(
        &mut self,
        first: SyncItem,
        table: &TableName,
        tables: &mut dyn WriteTables,
    ) -> Result<(), StoreError> {
        let next = self.rows.range(first..).nth(1).map(|(next, _)| item_key(next));
        let start = item_key(&first);
        let items = tables.keys(table, Span { start: &start, end: next.as_deref() }, usize::MAX)?;
        let items: Vec<_> = items.iter().filter_map(|key| parse_item_key(key)).collect();
        let mut begin = first;
        for (number, piece) in items.chunks(MAX_PIECE / 2).enumerate() {
            if number > 0 {
                begin = piece.first().copied().unwrap_or_default();
            }
            let mut row = Row::default();
            for item in piece {
                row.add(item);
            }
            self.rows.insert(begin, row);
            tables.insert(table, &key(SUM, &begin), &row.to_bytes())?;
        }
        Ok(())
    }

    /// Joins a small piece to the one before it, if both are small enough; returns whether it did.
    fn join(
        &mut self,
        first: SyncItem,
        row: Row,
        table: &TableName,
        tables: &mut dyn WriteTables,
    ) -> Result<bool, StoreError> {
        if row.count > MERGE_AT / 2 || first == SyncItem::FIRST {
            return Ok(false);
        }
        let Some((before, joined)) = self.rows.range_mut(..first).next_back() else { return Ok(false) };
        // The last piece is small until it has grown.
        if row.count > 0 && joined.count.saturating_add(row.count) > MERGE_AT {
            return Ok(false);
        }
        joined.count += row.count;
        joined.sum = joined.sum.plus(row.sum);
        let (before, joined) = (*before, *joined);
        self.rows.remove(&first);
        tables.remove(table, &key(SUM, &first))?;
        tables.insert(table, &key(SUM, &before), &joined.to_bytes())?;
        Ok(true)
    }
}

/// Writes a row.
pub(super) fn write_row(
    tables: &mut dyn WriteTables,
    table: &TableName,
    first: &SyncItem,
    row: Row,
) -> Result<(), StoreError> {
    tables.insert(table, &key(SUM, first), &row.to_bytes())
}
