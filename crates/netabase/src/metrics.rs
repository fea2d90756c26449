//! What a node counts of itself, for Prometheus and for dashboards.
//!
//! Names are stable; `docs/metrics.md` lists them. No label has a value that a peer can choose.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::metrics::Registry as SwarmRegistry;
use netabase_store::{ChangeKind, NetabaseStore, Origin, Refusal, StoreEvent};
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::error::NetabaseError;
use crate::network::{Live, PeerState, Sanctions, SyncReport};

const PREFIX: &str = "netabase";
/// The bounds of durations of calls: 50 us to 26 s, each four times the one before.
const CALL_BUCKETS: (f64, f64, u16) = (50e-6, 4.0, 10);
/// The bounds of how late the event loop is: 1 ms to 4 s.
const LOOP_BUCKETS: (f64, f64, u16) = (1e-3, 4.0, 7);
/// What libp2p counts bytes under.
const BANDWIDTH: &str = "libp2p_bandwidth_bytes_total{";

/// What a node counts of itself since it was opened. Cloning is cheap.
///
/// ```
/// # use netabase::{Netabase, NetabaseConfig, StorageBackend, netabase_definition_module};
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
/// # let config = NetabaseConfig { backend: StorageBackend::Memory, ..NetabaseConfig::default() };
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
    registry: Registry,
    /// That of the running swarm, or of the last one.
    swarm: Mutex<SwarmRegistry>,
    calls: Family<CallLabels, Counter>,
    call_seconds: Family<CallName, Histogram, fn() -> Histogram>,
    local_hits: Counter,
    changes: Family<ChangeLabels, Counter>,
    sync_sessions: Family<SyncOutcome, Counter>,
    sync_records: Family<Direction, Counter>,
    sync_bytes: Family<Direction, Counter>,
    loop_seconds: Histogram,
    connected_peers: Gauge,
    waiting_commands: Gauge,
    store: NetabaseStore,
}

/// Some of what a node has counted since it was opened, for those who want to see it grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeCounters {
    /// Records that were put or removed by this program.
    pub puts: u64,
    /// Records that were asked for.
    pub gets: u64,
    /// Those of them that were answered from this node's disk.
    pub local_hits: u64,
    /// Queries of the network.
    pub queries: u64,
    /// Records of peers that were stored.
    pub received: u64,
    /// Records of peers that were refused.
    pub refused: u64,
    /// Records that came by comparing scopes.
    pub synced_in: u64,
    /// Records that were given to peers by comparing scopes.
    pub synced_out: u64,
    /// Bytes that came in over all connections of the running swarm.
    pub bytes_in: u64,
    /// Bytes that went out over them.
    pub bytes_out: u64,
    /// Peers that are connected.
    pub connected_peers: u64,
}

