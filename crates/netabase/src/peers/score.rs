//! Peer scores: refusals are counted, and a peer that misbehaves is slowed, then banned.
//!
//! Every refusal is counted for the peer that sent the record. A record that no honest node sends
//! (see [`Severity`]) adds to a score that decays with time. From [`SLOW_AT`] a peer is slowed, and
//! from [`BAN_AT`] it is banned: disconnected, and denied for a while. Records that an honest node
//! sends when it is behind, busy or configured differently never lead to a ban.
//!
//! A ban applies to a peer id, which the handshake proves. Ids are cheap, so a prefix of several
//! banned peers is limited to a few connections, but never to none: a /24 may be many households
//! behind one router, whose honest nodes must still get in.

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

/// The consequence of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No change.
    Tolerated,
    /// The peer is slowed from now on.
    Slowed,
    /// The peer is banned from now on.
    Banned { until: SystemTime },
}

/// The reason why a request of a peer is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Throttle {
    /// The peer is slowed or banned for what it has sent.
    Slowed,
    /// The peer has used up its quota.
    TooFast,
}

/// The scores of all peers, shared by all modules that report conduct. They outlive the swarm.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeerScores(Arc<Mutex<Ledger>>);

impl PeerScores {
    /// Counts a refusal. `prefix` is the prefix that the peer is connected from.
    pub(crate) fn refused(
        &self,
        peer: PeerId,
        prefix: Option<Prefix>,
        reason: Refusal,
        severity: Severity,
    ) -> Verdict {
        self.0.lock().refused(peer, prefix, reason, severity, platform::now())
    }

    /// Charges `count` records to a peer's quota if it has them; returns whether it has. Otherwise
    /// the peer is answered [`Refusal::Busy`], and its records are not checked. A slowed peer may
    /// send one request per interval, whatever the number of its records.
    pub(crate) fn allow_records(&self, peer: &PeerId, count: usize) -> bool {
        self.0.lock().allow_records(peer, count, platform::now())
    }

    /// Charges a record that costs as much as `cost` plain ones, beyond the one that is charged
    /// already; returns whether the quota allows it. Otherwise the peer is answered
    /// [`Refusal::Busy`].
    pub(crate) fn allow_cost(&self, peer: &PeerId, cost: usize) -> bool {
        let more = cost.saturating_sub(1);
        more == 0 || self.0.lock().charge(peer, more, platform::now())
    }

    /// Charges work for a peer as `cost` records of its quota; the peer's next request waits for
    /// it.
    pub(crate) fn spend(&self, peer: &PeerId, cost: usize) {
        if cost > 0 {
            self.0.lock().spend(peer, cost, platform::now());
        }
    }

    /// Charges records like [`allow_records`](Self::allow_records), and returns the reason of a
    /// refusal.
    pub(crate) fn check_records(&self, peer: &PeerId, count: usize) -> Result<(), Throttle> {
        self.0.lock().check_records(peer, count, platform::now())
    }

    /// Returns the remaining time for which a peer is slowed unless it misbehaves again, or `None`.
    pub(crate) fn slowed_for(&self, peer: &PeerId) -> Option<Duration> {
        self.0.lock().slowed_for(peer, platform::now())
    }

    /// Returns the remaining time of a peer's ban and its reason, or `None`.
    pub(crate) fn ban_of(&self, peer: &PeerId) -> Option<(Duration, Refusal)> {
        self.0.lock().ban_of(peer, platform::now())
    }

    /// Returns whether a banned peer that connects has not been notified of its ban yet, and marks
    /// it as notified.
    fn begins_to_tell(&self, peer: &PeerId) -> bool {
        self.0.lock().begins_to_tell(peer)
    }

    pub(crate) fn is_banned(&self, peer: &PeerId) -> bool {
        self.0.lock().is_banned(peer, platform::now())
    }

    /// Returns whether a prefix is limited to a few connections, because several banned peers came
    /// from it.
    pub(crate) fn is_limited(&self, prefix: Prefix) -> bool {
        self.0.lock().is_limited(prefix, platform::now())
    }

    pub(crate) fn report(&self, peer: &PeerId) -> Option<PeerReport> {
        self.0.lock().report(peer, platform::now())
    }

    pub(crate) fn reports(&self) -> Vec<PeerReport> {
        self.0.lock().reports(platform::now())
    }

    /// Deletes a peer's score and report; returns whether there was one.
    pub(crate) fn pardon(&self, peer: &PeerId) -> bool {
        self.0.lock().pardon(peer)
    }
}

/// The behaviour that denies connections with banned peers and with those of another closed
/// network, both ways, except the one connection by which a banned peer is notified.
#[derive(Debug)]
#[expect(unnameable_types, reason = "a part of the public behaviour that nobody needs to name")]
pub struct Behaviour {
    scores: PeerScores,
    other_roots: OtherRoots,
}

/// The reason of a denied connection: a ban.
#[derive(Debug, Error)]
#[error("the peer {peer} is banned for what it has sent")]
struct Banned {
    peer: PeerId,
}

/// The reason of a denied connection: another root.
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
