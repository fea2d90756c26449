//! How much memory requests and responses may take: of all peers together, and of each a share of
//! it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use libp2p::PeerId;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for so many bytes.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    all: Arc<Semaphore>,
    /// How many bytes each peer may take.
    share: usize,
    /// Of the peers that have taken some, or are connected.
    shares: Arc<Mutex<HashMap<PeerId, Weak<Semaphore>>>>,
}

impl Room {
    pub(crate) fn new(all: usize, share: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), share, shares: Arc::default() }
    }

    /// Returns the room of one peer, the same for all of its connections.
    pub(crate) fn of(&self, peer: PeerId) -> PeerRoom {
        let mut shares = self.shares.lock();
        let share = shares.get(&peer).and_then(Weak::upgrade).unwrap_or_else(|| {
            shares.retain(|_, share| share.strong_count() > 0);
            let share = Arc::new(Semaphore::new(self.share));
            shares.insert(peer, Arc::downgrade(&share));
            share
        });
        PeerRoom { all: Arc::clone(&self.all), share }
    }
}

/// The room of a peer.
#[derive(Debug, Clone)]
pub(crate) struct PeerRoom {
    all: Arc<Semaphore>,
    share: Arc<Semaphore>,
}

impl PeerRoom {
    /// Takes room for `bytes` more, if there is any.
    pub(crate) fn take(&self, bytes: usize, taken: &mut Option<Taken>) -> bool {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let acquire = |room: &Arc<Semaphore>| Arc::clone(room).try_acquire_many_owned(permits).ok();
        let Some((share, all)) = acquire(&self.share).zip(acquire(&self.all)) else { return false };
        match taken {
            Some(taken) => {
                taken.share.merge(share);
                taken.all.merge(all);
            }
            None => *taken = Some(Taken { share, all }),
        }
        true
    }
}

/// What was taken of a room, until it is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    share: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_takes_no_more_than_its_share() {
        let room = Room::new(1000, 300);
        let [greedy, other] = [PeerId::random(), PeerId::random()];
        let (mut taken, mut of_other) = (None, None);
        assert!(room.of(greedy).take(200, &mut taken) && room.of(greedy).take(100, &mut taken));
        assert!(!room.of(greedy).take(1, &mut taken), "by whichever connection");
        assert!(room.of(other).take(300, &mut of_other));
        drop(taken.take());
        assert!(room.of(greedy).take(300, &mut taken));
    }

    #[test]
    fn all_peers_together_take_no_more_than_there_is() {
        let room = Room::new(1000, 300);
        let mut held = [(); 3].map(|()| None);
        assert!(held.iter_mut().all(|taken| room.of(PeerId::random()).take(300, taken)));
        let (late, mut taken) = (PeerId::random(), None);
        assert!(!room.of(late).take(101, &mut taken) && room.of(late).take(100, &mut taken));
        drop((held, taken));
        assert_eq!(room.all.available_permits(), 1000);
        room.of(late);
        room.of(PeerId::random());
        assert_eq!(room.shares.lock().len(), 1, "who has nothing is forgotten");
    }
}
