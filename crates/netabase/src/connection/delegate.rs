//! Behaviours that wrap one of libp2p's, and leave connections to it.

/// Implements what libp2p asks about connections that are being made, by the behaviour in a field.
macro_rules! delegate_pending {
    ($field:ident) => {
        fn handle_pending_inbound_connection(
            &mut self,
            connection: libp2p::swarm::ConnectionId,
            local: &libp2p::Multiaddr,
            remote: &libp2p::Multiaddr,
        ) -> Result<(), libp2p::swarm::ConnectionDenied> {
            self.$field.handle_pending_inbound_connection(connection, local, remote)
        }

        fn handle_pending_outbound_connection(
            &mut self,
            connection: libp2p::swarm::ConnectionId,
            peer: Option<libp2p::PeerId>,
            addresses: &[libp2p::Multiaddr],
            role: libp2p::core::Endpoint,
        ) -> Result<Vec<libp2p::Multiaddr>, libp2p::swarm::ConnectionDenied> {
            self.$field.handle_pending_outbound_connection(connection, peer, addresses, role)
        }
    };
}

/// Implements what libp2p asks about established connections, by the behaviour in a field.
macro_rules! delegate_established {
    ($field:ident) => {
        fn handle_established_inbound_connection(
            &mut self,
            connection: libp2p::swarm::ConnectionId,
            peer: libp2p::PeerId,
            local: &libp2p::Multiaddr,
            remote: &libp2p::Multiaddr,
        ) -> Result<libp2p::swarm::THandler<Self>, libp2p::swarm::ConnectionDenied> {
            self.$field.handle_established_inbound_connection(connection, peer, local, remote)
        }

        fn handle_established_outbound_connection(
            &mut self,
            connection: libp2p::swarm::ConnectionId,
            peer: libp2p::PeerId,
            address: &libp2p::Multiaddr,
            role: libp2p::core::Endpoint,
            port: libp2p::core::transport::PortUse,
        ) -> Result<libp2p::swarm::THandler<Self>, libp2p::swarm::ConnectionDenied> {
            self.$field.handle_established_outbound_connection(connection, peer, address, role, port)
        }
    };
}

pub(crate) use {delegate_established, delegate_pending};
