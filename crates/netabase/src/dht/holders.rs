//! The holders of records, as far as this node knows the network: the closest peers of its routing
//! table, and itself.

use libp2p::PeerId;
use libp2p::kad::KBucketKey;

use crate::dht::limits::HOLDER_MARGIN;

/// The position of a record or a peer in the keyspace.
pub(crate) type Position = [u8; 32];

/// The peers that share records with this node, and their positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    local: Position,
    /// The peers without this node, each once.
    peers: Vec<(PeerId, Position)>,
    replication: usize,
}

impl View {
    /// Creates a view of the peers in a routing table, which are distinct and without this node.
    /// `replication` peers hold each record.
    pub(crate) fn new(local: PeerId, peers: Vec<(PeerId, Position)>, replication: usize) -> Self {
        Self { local: position_of(local), peers, replication }
    }

    /// Adds a peer that is known to be alive.
    pub(crate) fn with(mut self, peer: PeerId) -> Self {
        let position = position_of(peer);
        if position != self.local && self.peers.iter().all(|(known, _)| *known != peer) {
            self.peers.push((peer, position));
        }
        self
    }

    /// Removes peers that did not answer.
    pub(crate) fn without(mut self, gone: &[PeerId]) -> Self {
        self.peers.retain(|(peer, _)| !gone.contains(peer));
        self
    }

    /// Returns all peers but this node.
    pub(crate) fn peers(&self) -> Vec<PeerId> {
        self.peers.iter().map(|(peer, _)| *peer).collect()
    }

    /// Returns the peers that this node shares most records with: those closest to itself.
    pub(crate) fn neighbours(&self) -> Vec<PeerId> {
        let mut peers: Vec<_> =
            self.peers.iter().map(|(peer, place)| (distance(place, &self.local), *peer)).collect();
        peers.sort_unstable();
        peers.into_iter().take(self.replication).map(|(_, peer)| peer).collect()
    }

    /// Returns the other holders of a record at `position`, and whether this node is a holder, too.
    pub(crate) fn holders(&self, position: &Position) -> (Vec<PeerId>, bool) {
        let mut distances: Vec<_> = self
            .peers
            .iter()
            .enumerate()
            .map(|(index, (_, place))| (distance(place, position), Some(index)))
            .chain([(distance(&self.local, position), None)])
            .collect();
        if distances.len() > self.replication {
            distances.select_nth_unstable(self.replication);
            distances.truncate(self.replication);
        }
        let local = distances.iter().any(|(_, index)| index.is_none());
        let peers = distances.into_iter().filter_map(|(_, index)| self.peers.get(index?));
        (peers.map(|(peer, _)| *peer).collect(), local)
    }

    /// Returns whether this node is a holder of a record at `position`.
    pub(crate) fn is_holder(&self, position: &Position) -> bool {
        self.closer(position) < self.replication
    }

    /// Returns whether this node is so close to being a holder that other peers, with other routing
    /// tables, may consider it one.
    pub(crate) fn is_near(&self, position: &Position) -> bool {
        self.closer(position) < self.replication + (self.replication / HOLDER_MARGIN).max(1)
    }

    /// Returns the number of peers that are closer to `position` than this node.
    fn closer(&self, position: &Position) -> usize {
        let own = distance(&self.local, position);
        self.peers.iter().filter(|(_, place)| distance(place, position) < own).count()
    }

    /// Returns whether this node and `peer` both hold a record at `position`.
    pub(crate) fn is_shared(&self, peer: PeerId, position: &Position) -> bool {
        let (holders, local) = self.holders(position);
        local && holders.contains(&peer)
    }
}

/// Returns the position of a peer.
pub(crate) fn position_of(peer: PeerId) -> Position {
    KBucketKey::from(peer).hashed_bytes().try_into().unwrap_or_default()
}

/// Returns Kademlia's distance, the exclusive or.
pub(crate) fn distance(left: &Position, right: &Position) -> Position {
    let mut distance = *left;
    for (byte, other) in distance.iter_mut().zip(right) {
        *byte ^= other;
    }
    distance
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(local: PeerId, peers: &[PeerId], replication: usize) -> View {
        View::new(local, peers.iter().map(|peer| (*peer, position_of(*peer))).collect(), replication)
    }

    #[test]
    fn holders_are_the_closest_of_everybody() {
        let local = PeerId::random();
        let peers: Vec<PeerId> = (0..50).map(|_| PeerId::random()).collect();
        let view = view(local, &peers, 5);
        for target in 0..50_u8 {
            let target = somewhere(target);
            let mut everybody: Vec<_> = peers.iter().chain([&local]).copied().collect();
            everybody.sort_by_key(|peer| distance(&position_of(*peer), &target));
            let expected = &everybody[..5];
            let (holders, is_local) = view.holders(&target);
            assert_eq!(is_local, expected.contains(&local));
            assert_eq!(view.is_holder(&target), is_local);
            assert_eq!(holders.len() + usize::from(is_local), 5);
            assert!(holders.iter().all(|peer| expected.contains(peer)));
        }
    }

    /// Returns a position that depends on `seed`.
    fn somewhere(seed: u8) -> Position {
        std::array::from_fn(|at| {
            seed.wrapping_mul(167).wrapping_add(u8::try_from(at).unwrap().wrapping_mul(59))
        })
    }

    #[test]
    fn a_small_network_holds_everything() {
        let (local, peer) = (PeerId::random(), PeerId::random());
        let view = view(local, &[peer], 20);
        assert_eq!(view.holders(&[7; 32]), (vec![peer], true));
        assert!(view.is_shared(peer, &[0; 32]));
        assert!(!view.clone().without(&[peer]).is_shared(peer, &[0; 32]));
        assert_eq!(view.clone().with(peer), view);
        assert_eq!(view.neighbours(), [peer]);
    }

    #[test]
    fn a_node_is_near_where_few_more_than_the_holders_are_closer() {
        let local = PeerId::random();
        let peers: Vec<PeerId> = (0..50).map(|_| PeerId::random()).collect();
        let view = view(local, &peers, 8);
        for target in 0..50_u8 {
            let target = somewhere(target);
            let own = distance(&position_of(local), &target);
            let closer = peers.iter().filter(|peer| distance(&position_of(**peer), &target) < own).count();
            assert_eq!((view.holders(&target).1, view.is_near(&target)), (closer < 8, closer < 10));
        }
    }
}
