//! What peers sent that was refused.

use std::collections::HashMap;

use libp2p::PeerId;
use netabase_store::{RecordKey, Refusal};

use super::swarm::EventLoop;
use crate::event::NetabaseSwarmEvent;

/// The most peers whose refusals are counted. When there are more, those that are not connected go.
const MAX_COUNTED_PEERS: usize = 1024;

/// How often each peer was refused, by reason.
#[derive(Debug, Default)]
pub(super) struct RefusedPeers(HashMap<PeerId, HashMap<Refusal, u64>>);

impl RefusedPeers {
    fn count(&mut self, peer: PeerId, reason: Refusal, is_connected: impl Fn(&PeerId) -> bool) {
        if self.0.len() >= MAX_COUNTED_PEERS && !self.0.contains_key(&peer) {
            self.0.retain(|peer, _| is_connected(peer));
        }
        // There are fewer connections than that, so there is room now.
        if self.0.len() < MAX_COUNTED_PEERS || self.0.contains_key(&peer) {
            *self.0.entry(peer).or_default().entry(reason).or_default() += 1;
        }
    }
}

impl EventLoop {
    /// A peer has sent a record, or answered with one, that was refused.
    pub(super) fn on_refused(&mut self, peer: PeerId, key: Option<RecordKey>, reason: Refusal) {
        let swarm = &self.swarm;
        self.refused.count(peer, reason, |peer| swarm.is_connected(peer));
        self.broadcast(NetabaseSwarmEvent::RecordRefused { peer: Some(peer), key, reason });
    }
}
