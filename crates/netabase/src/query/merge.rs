//! The merge of the records of several sources, in the order of the query and each record in its
//! newest version.
//!
//! This module knows no peers. Each source has progressed up to some entry; records up to the entry
//! that all sources have passed can be returned.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use netabase_store::query::ResolvedQuery;
use netabase_store::{Envelope, NetabaseStore, RecordKey};

use crate::query::authors::AuthorFilter;
use crate::query::limits::MAX_REMEMBERED_RECORDS;

/// The number of a source.
pub(crate) type SourceId = usize;

/// A record that is returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundRecord {
    pub(crate) key: RecordKey,
    /// For a merged record, the join of its contributions.
    pub(crate) envelope: Envelope,
    /// Its index entry in the order of the query.
    pub(crate) entry: Vec<u8>,
}

/// The progress of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    /// The source has sent everything up to this entry, or nothing before its first answer.
    Passed(Option<Vec<u8>>),
    /// The source has sent everything.
    Ended,
    /// The source sends nothing more.
    Gone,
}

/// A record that a source has sent.
#[derive(Debug)]
struct Held {
    envelope: Envelope,
    /// The index entries at which it is still to be returned.
    entries: Vec<Vec<u8>>,
    /// The sources that have sent any version of it.
    sources: HashSet<SourceId>,
}

/// The merge of all sources.
#[derive(Debug)]
pub(crate) struct Merge {
    query: Arc<ResolvedQuery>,
    authors: AuthorFilter,
    sources: Vec<Progress>,
    held: HashMap<RecordKey, Held>,
    /// The entries that are still to be returned.
    waiting: BTreeMap<Vec<u8>, RecordKey>,
    /// The entry up to which everything was returned.
    passed: Option<Vec<u8>>,
    remembered: [HashMap<RecordKey, Envelope>; 2],
}

impl Merge {
    pub(crate) fn new(query: Arc<ResolvedQuery>, authors: AuthorFilter) -> Self {
        let (sources, held, waiting, remembered) = Default::default();
        Self { query, authors, sources, held, waiting, passed: None, remembered }
    }

    pub(crate) fn authors(&self) -> &AuthorFilter {
        &self.authors
    }

    pub(crate) fn query(&self) -> &Arc<ResolvedQuery> {
        &self.query
    }

    /// Adds a source. The merge waits for the source until it has answered or is gone.
    pub(crate) fn add_source(&mut self) -> SourceId {
        self.sources.push(Progress::Passed(None));
        self.sources.len() - 1
    }

    /// Adds a version of a record from a source, which must pass the filter of authors.
    pub(crate) fn add(
        &mut self,
        store: &NetabaseStore,
        source: SourceId,
        key: RecordKey,
        envelope: Envelope,
    ) {
        let (known, mut sources) = match self.held.get(&key) {
            Some(held) => (Some(&held.envelope), held.sources.clone()),
            None => (self.remembered.iter().find_map(|remembered| remembered.get(&key)), HashSet::new()),
        };
        sources.insert(source);
        let newest = match known {
            Some(known) if !envelope.adds_to(known) => {
                if let Some(held) = self.held.get_mut(&key) {
                    held.sources = sources;
                }
                return;
            }
            Some(known) => store.replica().join(&key, known, &envelope),
            None => envelope,
        };
        self.replace(key, newest, sources);
    }

    /// Adds a version from a peer that is no source, or has not sent the record.
    pub(crate) fn confirm(&mut self, store: &NetabaseStore, key: RecordKey, envelope: &Envelope) {
        let Some(held) = self.held.get(&key) else { return };
        if self.authors.passes(envelope) && envelope.adds_to(&held.envelope) {
            let (newest, sources) =
                (store.replica().join(&key, &held.envelope, envelope), held.sources.clone());
            self.replace(key, newest, sources);
        }
    }

    /// Replaces the held version of a record.
    fn replace(&mut self, key: RecordKey, envelope: Envelope, sources: HashSet<SourceId>) {
        for entry in self.held.remove(&key).into_iter().flat_map(|held| held.entries) {
            self.waiting.remove(&entry);
        }
        let mut entries = self.query.entries_of(&key, &envelope);
        entries.retain(|entry| self.passed.as_ref().is_none_or(|passed| self.is_before(passed, entry)));
        if entries.is_empty() {
            return self.remember(key, envelope);
        }
        for entry in &entries {
            self.waiting.insert(entry.clone(), key.clone());
        }
        self.held.insert(key, Held { envelope, entries, sources });
    }

    fn remember(&mut self, key: RecordKey, envelope: Envelope) {
        let [young, old] = &mut self.remembered;
        if young.len() >= MAX_REMEMBERED_RECORDS / 2 {
            *old = std::mem::take(young);
        }
        young.insert(key, envelope);
    }

    /// Records the progress of a source: up to an entry, or to the end.
    pub(crate) fn passed(&mut self, source: SourceId, last: Option<Vec<u8>>) {
        if let Some(progress) = self.sources.get_mut(source) {
            *progress = last.map_or(Progress::Ended, |last| Progress::Passed(Some(last)));
        }
    }

