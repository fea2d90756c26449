//! Events of identify: a peer's protocols and addresses.

use std::sync::Arc;

use libp2p::identify;
use libp2p::kad::RoutingUpdate;
use libp2p::{Multiaddr, PeerId};

use crate::dht::address::{few, is_believable, is_other_port};
use crate::dht::limits::MAX_CLAIMED_ADDRESSES;
use crate::event::NetabaseSwarmEvent;
use crate::event_loop::EventLoop;
use crate::event_loop::limits::MAX_PEERS_PER_PREFIX;

impl EventLoop {
    pub(crate) fn on_identify(&mut self, event: identify::Event) {
        if let identify::Event::Received { connection_id, peer_id, info } = &event
            && !self.peers.scores.is_banned(peer_id)
        {
            self.heard_of(*peer_id);
            self.swarm.behaviour_mut().connections.identified(*connection_id, &info.agent_version);
            self.on_identified(*peer_id, info);
            // The peer has moved. Its earlier connections are dead, since it could not close them.
            for outdated in self.swarm.behaviour().connections.outdated(*connection_id, &info.listen_addrs) {
                self.swarm.close_connection(outdated);
            }
            if info.protocols.contains(&self.rpc.record_protocol) {
                self.on_acquainted(*peer_id, *connection_id);
            }
        }
        self.broadcast(NetabaseSwarmEvent::Identify(Arc::new(event)));
    }

    /// Adds a peer to the routing table if the peer speaks Kademlia and the record protocol and has
    /// our root, and removes it if that changes.
    fn on_identified(&mut self, peer: PeerId, info: &identify::Info) {
        let kad = self.kad().protocol_names().iter().any(|protocol| info.protocols.contains(protocol));
        let is_named_alike = info.protocols.contains(&self.rpc.record_protocol);
        let is_ours = is_named_alike && self.note_root(peer, &info.agent_version);
        let speaks_sync = info.protocols.contains(&self.rpc.sync_protocol);
        self.replication.sync_peers.set(peer, speaks_sync && (is_ours || !is_named_alike));
        self.dht.servers.set_serves(&peer, kad && is_ours);
        if !kad || !is_ours {
            self.kad().remove_peer(&peer);
            return;
        }
        let known = self.routed_addresses(peer);
        let addresses = self.believable(peer, &info.listen_addrs);
        if known.is_empty() && self.is_crowded(peer) {
            tracing::debug!(%peer, "enough peers of the same network are in its bucket");
            return;
        }
        // The new addresses come first; they replace other ports of the same host.
        let is_left = |known: &&Multiaddr| addresses.iter().any(|new| is_other_port(known, new));
        let is_own = |known: &&Multiaddr| self.dht.servers.is_at(&peer, known);
        let earlier = known.iter().filter(|known| !addresses.contains(known) && !is_left(known));
        let earlier = earlier.filter(is_own).cloned();
        let kept = few(addresses.iter().cloned().chain(earlier));
        let mut new = kept.iter().filter(|address| !known.contains(address));
        let mut outdated: Vec<&Multiaddr> = known.iter().filter(|known| !kept.contains(known)).collect();
        // Outdated addresses are removed before new ones are added, so that the limit holds. One
        // stays until then, since a peer without an address would lose its place in the bucket.
        let last = if outdated.len() == known.len() { outdated.pop() } else { None };
        for address in outdated {
            self.kad().remove_address(&peer, address);
        }
        if let Some(first) = new.next() {
            self.route(peer, first.clone());
        }
        if let Some(last) = last {
            self.kad().remove_address(&peer, last);
        }
        for address in new {
            self.route(peer, address.clone());
        }
        // A peer may identify itself as often as it likes, and each time would read the schedule.
        if self.dht.newly_connected.remove(&peer) {
            self.peers.new_peer.notify_one();
            self.peers.news.has_returned(peer);
        }
        self.on_members_peer(peer);
    }

    /// Returns the addresses at which this node has reached a peer, and those of its claimed
    /// addresses that can be its own: none of this node's, none with a smaller reach than the
    /// address of the connection, and few at other hosts than those of its connections. Those of a
    /// peer that was never reached wait until it was.
    fn believable(&mut self, peer: PeerId, claimed: &[Multiaddr]) -> Vec<Multiaddr> {
        let behaviour = self.swarm.behaviour();
        let narrowest = behaviour.connections.scope_of(&peer);
        let claimed = claimed
            .iter()
            .filter(|address| is_believable(address, peer, narrowest) && !behaviour.kad.is_own(address));
        let (own, elsewhere): (Vec<&Multiaddr>, Vec<&Multiaddr>) =
            claimed.partition(|address| self.dht.servers.is_at(&peer, address));
        let mut elsewhere: Vec<Multiaddr> =
            elsewhere.into_iter().take(MAX_CLAIMED_ADDRESSES).cloned().collect();
        let reached = behaviour.connections.reached_at(&peer).into_iter();
        let mut believable: Vec<Multiaddr> = reached.chain(own.into_iter().cloned()).collect();
        if self.dht.servers.is_proven(&peer) {
            believable.append(&mut elsewhere);
        }
        self.dht.servers.claims(&peer, elsewhere);
        // The routing table stores every address with the peer's id at the end.
        believable.into_iter().filter_map(|address| address.with_p2p(peer).ok()).collect()
    }

    /// Adds an address of a peer to the routing table. If the peer's bucket is full, the address
    /// replaces a peer that the last dial has not reached.
    pub(crate) fn route(&mut self, peer: PeerId, address: Multiaddr) {
        let outcome = self.kad().add_address(&peer, address.clone());
        if outcome == RoutingUpdate::Success {
            return;
        }
        let bucket: Vec<PeerId> = self
            .kad()
            .kbucket(peer)
            .map_or_else(Vec::new, |bucket| bucket.iter().map(|entry| *entry.node.key.preimage()).collect());
        let backoff = &self.swarm.behaviour().backoff;
        let dead = bucket
            .into_iter()
            .find(|other| *other != peer && backoff.failures(other) > 0 && !self.swarm.is_connected(other));
        if let Some(dead) = dead {
            self.kad().remove_peer(&dead);
            if outcome == RoutingUpdate::Pending {
                // The newcomer would be pending for a minute, whether there is space or not.
                self.kad().remove_peer(&peer);
            }
            self.kad().add_address(&peer, address);
        }
    }

    /// Returns whether a peer's bucket of the routing table has enough peers whose connections came
    /// from its prefix.
    fn is_crowded(&mut self, peer: PeerId) -> bool {
        let Some(prefix) = self.swarm.behaviour().connections.prefix_of(&peer) else { return false };
        let bucket: Vec<PeerId> = self
            .kad()
            .kbucket(peer)
            .map_or_else(Vec::new, |bucket| bucket.iter().map(|entry| *entry.node.key.preimage()).collect());
        let alike = bucket.iter().filter(|other| self.dht.servers.prefix_of(other) == Some(prefix));
        alike.count() >= MAX_PEERS_PER_PREFIX
    }
}

impl EventLoop {
    /// Returns whether a peer is in the routing table.
    pub(crate) fn is_routed(&mut self, peer: PeerId) -> bool {
        !self.routed_addresses(peer).is_empty()
    }

    /// Returns the addresses of a peer in the routing table, or none if the table lacks the peer.
    pub(crate) fn routed_addresses(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        self.swarm.behaviour_mut().kad.routed_addresses(peer)
    }
}
