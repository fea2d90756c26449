//! What multicast DNS says: who is on the local network.

use std::collections::HashMap;
use std::sync::Arc;

use libp2p::{Multiaddr, PeerId, mdns};

use crate::event::NetabaseSwarmEvent;
use crate::network::swarm::EventLoop;

/// The most peers that one answer may make us dial.
const MAX_DIALS_PER_EVENT: usize = 32;

impl EventLoop {
    /// Connects to peers that appeared; identify then decides whether they belong to our network.
    ///
    /// A peer that disappears keeps its place in the routing table until dialling it fails. mDNS tells of
    /// a peer once for each address, as long as it is there.
    pub(in crate::network) fn on_mdns(&mut self, event: mdns::Event) {
        if let mdns::Event::Discovered(found) = &event {
            self.on_discovered(found);
        }
        self.broadcast(NetabaseSwarmEvent::Mdns(Arc::new(event)));
    }

    /// Connects to the peers of the local network again.
    pub(in crate::network) fn dial_discovered(&mut self) {
        let Some(mdns) = self.swarm.behaviour().mdns.as_ref() else { return };
        let peers: Vec<PeerId> = mdns.discovered_nodes().copied().take(MAX_DIALS_PER_EVENT).collect();
        for peer in peers {
            // mDNS itself adds the addresses to the dial.
            self.dial(peer, Vec::new());
        }
    }

    fn on_discovered(&mut self, found: &[(PeerId, Multiaddr)]) {
        let mut addresses: HashMap<PeerId, Vec<Multiaddr>> = HashMap::new();
        for (peer, address) in found.iter().filter(|(peer, _)| !self.swarm.is_connected(peer)) {
            addresses.entry(*peer).or_default().push(address.clone());
        }
        for (peer, addresses) in addresses.into_iter().take(MAX_DIALS_PER_EVENT) {
            self.dial(peer, addresses);
        }
    }
}
