//! Commands of the sessions that compare scopes.

use libp2p::PeerId;

use crate::network::command::Reply;
use crate::network::record_protocol::Frame;
use crate::network::swarm::EventLoop;

impl EventLoop {
    /// Sends a peer a request of the sync protocol; the answer is what it says.
    pub(super) fn ask_sync(&mut self, peer: PeerId, request: Frame, reply: Reply<Frame>) {
        let id = self.swarm.behaviour_mut().sync.send_request(&peer, request.traced(reply.trace()));
        self.sync_asked.insert(id, reply);
    }
}
