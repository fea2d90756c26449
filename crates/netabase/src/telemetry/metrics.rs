//! Metrics of a node, for Prometheus and for dashboards.
//!
//! Names are stable; `docs/metrics.md` lists them. No label has a value that a peer can choose.
//! Frequent events are counted in memory without locks, and encoded as families only on demand.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use libp2p::metrics::Registry as SwarmRegistry;
use netabase_store::changes::StoreEvent;
use netabase_store::{ChangeKind, NetabaseStore, Origin};
use parking_lot::Mutex;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

use crate::peers::score::PeerScores;
use crate::replication::live::Live;
use crate::replication::sync::{Replications, SyncFailure, SyncReport};
use collect::Sources;
use meters::{Counts, nanos};

mod call;
mod collect;
mod meters;

pub(crate) use call::Call;
pub(crate) use meters::Meters;

const PREFIX: &str = "netabase";

/// The metrics of a node since it was opened. Cloning is cheap, and a clone keeps the database
/// open.
///
/// ```
/// # use netabase::{Netabase, NetabaseConfig, StoreOptions, netabase_definition_module};
/// # #[netabase_definition_module(ChatDefinition, ChatKeys)]
/// # mod chat {
/// #     use netabase::NetabaseModel;
/// #     use serde::{Deserialize, Serialize};
/// #     #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
/// #     #[netabase(ChatDefinition)]
/// #     pub struct Message { #[primary_key] pub id: u64 }
/// # }
/// # use chat::*;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), netabase::NetabaseError> {
/// # let config = NetabaseConfig { store: StoreOptions::in_memory(), ..NetabaseConfig::default() };
/// let netabase = Netabase::<ChatDefinition>::new_with_config(config)?;
/// netabase.put_record(Message { id: 7 }).await?;
/// assert_eq!(netabase.metrics().counters().puts, 1);
///
/// let text = netabase.metrics().encode();
/// assert!(text.contains(r#"netabase_calls_total{call="put",outcome="ok"} 1"#));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Metrics(Arc<Shared>);

struct Shared {
    meters: Arc<Meters>,
    registry: Registry,
    /// The registry of the running swarm, or of the last one.
    swarm: Mutex<SwarmRegistry>,
    store: NetabaseStore,
}

/// Selected counters of a node since it was opened, for plots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeCounters {
    /// Committed changes of records by this program: stores, updates and removals by any method.
    /// Failed writes and writes without effect are not counted.
    pub puts: u64,
    /// Records that were requested.
    pub gets: u64,
    /// Requested records that were answered from this node's disk.
    pub local_hits: u64,
    /// Queries of the network.
    pub queries: u64,
    /// Records of peers that were stored.
    pub received: u64,
    /// Records of peers that were refused.
    pub refused: u64,
    /// Records that sync sessions have received.
    pub synced_in: u64,
    /// Records that sync sessions have sent to peers, or that peers have fetched in theirs.
    pub synced_out: u64,
    /// Bytes that were received on all connections.
    pub bytes_in: u64,
    /// Bytes that were sent on all connections.
    pub bytes_out: u64,
    /// Peers that are connected.
    pub connected_peers: u64,
}

impl Metrics {
    pub(crate) fn new(
        store: &NetabaseStore,
        live: &Live,
        scores: &PeerScores,
        replications: &Replications,
    ) -> Self {
        let meters = Arc::<Meters>::default();
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(Sources {
            meters: Arc::clone(&meters),
            store: store.clone(),
            live: live.clone(),
            scores: scores.clone(),
            replications: replications.clone(),
        }));
        Self(Arc::new(Shared { meters, registry, swarm: Mutex::default(), store: store.clone() }))
    }

    /// Returns all metrics in the text format of `OpenMetrics` 1.0, which Prometheus reads.
    ///
    /// Reads the size of each model's table and of the file from the disk, and nothing else.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        self.encode_to(&mut text);
        text
    }

    /// Appends the text of [`encode`](Self::encode) to `text`, for callers that reuse a buffer.
    pub fn encode_to(&self, text: &mut String) {
        // Writing to a string cannot fail. A collector that fails is left out.
        let _ = encode_registry(text, &self.0.registry);
        let _ = encode_registry(text, &self.0.swarm.lock());
        let _ = encode_eof(text);
    }

    /// Returns the counters. Reads only memory.
    pub fn counters(&self) -> NodeCounters {
        let meters = self.meters();
        let records =
            |changes: &Counts| ["stored", "updated", "removed"].map(|kind| changes.get(kind)).iter().sum();
        NodeCounters {
            puts: records(&meters.local_changes),
            gets: meters.total(Call::Get),
            local_hits: meters.count_of(Call::Get, "local"),
            queries: meters.total(Call::Query),
            received: records(&meters.peer_changes),
            refused: self.0.store.replica().refusals().iter().map(|(_, count)| count).sum(),
            synced_in: meters.sync_records.get("in"),
            synced_out: ["out", "served"].map(|way| meters.sync_records.get(way)).iter().sum(),
            bytes_in: meters.bytes_in.get(),
            bytes_out: meters.bytes_out.get(),
            connected_peers: meters.connected_peers.get(),
        }
    }

    /// Returns the meters, for tasks that outlive the database.
    pub(crate) fn meters(&self) -> &Arc<Meters> {
        &self.0.meters
    }

    /// Replaces the registry of the previous swarm by that of a new one.
    pub(crate) fn begin_swarm(&self, registry: SwarmRegistry) {
        *self.0.swarm.lock() = registry;
    }
}

impl Meters {
    /// Counts an event of the store.
    pub(crate) fn observe(&self, event: &StoreEvent) {
        let StoreEvent::Changed(change) = event else { return };
        let counts = match change.origin {
            Origin::Local => &self.local_changes,
            Origin::Network => &self.peer_changes,
        };
        let kind = match change.kind {
            ChangeKind::Stored => "stored",
            ChangeKind::Updated => "updated",
            ChangeKind::Removed => "removed",
            _ => "other",
        };
        counts.add(kind, 1);
    }

    /// Counts the progress of a sync session since it was counted last.
    pub(crate) fn syncing(&self, counted: &SyncReport, report: &SyncReport) {
        let more = |of: fn(&SyncReport) -> u64| of(report).saturating_sub(of(counted));
        let records = [
            ("in", more(|report| report.received)),
            ("out", more(|report| report.sent)),
            ("known", more(|report| report.known)),
            ("refused", more(|report| report.refused)),
            ("withheld", more(|report| report.withheld)),
        ];
        for (direction, count) in records {
            self.sync_records.add(direction, count);
        }
        self.sync_bytes.add("in", more(|report| report.bytes_received));
        self.sync_bytes.add("out", more(|report| report.bytes_sent));
        self.sync_round_trips.add(more(|report| report.round_trips));
    }

    /// Counts the end of a sync session.
    pub(crate) fn synced(&self, took: Duration, failure: Option<SyncFailure>) {
        self.sync_sessions.add(failure.map_or("ok", SyncFailure::label), 1);
        self.sync_nanos.observe(nanos(took));
    }

    /// Counts the records that a peer's sync session was answered with.
    pub(crate) fn served_sync(&self, records: usize, bytes: usize) {
        let number = |count| u64::try_from(count).unwrap_or(u64::MAX);
        self.sync_records.add("served", number(records));
        self.sync_bytes.add("served", number(bytes));
    }

    /// Counts the lateness of the event loop.
    pub(crate) fn was_late(&self, delay: Duration) {
        self.loop_nanos.observe(nanos(delay));
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Metrics").field(&self.counters()).finish()
    }
}
