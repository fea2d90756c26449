//! The cache of pages that queries have found.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use netabase_store::changes::StoreEvent;
use netabase_store::query::{RawQuery, ResolvedQuery};
use netabase_store::{Change, Cursor, Envelope, NetabaseStore, RecordKey};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::platform::{self, Instant};
use crate::query::authors::Authors;
use crate::query::limits::{MAX_CACHED_BYTES, MAX_CACHED_PAGES};
use crate::query::merge::FoundRecord;
use crate::query::report::QueryReport;

/// The result of a query.
#[derive(Debug, Clone)]
pub(crate) struct FoundPage {
    pub(crate) records: Vec<FoundRecord>,
    pub(crate) cursor: Option<Cursor>,
    pub(crate) report: QueryReport,
}

impl FoundPage {
    fn bytes(&self) -> usize {
        let bytes = |found: &FoundRecord| {
            found.key.as_bytes().len() + found.envelope.as_bytes().len() + found.entry.len()
        };
        self.records.iter().map(bytes).sum()
    }
}

/// The cached pages, which clones share.
#[derive(Debug, Clone, Default)]
pub(crate) struct FoundPages(Arc<Mutex<Vec<Slot>>>);

/// A query whose page is cached, or is being fetched.
#[derive(Debug)]
struct Slot {
    raw: RawQuery,
    authors: Authors,
    query: Arc<ResolvedQuery>,
    /// The lock of the task that fetches the page.
    turn: Arc<AsyncMutex<()>>,
    /// Whether the page that is being fetched is outdated already.
    is_outdated: bool,
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    page: FoundPage,
    keys: HashSet<RecordKey>,
    at: Instant,
    bytes: usize,
}

/// The right to fetch a page, while equal queries wait for it.
#[derive(Debug)]
pub(crate) struct Turn {
    raw: RawQuery,
    authors: Authors,
    _guard: OwnedMutexGuard<()>,
}

/// The cache's answer to a query.
#[derive(Debug)]
pub(crate) enum Cached {
    /// A page, and its age.
    Page(FoundPage, Duration),
    /// No page that is fresh enough.
    Turn(Turn),
}

impl Slot {
    fn is_of(&self, raw: &RawQuery, authors: &Authors) -> bool {
        self.raw == *raw && self.authors == *authors
    }
}

impl FoundPages {
    /// Returns the cached page of an equal query if it is fresh, or else the right to fetch it.
    /// Waits for another task that is fetching it.
    pub(crate) async fn get(
        &self,
        raw: &RawQuery,
        query: &Arc<ResolvedQuery>,
        authors: &Authors,
        max_age: Duration,
    ) -> Cached {
        let turn = {
            let mut slots = self.0.lock();
            if let Some(slot) = slots.iter().find(|slot| slot.is_of(raw, authors)) {
                Arc::clone(&slot.turn)
            } else {
                make_room(&mut slots, 0);
                let (turn, query) = (Arc::default(), Arc::clone(query));
                let kept = None;
                slots.push(Slot {
                    raw: raw.clone(),
                    authors: authors.clone(),
                    query,
                    turn: Arc::clone(&turn),
                    is_outdated: false,
                    kept,
                });
                turn
            }
        };
        let turn = turn.lock_owned().await;
        let mut slots = self.0.lock();
        let slot = slots.iter_mut().find(|slot| slot.is_of(raw, authors));
        if let Some(slot) = slot {
            if let Some(kept) = slot.kept.as_ref().filter(|kept| platform::since(kept.at) <= max_age) {
                return Cached::Page(kept.page.clone(), platform::since(kept.at));
            }
            slot.kept = None;
            slot.is_outdated = false;
        }
        Cached::Turn(Turn { raw: raw.clone(), authors: authors.clone(), _guard: turn })
    }

    /// Stores a page, unless a change that affects it was committed meanwhile.
    pub(crate) fn keep(&self, turn: &Turn, page: &FoundPage) {
        let bytes = page.bytes();
        let mut slots = self.0.lock();
        if bytes > MAX_CACHED_BYTES {
            return;
        }
        make_room(&mut slots, bytes);
        if let Some(slot) =
            slots.iter_mut().find(|slot| slot.is_of(&turn.raw, &turn.authors) && !slot.is_outdated)
        {
            let keys = page.records.iter().map(|found| found.key.clone()).collect();
            slot.kept = Some(Kept { page: page.clone(), keys, at: platform::now(), bytes });
        }
    }

    /// Drops the pages that an event of the store affects.
    pub(crate) fn observe(&self, event: &StoreEvent) {
        let StoreEvent::Changed(Change { key, envelope, previous, .. }) = event else { return };
        for slot in self.0.lock().iter_mut() {
            let answers = |version: &Option<Envelope>| {
                version.as_ref().is_some_and(|version| !slot.query.entries_of(key, version).is_empty())
            };
            let is_same_model = slot.query.record_key(key.primary_key()).as_ref() == Some(key);
            let is_kept = slot.kept.as_ref().is_some_and(|kept| kept.keys.contains(key));
            if is_kept || (is_same_model && (answers(envelope) || answers(previous))) {
                slot.kept = None;
                slot.is_outdated = true;
            }
        }
    }

    /// Drops all pages, which may have records of an author that is refused from now on.
    pub(crate) fn clear(&self) {
        for slot in self.0.lock().iter_mut() {
            slot.kept = None;
            slot.is_outdated = true;
        }
    }

    /// Removes the records that have expired since a page was fetched.
    pub(crate) fn live(store: &NetabaseStore, mut page: FoundPage) -> FoundPage {
        let now = store.replica().clock().unix_millis();
        page.records.retain(|found| found.envelope.expires().is_none_or(|expires| expires > now));
        page
    }
}

/// Evicts the oldest pages, and slots that no task fills, until one more page of `bytes` bytes
/// fits.
fn make_room(slots: &mut Vec<Slot>, bytes: usize) {
    let kept =
        |slots: &[Slot]| slots.iter().flat_map(|slot| &slot.kept).map(|kept| kept.bytes).sum::<usize>();
    while slots.len() >= MAX_CACHED_PAGES || kept(slots) + bytes > MAX_CACHED_BYTES {
        let is_idle = |slot: &Slot| Arc::strong_count(&slot.turn) == 1;
        let idle = slots.iter().enumerate().filter(|(_, slot)| is_idle(slot));
        let oldest = idle.min_by_key(|(_, slot)| slot.kept.as_ref().map(|kept| kept.at));
        let Some((oldest, _)) = oldest else { break };
        slots.swap_remove(oldest);
    }
}
