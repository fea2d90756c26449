//! Queries in flight: a map from kad's query ids to their continuations.
//!
//! A query is removed from the map when kad reports on it, and inserted again only if further
//! reports follow, so that every caller is answered exactly once. Other ids belong to kad's own
//! queries.

use std::collections::{HashMap, HashSet};

use libp2p::PeerId;
use libp2p::kad::QueryId;
use tokio::sync::mpsc;

use crate::event_loop::calls::CallId;
use crate::event_loop::command::Reply;
use crate::platform;

/// A query of kad for this node.
#[derive(Debug)]
pub(crate) enum Query {
    /// Looks up the peers that hold a record, for a call or in order to know the whole network.
    FindHolders(Option<CallId>),
    /// Announces this node as a provider.
    StartProviding { told: bool, reply: Reply<bool> },
    /// Collects providers.
    GetProviders { found: HashSet<PeerId>, reply: Reply<HashSet<PeerId>> },
    /// Sends on providers as they are found.
    LookUpProviders { providers: mpsc::Sender<HashSet<PeerId>> },
    /// Looks up a peer's addresses, to connect to it.
    Locate { peer: PeerId, reply: Reply<()> },
    /// Fills the routing table.
    Bootstrap { reply: Reply<usize> },
}

/// A query of kad that a caller waits for, and that may wait for silent peers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watched {
    pub(crate) id: QueryId,
    /// The number of peers that had answered or failed at the last check, and since when.
    pub(crate) answered: u32,
    pub(crate) since: platform::Instant,
}

/// All queries in flight.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    in_flight: HashMap<QueryId, Query>,
}

impl Queries {
    pub(crate) fn insert(&mut self, id: QueryId, query: Query) {
        self.in_flight.insert(id, query);
    }

    pub(crate) fn take(&mut self, id: QueryId) -> Option<Query> {
        self.in_flight.remove(&id)
    }
}
