//! A peer of bare libp2p, which speaks the protocols and does what a test tells it.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::core::transport::{MemoryTransport, upgrade};
use libp2p::kad::{self, store::MemoryStore};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{
    Multiaddr, StreamProtocol, Swarm, SwarmBuilder, Transport, identify, noise, request_response, yamux,
};
use netabase::NetabaseSwarmEvent;
use tokio::sync::watch;

use super::*;

/// How a peer writes its requests and reads the answers.
#[derive(Debug, Clone, Default)]
pub enum Script {
    /// Each in a frame of the record protocol, whatever is in it.
    #[default]
    Frames,
    /// As they are; the answer is a message of Kademlia.
    Bytes,
    /// As they are, so many bytes at once, then one whenever the number changes, and without an
    /// end.
    Drip(usize, watch::Receiver<usize>),
    /// Each in a frame; the answer is never read.
    Deaf,
}

/// Streams that carry whatever a test wants.
#[derive(Debug, Clone, Default)]
pub struct RawFrames {
    pub script: Script,
}

impl request_response::Codec for RawFrames {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, protocol: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut traces = [0];
        io.read_exact(&mut traces).await?;
        io.read_exact(&mut vec![0; 25 * usize::from(traces[0])]).await?;
        let request = read_frame(io).await?;
        // Hellos come at any time. Whoever does not know them need not answer.
        let is_hello = protocol.as_ref().ends_with("/record/1.0.0") && request.first() == Some(&7);
        if is_hello { Err(io::ErrorKind::Unsupported.into()) } else { Ok(request) }
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        match self.script {
            Script::Frames | Script::Drip(..) => read_frame(io).await,
            Script::Bytes => read_message(io).await,
            Script::Deaf => std::future::pending().await,
        }
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        match &mut self.script {
            Script::Frames | Script::Deaf => {
                // It belongs to no trace.
                io.write_all(&[0]).await?;
                write_frame(io, &bytes).await
            }
            Script::Bytes => io.write_all(&bytes).await,
            Script::Drip(at_once, pace) => {
                let (first, rest) = bytes.split_at(*at_once);
                io.write_all(first).await?;
                for byte in rest {
                    io.write_all(&[*byte]).await?;
                    io.flush().await?;
                    pace.changed().await.map_err(io::Error::other)?;
                }
                std::future::pending().await
            }
        }
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write_frame(io, &bytes).await
    }
}

/// Reads a message of Kademlia: its length, seven bits in a byte, and its bytes.
async fn read_message<T: AsyncRead + Unpin>(io: &mut T) -> io::Result<Vec<u8>> {
    let (mut length, mut shift) = (0, 0);
    loop {
        let mut byte = [0];
        io.read_exact(&mut byte).await?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
        if byte[0] < 0x80 {
            break;
        }
    }
    let mut bytes = vec![0; length];
    io.read_exact(&mut bytes).await?;
    Ok(bytes)
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
    /// The query protocol.
    pub query: request_response::Behaviour<RawFrames>,
    pub sync: request_response::Behaviour<RawFrames>,
    /// Streams of Kademlia, for what kad would not send.
    pub messages: request_response::Behaviour<RawFrames>,
    /// The blob protocol.
    pub blobs: request_response::Behaviour<RawFrames>,
}

/// Connects to `victim` and enters its routing table, if there is room.
pub async fn hostile_peer(victim: &Notes) -> Swarm<Hostile> {
    hostile_peer_with(victim, Script::default()).await
}

