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
    /// A peer that disappears keeps its place in the routing table until dialling it fails.
    pub(in crate::network) fn on_mdns(&mut self, event: mdns::Event) {
        if let mdns::Event::Discovered(found) = &event {
            self.on_discovered(found);
        }
        self.broadcast(NetabaseSwarmEvent::Mdns(Arc::new(event)));
    }

    /// mDNS repeats itself, once for each address, so peers that are connected are left alone.
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
