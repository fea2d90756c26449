//! What the node has done, second by second.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use netabase::NodeCounters;
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
type Series = (&'static str, bool, &'static str, fn(&App, &NodeCounters) -> u64);

/// All series. Names are stable.
pub(crate) const SERIES: [Series; 18] = [
    ("requests", true, "Requests to this interface", |app, _| app.counters.requests.get()),
    ("problems", true, "Requests that were answered with a problem", |app, _| app.counters.problems.get()),
    ("limited", true, "Requests of clients that asked too often", |app, _| app.counters.limited.get()),
    ("puts", true, "Writes and removals of this node", |_, node| node.puts),
    ("gets", true, "Reads of a record", |_, node| node.gets),
    ("local_hits", true, "Reads that were answered from the disk", |_, node| node.local_hits),
    ("queries", true, "Queries of the network", |_, node| node.queries),
    ("pages", true, "Pages of records by this interface", |app, _| app.counters.queries.get()),
    ("received", true, "Records that came from peers and are new", |_, node| node.received),
    ("refused", true, "Records of peers that were refused", |_, node| node.refused),
    ("synced_in", true, "Records that comparisons with peers have brought", |_, node| node.synced_in),
    ("synced_out", true, "Records that comparisons with peers have given", |_, node| node.synced_out),
    ("bytes_in", true, "Bytes from peers", |_, node| node.bytes_in),
    ("bytes_out", true, "Bytes to peers", |_, node| node.bytes_out),
    ("live_received", true, "Live messages from peers", |app, _| app.node.live_stats().received),
    ("live_published", true, "Live messages to peers", |app, _| app.node.live_stats().published),
    ("commits", true, "Groups of writes that were committed", |app, _| app.node.store().commits()),
    ("streams", false, "Open streams of events", |app, _| {
        u64::try_from(app.open_streams()).unwrap_or(u64::MAX)
    }),
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
        let counters = app.node.metrics().counters();
        let counts = app.node.store().record_counts().ok();
        app.ring.push(Sample {
            time: SystemTime::now(),
            values: SERIES.map(|(.., read)| read(&app, &counters)),
            peers: Some(counters.connected_peers),
            records: counts.map(|counts| counts.iter().map(|(_, records)| records).sum()),
        });
    }
}

/// What the node does not count itself: what only this interface knows.
const OWN: [&str; 5] = ["requests", "problems", "limited", "pages", "streams"];

/// Returns the present values in the format of `OpenMetrics`.
pub(crate) fn metrics(app: &App) -> String {
    let node = app.node.metrics().counters();
    let mut text = String::new();
    for (name, grows, meaning, read) in SERIES.iter().filter(|(name, ..)| OWN.contains(name)) {
        let (kind, suffix) = if *grows { ("counter", "_total") } else { ("gauge", "") };
        let (name, value) = (format!("netabase_api_{name}"), read(app, &node));
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {meaning}.\n# TYPE {name} {kind}\n{name}{suffix} {value}");
    }
    text + &app.node.metrics().encode()
}
