//! Sets of values, which are gathered from an index and cached.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Piece;
use super::item::{Sum, SyncItem};
use crate::changes::change::Change;
use crate::changes::history::{self, Position};
use crate::core::Core;
use crate::engine::Snapshot;
use crate::model::scope::Scope;
use crate::replica::limits::{FULL_PIECE, MAX_CACHED_ITEMS, MAX_CACHED_SETS, MAX_COMPARED_CHANGES};

/// Items in memory, in order, each with the primary key of its record.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) items: Vec<(SyncItem, Box<[u8]>)>,
    pub(super) pieces: Vec<Piece>,
    pub(super) total: Sum,
}

impl Gathered {
    pub(super) fn new(mut items: Vec<(SyncItem, Box<[u8]>)>) -> Self {
        items.sort_unstable();
        items.dedup_by(|one, other| one.0 == other.0);
        let (mut pieces, mut total) = (Vec::new(), Sum::default());
        for (number, piece) in items.chunks(FULL_PIECE).enumerate() {
            let first = piece.first().map(|(item, _)| *item).unwrap_or_default();
            pieces.push(Piece { first, start: number * FULL_PIECE, before: total });
            for (item, _) in piece {
                total.add(item);
            }
        }
        Self { items, pieces, total }
    }
}

/// The sets that were gathered last.
#[derive(Debug, Default)]
pub(crate) struct GatheredSets(Mutex<VecDeque<Kept>>);

#[derive(Debug, Clone)]
struct Kept {
    scope: Scope,
    set: Arc<Gathered>,
    /// The number of the first change that is not in it.
    next: u64,
    /// The time when the first of its records expires, in milliseconds since the Unix epoch.
    expires: u64,
}

impl GatheredSets {
    /// Clears the cache, since tables have changed without a change of a record.
    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }

    fn find(&self, scope: &Scope) -> Option<Kept> {
        self.0.lock().iter().find(|kept| kept.scope == *scope).cloned()
    }

    fn remove(&self, scope: &Scope) {
        self.0.lock().retain(|kept| kept.scope != *scope);
    }

    /// Caches a set; the least recently used one is evicted.
    fn keep(&self, set: Kept) {
        let mut sets = self.0.lock();
        sets.retain(|kept| kept.scope != set.scope);
        sets.push_back(set);
        let mut items: usize = sets.iter().map(|kept| kept.set.items.len()).sum();
        while sets.len() > MAX_CACHED_SETS || items > MAX_CACHED_ITEMS {
            let Some(gone) = sets.pop_front() else { break };
            items -= gone.set.items.len();
        }
    }
}

impl Core {
    /// Returns the cached set of a value, if it has not changed since.
    pub(super) fn gathered(&self, scope: &Scope, snapshot: &Snapshot) -> Option<Arc<Gathered>> {
        let mut kept = self.sets().find(scope)?;
        let next = Position::load(snapshot).ok()?.next;
        let is_same = self.options().clock.unix_millis() < kept.expires
            && self.is_unchanged(scope, snapshot, kept.next, next);
        if !is_same {
            self.sets().remove(scope);
            return None;
        }
        kept.next = next;
        let set = Arc::clone(&kept.set);
        self.sets().keep(kept);
        Some(set)
    }

    pub(super) fn keep_gathered(&self, scope: &Scope, set: &Arc<Gathered>, next: u64, expires: u64) {
        self.sets().keep(Kept { scope: scope.clone(), set: Arc::clone(set), next, expires });
    }

    /// Returns whether no change from one number to another is to a record in a scope; `false` if
    /// one of them is no longer kept.
    fn is_unchanged(&self, scope: &Scope, snapshot: &Snapshot, from: u64, to: u64) -> bool {
        if to < from || to - from > MAX_COMPARED_CHANGES {
            return false;
        }
        let mut next = from;
        while next < to {
            let Ok(changes) = history::read(snapshot, next) else { return false };
            let Some((last, _)) = changes.last() else { return false };
            next = last.saturating_add(1);
            let touches = |change: &Change| {
                let versions = change.envelope.iter().chain(&change.previous);
                versions.into_iter().any(|version| self.is_in_scope(scope, &change.key, version))
            };
            if changes.iter().any(|(_, change)| touches(change)) {
                return false;
            }
        }
        true
    }
}
