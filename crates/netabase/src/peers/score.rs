//! Peer scores: refusals are counted, and a peer that misbehaves is slowed, then banned.
//!
//! Every refusal is counted for the peer that sent the record. A record that no honest node sends
//! (see [`Severity`]) adds to a score that decays with time; beyond [`SLOW_AT`] a peer is slowed,
//! and beyond [`BAN_AT`] it is disconnected and left alone for a while. Records that an honest node
//! sends when it is behind, busy or of another configuration never lead to a ban.
//!
//! A ban is of a peer id, since that is what the handshake proves. Ids are cheap, so a prefix from
//! which several banned peers came is limited to a few connections, and never to none: a /24 may be
//! many households behind one router, whose honest ones still get in.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use netabase_store::Refusal;
use parking_lot::Mutex;
use thiserror::Error;

use crate::admission::Severity;
use crate::dht::address::Prefix;
use crate::peers::other_roots::OtherRoots;
use crate::platform::{self};

mod ledger;

use ledger::Ledger;
pub use ledger::{PeerReport, PeerState};

/// What a refusal has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing new.
    Tolerated,
    /// The peer is slowed from now on.
    Slowed,
    /// The peer is banned from now on.
    Banned { until: SystemTime },
}

/// Why a request of a peer is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Throttle {
    /// The peer is slowed or banned for what it has sent.
    Slowed,
    /// It has sent more than a peer may.
    TooFast,
}

/// What is known of the conduct of peers, shared by everything that hears of it. It outlives the
/// swarm.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeerScores(Arc<Mutex<Ledger>>);

impl PeerScores {
    /// Counts a refusal; `prefix` is where the peer is connected from.
    pub(crate) fn refused(
        &self,
        peer: PeerId,
        prefix: Option<Prefix>,
        reason: Refusal,
        severity: Severity,
    ) -> Verdict {
        self.0.lock().refused(peer, prefix, reason, severity, platform::now())
    }

    /// Whether a peer may send `count` records now, which are counted if it may. One that may not
    /// is answered [`Refusal::Busy`], and its records are not looked at. Of a slowed peer one
    /// request goes through per interval, whatever the number of its records.
    pub(crate) fn allow_records(&self, peer: &PeerId, count: usize) -> bool {
        self.0.lock().allow_records(peer, count, platform::now())
    }

    /// Whether a peer that may send a record may send one that costs as much as `cost` of them. One
    /// that may not is answered [`Refusal::Busy`].
    pub(crate) fn allow_cost(&self, peer: &PeerId, cost: usize) -> bool {
        let more = cost.saturating_sub(1);
        more == 0 || self.0.lock().charge(peer, more, platform::now())
    }

    /// Counts what was done for a peer as so many records of it; it waits for it with its next
    /// request.
    pub(crate) fn spend(&self, peer: &PeerId, cost: usize) {
        if cost > 0 {
            self.0.lock().spend(peer, cost, platform::now());
        }
    }

    /// The same, saying why not.
    pub(crate) fn check_records(&self, peer: &PeerId, count: usize) -> Result<(), Throttle> {
        self.0.lock().check_records(peer, count, platform::now())
    }

    /// Returns for how much longer a peer is slowed, if it is and does not misbehave again.
    pub(crate) fn slowed_for(&self, peer: &PeerId) -> Option<Duration> {
        self.0.lock().slowed_for(peer, platform::now())
    }

    /// Returns for how much longer a peer is banned, and for what.
    pub(crate) fn ban_of(&self, peer: &PeerId) -> Option<(Duration, Refusal)> {
        self.0.lock().ban_of(peer, platform::now())
    }

    /// Whether a banned peer that comes back has not been told of its ban; it counts as told from
    /// now on.
    fn begins_to_tell(&self, peer: &PeerId) -> bool {
        self.0.lock().begins_to_tell(peer)
    }

    pub(crate) fn is_banned(&self, peer: &PeerId) -> bool {
        self.0.lock().is_banned(peer, platform::now())
    }

    /// Whether so many banned peers came from a prefix that only a few connections may.
    pub(crate) fn is_limited(&self, prefix: Prefix) -> bool {
        self.0.lock().is_limited(prefix, platform::now())
    }

    pub(crate) fn report(&self, peer: &PeerId) -> Option<PeerReport> {
        self.0.lock().report(peer, platform::now())
    }

    pub(crate) fn reports(&self) -> Vec<PeerReport> {
        self.0.lock().reports(platform::now())
    }

    /// Forgets everything about a peer; returns whether there was anything.
    pub(crate) fn pardon(&self, peer: &PeerId) -> bool {
        self.0.lock().pardon(peer)
    }
}

/// Keeps banned peers away, and those of another closed network, both ways, but for the one
/// connection in which a banned one is told.
#[derive(Debug)]
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct Behaviour {
    scores: PeerScores,
    other_roots: OtherRoots,
}

/// Why a connection was denied.
#[derive(Debug, Error)]
#[error("the peer {peer} is banned for what it has sent")]
struct Banned {
    peer: PeerId,
}

/// Why a connection was denied.
#[derive(Debug, Error)]
#[error("the peer {peer} belongs to a network of the same name with another root")]
struct HasOtherRoot {
    peer: PeerId,
}

impl Behaviour {
    pub(crate) fn new(scores: PeerScores, other_roots: OtherRoots) -> Self {
        Self { scores, other_roots }
    }

    fn check(&self, peer: PeerId) -> Result<(), ConnectionDenied> {
        if self.scores.is_banned(&peer) {
            return Err(ConnectionDenied::new(Banned { peer }));
        }
        if self.other_roots.is_left_alone(&peer) {
            return Err(ConnectionDenied::new(HasOtherRoot { peer }));
        }
        Ok(())
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
        peer.map_or(Ok(()), |peer| self.check(peer)).map(|()| Vec::new())
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.scores.is_banned(&peer) && self.scores.begins_to_tell(&peer) {
            return Ok(dummy::ConnectionHandler);
        }
        self.check(peer).map(|()| dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.check(peer).map(|()| dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
