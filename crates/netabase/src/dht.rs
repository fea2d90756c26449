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
use crate::platform::Instant;
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
    pub(crate) until: Instant,
}

impl Dht {
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
