//! The persisted history of changes, numbered in the order of the commits.
//!
//! The changes of a group are kept in the same transaction as the group itself, in rows of many
//! changes, so that a history costs little more than its bytes. The oldest rows are dropped beyond
//! [`StoreOptions::history_bytes`](crate::StoreOptions::history_bytes).

use std::collections::VecDeque;

use crate::changes::change::{Change, ChangeKind, Origin};
use crate::changes::limits::{ROW_BYTES, UNREAD_BYTES};
use crate::changes::position::Histories;
use crate::engine::{Snapshot, Span, WriteTables, unless_damaged};
use crate::error::{DamageError, HistoryError, StoreError};
use crate::tables::{self, HISTORY};
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;

/// Set in an entry's first byte for a change that a peer has brought.
const FROM_NETWORK: u8 = 0x80;

/// The end of the history, at which the next row begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// The sequence number of the next change; the first ever is 1.
    pub(crate) next: u64,
    /// The size of all rows ever written, in bytes.
    written: u64,
    /// The size of those that were written before the oldest row that is kept.
    dropped: u64,
    /// Whether this opening has begun a history of its own, which it does with its first change.
    has_begun: bool,
}

impl Position {
    /// Reads the position that a database was left with.
    ///
    /// Damaged rows are skipped: a history that cannot be read must not prevent reading the
    /// records.
    pub(crate) fn load(snapshot: &Snapshot) -> Result<Self, StoreError> {
        for row in snapshot.all(&HISTORY)?.rev() {
            let Some(row) = unless_damaged(row.map(Some))? else { continue };
            if let (Ok((first, written)), Ok(count)) = (split_row_key(row.key()), row_count(row.value())) {
                let size = u64::try_from(row.value().len()).unwrap_or(u64::MAX);
                let dropped = match snapshot.all(&HISTORY)?.next().transpose() {
                    Err(StoreError::Damage(DamageError::Entry { entry, .. })) => split_row_key(&entry).ok(),
                    oldest => oldest?.and_then(|oldest| split_row_key(oldest.key()).ok()),
                };
                return Ok(Self {
                    next: first.saturating_add(count),
                    written: written.saturating_add(size),
                    dropped: dropped.map_or(0, |(_, dropped)| dropped),
                    has_begun: false,
                });
            }
            tracing::warn!("a damaged row of the history was passed over");
        }
        Ok(Self { next: 1, written: 0, dropped: 0, has_begun: false })
    }
}

/// Gathers the changes of one group.
#[derive(Debug)]
pub(crate) struct Recorder {
    position: Position,
    /// The number of the first change.
    first: u64,
    /// The rows that are full.
    rows: VecDeque<(Vec<u8>, Vec<u8>)>,
    /// Their size, in bytes.
    bytes: u64,
    /// The number of changes in the row that is being filled, and their bytes behind space for the
    /// count.
    count: u32,
    row: Vec<u8>,
    /// The size of the history in bytes; with 0, changes are only counted.
    budget: u64,
    /// The number of the first change that no follower could have read yet.
    unread: u64,
}

impl Recorder {
    pub(crate) fn new(position: Position, budget: u64, unread: u64) -> Self {
        let (rows, first) = (VecDeque::new(), position.next);
        Self { position, first, rows, bytes: 0, count: 0, row: vec![0; 4], budget, unread }
    }

    /// Adds a committed change.
    pub(crate) fn push(&mut self, change: &Change) {
        if self.budget > 0 {
            encode(change, &mut self.row);
        }
        self.count += 1;
        if self.row.len() >= ROW_BYTES {
            self.end_row();
        }
    }

    fn end_row(&mut self) {
        if self.count == 0 {
            return;
        }
        let mut row = std::mem::replace(&mut self.row, vec![0; 4]);
        if let Some(count) = row.first_chunk_mut() {
            *count = self.count.to_be_bytes();
        }
        let Position { next, written, .. } = self.position;
        let size = u64::try_from(row.len()).unwrap_or(u64::MAX);
        self.position.next += u64::from(self.count);
        self.position.written += size;
        self.bytes += size;
        self.rows.push_back((row_key(next, written), row));
        self.count = 0;
        // Of a group that is longer than any history, not everything has to be in memory.
        while self.bytes > self.budget.saturating_add(UNREAD_BYTES)
            && let Some((_, row)) = self.rows.pop_front()
        {
            self.bytes -= u64::try_from(row.len()).unwrap_or(u64::MAX);
        }
    }

