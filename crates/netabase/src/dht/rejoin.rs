//! Getting together again: after a start, a sleep, a change of interfaces, and whenever peers are
//! missing.
//!
//! A node without peers tries every means that it has: what mDNS has told of, the peers that it
//! knew, the bootstrap peers, the routing table. It does so every
//! [`REJOIN_INTERVAL`](crate::event_loop), and never gives up.

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
    EAGER_TIME, MAX_BOOTSTRAP_DIALS, MAX_EAGER_DIALS, MAX_KNOWN_DIALS, MAX_LOCAL_DIALS, PATIENT_INTERVAL,
    SECOND_PING,
};
use crate::error::NetabaseError;
use crate::event::NetabaseSwarmEvent;
use crate::event_loop::EventLoop;
use crate::event_loop::command::{Reply, answer};
use crate::event_loop::limits::MAX_FAILED_DIALS;
use crate::mdns;
use crate::platform::{self, Instant};

/// Since when a node has no peers, and what it has done about it.
#[derive(Debug, Default)]
pub(crate) struct Isolation {
    since: Option<Instant>,
    asked: Option<Instant>,
}

impl Isolation {
    /// There are no peers; returns whether to ask the local network now.
    fn is_to_ask(&mut self, now: Instant) -> bool {
        let is_eager = now.duration_since(*self.since.get_or_insert(now)) < EAGER_TIME;
        let is_due = self.asked.is_none_or(|asked| is_eager || now.duration_since(asked) >= PATIENT_INTERVAL);
        if is_due {
            self.asked = Some(now);
        }
        is_due
    }

    /// There are peers, or a reason to be eager.
    fn end(&mut self) {
        *self = Self::default();
    }
}

impl EventLoop {
    /// The machine or this program was suspended: whatever was known of peers may be outdated.
    pub(crate) fn on_wake(&mut self, slept: Duration) {
        tracing::info!(seconds = slept.as_secs(), "this node was suspended and goes on");
        // Peers have closed what gave no sign of life for so long, and may have been unable to say
        // so.
        if slept >= self.config.connections.ping_interval + SECOND_PING {
            let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
            for peer in connected {
                if self.is_routed(peer) {
                    self.dht.dials.miss(peer);
                }
                // An error says that it is not connected.
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
        self.look_everywhere();
        self.catch_up();
        self.broadcast(NetabaseSwarmEvent::Woke { slept });
    }

    /// Addresses of this machine have come or gone.
    pub(crate) fn on_interfaces_changed(&mut self) {
        self.close_lost_connections();
        self.look_everywhere();
    }

    /// Looks for every peer that is known of and not connected: there is news of the network.
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

    /// Looks for peers while none is connected, and for those that were lost while others are.
    pub(crate) fn rejoin(&mut self) {
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
            // The fewest failures come first, so that each has its turn.
            let bootstrap = self.bootstrap_peers();
            let bootstrap = self.not_left_alone(bootstrap, MAX_BOOTSTRAP_DIALS, usize::MAX);
            self.dht.dials.add(local.into_iter().chain(missed).chain(known).chain(bootstrap));
        }
        self.dial_waiting();
    }

    /// Returns the first of the peers that are not connected: `eager` of them in any case, and the
    /// others unless the last dials to them have failed.
    fn not_left_alone(&self, peers: Vec<PeerId>, eager: usize, most: usize) -> Vec<PeerId> {
        let backoff = &self.swarm.behaviour().backoff;
        let missing = peers.into_iter().filter(|peer| !self.swarm.is_connected(peer)).enumerate();
        let due = missing.filter(|(place, peer)| *place < eager || !backoff.is_left_alone(peer));
        due.map(|(_, peer)| peer).take(most).collect()
    }

    /// Returns the bootstrap peers, first those to which the fewest dials have failed, and puts
    /// them into the routing table, since the operator vouches for them; dead ones would fill it.
    fn bootstrap_peers(&mut self) -> Vec<PeerId> {
        let config = Arc::clone(&self.config);
        let mut peers = Vec::new();
        for (peer, address) in config.dht.bootstrap_peers.iter().filter_map(split_peer) {
            let failures = self.swarm.behaviour().backoff.failures(&peer);
            if failures < MAX_FAILED_DIALS {
                self.kad().add_address(&peer, address);
            }
            peers.push((failures, peer));
        }
        peers.sort_by_key(|(failures, _)| *failures);
        peers.into_iter().map(|(_, peer)| peer).collect()
    }

    /// Asks by mDNS who is there, if this node uses it.
    fn ask_local_network(&self) {
        if self.config.mdns.enabled {
            mdns::query::ask(&self.listening.addresses.read(), self.config.mdns.enable_ipv6);
        }
    }

    /// Dials the peers that wait for it, as far as there is room.
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

    /// Connects to a peer that there is news of, at these addresses first.
    pub(crate) fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let addresses = self.known_addresses(peer, addresses);
        if let Err(error) = self.begin_dial(peer, addresses, None) {
            tracing::debug!(%error, %peer, "cannot dial");
        }
    }

