//! A wrapper of libp2p's request-response behaviour, which tells the codec of each connection its
//! peer.

use std::sync::Arc;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::request_response;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use parking_lot::Mutex;

use crate::connection::delegate::delegate_pending;
use crate::rpc::frame::{Event, FrameCodec};

type Requests = request_response::Behaviour<FrameCodec>;

/// The behaviour of a request protocol, which dereferences to libp2p's own.
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct Behaviour {
    requests: Requests,
    /// The peer of the connection that is being created, for the clone of the codec.
    connecting: Arc<Mutex<Option<PeerId>>>,
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Behaviour").finish_non_exhaustive()
    }
}

impl Behaviour {
    pub(crate) fn new(requests: Requests, connecting: Arc<Mutex<Option<PeerId>>>) -> Self {
        Self { requests, connecting }
    }

    /// Creates the handler of a connection with `peer`.
    fn connect<T>(&mut self, peer: PeerId, make: impl FnOnce(&mut Requests) -> T) -> T {
        *self.connecting.lock() = Some(peer);
        let result = make(&mut self.requests);
        *self.connecting.lock() = None;
        result
    }
}

impl std::ops::Deref for Behaviour {
    type Target = Requests;

    fn deref(&self) -> &Self::Target {
        &self.requests
    }
}

impl std::ops::DerefMut for Behaviour {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.requests
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = <Requests as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Event;

    delegate_pending!(requests);

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.connect(peer, |requests| {
            requests.handle_established_inbound_connection(connection, peer, local, remote)
        })
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.connect(peer, |requests| {
            requests.handle_established_outbound_connection(connection, peer, address, role, port)
        })
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.requests.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.requests.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.requests.poll(context)
    }
}