    /// Writes the rows and drops old ones beyond the budget; returns the new end of the history.
    ///
    /// Rows that no follower can have read yet are kept until the next call, up to a limit. `now`
    /// is in milliseconds since the Unix epoch.
    pub(crate) fn write(mut self, tables: &mut dyn WriteTables, now: u64) -> Result<Position, StoreError> {
        self.end_row();
        if !self.position.has_begun && self.position.next > self.first {
            self.begin(tables, now)?;
        }
        for (key, row) in &self.rows {
            tables.insert(&HISTORY, key, row)?;
        }
        // A row is only looked up to be dropped: in redb it has pages of its own.
        while !self.rows.is_empty() && self.excess() > 0 {
            let rows = tables.keys(&HISTORY, Span::ALL, 2)?;
            // The last row stays at any size: it holds the position.
            let [oldest, following] = rows.as_slice() else { break };
            // One whose key means nothing is in the way, and nothing else.
            if let Ok((next, written)) = split_row_key(following) {
                if next > self.unread && self.budget > 0 && self.excess() <= UNREAD_BYTES {
                    break;
                }
                self.position.dropped = written;
            }
            tables.remove(&HISTORY, oldest)?;
        }
        Ok(self.position)
    }

    /// Begins the history that this opening numbers its changes in.
    fn begin(&mut self, tables: &mut dyn WriteTables, now: u64) -> Result<(), StoreError> {
        let oldest = tables.keys(&HISTORY, Span::ALL, 1)?.first().and_then(|key| split_row_key(key).ok());
        // If the known histories are damaged, their positions are lost.
        let known = unless_damaged(tables.get(&tables::META, tables::META_HISTORIES))?.unwrap_or_default();
        let mut histories = Histories::parse(&known);
        histories.begin(now, self.first, oldest.map_or(self.first, |(oldest, _)| oldest));
        tables.insert(&tables::META, tables::META_HISTORIES, &histories.to_bytes())?;
        self.position.has_begun = true;
        Ok(())
    }

    fn excess(&self) -> u64 {
        self.position.written.saturating_sub(self.position.dropped).saturating_sub(self.budget)
    }
}

/// Returns the changes from number `next` on that are in one row with it.
///
/// Returns an empty list if there is none yet.
pub(crate) fn read(snapshot: &Snapshot, next: u64) -> Result<Vec<(u64, Change)>, StoreError> {
    let end = row_key(next.saturating_add(1), 0);
    let Some(row) = snapshot.range(&HISTORY, Span { start: &[], end: Some(&end) })?.next_back() else {
        let end = Position::load(snapshot)?.next;
        return if next < end { Err(trimmed(next, oldest(snapshot, end)?)) } else { Ok(Vec::new()) };
    };
    let row = row?;
    let (first, _) = split_row_key(row.key())?;
    let count = row_count(row.value())?;
    if next >= first.saturating_add(count) {
        return Ok(Vec::new());
    }
    let mut entries = row.value().get(4..).unwrap_or_default();
    if entries.is_empty() {
        return Err(trimmed(next, oldest(snapshot, Position::load(snapshot)?.next)?));
    }
    let mut changes = Vec::new();
    for sequence in first.. {
        if entries.is_empty() {
            break;
        }
        let change = decode(&mut entries).ok_or_else(damaged)?;
        if sequence >= next {
            changes.push((sequence, change));
        }
    }
    Ok(changes)
}

/// Returns the newest changes of one record that are kept, at most `limit`, in their order.
///
/// A damaged row is skipped: the others are still valid.
pub(crate) fn of_key(
    snapshot: &Snapshot,
    key: &RecordKey,
    limit: usize,
) -> Result<Vec<(u64, Change)>, StoreError> {
    let mut found = VecDeque::new();
    for row in snapshot.all(&HISTORY)? {
        let row = row?;
        let Ok((first, _)) = split_row_key(row.key()) else { continue };
        let mut entries = row.value().get(4..).unwrap_or_default();
        for sequence in first.. {
            let Some(change) = decode(&mut entries) else { break };
            if change.key == *key {
                found.push_back((sequence, change));
            }
            if found.len() > limit {
                found.pop_front();
            }
        }
    }
    Ok(found.into())
}

/// Returns the number of the oldest change that is kept, or of the next one if none is.
pub(crate) fn oldest(snapshot: &Snapshot, next: u64) -> Result<u64, StoreError> {
    for row in snapshot.all(&HISTORY)? {
        let row = row?;
        if row.value().len() > 4 {
            return Ok(split_row_key(row.key())?.0);
        }
    }
    Ok(next)
}

