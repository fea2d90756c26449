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
use crate::event_loop::limits::{MAX_ASKED_BEYOND, STALE_NETWORK_LIFETIME, WHOLE_NETWORK_LIFETIME};
use crate::ops::get::Known;
use crate::platform;

impl EventLoop {
    /// Looks up the peers that hold a record, unless they are known;
    /// [`EventLoop::on_holders_known`] continues the call.
    pub(crate) fn find_holders(&mut self, key: &RecordKey, call: CallId) {
        match self.known_holders() {
            Some(holders) => self.on_holders_known(call, &holders),
            None => self.look_up_holders(key, Some(call)),
        }
    }

    /// Continues a put with the holders of its record as soon as they are known.
    ///
    /// While every peer of a small network stays connected, a put waits for no lookup: those that
    /// join connect to this node or are found by the next lookup, which runs meanwhile.
    pub(crate) fn find_holders_of_put(&mut self, key: &RecordKey, call: CallId) {
        match self.holders_known_lately(key) {
            Some(holders) => self.on_holders_known(call, &holders),
            None => self.find_holders(key, call),
        }
    }

    /// Returns the holders of a record, as of the last lookup and the connections since. The next
    /// lookup runs meanwhile. Returns `None` if the last one is recent, or tells too little.
    fn holders_known_lately(&mut self, key: &RecordKey) -> Option<Vec<PeerInfo>> {
        let (now, swarm) = (platform::now(), &self.swarm);
        let network = self.dht.whole_network.as_mut().filter(|network| {
            (network.until..network.until + STALE_NETWORK_LIFETIME).contains(&now)
                && !network.peers.is_empty()
                && network.peers.iter().all(|peer| swarm.is_connected(&peer.peer_id))
        })?;
        let is_looked_up = std::mem::replace(&mut network.is_looked_up, true);
        let peers = network.peers.clone();
        if !is_looked_up {
            self.look_up_holders(key, None);
        }
        Some(self.with_connected(key.as_bytes(), &peers))
    }

    fn look_up_holders(&mut self, key: &RecordKey, call: Option<CallId>) {
        // Without a number kad looks up twenty, whatever the replication factor is.
        let holders = self.config.dht.replication_factor;
        let query = self.kad().get_n_closest_peers(key.as_bytes().to_vec(), holders);
        self.begin_query(query, Query::FindHolders(call));
    }

    pub(crate) fn on_holders_found(&mut self, call: Option<CallId>, result: &kad::GetClosestPeersResult) {
        let (Ok(kad::GetClosestPeersOk { key, peers })
        | Err(kad::GetClosestPeersError::Timeout { key, peers })) = result;
        let peers = self.with_connected(key, peers);
        let is_whole = result.is_ok() && peers.len() < self.config.dht.replication_factor.get();
        self.dht.whole_network = is_whole.then(|| {
            let until = platform::now() + WHOLE_NETWORK_LIFETIME;
            WholeNetwork { peers: peers.clone(), until, is_looked_up: false }
        });
        if let Some(call) = call {
            self.on_holders_known(call, &peers);
        }
    }

    /// Returns the connected peers that are the next nearest to a key after its holders, who may
    /// all be strangers that hold nothing.
    pub(crate) fn beyond(&self, key: &RecordKey, holders: &[PeerInfo]) -> Vec<PeerInfo> {
        self.nearest_connected(key.as_bytes(), holders, MAX_ASKED_BEYOND)
    }

    /// Adds connected peers to the result of a lookup that has found too few. A lookup starts with
    /// the closest peers in the routing table, and finds no other peers if all of those are gone.
    fn with_connected(&mut self, key: &[u8], found: &[PeerInfo]) -> Vec<PeerInfo> {
        let missing = self.config.dht.replication_factor.get().saturating_sub(found.len());
        [found, &self.nearest_connected(key, found, missing)].concat()
    }

    /// Returns up to `most` connected peers that serve others and are not among the `known`, the
    /// nearest to a key first.
    fn nearest_connected(&self, key: &[u8], known: &[PeerInfo], most: usize) -> Vec<PeerInfo> {
        if most == 0 {
            return Vec::new();
        }
        let target = kad::KBucketKey::new(key.to_vec());
        let is_new = |peer: &&PeerId| known.iter().all(|holder| holder.peer_id != **peer);
        let connected = self.swarm.connected_peers().filter(is_new);
        let mut others: Vec<PeerId> =
            connected.filter(|peer| self.dht.servers.serves(peer)).copied().collect();
        others.sort_by_cached_key(|peer| kad::KBucketKey::from(*peer).distance(&target));
        others.into_iter().take(most).map(info).collect()
    }

    /// Returns the holders of any key, if a recent lookup has found the whole network.
    pub(crate) fn known_holders(&self) -> Option<Vec<PeerInfo>> {
        let network = self.dht.whole_network.as_ref()?;
        (network.until > platform::now() && !network.peers.is_empty()).then(|| network.peers.clone())
    }

    /// Returns the nearest known peers to a key, and which part of the network they are. Connected
    /// peers come first; silent peers, and those that the last dial has not reached, come last.
    pub(crate) fn nearest_known(&mut self, key: &RecordKey) -> (Vec<PeerInfo>, Known) {
        let target = key.position();
        let all = self.known_holders().map(|peers| (peers, Known::All));
        let all = all.or_else(|| Some((self.holders_known_lately(key)?, Known::Lately)));
        let (mut nearest, part): (Vec<(Position, PeerInfo)>, _) = if let Some((peers, part)) = all {
            let place = |peer: PeerInfo| (distance(&position_of(peer.peer_id), &target), peer);
            (peers.into_iter().map(place).collect(), part)
        } else {
            let place = |(peer, place)| (distance(&place, &target), info(peer));
            (self.routed().into_iter().map(place).collect(), Known::Some)
        };
        nearest.sort_unstable_by_key(|(distance, _)| *distance);
        nearest.truncate(self.config.dht.replication_factor.get());
        let (swarm, silence) = (&self.swarm, &self.peers.silence);
        nearest.sort_by_cached_key(|(_, PeerInfo { peer_id: peer, .. })| {
            let is_gone = silence.is_silent(peer) || swarm.behaviour().backoff.failures(peer) > 0;
            (is_gone, !swarm.is_connected(peer))
        });
        (nearest.into_iter().map(|(_, peer)| peer).collect(), part)
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
