//! A wrapper of identify that bounds how often a peer may identify itself.
//!
//! Each time costs every behaviour of the node a look at the peer's addresses and protocols.

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::identify;
use libp2p::swarm::behaviour::ConnectionClosed;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use crate::connection::limits::{IDENTIFY_BURST, IDENTIFY_PER_SECOND, MAX_IGNORED_IDENTIFIES};
use crate::connection::processor::Processor;
use crate::platform;
use crate::rpc::token_bucket::TokenBucket;

/// The behaviour of identify.
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct Behaviour {
    identify: identify::Behaviour,
    rates: HashMap<ConnectionId, Rate>,
    processor: Processor,
    /// The connections to close.
    closing: VecDeque<(PeerId, ConnectionId)>,
}

/// What a connection may still do.
#[derive(Debug)]
struct Rate {
    allowed: TokenBucket,
    ignored: u32,
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Behaviour").finish_non_exhaustive()
    }
}

impl Behaviour {
    pub(crate) fn new(identify: identify::Behaviour, processor: Processor) -> Self {
        Self { identify, rates: HashMap::new(), processor, closing: VecDeque::new() }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = <identify::Behaviour as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = identify::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.identify.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.identify.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.identify.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) = &event {
            self.rates.remove(connection_id);
        }
        self.identify.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let now = platform::now();
        let full = || TokenBucket::new(IDENTIFY_PER_SECOND, IDENTIFY_BURST, now);
        let rate = self.rates.entry(connection).or_insert_with(|| Rate { allowed: full(), ignored: 0 });
        if rate.allowed.take(1.0, now) {
            rate.ignored = 0;
            let identify = &mut self.identify;
            return self
                .processor
                .time(peer, || identify.on_connection_handler_event(peer, connection, event));
        }
        rate.ignored += 1;
        if rate.ignored == MAX_IGNORED_IDENTIFIES {
            self.closing.push_back((peer, connection));
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some((peer_id, connection)) = self.closing.pop_front() {
            let connection = CloseConnection::One(connection);
            return Poll::Ready(ToSwarm::CloseConnection { peer_id, connection });
        }
        self.identify.poll(context)
    }
}