/// Does so, and uses the record protocol as `script` says.
pub async fn hostile_peer_with(victim: &Notes, script: Script) -> Swarm<Hostile> {
    let mut events = victim.subscribe_to_broadcasts();
    let mut swarm = bare_swarm_with(victim, true, script);
    let peer = *swarm.local_peer_id();
    let routed = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::Kad(event) => match **event {
            kad::Event::RoutingUpdated { peer: routed, .. } => (routed == peer).then_some(()),
            _ => None,
        },
        // Its bucket may be full.
        NetabaseSwarmEvent::Identify(event) => match &**event {
            identify::Event::Received { peer_id, info, .. } => {
                (*peer_id == peer && !info.listen_addrs.is_empty()).then_some(())
            }
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

/// A peer that dials `victim`, and speaks the record protocol or Kademlia alone.
pub fn bare_swarm(victim: &Notes, speaks_records: bool) -> Swarm<Hostile> {
    bare_swarm_with(victim, speaks_records, Script::default())
}

fn bare_swarm_with(victim: &Notes, speaks_records: bool, script: Script) -> Swarm<Hostile> {
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
            let messages = request_response::Behaviour::with_codec(
                RawFrames { script: Script::Bytes },
                [(protocol.clone(), request_response::ProtocolSupport::Outbound)],
                streams(),
            );
            let mut config = kad::Config::new(protocol);
            config.set_max_packet_size(16 * 1024 * 1024);
            let limits = kad::store::MemoryStoreConfig { max_value_bytes: usize::MAX, ..Default::default() };
            let mut kad = kad::Behaviour::with_config(peer, MemoryStore::with_config(peer, limits), config);
            kad.set_mode(Some(kad::Mode::Server));
            // It may be identified before it listens.
            let identify = identify::Config::new("/hostile/1.0.0".into(), identity.public())
                .with_push_listen_addr_updates(true);
            let protocol = StreamProtocol::new("/netabase/NotesDefinition/record/1.0.0");
            let protocols = speaks_records.then_some((protocol, request_response::ProtocolSupport::Full));
            let records = request_response::Behaviour::with_codec(
                RawFrames { script: script.clone() },
                protocols,
                streams(),
            );
            let protocol = StreamProtocol::new("/netabase/NotesDefinition/query/1.0.0");
            let protocols = speaks_records.then_some((protocol, request_response::ProtocolSupport::Full));
            let query = request_response::Behaviour::with_codec(RawFrames { script }, protocols, streams());
            let protocol = StreamProtocol::new("/netabase/NotesDefinition/blob/1.0.0");
            let protocols = [(protocol, request_response::ProtocolSupport::Full)];
            let blobs = request_response::Behaviour::with_codec(RawFrames::default(), protocols, streams());
            let protocol = StreamProtocol::new("/netabase/NotesDefinition/sync/1.0.0");
            let sync = request_response::Behaviour::with_codec(
                RawFrames::default(),
                speaks_records.then_some((protocol, request_response::ProtocolSupport::Full)),
                streams(),
            );
            Hostile {
                kad,
                identify: identify::Behaviour::new(identify),
                records,
                query,
                sync,
                messages,
                blobs,
            }
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(DEADLINE))
        .build();
    swarm.listen_on("/memory/0".parse().unwrap()).unwrap();
    let address: Multiaddr = full_address(victim);
    swarm.behaviour_mut().kad.add_address(&victim.local_peer_id(), address.clone());
    swarm.dial(address).unwrap();
    swarm
}

/// More streams than anybody should accept.
fn streams() -> request_response::Config {
    request_response::Config::default().with_request_timeout(DEADLINE).with_max_concurrent_streams(4096)
}

/// Lets a peer go on while something is waited for. It answers gets of one record with what is in
/// its Kademlia's store, and no other requests.
pub async fn meanwhile<T>(hostile: &mut Swarm<Hostile>, awaited: impl Future<Output = T>) -> T {
    tokio::pin!(awaited);
    loop {
        tokio::select! {
            done = &mut awaited => return done,
            event = hostile.select_next_some() => if let Some((key, channel)) = get_asked(event) {
                let stored = kad::store::RecordStore::get(hostile.behaviour_mut().kad.store_mut(), &key.into());
                let answer = copy_response(stored.as_ref().map(|record| &record.value[..]));
                let _ = hostile.behaviour_mut().records.send_response(channel, answer);
            }
        }
    }
}

/// Returns the key of a get of one record that a peer is asked for, and where the answer goes.
pub fn get_asked(
    event: SwarmEvent<HostileEvent>,
) -> Option<(Vec<u8>, request_response::ResponseChannel<Vec<u8>>)> {
    let SwarmEvent::Behaviour(HostileEvent::Records(request_response::Event::Message {
        message: request_response::Message::Request { request, channel, .. },
        ..
    })) = event
    else {
        return None;
    };
    let key = request.get(5..).filter(|_| request.starts_with(&[2, 0, 1]))?;
    Some((key.to_vec(), channel))
}

/// The bytes of the answer to a get of one record, as `docs/formats.md` says.
pub fn copy_response(copy: Option<&[u8]>) -> Vec<u8> {
    let Some(copy) = copy else { return vec![2, 0, 1, 0] };
    [&[2, 0, 1, 1], &u32::try_from(copy.len()).unwrap().to_be_bytes()[..], copy].concat()
}

/// Sends a request and returns its response, or that there is none.
pub async fn ask(swarm: &mut Swarm<Hostile>, victim: &Notes, request: Vec<u8>) -> Option<Vec<u8>> {
    let id = swarm.behaviour_mut().records.send_request(&victim.local_peer_id(), request);
    let answered = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(HostileEvent::Records(request_response::Event::Message {
                    message: request_response::Message::Response { request_id, response },
                    ..
                })) if request_id == id => return Some(response),
                SwarmEvent::Behaviour(HostileEvent::Records(request_response::Event::OutboundFailure {
                    request_id,
                    ..
                })) if request_id == id => return None,
                _ => {}
            }
        }
    };
    within_deadline("a response", answered).await
}

