//! Sets of the versions in a scope, which two stores compare.
//!
//! Every signed version of a model, and every tombstone, is an item in a table of its model, in the
//! order of time. Over the items there are sums of some hundreds each, so that the fingerprint of
//! any range follows from sums and two of those pieces, without a walk over the set. Items and sums
//! follow from the records and change in the same transaction.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::core::is_in_tombstones;
use crate::engine::{Snapshot, Span};
use crate::error::StoreError;
use crate::model::key_range::KeySpan;
use crate::model::scope::{Scope, ScopePart};
use crate::replica::Replica;
use crate::replica::limits::{CACHED_PIECES, FULL_PIECE, MAX_PIECE, MAX_VALUE_ITEMS, MIN_SYNC_MESSAGE_BYTES};
use crate::store::NetabaseStore;
use crate::tables::ModelTables;
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;

mod build;
mod changes;
mod examine;
mod gathered;
mod item;
mod messages;
mod pin;
mod scope;
mod sums;
#[cfg(test)]
mod tests;

pub(crate) use build::{build, clear};
pub(crate) use changes::SyncChanges;
pub(crate) use examine::Examined;
use gathered::Gathered;
pub(crate) use gathered::GatheredSets;
pub(crate) use item::SYNC_ID_BYTES;
use item::Sum;
pub use item::SyncItem;
pub use messages::{SyncBound, SyncDifference, SyncError, SyncNeed, SyncStep};
pub use pin::Pin;
pub(crate) use pin::Pins;
pub(crate) use scope::MODEL_TAG_BYTES;
pub(crate) use sums::{Row, Sums, item_key};

/// A snapshot of the versions in a scope, in the order of time, to compare with those of another
/// store.
///
/// The set has committed versions: one that waits for the disk is not in it yet. A set holds a
/// snapshot of the store, so do not keep it for long.
///
/// ```
/// # use netabase_store::{NetabaseDefinition, NetabaseStore, netabase_definition_module};
/// # #[netabase_definition_module(LibraryDefinition, LibraryKeys)]
/// # mod library {
/// #     use netabase_store::NetabaseModel;
/// #     use serde::{Deserialize, Serialize};
/// #     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
/// #     #[netabase(LibraryDefinition)]
/// #     pub struct Book { #[primary_key] pub isbn: String }
/// # }
/// # use library::*;
/// use netabase_store::{Scope, SigningKey, StorageBackend, StoreOptions};
/// use netabase_store::replica::{SyncDifference, SyncSet};
///
/// let open = |seed| {
///     let identity = Some(SigningKey::from_bytes(&[seed; 32]));
///     let options = StoreOptions { backend: StorageBackend::Memory, identity, ..StoreOptions::default() };
///     NetabaseStore::open_with("", Some(LibraryDefinition::SCHEMA), options)
/// };
/// let (ours, theirs) = (open(1)?, open(2)?);
/// theirs.open_tree()?.put(&Book { isbn: "978-0-13-110362-7".into() })?;
///
/// let books = Scope::model::<Book>();
/// let (mut ours, mut theirs) = (ours.replica().sync_set(&books)?, theirs.replica().sync_set(&books)?);
/// let mut difference = SyncDifference::default();
/// let mut message = Some(ours.initiate()?);
/// while let Some(asked) = message {
///     let answer = theirs.respond(&asked, SyncSet::MIN_MESSAGE_BYTES)?;
///     message = ours.reconcile(&answer, SyncSet::MIN_MESSAGE_BYTES, &mut difference)?.message;
/// }
/// assert_eq!((difference.have.len(), difference.needed()), (0, 1));
/// let missing = theirs.find(&difference.need[0].from, &difference.need[0].to, &difference.need[0].ids)?;
/// assert!(missing[0].0.is_of::<Book>());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SyncSet {
    store: NetabaseStore,
    snapshot: Snapshot,
    /// The place of the model in the schema.
    model: usize,
    source: Source,
    pieces: Vec<Piece>,
    len: usize,
    total: Sum,
    cache: VecDeque<(usize, Arc<[SyncItem]>)>,
    /// The number of entries of the store that were read.
    entries_read: usize,
}

