//! Reconnecting: after a start, a suspension, a change of interfaces, and whenever peers are
//! missing.
//!
//! A node without peers tries every source of peers: mDNS, the saved peers, the bootstrap peers and
//! the routing table. It retries every [`REJOIN_INTERVAL`](crate::event_loop) and never gives up.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use libp2p::swarm::DialError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};

use crate::config::split_peer;
use crate::dht::address::is_lost;
use crate::dht::dials::in_order;
use crate::dht::limits::{
    EAGER_TIME, MAX_BOOTSTRAP_DIALS, MAX_CLAIM_DIALS, MAX_EAGER_DIALS, MAX_KNOWN_DIALS, MAX_LOCAL_DIALS,
    PATIENT_INTERVAL, SECOND_PING,
};
use crate::error::NetabaseError;
use crate::event::NetabaseSwarmEvent;
use crate::event_loop::EventLoop;
use crate::event_loop::command::{Reply, answer};
use crate::event_loop::limits::MAX_FAILED_DIALS;
use crate::mdns;
use crate::platform::{self, Instant};

/// The time without peers, and the queries of the local network since.
#[derive(Debug, Default)]
pub(crate) struct Isolation {
    since: Option<Instant>,
    asked: Option<Instant>,
}

impl Isolation {
    /// Records that there are no peers; returns whether to query the local network now.
    fn is_to_ask(&mut self, now: Instant) -> bool {
        let is_eager = now.duration_since(*self.since.get_or_insert(now)) < EAGER_TIME;
        let is_due = self.asked.is_none_or(|asked| is_eager || now.duration_since(asked) >= PATIENT_INTERVAL);
        if is_due {
            self.asked = Some(now);
        }
        is_due
    }

    /// Ends the isolation, or starts its eager phase again.
    fn end(&mut self) {
        *self = Self::default();
    }
}