/// A row of the history, as one who does not follow it sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// The number of its first change, and the number of its changes.
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// The size of all rows before it, and its own.
    pub(crate) written: u64,
    pub(crate) bytes: u64,
    /// Whether it has the changes themselves, and not only their number.
    pub(crate) is_kept: bool,
}

impl Row {
    pub(crate) fn parse(key: &[u8], value: &[u8]) -> Option<Self> {
        let (first, written) = split_row_key(key).ok()?;
        let count = row_count(value).ok()?;
        let bytes = u64::try_from(value.len()).ok()?;
        Some(Self { first, count, written, bytes, is_kept: bytes > 4 })
    }

    /// Returns whether this row begins where `previous` ends.
    pub(crate) fn follows(&self, previous: &Self) -> bool {
        self.first == previous.first.saturating_add(previous.count)
            && self.written == previous.written.saturating_add(previous.bytes)
    }

    /// Returns whether the row `value` has as many changes as its count, and all can be read.
    pub(crate) fn is_readable(&self, value: &[u8]) -> bool {
        let mut entries = value.get(4..).unwrap_or_default();
        let mut read = 0;
        while !entries.is_empty() {
            if decode(&mut entries).is_none() {
                return false;
            }
            read += 1;
        }
        !self.is_kept || read == self.count
    }
}

fn trimmed(next: u64, oldest: u64) -> StoreError {
    StoreError::History(HistoryError::Trimmed { next, oldest })
}

pub(crate) fn damaged() -> StoreError {
    StoreError::Damage(DamageError::Table { table: HISTORY.as_str().to_owned() })
}

fn row_key(first: u64, written: u64) -> Vec<u8> {
    [first.to_be_bytes(), written.to_be_bytes()].concat()
}

fn split_row_key(key: &[u8]) -> Result<(u64, u64), StoreError> {
    let (first, rest) = key.split_first_chunk().ok_or_else(damaged)?;
    let written = rest.try_into().map_err(|_| damaged())?;
    Ok((u64::from_be_bytes(*first), u64::from_be_bytes(written)))
}

fn row_count(row: &[u8]) -> Result<u64, StoreError> {
    let count = row.first_chunk().ok_or_else(damaged)?;
    Ok(u32::from_be_bytes(*count).into())
}

fn encode(change: &Change, out: &mut Vec<u8>) {
    let kind = match change.kind {
        ChangeKind::Stored => 0,
        ChangeKind::Updated => 1,
        ChangeKind::Removed => 2,
        ChangeKind::Expired => 3,
        ChangeKind::Evicted => 4,
    };
    let origin = match change.origin {
        Origin::Local => 0,
        Origin::Network => FROM_NETWORK,
    };
    out.push(kind | origin);
    put_bytes(out, change.key.as_bytes());
    // A record that went by itself is its own previous version.
    let envelope = change.envelope.as_ref().filter(|_| !went_by_itself(change.kind));
    put_bytes(out, envelope.map_or(&[], Envelope::as_bytes));
    put_bytes(out, change.previous.as_ref().map_or(&[], Envelope::as_bytes));
}

fn decode(input: &mut &[u8]) -> Option<Change> {
    let (first, rest) = input.split_first()?;
    *input = rest;
    let kind = match first & !FROM_NETWORK {
        0 => ChangeKind::Stored,
        1 => ChangeKind::Updated,
        2 => ChangeKind::Removed,
        3 => ChangeKind::Expired,
        4 => ChangeKind::Evicted,
        _ => return None,
    };
    let origin = if first & FROM_NETWORK == 0 { Origin::Local } else { Origin::Network };
    let key = RecordKey::parse(take_bytes(input)?).ok()?;
    let envelope = envelope(take_bytes(input)?)?;
    let previous = self::envelope(take_bytes(input)?)?;
    let envelope = if went_by_itself(kind) { previous.clone() } else { envelope };
    Some(Change { key, kind, envelope, previous, origin })
}

/// Returns whether the record was removed without a signed version.
fn went_by_itself(kind: ChangeKind) -> bool {
    matches!(kind, ChangeKind::Expired | ChangeKind::Evicted)
}

/// Parses a version; `None` if it is damaged.
#[expect(clippy::option_option, reason = "a change may have no version before or after it")]
fn envelope(bytes: &[u8]) -> Option<Option<Envelope>> {
    if bytes.is_empty() { Some(None) } else { Envelope::parse(bytes).ok().map(Some) }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend(len.to_be_bytes());
    out.extend(bytes);
}

fn take_bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = input.split_first_chunk()?;
    let (bytes, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
    *input = rest;
    Some(bytes)
}
