//! Commands about peers and the routing table.

use libp2p::kad;
use libp2p::kad::{GetClosestPeersError, GetClosestPeersOk, GetClosestPeersResult};
use libp2p::{Multiaddr, PeerId, StreamProtocol};

use crate::config::DhtMode;
use crate::dht::queries::Query;
use crate::error::NetabaseError;
use crate::event_loop::EventLoop;
use crate::event_loop::behaviour::kad_mode;
use crate::event_loop::command::{Reply, answer};
use crate::peers::connections::ConnectionInfo;

impl EventLoop {
    /// Starts a bootstrap; the answer is the number of peers in the routing table after it.
    pub(super) fn bootstrap(&mut self, reply: Reply<usize>) {
        match self.kad().bootstrap() {
            Ok(query) => self.dht.queries.insert(query, Query::Bootstrap { reply }),
            Err(kad::NoKnownPeers()) => answer(reply, Err(NetabaseError::NoKnownPeers)),
        }
    }

    /// Adds an address of a peer to the routing table and starts to connect to the peer. The answer
    /// does not wait for the connection.
    pub(super) fn add_address(&mut self, peer: PeerId, address: Multiaddr, reply: Reply<()>) {
        let outcome = self.add_foreign(peer, &address);
        if outcome.is_ok() {
            self.dial(peer, vec![address]);
        }
        answer(reply, outcome);
    }

    /// Adds an address of a peer to the routing table and connects to the peer. The answer is the
    /// result of the dial.
    pub(super) fn connect(&mut self, peer: PeerId, address: Multiaddr, reply: Reply<()>) {
        if let Err(own) = self.add_foreign(peer, &address) {
            return answer(reply, Err(own));
        }
        let addresses = self.known_addresses(peer, vec![address]);
        if let Err(error) = self.begin_dial(peer, addresses, Some(reply)) {
            tracing::debug!(%error, %peer, "cannot dial");
        }
    }

    /// Adds an address to the routing table, if the bucket has space, unless the address or the
    /// peer is this node's own.
    fn add_foreign(&mut self, peer: PeerId, address: &Multiaddr) -> Result<(), NetabaseError> {
        if peer == *self.swarm.local_peer_id() || self.swarm.behaviour().kad.is_own(address) {
            return Err(NetabaseError::OwnAddress { address: address.clone() });
        }
        self.dht.servers.named(peer);
        self.route(peer, address.clone());
        Ok(())
    }

    pub(super) fn remove_address(&mut self, peer: PeerId, address: &Multiaddr, reply: Reply<bool>) {
        // The routing table stores every address with the peer's id at the end.
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
        self.dht.has_left(&peer);
        self.dht.dials.forget(&peer);
        self.dht.servers.unnamed(&peer);
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

    /// Connects to a peer. If its addresses are unknown, the peers closest to it are asked for
    /// them.
    pub(super) fn locate(&mut self, peer: PeerId, reply: Reply<()>) {
        if self.swarm.is_connected(&peer) || self.is_routed(peer) {
            return answer(reply, Ok(()));
        }
        let query = self.kad().get_closest_peers(peer);
        self.begin_query(query, Query::Locate { peer, reply });
    }

    /// Connects to a peer at the addresses that other peers have reported.
    pub(crate) fn on_located(&mut self, peer: PeerId, reply: Reply<()>, result: &GetClosestPeersResult) {
        let (Ok(GetClosestPeersOk { peers, .. }) | Err(GetClosestPeersError::Timeout { peers, .. })) = result;
        if let Some(found) = peers.iter().find(|found| found.peer_id == peer) {
            let addresses = self.swarm.behaviour_mut().kad.judge_addresses(peer, found.addrs.clone());
            self.dial(peer, addresses);
        }
        answer(reply, Ok(()));
    }
}