/// The place of the items.
enum Source {
    /// In the table of the model.
    Table,
    /// In memory, in order, each with the primary key of its record.
    Memory(Arc<Gathered>),
}

/// Items that have one sum.
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// None of them is before it.
    first: SyncItem,
    /// The number of items before.
    start: usize,
    /// The sum of the items before.
    before: Sum,
}

impl Replica<'_> {
    /// Returns the versions in a scope: of a model all of them, with tombstones, and of a value the
    /// live ones that have it.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    ///
    /// The set of a model is read from sums, so its size does not matter; the set of a value is
    /// gathered from the index. Fails with
    /// [`ScopeError::Unknown`](crate::replica::ScopeError::Unknown) if the scope is no single model
    /// or value of this store's schema, and with
    /// [`ScopeError::TooLarge`](crate::replica::ScopeError::TooLarge) if more than
    /// [`SyncSet::MAX_VALUE_ITEMS`] records have the value.
    pub fn sync_set(self, scope: &Scope) -> Result<SyncSet, StoreError> {
        let (position, model) = self.model_of_scope(scope)?;
        match &scope.part {
            ScopePart::Value { index, key, .. } => self.set_of_value(scope, position, model, index, key),
            ScopePart::Model(_) | ScopePart::All => self.set_of_model(position, model),
        }
    }

    fn set_of_model(self, position: usize, model: &ModelTables) -> Result<SyncSet, StoreError> {
        let snapshot = self.core().engine().snapshot()?;
        let (mut pieces, mut len, mut total) = (Vec::new(), 0, Sum::default());
        for entry in snapshot.range(&model.sync, (&sums::span()).into())?.readable() {
            let entry = entry?;
            // `check` reports and repairs damaged entries.
            let Some((first, row)) = Row::parse(entry.key(), entry.value()) else { continue };
            pieces.push(Piece { first, start: len, before: total });
            len += usize::try_from(row.count).unwrap_or(usize::MAX);
            total = total.plus(row.sum);
        }
        let (store, cache, entries_read) = (self.store.clone(), VecDeque::new(), pieces.len());
        let source = Source::Table;
        Ok(SyncSet { store, snapshot, model: position, source, pieces, len, total, cache, entries_read })
    }
}

impl SyncSet {
    /// The most records of the scope of a value: they are gathered in memory.
    pub const MAX_VALUE_ITEMS: usize = MAX_VALUE_ITEMS;
    /// The smallest limit of a message; a lower one is raised to it.
    pub const MIN_MESSAGE_BYTES: usize = MIN_SYNC_MESSAGE_BYTES;
    /// The length of the [fingerprint](Self::fingerprint) of a range.
    pub const FINGERPRINT_BYTES: usize = messages::SYNC_FINGERPRINT_BYTES;

    /// Makes a set of items in memory, for which so many entries were read.
    fn of_items(
        store: NetabaseStore,
        snapshot: Snapshot,
        model: usize,
        items: Arc<Gathered>,
        entries_read: usize,
    ) -> Self {
        let (pieces, len, total) = (items.pieces.clone(), items.items.len(), items.total);
        let (source, cache) = (Source::Memory(items), VecDeque::new());
        Self { store, snapshot, model, source, pieces, len, total, cache, entries_read }
    }

    /// Returns the number of entries of the store that were read for the set so far, which is its
    /// cost.
    ///
    /// A cached set of a value without changes costs nothing.
    pub fn entries_read(&self) -> usize {
        self.entries_read
    }

