//! Queries in flight: one map from kad's query ids to what to do next.
//!
//! A query is taken out of the map when kad reports on it and put back only if more is to come, so
//! that no caller is answered twice or forgotten. Ids that are not in the map are kad's own.

use std::collections::{HashMap, HashSet};

use libp2p::PeerId;
use libp2p::kad::QueryId;
use tokio::sync::mpsc;

use crate::event_loop::calls::CallId;
use crate::event_loop::command::Reply;
use crate::platform;

/// A query that kad works on for us.
#[derive(Debug)]
pub(crate) enum Query {
    /// Looks for the peers that hold a record, for a call.
    FindHolders(CallId),
    /// Announces this node as a provider.
    StartProviding { told: bool, reply: Reply<bool> },
    /// Collects providers.
    GetProviders { found: HashSet<PeerId>, reply: Reply<HashSet<PeerId>> },
    /// Tells of providers as they are found.
    LookUpProviders { providers: mpsc::Sender<HashSet<PeerId>> },
    /// Looks for a peer's addresses, to connect to it.
    Locate { peer: PeerId, reply: Reply<()> },
    /// Fills the routing table.
    Bootstrap { reply: Reply<usize> },
}

/// A query of kad that somebody waits for: it may wait for peers that are silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watched {
    pub(crate) id: QueryId,
    /// How many peers had answered, or failed to, when it was looked at last, and since when it was
    /// so many.
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