    /// Begins a dial, whatever has become of earlier ones, and answers when it has ended.
    pub(crate) fn begin_dial(
        &mut self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        reply: Option<Reply<()>>,
    ) -> Result<(), DialError> {
        self.swarm.behaviour_mut().backoff.let_through(&peer);
        // From a new port: two nodes that dial each other at once from the ports at which they
        // listen make a single TCP connection, and each takes the other for the one that was
        // dialled.
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::Disconnected)
            .addresses(addresses)
            .allocate_new_port()
            .build();
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

    /// Returns where a peer may be: at these addresses, at those that mDNS has told of, and where
    /// it was before.
    pub(crate) fn known_addresses(&mut self, peer: PeerId, first: Vec<Multiaddr>) -> Vec<Multiaddr> {
        let local = self.mdns.peers.addresses(&peer).to_vec();
        let known = self.dht.known_peers.addresses(&peer).to_vec();
        let routed = self.routed_addresses(peer).into_iter().rev();
        let config = Arc::clone(&self.config);
        let bootstrap = config.dht.bootstrap_peers.iter().filter_map(split_peer);
        let bootstrap = bootstrap.filter(|(other, _)| *other == peer).map(|(_, address)| address);
        in_order(peer, first.into_iter().chain(local).chain(known).chain(routed).chain(bootstrap))
    }

    /// Closes the connections from addresses that this machine has no more: nothing comes back to
    /// them.
    fn close_lost_connections(&mut self) {
        let connections = self.swarm.behaviour().connections.with_local_addresses();
        let addresses: HashSet<_> = connections.iter().map(|(.., ip)| *ip).collect();
        let lost: HashSet<_> = addresses.into_iter().filter(|ip| is_lost(*ip)).collect();
        for (connection, peer, ip) in connections.into_iter().filter(|(.., ip)| lost.contains(ip)) {
            tracing::debug!(%peer, %ip, "a connection is closed, whose address this machine has no more");
            self.dht.dials.miss(peer);
            self.swarm.close_connection(connection);
        }
    }

    /// Keeps in mind which peers are connected and in the routing table, for when nobody is.
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
                // The routing table has the newest last.
                let newest = reached.into_iter().chain(addresses.into_iter().rev());
                self.dht.known_peers.saw(peer, in_order(peer, newest), now);
            }
        }
        self.dht.known_peers.save_if_due();
    }

    /// Whether any peer of our network is connected.
    pub(crate) fn is_connected(&mut self) -> bool {
        let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        connected.into_iter().any(|peer| self.is_routed(peer))
    }
}

/// Says why a dial has failed: what each address has said, without what libp2p wraps around it.
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
        DialError::NoAddresses => "no address of it is known".into(),
        DialError::Denied { cause } => innermost(cause),
        DialError::Aborted | DialError::DialPeerConditionFalse(_) => error.to_string(),
    }
}

/// Returns what the innermost cause of an error says.
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
