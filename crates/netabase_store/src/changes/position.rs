//! The position of a follower: the number of a change, and the history that numbers it.
//!
//! Numbers begin at 1 in each database, and are assigned a second time after an older copy was
//! restored. So every opening that changes something begins a history with a unique id, and the
//! database knows the ids of the histories whose changes it has. A copy does not know the histories
//! that began after it was made.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::changes::limits::MAX_HISTORIES;
use crate::engine::{Snapshot, unless_damaged};
use crate::error::StoreError;
use crate::platform;
use crate::tables;

/// The id of the history of changes from before there were ids.
const UNNAMED: u64 = 0;
/// The fewest digits of the number in text, so that positions of one history sort as text, too.
const DIGITS: usize = 15;

/// The place of a change in the history of a database, after which following can continue.
///
/// A position can be stored as text. [`WatchFrom::Position`](crate::WatchFrom::Position) continues
/// after it, and fails if the database does not have that history, because it is another database
/// or an older copy was restored. A text that is only a number is a position without a history, and
/// matches any.
///
/// ```
/// # use netabase_store::{NetabaseModel, NetabaseStore, netabase_definition_module};
/// # #[netabase_definition_module(LibraryDefinition, LibraryKeys)]
/// # mod library {
/// #     use netabase_store::NetabaseModel;
/// #     use serde::{Deserialize, Serialize};
/// #     #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
/// #     #[netabase(LibraryDefinition)]
/// #     pub struct Book { #[primary_key] pub isbn: String }
/// # }
/// # use library::*;
/// use netabase_store::{StoreError, WatchFrom};
/// use netabase_store::changes::{ChangePosition, HistoryError};
///
/// let store = NetabaseStore::in_memory::<LibraryDefinition>()?;
/// let books = store.open_tree::<Book>()?;
/// books.put(&Book { isbn: "978-0-13-110362-7".into() })?;
/// let kept = store.read()?.position()?.to_string();
///
/// let position: ChangePosition = kept.parse().expect("it is a position");
/// assert_eq!(position.sequence(), 1);
/// assert!(books.watch(WatchFrom::Position(position))?.try_next()?.is_none());
///
/// let another = NetabaseStore::in_memory::<LibraryDefinition>()?;
/// another.open_tree::<Book>()?.put(&Book { isbn: "0131103628".into() })?;
/// let gone = another.changes(WatchFrom::Position(position)).unwrap_err();
/// assert!(matches!(gone, StoreError::History(HistoryError::Gone { .. })));
/// # Ok::<(), StoreError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChangePosition {
    history: u64,
    sequence: u64,
}

/// The reason why a text is not a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a position is a number, or the id of a history, `_` and a number")]
pub struct ParsePositionError;

impl ChangePosition {
    /// Returns the number of the change; 0 before the first one.
    pub fn sequence(self) -> u64 {
        self.sequence
    }
}

impl fmt::Display for ChangePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { history, sequence } = self;
        if *history == UNNAMED { write!(f, "{sequence}") } else { write!(f, "{history}_{sequence:0DIGITS$}") }
    }
}

impl FromStr for ChangePosition {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, ParsePositionError> {
        let number = |digits: &str| {
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| is_number).ok_or(ParsePositionError)
        };
        let (history, sequence) = match text.split_once('_') {
            Some((history, sequence)) => (number(history)?, number(sequence)?),
            None => (UNNAMED, number(text)?),
        };
        Ok(Self { history, sequence })
    }
}

/// The histories that a database has changes of, the oldest first: the id of each, and the number
/// of its first change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Histories(Vec<(u64, u64)>);

impl Histories {
    pub(crate) fn load(snapshot: &Snapshot) -> Result<Self, StoreError> {
        let known = unless_damaged(snapshot.get(&tables::META, tables::META_HISTORIES))?;
        Ok(Self::parse(&known.unwrap_or_default()))
    }