/// What callers ask of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "they are encoded as they are written")]
pub(crate) enum Call {
    put,
    remove,
    get,
    query,
    health,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallName {
    call: Call,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    call: Call,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChangeLabels {
    origin: &'static str,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SyncOutcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

const IN: Direction = Direction { direction: "in" };
const OUT: Direction = Direction { direction: "out" };

impl Metrics {
    pub(crate) fn new(store: &NetabaseStore, live: &Live, sanctions: &Sanctions) -> Self {
        fn call_histogram() -> Histogram {
            let (start, factor, count) = CALL_BUCKETS;
            Histogram::new(exponential_buckets(start, factor, count))
        }
        let (start, factor, count) = LOOP_BUCKETS;
        let mut shared = Shared {
            registry: Registry::with_prefix(PREFIX),
            swarm: Mutex::default(),
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(call_histogram),
            local_hits: Counter::default(),
            changes: Family::default(),
            sync_sessions: Family::default(),
            sync_records: Family::default(),
            sync_bytes: Family::default(),
            loop_seconds: Histogram::new(exponential_buckets(start, factor, count)),
            connected_peers: Gauge::default(),
            waiting_commands: Gauge::default(),
            store: store.clone(),
        };
        shared.register();
        // They are zero until something happens, and not absent.
        for outcome in ["ok", "error"] {
            drop(shared.sync_sessions.get_or_create(&SyncOutcome { outcome }));
        }
        for direction in [IN, OUT] {
            drop(shared.sync_records.get_or_create(&direction));
            drop(shared.sync_bytes.get_or_create(&direction));
        }
        let read = Read { store: store.clone(), live: live.clone(), sanctions: sanctions.clone() };
        shared.registry.register_collector(Box::new(read));
        Self(Arc::new(shared))
    }

    /// Returns everything in the text format of `OpenMetrics` 1.0, which Prometheus reads.
    ///
    /// It reads the size of each model's table, and nothing else of the disk.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail, and a collector that does is left out.
        let _ = encode_registry(&mut text, &self.0.registry);
        let _ = encode_registry(&mut text, &self.0.swarm.lock());
        let _ = encode_eof(&mut text);
        text
    }

    /// Returns the numbers that a plot wants.
    pub fn counters(&self) -> NodeCounters {
        let shared = &self.0;
        let call = |call| {
            let counted = |outcome| shared.calls.get_or_create(&CallLabels { call, outcome }).get();
            counted("ok") + counted("error")
        };
        let changed = |kind| shared.changes.get_or_create(&ChangeLabels { origin: "peer", kind }).get();
        let synced = |direction| shared.sync_records.get_or_create(direction).get();
        let (bytes_in, bytes_out) = self.bandwidth();
        NodeCounters {
            puts: call(Call::put) + call(Call::remove),
            gets: call(Call::get),
            local_hits: shared.local_hits.get(),
            queries: call(Call::query),
            received: ["stored", "updated", "removed"].map(changed).iter().sum(),
            refused: shared.store.refusals().iter().map(|(_, count)| count).sum(),
            synced_in: synced(&IN),
            synced_out: synced(&OUT),
            bytes_in,
            bytes_out,
            connected_peers: u64::try_from(shared.connected_peers.get()).unwrap_or(0),
        }
    }

    /// Counts a call and how long it takes.
    pub(crate) async fn call<T>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T, NetabaseError>>,
    ) -> Result<T, NetabaseError> {
        let start = Instant::now();
        let result = work.await;
        let outcome = if result.is_ok() { "ok" } else { "error" };
        self.0.calls.get_or_create(&CallLabels { call, outcome }).inc();
        self.0.call_seconds.get_or_create(&CallName { call }).observe(start.elapsed().as_secs_f64());
        result
    }

    /// A get was answered from the disk.
    pub(crate) fn local_hit(&self) {
        self.0.local_hits.inc();
    }

    /// Something happened in the store.
    pub(crate) fn observe(&self, event: &StoreEvent) {
        let StoreEvent::Changed(change) = event else { return };
        let origin = match change.origin {
            Origin::Local => "local",
            Origin::Network => "peer",
        };
        let kind = match change.kind {
            ChangeKind::Stored => "stored",
            ChangeKind::Updated => "updated",
            ChangeKind::Removed => "removed",
            _ => "other",
        };
        self.0.changes.get_or_create(&ChangeLabels { origin, kind }).inc();
    }

    /// A session that compared a scope has ended.
    pub(crate) fn synced(&self, report: &SyncReport, failed: bool) {
        let shared = &self.0;
        let outcome = if failed { "error" } else { "ok" };
        shared.sync_sessions.get_or_create(&SyncOutcome { outcome }).inc();
        shared.sync_records.get_or_create(&IN).inc_by(report.received);
        shared.sync_records.get_or_create(&OUT).inc_by(report.sent);
        shared.sync_bytes.get_or_create(&IN).inc_by(report.bytes_received);
        shared.sync_bytes.get_or_create(&OUT).inc_by(report.bytes_sent);
    }

    /// The event loop came so much later to what was due.
    pub(crate) fn was_late(&self, delay: Duration) {
        self.0.loop_seconds.observe(delay.as_secs_f64());
    }

    /// The event loop has looked at how much there is.
    pub(crate) fn set_levels(&self, connected_peers: usize, waiting_commands: usize) {
        self.0.connected_peers.set(i64::try_from(connected_peers).unwrap_or(i64::MAX));
        self.0.waiting_commands.set(i64::try_from(waiting_commands).unwrap_or(i64::MAX));
    }

    /// Replaces the numbers of an earlier swarm by those of one that is being built.
    pub(crate) fn begin_swarm(&self, registry: SwarmRegistry) {
        *self.0.swarm.lock() = registry;
    }

    /// Returns the bytes of all connections, in and out: libp2p counts them under each kind of address.
    fn bandwidth(&self) -> (u64, u64) {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode_registry(&mut text, &self.0.swarm.lock());
        let (mut bytes_in, mut bytes_out) = (0_u64, 0_u64);
        for line in text.lines().filter(|line| line.starts_with(BANDWIDTH)) {
            let bytes = line.rsplit(' ').next().and_then(|bytes| bytes.parse::<u64>().ok()).unwrap_or(0);
            let total = if line.contains("Inbound") { &mut bytes_in } else { &mut bytes_out };
            *total = total.saturating_add(bytes);
        }
        (bytes_in, bytes_out)
    }
}

impl Shared {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("calls", "Calls of this program", self.calls.clone());
        registry.register_with_unit(
            "call_duration",
            "How long calls of this program took",
            Unit::Seconds,
            self.call_seconds.clone(),
        );
        registry.register("local_hits", "Gets that were answered from the disk", self.local_hits.clone());
        registry.register("changes", "Changes of records in the store", self.changes.clone());
        registry.register("sync_sessions", "Comparisons of scopes with peers", self.sync_sessions.clone());
        registry.register("sync_records", "Records that comparisons moved", self.sync_records.clone());
        registry.register("sync_bytes", "Bytes of messages of comparisons", self.sync_bytes.clone());
        registry.register_with_unit(
            "event_loop_delay",
            "How late the event loop came to what was due, sampled once per second; up to 1 ms is the clock's",
            Unit::Seconds,
            self.loop_seconds.clone(),
        );
        registry.register("connected_peers", "Peers that are connected", self.connected_peers.clone());
        registry.register(
            "waiting_commands",
            "Calls that wait for the event loop",
            self.waiting_commands.clone(),
        );
    }
}

