//! Refused authors, whose records this store neither takes nor keeps.
//!
//! The list belongs to one store; peers do not see it. It takes effect at once, and the writer
//! removes the stored records of its authors in the background, with those that a member list does
//! not allow.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::Replica;
use super::absence::Discarded;
use super::usage::Usage;
use crate::admin::statistics;
use crate::engine::{Engine, Sync, unless_damaged};
use crate::error::{StoreError, WriteError};
use crate::options::StoreOptions;
use crate::replica::limits::MAX_REFUSED_AUTHORS;
use crate::tables;
use crate::version::envelope::{Author, Envelope, EnvelopeRef};
use crate::version::record_key::{RecordKey, WritePolicy};
use crate::write::apply::Op;
use crate::write::writer::Batch;

/// The value of an author in the table of facts whose stored records were all removed.
const SWEPT: &[u8] = &[1];

/// The refused authors, which are all in memory.
#[derive(Debug, Default)]
pub(crate) struct RefusedAuthors {
    /// `true` if there are any, so that readers need no lock where there are none.
    has_any: AtomicBool,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    authors: BTreeSet<Author>,
    /// The number of additions since everything stored was last known to be swept; 0 if it is.
    additions: u64,
}

impl RefusedAuthors {
    /// Reads the list, and adds the authors of the options.
    pub(crate) fn load(engine: &Engine, options: &StoreOptions) -> Result<Self, StoreError> {
        let mut state = State::default();
        let prefix = tables::META_REFUSED;
        for entry in engine.snapshot()?.prefix(&tables::META, prefix)?.take(MAX_REFUSED_AUTHORS) {
            let Some(entry) = unless_damaged(entry.map(Some))? else { continue };
            let author = entry.key().get(prefix.len()..).map(<[u8; 32]>::try_from);
            let Some(Ok(author)) = author else { continue };
            state.authors.insert(Author::from_bytes(author));
            state.additions |= u64::from(entry.value() != SWEPT);
        }
        // The store may be opened with the identity, or in the network, of a refused author.
        let kept = |author: &Author| !is_needed(options, *author);
        state.authors.retain(kept);
        let given = options.refused_authors.iter().copied().filter(kept);
        let new: Vec<_> = given.filter(|author| state.authors.insert(*author)).collect();
        if state.authors.len() > MAX_REFUSED_AUTHORS {
            return Err(WriteError::TooManyRefusedAuthors.into());
        }
        if !new.is_empty() {
            state.additions = 1;
            engine.write(Sync::Now, |tables| {
                new.iter().try_for_each(|author| tables.insert(&tables::META, &entry_key(*author), &[]))
            })?;
        }
        Ok(Self { has_any: AtomicBool::new(!state.authors.is_empty()), state: RwLock::new(state) })
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.has_any.load(Ordering::Acquire)
    }

    pub(crate) fn contains(&self, author: Author) -> bool {
        !self.is_empty() && self.state.read().authors.contains(&author)
    }

    /// Returns whether a version, which is no bundle, is of a refused author.
    pub(crate) fn refuses(&self, key: &RecordKey, envelope: EnvelopeRef<'_>) -> bool {
        key.policy() != WritePolicy::Root && envelope.author().is_some_and(|author| self.contains(author))
    }

    /// Returns the number of additions that a sweep has to take into account; 0 if everything
    /// stored was compared with the list.
    pub(crate) fn additions(&self) -> u64 {
        self.state.read().additions
    }

    /// Returns the writes that end a sweep which has begun after so many additions, or none if
    /// there are more by now.
    pub(crate) fn end_sweep(&self, additions: u64) -> Vec<Op> {
        let state = self.state.read();
        let authors = state.authors.iter().filter(|_| state.additions == additions && additions > 0);
        authors.map(|author| entry_of(*author, Some(SWEPT))).collect()
    }

    /// Adds or removes an author in memory; returns whether that changed the list.
    fn set(&self, author: Author, is_refused: bool) -> Result<bool, StoreError> {
        let mut state = self.state.write();
        if is_refused && state.authors.len() >= MAX_REFUSED_AUTHORS && !state.authors.contains(&author) {
            return Err(WriteError::TooManyRefusedAuthors.into());
        }
        let is_change = if is_refused { state.authors.insert(author) } else { state.authors.remove(&author) };
        state.additions += u64::from(is_change && is_refused);
        self.has_any.store(!state.authors.is_empty(), Ordering::Release);
        Ok(is_change)
    }
}