    /// Returns how many items there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of items before a place.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn count_before(&mut self, bound: &SyncBound) -> Result<usize, StoreError> {
        self.lower_bound(0, bound)
    }

    /// Returns the records in a range whose ids are asked for and whose versions have not changed.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    pub fn find(
        &mut self,
        from: &SyncBound,
        to: &SyncBound,
        ids: &[[u8; SYNC_ID_BYTES]],
    ) -> Result<Vec<(RecordKey, Envelope)>, StoreError> {
        let mut found = Vec::new();
        self.read(from, to, |item| ids.contains(&item.id), &mut |_, record| {
            found.extend(record);
            found.len() < ids.len()
        })?;
        Ok(found)
    }

    /// Calls `visit` with the items from one place to another that `select` wants, and with the
    /// record of each, or `None` if its version has changed, until `visit` returns `false`. Returns
    /// the number of items that were looked at.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    pub fn read(
        &mut self,
        from: &SyncBound,
        to: &SyncBound,
        select: impl FnMut(&SyncItem) -> bool,
        visit: &mut dyn FnMut(SyncItem, Option<(RecordKey, Envelope)>) -> bool,
    ) -> Result<usize, StoreError> {
        self.read_at_most(usize::MAX, from, to, select, visit)
    }

    /// Reads the first `limit` items of the range as [`read`](Self::read) does.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    pub fn read_at_most(
        &mut self,
        limit: usize,
        from: &SyncBound,
        to: &SyncBound,
        mut select: impl FnMut(&SyncItem) -> bool,
        visit: &mut dyn FnMut(SyncItem, Option<(RecordKey, Envelope)>) -> bool,
    ) -> Result<usize, StoreError> {
        let lower = self.lower_bound(0, from)?;
        let upper = self.lower_bound(lower, to)?.min(lower.saturating_add(limit));
        let mut looked_at = 0;
        let mut next = lower;
        while next < upper {
            let Some((number, piece)) = self.piece_of(next) else { break };
            let items = self.items(number)?;
            let within = clamp(&items, next.saturating_sub(piece.start)..upper.saturating_sub(piece.start));
            for item in within {
                looked_at += 1;
                if select(item) {
                    let record = self.record(item)?;
                    self.entries_read += 1;
                    if !visit(*item, record) {
                        return Ok(looked_at);
                    }
                }
            }
            next = self.start_of(number + 1);
        }
        Ok(looked_at)
    }

    /// Returns the record of an item, unless it is not here any more, is another version, or has
    /// expired and ends nothing.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    pub fn record(&self, item: &SyncItem) -> Result<Option<(RecordKey, Envelope)>, StoreError> {
        let core = self.store.core();
        let model = core.model(self.model)?;
        let primary = match &self.source {
            Source::Table => self.snapshot.get(&model.sync, &item_key(item))?,
            Source::Memory(items) => {
                let found = items.items.binary_search_by_key(item, |(item, _)| *item).ok();
                found.and_then(|at| items.items.get(at)).map(|(_, primary)| primary.to_vec())
            }
        };
        let definition = core.layout().schema().map_or("", |schema| schema.name);
        let key = primary.and_then(|primary| model.schema.record_key(definition, &primary).ok());
        let Some(key) = key else { return Ok(None) };
        let stored = match core.stored(&self.snapshot, &key) {
            Err(error) if error.is_of_entry() => None,
            stored => stored?,
        };
        let now = core.options().clock.unix_millis();
        let is_same = |stored: &Envelope| SyncItem::of(&key, stored).as_ref() == Some(item);
        let Some(stored) = stored.filter(is_same) else { return Ok(None) };
        let counts = !stored.is_expired(now) || is_in_tombstones(&self.snapshot, &key)?;
        Ok(Some((key, stored.to_wire())).filter(|_| counts))
    }

    /// Returns the number of items before a place, which is not before `from`.
    fn lower_bound(&mut self, from: usize, bound: &SyncBound) -> Result<usize, StoreError> {
        if *bound == SyncBound::END {
            return Ok(self.len);
        }
        let after = self.pieces.partition_point(|piece| piece.first < *bound.item());
        let Some(number) = after.checked_sub(1) else { return Ok(from) };
        let items = self.items(number)?;
        let within = items.partition_point(|item| item < bound.item());
        Ok((self.start_of(number) + within).clamp(from, self.len.max(from)))
    }

    /// Returns the sum of the ids from one place to another.
    fn sum(&mut self, from: usize, to: usize) -> Result<Sum, StoreError> {
        if to.saturating_sub(from) > FULL_PIECE {
            return Ok(self.sum_before(to)?.minus(self.sum_before(from)?));
        }
        let mut sum = Sum::default();
        self.visit(from, to, &mut |item, _| {
            sum.add(&item);
            true
        })?;
        Ok(sum)
    }

    fn sum_before(&mut self, index: usize) -> Result<Sum, StoreError> {
        if index >= self.len {
            return Ok(self.total);
        }
        let Some((number, piece)) = self.piece_of(index) else { return Ok(Sum::default()) };
        let mut sum = piece.before;
        if index > piece.start {
            let items = self.items(number)?;
            for item in clamp(&items, 0..index - piece.start) {
                sum.add(item);
            }
        }
        Ok(sum)
    }

    /// Calls `look` with the items from one place to another, until that says to stop.
    fn visit(
        &mut self,
        from: usize,
        to: usize,
        look: &mut dyn FnMut(SyncItem, usize) -> bool,
    ) -> Result<(), StoreError> {
        let mut next = from;
        while next < to.min(self.len) {
            let Some((number, piece)) = self.piece_of(next) else { break };
            let items = self.items(number)?;
            let within = clamp(&items, next - piece.start..to - piece.start);
            for (item, index) in within.iter().zip(next..) {
                if !look(*item, index) {
                    return Ok(());
                }
            }
            next = self.start_of(number + 1);
        }
        Ok(())
    }

    /// Returns the piece that has the item at `index`.
    fn piece_of(&self, index: usize) -> Option<(usize, Piece)> {
        let number = self.pieces.partition_point(|piece| piece.start <= index).checked_sub(1)?;
        self.pieces.get(number).map(|piece| (number, *piece))
    }

    /// Returns how many items are before those of a piece.
    fn start_of(&self, number: usize) -> usize {
        self.pieces.get(number).map_or(self.len, |piece| piece.start)
    }

    /// Reads the items of a piece. On sled, which has no snapshots, they may be others than those
    /// of the sum.
    fn items(&mut self, number: usize) -> Result<Arc<[SyncItem]>, StoreError> {
        if let Some((_, items)) = self.cache.iter().find(|(cached, _)| *cached == number) {
            return Ok(Arc::clone(items));
        }
        let items: Arc<[SyncItem]> = match &self.source {
            Source::Memory(items) => {
                let end = self.start_of(number + 1);
                let piece = items.items.get(self.start_of(number)..end).unwrap_or_default();
                piece.iter().map(|(item, _)| *item).collect()
            }
            Source::Table => {
                let first = |piece: &Piece| item_key(&piece.first);
                let start = self.pieces.get(number).map(first).unwrap_or_default();
                let span = KeySpan { start, end: self.pieces.get(number + 1).map(first) };
                let model = self.store.core().model(self.model)?;
                let mut items = Vec::with_capacity(MAX_PIECE);
                let mut entries = self.snapshot.range(&model.sync, Span::from(&span))?;
                while let Some(item) = entries.visit(true, |key, _| sums::parse_item_key(key)) {
                    items.extend(item?);
                }
                self.entries_read += items.len();
                items.into()
            }
        };
        if self.cache.len() >= CACHED_PIECES {
            self.cache.pop_front();
        }
        self.cache.push_back((number, Arc::clone(&items)));
        Ok(items)
    }
}

/// Returns what there is of a range.
fn clamp(items: &[SyncItem], range: Range<usize>) -> &[SyncItem] {
    let end = range.end.min(items.len());
    items.get(range.start.min(end)..end).unwrap_or_default()
}

impl std::fmt::Debug for SyncSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SyncSet").field("len", &self.len).finish_non_exhaustive()
    }
}
