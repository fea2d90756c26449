//! The dials that a node makes of its own accord: which are under way, and which peers wait for
//! theirs.
//!
//! Kademlia and the protocols dial by themselves whom they have something to ask. What is here
//! brings peers back that were lost, that mDNS tells of, or that somebody has named.

use std::collections::{HashMap, VecDeque};

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

use crate::dht::limits::{
    MAX_DIALS, MAX_DIALS_OF_PEER, MAX_DIALS_WITH_NEWS, MAX_MISSED_DIALS, MAX_WAITING_DIALS,
};
use crate::event_loop::command::Reply;

/// What is dialled and what is to be.
#[derive(Debug, Default)]
pub(crate) struct Dials {
    under_way: HashMap<ConnectionId, Dial>,
    waiting: VecDeque<PeerId>,
    /// Peers that are to be connected and are not: their connection has failed, or they have never
    /// been reached since mDNS told of them. The last one comes first.
    missed: VecDeque<PeerId>,
}

/// A dial that is under way.
#[derive(Debug)]
struct Dial {
    peer: PeerId,
    /// Who waits for its end.
    reply: Option<Reply<()>>,
}

impl Dials {
    /// Lets peers wait for a dial, unless they do or are dialled often enough.
    pub(crate) fn add(&mut self, peers: impl IntoIterator<Item = PeerId>) {
        for peer in peers {
            let may_wait = self.waiting.len() < MAX_WAITING_DIALS && !self.waiting.contains(&peer);
            if may_wait && self.dials_to(&peer) < MAX_DIALS_OF_PEER {
                self.waiting.push_back(peer);
            }
        }
    }

    /// Lets a peer wait for a dial in front of the others: there is news of where it is, which the
    /// dials that are under way do not know.
    pub(crate) fn add_with_news(&mut self, peer: PeerId) {
        if self.waiting.len() < MAX_WAITING_DIALS && self.dials_to(&peer) < MAX_DIALS_WITH_NEWS {
            self.waiting.retain(|waiting| *waiting != peer);
            self.waiting.push_front(peer);
        }
    }

    /// Returns the next peer to dial, if there is one and room for a dial.
    pub(crate) fn next(&mut self) -> Option<PeerId> {
        if self.under_way.len() < MAX_DIALS { self.waiting.pop_front() } else { None }
    }

    fn dials_to(&self, peer: &PeerId) -> usize {
        self.under_way.values().filter(|dial| dial.peer == *peer).count()
    }

    /// A dial has begun. libp2p bounds how many there are.
    pub(crate) fn began(&mut self, connection: ConnectionId, peer: PeerId, reply: Option<Reply<()>>) {
        self.under_way.insert(connection, Dial { peer, reply });
    }

    /// A dial has ended, if it was one of these; returns who waits for it.
    pub(crate) fn ended(&mut self, connection: ConnectionId) -> Option<Reply<()>> {
        self.under_way.remove(&connection).and_then(|dial| dial.reply)
    }

    /// A peer is to be connected and is not.
    pub(crate) fn miss(&mut self, peer: PeerId) {
        self.forget(&peer);
        self.missed.push_front(peer);
        self.missed.truncate(MAX_MISSED_DIALS);
    }

    /// A peer is connected, or nobody wants it any more.
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.missed.retain(|missed| missed != peer);
    }

    pub(crate) fn is_missed(&self, peer: &PeerId) -> bool {
        self.missed.contains(peer)
    }

    /// Returns the peers that are missed, the last one first.
    pub(crate) fn missed(&self) -> impl Iterator<Item = PeerId> {
        self.missed.iter().copied()
    }
}

/// Puts the addresses of a peer, the best first, in a row without repetitions.
pub(crate) fn in_order(peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) -> Vec<Multiaddr> {
    let mut seen: Vec<Multiaddr> = Vec::new();
    // One that names another peer cannot be this one's.
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
