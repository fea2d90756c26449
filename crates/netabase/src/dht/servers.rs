//! Peers as this node has seen them itself: the hosts that they have connected from, and the
//! addresses at which it has reached them.
//!
//! Peers claim addresses freely. The routing table tells others of a peer that was never reached at
//! the hosts alone that it has connected from. Its claims of other hosts are tried if it stays, and
//! forgotten when it leaves, so that nobody fills the routing table with peers that do not exist,
//! or makes this node and others dial hosts of its choice.

use std::collections::HashMap;
use std::net::IpAddr;

use libp2p::{Multiaddr, PeerId};

use crate::dht::address::{Prefix, Scope, ip, scope, without_peer};
use crate::dht::limits::MAX_ADDRESSES_PER_PEER;

/// What was seen of the peers that are connected or in the routing table.
#[derive(Debug, Default)]
pub(crate) struct Servers(HashMap<PeerId, Server>);

#[derive(Debug, Default)]
struct Server {
    /// The prefix of its last connection.
    prefix: Option<Prefix>,
    /// The hosts of its connections, the last one last.
    hosts: Vec<Host>,
    /// The addresses at which it was reached, without its id.
    reached: Vec<Multiaddr>,
    /// Whether the user or the configuration has named it.
    is_named: bool,
    /// Whether it serves the hash table of this network.
    serves: bool,
    /// Addresses at other hosts that it claims, until it was reached.
    claimed: Vec<Multiaddr>,
}

/// The host of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    /// This process.
    Process,
}

impl Host {
    /// Returns the host, or `None` for a name.
    fn of(address: &Multiaddr) -> Option<Self> {
        match scope(address)? {
            Scope::Process => Some(Self::Process),
            _ => ip(address).map(Self::Ip),
        }
    }
}

impl Servers {
    /// Records a connection with a peer, which leads to `remote`.
    pub(crate) fn connected(&mut self, peer: PeerId, remote: &Multiaddr, is_outgoing: bool) {
        let server = self.0.entry(peer).or_default();
        server.prefix = Prefix::of(remote);
        if let Some(host) = Host::of(remote) {
            push(&mut server.hosts, host);
        }
        if is_outgoing {
            push(&mut server.reached, without_peer(remote));
            server.claimed.clear();
        }
    }

    /// Keeps the addresses at other hosts that a connected peer claims, if it was never reached.
    pub(crate) fn claims(&mut self, peer: &PeerId, claimed: Vec<Multiaddr>) {
        if let Some(server) = self.0.get_mut(peer) {
            server.claimed = claimed;
        }
    }

    /// Takes the claims of some peers that serve the hash table.
    pub(crate) fn take_claims(&mut self, most: usize) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let serving = self.0.iter_mut().filter(|(_, server)| server.serves && !server.claimed.is_empty());
        serving.take(most).map(|(peer, server)| (*peer, std::mem::take(&mut server.claimed))).collect()
    }

    /// Records that the user or the configuration has named a peer.
    pub(crate) fn named(&mut self, peer: PeerId) {
        self.0.entry(peer).or_default().is_named = true;
    }

    /// Records that the user has removed a peer.
    pub(crate) fn unnamed(&mut self, peer: &PeerId) {
        if let Some(server) = self.0.get_mut(peer) {
            server.is_named = false;
        }
    }

    /// Records whether a connected peer serves the hash table.
    pub(crate) fn set_serves(&mut self, peer: &PeerId, serves: bool) {
        if let Some(server) = self.0.get_mut(peer) {
            server.serves = serves;
        }
    }

    /// Returns whether a peer serves the hash table, in the routing table or not.
    pub(crate) fn serves(&self, peer: &PeerId) -> bool {
        self.0.get(peer).is_some_and(|server| server.serves)
    }

    /// Returns the prefix of a peer's last connection.
    pub(crate) fn prefix_of(&self, peer: &PeerId) -> Option<Prefix> {
        self.0.get(peer).and_then(|server| server.prefix)
    }

    /// Returns whether a peer was reached at any address, or named.
    pub(crate) fn is_proven(&self, peer: &PeerId) -> bool {
        self.0.get(peer).is_some_and(|server| server.is_named || !server.reached.is_empty())
    }

    /// Returns whether an address leads to a peer as far as this node has seen, or the peer was
    /// named: the peer was reached there, or has connected from the host.
    pub(crate) fn is_at(&self, peer: &PeerId, address: &Multiaddr) -> bool {
        self.0.get(peer).is_some_and(|server| {
            server.is_named
                || Host::of(address).is_some_and(|host| server.hosts.contains(&host))
                || server.reached.contains(&without_peer(address))
        })
    }

    /// Forgets the peers that are not wanted any more.
    pub(crate) fn retain(&mut self, is_wanted: impl Fn(&PeerId) -> bool) {
        self.0.retain(|peer, server| server.is_named || is_wanted(peer));
    }
}

/// Adds an item as the last one, and drops the first above the limit.
fn push<T: PartialEq>(items: &mut Vec<T>, item: T) {
    items.retain(|known| *known != item);
    if items.len() >= MAX_ADDRESSES_PER_PEER {
        items.remove(0);
    }
    items.push(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_peer_is_at_the_hosts_that_it_came_from_and_where_it_was_reached() {
        let (mut servers, peer) = (Servers::default(), PeerId::random());
        let is_at = |servers: &Servers, text: &str| servers.is_at(&peer, &address(text));
        assert!(!is_at(&servers, "/ip4/198.51.100.7/tcp/1"));
        servers.connected(peer, &address("/ip4/198.51.100.7/tcp/50000"), false);
        assert!(is_at(&servers, "/ip4/198.51.100.7/tcp/1"), "by whichever port");
        assert!(is_at(&servers, &format!("/ip4/198.51.100.7/udp/1/quic-v1/p2p/{peer}")));
        assert!(!is_at(&servers, "/ip4/198.51.100.8/tcp/1") && !servers.is_proven(&peer));
        servers.connected(peer, &address("/dns4/example.org/tcp/1").with_p2p(peer).unwrap(), true);
        assert!(is_at(&servers, "/dns4/example.org/tcp/1") && servers.is_proven(&peer));
        assert!(!is_at(&servers, "/dns4/example.com/tcp/1"));
        servers.retain(|_| false);
        assert!(!is_at(&servers, "/ip4/198.51.100.7/tcp/1"));
    }

    #[test]
    fn few_hosts_of_a_peer_are_kept_and_the_last_one_is() {
        let (mut servers, peer) = (Servers::default(), PeerId::random());
        for host in 1..=100 {
            servers.connected(peer, &address(&format!("/ip4/198.51.100.{host}/tcp/1")), true);
        }
        let kept =
            (1..=100).filter(|host| servers.is_at(&peer, &address(&format!("/ip4/198.51.100.{host}/tcp/2"))));
        assert_eq!((kept.clone().count(), kept.max()), (MAX_ADDRESSES_PER_PEER, Some(100)));
    }
}
