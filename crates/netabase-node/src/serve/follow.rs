//! What a node prints and logs of what happens.

use std::io::{self, Write};

use netabase::libp2p::multiaddr::Protocol;
use netabase::{EventError, Events, NetabaseSwarmEvent, PeerId};

/// Tells what happens until the node is gone.
pub(super) async fn follow(events: &mut Events, local: PeerId) {
    loop {
        match events.recv().await {
            Ok(NetabaseSwarmEvent::NewListenAddress(address)) => {
                print("address", address.with(Protocol::P2p(local)));
            }
            Ok(event) => log(&event),
            Err(EventError::Lagged { missed }) => tracing::warn!(missed, "too many events to log them all"),
            Err(EventError::Closed) => return,
        }
    }
}

fn log(event: &NetabaseSwarmEvent) {
    match event {
        NetabaseSwarmEvent::Record(record) => {
            tracing::info!(kind = ?record.kind(), key = %record.key(), origin = ?record.origin(), "record");
        }
        NetabaseSwarmEvent::MembersChanged(list) => {
            tracing::info!(members = list.members().len(), signed = ?list.timestamp(), "members");
        }
        NetabaseSwarmEvent::RecordRefused { peer, key, reason } => {
            let (peer, key) = (peer.map(tracing::field::display), key.as_ref().map(tracing::field::display));
            tracing::warn!(peer, key, %reason, "a record was refused");
        }
        NetabaseSwarmEvent::ConnectionEstablished { peer, address, connections: 1, .. } => {
            tracing::info!(%peer, %address, "connected");
        }
        NetabaseSwarmEvent::ConnectionClosed { peer, connections: 0, cause, .. } => {
            let cause = cause.as_deref().unwrap_or("closed");
            tracing::info!(%peer, cause, "disconnected");
        }
        NetabaseSwarmEvent::OutgoingConnectionError { peer: Some(peer), cause } => {
            tracing::info!(%peer, %cause, "cannot connect");
        }
        NetabaseSwarmEvent::ListenerClosed { addresses, cause: Some(cause) } => {
            tracing::warn!(?addresses, %cause, "listens no more");
        }
        event => tracing::trace!(?event, "event"),
    }
}

/// Prints a line for scripts. Nobody has to read it.
pub(super) fn print(what: &str, value: impl std::fmt::Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{what} {value}").and_then(|()| out.flush());
}
