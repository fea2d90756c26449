//! Events of ping: round trip times, and peers that no longer answer.

use libp2p::ping::{Event, Failure};

use crate::event::NetabaseSwarmEvent;
use crate::event_loop::EventLoop;

impl EventLoop {
    /// Closes a connection whose peer does not answer pings: the transport alone would detect it
    /// after many minutes.
    ///
    /// libp2p does not report the first failure and tries again. A peer that does not speak the
    /// protocol stays connected.
    pub(crate) fn on_ping(&mut self, event: Event) {
        let Event { peer, connection, result } = event;
        match result {
            Ok(time) => {
                self.swarm.behaviour_mut().connections.answered(connection, time);
                self.heard_of(peer);
                self.broadcast(NetabaseSwarmEvent::RoundTrip { peer, time });
            }
            Err(Failure::Unsupported) => {}
            // libp2p reports a stream that cannot be opened as "other".
            Err(failure @ (Failure::Timeout | Failure::Other { .. })) => {
                tracing::debug!(%peer, %failure, "a peer does not answer pings");
                self.dht.dials.miss(peer);
                self.swarm.close_connection(connection);
            }
        }
    }
}
