//! Twins: another running node with the identity of this one, on the same local network and without
//! a common peer.
//!
//! libp2p's mDNS ignores answers with this node's own id, so this module reads them. A foreign
//! address in them is dialled. The handshake proves that the other end has this node's key. If no
//! connection has come in meanwhile, that end is no listener of this node: neither one at a former
//! address, nor one behind a router that sends packets back. The other node sees an incoming
//! connection with its own identity while it dials no peer, and draws the same conclusion.

use std::collections::{HashSet, VecDeque};

use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, DialError, ListenError};
use libp2p::{Multiaddr, PeerId};

use crate::event_loop::EventLoop;
use crate::jitter;
use crate::mdns::limits::{CLAIM_PAUSE, CLAIM_RENEWAL, MAX_CLAIM_ATTEMPTS, MAX_CLAIMS, MAX_INCOMING};
use crate::mdns::query::Answers;
use crate::platform::{self, Instant};

/// The state of the detection of twins.
#[derive(Debug)]
pub(crate) struct LocalTwins {
    /// `None` if this node does not use mDNS.
    answers: Option<Answers>,
    claims: VecDeque<Claim>,
    probe: Option<Probe>,
    next: Instant,
    /// The number of incoming connections so far.
    incoming: u64,
    /// The incoming connections that came while this node dialled no peer.
    others: HashSet<ConnectionId>,
}

/// An address that claims this node's id.
#[derive(Debug)]
struct Claim {
    address: Multiaddr,
    /// The number of dials without a conclusion.
    attempts: u32,
}

/// A dial in flight.
#[derive(Debug)]
struct Probe {
    connection: ConnectionId,
    claim: Claim,
    /// The number of incoming connections at its start.
    incoming: u64,
}

impl LocalTwins {
    pub(crate) fn new(answers: Option<Answers>) -> Self {
        let (claims, probe, others) = Default::default();
        Self { answers, claims, probe, next: platform::now(), incoming: 0, others }
    }

    /// Waits for an mDNS answer; returns its addresses. This method is cancel safe.
    pub(crate) async fn hear(&mut self) -> Vec<Multiaddr> {
        match &mut self.answers {
            Some(answers) => answers.next().await,
            None => std::future::pending().await,
        }
    }

    /// Listens on the interfaces of this node's listen addresses.
    pub(crate) fn join(&self, listening: &[Multiaddr]) {
        if let Some(answers) = &self.answers {
            answers.join(listening);
        }
    }

    /// Records the addresses with the id of this node, `us`, that are not among `ours`.
    pub(crate) fn heard(&mut self, us: &PeerId, ours: &[Multiaddr], addresses: Vec<Multiaddr>) {
        for mut address in addresses {
            if address.pop() != Some(Protocol::P2p(*us)) || ours.contains(&address) {
                continue;
            }
            let probed = self.probe.iter().map(|probe| &probe.claim);
            let is_known = self.claims.iter().chain(probed).any(|claim| claim.address == address);
            if !is_known && self.claims.len() < MAX_CLAIMS {
                self.claims.push_back(Claim { address, attempts: 0 });
            }
        }
    }

    /// Returns the claim to dial now, if there is one.
    fn due(&mut self, now: Instant) -> Option<Claim> {
        if self.probe.is_some() || now < self.next { None } else { self.claims.pop_front() }
    }

    fn begin(&mut self, connection: ConnectionId, claim: Claim) {
        self.probe = Some(Probe { connection, claim, incoming: self.incoming });
    }

    /// Records an incoming connection.
    pub(crate) fn came_in(&mut self, connection: ConnectionId, is_dialling: bool) {
        self.incoming += 1;
        if !is_dialling && self.others.len() < MAX_INCOMING {
            self.others.insert(connection);
        }
    }

    /// Records an established connection.
    pub(crate) fn established(&mut self, connection: ConnectionId) {
        self.others.remove(&connection);
        self.dialled(connection, false, platform::now());
    }

    /// Records a failed incoming connection; returns whether another node with this identity has
    /// made it.
    pub(crate) fn refused(&mut self, connection: ConnectionId, error: &ListenError) -> bool {
        self.others.remove(&connection) && matches!(error, ListenError::LocalPeerId { .. })
    }

    /// Records the end of a dial, and whether it has reached this node's identity; returns whether
    /// that proves a twin.
    pub(crate) fn dialled(&mut self, connection: ConnectionId, has_our_key: bool, now: Instant) -> bool {
        let Some(Probe { mut claim, incoming, .. }) =
            self.probe.take_if(|probe| probe.connection == connection)
        else {
            return false;
        };
        self.next = now + jitter::above(CLAIM_PAUSE, 100);
        if !has_our_key {
            return false;
        }
        let is_twin = incoming == self.incoming;
        if is_twin {
            (claim.attempts, self.next) = (0, now + CLAIM_RENEWAL);
        } else {
            claim.attempts += 1;
        }
        if claim.attempts < MAX_CLAIM_ATTEMPTS {
            self.claims.push_back(claim);
        }
        is_twin
    }
}

