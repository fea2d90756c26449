//! The statistics of the last ten minutes, sampled once a second.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use netabase::Refusal;
use netabase::health::NodeCounters;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::time::MissedTickBehavior;

use crate::app::App;
use crate::time::rfc3339_of;

/// The time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// The number of samples that are kept: ten minutes of them.
pub(crate) const SAMPLES: usize = 600;

/// A series: its name, whether it is a counter, its description, and the function that reads it.
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
    ("commits", true, "Groups of writes that were committed", |app, _| app.node.store().replica().commits()),
    ("streams", false, "Open streams of events", |app, _| {
        u64::try_from(app.open_streams()).unwrap_or(u64::MAX)
    }),
];

/// Returns the names of all series.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    SERIES.iter().map(|(name, ..)| *name).chain(["peers", "records"])
}

/// The samples of the last ten minutes.
#[derive(Debug, Default)]
pub(crate) struct Ring(Mutex<VecDeque<Sample>>);

#[derive(Debug, Clone)]
struct Sample {
    time: SystemTime,
    values: [u64; SERIES.len()],
    peers: Option<u64>,
    records: Option<u64>,
    /// The refused records of peers since the start, by reason.
    refusals: Vec<(Refusal, u64)>,
}

impl Ring {
    fn push(&self, sample: Sample) {
        let mut samples = self.0.lock();
        while samples.len() >= SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// Returns the number of records refused in the last ten minutes by reason, given the numbers
    /// since the start.
    pub(crate) fn recent(&self, refusals: Vec<(Refusal, u64)>, now: SystemTime) -> Vec<(Refusal, u64)> {
        let samples = self.0.lock();
        let before = now.checked_sub(INTERVAL * u32::try_from(SAMPLES).unwrap_or(u32::MAX));
        let old = samples.iter().rev().find(|sample| before.is_some_and(|before| sample.time <= before));
        // Before the samples span ten minutes, every refusal is recent.
        let old = old.or_else(|| samples.front().filter(|_| samples.len() >= SAMPLES));
        let until_then = |reason| {
            let known = old.and_then(|old| old.refusals.iter().find(|(known, _)| *known == reason));
            known.map_or(0, |(_, count)| *count)
        };
        let grown =
            refusals.into_iter().map(|(reason, count)| (reason, count.saturating_sub(until_then(reason))));
        grown.filter(|(_, count)| *count > 0).collect()
    }

    /// Returns the samples after a time of an earlier answer, or all samples if that one is no
    /// longer kept. The answer has the wanted series, or all of them.
    pub(crate) fn json(&self, after: Option<&str>, wanted: Option<&[&str]>) -> Value {
        let mut samples: Vec<_> = self.0.lock().iter().cloned().collect();
        let known =
            after.and_then(|after| samples.iter().rposition(|sample| rfc3339_of(sample.time) == after));
        if let Some(position) = known {
            samples.drain(..=position);
        }
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
        if let Some(wanted) = wanted {
            counters.retain(|name, _| wanted.contains(&name.as_str()));
            gauges.retain(|name, _| wanted.contains(&name.as_str()));
        }
        json!({
            "interval_ms": crate::time::millis(INTERVAL),
            "continues": known.is_some(),
            "times": samples.iter().map(|sample| rfc3339_of(sample.time)).collect::<Vec<_>>(),
            "counters": counters,
            "gauges": gauges,
        })
    }
}

/// Takes a sample once a second.
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
            refusals: app.node.store().replica().refusals(),
            records: counts.map(|counts| counts.iter().map(|(_, records)| records).sum()),
        });
    }
}

/// The series that are counted by this interface and not by the node.
const OWN: [&str; 5] = ["requests", "problems", "limited", "pages", "streams"];

/// Returns the current values in the format of `OpenMetrics`.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(time: SystemTime, refused: u64) -> Sample {
        let refusals = vec![(Refusal::FutureTimestamp, refused)];
        Sample { time, values: [0; SERIES.len()], peers: None, records: None, refusals }
    }

    #[test]
    fn only_what_is_new_and_wanted_is_answered() {
        let (ring, start) = (Ring::default(), SystemTime::UNIX_EPOCH);
        for second in 0..3 {
            ring.push(sample(start + INTERVAL * second, 0));
        }
        let answer = ring.json(Some("1970-01-01T00:00:01.000Z"), Some(&["puts"]));
        assert_eq!(answer["times"], json!(["1970-01-01T00:00:02.000Z"]));
        assert_eq!((&answer["counters"], &answer["gauges"]), (&json!({ "puts": [0] }), &json!({})));
        assert_eq!(answer["continues"], json!(true));
        let answer = ring.json(Some("1970-01-01T00:00:09.000Z"), None);
        assert_eq!(
            (answer["times"].as_array().map(Vec::len), &answer["continues"]),
            (Some(3), &json!(false))
        );
    }

    #[test]
    fn what_was_refused_is_recent_for_ten_minutes() {
        let (ring, start) = (Ring::default(), SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30));
        let now = |refused| vec![(Refusal::FutureTimestamp, refused)];
        assert_eq!(ring.recent(now(3), start), now(3), "before the first sample");
        for second in 0..600 {
            ring.push(sample(start + INTERVAL * second, 3));
        }
        assert_eq!(ring.recent(now(3), start + INTERVAL * 600), vec![], "that is over");
        assert_eq!(ring.recent(now(5), start + INTERVAL * 600), now(2), "but for what came since");
        assert_eq!(ring.recent(now(5), start + INTERVAL * 9000), now(2), "nor does a pause bring it back");
    }
}
