//! The dials of a node's own accord: those in flight, and the waiting peers.
//!
//! Kademlia and the request protocols dial the peers of their requests themselves. The dials here
//! restore lost connections, and connect to peers that mDNS or another peer has reported.

use std::collections::{HashMap, VecDeque};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

use crate::dht::limits::{
    MAX_DIALS, MAX_DIALS_OF_PEER, MAX_DIALS_WITH_NEWS, MAX_MISSED_DIALS, MAX_WAITING_DIALS,
};
use crate::event_loop::command::Reply;

/// The dials in flight and the waiting peers.
#[derive(Debug, Default)]
pub(crate) struct Dials {
    under_way: HashMap<ConnectionId, Dial>,
    waiting: VecDeque<PeerId>,
    /// Peers that should be connected and are not: their connection has failed, or no dial has
    /// reached them since mDNS reported them. The last one comes first.
    missed: VecDeque<PeerId>,
}

/// A dial in flight.
#[derive(Debug)]
struct Dial {
    peer: PeerId,
    /// The caller that waits for its end.
    reply: Option<Reply<()>>,
}

impl Dials {
    /// Queues peers for a dial, unless they are queued already or have enough dials in flight.
    pub(crate) fn add(&mut self, peers: impl IntoIterator<Item = PeerId>) {
        for peer in peers {
            let may_wait = self.waiting.len() < MAX_WAITING_DIALS && !self.waiting.contains(&peer);
            if may_wait && self.dials_to(&peer) < MAX_DIALS_OF_PEER {
                self.waiting.push_back(peer);
            }
        }
    }

    /// Queues a peer in front of the others, since it has new addresses that the dials in flight do
    /// not know.
    pub(crate) fn add_with_news(&mut self, peer: PeerId) {
        if self.waiting.len() < MAX_WAITING_DIALS && self.dials_to(&peer) < MAX_DIALS_WITH_NEWS {
            self.waiting.retain(|waiting| *waiting != peer);
            self.waiting.push_front(peer);
        }
    }

    /// Returns the next peer to dial, if there is one and the limits allow it.
    pub(crate) fn next(&mut self) -> Option<PeerId> {
        if self.under_way.len() < MAX_DIALS { self.waiting.pop_front() } else { None }
    }

    fn dials_to(&self, peer: &PeerId) -> usize {
        self.under_way.values().filter(|dial| dial.peer == *peer).count()
    }

    /// Records the start of a dial. libp2p bounds their number.
    pub(crate) fn began(&mut self, connection: ConnectionId, peer: PeerId, reply: Option<Reply<()>>) {
        self.under_way.insert(connection, Dial { peer, reply });
    }

    /// Records the end of a dial, if it was one of these; returns the caller that waits for it.
    pub(crate) fn ended(&mut self, connection: ConnectionId) -> Option<Reply<()>> {
        self.under_way.remove(&connection).and_then(|dial| dial.reply)
    }

    /// Records that a peer should be connected and is not.
    pub(crate) fn miss(&mut self, peer: PeerId) {
        self.forget(&peer);
        self.missed.push_front(peer);
        self.missed.truncate(MAX_MISSED_DIALS);
    }

    /// Removes a peer, which is connected or no longer wanted.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.missed.retain(|missed| missed != peer);
    }

    pub(crate) fn is_missed(&self, peer: &PeerId) -> bool {
        self.missed.contains(peer)
    }

    /// Returns the missed peers, the last one first.
    pub(crate) fn missed(&self) -> impl Iterator<Item = PeerId> {
        self.missed.iter().copied()
    }
}

/// Returns the distinct addresses of a peer, the best first.
pub(crate) fn in_order(peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) -> Vec<Multiaddr> {
    let mut seen: Vec<Multiaddr> = Vec::new();
    // An address that names another peer cannot be this peer's.
    for address in addresses.into_iter().filter_map(|address| address.with_p2p(peer).ok()) {
        if !seen.contains(&address) {
            seen.push(address);
        }
    }
    crate::dht::address::few(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    #[test]
    fn a_peer_is_dialled_twice_at_a_time_and_waits_once() {
        let (mut dials, peer) = (Dials::default(), PeerId::random());
        dials.add([peer, peer]);
        assert_eq!((dials.next(), dials.next()), (Some(peer), None));
        dials.began(id(1), peer, None);
        dials.add([peer]);
        assert_eq!(dials.next(), Some(peer));
        dials.began(id(2), peer, None);
        dials.add([peer]);
        assert_eq!(dials.next(), None);
        dials.add_with_news(peer);
        assert_eq!(dials.next(), Some(peer), "the others do not know of the news");
        assert!(dials.ended(id(1)).is_none());
        dials.add([peer]);
        assert_eq!(dials.next(), Some(peer));
    }

    #[test]
    fn dials_wait_for_room_in_their_order() {
        let mut dials = Dials::default();
        let peers: Vec<PeerId> = (0..2 * MAX_DIALS).map(|_| PeerId::random()).collect();
        dials.add(peers.iter().copied());
        for (number, peer) in peers.iter().take(MAX_DIALS).enumerate() {
            assert_eq!(dials.next(), Some(*peer));
            dials.began(id(number), *peer, None);
        }
        assert_eq!(dials.next(), None);
        dials.ended(id(7));
        assert_eq!(dials.next(), Some(peers[MAX_DIALS]));
        dials.add((0..2 * MAX_WAITING_DIALS).map(|_| PeerId::random()));
        assert_eq!(dials.waiting.len(), MAX_WAITING_DIALS);
    }

    #[test]
    fn the_peers_that_were_missed_last_are_kept() {
        let (mut dials, first, last) = (Dials::default(), PeerId::random(), PeerId::random());
        dials.miss(first);
        for _ in 1..MAX_MISSED_DIALS {
            dials.miss(PeerId::random());
        }
        assert!(dials.is_missed(&first));
        dials.miss(last);
        assert!(!dials.is_missed(&first));
        assert_eq!((dials.missed().next(), dials.missed().count()), (Some(last), MAX_MISSED_DIALS));
        dials.forget(&last);
        assert!(!dials.is_missed(&last));
    }

    #[test]
    fn an_address_is_tried_once_and_where_it_is_best() {
        let peer = PeerId::random();
        let address = |text: &str| text.parse::<Multiaddr>().unwrap();
        let named = |text: &str| address(text).with_p2p(peer).unwrap();
        let foreign = address("/ip4/10.0.0.1/tcp/3").with_p2p(PeerId::random()).unwrap();
        let told = [
            address("/ip4/10.0.0.1/tcp/2"),
            foreign,
            named("/ip4/10.0.0.1/tcp/1"),
            named("/ip4/10.0.0.1/tcp/2"),
        ];
        assert_eq!(in_order(peer, told), [named("/ip4/10.0.0.1/tcp/2"), named("/ip4/10.0.0.1/tcp/1")]);
    }
}
