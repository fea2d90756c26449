//! Events of Kademlia.

use std::collections::HashSet;
use std::sync::Arc;

use libp2p::PeerId;
use libp2p::kad::{self, GetProvidersOk, ProgressStep, QueryId, QueryResult};
use libp2p::swarm::dial_opts::DialOpts;
use tokio::sync::mpsc;

use crate::dht::queries::Query;
use crate::event::NetabaseSwarmEvent;
use crate::event_loop::EventLoop;
use crate::event_loop::command::{Reply, answer};
use crate::event_loop::limits::MAX_PROVIDER_DIALS;

impl EventLoop {
    pub(crate) fn on_kad(&mut self, event: kad::Event) {
        match &event {
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                self.on_query_progressed(*id, result, *step);
            }
            kad::Event::RoutingUpdated { is_new_peer: true, peer, .. } => {
                self.dht.has_joined(self.swarm.is_connected(peer) && self.dht.servers.serves(peer));
                self.dht.lookups.forget();
                self.peers.news.view_has_changed();
            }
            _ => {}
        }
        self.broadcast(NetabaseSwarmEvent::Kad(Arc::new(event)));
    }

    fn on_query_progressed(&mut self, id: QueryId, result: &QueryResult, step: ProgressStep) {
        // Unknown ids belong to kad's own queries.
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
                // Without peers the announcement is stored here and sent when a peer connects.
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

    /// Sends on the providers that a peer has named, and connects to them, since kad drops their
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
            let unknown: Vec<PeerId> =
                found.iter().filter(is_unknown).take(MAX_PROVIDER_DIALS).copied().collect();
            for peer in unknown {
                // A provider that cannot be dialled does not answer either.
                let _ = self.swarm.dial(DialOpts::peer_id(peer).build());
            }
            // The reader is as fast as any peer, and at worst misses the providers of one answer.
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
}

/// Answers with the providers after the last answer of a peer.
fn answer_if_last(found: HashSet<PeerId>, reply: Reply<HashSet<PeerId>>, last: bool) -> Option<Query> {
    if last {
        answer(reply, Ok(found));
        return None;
    }
    Some(Query::GetProviders { found, reply })
}
