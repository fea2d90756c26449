//! What Kademlia says.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::kad::{
    self, GetProvidersOk, GetRecordOk, PeerRecord, ProgressStep, QueryId, QueryResult, Quorum,
};

use netabase_store::RecordKey;
use tokio::time::Instant;

use crate::event::NetabaseSwarmEvent;
use crate::network::command::{Reply, answer};
use crate::network::query::{Found, Get, Put, PutId, Query};
use crate::network::swarm::{EventLoop, WholeNetwork};

/// How soon a version that no peer accepted is due again, in milliseconds.
const RETRY_MILLIS: u64 = 60_000;
/// How long puts reuse what a lookup has found, if that is the whole network. A peer that joins in the
/// meantime, and that this node is not connected to, is not sent what is put.
const WHOLE_NETWORK_LIFETIME: Duration = Duration::from_secs(1);
/// How long a get waits for further copies after the first one.
const SETTLING_TIME: Duration = Duration::from_millis(300);

impl EventLoop {
    pub(in crate::network) fn on_kad(&mut self, event: kad::Event) {
        match &event {
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                self.on_query_progressed(*id, result, *step);
            }
            kad::Event::RoutingUpdated { is_new_peer: true, .. } => self.whole_network = None,
            _ => {}
        }
        self.broadcast(NetabaseSwarmEvent::Kad(Arc::new(event)));
    }

    fn on_query_progressed(&mut self, id: QueryId, result: &QueryResult, step: ProgressStep) {
        // Unknown ids are kad's own queries.
        let Some(query) = self.queries.take(id) else { return };
        let unfinished = match (query, result) {
            (Query::FindHolders { put }, QueryResult::GetClosestPeers(result)) => {
                self.on_holders_found(put, result);
                None
            }
            (Query::Send { put, peer }, QueryResult::PutRecord(result)) => {
                self.on_sent(put, peer, result.is_ok());
                None
            }
            (Query::GiveMembers { peer, .. }, QueryResult::PutRecord(result)) => {
                self.members.answered(&peer, result.is_ok());
                None
            }
            (Query::Get(get), QueryResult::GetRecord(result)) => self.on_copy(id, get, result, step.last),
            (Query::GetProviders { mut found, reply }, QueryResult::GetProviders(result)) => {
                if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = result {
                    found.extend(providers);
                }
                answer_if_last(found, reply, step.last)
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
            self.queries.insert(id, query);
        }
    }

    fn on_holders_found(&mut self, put: PutId, result: &kad::GetClosestPeersResult) {
        let (Ok(kad::GetClosestPeersOk { peers, .. })
        | Err(kad::GetClosestPeersError::Timeout { peers, .. })) = result;
        let holders: Vec<PeerId> = peers.iter().map(|peer| peer.peer_id).collect();
        if result.is_ok() && holders.len() < self.config.dht.replication_factor.get() {
            let until = Instant::now() + WHOLE_NETWORK_LIFETIME;
            self.whole_network = Some(WholeNetwork { peers: holders.clone(), until });
        }
        self.send_to_holders(put, holders);
    }

    /// Returns the holders of any key, if the last lookup has just found the whole network.
    pub(in crate::network) fn known_holders(&mut self) -> Option<Vec<PeerId>> {
        self.whole_network.take_if(|network| network.until < Instant::now());
        self.whole_network.as_ref().map(|network| network.peers.clone()).filter(|peers| !peers.is_empty())
    }

    /// Sends a version to each holder in a query of its own, so that each one's answer is known and one
    /// dead peer delays nobody else's.
    pub(in crate::network) fn send_to_holders(&mut self, id: PutId, holders: Vec<PeerId>) {
        let Some(mut put) = self.queries.take_put(id) else { return };
        put.sent_to(&holders);
        for peer in holders {
            let record = self.store.kad_record(put.key.as_bytes().to_vec().into(), &put.envelope);
            let query = self.kad().put_record_to(record, std::iter::once(peer), Quorum::One);
            self.queries.insert(query, Query::Send { put: id, peer });
        }
        self.go_on_with_put(id, put);
    }

    fn on_sent(&mut self, id: PutId, peer: PeerId, accepted: bool) {
        let Some(mut put) = self.queries.take_put(id) else { return };
        put.answered(peer, accepted);
        if self.members.is_list(&put.key) {
            self.members.answered(&peer, accepted);
        }
        self.go_on_with_put(id, put);
    }

    /// Answers the caller if it is time; when all peers have answered, sets when the version is to
    /// be published again.
    fn go_on_with_put(&mut self, id: PutId, mut put: Put) {
        put.answer_if_settled(self.config.dht.write_concern.get());
        if !put.is_finished() {
            self.queries.put_back(id, put);
            return;
        }
        let interval = u64::try_from(self.config.dht.republish_interval.as_millis()).unwrap_or(u64::MAX);
        let wait = if put.is_accepted() { interval } else { RETRY_MILLIS.min(interval) };
        let nobody_asked = put.is_unpublished();
        let due = if nobody_asked { 0 } else { self.store.clock().unix_millis().saturating_add(wait) };
        self.store.schedule(&put.key, &put.envelope, Some(due));
        if !nobody_asked && !put.is_accepted() {
            self.look_for_newer(put.key);
        }
    }

    /// Nobody accepted a version, perhaps because they have a newer one, which the get will keep here.
    pub(in crate::network) fn look_for_newer(&mut self, key: RecordKey) {
        let (reply, _) = Reply::new(None);
        self.get_record(key, reply);
    }

    /// Adds a copy; ends the query once there are enough of them.
    fn on_copy(
        &mut self,
        id: QueryId,
        mut get: Get,
        result: &kad::GetRecordResult,
        last: bool,
    ) -> Option<Query> {
        let mut missing = BTreeMap::new();
        match result {
            Ok(GetRecordOk::FoundRecord(PeerRecord { peer: Some(peer), record })) => {
                // A refusal is counted and reported by the store; the next copy may be better.
                if let Ok(copy) = self.store.check_record(&get.key, &record.value) {
                    get.add(*peer, copy);
                    if get.copies() == 1 {
                        self.settling.push_back((Instant::now() + SETTLING_TIME, id));
                    }
                }
            }
            Ok(GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates }) => {
                missing.clone_from(cache_candidates);
            }
            Ok(GetRecordOk::FoundRecord(PeerRecord { peer: None, .. })) | Err(_) => {}
        }
        let enough = get.copies() >= self.config.dht.read_concern.get();
        if !last && !enough {
            return Some(Query::Get(get));
        }
        if !last && let Some(mut query) = self.kad().query_mut(&id) {
            query.finish();
        }
        self.on_copies_collected(get, missing.into_values().collect());
        None
    }

    /// A get has waited long enough for further copies: dead peers may keep the query busy.
    pub(in crate::network) fn on_settled(&mut self) {
        let Some((_, id)) = self.settling.pop_front() else { return };
        match self.queries.take(id) {
            Some(Query::Get(get)) => {
                if let Some(mut query) = self.kad().query_mut(&id) {
                    query.finish();
                }
                self.on_copies_collected(get, Vec::new());
            }
            Some(query) => self.queries.insert(id, query),
            None => {}
        }
    }

    /// Keeps the winner if this node is one of its holders, answers the caller, and sends the winner to
    /// peers that had an older version or none.
    fn on_copies_collected(&mut self, get: Get, missing: Vec<PeerId>) {
        let Found { key, newest, stale, reply } = get.finish();
        let Some(newest) = newest else { return answer(reply, Ok(None)) };
        let envelope = newest.envelope().clone();
        let record = self.store.kad_record(key.as_bytes().to_vec().into(), &envelope);
        if self.is_holder(&key) || self.has_copy(&key) || self.members.is_list(&key) {
            self.store.keep(newest);
        }
        answer(reply, Ok(Some(envelope.clone())));
        let behind: Vec<PeerId> = stale.into_iter().chain(missing).collect();
        // With too much on its way already, the holders catch up when they are asked again.
        if let Some(permit) = self.puts.try_permit(&envelope).filter(|_| !behind.is_empty()) {
            let query = self.kad().put_record_to(record, behind.into_iter(), Quorum::All);
            self.queries.insert(query, Query::Repair { _permit: permit });
        }
    }

    /// Whether this node is one of the closest to a key, so that later versions will reach it. A client
    /// is in nobody's routing table.
    fn is_holder(&mut self, key: &RecordKey) -> bool {
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
    pub(in crate::network) fn known_peers(&mut self) -> usize {
        self.kad().kbuckets().map(|bucket| bucket.num_entries()).sum()
    }
}

/// Answers with the providers once no more are to come.
fn answer_if_last(found: HashSet<PeerId>, reply: Reply<HashSet<PeerId>>, last: bool) -> Option<Query> {
    if last {
        answer(reply, Ok(found));
        return None;
    }
    Some(Query::GetProviders { found, reply })
}