impl EventLoop {
    /// Handles a suspension of the machine or this program: the state of peers may be outdated.
    pub(crate) fn on_wake(&mut self, slept: Duration) {
        tracing::info!(seconds = slept.as_secs(), "this node was suspended and resumes");
        // Peers have closed connections without an answer for so long, and may have been unable to
        // notify this node.
        if slept >= self.config.connections.ping_interval + SECOND_PING {
            let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
            for peer in connected {
                if self.is_routed(peer) {
                    self.dht.dials.miss(peer);
                }
                // An error means that the peer is not connected.
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
        self.look_everywhere();
        self.catch_up();
        self.broadcast(NetabaseSwarmEvent::Woke { slept });
    }

    /// Handles a change of this machine's addresses.
    pub(crate) fn on_interfaces_changed(&mut self) {
        self.close_lost_connections();
        self.look_everywhere();
    }

    /// Dials every known peer that is not connected, since the network may have changed.
    fn look_everywhere(&mut self) {
        self.dht.isolation.end();
        self.swarm.behaviour_mut().backoff.let_all_through();
        self.ask_local_network();
        let mut peers: Vec<PeerId> = self.mdns.peers.peers().chain(self.dht.dials.missed()).collect();
        peers.extend(self.dht.known_peers.to_dial().into_iter().map(|(peer, _)| peer));
        peers.extend(self.bootstrap_peers());
        for peer in peers {
            if !self.swarm.is_connected(&peer) {
                self.dht.dials.add_with_news(peer);
            }
        }
        self.dial_waiting();
    }

    /// Dials peers while none is connected, and lost peers while others are.
    pub(crate) fn rejoin(&mut self) {
        self.look_after_servers();
        self.close_lost_connections();
        let missed: Vec<PeerId> = self.dht.dials.missed().collect();
        for peer in missed.iter().filter(|peer| self.swarm.is_connected(peer)) {
            self.dht.dials.forget(peer);
        }
        if self.is_connected() {
            self.dht.isolation.end();
            let due = self.not_left_alone(missed, 0, MAX_KNOWN_DIALS);
            self.dht.dials.add(due);
        } else {
            if self.dht.isolation.is_to_ask(platform::now()) {
                self.ask_local_network();
            }
            let local = self.mdns.peers.peers().collect();
            let local = self.not_left_alone(local, MAX_LOCAL_DIALS, MAX_LOCAL_DIALS);
            let missed = self.not_left_alone(missed, MAX_EAGER_DIALS, MAX_KNOWN_DIALS);
            let known = self.dht.known_peers.to_dial().into_iter().map(|(peer, _)| peer).collect();
            let known = self.not_left_alone(known, MAX_EAGER_DIALS, MAX_KNOWN_DIALS);
            // Peers with the fewest failures come first, so that each has its turn.
            let bootstrap = self.bootstrap_peers();
            let bootstrap = self.not_left_alone(bootstrap, MAX_BOOTSTRAP_DIALS, usize::MAX);
            self.dht.dials.add(local.into_iter().chain(missed).chain(known).chain(bootstrap));
        }
        self.dial_waiting();
    }

    /// Forgets what was seen of peers that are neither connected nor in the routing table, and
    /// dials some that were never reached: those that have left, which stay in the table if they
    /// are, and connected ones that claim other hosts than that of their connection.
    fn look_after_servers(&mut self) {
        let routed: HashSet<PeerId> = self.routed().into_iter().map(|(peer, _)| peer).collect();
        let swarm = &self.swarm;
        self.dht.servers.retain(|peer| routed.contains(peer) || swarm.is_connected(peer));
        let unproven = routed.into_iter().filter(|peer| !self.dht.servers.is_proven(peer));
        let unproven = self.not_left_alone(unproven.collect(), 0, MAX_CLAIM_DIALS);
        self.dht.dials.add(unproven);
        for (peer, claimed) in self.dht.servers.take_claims(MAX_CLAIM_DIALS) {
            if self.swarm.is_connected(&peer) {
                // The connection that it has does not show that it can be reached.
                self.begin_dial_if(PeerCondition::NotDialing, peer, claimed, None).unwrap_or_else(|error| {
                    tracing::debug!(%error, %peer, "cannot dial");
                });
            }
        }
    }

    /// Returns the first `most` of the peers that are not connected: `eager` of them in any case,
    /// and the others unless they are in back-off.
    fn not_left_alone(&self, peers: Vec<PeerId>, eager: usize, most: usize) -> Vec<PeerId> {
        let backoff = &self.swarm.behaviour().backoff;
        let missing = peers.into_iter().filter(|peer| !self.swarm.is_connected(peer)).enumerate();
        let due = missing.filter(|(place, peer)| *place < eager || !backoff.is_left_alone(peer));
        due.map(|(_, peer)| peer).take(most).collect()
    }

    /// Returns the bootstrap peers, those with the fewest failed dials first, and adds them to the
    /// routing table, since the operator trusts them. Unreachable ones would fill the table.
    fn bootstrap_peers(&mut self) -> Vec<PeerId> {
        let config = Arc::clone(&self.config);
        let mut peers = Vec::new();
        for (peer, address) in config.dht.bootstrap_peers.iter().filter_map(split_peer) {
            let failures = self.swarm.behaviour().backoff.failures(&peer);
            if failures < MAX_FAILED_DIALS {
                self.dht.servers.named(peer);
                self.kad().add_address(&peer, address);
            }
            peers.push((failures, peer));
        }
        peers.sort_by_key(|(failures, _)| *failures);
        peers.into_iter().map(|(_, peer)| peer).collect()
    }

    /// Queries the local network by mDNS, if this node uses it.
    fn ask_local_network(&self) {
        if self.config.mdns.enabled {
            mdns::query::ask(&self.listening.addresses.read(), self.config.mdns.enable_ipv6);
        }
    }

    /// Dials the waiting peers, as far as the limits allow.
    pub(crate) fn dial_waiting(&mut self) {
        while let Some(peer) = self.dht.dials.next() {
            if self.swarm.is_connected(&peer) || self.peers.scores.is_banned(&peer) {
                continue;
            }
            let addresses = self.known_addresses(peer, Vec::new());
            if let Err(error) = self.begin_dial(peer, addresses, None) {
                tracing::debug!(%error, %peer, "cannot dial");
            }
        }
    }

    /// Dials a peer, at these addresses first.
    pub(crate) fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let addresses = self.known_addresses(peer, addresses);
        if let Err(error) = self.begin_dial(peer, addresses, None) {
            tracing::debug!(%error, %peer, "cannot dial");
        }
    }

    /// Starts a dial in spite of a back-off, and answers the caller when it ends.
    pub(crate) fn begin_dial(
        &mut self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        reply: Option<Reply<()>>,
    ) -> Result<(), DialError> {
        self.begin_dial_if(PeerCondition::Disconnected, peer, addresses, reply)
    }

    fn begin_dial_if(
        &mut self,
        condition: PeerCondition,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        reply: Option<Reply<()>>,
    ) -> Result<(), DialError> {
        self.swarm.behaviour_mut().backoff.let_through(&peer);
        // From a new port: two nodes that dial each other simultaneously from their listen ports
        // make a single TCP connection, in which each of them believes to be the dialler.
        let options =
            DialOpts::peer_id(peer).condition(condition).addresses(addresses).allocate_new_port().build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dht.dials.began(connection, peer, reply);
                Ok(())
            }
            Err(error) => {
                let is_connected = matches!(error, DialError::DialPeerConditionFalse(_));
                if let Some(reply) = reply {
                    let refused = NetabaseError::NotReached { peer, reason: reason(&error).into() };
                    answer(reply, if is_connected { Ok(()) } else { Err(refused) });
                }
                if is_connected { Ok(()) } else { Err(error) }
            }
        }
    }

    /// Returns the known addresses of a peer: `first`, those of mDNS, and the saved ones.
    pub(crate) fn known_addresses(&mut self, peer: PeerId, first: Vec<Multiaddr>) -> Vec<Multiaddr> {
        let local = self.mdns.peers.addresses(&peer).to_vec();
        let known = self.dht.known_peers.addresses(&peer).to_vec();
        let routed = self.routed_addresses(peer).into_iter().rev();
        let config = Arc::clone(&self.config);
        let bootstrap = config.dht.bootstrap_peers.iter().filter_map(split_peer);
        let bootstrap = bootstrap.filter(|(other, _)| *other == peer).map(|(_, address)| address);
        in_order(peer, first.into_iter().chain(local).chain(known).chain(routed).chain(bootstrap))
    }

    /// Closes the connections from addresses that this machine no longer has, where nothing arrives
    /// any more.
    fn close_lost_connections(&mut self) {
        let connections = self.swarm.behaviour().connections.with_local_addresses();
        let addresses: HashSet<_> = connections.iter().map(|(.., ip)| *ip).collect();
        let lost: HashSet<_> = addresses.into_iter().filter(|ip| is_lost(*ip)).collect();
        for (connection, peer, ip) in connections.into_iter().filter(|(.., ip)| lost.contains(ip)) {
            tracing::debug!(%peer, %ip, "a connection is closed whose local address this machine no longer has");
            self.dht.dials.miss(peer);
            self.swarm.close_connection(connection);
        }
    }

    /// Saves the connected peers of the routing table, for times without a connection.
    pub(crate) fn remember_peers(&mut self) {
        let routed: Vec<(PeerId, Vec<Multiaddr>)> = self
            .kad()
            .kbuckets()
            .flat_map(|bucket| {
                let peers = bucket.iter().map(|entry| {
                    (*entry.node.key.preimage(), entry.node.value.iter().cloned().collect::<Vec<_>>())
                });
                peers.collect::<Vec<_>>()
            })
            .collect();
        let now = platform::system_time();
        for (peer, addresses) in routed {
            if self.swarm.is_connected(&peer) {
                let reached = self.swarm.behaviour().connections.reached_at(&peer);
                // The routing table has the newest address last.
                let is_proven = self.dht.servers.is_proven(&peer);
                let claimed = addresses.into_iter().rev();
                let claimed = claimed.filter(|address| is_proven || self.dht.servers.is_at(&peer, address));
                let newest: Vec<Multiaddr> = reached.into_iter().chain(claimed).collect();
                self.dht.known_peers.saw(peer, in_order(peer, newest), now);
            }
        }
        self.dht.known_peers.save_if_due();
    }

    /// Returns whether a peer of this network is connected.
    pub(crate) fn is_connected(&mut self) -> bool {
        let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        connected.into_iter().any(|peer| self.is_routed(peer))
    }
}