/// What is counted elsewhere, read when it is asked for.
struct Read {
    store: NetabaseStore,
    live: Live,
    sanctions: Sanctions,
}

impl Collector for Read {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        counter(&mut encoder, "store_commits", "Groups of writes that were committed", self.store.commits())?;
        // What cannot be read is said where it is used.
        if let Ok(Some(bytes)) = self.store.disk_bytes() {
            gauge(&mut encoder, "store_disk_bytes", "The size of the database on the disk", bytes)?;
        }
        self.encode_records(&mut encoder)?;
        self.encode_refusals(&mut encoder)?;
        let reports = self.sanctions.reports();
        let banned = reports.iter().filter(|report| matches!(report.state, PeerState::Banned { .. })).count();
        gauge(&mut encoder, "banned_peers", "Peers that are banned", u64::try_from(banned).unwrap_or(0))?;
        let live = self.live.stats();
        let results = [
            ("published", live.published),
            ("unpublished", live.unpublished),
            ("received", live.received),
            ("dropped", live.dropped),
            ("accepted", live.accepted),
            ("ignored", live.ignored),
            ("rejected", live.rejected),
            ("fetched", live.fetched),
        ];
        let help = "Live messages, by what became of them";
        let mut family = encoder.encode_descriptor("live_messages", help, None, MetricType::Counter)?;
        for (result, count) in results {
            ConstCounter::new(count).encode(family.encode_family(&[("result", result)])?)?;
        }
        Ok(())
    }
}

impl Read {
    fn encode_records(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Records and tombstones in the store";
        let mut family = encoder.encode_descriptor("records", help, None, MetricType::Gauge)?;
        for (model, count) in self.store.record_counts().unwrap_or_default() {
            gauge_value(count).encode(family.encode_family(&[("model", model)])?)?;
        }
        Ok(())
    }

    fn encode_refusals(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Records of peers that were refused";
        let mut family = encoder.encode_descriptor("refused_records", help, None, MetricType::Counter)?;
        for (reason, count) in self.store.refusals() {
            ConstCounter::new(count).encode(family.encode_family(&[("reason", label(reason).as_str())])?)?;
        }
        Ok(())
    }
}

/// Returns the label of a reason: its name, in snake case.
fn label(reason: Refusal) -> String {
    let mut label = String::new();
    for letter in format!("{reason:?}").chars() {
        if letter.is_ascii_uppercase() && !label.is_empty() {
            label.push('_');
        }
        label.push(letter.to_ascii_lowercase());
    }
    label
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    ConstCounter::new(value).encode(metric)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    gauge_value(value).encode(metric)
}

fn gauge_value(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Read").finish_non_exhaustive()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Metrics").field(&self.counters()).finish()
    }
}
