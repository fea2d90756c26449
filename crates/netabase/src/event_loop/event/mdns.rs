//! Events of multicast DNS: peers of the local network.

use std::collections::HashMap;
use std::sync::Arc;

use libp2p::{Multiaddr, PeerId, mdns};

use crate::event::NetabaseSwarmEvent;
use crate::event_loop::EventLoop;

impl EventLoop {
    /// Connects to peers that appeared; identify then tells whether they belong to this network.
    ///
    /// A peer that disappears stays in the routing table until a dial fails.
    pub(crate) fn on_mdns(&mut self, event: mdns::Event) {
        match &event {
            mdns::Event::Discovered(found) => self.on_discovered(found),
            mdns::Event::Expired(expired) => {
                for (peer, address) in expired {
                    self.mdns.peers.expired(peer, address);
                }
            }
        }
        self.broadcast(NetabaseSwarmEvent::Mdns(Arc::new(event)));
    }

    fn on_discovered(&mut self, found: &[(PeerId, Multiaddr)]) {
        let mut addresses: HashMap<PeerId, Vec<Multiaddr>> = HashMap::new();
        for (peer, address) in found {
            addresses.entry(*peer).or_default().push(address.clone());
        }
        for (peer, addresses) in addresses {
            self.mdns.peers.found(peer, &addresses);
            if !self.swarm.is_connected(&peer) {
                // The peer has just announced itself, so earlier failures do not count.
                self.swarm.behaviour_mut().backoff.allow(&peer);
                self.dht.dials.miss(peer);
                self.dht.dials.add_with_news(peer);
            }
        }
        self.dial_waiting();
    }
}
