//! Commands of repair.

use libp2p::PeerId;

use crate::admission::Offence;
use crate::dht::holders::View;
use crate::event_loop::EventLoop;
use crate::event_loop::command::{Reply, answer};

impl EventLoop {
    pub(super) fn tell_view(&mut self, reply: Reply<View>) {
        answer(reply, Ok(self.view()));
    }

    /// Counts the records of a peer that repair has refused.
    pub(super) fn refused(&mut self, peer: PeerId, refused: Vec<Offence>) {
        for offence in refused {
            self.on_refused(peer, offence);
        }
    }
}
