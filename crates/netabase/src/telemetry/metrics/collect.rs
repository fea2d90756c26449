//! Encodes the meters as `OpenMetrics` families.

use std::collections::HashMap;
use std::fmt;

use netabase_store::admin::HistogramReading;
use netabase_store::{NetabaseStore, Refusal};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::peers::score::{PeerScores, PeerState};
use crate::replication::live::Live;
use crate::replication::sync::Replications;
use crate::telemetry::metrics::meters::{Counts, Meters};

/// Nanoseconds in a second.
const SECOND: f64 = 1e9;
/// Milliseconds in a second.
const MILLIS: f64 = 1e3;
/// The number of parts of the keyspace in the repair's position.
const PARTS_OF_KEYSPACE: f64 = 65_536.0;

/// The sources of all families, which are read on demand.
pub(super) struct Sources {
    pub(super) meters: std::sync::Arc<Meters>,
    pub(super) store: NetabaseStore,
    pub(super) live: Live,
    pub(super) scores: PeerScores,
    pub(super) replications: Replications,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        self.write_node(&mut families)?;
        self.write_calls(&mut families)?;
        self.write_sync(&mut families)?;
        self.write_care(&mut families)?;
        self.write_store(&mut families)?;
        self.write_network(&mut families)?;
        self.write_refusals(&mut families)
    }
}

impl Sources {
    fn write_node(&self, families: &mut Families<'_>) -> fmt::Result {
        let meters = &self.meters;
        families.gauge("connected_peers", "Peers that are connected", meters.connected_peers.get())?;
        families.offset(
            "clock_offset",
            "By how much the clock of this node is ahead of the median of its peers'",
            meters.clock_ahead.get(),
        )?;
        families.gauge(
            "waiting_commands",
            "Calls that wait for the event loop",
            meters.waiting_commands.get(),
        )?;
        families.gauge(
            "outbox_length",
            "Versions and questions for peers that wait for their request or are in one",
            meters.outbox.get(),
        )?;
        families.gauge("replications", "Scopes that are kept", number(self.replications.len()))?;
        families.counter(
            "events_lost",
            "Events that slow subscribers have missed",
            meters.events_lost.get(),
        )?;
        families.seconds(
            "event_loop_delay",
            "How late the event loop came to what was due, sampled once per second; up to 1 ms is the clock's",
            &meters.loop_nanos.read(),
        )
    }

