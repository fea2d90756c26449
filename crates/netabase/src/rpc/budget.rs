//! Memory budgets of requests and responses: for all peers together, and a share for each.
//!
//! A share is a part of what is free, so that many who take theirs leave some for others (Choudhury
//! and Hahne, "Dynamic queue length thresholds", 1998). That holds for the last quarter in any
//! case; above it, every peer may have a frame of the largest size.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use libp2p::PeerId;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rpc::limits::{PEER_SHARE, RESERVED_PART, SCARCE_PART};

/// A budget of bytes in memory, shared among peers.
#[derive(Debug, Clone)]
pub(crate) struct ByteBudget {
    all: Arc<Semaphore>,
    sizes: Sizes,
    /// The shares of the peers that hold a part, or are connected.
    shares: Arc<Mutex<HashMap<PeerId, Weak<Semaphore>>>>,
}

/// The sizes of a budget, in bytes.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    all: usize,
    /// The most that a peer may have, and what it may have as long as the reserve is untouched.
    most: usize,
    least: usize,
}

impl ByteBudget {
    /// Makes a budget of `all` bytes, of which a peer has a share of [`PEER_SHARE`] of what is
    /// free, and `least` bytes as long as [`RESERVED_PART`] of all is free.
    pub(crate) fn new(all: usize, least: usize) -> Self {
        let sizes = Sizes { all, most: (all / PEER_SHARE).max(least), least };
        Self { all: Arc::new(Semaphore::new(all)), sizes, shares: Arc::default() }
    }

    /// Returns the share of one peer, the same for all of its connections.
    pub(crate) fn of(&self, peer: PeerId) -> PeerBudget {
        let mut shares = self.shares.lock();
        let share = shares.get(&peer).and_then(Weak::upgrade).unwrap_or_else(|| {
            shares.retain(|_, share| share.strong_count() > 0);
            let share = Arc::new(Semaphore::new(self.sizes.most));
            shares.insert(peer, Arc::downgrade(&share));
            share
        });
        PeerBudget { all: Arc::clone(&self.all), share, sizes: self.sizes }
    }
}

/// The share of a peer.
#[derive(Debug, Clone)]
pub(crate) struct PeerBudget {
    all: Arc<Semaphore>,
    share: Arc<Semaphore>,
    sizes: Sizes,
}

impl PeerBudget {
    /// Returns whether the share and the budget have `bytes`.
    pub(crate) fn has(&self, bytes: usize) -> bool {
        let Sizes { all, most, least } = self.sizes;
        let (free, left) = (self.all.available_permits(), self.share.available_permits());
        let held = most.saturating_sub(left);
        let least = if free.saturating_sub(bytes) < all / RESERVED_PART { 0 } else { least };
        bytes <= free.min(left) && held + bytes <= ((free + held) / PEER_SHARE).max(least)
    }

    /// Takes `bytes` from the share and the budget if both have them; returns whether they did.
    pub(crate) fn take(&self, bytes: usize, taken: &mut Option<Taken>) -> bool {
        if !self.has(bytes) {
            return false;
        }
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let acquire = |budget: &Arc<Semaphore>| Arc::clone(budget).try_acquire_many_owned(permits).ok();
        let Some((share, all)) = acquire(&self.share).zip(acquire(&self.all)) else { return false };
        match taken {
            Some(taken) => {
                taken.share.merge(share);
                taken.all.merge(all);
            }
            None => *taken = Some(Taken { share, all, scarce: self.sizes.all / SCARCE_PART }),
        }
        true
    }
}

/// A part of a budget, which is returned when it is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    share: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
    /// The budget is scarce with less than so many bytes.
    scarce: usize,
}

impl Taken {
    /// Returns whether others may need it.
    pub(crate) fn is_scarce(&self) -> bool {
        self.all.semaphore().available_permits() < self.scarce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_takes_no_more_than_its_share() {
        let budget = ByteBudget::new(1000, 300);
        let [greedy, other] = [PeerId::random(), PeerId::random()];
        let (mut taken, mut of_other) = (None, None);
        assert!(budget.of(greedy).take(200, &mut taken) && budget.of(greedy).take(100, &mut taken));
        assert!(!budget.of(greedy).take(1, &mut taken), "by whichever connection");
        assert!(budget.of(other).take(300, &mut of_other));
        drop(taken.take());
        assert!(budget.of(greedy).take(300, &mut taken));
    }

    #[test]
    fn many_peers_leave_some_for_others() {
        for least in [10, 1000] {
            let budget = ByteBudget::new(8000, least);
            let mut held = Vec::new();
            for _ in 0..16 {
                let (peer, mut taken) = (budget.of(PeerId::random()), None);
                while peer.take(10, &mut taken) {}
                held.push(taken);
            }
            assert!(budget.all.available_permits() > 500, "{}", budget.all.available_permits());
            assert!(budget.of(PeerId::random()).take(60, &mut None));
            assert!(held.iter().flatten().all(Taken::is_scarce));
            held.truncate(1);
            assert!(!held.iter().flatten().any(Taken::is_scarce));
        }
    }

    #[test]
    fn all_peers_together_take_no_more_than_there_is() {
        let budget = ByteBudget::new(1000, 250);
        let mut held = [(); 3].map(|()| None);
        assert!(held.iter_mut().all(|taken| budget.of(PeerId::random()).take(250, taken)));
        let (late, mut taken) = (PeerId::random(), None);
        assert!(!budget.of(late).take(250 / PEER_SHARE + 1, &mut taken));
        assert!(budget.of(late).take(250 / PEER_SHARE, &mut taken));
        drop((held, taken));
        assert_eq!(budget.all.available_permits(), 1000);
        budget.of(late);
        budget.of(PeerId::random());
        assert_eq!(budget.shares.lock().len(), 1, "who has nothing is forgotten");
    }
}
