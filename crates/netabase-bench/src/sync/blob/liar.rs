//! A holder that lies: it says to have every value, and sends what is of none. A node cannot be
//! made to: it verifies what it reads before it sends it.

use std::io;

use anyhow::Context;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{self, Event, Message, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, StreamProtocol, Swarm, SwarmBuilder, identify, noise, tcp, yamux};

const BLOB_PROTOCOL: StreamProtocol = StreamProtocol::new("/netabase/SyncDefinition/blob/1.0.0");
const IDENTIFY_PROTOCOL: &str = "/liar/id/1.0.0";
/// The longest request of the blob protocol.
const MAX_REQUEST_BYTES: u64 = 64;
/// The first byte of the question whether a value is there, and of the answer that it is.
const HAVE: u8 = 1;
/// The first byte of an answer with a part of a value.
const SLICE: u8 = 2;
/// How long such a part is.
const SLICE_BYTES: usize = 64 * 1024;

/// Frames, as the blob protocol has them.
#[derive(Debug, Clone, Default)]
struct Frames;

impl request_response::Codec for Frames {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let (mut length, mut request) = ([0; 4], Vec::new());
        io.read_exact(&mut length).await?;
        let length = u64::from(u32::from_be_bytes(length)).min(MAX_REQUEST_BYTES);
        io.take(length).read_to_end(&mut request).await?;
        Ok(request)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        Err(io::Error::other("it asks for nothing"))
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, _: &mut T, _: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Err(io::Error::other("it asks for nothing"))
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        io.write_all(&length.to_be_bytes()).await?;
        io.write_all(&bytes).await?;
        io.flush().await
    }
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    blobs: request_response::Behaviour<Frames>,
}

/// A liar that listens.
pub(super) struct Liar(Swarm<Behaviour>);

impl Liar {
    /// Starts to listen; returns where.
    pub(super) async fn start() -> anyhow::Result<(Self, Multiaddr)> {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
            .with_behaviour(|keypair| Behaviour {
                identify: identify::Behaviour::new(identify::Config::new(
                    IDENTIFY_PROTOCOL.into(),
                    keypair.public(),
                )),
                blobs: request_response::Behaviour::new(
                    [(BLOB_PROTOCOL, ProtocolSupport::Full)],
                    request_response::Config::default(),
                ),
            })?
            .with_swarm_config(|config| config.with_idle_connection_timeout(super::process::PATIENCE))
            .build();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
        while swarm.listeners().next().is_none() {
            swarm.select_next_some().await;
        }
        let address = swarm.listeners().next().cloned().context("it does not listen")?;
        let address = address.with(Protocol::P2p(*swarm.local_peer_id()));
        Ok((Self(swarm), address))
    }

    /// Answers whoever asks, until the call is cancelled.
    pub(super) async fn lie(mut self) -> anyhow::Result<()> {
        loop {
            if let SwarmEvent::Behaviour(BehaviourEvent::Blobs(Event::Message {
                message: Message::Request { request, channel, .. },
                ..
            })) = self.0.select_next_some().await
            {
                let answer = match request.first() {
                    Some(&HAVE) => vec![HAVE],
                    _ => [vec![SLICE], vec![0x55; SLICE_BYTES]].concat(),
                };
                // Who has gone away needs no answer.
                let _ = self.0.behaviour_mut().blobs.send_response(channel, answer);
            }
        }
    }
}
