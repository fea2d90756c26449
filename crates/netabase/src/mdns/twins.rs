//! Another running node with the identity of this one, on the same local network and without a
//! common peer.
//!
//! libp2p's mDNS passes over answers that are under this node's own name, so they are read once
//! more. An address in them that is none of ours is dialled. The handshake proves that the other
//! end has our key. If no connection has come in here meanwhile, that end is no listener of this
//! node: neither by an address that it had before, nor by a router that sends its packets back. The
//! other node sees a connection with its own identity come in while it dials nobody, and knows the
//! same.

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

/// What is known of other nodes with our identity.
#[derive(Debug)]
pub(crate) struct LocalTwins {
    /// `None` where this node does not use mDNS.
    answers: Option<Answers>,
    claims: VecDeque<Claim>,
    probe: Option<Probe>,
    next: Instant,
    /// How many connections have come in.
    incoming: u64,
    /// The connections that came in while this node dialled nobody.
    others: HashSet<ConnectionId>,
}

/// An address where somebody says to be who has our name.
#[derive(Debug)]
struct Claim {
    address: Multiaddr,
    /// How often nothing could be told.
    attempts: u32,
}

/// A dial under way.
#[derive(Debug)]
struct Probe {
    connection: ConnectionId,
    claim: Claim,
    /// How many connections had come in when it began.
    incoming: u64,
}

impl LocalTwins {
    pub(crate) fn new(answers: Option<Answers>) -> Self {
        let (claims, probe, others) = Default::default();
        Self { answers, claims, probe, next: platform::now(), incoming: 0, others }
    }

    /// Waits for an answer of mDNS; returns which peers it says to be where. Cancelling the call
    /// loses nothing.
    pub(crate) async fn hear(&mut self) -> Vec<Multiaddr> {
        match &mut self.answers {
            Some(answers) => answers.next().await,
            None => std::future::pending().await,
        }
    }

    /// Hears what comes on the interfaces of the addresses that this node listens on.
    pub(crate) fn join(&self, listening: &[Multiaddr]) {
        if let Some(answers) = &self.answers {
            answers.join(listening);
        }
    }

    /// Notes which of the addresses are under the name of this node, `us`, and are none of `ours`.
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

    /// Takes the claim that is to be dialled, if its time has come.
    fn due(&mut self, now: Instant) -> Option<Claim> {
        if self.probe.is_some() || now < self.next { None } else { self.claims.pop_front() }
    }

    fn begin(&mut self, connection: ConnectionId, claim: Claim) {
        self.probe = Some(Probe { connection, claim, incoming: self.incoming });
    }

    /// A connection has come in.
    pub(crate) fn came_in(&mut self, connection: ConnectionId, is_dialling: bool) {
        self.incoming += 1;
        if !is_dialling && self.others.len() < MAX_INCOMING {
            self.others.insert(connection);
        }
    }

    /// A connection was established.
    pub(crate) fn established(&mut self, connection: ConnectionId) {
        self.others.remove(&connection);
        self.dialled(connection, false, platform::now());
    }

    /// A connection that came in has failed; returns whether another node with our identity has
    /// made it.
    pub(crate) fn refused(&mut self, connection: ConnectionId, error: &ListenError) -> bool {
        self.others.remove(&connection) && matches!(error, ListenError::LocalPeerId { .. })
    }

    /// A dial has ended, and has reached somebody with our identity or not; returns whether that is
    /// another node.
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
    /// mDNS has answered somebody on the local network.
    pub(crate) fn on_mdns_answer(&mut self, addresses: Vec<Multiaddr>) {
        let us = *self.swarm.local_peer_id();
        self.mdns.twins.heard(&us, &self.listening.addresses.read(), addresses);
    }

    /// Dials the next address under our name that is none of ours; called about once a second.
    pub(crate) fn look_for_twins(&mut self) {
        let now = platform::now();
        let Some(claim) = self.mdns.twins.due(now) else { return };
        // With a peer the dial would fail before it has begun.
        let options = DialOpts::unknown_peer_id().address(claim.address.clone()).build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => self.mdns.twins.begin(connection, claim),
            Err(error) => tracing::debug!(%error, address = %claim.address, "cannot dial"),
        }
    }

    /// A connection comes in.
    pub(crate) fn note_incoming(&mut self, connection: ConnectionId) {
        let is_dialling = self.swarm.network_info().connection_counters().num_pending_outgoing() > 0;
        self.mdns.twins.came_in(connection, is_dialling);
    }

    /// A connection that came in has failed.
    pub(crate) fn note_refused(&mut self, connection: ConnectionId, error: &ListenError) {
        if self.mdns.twins.refused(connection, error) {
            self.on_we_are_shared();
        }
    }

    /// A dial has failed.
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
            // It is its own other end.
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
