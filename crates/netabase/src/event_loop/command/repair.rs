//! Commands of the repair, and about it.

use libp2p::PeerId;

use crate::admission::Offence;
use crate::event_loop::EventLoop;
use crate::event_loop::command::{Reply, answer};
use crate::replication::repair::view::View;

impl EventLoop {
    pub(super) fn tell_view(&mut self, reply: Reply<View>) {
        answer(reply, Ok(self.view()));
    }

    /// Returns who holds what, as far as this node knows. A client holds nothing, and shares
    /// nothing.
    ///
    /// A peer that the last dial has not reached holds nothing either, though it stays in the
    /// routing table for a while: with this node cut off from the network everybody would be
    /// unreachable.
    pub(crate) fn view(&mut self) -> View {
        let (local, holders) = (*self.swarm.local_peer_id(), self.config.dht.replication_factor.get());
        let peers: Vec<PeerId> = self
            .kad()
            .kbuckets()
            .flat_map(|bucket| bucket.iter().map(|entry| *entry.node.key.preimage()).collect::<Vec<_>>())
            .collect();
        let dials = &self.swarm.behaviour().backoff;
        View::new(local, peers.into_iter().filter(|peer| dials.failures(peer) == 0), holders)
    }

    /// Counts what the repair has refused of a peer.
    pub(super) fn refused(&mut self, peer: PeerId, refused: Vec<Offence>) {
        for offence in refused {
            self.on_refused(peer, offence);
        }
    }
}
