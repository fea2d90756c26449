//! A peer of bare libp2p, which speaks the protocols and does what a test tells it.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::core::transport::{MemoryTransport, upgrade};
use libp2p::kad::{self, store::MemoryStore};
use libp2p::swarm::NetworkBehaviour;
use libp2p::{
    Multiaddr, StreamProtocol, Swarm, SwarmBuilder, Transport, identify, noise, request_response, yamux,
};
use netabase::NetabaseSwarmEvent;

use super::*;

/// Frames of the record protocol, whatever is in them.
#[derive(Debug, Clone, Default)]
pub struct RawFrames;

impl request_response::Codec for RawFrames {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_frame(io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read_frame(io).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &bytes).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &bytes).await
    }
}

async fn read_frame<T: AsyncRead + Unpin>(io: &mut T) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    io.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn write_frame<T: AsyncWrite + Unpin>(io: &mut T, bytes: &[u8]) -> io::Result<()> {
    io.write_all(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).await?;
    io.write_all(bytes).await?;
    io.flush().await
}

#[derive(NetworkBehaviour)]
pub struct Hostile {
    pub kad: kad::Behaviour<MemoryStore>,
    pub identify: identify::Behaviour,
    pub records: request_response::Behaviour<RawFrames>,
}

/// Connects to `victim` and enters its routing table.
pub async fn hostile_peer(victim: &Notes) -> Swarm<Hostile> {
    let mut events = victim.subscribe_to_broadcasts();
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_other_transport(|identity| {
            let memory = MemoryTransport::default().upgrade(upgrade::Version::V1);
            memory.authenticate(noise::Config::new(identity).unwrap()).multiplex(yamux::Config::default())
        })
        .unwrap()
        .with_behaviour(|identity| {
            let peer = identity.public().to_peer_id();
            let protocol = StreamProtocol::new("/netabase/NotesDefinition/kad/1.0.0");
            let mut config = kad::Config::new(protocol);
            config.set_max_packet_size(16 * 1024 * 1024);
            let limits = kad::store::MemoryStoreConfig { max_value_bytes: usize::MAX, ..Default::default() };
            let mut kad = kad::Behaviour::with_config(peer, MemoryStore::with_config(peer, limits), config);
            kad.set_mode(Some(kad::Mode::Server));
            let identify = identify::Config::new("/hostile/1.0.0".into(), identity.public());
            let protocol = StreamProtocol::new("/netabase/NotesDefinition/record/1.0.0");
            let records = request_response::Behaviour::new(
                [(protocol, request_response::ProtocolSupport::Full)],
                request_response::Config::default().with_request_timeout(DEADLINE),
            );
            Hostile { kad, identify: identify::Behaviour::new(identify), records }
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(DEADLINE))
        .build();
    swarm.listen_on("/memory/0".parse().unwrap()).unwrap();
    let address: Multiaddr = full_address(victim);
    swarm.behaviour_mut().kad.add_address(&victim.local_peer_id(), address.clone());
    swarm.dial(address).unwrap();
    let peer = *swarm.local_peer_id();
    let routed = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::Kad(event) => match **event {
            kad::Event::RoutingUpdated { peer: routed, .. } => (routed == peer).then_some(()),
            _ => None,
        },
        _ => None,
    });
    tokio::pin!(routed);
    loop {
        tokio::select! {
            () = &mut routed => return swarm,
            _ = swarm.select_next_some() => {}
        }
    }
}
