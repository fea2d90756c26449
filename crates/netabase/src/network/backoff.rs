//! Leaves peers alone for a while after a dial to them has failed.
//!
//! A dead peer stays in other peers' routing tables, so every query hears of it and would wait for
//! one more dial to fail. While it is left alone such a dial fails at once, and the query goes on. Each
//! further failure doubles the time.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
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

/// How long a peer is left alone after a failed dial; each further one in a row doubles it.
const BACKOFF: Duration = Duration::from_secs(30);
/// The longest that a peer is left alone.
const MAX_BACKOFF: Duration = Duration::from_secs(30 * 60);
/// By how much more the time may be, in percent, so that nodes that lost a peer together do not all come back
/// to it together.
const JITTER_PERCENT: u64 = 25;
/// The most peers whose failed dials are remembered.
const MAX_PEERS: usize = 4096;

/// Remembers failed dials and denies new ones for a while.
#[derive(Debug, Default)]
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct Behaviour {
    failed: HashMap<PeerId, Failures>,
    /// Makes the jitter.
    random: RandomState,
}

#[derive(Debug)]
struct Failures {
    /// How many dials in a row have failed.
    count: u32,
    /// Until when the peer is left alone.
    until: Instant,
}

/// Why a dial was denied.
#[derive(Debug, Error)]
#[error("dials to {peer} have failed, and it is left alone for a while")]
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

    /// Whether a dial to a peer would be denied now.
    pub(super) fn is_left_alone(&self, peer: &PeerId) -> bool {
        self.failed.get(peer).is_some_and(|failures| failures.until > Instant::now())
    }

    fn on_dial_failure(&mut self, peer: PeerId, error: &DialError) {
        // A dial that was not made says nothing about the peer.
        if matches!(
            error,
            DialError::Denied { .. } | DialError::DialPeerConditionFalse(_) | DialError::Aborted
        ) {
            return;
        }
        self.failed_at(peer, Instant::now());
    }

    fn failed_at(&mut self, peer: PeerId, now: Instant) {
        if self.failed.len() >= MAX_PEERS {
            self.failed.retain(|_, failures| failures.until > now);
        }
        if self.failed.len() < MAX_PEERS || self.failed.contains_key(&peer) {
            let failures = self.failed.entry(peer).or_insert(Failures { count: 0, until: now });
            failures.count = failures.count.saturating_add(1);
            failures.until = now + backoff(failures.count, self.random.hash_one((peer, failures.count)));
        }
    }
}

/// Returns how long a peer is left alone after `count` failures in a row.
fn backoff(count: u32, random: u64) -> Duration {
    let doubled = BACKOFF.saturating_mul(1_u32.checked_shl(count.saturating_sub(1)).unwrap_or(u32::MAX));
    let least = doubled.min(MAX_BACKOFF);
    let jitter = u32::try_from(random % (JITTER_PERCENT + 1)).unwrap_or(0);
    least + least * jitter / 100
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
        match peer.filter(|peer| self.is_left_alone(peer)) {
            Some(peer) => Err(ConnectionDenied::new(BackingOff { peer })),
            None => Ok(Vec::new()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_peer_is_left_alone_for_longer_each_time() {
        assert_eq!(backoff(1, 0), BACKOFF);
        assert_eq!(backoff(2, 0), BACKOFF * 2);
        assert_eq!(backoff(6, 0), BACKOFF * 32);
        for count in [7, 32, 33, u32::MAX] {
            assert_eq!(backoff(count, 0), MAX_BACKOFF);
            assert_eq!(backoff(count, JITTER_PERCENT), MAX_BACKOFF * 5 / 4);
        }
    }

    #[test]
    fn a_peer_that_answers_or_of_which_there_is_news_is_dialled_again() {
        let (mut behaviour, peer, now) = (Behaviour::default(), PeerId::random(), Instant::now());
        for failures in 1..=3 {
            behaviour.failed_at(peer, now);
            assert_eq!((behaviour.failures(&peer), behaviour.is_left_alone(&peer)), (failures, true));
        }
        behaviour.allow(&peer);
        assert_eq!((behaviour.failures(&peer), behaviour.is_left_alone(&peer)), (0, false));
    }
}
