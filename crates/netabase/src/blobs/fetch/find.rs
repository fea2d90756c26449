//! The search for holders: the providers of the blob, and connected peers.

use futures::future::join_all;
use libp2p::PeerId;
use netabase_store::Blob;

use crate::blobs::fetch::Network;
use crate::blobs::limits::{MAX_ASKED_PEERS, SEARCH_TIMEOUT};
use crate::blobs::provide::provider_key;
use crate::event_loop::command::Command;
use crate::platform::timeout;
use crate::protocol::blob::{Request, Response};

/// The result of a search.
#[derive(Debug)]
pub(super) enum Found {
    /// Peers that claim to have the blob.
    Holders(Vec<PeerId>),
    /// Peers that may be asked.
    Connected(Vec<PeerId>),
}

/// Looks up the providers of a blob, and connects to them.
pub(super) async fn providers(network: Network, blob: Blob) -> Found {
    let key = provider_key(&blob.hash);
    let found = network.commands.call(|reply| Command::GetProviders { key, reply });
    let found = timeout(SEARCH_TIMEOUT, found).await;
    let found: Vec<PeerId> =
        found.ok().and_then(Result::ok).into_iter().flatten().take(MAX_ASKED_PEERS).collect();
    let located = found.iter().map(|peer| {
        let peer = *peer;
        timeout(SEARCH_TIMEOUT, network.commands.call(move |reply| Command::Locate { peer, reply }))
    });
    // A provider that is not found fails when it is asked.
    join_all(located).await;
    Found::Holders(found)
}

/// Returns the connected peers.
pub(super) async fn connected(network: Network) -> Found {
    let peers = network.commands.call(|reply| Command::ConnectedPeers { reply }).await;
    Found::Connected(peers.unwrap_or_default())
}

/// Asks a peer whether it has a blob.
pub(super) async fn has(network: Network, peer: PeerId, blob: Blob) -> Found {
    let answer = timeout(SEARCH_TIMEOUT, network.ask(peer, &Request::Have(blob))).await;
    let answer = answer.ok().and_then(Result::ok);
    let has =
        answer.is_some_and(|frame| matches!(frame.bytes().map(Response::decode), Ok(Ok(Response::Have))));
    Found::Holders(has.then_some(peer).into_iter().collect())
}
