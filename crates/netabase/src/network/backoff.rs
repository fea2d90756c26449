//! Leaves peers alone for a while after a dial to them has failed.
//!
//! A dead peer stays in other peers' routing tables, so every query hears of it and would wait for
//! one more dial to fail. While it is left alone such a dial fails at once, and the query goes on.

use std::collections::HashMap;
use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionEstablished, DialFailure};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use thiserror::Error;

/// How long a peer is left alone after a failed dial.
const BACKOFF: Duration = Duration::from_secs(30);
/// The most peers whose failed dials are remembered.
const MAX_PEERS: usize = 4096;

/// Remembers failed dials and denies new ones for a while.
#[derive(Debug, Default)]
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct Behaviour {
    failed: HashMap<PeerId, Failures>,
}

#[derive(Debug)]
struct Failures {
    /// How many dials in a row have failed.
    count: u32,
    last: Instant,
}

/// Why a dial was denied.
#[derive(Debug, Error)]
#[error("the last dial to {peer} has failed less than {} s ago", BACKOFF.as_secs())]
struct BackingOff {
    peer: PeerId,
}

impl Behaviour {
    /// Lets the next dial to a peer through: there is news of it, or somebody asks for it.
    pub(super) fn allow(&mut self, peer: &PeerId) {
        self.failed.remove(peer);
    }

    /// Returns how many dials to a peer have failed in a row.
    pub(super) fn failures(&self, peer: &PeerId) -> u32 {
        self.failed.get(peer).map_or(0, |failures| failures.count)
    }

    fn on_dial_failure(&mut self, peer: PeerId, error: &DialError) {
        // A dial that was not made says nothing about the peer.
        if matches!(
            error,
            DialError::Denied { .. } | DialError::DialPeerConditionFalse(_) | DialError::Aborted
        ) {
            return;
        }
        if self.failed.len() >= MAX_PEERS {
            self.failed.retain(|_, failures| failures.last.elapsed() < BACKOFF);
        }
        if self.failed.len() < MAX_PEERS {
            let failures = self.failed.entry(peer).or_insert(Failures { count: 0, last: Instant::now() });
            failures.count += 1;
            failures.last = Instant::now();
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let Some((peer, failures)) = peer.and_then(|peer| Some((peer, self.failed.get(&peer)?))) else {
            return Ok(Vec::new());
        };
        if failures.last.elapsed() < BACKOFF {
            return Err(ConnectionDenied::new(BackingOff { peer }));
        }
        Ok(Vec::new())
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, .. }) => self.allow(&peer_id),
            FromSwarm::DialFailure(DialFailure { peer_id: Some(peer), error, .. }) => {
                self.on_dial_failure(peer, error);
            }
            // libp2p adds events; none of them is about a dial that has failed.
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
