//! Commands about blobs.

use libp2p::PeerId;

use crate::network::command::Reply;
use crate::network::record_protocol::Frame;
use crate::network::swarm::EventLoop;

impl EventLoop {
    /// Sends a peer a request of the blob protocol; the answer is what it says.
    pub(super) fn ask_blob(&mut self, peer: PeerId, request: Frame, reply: Reply<Frame>) {
        let id = self.swarm.behaviour_mut().blobs.send_request(&peer, request);
        self.blobs.asked.insert(id, reply);
    }
}
