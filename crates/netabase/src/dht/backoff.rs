//! Back-off of peers after failed dials.
//!
//! A dead peer stays in other peers' routing tables, so every query finds it and would wait for one
//! more dial to fail. During the back-off such a dial fails at once, and the query continues. Each
//! further failure doubles the time.

use std::collections::HashMap;
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionEstablished, DialFailure};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use thiserror::Error;

use crate::dht::limits::{DIAL_BACKOFF, DIAL_JITTER_PERCENT, MAX_FAILED_PEERS};
use crate::jitter;
use crate::platform::{self, Instant};

/// The behaviour that counts failed dials and denies dials during the back-off.
#[derive(Debug, Default)]
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct Behaviour {
    failed: HashMap<PeerId, Failures>,
}

#[derive(Debug)]
struct Failures {
    /// The number of consecutive failed dials.
    count: u32,
    /// The end of the back-off.
    until: Instant,
}

/// The reason of a denied dial.
#[derive(Debug, Error)]
#[error("dials to {peer} have failed, and further ones are in back-off")]
struct BackingOff {
    peer: PeerId,
}

impl Behaviour {
    /// Resets the back-off of a peer, which has answered or has a new address.
    pub(crate) fn allow(&mut self, peer: &PeerId) {
        self.failed.remove(peer);
    }

    /// Allows the next dial to a peer. If it fails, it counts as one more consecutive failure.
    pub(crate) fn let_through(&mut self, peer: &PeerId) {
        if let Some(failures) = self.failed.get_mut(peer) {
            failures.until = platform::now();
        }
    }

    /// Allows the next dial to every peer, since the reasons of earlier failures may be gone.
    pub(crate) fn let_all_through(&mut self) {
        let now = platform::now();
        for failures in self.failed.values_mut() {
            failures.until = now;
        }
    }

    /// Returns the number of consecutive failed dials to a peer.
    pub(crate) fn failures(&self, peer: &PeerId) -> u32 {
        self.failed.get(peer).map_or(0, |failures| failures.count)
    }

    /// Returns whether a dial to a peer would be denied now.
    pub(crate) fn is_left_alone(&self, peer: &PeerId) -> bool {
        self.failed.get(peer).is_some_and(|failures| failures.until > platform::now())
    }

    fn on_dial_failure(&mut self, peer: PeerId, error: &DialError) {
        // A denied dial is no evidence about the peer.
        if matches!(
            error,
            DialError::Denied { .. } | DialError::DialPeerConditionFalse(_) | DialError::Aborted
        ) {
            return;
        }
        self.failed_at(peer, platform::now());
    }

    fn failed_at(&mut self, peer: PeerId, now: Instant) {
        if self.failed.len() >= MAX_FAILED_PEERS {
            self.failed.retain(|_, failures| failures.until > now);
        }
        if self.failed.len() < MAX_FAILED_PEERS || self.failed.contains_key(&peer) {
            let failures = self.failed.entry(peer).or_insert(Failures { count: 0, until: now });
            failures.count = failures.count.saturating_add(1);
            failures.until = now + jitter::above(DIAL_BACKOFF.after(failures.count), DIAL_JITTER_PERCENT);
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
            // libp2p may add events; none of them is about a failed dial.
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
        let seconds = [1, 2, 6, 7, u32::MAX].map(|failures| DIAL_BACKOFF.after(failures).as_secs());
        assert_eq!(seconds, [30, 60, 960, 1800, 1800]);
    }

    #[test]
    fn a_peer_that_answers_or_of_which_there_is_news_is_dialled_again() {
        let (mut behaviour, peer, now) = (Behaviour::default(), PeerId::random(), platform::now());
        for failures in 1..=3 {
            behaviour.failed_at(peer, now);
            assert_eq!((behaviour.failures(&peer), behaviour.is_left_alone(&peer)), (failures, true));
        }
        behaviour.let_through(&peer);
        assert_eq!((behaviour.failures(&peer), behaviour.is_left_alone(&peer)), (3, false));
        behaviour.failed_at(peer, now);
        assert_eq!((behaviour.failures(&peer), behaviour.is_left_alone(&peer)), (4, true));
        behaviour.let_all_through();
        assert_eq!((behaviour.failures(&peer), behaviour.is_left_alone(&peer)), (4, false));
        behaviour.allow(&peer);
        assert_eq!((behaviour.failures(&peer), behaviour.is_left_alone(&peer)), (0, false));
    }
}
