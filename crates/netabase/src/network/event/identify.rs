//! What identify says: who a peer is, what it speaks and where it listens.

use std::sync::Arc;

use libp2p::identify;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use crate::event::NetabaseSwarmEvent;
use crate::network::swarm::EventLoop;

/// The most addresses of one peer that are kept.
pub(super) const MAX_ADDRESSES_PER_PEER: usize = 16;

impl EventLoop {
    pub(in crate::network) fn on_identify(&mut self, event: identify::Event) {
        if let identify::Event::Received { peer_id, info, .. } = &event {
            self.on_identified(*peer_id, info);
        }
        self.broadcast(NetabaseSwarmEvent::Identify(Arc::new(event)));
    }

    /// A peer enters the routing table only if it speaks both of our protocols, and leaves it if it stops to.
    fn on_identified(&mut self, peer: PeerId, info: &identify::Info) {
        let kad = self.kad().protocol_names().iter().any(|protocol| info.protocols.contains(protocol));
        if !kad || !info.protocols.contains(&self.record_protocol) {
            self.kad().remove_peer(&peer);
            return;
        }
        let known = self.known_addresses(peer);
        let addresses = info.listen_addrs.iter().filter(|address| is_dialable(address, peer));
        for address in addresses.take(MAX_ADDRESSES_PER_PEER.saturating_sub(known)) {
            self.kad().add_address(&peer, address.clone());
        }
        self.new_peer.notify_one();
        self.on_members_peer(peer);
    }
}

impl EventLoop {
    /// Whether a peer is in the routing table.
    pub(in crate::network) fn is_routed(&mut self, peer: PeerId) -> bool {
        self.known_addresses(peer) > 0
    }

    fn known_addresses(&mut self, peer: PeerId) -> usize {
        let Some(bucket) = self.kad().kbucket(peer) else { return 0 };
        let entry = bucket.iter().find(|entry| *entry.node.key.preimage() == peer);
        entry.map_or(0, |entry| entry.node.value.len())
    }
}

/// Whether an address that a peer claims can be dialled at all and is its own.
fn is_dialable(address: &Multiaddr, peer: PeerId) -> bool {
    let specified = match address.iter().next() {
        Some(Protocol::Ip4(ip)) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        Some(Protocol::Ip6(ip)) => !ip.is_unspecified() && !ip.is_multicast(),
        Some(
            Protocol::Dns(_)
            | Protocol::Dns4(_)
            | Protocol::Dns6(_)
            | Protocol::Dnsaddr(_)
            | Protocol::Memory(_),
        ) => true,
        _ => false,
    };
    let own = address.iter().all(|part| !matches!(part, Protocol::P2p(other) if other != peer));
    specified && own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cannot_be_dialled_are_left_out() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        let dialable = |address: &str| is_dialable(&address.parse().unwrap(), peer);
        assert!(dialable("/ip4/127.0.0.1/tcp/4001"));
        assert!(dialable("/dns4/example.org/tcp/4001"));
        assert!(dialable(&format!("/ip6/::1/udp/4001/quic-v1/p2p/{peer}")));
        assert!(!dialable("/ip4/0.0.0.0/tcp/4001"));
        assert!(!dialable("/ip4/224.0.0.251/udp/5353"));
        assert!(!dialable(&format!("/ip4/127.0.0.1/tcp/4001/p2p/{other}")));
        assert!(!dialable("/unix/%2Ftmp%2Fsocket"));
    }
}
