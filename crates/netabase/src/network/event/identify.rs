//! What identify says: who a peer is, what it speaks and where it listens.

use std::sync::Arc;

use libp2p::identify;
use libp2p::{Multiaddr, PeerId};

use crate::event::NetabaseSwarmEvent;
use crate::network::address::{Prefix, few, is_believable};
use crate::network::swarm::EventLoop;

/// The most peers of one prefix in a bucket of the routing table, a quarter of a bucket: one owner of many
/// addresses cannot take all of it, and the nodes of one data centre still find each other.
const MAX_PEERS_PER_PREFIX: usize = 10;

impl EventLoop {
    pub(in crate::network) fn on_identify(&mut self, event: identify::Event) {
        if let identify::Event::Received { connection_id, peer_id, info } = &event {
            self.swarm.behaviour_mut().connections.identified(*connection_id, &info.agent_version);
            self.on_identified(*peer_id, info);
        }
        self.broadcast(NetabaseSwarmEvent::Identify(Arc::new(event)));
    }

    /// A peer enters the routing table only if it speaks both of our protocols, and leaves it if it stops to.
    fn on_identified(&mut self, peer: PeerId, info: &identify::Info) {
        self.sync_peers.set(peer, info.protocols.contains(&self.sync_protocol));
        let kad = self.kad().protocol_names().iter().any(|protocol| info.protocols.contains(protocol));
        if !kad || !info.protocols.contains(&self.record_protocol) {
            self.kad().remove_peer(&peer);
            return;
        }
        let known = self.routed_addresses(peer);
        let addresses = self.believable(peer, &info.listen_addrs);
        if known.is_empty() && self.is_crowded(peer, &addresses) {
            tracing::debug!(%peer, "enough peers of the same network are in its bucket");
            return;
        }
        let news = addresses.into_iter().filter(|address| !known.contains(address));
        let kept = few(known.iter().cloned().chain(news));
        for address in kept.into_iter().filter(|address| !known.contains(address)) {
            self.kad().add_address(&peer, address);
        }
        // A peer may tell of itself as often as it likes, and each time would have the schedule read.
        if self.newly_connected.remove(&peer) {
            self.new_peer.notify_one();
        }
        self.on_members_peer(peer);
    }

    /// Returns the addresses at which we have reached a peer, and of those that it claims the ones that can be
    /// its own: none of ours, and none that reach less far than the one that it is connected at.
    fn believable(&self, peer: PeerId, claimed: &[Multiaddr]) -> Vec<Multiaddr> {
        let behaviour = self.swarm.behaviour();
        let narrowest = behaviour.connections.scope_of(&peer);
        let claimed = claimed
            .iter()
            .filter(|address| is_believable(address, peer, narrowest) && !behaviour.kad.is_own(address));
        let reached = behaviour.connections.reached_at(&peer).into_iter();
        // The routing table keeps every address with its peer's name at the end.
        reached.chain(claimed.cloned()).filter_map(|address| address.with_p2p(peer).ok()).collect()
    }

    /// Whether a peer's bucket of the routing table has enough peers of its prefix.
    fn is_crowded(&mut self, peer: PeerId, addresses: &[Multiaddr]) -> bool {
        let prefixes: Vec<Prefix> = addresses.iter().filter_map(Prefix::of).collect();
        let shares = |address: &Multiaddr| Prefix::of(address).is_some_and(|other| prefixes.contains(&other));
        self.kad().kbucket(peer).is_some_and(|bucket| {
            bucket.iter().filter(|entry| entry.node.value.iter().any(shares)).count() >= MAX_PEERS_PER_PREFIX
        })
    }
}

impl EventLoop {
    /// Whether a peer is in the routing table.
    pub(in crate::network) fn is_routed(&mut self, peer: PeerId) -> bool {
        !self.routed_addresses(peer).is_empty()
    }

    /// Returns the addresses of a peer in the routing table; none if it is not in it.
    fn routed_addresses(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        let Some(bucket) = self.kad().kbucket(peer) else { return Vec::new() };
        let entry = bucket.iter().find(|entry| *entry.node.key.preimage() == peer);
        entry.map_or_else(Vec::new, |entry| entry.node.value.iter().cloned().collect())
    }
}
