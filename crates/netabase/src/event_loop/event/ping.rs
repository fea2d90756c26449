//! What ping says: how far away a peer is, and that it is there no more.

use libp2p::ping::{Event, Failure};

use crate::event::NetabaseSwarmEvent;
use crate::event_loop::EventLoop;

impl EventLoop {
    /// Closes a connection whose peer gives no sign of life: the transport alone would notice it
    /// after many minutes.
    ///
    /// libp2p says nothing of the first failure and tries again. A peer that does not speak the
    /// protocol is left in peace.
    pub(crate) fn on_ping(&mut self, event: Event) {
        let Event { peer, connection, result } = event;
        match result {
            Ok(time) => {
                self.swarm.behaviour_mut().connections.answered(connection, time);
                self.heard_of(peer);
                self.broadcast(NetabaseSwarmEvent::RoundTrip { peer, time });
            }
            Err(Failure::Unsupported) => {}
            // Where a stream cannot even be opened, that is "other".
            Err(failure @ (Failure::Timeout | Failure::Other { .. })) => {
                tracing::debug!(%peer, %failure, "a peer gives no sign of life");
                self.dht.dials.miss(peer);
                self.swarm.close_connection(connection);
            }
        }
    }
}