/// Sends a request of the query protocol and returns its response, or that there is none.
pub async fn ask_query(swarm: &mut Swarm<Hostile>, victim: &Notes, request: Vec<u8>) -> Option<Vec<u8>> {
    let id = swarm.behaviour_mut().query.send_request(&victim.local_peer_id(), request);
    let answered = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(HostileEvent::Query(request_response::Event::Message {
                    message: request_response::Message::Response { request_id, response },
                    ..
                })) if request_id == id => return Some(response),
                SwarmEvent::Behaviour(HostileEvent::Query(request_response::Event::OutboundFailure {
                    request_id,
                    ..
                })) if request_id == id => return None,
                _ => {}
            }
        }
    };
    within_deadline("a response", answered).await
}

/// What a peer does with a request.
pub enum Reaction {
    /// It answers.
    Answer(Vec<u8>),
    /// It never answers.
    Silence,
    /// It closes the stream.
    Close,
}

/// Runs a peer that reacts to each request as `react` says.
pub fn react(
    mut swarm: Swarm<Hostile>,
    mut react: impl FnMut(Vec<u8>) -> Reaction + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut unanswered = Vec::new();
        loop {
            let SwarmEvent::Behaviour(HostileEvent::Records(request_response::Event::Message {
                message: request_response::Message::Request { request, channel, .. },
                ..
            })) = swarm.select_next_some().await
            else {
                continue;
            };
            match react(request) {
                Reaction::Answer(response) => {
                    let _ = swarm.behaviour_mut().records.send_response(channel, response);
                }
                Reaction::Silence => unanswered.push(channel),
                Reaction::Close => drop(channel),
            }
        }
    })
}

/// Runs a peer that reacts to each question for records as `react` says.
pub fn react_to_queries(
    mut swarm: Swarm<Hostile>,
    mut react: impl FnMut(Vec<u8>) -> Reaction + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut unanswered = Vec::new();
        loop {
            let SwarmEvent::Behaviour(HostileEvent::Query(request_response::Event::Message {
                message: request_response::Message::Request { request, channel, .. },
                ..
            })) = swarm.select_next_some().await
            else {
                continue;
            };
            match react(request) {
                Reaction::Answer(response) => {
                    let _ = swarm.behaviour_mut().query.send_response(channel, response);
                }
                Reaction::Silence => unanswered.push(channel),
                Reaction::Close => drop(channel),
            }
        }
    })
}

