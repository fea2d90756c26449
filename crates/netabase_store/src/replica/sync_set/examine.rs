//! Checks the sums of a set against its items.

use std::collections::BTreeMap;

use super::item::SyncItem;
use super::sums::{Row, parse_item_key};

/// The part of a set that was read so far. Its sums come before its items.
#[derive(Debug, Default)]
pub(crate) struct Examined {
    /// The rows of sums.
    rows: BTreeMap<SyncItem, Row>,
    /// The sum of the items of the present piece, and its start.
    piece: Option<(SyncItem, Row)>,
    items: u64,
    is_wrong: bool,
}

impl Examined {
    /// Takes the next entry; returns whether it is well-formed.
    pub(crate) fn look(&mut self, key: &[u8], value: &[u8]) -> bool {
        if let Some((first, row)) = Row::parse(key, value) {
            self.rows.insert(first, row);
            return true;
        }
        let Some(item) = parse_item_key(key) else { return false };
        self.items += 1;
        let first = self.rows.range(..=item).next_back().map(|(first, _)| *first);
        if self.piece.as_ref().map(|(first, _)| *first) != first {
            self.end_piece();
            self.piece = first.map(|first| (first, Row::default()));
        }
        match &mut self.piece {
            Some((_, row)) => row.add(&item),
            None => self.is_wrong = true,
        }
        true
    }

    fn end_piece(&mut self) {
        if let Some((first, row)) = self.piece.take() {
            self.is_wrong |= self.rows.insert(first, Row::default()) != Some(row);
        }
    }

    /// Returns how many items there were.
    pub(crate) fn items(&self) -> u64 {
        self.items
    }

    /// Returns whether each piece's items match its sum. Call it at the end.
    pub(crate) fn adds_up(mut self) -> bool {
        self.end_piece();
        !self.is_wrong && self.rows.values().all(|row| *row == Row::default())
    }
}
