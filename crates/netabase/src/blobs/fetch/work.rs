//! The slices of a fetch, and the peers that were asked for each.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use libp2p::PeerId;
use netabase_store::blob::{BlobStore, PartialBlob};

use crate::platform::{self, Instant};

/// The stored groups of a blob.
pub(super) trait Present {
    /// Returns the first adjacent missing groups inside of `groups`, at most `most`.
    fn first_missing(&self, groups: Range<u64>, most: u64) -> Option<Range<u64>>;
}

impl Present for PartialBlob {
    fn first_missing(&self, groups: Range<u64>, most: u64) -> Option<Range<u64>> {
        PartialBlob::first_missing(self, groups, most)
    }
}

/// The slices of a fetch.
#[derive(Debug)]
pub(super) struct Work {
    /// The groups that were not requested yet.
    rest: Range<u64>,
    /// The slices whose requests have failed.
    again: Vec<Range<u64>>,
    /// The requested slices, by their first group.
    under_way: BTreeMap<u64, UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    slice: Range<u64>,
    since: Instant,
    peers: Vec<PeerId>,
}

impl Work {
    pub(super) fn new(groups: Range<u64>) -> Self {
        Self { rest: groups, again: Vec::new(), under_way: BTreeMap::new() }
    }

    /// Returns the next missing slice. Slices end where larger subtrees do, so that their proofs
    /// are short.
    pub(super) fn next(&mut self, here: &impl Present) -> Option<Range<u64>> {
        while let Some(slice) = self.again.pop() {
            if here.first_missing(slice.clone(), 1).is_some() {
                return Some(slice);
            }
        }
        let Some(run) = here.first_missing(self.rest.clone(), BlobStore::MAX_SLICE_GROUPS) else {
            self.rest.start = self.rest.end;
            return None;
        };
        let boundary = (run.start / BlobStore::MAX_SLICE_GROUPS + 1) * BlobStore::MAX_SLICE_GROUPS;
        let slice = run.start..run.end.min(boundary);
        self.rest.start = slice.end;
        Some(slice)
    }

    /// Returns a slice that another peer was asked for longer than `after` ago.
    pub(super) fn steal(&self, peer: PeerId, after: Duration) -> Option<Range<u64>> {
        let slow = self.under_way.values().filter(|under_way| {
            platform::since(under_way.since) >= after
                && under_way.peers.len() == 1
                && !under_way.peers.contains(&peer)
        });
        slow.min_by_key(|under_way| under_way.since).map(|under_way| under_way.slice.clone())
    }

    pub(super) fn assign(&mut self, slice: &Range<u64>, peer: PeerId) {
        let new = || UnderWay { slice: slice.clone(), since: platform::now(), peers: Vec::new() };
        self.under_way.entry(slice.start).or_insert_with(new).peers.push(peer);
    }

    /// Records a peer's answer to the request for a slice. If no other peer was asked, the slice is
    /// requested again unless it is stored.
    pub(super) fn answered(&mut self, slice: &Range<u64>, peer: &PeerId, is_stored: bool) {
        let Some(under_way) = self.under_way.get_mut(&slice.start) else { return };
        under_way.peers.retain(|asked| asked != peer);
        if is_stored {
            self.under_way.remove(&slice.start);
        } else if under_way.peers.is_empty() {
            self.under_way.remove(&slice.start);
            self.again.push(slice.clone());
        }
    }

    /// Returns whether all groups are stored, and the answers that delivered them were handled.
    pub(super) fn is_done(&mut self, here: &impl Present) -> bool {
        let is_here = |slice: &Range<u64>| here.first_missing(slice.clone(), 1).is_none();
        if !self.under_way.is_empty() || !self.again.iter().all(is_here) {
            return false;
        }
        // Stored groups are not checked again.
        let missing = here.first_missing(self.rest.clone(), 1);
        self.rest.start = missing.as_ref().map_or(self.rest.end, |run| run.start);
        missing.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A blob whose first groups are stored, with a count of checked groups.
    struct Counted {
        here: Cell<u64>,
        looks: Cell<u64>,
    }

    impl Present for Counted {
        fn first_missing(&self, groups: Range<u64>, most: u64) -> Option<Range<u64>> {
            let start = groups.start.max(self.here.get()).min(groups.end);
            let end = groups.end.min(start.saturating_add(most));
            self.looks.set(self.looks.get() + end - groups.start);
            (start < end).then_some(start..end)
        }
    }

    #[test]
    fn a_fetch_looks_at_each_group_of_a_large_blob_a_few_times() {
        let (groups, present) = (1_u64 << 20, 1 << 19);
        let here = Counted { here: Cell::new(present), looks: Cell::new(0) };
        let (mut work, peer, mut at) = (Work::new(0..groups), PeerId::random(), present);
        while !work.is_done(&here) {
            let slice = work.next(&here).unwrap();
            assert_eq!((slice.start, slice.end - slice.start), (at, BlobStore::MAX_SLICE_GROUPS));
            work.assign(&slice, peer);
            assert!(!work.is_done(&here));
            at = slice.end;
            here.here.set(at);
            work.answered(&slice, &peer, true);
        }
        assert_eq!(at, groups);
        assert!(here.looks.get() < 3 * groups, "{}", here.looks.get());
    }
}
