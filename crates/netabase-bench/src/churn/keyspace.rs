//! Where nodes and records lie, as Kademlia measures it.

use libp2p::PeerId;
use libp2p::kad::KBucketKey;
use netabase::RecordKey;

/// A place in the keyspace: the first half of its 256 bits, which no two nodes share by chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position(pub(super) u128);

impl Position {
    pub(super) fn of_node(peer: PeerId) -> Self {
        Self::of_hash(KBucketKey::from(peer).hashed_bytes())
    }

    pub(super) fn of_record(key: &RecordKey) -> Self {
        Self::of_hash(KBucketKey::new(key.as_bytes().to_vec()).hashed_bytes())
    }

    fn of_hash(hash: &[u8]) -> Self {
        Self(hash.first_chunk().map_or(0, |half| u128::from_be_bytes(*half)))
    }

    /// Returns how far two places are from each other.
    pub(super) fn distance(self, other: Self) -> u128 {
        self.0 ^ other.0
    }
}

/// Returns the numbers of the nodes, the closest to a record first.
pub(super) fn by_distance(record: Position, nodes: &[Position]) -> Vec<usize> {
    let mut order: Vec<(u128, usize)> = nodes.iter().map(|node| node.distance(record)).zip(0..).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, node)| node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_have_the_order_of_kademlia() {
        let target = RecordKey::new("Def", "Model", b"1").unwrap();
        let peers: Vec<PeerId> = (0..50).map(|_| PeerId::random()).collect();
        let mut expected = peers.clone();
        let kad_target = KBucketKey::new(target.as_bytes().to_vec());
        expected.sort_by_key(|peer| KBucketKey::from(*peer).distance(&kad_target));
        let positions: Vec<Position> = peers.iter().map(|peer| Position::of_node(*peer)).collect();
        let order = by_distance(Position::of_record(&target), &positions);
        assert_eq!(order.into_iter().map(|node| peers[node]).collect::<Vec<_>>(), expected);
    }
}