    /// Records that a source sends nothing more; the others do not wait for it.
    pub(crate) fn gone(&mut self, source: SourceId) {
        if let Some(progress) = self.sources.get_mut(source) {
            *progress = Progress::Gone;
        }
    }

    /// Returns whether every source has ended, and all records were returned.
    pub(crate) fn is_finished(&self) -> bool {
        let is_over = |source: &Progress| matches!(source, Progress::Ended | Progress::Gone);
        self.waiting.is_empty() && self.sources.iter().all(is_over)
    }

    /// Returns the entry that all sources have passed; `Err` if some have sent nothing, `Ok(None)`
    /// if all have ended.
    pub(crate) fn frontier(&self) -> Result<Option<&Vec<u8>>, ()> {
        let mut frontier: Option<&Vec<u8>> = None;
        for source in &self.sources {
            match source {
                Progress::Ended | Progress::Gone => {}
                Progress::Passed(None) => return Err(()),
                Progress::Passed(Some(last)) => {
                    if frontier.is_none_or(|frontier| self.is_before(last, frontier)) {
                        frontier = Some(last);
                    }
                }
            }
        }
        Ok(frontier)
    }

    /// Returns whether fewer than `count` records wait up to the progress of a source, so that it
    /// is time to request its next page.
    pub(crate) fn is_short(&self, source: SourceId, count: usize) -> bool {
        match self.sources.get(source) {
            Some(Progress::Passed(None)) => true,
            Some(Progress::Passed(Some(last))) => {
                let is_behind = |entry: &&Vec<u8>| self.is_before(last, entry);
                self.in_order().take(count).take_while(|(entry, _)| !is_behind(entry)).count() < count
            }
            Some(Progress::Ended | Progress::Gone) | None => false,
        }
    }

    /// Returns the next records that can be returned, up to `count`.
    pub(crate) fn ready(&self, count: usize) -> Vec<(RecordKey, Envelope, HashSet<SourceId>)> {
        let Ok(frontier) = self.frontier() else { return Vec::new() };
        let is_passed = |entry: &[u8]| frontier.is_none_or(|frontier| !self.is_before(frontier, entry));
        let ready = self.in_order().take_while(|(entry, _)| is_passed(entry)).take(count);
        let held = ready.filter_map(|(_, key)| Some((key, self.held.get(key)?)));
        held.map(|(key, held)| (key.clone(), held.envelope.clone(), held.sources.clone())).collect()
    }

    /// Takes the next records, up to `count`, in the newest version of this node or any source. If
    /// only a subset is wanted, takes records until one is outside of it.
    pub(crate) fn take(
        &mut self,
        store: &NetabaseStore,
        count: usize,
        local: SourceId,
        only: Option<&HashSet<RecordKey>>,
    ) -> Vec<FoundRecord> {
        let mut taken = Vec::new();
        let now = store.replica().clock().unix_millis();
        while taken.len() < count {
            let Ok(frontier) = self.frontier() else { break };
            let Some((entry, key)) = self.in_order().next() else { break };
            if frontier.is_some_and(|frontier| self.is_before(frontier, entry))
                || only.is_some_and(|only| !only.contains(key))
            {
                break;
            }
            let (entry, key) = (entry.clone(), key.clone());
            if let Some(newer) = self.newer_here(store, &key) {
                // The newer version may have another place in the order, or none.
                self.add(store, local, key, newer);
                continue;
            }
            self.waiting.remove(&entry);
            self.passed = Some(entry.clone());
            let Some(held) = self.held.get_mut(&key) else { continue };
            held.entries.retain(|left| *left != entry);
            let envelope = held.envelope.clone();
            if held.entries.is_empty() {
                self.held.remove(&key);
                self.remember(key.clone(), envelope.clone());
            }
            if envelope.expires().is_none_or(|expires| expires > now) {
                taken.push(FoundRecord { key, envelope, entry });
            }
        }
        taken
    }

    /// Returns the version in the store, if it is newer than the held one.
    fn newer_here(&self, store: &NetabaseStore, key: &RecordKey) -> Option<Envelope> {
        let held = self.held.get(key)?;
        // An unreadable record counts as missing.
        let here = store.replica().version_for_peers(key).ok().flatten()?;
        (self.authors.passes(&here) && here.adds_to(&held.envelope)).then_some(here)
    }

    fn in_order(&self) -> Box<dyn Iterator<Item = (&Vec<u8>, &RecordKey)> + '_> {
        if self.query.is_reverse() {
            Box::new(self.waiting.iter().rev())
        } else {
            Box::new(self.waiting.iter())
        }
    }

    /// Returns whether an entry precedes another.
    fn is_before(&self, one: &[u8], other: &[u8]) -> bool {
        let order = one.cmp(other);
        order == if self.query.is_reverse() { Ordering::Greater } else { Ordering::Less }
    }
}