    fn write_calls(&self, families: &mut Families<'_>) -> fmt::Result {
        let meters = &self.meters;
        let calls = meters.calls().flat_map(|(call, meter)| {
            let labels = move |outcome| [("call", call.name()), ("outcome", outcome)];
            meter.outcomes.read().map(move |(outcome, count)| (labels(outcome), count))
        });
        families.counters("calls", "Calls of this program", calls)?;
        let help = "How long calls of this program took";
        let mut family = families.0.encode_descriptor(
            "call_duration",
            help,
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (call, meter) in meters.calls() {
            write_histogram(family.encode_family(&[("call", call.name())])?, &meter.nanos.read(), SECOND)?;
        }
        families.counter(
            "local_hits",
            "Gets that were answered from the disk",
            meters.count_of(crate::telemetry::metrics::call::Call::Get, "local"),
        )?;
        let changes = [("local", &meters.local_changes), ("peer", &meters.peer_changes)];
        let changes = changes.into_iter().flat_map(|(origin, kinds)| {
            kinds.read().map(move |(kind, count)| ([("origin", origin), ("kind", kind)], count))
        });
        families.counters("changes", "Changes of records in the store", changes)
    }

    fn write_sync(&self, families: &mut Families<'_>) -> fmt::Result {
        let meters = &self.meters;
        families.labelled(
            "sync_sessions",
            "Comparisons of scopes with peers",
            "outcome",
            &meters.sync_sessions,
        )?;
        families.labelled(
            "sync_records",
            "Records that comparisons moved, or did not",
            "direction",
            &meters.sync_records,
        )?;
        families.labelled(
            "sync_bytes",
            "Bytes of messages of comparisons, and of records that peers fetched",
            "direction",
            &meters.sync_bytes,
        )?;
        families.counter(
            "sync_round_trips",
            "Requests of comparisons that were answered",
            meters.sync_round_trips.get(),
        )?;
        families.seconds(
            "sync_session_duration",
            "How long comparisons of scopes with peers took",
            &meters.sync_nanos.read(),
        )
    }

    fn write_care(&self, families: &mut Families<'_>) -> fmt::Result {
        let meters = &self.meters;
        families.counter("repair_walks", "Walks over everything that is kept", meters.repair_walks.get())?;
        families.labelled("repair_records", "Records that walks met", "action", &meters.repair_records)?;
        families.ratio(
            "repair_position",
            "How much of the keyspace the present walk has passed",
            ratio(meters.repair_position.get()),
        )?;
        families.labelled(
            "republished_records",
            "Records whose time to be published had come, by what became of them",
            "outcome",
            &meters.republished,
        )?;
        families.gauge(
            "republish_due",
            "Records that were due together when the republisher last looked",
            meters.republish_due.get(),
        )
    }

    fn write_store(&self, families: &mut Families<'_>) -> fmt::Result {
        let counters = self.store.counters();
        let records = self.store.record_counts().unwrap_or_default();
        let records = records.into_iter().map(|(model, count)| ([("model", model)], count));
        families.gauges("records", "Records in the store, without tombstones", records)?;
        families.bytes(
            "store_records",
            "The keys and envelopes of signed records",
            counters.usage.record_bytes,
        )?;
        families.gauge("store_tombstones", "What is kept of removed records", counters.usage.tombstones)?;
        // A store that cannot be read reports its error elsewhere.
        if let Some(bytes) = counters.disk_bytes {
            families.bytes("store_disk", "The size of the database on the disk", bytes)?;
        }
        families.counter("store_commits", "Groups of writes that were committed", counters.commits)?;
        families.seconds(
            "store_commit_duration",
            "How long groups of writes took, from the first write to the disk",
            &counters.commit_nanos,
        )?;
        let help = "Writes that shared a commit";
        let family =
            families.0.encode_descriptor("store_commit_writes", help, None, MetricType::Histogram)?;
        write_histogram(family, &counters.commit_writes, 1.0)?;
        families.gauge(
            "store_queue_writes",
            "Writes that wait for the writer",
            number(counters.waiting_writes),
        )?;
        families.bytes(
            "store_queue",
            "Bytes of writes that wait for the writer",
            number(counters.waiting_bytes),
        )
    }

    fn write_network(&self, families: &mut Families<'_>) -> fmt::Result {
        let meters = &self.meters;
        let bytes = [("in", meters.bytes_in.get()), ("out", meters.bytes_out.get())];
        let bytes = bytes.into_iter().map(|(direction, count)| ([("direction", direction)], count));
        families.counters("network_bytes", "Bytes of all streams of all connections", bytes)?;
        families.labelled(
            "blob_bytes",
            "Bytes of blobs fetched and served",
            "direction",
            &meters.blob_bytes,
        )?;
        let live = self.live.stats();
        let live = [
            ("published", live.published),
            ("unpublished", live.unpublished),
            ("unsent", live.unsent),
            ("received", live.received),
            ("dropped", live.dropped),
            ("accepted", live.accepted),
            ("ignored", live.ignored),
            ("rejected", live.rejected),
            ("fetched", live.fetched),
        ];
        let live = live.into_iter().map(|(result, count)| ([("result", result)], count));
        families.counters("live_messages", "Live messages, by what became of them", live)
    }

    fn write_refusals(&self, families: &mut Families<'_>) -> fmt::Result {
        let refusals: Vec<_> = self
            .store
            .replica()
            .refusals()
            .into_iter()
            .map(|(reason, count)| (label(reason), count))
            .collect();
        let refusals = refusals.iter().map(|(reason, count)| ([("reason", reason.as_str())], *count));
        families.counters("refused_records", "Records of peers that were refused", refusals)?;
        families.labelled(
            "busy_answers",
            "Requests of peers that were not looked at, since too many waited",
            "protocol",
            &self.meters.busy,
        )?;
        families.counter("slowed_peers", "How often a peer was slowed", self.meters.slowed.get())?;
        families.counter("bans", "How often a peer was banned", self.meters.bans.get())?;
        let reports = self.scores.reports();
        let banned = reports.iter().filter(|report| matches!(report.state, PeerState::Banned { .. })).count();
        families.gauge("banned_peers", "Peers that are banned", number(banned))
    }
}

/// A builder of families. Names are given without prefix, unit and suffix.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn counter(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(count).encode(metric)
    }

    fn counters<S: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        counts: impl Iterator<Item = (S, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, count) in counts {
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn labelled(&mut self, name: &str, help: &str, label: &'static str, counts: &Counts) -> fmt::Result {
        self.counters(name, help, counts.read().map(|(value, count)| ([(label, value)], count)))
    }

    fn gauge(&mut self, name: &str, help: &str, level: u64) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        gauge(level).encode(metric)
    }

    fn gauges<S: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        levels: impl Iterator<Item = (S, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, level) in levels {
            gauge(level).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn bytes(&mut self, name: &str, help: &str, level: u64) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
        gauge(level).encode(metric)
    }

    fn offset(&mut self, name: &str, help: &str, millis: i64) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ConstGauge::new(signed(millis) / MILLIS).encode(metric)
    }

    fn ratio(&mut self, name: &str, help: &str, level: f64) -> fmt::Result {
        let unit = Unit::Other("ratio".to_owned());
        let metric = self.0.encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
        ConstGauge::new(level).encode(metric)
    }

    fn seconds(&mut self, name: &str, help: &str, nanos: &HistogramReading) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        write_histogram(self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?, nanos, SECOND)
    }
}

/// Writes a histogram whose values are measured in fractions of its unit.
fn write_histogram(
    mut metric: prometheus_client::encoding::MetricEncoder<'_>,
    reading: &HistogramReading,
    parts: f64,
) -> fmt::Result {
    let bounds = reading.bounds.iter().map(|bound| float(*bound) / parts).chain([f64::MAX]);
    let buckets: Vec<(f64, u64)> = bounds.zip(reading.counts.iter().copied()).collect();
    let none: Option<&HashMap<usize, Exemplar<NoLabelSet, f64>>> = None;
    metric.encode_histogram(float(reading.sum) / parts, reading.count(), &buckets, none)
}

/// Returns the label of a reason: its name in snake case.
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

fn gauge(level: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(level).unwrap_or(i64::MAX))
}

fn number(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn ratio(parts: u64) -> f64 {
    float(parts) / PARTS_OF_KEYSPACE
}

#[expect(clippy::cast_precision_loss, reason = "a difference beyond 2^53 milliseconds is near enough")]
fn signed(number: i64) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "a sum beyond 2^53 is near enough")]
fn float(number: u64) -> f64 {
    number as f64
}
