//! Replication of records: publishing them when they are written or due, repairing their replicas,
//! syncing scopes, sending live changes, and advertising this node's records to queries.

use crate::replication::live::exchange::Exchange;
use crate::replication::sync::{Replications, SyncPeers};
use crate::swarm::Parts;

#[cfg(test)]
pub(crate) mod absence_tests;
pub(crate) mod advertise;
pub(crate) mod limits;
pub(crate) mod live;
pub(crate) mod repair;
pub(crate) mod republish;
pub(crate) mod sync;

/// The event loop's state of replication.
pub(crate) struct ReplicationState {
    /// Live changes in both directions.
    pub(crate) exchange: Exchange,
    pub(crate) replications: Replications,
    /// The peers that speak the sync protocol.
    pub(crate) sync_peers: SyncPeers,
}

impl ReplicationState {
    pub(crate) fn new(parts: &Parts) -> Self {
        let (replications, sync_peers) = (parts.replications.clone(), parts.replications.peers().clone());
        Self { exchange: Exchange::new(parts), replications, sync_peers }
    }
}
