//! The peers that multicast DNS has reported.
//!
//! mDNS reports an address once, and again only after it has expired and returned. A peer that was
//! unreachable then, or was lost since, would never be dialled again, so the reports are stored
//! here.

use std::collections::VecDeque;

use libp2p::{Multiaddr, PeerId};

use crate::dht::address::few;
use crate::mdns::limits::MAX_LOCAL_PEERS;

/// The peers of the local network, the last reported first.
#[derive(Debug, Default)]
pub(crate) struct LocalPeers(VecDeque<LocalPeer>);

#[derive(Debug)]
struct LocalPeer {
    peer: PeerId,
    /// The addresses, the newest first.
    addresses: Vec<Multiaddr>,
    /// Whether one of the addresses has not expired.
    is_current: bool,
}

impl LocalPeers {
    /// Records the reported addresses of a peer.
    pub(crate) fn found(&mut self, peer: PeerId, addresses: &[Multiaddr]) {
        let known = self.take(&peer).map_or_else(Vec::new, |known| known.addresses);
        let earlier = known.into_iter().filter(|address| !addresses.contains(address));
        let addresses = few(addresses.iter().cloned().chain(earlier));
        self.0.push_front(LocalPeer { peer, addresses, is_current: true });
        self.0.truncate(MAX_LOCAL_PEERS);
    }

    /// Records the expiry of an address. The last address of a peer is kept: after a suspension or
    /// without a link all expire, and an isolated node has no better ones.
    pub(crate) fn expired(&mut self, peer: &PeerId, address: &Multiaddr) {
        let Some(known) = self.0.iter_mut().find(|known| known.peer == *peer) else { return };
        if known.addresses.len() > 1 {
            known.addresses.retain(|other| other != address);
        } else if known.addresses.contains(address) {
            known.is_current = false;
        }
    }

    /// Returns the addresses of a peer, the newest first.
    pub(crate) fn addresses(&self, peer: &PeerId) -> &[Multiaddr] {
        let known = self.0.iter().find(|known| known.peer == *peer);
        known.map_or(&[], |known| &known.addresses)
    }

    /// Returns the peers, those with current addresses first.
    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerId> {
        let (current, expired) =
            (self.0.iter().filter(|known| known.is_current), self.0.iter().filter(|known| !known.is_current));
        current.chain(expired).map(|known| known.peer)
    }

    fn take(&mut self, peer: &PeerId) -> Option<LocalPeer> {
        let position = self.0.iter().position(|known| known.peer == *peer)?;
        self.0.remove(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: usize) -> Multiaddr {
        format!("/ip4/192.168.1.1/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn the_newest_address_and_the_newest_peer_come_first() {
        let (mut local, one, other) = (LocalPeers::default(), PeerId::random(), PeerId::random());
        local.found(one, &[address(1)]);
        local.found(other, &[address(2)]);
        local.found(one, &[address(3)]);
        local.found(one, &[address(1), address(4)]);
        assert_eq!(local.addresses(&one), [address(1), address(4), address(3)]);
        assert_eq!(local.peers().collect::<Vec<_>>(), [one, other]);
        assert_eq!(local.addresses(&PeerId::random()), []);
    }

    #[test]
    fn the_last_address_of_a_peer_outlives_its_time() {
        let (mut local, one, other) = (LocalPeers::default(), PeerId::random(), PeerId::random());
        local.found(other, &[address(9)]);
        local.found(one, &[address(1), address(2)]);
        local.expired(&one, &address(1));
        local.expired(&one, &address(2));
        local.expired(&PeerId::random(), &address(2));
        assert_eq!(local.addresses(&one), [address(2)]);
        assert_eq!(local.peers().collect::<Vec<_>>(), [other, one], "the other is there now");
        local.found(one, &[address(2)]);
        assert_eq!(local.peers().collect::<Vec<_>>(), [one, other]);
    }

    #[test]
    fn many_peers_and_many_addresses_push_the_oldest_out() {
        let mut local = LocalPeers::default();
        let first = PeerId::random();
        local.found(first, &[address(1)]);
        let busy = PeerId::random();
        for port in 0..MAX_LOCAL_PEERS {
            local.found(PeerId::random(), &[address(port)]);
            local.found(busy, &[address(port)]);
        }
        assert_eq!((local.peers().count(), local.addresses(&first).len()), (MAX_LOCAL_PEERS, 0));
        assert_eq!(local.addresses(&busy).first(), Some(&address(MAX_LOCAL_PEERS - 1)));
        assert!(local.addresses(&busy).len() <= crate::dht::limits::MAX_ADDRESSES_PER_PEER);
    }
}
