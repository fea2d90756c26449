//! The holders of a blob, and the choice of the next one to ask.

use std::collections::HashSet;

use libp2p::PeerId;

use crate::blobs::limits::{
    BUSY_PAUSE, FIRST_SLICES, MAX_BLOB_HOLDERS, MAX_BUSY_ANSWERS, MAX_HOLDER_FAILURES, MAX_SLICES_OF_HOLDER,
};
use crate::blobs::{BlobHolder, HolderConduct};
use crate::platform::Instant;

#[derive(Debug)]
pub(super) struct Holders {
    local: Option<PeerId>,
    all: Vec<Holder>,
}

#[derive(Debug)]
struct Holder {
    peer: PeerId,
    in_flight: usize,
    /// The number of its concurrent slices.
    slices: usize,
    failures: u32,
    busy: u32,
    busy_until: Option<Instant>,
    delivered: u64,
    bytes: u64,
    /// The slices that another holder delivered first.
    late: u64,
    conduct: HolderConduct,
}

impl Holder {
    fn may_be_asked(&self) -> bool {
        matches!(self.conduct, HolderConduct::Good)
    }

    fn is_free(&self, now: Instant) -> bool {
        self.may_be_asked()
            && self.in_flight < self.slices
            && self.busy_until.is_none_or(|until| until <= now)
    }
}

impl Holders {
    pub(super) fn new(local: Option<PeerId>, hints: Vec<PeerId>) -> Self {
        let mut holders = Self { local, all: Vec::new() };
        for peer in hints {
            holders.add(peer);
        }
        holders
    }

    /// Adds a peer that may have the blob. A peer that has failed is tried again; one that has sent
    /// corrupt bytes is not.
    pub(super) fn add(&mut self, peer: PeerId) {
        if Some(peer) == self.local {
            return;
        }
        if let Some(known) = self.all.iter_mut().find(|known| known.peer == peer) {
            if matches!(known.conduct, HolderConduct::Failed { .. } | HolderConduct::NotHere) {
                (known.conduct, known.failures, known.busy) = (HolderConduct::Good, 0, 0);
                known.slices = 1;
            }
        } else if self.all.len() < MAX_BLOB_HOLDERS {
            self.all.push(Holder {
                peer,
                in_flight: 0,
                slices: FIRST_SLICES,
                failures: 0,
                busy: 0,
                busy_until: None,
                delivered: 0,
                bytes: 0,
                late: 0,
                conduct: HolderConduct::Good,
            });
        }
    }

    /// Resets the count of `Busy` answers, since no request is in flight.
    pub(super) fn forgive_busy(&mut self) {
        self.all.iter_mut().for_each(|holder| holder.in_flight = 0);
    }

    /// Returns the peers that need not be asked whether they have the blob.
    pub(super) fn known(&self) -> HashSet<PeerId> {
        let good = self
            .all
            .iter()
            .filter(|holder| holder.may_be_asked() || holder.conduct == HolderConduct::Corrupt);
        good.map(|holder| holder.peer).chain(self.local).collect()
    }

    /// Returns whether there is a holder that can be asked.
    pub(super) fn any_left(&self) -> bool {
        self.all.iter().any(Holder::may_be_asked)
    }

    /// Returns whether a peer has sent corrupt bytes before. Concurrent answers of the peer prove
    /// nothing new.
    pub(super) fn has_lied(&self, peer: &PeerId) -> bool {
        self.all.iter().any(|holder| holder.peer == *peer && holder.conduct == HolderConduct::Corrupt)
    }

    /// Returns the holder with a free slot that has the fewest slices in flight.
    pub(super) fn next_free(&self, now: Instant) -> Option<PeerId> {
        let free = self.all.iter().filter(|holder| holder.is_free(now));
        free.min_by_key(|holder| holder.in_flight).map(|holder| holder.peer)
    }

    pub(super) fn begin(&mut self, peer: &PeerId) {
        self.with(peer, |holder| holder.in_flight += 1);
    }

    /// Records a slice that a holder has delivered, of which `new` bytes were new.
    pub(super) fn delivered(&mut self, peer: &PeerId, new: u64) {
        self.answered(peer, |holder| {
            (holder.failures, holder.busy) = (0, 0);
            holder.slices = (holder.slices + 1).min(MAX_SLICES_OF_HOLDER);
            holder.bytes += new;
            if new == 0 { holder.late += 1 } else { holder.delivered += 1 }
        });
    }

    /// Records a `Busy` answer of a holder.
    pub(super) fn busy(&mut self, peer: &PeerId, now: Instant) {
        self.answered(peer, |holder| {
            holder.busy += 1;
            holder.busy_until = Some(now + BUSY_PAUSE);
            holder.slices = (holder.slices / 2).max(1);
            if holder.busy >= MAX_BUSY_ANSWERS {
                holder.conduct = HolderConduct::Failed { reason: "the holder was busy for too long".into() };
            }
        });
    }

    /// Records a holder's failure or meaningless answer.
    pub(super) fn failed(&mut self, peer: &PeerId, reason: String) {
        self.answered(peer, |holder| {
            holder.failures += 1;
            holder.slices = 1;
            if holder.failures >= MAX_HOLDER_FAILURES && holder.may_be_asked() {
                holder.conduct = HolderConduct::Failed { reason: reason.into() };
            }
        });
    }

    /// Stops asking a holder.
    pub(super) fn drop_for(&mut self, peer: &PeerId, conduct: HolderConduct) {
        self.answered(peer, |holder| {
            if holder.conduct != HolderConduct::Corrupt {
                holder.conduct = conduct;
            }
        });
    }

    pub(super) fn report(&self) -> Vec<BlobHolder> {
        let report = |holder: &Holder| BlobHolder {
            peer: holder.peer,
            bytes: holder.bytes,
            slices: holder.delivered,
            late: holder.late,
            conduct: holder.conduct.clone(),
        };
        self.all.iter().map(report).collect()
    }

    fn answered(&mut self, peer: &PeerId, change: impl FnOnce(&mut Holder)) {
        self.with(peer, |holder| {
            holder.in_flight = holder.in_flight.saturating_sub(1);
            change(holder);
        });
    }

    fn with(&mut self, peer: &PeerId, change: impl FnOnce(&mut Holder)) {
        if let Some(holder) = self.all.iter_mut().find(|holder| holder.peer == *peer) {
            change(holder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform;

    #[test]
    fn a_holder_that_lied_is_never_asked_again_and_one_that_failed_is_when_it_is_found_again() {
        let (liar, weak) = (PeerId::random(), PeerId::random());
        let mut holders = Holders::new(None, vec![liar, weak]);
        holders.drop_for(&liar, HolderConduct::Corrupt);
        for _ in 0..MAX_HOLDER_FAILURES {
            assert!(holders.any_left());
            holders.failed(&weak, "gone".into());
        }
        assert!(!holders.any_left());
        holders.add(liar);
        assert!(!holders.any_left());
        holders.add(weak);
        assert_eq!(holders.next_free(platform::now()), Some(weak));
    }

    #[test]
    fn a_holder_has_no_more_slices_under_way_than_it_may() {
        let peer = PeerId::random();
        let mut holders = Holders::new(None, vec![peer]);
        let now = platform::now();
        for _ in 0..100 {
            while holders.next_free(now).is_some() {
                holders.begin(&peer);
            }
            holders.delivered(&peer, 1);
        }
        assert!(holders.all[0].in_flight <= MAX_SLICES_OF_HOLDER);
        assert_eq!(Holders::new(Some(peer), vec![peer]).next_free(now), None, "nobody asks itself");
    }
}
