//! The first packets of QUIC connections, each of another one.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use anyhow::Context;
use libp2p::core::Endpoint;
use libp2p::core::transport::{DialOpts, PortUse, Transport};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, quic};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// How many connections are begun at a time: fewer than a socket has room for.
const BATCH: usize = 32;
const DATAGRAM_BYTES: usize = 2048;

/// Returns the connection id that the client of an Initial packet has chosen for the server.
pub(super) fn connection_id(packet: &[u8]) -> Option<&[u8]> {
    const LONG_INITIAL: u8 = 0xc0;
    const TYPE_MASK: u8 = 0xf0;
    let [first, _, _, _, _, length, rest @ ..] = packet else { return None };
    if first & TYPE_MASK != LONG_INITIAL {
        return None;
    }
    rest.get(..usize::from(*length))
}

/// Begins connections to a socket that never answers, and returns what it has received.
pub(super) async fn packets(count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = Multiaddr::from(Ipv4Addr::LOCALHOST)
        .with(Protocol::Udp(socket.local_addr()?.port()))
        .with(Protocol::QuicV1);
    let mut transport = quic::tokio::Transport::new(quic::Config::new(&Keypair::generate_ed25519()));
    let mut packets = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES];
    while packets.len() < count {
        let (before, mut dials) = (packets.len(), JoinSet::new());
        for _ in 0..BATCH {
            let how = DialOpts { role: Endpoint::Dialer, port_use: PortUse::Reuse };
            dials.spawn(transport.dial(address.clone(), how)?);
        }
        while packets.len() < before + BATCH {
            let bytes = socket.recv(&mut buffer).await?;
            let packet = buffer.get(..bytes).context("a datagram is too long")?;
            if let Some(id) = connection_id(packet) {
                // What follows has the same id: the packet again, and a goodbye.
                packets.entry(id.to_vec()).or_insert_with(|| packet.to_vec());
            }
        }
    }
    Ok(packets.into_values().collect())
}