    /// Reads what [`Histories::to_bytes`] has written; bytes that are left over count for nothing.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let (numbers, _) = bytes.as_chunks::<8>();
        let (pairs, _) = numbers.as_chunks::<2>();
        let pair = |[id, first]: &[[u8; 8]; 2]| (u64::from_be_bytes(*id), u64::from_be_bytes(*first));
        Self(pairs.iter().map(pair).collect())
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|(id, first)| [id.to_be_bytes(), first.to_be_bytes()]).flatten().collect()
    }

    /// Adds a history that begins with the change `first`, at the time `now` in milliseconds since
    /// the Unix epoch; forgets those of which no change is kept from `oldest` on.
    pub(crate) fn begin(&mut self, now: u64, first: u64, oldest: u64) {
        // The number of low bits of an id that are random; the others are its creation time.
        const RANDOM_BITS: u32 = 20;
        let last = self.0.last().map_or(UNNAMED, |(id, _)| *id);
        // Later ids are larger even if the clock was set back, so that positions of one database
        // rise.
        let base = (now << RANDOM_BITS).max(last.saturating_add(1));
        let random = platform::random() >> (u64::BITS - RANDOM_BITS);
        self.0.push((base.saturating_add(random), first));
        // A follower may have seen the last change of a history that ends right before the oldest
        // change.
        let ends = self.0.iter().skip(1).take_while(|(_, next)| *next < oldest).count();
        self.0.drain(..ends.max(self.0.len().saturating_sub(MAX_HISTORIES)));
    }

    /// Returns the position of a change that is here.
    pub(crate) fn position(&self, sequence: u64) -> ChangePosition {
        let of = self.0.iter().rev().find(|(_, first)| *first <= sequence);
        ChangePosition { history: of.map_or(UNNAMED, |(id, _)| *id), sequence }
    }

    /// Returns whether a position may be one of this database: it is, unless it says otherwise.
    pub(crate) fn knows(&self, position: ChangePosition) -> bool {
        position.history == UNNAMED || self.position(position.sequence) == position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_of_one_history_rise_as_text_and_as_numbers() {
        let mut histories = Histories::default();
        histories.begin(1_700_000_000_000, 1, 1);
        let texts: Vec<_> =
            [1, 9, 10, 99, 1_000_000].map(|number| histories.position(number).to_string()).into();
        assert!(texts.is_sorted(), "{texts:?}");
        let number = |text: &String| text.replace('_', "").parse::<u128>().unwrap();
        assert_eq!(number(&texts[1]) - number(&texts[0]), 8);
        assert_eq!(number(&texts[4]) - number(&texts[0]), 999_999);
        for text in &texts {
            assert_eq!(text.parse::<ChangePosition>().unwrap().to_string(), *text);
        }
        let plain: ChangePosition = "17".parse().unwrap();
        assert_eq!((plain.sequence(), plain.to_string().as_str()), (17, "17"));
        for text in ["", "_", "1_", "_1", "-1", "+1", "1_+1", "1_2_3", "18446744073709551616", "a"] {
            assert_eq!(text.parse::<ChangePosition>(), Err(ParsePositionError), "{text}");
        }
    }

    #[test]
    fn a_position_is_known_within_its_history_alone() {
        let mut histories = Histories::default();
        assert!(histories.knows("5".parse().unwrap()));
        histories.begin(1000, 6, 1);
        let copy = histories.clone();
        let (before, within) = (histories.position(5), histories.position(9));
        assert_eq!(before.to_string(), "5", "from before there were ids");
        histories.begin(1000, 10, 1);
        let later = histories.position(10);
        assert!([before, within, later].into_iter().all(|position| histories.knows(position)));
        assert!(copy.knows(within) && !copy.knows(later));
        // An older copy goes on otherwise.
        let mut restored = copy;
        restored.begin(900, 8, 1);
        assert!(!restored.knows(within) && !restored.knows(later));
        assert!(restored.knows(histories.position(7)));
        assert_eq!(Histories::parse(&histories.to_bytes()), histories);
        assert_eq!(Histories::parse(&histories.to_bytes()[..20]).0.len(), 1);
    }

    #[test]
    fn histories_are_forgotten_with_their_changes() {
        let mut histories = Histories::default();
        for first in [1, 10, 20, 30] {
            histories.begin(1000, first, 1);
        }
        assert!(histories.0.is_sorted(), "{histories:?}");
        let gone = [18, 19].map(|number| histories.position(number));
        histories.begin(1000, 40, 21);
        assert_eq!(histories.0.first().unwrap().1, 20, "{histories:?}");
        assert!(!gone.into_iter().any(|position| histories.knows(position)));
        let kept = histories.position(29);
        histories.begin(1000, 50, 30);
        assert!(histories.knows(kept), "whoever has seen 29 goes on with 30");
        for first in 100..1000 {
            histories.begin(1000, first, 1);
        }
        assert_eq!(histories.0.len(), MAX_HISTORIES);
    }
}
