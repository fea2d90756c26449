//! The distributed hash table: Kademlia and its queries in flight, addresses, and dials.
//!
//! Only the event loop calls this module.

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use libp2p::PeerId;
use libp2p::kad::PeerInfo;

use crate::dht::dials::Dials;
use crate::dht::known_peers::KnownPeers;
use crate::dht::queries::{Queries, Watched};
use crate::dht::rejoin::Isolation;
use crate::dht::servers::Servers;
use crate::platform::{self, Instant};
use crate::query::holders::Lookups;

pub(crate) mod address;
pub(crate) mod backoff;
pub(crate) mod dials;
pub(crate) mod holders;
pub(crate) mod kademlia;
pub(crate) mod known_peers;
pub(crate) mod limits;
pub(crate) mod queries;
pub(crate) mod rejoin;
pub(crate) mod servers;

/// The event loop's state of the hash table, in addition to kad's.
#[derive(Debug)]
pub(crate) struct Dht {
    pub(crate) queries: Queries,
    /// kad's queries that a caller waits for, with the time of the next check.
    pub(crate) watched: VecDeque<(Instant, Watched)>,
    /// The closest peers to any key, if those are the whole network.
    pub(crate) whole_network: Option<WholeNetwork>,
    /// The lookups of the holders of a scope.
    pub(crate) lookups: Lookups,
    /// Peers connected for the first time since the last routing-table change.
    pub(crate) newly_connected: HashSet<PeerId>,
    /// The peers that an isolated node dials.
    pub(crate) known_peers: KnownPeers,
    pub(crate) dials: Dials,
    pub(crate) servers: Servers,
    pub(crate) isolation: Isolation,
}

/// All peers of a network that has fewer peers than a record has holders.
#[derive(Debug)]
pub(crate) struct WholeNetwork {
    pub(crate) peers: Vec<PeerInfo>,
    /// The time until which calls rely on it.
    pub(crate) until: Instant,
    /// Whether the network is being looked up anew.
    pub(crate) is_looked_up: bool,
}

impl Dht {
    /// Has the network looked up anew, after a peer has joined. A put waits for that lookup unless
    /// the peer can be asked without it.
    pub(crate) fn has_joined(&mut self, can_be_asked: bool) {
        match &mut self.whole_network {
            Some(network) if can_be_asked => network.until = network.until.min(platform::now()),
            network => *network = None,
        }
    }

    /// Forgets the whole network if a peer that has left is one of it.
    pub(crate) fn has_left(&mut self, peer: &PeerId) {
        self.whole_network.take_if(|network| network.peers.iter().any(|known| known.peer_id == *peer));
    }

    /// Creates the state. `known_peers` is the file of saved peers.
    pub(crate) fn new(known_peers: Option<Arc<Path>>) -> Self {
        Self {
            queries: Queries::default(),
            watched: VecDeque::new(),
            whole_network: None,
            lookups: Lookups::default(),
            newly_connected: HashSet::new(),
            known_peers: KnownPeers::load(known_peers),
            dials: Dials::default(),
            servers: Servers::default(),
            isolation: Isolation::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::PeerId;

    use super::*;

    #[test]
    fn the_whole_network_is_known_while_nobody_of_it_leaves_and_whoever_joins_can_be_asked() {
        let (mut dht, [peer, stranger]) = (Dht::new(None), [(); 2].map(|()| PeerId::random()));
        let until = platform::now() + std::time::Duration::from_secs(60);
        let network = || {
            let peers = vec![PeerInfo { peer_id: peer, addrs: Vec::new() }];
            Some(WholeNetwork { peers, until, is_looked_up: false })
        };
        dht.whole_network = network();
        dht.has_left(&stranger);
        assert_eq!(dht.whole_network.as_ref().map(|network| network.until), Some(until));
        dht.has_joined(true);
        assert!(dht.whole_network.as_ref().is_some_and(|network| network.until < until), "it is looked up");
        dht.has_joined(false);
        assert!(dht.whole_network.is_none());
        dht.has_joined(true);
        assert!(dht.whole_network.is_none());
        dht.whole_network = network();
        dht.has_left(&peer);
        assert!(dht.whole_network.is_none());
    }
}
