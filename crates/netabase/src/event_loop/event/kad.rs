//! What Kademlia says.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::kad::{
    self, GetProvidersOk, GetRecordOk, PeerInfo, PeerRecord, ProgressStep, QueryId, QueryResult,
};
use libp2p::swarm::dial_opts::DialOpts;
use netabase_store::replica::CheckedRecord;
use netabase_store::{Envelope, RecordKey, Refusal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::dht::queries::{Found, Get, Put, PutId, Query, Waiting};
use crate::event::NetabaseSwarmEvent;
use crate::event_loop::command::{Reply, answer};
use crate::event_loop::{EventLoop, WholeNetwork};
use crate::outcome::{ReadAnswer, WriteAnswer};
use crate::peers::score::Offence;
use crate::replication::republish::{next_due, overdue};
use crate::rpc::outbox::{Errand, Parcel};
use crate::telemetry::trace::{TraceKind, Written};

/// How long puts reuse what a lookup has found, if that is the whole network. A peer that joins in
/// the meantime, and that this node is not connected to, is not sent what is put.
const WHOLE_NETWORK_LIFETIME: Duration = Duration::from_secs(1);
/// How long a get waits for further copies after the first one.
const SETTLING_TIME: Duration = Duration::from_millis(300);
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
                self.whole_network = None;
                self.lookups.forget();
                self.peer_news.view_has_changed();
            }
            _ => {}
        }
        self.broadcast(NetabaseSwarmEvent::Kad(Arc::new(event)));
    }

    fn on_query_progressed(&mut self, id: QueryId, result: &QueryResult, step: ProgressStep) {
        // Unknown ids are kad's own queries.
        let Some(query) = self.queries.take(id) else { return };
        let unfinished = match (query, result) {
            (Query::FindHolders(waiting), QueryResult::GetClosestPeers(result)) => {
                self.on_holders_found(waiting, result);
                None
            }
            (Query::Get(get), QueryResult::GetRecord(result)) => self.on_copy(id, get, result, step.last),
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
            self.queries.insert(id, query);
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

    fn on_holders_found(&mut self, waiting: Waiting, result: &kad::GetClosestPeersResult) {
        let (Ok(kad::GetClosestPeersOk { key, peers })
        | Err(kad::GetClosestPeersError::Timeout { key, peers })) = result;
        let peers = self.with_connected(key, peers);
        if result.is_ok() && peers.len() < self.config.dht.replication_factor.get() {
            let until = Instant::now() + WHOLE_NETWORK_LIFETIME;
            self.whole_network = Some(WholeNetwork { peers: peers.clone(), until });
        }
        self.on_holders_known(waiting, &peers);
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

    /// Goes on with what waits for the peers that hold a record.
    pub(crate) fn on_holders_known(&mut self, waiting: Waiting, holders: &[PeerInfo]) {
        match waiting {
            Waiting::Put(put) => self.send_to_holders(put, holders),
            Waiting::Ask(ask) => self.ask_holders(ask, holders),
        }
    }

    /// Returns the holders of any key, if the last lookup has just found the whole network.
    pub(crate) fn known_holders(&mut self) -> Option<Vec<PeerInfo>> {
        self.whole_network.take_if(|network| network.until < Instant::now());
        self.whole_network.as_ref().map(|network| network.peers.clone()).filter(|peers| !peers.is_empty())
    }

    /// Sends a version to each holder, so that each one's answer is known and one dead peer delays
    /// nobody else's.
    fn send_to_holders(&mut self, id: PutId, holders: &[PeerInfo]) {
        let Some(mut put) = self.queries.take_put(id) else { return };
        put.sent_to(holders.iter().map(|holder| holder.peer_id));
        let (key, envelope, trace) = (put.key.clone(), put.envelope.clone(), put.trace);
        self.go_on_with_put(id, put);
        for holder in holders {
            let (key, envelope, errand) = (key.clone(), envelope.clone(), Errand::Put(id));
            self.send_version(holder, Parcel { key, envelope, errand, trace });
        }
    }

    /// A peer has answered a put, or will not answer any more.
    pub(crate) fn on_sent(&mut self, id: PutId, peer: PeerId, answer: WriteAnswer) {
        let Some(mut put) = self.queries.take_put(id) else { return };
        if self.members.is_list(&put.key) {
            self.members.answered(&peer, &answer);
        }
        if let WriteAnswer::Refused(reason) = answer
            && reason != Refusal::Outdated
        {
            self.standings.refused(reason);
        }
        if matches!(answer, WriteAnswer::Refused(Refusal::FutureTimestamp | Refusal::Slowed)) {
            // It says whose clock is wrong, or for how long it refuses.
            self.greet(peer);
        }
        put.answered(peer, answer);
        self.go_on_with_put(id, put);
    }

    /// Answers the caller if it is time; when all peers have answered, sets when the version is to
    /// be published again.
    fn go_on_with_put(&mut self, id: PutId, mut put: Put) {
        put.answer_if_settled();
        if !put.is_finished() {
            self.queries.put_back(id, put);
            return;
        }
        self.forget_deadline(Waiting::Put(id), put.deadline);
        let nobody_asked = put.is_unpublished();
        let due = if nobody_asked {
            overdue(&self.store, &put.envelope)
        } else {
            next_due(&self.store, self.config.dht.republish_interval, put.is_heard())
        };
        self.store.replica().schedule(&put.key, &put.envelope, Some(due));
        if put.is_heard() {
            self.store.replica().note_heard(&put.key, &put.envelope);
        }
        self.traces.add(&self.store, &put.key, TraceKind::Published { answers: put.answers() });
        if put.is_from_future() {
            // Nobody has it, and if our clock is right by now, it gets a date that others believe.
            self.store.replica().redate(&put.key, &put.envelope);
            return;
        }
        let unwanted = !nobody_asked && !put.is_heard() && !put.is_undecided();
        if (unwanted || put.is_outdated()) && !self.is_superseded(&put) {
            self.look_for_newer(put.key);
        }
    }

    /// Whether a newer version than a put's is here, which explains that peers have one.
    fn is_superseded(&self, put: &Put) -> bool {
        let local = self.store.envelope(&put.key).ok().flatten();
        local.is_some_and(|local| local.adds_to(&put.envelope))
    }

    /// Somebody has a newer version, or perhaps everybody, since nobody accepted ours. The get will
    /// keep it here.
    pub(crate) fn look_for_newer(&mut self, key: RecordKey) {
        let (reply, _) = Reply::new(None);
        self.begin_get(key, reply);
    }

    /// Adds a copy; ends the query once there are enough of them.
    fn on_copy(
        &mut self,
        id: QueryId,
        mut get: Get,
        result: &kad::GetRecordResult,
        last: bool,
    ) -> Option<Query> {
        match result {
            Ok(GetRecordOk::FoundRecord(PeerRecord { peer: Some(peer), record })) => {
                self.add_copy(&mut get, *peer, &record.value);
                if get.copies() == 1 {
                    self.settling.push_back((Instant::now() + SETTLING_TIME, id));
                }
            }
            Ok(GetRecordOk::FinishedWithNoAdditionalRecord { cache_candidates }) => {
                for peer in cache_candidates.values() {
                    if !get.has_answer_of(*peer) {
                        get.add_without_copy(*peer, ReadAnswer::Nothing);
                    }
                }
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
        self.on_copies_collected(get);
        None
    }

    /// Verifies what a peer answered with. Where it is refused, the next copy may be better.
    pub(crate) fn add_copy(&mut self, get: &mut Get, peer: PeerId, value: &[u8]) {
        match self.store.replica().check_quietly(&get.key, value) {
            Ok(copy) => get.add(peer, copy),
            Err(reason) => {
                get.add_without_copy(peer, ReadAnswer::Invalid(reason));
                self.on_refused(peer, Offence::of(&peer, get.key.as_bytes(), value, reason));
            }
        }
    }

    /// A get has waited long enough for further copies: dead peers may keep the query busy.
    pub(crate) fn on_settled(&mut self) {
        let Some((_, id)) = self.settling.pop_front() else { return };
        match self.queries.take(id) {
            Some(Query::Get(get)) => {
                if let Some(mut query) = self.kad().query_mut(&id) {
                    query.finish();
                }
                self.on_copies_collected(get);
            }
            Some(query) => self.queries.insert(id, query),
            None => {}
        }
    }

    /// Keeps the winner if this node is one of its holders, answers the caller, and sends the
    /// winner to peers that had an older version or none.
    pub(crate) fn on_copies_collected(&mut self, get: Get) {
        let copies = get.copies();
        let Found { key, newest, reading, behind, replies } = get.finish();
        let (mut written, mut kept) = (None, false);
        if let Some(newest) = newest {
            let envelope = newest.envelope().clone();
            written = Written::of(&envelope);
            kept = self.keep_if_holder(&key, newest);
            self.repair(&key, &envelope, behind);
        }
        self.traces.add(&self.store, &key, TraceKind::Fetched { written, copies, kept });
        for reply in replies {
            answer(reply, Ok(reading.clone()));
        }
    }

    /// Keeps a copy if later versions will reach it, or if there is one here already that it may
    /// replace; returns whether it did.
    pub(crate) fn keep_if_holder(&mut self, key: &RecordKey, copy: CheckedRecord) -> bool {
        let kept = self.is_holder(key) || self.has_copy(key) || self.members.is_list(key);
        if kept {
            self.store.replica().keep(copy);
        }
        kept
    }

    /// Sends a version to peers that lack it. With too much on its way already, they catch up when
    /// they are asked again.
    fn repair(&mut self, key: &RecordKey, envelope: &Envelope, behind: Vec<PeerId>) {
        if behind.is_empty() {
            return;
        }
        let Some(permit) = self.puts.try_permit(envelope).map(Arc::new) else { return };
        self.traces.add(&self.store, key, TraceKind::Repaired { peers: behind.clone() });
        for peer_id in behind {
            let errand = Errand::Repair { _permit: Arc::clone(&permit) };
            let parcel = Parcel { key: key.clone(), envelope: envelope.clone(), errand, trace: None };
            self.send_version(&PeerInfo { peer_id, addrs: Vec::new() }, parcel);
        }
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

/// Answers with the providers once no more are to come.
fn answer_if_last(found: HashSet<PeerId>, reply: Reply<HashSet<PeerId>>, last: bool) -> Option<Query> {
    if last {
        answer(reply, Ok(found));
        return None;
    }
    Some(Query::GetProviders { found, reply })
}
