//! Silent peers, and queries that would wait for them.

use libp2p::PeerId;
use libp2p::kad::QueryId;

use crate::dht::queries::{Query, Watched};
use crate::event_loop::EventLoop;
use crate::event_loop::limits::{
    DIAL_PATIENCE, MAX_PROBES, MAX_STALL, PROBE_QUIET_TIME, QUERY_LOOK_INTERVAL, SLOWEST_FACTOR,
};
use crate::platform::{self, Instant};

impl EventLoop {
    /// Checks the peer that has owed an answer for longest.
    pub(crate) fn look_for_silence(&mut self) {
        let swarm = &self.swarm;
        if let Some(peer) = self.peers.silence.look(platform::now(), |peer| swarm.is_connected(peer)) {
            self.on_silent(peer);
        }
    }

    /// Starts a query that a caller waits for.
    pub(crate) fn begin_query(&mut self, id: QueryId, query: Query) {
        self.dht.queries.insert(id, query);
        let now = platform::now();
        self.dht.watched.push_back((now + QUERY_LOOK_INTERVAL, Watched { id, answered: 0, since: now }));
    }

    /// Ends the query with the oldest check if it waits only for silent peers, and has all go on
    /// without those whose dials take too long.
    ///
    /// kad would wait 10 s for each peer. A probe finds out whether a peer is silent.
    pub(crate) fn look_at_query(&mut self) {
        let Some((_, mut watched)) = self.dht.watched.pop_front() else { return };
        let now = platform::now();
        self.swarm.behaviour_mut().kad.give_up_dials(DIAL_PATIENCE);
        let Some(query) = self.kad().query(&watched.id) else { return };
        let stats = query.stats();
        let (answered, pending) = (stats.num_successes() + stats.num_failures(), stats.num_pending());
        if answered != watched.answered {
            (watched.answered, watched.since) = (answered, now);
        }
        let stall = QUERY_LOOK_INTERVAL.max((self.peers.silence.slowest() * SLOWEST_FACTOR).min(MAX_STALL));
        if now.saturating_duration_since(watched.since) >= stall {
            self.probe_quiet_peers(now);
            let silent = u32::try_from(self.peers.silence.count()).unwrap_or(u32::MAX);
            if pending > 0
                && pending <= silent
                && let Some(mut query) = self.kad().query_mut(&watched.id)
            {
                query.finish();
                return;
            }
        }
        self.dht.watched.push_back((now + QUERY_LOOK_INTERVAL, watched));
    }

    fn probe_quiet_peers(&mut self, now: Instant) {
        let is_quiet = |peer: &&PeerId| self.peers.silence.is_quiet(peer, PROBE_QUIET_TIME, now);
        let quiet: Vec<PeerId> = self.swarm.connected_peers().filter(is_quiet).copied().collect();
        let routed = quiet.into_iter().filter(|peer| self.is_routed(*peer)).take(MAX_PROBES);
        for peer in routed.collect::<Vec<_>>() {
            self.probe(peer);
        }
    }
}