/// Runs a peer that reacts to each request of the record protocol as `react` says, and has no
/// records for queries.
pub fn react_without_records(
    mut swarm: Swarm<Hostile>,
    mut react: impl FnMut(Vec<u8>) -> Reaction + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut unanswered = Vec::new();
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(HostileEvent::Query(request_response::Event::Message {
                    message: request_response::Message::Request { channel, .. },
                    ..
                })) => {
                    let nothing = page_response(&[], None, true);
                    let _ = swarm.behaviour_mut().query.send_response(channel, nothing);
                }
                SwarmEvent::Behaviour(HostileEvent::Records(request_response::Event::Message {
                    message: request_response::Message::Request { request, channel, .. },
                    ..
                })) => match react(request) {
                    Reaction::Answer(response) => {
                        let _ = swarm.behaviour_mut().records.send_response(channel, response);
                    }
                    Reaction::Silence => unanswered.push(channel),
                    Reaction::Close => drop(channel),
                },
                _ => {}
            }
        }
    })
}

/// Runs a peer that reacts to each request of the sync protocol as `react` says, and to no other.
pub fn react_to_sync(
    mut swarm: Swarm<Hostile>,
    mut react: impl FnMut(Vec<u8>) -> Reaction + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut unanswered = Vec::new();
        loop {
            let SwarmEvent::Behaviour(HostileEvent::Sync(request_response::Event::Message {
                message: request_response::Message::Request { request, channel, .. },
                ..
            })) = swarm.select_next_some().await
            else {
                continue;
            };
            match react(request) {
                Reaction::Answer(response) => {
                    let _ = swarm.behaviour_mut().sync.send_response(channel, response);
                }
                Reaction::Silence => unanswered.push(channel),
                Reaction::Close => drop(channel),
            }
        }
    })
}

/// The bytes of a page of records, as `docs/formats.md` says.
pub fn page_response(records: &[(&[u8], &[u8])], last: Option<&[u8]>, is_last: bool) -> Vec<u8> {
    let mut bytes = vec![1, u8::from(is_last), u8::from(last.is_some())];
    if let Some(last) = last {
        bytes.extend(u16::try_from(last.len()).unwrap().to_be_bytes());
        bytes.extend(last);
    }
    bytes.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
    for (key, envelope) in records {
        bytes.extend(u16::try_from(key.len()).unwrap().to_be_bytes());
        bytes.extend(*key);
        bytes.extend(u32::try_from(envelope.len()).unwrap().to_be_bytes());
        bytes.extend(*envelope);
    }
    bytes
}

/// The bytes of a put, as `docs/formats.md` says.
pub fn put_request(records: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = vec![1];
    bytes.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
    for (key, envelope) in records {
        bytes.extend(u16::try_from(key.len()).unwrap().to_be_bytes());
        bytes.extend(*key);
        bytes.extend(u32::try_from(envelope.len()).unwrap().to_be_bytes());
        bytes.extend(*envelope);
    }
    bytes
}

/// The bytes of a get (tag 2) or of a question for versions (tag 3).
pub fn keys_request(tag: u8, keys: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(u16::try_from(keys.len()).unwrap().to_be_bytes());
    for key in keys {
        bytes.extend(u16::try_from(key.len()).unwrap().to_be_bytes());
        bytes.extend(*key);
    }
    bytes
}

/// The number of items that a request or a response has.
pub fn items(message: &[u8]) -> usize {
    u16::from_be_bytes([message[1], message[2]]).into()
}

/// A peer that is connected, and reacts to requests about blobs with [`react_to_blobs`].
pub async fn blob_peer(victim: &Notes) -> Swarm<Hostile> {
    hostile_peer(victim).await
}

/// Runs a peer that reacts to each request about blobs as `react` says.
pub fn react_to_blobs(
    mut swarm: Swarm<Hostile>,
    mut react: impl FnMut(Vec<u8>) -> Reaction + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut unanswered = Vec::new();
        loop {
            let SwarmEvent::Behaviour(HostileEvent::Blobs(request_response::Event::Message {
                message: request_response::Message::Request { request, channel, .. },
                ..
            })) = swarm.select_next_some().await
            else {
                continue;
            };
            match react(request) {
                Reaction::Answer(response) => {
                    let _ = swarm.behaviour_mut().blobs.send_response(channel, response);
                }
                Reaction::Silence => unanswered.push(channel),
                Reaction::Close => drop(channel),
            }
        }
    })
}
