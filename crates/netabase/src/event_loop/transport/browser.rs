//! The transport in a browser: websockets to nodes that have an address, and libp2p's memory
//! transport to nodes in the same page.

use std::io;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, MemoryTransport};
use libp2p::core::upgrade;
use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, Transport, noise, swarm, websocket_websys, yamux};

use crate::connection::processor::Processor;
use crate::error::NetabaseError;

/// Returns the configuration of the swarm, with the executor of connection tasks.
/// Nobody connects to a browser, so that its tasks are not timed.
pub(super) fn swarm_config(_: Processor) -> swarm::Config {
    swarm::Config::with_wasm_executor()
}

pub(super) fn transport(identity: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetabaseError> {
    let noise = || noise::Config::new(identity).map_err(NetabaseError::network);
    let websocket = websocket_websys::Transport::default().upgrade(upgrade::Version::V1Lazy);
    let websocket = websocket.authenticate(noise()?).multiplex(yamux::Config::default());
    let memory = MemoryTransport::default().upgrade(upgrade::Version::V1);
    let memory = memory.authenticate(noise()?).multiplex(yamux::Config::default());
    let websocket = websocket.map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    let memory = memory.map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    Ok(websocket.or_transport(memory).map(|either, _| either.into_inner()).boxed())
}

/// Does nothing: a browser has no ports.
#[expect(clippy::unnecessary_wraps, reason = "elsewhere one may be taken")]
pub(super) fn check_free(_: &Multiaddr) -> io::Result<()> {
    Ok(())
}