/// Returns the reason of a failed dial: the error of each address, without libp2p's wrapping.
pub(crate) fn reason(error: &DialError) -> String {
    match error {
        DialError::Transport(failures) => {
            let said = failures.iter().map(|(address, error)| format!("{address}: {}", innermost(error)));
            said.collect::<Vec<_>>().join("; ")
        }
        DialError::WrongPeerId { obtained, address } => {
            format!("the peer at {address} is {obtained}")
        }
        DialError::LocalPeerId { address } => format!("{address} is this node's own address"),
        DialError::NoAddresses => "no address of the peer is known".into(),
        DialError::Denied { cause } => innermost(cause),
        DialError::Aborted | DialError::DialPeerConditionFalse(_) => error.to_string(),
    }
}

/// Returns the text of the innermost cause of an error.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_isolated_node_asks_each_time_and_after_a_while_each_minute() {
        let (mut isolation, start) = (Isolation::default(), platform::now());
        let asked = |isolation: &mut Isolation, from: u64| {
            let times = (0..24).map(|tick| start + Duration::from_secs(from + 5 * tick));
            times.filter(|time| isolation.is_to_ask(*time)).count()
        };
        assert_eq!(asked(&mut isolation, 0), 24);
        assert_eq!(asked(&mut isolation, 3600), 2);
        isolation.end();
        assert_eq!(asked(&mut isolation, 7200), 24);
    }
}
