//! Refused records of peers.

use libp2p::PeerId;
use netabase_store::{RecordKey, Refusal};

use crate::admission::{Offence, Severity};
use crate::dht::address::Prefix;
use crate::event::NetabaseSwarmEvent;
use crate::event_loop::EventLoop;
use crate::peers::score::Verdict;
use crate::telemetry::trace::TraceKind;

impl EventLoop {
    /// Reports a peer's refused record to the subscribers, and slows or bans the peer if its score
    /// says so.
    pub(crate) fn on_refused(&mut self, peer: PeerId, offence: Offence) {
        let severity = Severity::of(&offence);
        let Offence { key, reason, .. } = offence;
        let prefix = self.swarm.behaviour().connections.prefix_of(&peer);
        self.on_offence(peer, prefix, key, reason, severity);
    }

    /// Reports an offence of a peer, whose last connection is or was from `prefix`.
    pub(crate) fn on_offence(
        &mut self,
        peer: PeerId,
        prefix: Option<Prefix>,
        key: Option<RecordKey>,
        reason: Refusal,
        severity: Severity,
    ) {
        if let Some(key) = &key {
            self.telemetry.traces.add(&self.store, key, TraceKind::Refused { peer: Some(peer), reason });
        }
        let verdict = self.peers.scores.refused(peer, prefix, reason, severity);
        self.broadcast(NetabaseSwarmEvent::RecordRefused { peer: Some(peer), key, reason });
        match verdict {
            Verdict::Tolerated => {}
            Verdict::Slowed => {
                self.telemetry.meters.slowed.add(1);
                self.greet(peer);
                self.broadcast(NetabaseSwarmEvent::PeerSlowed { peer });
            }
            Verdict::Banned { until } => {
                self.telemetry.meters.bans.add(1);
                self.part_from(peer);
                self.broadcast(NetabaseSwarmEvent::PeerBanned { peer, until, reason });
            }
        }
    }

    /// Removes a banned peer from all state and closes its connections; new ones are denied.
    fn part_from(&mut self, peer: PeerId) {
        self.dht.has_left(&peer);
        self.dht.known_peers.forget(&peer);
        self.dht.dials.forget(&peer);
        self.kad().remove_peer(&peer);
        // An error means that the peer is not connected.
        let _ = self.swarm.disconnect_peer_id(peer);
    }
}
