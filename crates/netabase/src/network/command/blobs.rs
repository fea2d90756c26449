//! Commands about blobs.

use libp2p::PeerId;
use libp2p::kad::{GetClosestPeersError, GetClosestPeersOk, GetClosestPeersResult};

use crate::network::command::{Reply, answer};
use crate::network::query::Query;
use crate::network::record_protocol::Frame;
use crate::network::swarm::EventLoop;

impl EventLoop {
    /// Sends a peer a request of the blob protocol; the answer is what it says.
    pub(super) fn ask_blob(&mut self, peer: PeerId, request: Frame, reply: Reply<Frame>) {
        let id = self.swarm.behaviour_mut().blobs.send_request(&peer, request.traced(reply.trace()));
        self.blobs.asked.insert(id, reply);
    }
    /// Connects to a peer; if its addresses are not known here, the peers closest to it are asked for them.
    pub(super) fn locate(&mut self, peer: PeerId, reply: Reply<()>) {
        if self.swarm.is_connected(&peer) || self.is_routed(peer) {
            return answer(reply, Ok(()));
        }
        let query = self.kad().get_closest_peers(peer);
        self.queries.insert(query, Query::Locate { peer, reply });
    }

    /// Connects to a peer at the addresses that others have told.
    pub(in crate::network) fn on_located(
        &mut self,
        peer: PeerId,
        reply: Reply<()>,
        result: &GetClosestPeersResult,
    ) {
        let (Ok(GetClosestPeersOk { peers, .. }) | Err(GetClosestPeersError::Timeout { peers, .. })) = result;
        if let Some(found) = peers.iter().find(|found| found.peer_id == peer) {
            let addresses = self.swarm.behaviour_mut().kad.judge_addresses(peer, found.addrs.clone());
            self.dial(peer, addresses);
        }
        answer(reply, Ok(()));
    }
}