impl EventLoop {
    /// Handles an mDNS answer on the local network.
    pub(crate) fn on_mdns_answer(&mut self, addresses: Vec<Multiaddr>) {
        let us = *self.swarm.local_peer_id();
        self.mdns.twins.heard(&us, &self.listening.addresses.read(), addresses);
    }

    /// Dials the next foreign address with this node's id; called about once a second.
    pub(crate) fn look_for_twins(&mut self) {
        let now = platform::now();
        let Some(claim) = self.mdns.twins.due(now) else { return };
        // A dial that names the peer would be denied.
        let options = DialOpts::unknown_peer_id().address(claim.address.clone()).build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => self.mdns.twins.begin(connection, claim),
            Err(error) => tracing::debug!(%error, address = %claim.address, "cannot dial"),
        }
    }

    /// Handles an incoming connection.
    pub(crate) fn note_incoming(&mut self, connection: ConnectionId) {
        let is_dialling = self.swarm.network_info().connection_counters().num_pending_outgoing() > 0;
        self.mdns.twins.came_in(connection, is_dialling);
    }

    /// Handles the failure of an incoming connection.
    pub(crate) fn note_refused(&mut self, connection: ConnectionId, error: &ListenError) {
        if self.mdns.twins.refused(connection, error) {
            self.on_we_are_shared();
        }
    }

    /// Handles the failure of a dial.
    pub(crate) fn note_dialled(&mut self, connection: ConnectionId, error: &DialError) {
        let has_our_key = matches!(error, DialError::LocalPeerId { .. });
        if self.mdns.twins.dialled(connection, has_our_key, platform::now()) {
            self.on_we_are_shared();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: usize) -> Multiaddr {
        format!("/ip4/192.168.1.1/tcp/{port}").parse().unwrap()
    }

    fn begin(twins: &mut LocalTwins, now: Instant) -> ConnectionId {
        let (connection, claim) = (ConnectionId::new_unchecked(1), twins.due(now).unwrap());
        twins.begin(connection, claim);
        connection
    }

    #[tokio::test]
    async fn only_addresses_under_our_name_that_are_not_ours_are_dialled() {
        let (mut twins, us, other) = (LocalTwins::new(None), PeerId::random(), PeerId::random());
        let named = |port, peer| address(port).with_p2p(peer).unwrap();
        let told = vec![named(1, us), named(2, other), address(3), named(4, us), named(4, us)];
        twins.heard(&us, &[address(1)], told.clone());
        let now = platform::now();
        let connection = begin(&mut twins, now);
        twins.heard(&us, &[address(1)], told);
        assert!(twins.due(now).is_none(), "one at a time");
        assert!(!twins.dialled(connection, false, now) && twins.claims.is_empty());
        twins.heard(&us, &[], (0..100).map(|port| named(port, us)).collect());
        assert_eq!(twins.claims.len(), MAX_CLAIMS);
        assert!(twins.due(now + CLAIM_PAUSE / 2).is_none() && twins.due(now + CLAIM_PAUSE * 2).is_some());
    }

    #[tokio::test]
    async fn a_dial_that_ends_here_is_no_twin_and_one_that_ends_elsewhere_is() {
        let (mut twins, mut now) = (LocalTwins::new(None), platform::now());
        let incoming = ConnectionId::new_unchecked(2);
        let ours = || ListenError::LocalPeerId { address: address(1) };
        twins.claims.push_back(Claim { address: address(1), attempts: 0 });
        for _ in 0..MAX_CLAIM_ATTEMPTS {
            let connection = begin(&mut twins, now);
            // This node is the other end itself.
            twins.came_in(incoming, true);
            assert!(!twins.refused(incoming, &ours()) && !twins.dialled(connection, true, now));
            now += CLAIM_PAUSE * 2;
        }
        assert!(twins.due(now).is_none(), "it is given up");

        twins.claims.push_back(Claim { address: address(1), attempts: 0 });
        for _ in 0..2 * MAX_CLAIM_ATTEMPTS {
            let connection = begin(&mut twins, now);
            assert!(twins.dialled(connection, true, now), "it is proved again and again");
            assert!(twins.due(now + CLAIM_PAUSE * 2).is_none());
            now += CLAIM_RENEWAL;
        }
        twins.came_in(incoming, false);
        assert!(twins.refused(incoming, &ours()));
        twins.came_in(incoming, false);
        assert!(!twins.refused(incoming, &ListenError::Aborted) && !twins.refused(incoming, &ours()));
    }
}
