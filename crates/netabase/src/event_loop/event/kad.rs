//! What Kademlia says.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::kad::{self, GetProvidersOk, PeerInfo, ProgressStep, QueryId, QueryResult};
use libp2p::swarm::dial_opts::DialOpts;
use netabase_store::RecordKey;
use netabase_store::replica::CheckedRecord;
use tokio::sync::mpsc;

use crate::dht::WholeNetwork;
use crate::dht::queries::Query;
use crate::event::NetabaseSwarmEvent;
use crate::event_loop::EventLoop;
use crate::event_loop::calls::CallId;
use crate::event_loop::command::{Reply, answer};
use crate::platform::{self};

/// How long calls reuse what a lookup has found, if that is the whole network. A peer that joins in
/// the meantime, and that this node is not connected to, is not sent what is put.
const WHOLE_NETWORK_LIFETIME: Duration = Duration::from_secs(1);
/// How many of the providers that one peer names are dialled: as many as an honest one has of a
/// key.
const MAX_DIALS: usize = 20;

impl EventLoop {
    pub(crate) fn on_kad(&mut self, event: kad::Event) {
        match &event {
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                self.on_query_progressed(*id, result, *step);
            }
            kad::Event::RoutingUpdated { is_new_peer: true, .. } => {
                self.dht.whole_network = None;
                self.dht.lookups.forget();
                self.peers.news.view_has_changed();
            }
            _ => {}
        }
        self.broadcast(NetabaseSwarmEvent::Kad(Arc::new(event)));
    }

    fn on_query_progressed(&mut self, id: QueryId, result: &QueryResult, step: ProgressStep) {
        // Unknown ids are kad's own queries.
        let Some(query) = self.dht.queries.take(id) else { return };
        let unfinished = match (query, result) {
            (Query::FindHolders(call), QueryResult::GetClosestPeers(result)) => {
                self.on_holders_found(call, result);
                None
            }
            (Query::GetProviders { mut found, reply }, QueryResult::GetProviders(result)) => {
                if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = result {
                    found.extend(providers);
                }
                answer_if_last(found, reply, step.last)
            }
            (Query::LookUpProviders { providers }, QueryResult::GetProviders(result)) => {
                self.on_providers(id, providers, result, step.last)
            }
            (Query::Locate { peer, reply }, QueryResult::GetClosestPeers(result)) => {
                self.on_located(peer, reply, result);
                None
            }
            (Query::StartProviding { told, reply }, QueryResult::StartProviding(_)) => {
                // With no peers the record is kept here and announced when there are some.
                answer(reply, Ok(told));
                None
            }
            (Query::Bootstrap { reply }, QueryResult::Bootstrap(_)) if step.last => {
                answer(reply, Ok(self.known_peers()));
                None
            }
            (query, _) => (!step.last).then_some(query),
        };
        if let Some(query) = unfinished {
            self.dht.queries.insert(id, query);
        }
    }

    /// Tells of the providers that a peer has named, and connects to them: kad forgets their
    /// addresses with the query.
    fn on_providers(
        &mut self,
        id: QueryId,
        providers: mpsc::Sender<HashSet<PeerId>>,
        result: &kad::GetProvidersResult,
        last: bool,
    ) -> Option<Query> {
        if let Ok(GetProvidersOk::FoundProviders { providers: found, .. }) = result {
            let local = *self.swarm.local_peer_id();
            let is_unknown = |peer: &&PeerId| **peer != local && !self.swarm.is_connected(peer);
            let unknown: Vec<PeerId> = found.iter().filter(is_unknown).take(MAX_DIALS).copied().collect();
            for peer in unknown {
                // Whoever cannot be dialled does not answer either.
                let _ = self.swarm.dial(DialOpts::peer_id(peer).build());
            }
            // Who reads them is as fast as any peer, and lacks those of one answer at worst.
            let _ = providers.try_send(found.clone());
        }
        if !last && providers.is_closed() {
            if let Some(mut query) = self.kad().query_mut(&id) {
                query.finish();
            }
            return None;
        }
        (!last).then_some(Query::LookUpProviders { providers })
    }

    fn on_holders_found(&mut self, call: CallId, result: &kad::GetClosestPeersResult) {
        let (Ok(kad::GetClosestPeersOk { key, peers })
        | Err(kad::GetClosestPeersError::Timeout { key, peers })) = result;
        let peers = self.with_connected(key, peers);
        if result.is_ok() && peers.len() < self.config.dht.replication_factor.get() {
            let until = platform::now() + WHOLE_NETWORK_LIFETIME;
            self.dht.whole_network = Some(WholeNetwork { peers: peers.clone(), until });
        }
        self.on_holders_known(call, &peers);
    }

    /// Adds connected peers to what a lookup has found, if that is too few. A lookup begins with
    /// the closest peers in the routing table, and where all of those are gone it finds nobody
    /// else.
    fn with_connected(&mut self, key: &[u8], found: &[PeerInfo]) -> Vec<PeerInfo> {
        let mut holders = found.to_vec();
        let missing = self.config.dht.replication_factor.get().saturating_sub(holders.len());
        if missing > 0 {
            let target = kad::KBucketKey::new(key.to_vec());
            let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
            let is_new = |peer: &PeerId| found.iter().all(|holder| holder.peer_id != *peer);
            let mut more: Vec<PeerId> =
                connected.into_iter().filter(|peer| is_new(peer) && self.is_routed(*peer)).collect();
            more.sort_by_key(|peer| kad::KBucketKey::from(*peer).distance(&target));
            let more = more.into_iter().take(missing);
            holders.extend(more.map(|peer_id| PeerInfo { peer_id, addrs: Vec::new() }));
        }
        holders
    }

    /// Returns the holders of any key, if the last lookup has just found the whole network.
    pub(crate) fn known_holders(&mut self) -> Option<Vec<PeerInfo>> {
        self.dht.whole_network.take_if(|network| network.until < platform::now());
        self.dht.whole_network.as_ref().map(|network| network.peers.clone()).filter(|peers| !peers.is_empty())
    }

    /// Returns the nearest peers to a key of which this node knows, those that are connected first,
    /// and whether they are the whole network.
    pub(crate) fn nearest_known(&mut self, key: &RecordKey) -> (Vec<PeerInfo>, bool) {
        let target = kad::KBucketKey::new(key.as_bytes().to_vec());
        let most = self.config.dht.replication_factor.get();
        let whole = self.known_holders();
        let is_whole = whole.is_some();
        let mut nearest: Vec<_> = if let Some(whole) = whole {
            let distance = |peer: &PeerInfo| kad::KBucketKey::from(peer.peer_id).distance(&target);
            whole.into_iter().map(|peer| (distance(&peer), peer)).collect()
        } else if self.known_peers() <= most {
            // kad's way of sorting the routing table is long where its buckets are empty.
            let mut routed = Vec::new();
            for bucket in self.kad().kbuckets() {
                routed.extend(
                    bucket
                        .iter()
                        .map(|entry| (entry.node.key.distance(&target), info(*entry.node.key.preimage()))),
                );
            }
            routed
        } else {
            let nearest = self.kad().get_closest_local_peers(&target).take(most);
            nearest.map(|key| (key.distance(&target), info(*key.preimage()))).collect()
        };
        nearest.sort_by_cached_key(|(distance, peer)| (!self.swarm.is_connected(&peer.peer_id), *distance));
        (nearest.into_iter().map(|(_, peer)| peer).collect(), is_whole)
    }

    /// Keeps a copy if later versions will reach it, or if there is one here already that it may
    /// replace; returns whether it did.
    pub(crate) fn keep_if_holder(&mut self, key: &RecordKey, copy: CheckedRecord) -> bool {
        let kept = self.is_holder(key) || self.has_copy(key) || self.peers.members.is_list(key);
        if kept {
            self.store.replica().keep(copy);
        }
        kept
    }

    /// Whether this node is one of the closest to a key, so that later versions will reach it. A
    /// client is in nobody's routing table.
    pub(crate) fn is_holder(&mut self, key: &RecordKey) -> bool {
        if self.kad().mode() == kad::Mode::Client {
            return false;
        }
        let holders = self.config.dht.replication_factor;
        // kad's way of sorting the routing table is long where its buckets are empty.
        if self.known_peers() < holders.get() {
            return true;
        }
        let local = kad::KBucketKey::from(*self.swarm.local_peer_id());
        let target = kad::KBucketKey::new(key.as_bytes().to_vec());
        let distance = local.distance(&target);
        let closer =
            self.kad().get_closest_local_peers(&target).take_while(|peer| peer.distance(&target) < distance);
        closer.take(holders.get()).count() < holders.get()
    }

    /// Whether there is a version here that the newest should replace.
    fn has_copy(&self, key: &RecordKey) -> bool {
        self.store.envelope(key).is_ok_and(|local| local.is_some())
    }

    /// Returns how many peers are in the routing table.
    pub(crate) fn known_peers(&mut self) -> usize {
        self.kad().kbuckets().map(|bucket| bucket.num_entries()).sum()
    }
}

/// A peer whose addresses the routing table has.
fn info(peer_id: PeerId) -> PeerInfo {
    PeerInfo { peer_id, addrs: Vec::new() }
}

/// Answers with the providers once no more are to come.
fn answer_if_last(found: HashSet<PeerId>, reply: Reply<HashSet<PeerId>>, last: bool) -> Option<Query> {
    if last {
        answer(reply, Ok(found));
        return None;
    }
    Some(Query::GetProviders { found, reply })
}
