//! The distributed hash table: Kademlia and its queries in flight, addresses, the peers to dial and
//! when.
//!
//! Only the event loop calls what is here.

use std::collections::{HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use libp2p::PeerId;
use libp2p::kad::PeerInfo;

use crate::dht::dials::Dials;
use crate::dht::known_peers::KnownPeers;
use crate::dht::queries::{Queries, Watched};
use crate::dht::rejoin::Isolation;
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

/// The event loop's state of the hash table, beside that of kad.
#[derive(Debug)]
pub(crate) struct Dht {
    pub(crate) queries: Queries,
    /// kad's queries for which somebody waits, and when to look at them next.
    pub(crate) watched: VecDeque<(Instant, Watched)>,
    /// The closest peers to any key, while those are the whole network.
    pub(crate) whole_network: Option<WholeNetwork>,
    /// The peers that are asked for the records of a scope.
    pub(crate) lookups: Lookups,
    /// Connected peers that have not been in the routing table since.
    pub(crate) newly_connected: HashSet<PeerId>,
    /// The peers that are dialled when nobody is connected.
    pub(crate) known_peers: KnownPeers,
    pub(crate) dials: Dials,
    pub(crate) isolation: Isolation,
}

/// All peers of a network that is smaller than the number of holders of a record.
#[derive(Debug)]
pub(crate) struct WholeNetwork {
    pub(crate) peers: Vec<PeerInfo>,
    pub(crate) until: Instant,
}

impl Dht {
    /// `known_peers` is where good peers are saved, if anywhere.
    pub(crate) fn new(known_peers: Option<Arc<Path>>) -> Self {
        Self {
            queries: Queries::default(),
            watched: VecDeque::new(),
            whole_network: None,
            lookups: Lookups::default(),
            newly_connected: HashSet::new(),
            known_peers: KnownPeers::load(known_peers),
            dials: Dials::default(),
            isolation: Isolation::default(),
        }
    }
}
