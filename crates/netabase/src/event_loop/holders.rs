//! The holders of a record: their lookup, and whether this node is one.

use libp2p::PeerId;
use libp2p::kad::{self, PeerInfo};
use netabase_store::RecordKey;
use netabase_store::replica::CheckedRecord;

use crate::dht::WholeNetwork;
use crate::dht::holders::{Position, View, distance, position_of};
use crate::dht::queries::Query;
use crate::event_loop::EventLoop;
use crate::event_loop::calls::CallId;
use crate::event_loop::limits::WHOLE_NETWORK_LIFETIME;
use crate::platform;

impl EventLoop {
    /// Looks up the peers that hold a record, unless they are known;
    /// [`EventLoop::on_holders_known`] continues the call.
    pub(crate) fn find_holders(&mut self, key: &RecordKey, call: CallId) {
        if let Some(holders) = self.known_holders() {
            return self.on_holders_known(call, &holders);
        }
        // Without a number kad looks up twenty, whatever the replication factor is.
        let holders = self.config.dht.replication_factor;
        let query = self.kad().get_n_closest_peers(key.as_bytes().to_vec(), holders);
        self.begin_query(query, Query::FindHolders(call));
    }

    pub(crate) fn on_holders_found(&mut self, call: CallId, result: &kad::GetClosestPeersResult) {
        let (Ok(kad::GetClosestPeersOk { key, peers })
        | Err(kad::GetClosestPeersError::Timeout { key, peers })) = result;
        let peers = self.with_connected(key, peers);
        if result.is_ok() && peers.len() < self.config.dht.replication_factor.get() {
            let until = platform::now() + WHOLE_NETWORK_LIFETIME;
            self.dht.whole_network = Some(WholeNetwork { peers: peers.clone(), until });
        }
        self.on_holders_known(call, &peers);
    }

    /// Adds connected peers to the result of a lookup that has found too few. A lookup starts with
    /// the closest peers in the routing table, and finds no other peers if all of those are gone.
    fn with_connected(&mut self, key: &[u8], found: &[PeerInfo]) -> Vec<PeerInfo> {
        let mut holders = found.to_vec();
        let missing = self.config.dht.replication_factor.get().saturating_sub(holders.len());
        if missing > 0 {
            let target = kad::KBucketKey::new(key.to_vec());
            let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
            let is_new = |peer: &PeerId| found.iter().all(|holder| holder.peer_id != *peer);
            let mut more: Vec<PeerId> =
                connected.into_iter().filter(|peer| is_new(peer) && self.dht.servers.serves(peer)).collect();
            more.sort_by_key(|peer| kad::KBucketKey::from(*peer).distance(&target));
            let more = more.into_iter().take(missing);
            holders.extend(more.map(|peer_id| PeerInfo { peer_id, addrs: Vec::new() }));
        }
        holders
    }

    /// Returns the holders of any key, if a recent lookup has found the whole network.
    pub(crate) fn known_holders(&mut self) -> Option<Vec<PeerInfo>> {
        self.dht.whole_network.take_if(|network| network.until < platform::now());
        self.dht.whole_network.as_ref().map(|network| network.peers.clone()).filter(|peers| !peers.is_empty())
    }

    /// Returns the nearest known peers to a key, and whether they are the whole network. Connected
    /// peers come first; silent peers, and those that the last dial has not reached, come last.
    pub(crate) fn nearest_known(&mut self, key: &RecordKey) -> (Vec<PeerInfo>, bool) {
        let target = key.position();
        let whole = self.known_holders();
        let is_whole = whole.is_some();
        let mut nearest: Vec<(Position, PeerInfo)> = if let Some(whole) = whole {
            whole.into_iter().map(|peer| (distance(&position_of(peer.peer_id), &target), peer)).collect()
        } else {
            let routed = self.routed();
            routed.into_iter().map(|(peer, place)| (distance(&place, &target), info(peer))).collect()
        };
        nearest.sort_unstable_by_key(|(distance, _)| *distance);
        nearest.truncate(self.config.dht.replication_factor.get());
        let (swarm, silence) = (&self.swarm, &self.peers.silence);
        nearest.sort_by_cached_key(|(_, PeerInfo { peer_id: peer, .. })| {
            let is_gone = silence.is_silent(peer) || swarm.behaviour().backoff.failures(peer) > 0;
            (is_gone, !swarm.is_connected(peer))
        });
        (nearest.into_iter().map(|(_, peer)| peer).collect(), is_whole)
    }

    /// Returns the known live peers, from which the holders of a key follow.
    ///
    /// A peer that the last dial has not reached counts as holding nothing, though it stays in the
    /// routing table for a while: with this node cut off from the network, every peer would be
    /// unreachable.
    pub(crate) fn view(&mut self) -> View {
        let (local, holders) = (*self.swarm.local_peer_id(), self.config.dht.replication_factor.get());
        let mut peers = self.routed();
        let dials = &self.swarm.behaviour().backoff;
        peers.retain(|(peer, _)| dials.failures(peer) == 0);
        View::new(local, peers, holders)
    }

    /// Returns whether this node is one of the closest to a key, so that later versions will reach
    /// it. A client is in no peer's routing table.
    pub(crate) fn is_holder(&mut self, key: &RecordKey) -> bool {
        self.kad().mode() != kad::Mode::Client && self.view().is_holder(&key.position())
    }

    /// Stores a copy if later versions will reach this node, or if the copy may replace a stored
    /// one; returns whether it was stored.
    pub(crate) fn keep_if_holder(&mut self, key: &RecordKey, copy: CheckedRecord) -> bool {
        let kept = self.is_holder(key) || self.has_copy(key) || self.peers.members.is_list(key);
        if kept {
            self.store.replica().keep(copy);
        }
        kept
    }

    /// Returns whether a version is stored that the newest should replace.
    fn has_copy(&self, key: &RecordKey) -> bool {
        self.store.envelope(key).is_ok_and(|local| local.is_some())
    }

    /// Returns how many peers are in the routing table.
    pub(crate) fn known_peers(&mut self) -> usize {
        self.kad().kbuckets().map(|bucket| bucket.num_entries()).sum()
    }

    /// Returns the peers in the routing table. Kad's own sorting by distance is slow when buckets
    /// are empty.
    pub(crate) fn routed(&mut self) -> Vec<(PeerId, Position)> {
        let mut routed = Vec::new();
        for bucket in self.kad().kbuckets() {
            routed.extend(bucket.iter().map(|entry| {
                let key = entry.node.key;
                (*key.preimage(), key.hashed_bytes().try_into().unwrap_or_default())
            }));
        }
        routed
    }
}

/// Returns a peer without addresses, which the routing table has.
fn info(peer_id: PeerId) -> PeerInfo {
    PeerInfo { peer_id, addrs: Vec::new() }
}
