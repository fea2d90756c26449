//! Commands about peers and the routing table.

use libp2p::kad::{self, RoutingUpdate};
use libp2p::{Multiaddr, PeerId, StreamProtocol};

use crate::config::DhtMode;
use crate::error::NetabaseError;
use crate::network::behaviour::kad_mode;
use crate::network::command::{Reply, answer};
use crate::network::connections::ConnectionInfo;
use crate::network::query::Query;
use crate::network::swarm::EventLoop;

impl EventLoop {
    /// Starts a bootstrap; the answer is the number of peers in the routing table after it.
    pub(super) fn bootstrap(&mut self, reply: Reply<usize>) {
        match self.kad().bootstrap() {
            Ok(query) => self.queries.insert(query, Query::Bootstrap { reply }),
            Err(kad::NoKnownPeers()) => answer(reply, Err(NetabaseError::NoKnownPeers)),
        }
    }

    pub(super) fn add_address(&mut self, peer: PeerId, address: Multiaddr, reply: Reply<()>) {
        let outcome = match self.kad().add_address(&peer, address.clone()) {
            RoutingUpdate::Success | RoutingUpdate::Pending => Ok(()),
            RoutingUpdate::Failed => Err(NetabaseError::network("a node does not add itself as a peer")),
        };
        if outcome.is_ok() {
            self.dial(peer, vec![address]);
        }
        answer(reply, outcome);
    }

    pub(super) fn remove_address(&mut self, peer: PeerId, address: &Multiaddr, reply: Reply<bool>) {
        // The routing table keeps every address with its peer's name at the end.
        let Ok(address) = address.clone().with_p2p(peer) else { return answer(reply, Ok(false)) };
        let known = self.kad().kbucket(peer).is_some_and(|bucket| {
            bucket.iter().any(|entry| {
                *entry.node.key.preimage() == peer && entry.node.value.iter().any(|known| *known == address)
            })
        });
        self.kad().remove_address(&peer, &address);
        answer(reply, Ok(known));
    }

    pub(super) fn remove_peer(&mut self, peer: PeerId, reply: Reply<bool>) {
        self.whole_network = None;
        let removed = self.kad().remove_peer(&peer).is_some();
        let connected = self.swarm.disconnect_peer_id(peer).is_ok();
        answer(reply, Ok(removed || connected));
    }

    pub(super) fn mode(&mut self, reply: Reply<kad::Mode>) {
        answer(reply, Ok(self.kad().mode()));
    }

    pub(super) fn set_mode(&mut self, mode: DhtMode, reply: Reply<()>) {
        self.kad().set_mode(Some(kad_mode(mode)));
        answer(reply, Ok(()));
    }

    pub(super) fn protocol_names(&mut self, reply: Reply<Vec<StreamProtocol>>) {
        answer(reply, Ok(self.kad().protocol_names().to_vec()));
    }

    pub(super) fn connected_peers(&mut self, reply: Reply<Vec<PeerId>>) {
        answer(reply, Ok(self.swarm.connected_peers().copied().collect()));
    }

    pub(super) fn connections(&mut self, reply: Reply<Vec<ConnectionInfo>>) {
        answer(reply, Ok(self.swarm.behaviour().connections.all()));
    }
}
