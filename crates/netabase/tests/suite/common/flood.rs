//! Peers that connect and do nothing else.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::SelectAll;
use libp2p::core::transport::{MemoryTransport, upgrade};
use libp2p::swarm::{SwarmEvent, dummy};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, Transport, noise, yamux};
use netabase::{ConnectionConfig, NetabaseConfig};

/// A peer that connects and keeps its connection, and nothing else.
fn idle_peer() -> Swarm<dummy::Behaviour> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_other_transport(|identity| {
            let memory = MemoryTransport::default().upgrade(upgrade::Version::V1);
            memory.authenticate(noise::Config::new(identity).unwrap()).multiplex(yamux::Config::default())
        })
        .unwrap()
        .with_behaviour(|_| dummy::Behaviour)
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build()
}

/// Connects more and more idle peers to a node, and again whenever one is thrown out.
pub async fn flood(node: Multiaddr, peers: usize) {
    let mut swarms = SelectAll::new();
    for _ in 0..peers {
        let mut swarm = idle_peer();
        swarm.dial(node.clone()).unwrap();
        let target = node.clone();
        swarms.push(Box::pin(futures::stream::unfold(swarm, move |mut swarm| {
            let target = target.clone();
            async move {
                let event = swarm.select_next_some().await;
                if matches!(
                    event,
                    SwarmEvent::ConnectionClosed { .. } | SwarmEvent::OutgoingConnectionError { .. }
                ) {
                    // An error says that it is on its way already.
                    let _ = swarm.dial(target);
                }
                Some(((), swarm))
            }
        })));
    }
    while swarms.next().await.is_some() {}
}

/// Leaves a node room for so many connections.
pub fn limited(config: NetabaseConfig, max_established: u32) -> NetabaseConfig {
    let connections = ConnectionConfig { max_established, ..ConnectionConfig::default() };
    NetabaseConfig { connections, ..config }
}
