//! What the node has done, second by second.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::time::MissedTickBehavior;

use crate::app::App;
use crate::time::rfc3339_of;

/// How long it is between two samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many samples are kept: those of ten minutes.
pub(crate) const SAMPLES: usize = 600;

/// What is sampled: the name, whether it only grows, what it is, and how it is read.
type Series = (&'static str, bool, &'static str, fn(&App) -> u64);

/// All series. Names are stable.
pub(crate) const SERIES: [Series; 19] = [
    ("requests", true, "Requests to this interface", |app| app.counters.requests.get()),
    ("problems", true, "Requests that were answered with a problem", |app| app.counters.problems.get()),
    ("limited", true, "Requests of clients that asked too often", |app| app.counters.limited.get()),
    ("gets", true, "Reads of a record by this interface", |app| app.counters.gets.get()),
    ("puts", true, "Writes of a record by this interface", |app| app.counters.puts.get()),
    ("removes", true, "Removals by this interface", |app| app.counters.removes.get()),
    ("queries", true, "Pages of queries by this interface", |app| app.counters.queries.get()),
    ("local_changes", true, "Records that this node changed", |app| app.seen.local_changes.get()),
    ("peer_changes", true, "Records that came from peers", |app| app.seen.peer_changes.get()),
    ("refused", true, "Records of peers that were refused", |app| app.seen.refused.get()),
    ("syncs", true, "Comparisons with a peer that have ended", |app| app.seen.syncs.get()),
    ("sync_received", true, "Records that a comparison has brought", |app| app.seen.sync_received.get()),
    ("sync_sent", true, "Records that a comparison has given", |app| app.seen.sync_sent.get()),
    ("bytes_in", true, "Bytes that comparisons and repairs have received", |app| app.seen.bytes_in.get()),
    ("bytes_out", true, "Bytes that comparisons and repairs have sent", |app| app.seen.bytes_out.get()),
    ("live_received", true, "Live messages from peers", |app| app.node.live_stats().received),
    ("live_published", true, "Live messages to peers", |app| app.node.live_stats().published),
    ("commits", true, "Groups of writes that were committed", |app| app.node.store().commits()),
    ("streams", false, "Open streams of events", |app| u64::try_from(app.open_streams()).unwrap_or(u64::MAX)),
];

/// The samples of the last minutes.
#[derive(Debug, Default)]
pub(crate) struct Ring(Mutex<VecDeque<Sample>>);

#[derive(Debug, Clone)]
struct Sample {
    time: SystemTime,
    values: [u64; SERIES.len()],
    peers: Option<u64>,
    records: Option<u64>,
}

impl Ring {
    fn push(&self, sample: Sample) {
        let mut samples = self.0.lock();
        while samples.len() >= SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// Returns the samples, a list for each series.
    pub(crate) fn json(&self) -> Value {
        let samples: Vec<_> = self.0.lock().iter().cloned().collect();
        let (mut counters, mut gauges) = (Map::new(), Map::new());
        for (position, (name, grows, ..)) in SERIES.iter().enumerate() {
            let values =
                samples.iter().map(|sample| sample.values.get(position).copied()).collect::<Vec<_>>();
            let series = if *grows { &mut counters } else { &mut gauges };
            series.insert((*name).to_owned(), json!(values));
        }
        gauges
            .insert("peers".to_owned(), json!(samples.iter().map(|sample| sample.peers).collect::<Vec<_>>()));
        gauges.insert(
            "records".to_owned(),
            json!(samples.iter().map(|sample| sample.records).collect::<Vec<_>>()),
        );
        json!({
            "interval_ms": crate::time::millis(INTERVAL),
            "times": samples.iter().map(|sample| rfc3339_of(sample.time)).collect::<Vec<_>>(),
            "counters": counters,
            "gauges": gauges,
        })
    }
}

/// Samples once a second.
pub(crate) async fn sample(app: Arc<App>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let peers = app.node.connected_peers().await.ok().and_then(|peers| u64::try_from(peers.len()).ok());
        let counts = app.node.store().record_counts().ok();
        app.ring.push(Sample {
            time: SystemTime::now(),
            values: SERIES.map(|(.., read)| read(&app)),
            peers,
            records: counts.map(|counts| counts.iter().map(|(_, records)| records).sum()),
        });
    }
}

/// Returns the present values for Prometheus.
pub(crate) fn metrics(app: &App) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for (name, grows, meaning, read) in SERIES {
        let (kind, suffix) = if grows { ("counter", "_total") } else { ("gauge", "") };
        let (name, value) = (format!("netabase_api_{name}{suffix}"), read(app));
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {meaning}.\n# TYPE {name} {kind}\n{name} {value}");
    }
    text
}