/// Returns whether a store cannot do without the records of an author.
fn is_needed(options: &StoreOptions, author: Author) -> bool {
    options.root == Some(author) || options.identity.as_ref().is_some_and(|own| Author::of(own) == author)
}

/// Returns the write of an author's entry in the table of facts.
fn entry_of(author: Author, value: Option<&[u8]>) -> Op {
    Op::Set { table: &tables::META, key: entry_key(author), value: value.map(<[u8]>::to_vec) }
}

fn entry_key(author: Author) -> Vec<u8> {
    [tables::META_REFUSED, author.as_bytes()].concat()
}

impl Replica<'_> {
    /// Refuses the records of an author from now on; returns whether the author was not refused
    /// before.
    ///
    /// A peer's record of the author is refused as
    /// [`RefusedAuthor`](crate::Refusal::RefusedAuthor), which is no offence of the peer. Stored
    /// records of the author are removed in the background, without tombstones: followers of
    /// changes see each as a removal by the network, and other nodes keep theirs. Of a merged
    /// record only the author's contribution is removed. The database keeps the list, of up to 1024
    /// authors.
    ///
    /// Blocks until the list is on the disk. Fails with [`WriteError::NeededAuthor`] for this
    /// store's own author and the root of its network, and with
    /// [`WriteError::TooManyRefusedAuthors`].
    pub fn refuse_author(self, author: Author) -> Result<bool, StoreError> {
        if is_needed(self.core().options(), author) {
            return Err(WriteError::NeededAuthor { author }.into());
        }
        self.set_refused(author, true)
    }

    /// Takes records of an author again; returns whether the author was refused.
    ///
    /// Peers send the author's records again when they next compare theirs with this store's.
    /// Blocks until the list is on the disk. An author of
    /// [`StoreOptions::refused_authors`](crate::StoreOptions::refused_authors) is refused again
    /// when the store is next opened.
    pub fn allow_author(self, author: Author) -> Result<bool, StoreError> {
        self.set_refused(author, false)
    }

    fn set_refused(self, author: Author, is_refused: bool) -> Result<bool, StoreError> {
        self.store.check_not_in_callback()?;
        let refused = self.core().refused_authors();
        let is_change = refused.set(author, is_refused)?;
        if is_change {
            let ops = vec![entry_of(author, is_refused.then_some(&[][..]))];
            let written = self.store.commit(Batch { ops, flush: true, ..Batch::default() });
            if let Err(error) = written {
                // A failed call changes nothing.
                refused.set(author, !is_refused)?;
                return Err(error);
            }
        }
        Ok(is_change)
    }

    /// Returns the refused authors, in the order of their bytes.
    pub fn refused_authors(self) -> Vec<Author> {
        self.core().refused_authors().state.read().authors.iter().copied().collect()
    }

    /// Removes the stored records and tombstones of an author from this store alone, without
    /// tombstones. Of a merged record only the author's contribution is removed.
    ///
    /// Peers send the records again unless the author is [refused](Replica::refuse_author). Blocks
    /// in proportion to the size of the database; works in batches, and can be called again after
    /// an error. Fails with [`WriteError::NeededAuthor`] as [`Replica::refuse_author`] does.
    pub fn remove_author(self, author: Author) -> Result<Discarded, StoreError> {
        if is_needed(self.core().options(), author) {
            return Err(WriteError::NeededAuthor { author }.into());
        }
        let is_theirs = |part: &Envelope| part.author() == Some(author);
        let exclusion = |key: &RecordKey, stored: &Envelope| {
            let is_chosen = stored.contributions().iter().any(is_theirs);
            is_chosen.then(|| Op::Exclude { key: key.clone(), author: Some(author) })
        };
        self.discard_where(exclusion, Vec::new)
    }

    /// Returns the authors with the largest usage, the largest first and at most 16, this store's
    /// own included; records of several authors count under a key of zeros.
    ///
    /// Blocks on the disk in proportion to the number of authors.
    pub fn largest_authors(self) -> Result<Vec<(Author, Usage)>, StoreError> {
        statistics::largest_authors(&self.core().engine().snapshot()?)
    }
}
