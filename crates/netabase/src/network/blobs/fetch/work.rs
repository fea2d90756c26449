//! Which slices are to be asked for, and who was asked for which.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use libp2p::PeerId;
use netabase_store::{MAX_SLICE_GROUPS, PartialBlob};
use tokio::time::Instant;

/// The slices of a fetch.
#[derive(Debug)]
pub(super) struct Work {
    /// What nobody was asked for yet.
    rest: Range<u64>,
    /// What was asked for in vain.
    again: Vec<Range<u64>>,
    /// What was asked for, by the first group.
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

    /// Returns the next slice of what is missing. Slices end where larger subtrees do, so that less is needed to
    /// prove them.
    pub(super) fn next(&mut self, partial: &PartialBlob) -> Option<Range<u64>> {
        while let Some(slice) = self.again.pop() {
            if !partial.missing(slice.clone(), 1).is_empty() {
                return Some(slice);
            }
        }
        let Some(run) = partial.missing(self.rest.clone(), 1).pop() else {
            self.rest.start = self.rest.end;
            return None;
        };
        let boundary = (run.start / MAX_SLICE_GROUPS + 1) * MAX_SLICE_GROUPS;
        let slice = run.start..run.end.min(boundary);
        self.rest.start = slice.end;
        Some(slice)
    }

    /// Returns a slice that somebody else was asked for long ago.
    pub(super) fn steal(&self, peer: PeerId, after: Duration) -> Option<Range<u64>> {
        let slow = self.under_way.values().filter(|under_way| {
            under_way.since.elapsed() >= after
                && under_way.peers.len() == 1
                && !under_way.peers.contains(&peer)
        });
        slow.min_by_key(|under_way| under_way.since).map(|under_way| under_way.slice.clone())
    }

    pub(super) fn assign(&mut self, slice: &Range<u64>, peer: PeerId) {
        let new = || UnderWay { slice: slice.clone(), since: Instant::now(), peers: Vec::new() };
        self.under_way.entry(slice.start).or_insert_with(new).peers.push(peer);
    }

    /// A peer that was asked for a slice has answered; if nobody else was, others are asked unless it is stored.
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

    /// Whether everything that was to be fetched is here, and every answer was seen that it came with.
    pub(super) fn is_done(&self, partial: &PartialBlob) -> bool {
        let is_here = |slice: &Range<u64>| partial.missing(slice.clone(), 1).is_empty();
        self.under_way.is_empty() && self.again.iter().all(is_here) && is_here(&self.rest)
    }
}
