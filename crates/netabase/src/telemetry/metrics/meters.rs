//! Meters: lock-free counters in memory, updated where an event happens.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use netabase_store::admin::Histogram;

use crate::telemetry::metrics::call::{CALLS, Call};

/// The buckets of the duration of calls, in nanoseconds: from 10 us to 30 s.
const CALL_NANOS: &[u64] = &[
    10_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];
/// The buckets of the event loop's lateness, in nanoseconds: from 1 ms to 10 s.
const LOOP_NANOS: &[u64] = &[
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
];
/// The buckets of the duration of sync sessions, in nanoseconds: from 1 ms to 10 min.
const SYNC_NANOS: &[u64] = &[
    1_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
    10_000_000_000,
    60_000_000_000,
    600_000_000_000,
];

pub(super) const CHANGES: &[&str] = &["stored", "updated", "removed", "other"];
pub(super) const DIRECTIONS: &[&str] = &["in", "out"];
pub(super) const SYNC_OUTCOMES: &[&str] = &[
    "ok",
    "unreachable",
    "busy",
    "other_scope",
    "nonsense",
    "withheld",
    "endless",
    "too_slow",
    "store",
    "stopped",
    "other",
];
pub(super) const SYNC_RECORDS: &[&str] = &["in", "out", "served", "known", "refused", "withheld"];
pub(super) const SYNC_BYTES: &[&str] = &["in", "out", "served"];
pub(super) const REPAIR_RECORDS: &[&str] = &["compared", "received", "sent", "released"];
pub(super) const REPUBLISHED: &[&str] = &["taken", "nobody", "skipped"];
pub(super) const PROTOCOLS: &[&str] = &["record", "query", "sync", "blob"];

/// A counter, which only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A gauge.
#[derive(Debug, Default)]
pub(crate) struct Level(AtomicU64);

impl Level {
    pub(crate) fn set(&self, level: usize) {
        self.0.store(u64::try_from(level).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A gauge that may be negative.
#[derive(Debug, Default)]
pub(crate) struct Offset(AtomicI64);

impl Offset {
    pub(crate) fn set(&self, offset: i64) {
        self.0.store(offset, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter for each label of a fixed list.
#[derive(Debug)]
pub(crate) struct Counts {
    labels: &'static [&'static str],
    counts: Box<[Count]>,
}

impl Counts {
    pub(super) fn new(labels: &'static [&'static str]) -> Self {
        Self { labels, counts: labels.iter().map(|_| Count::default()).collect() }
    }

    /// Adds to the counter of a label. Unknown labels count under the last one of the list.
    pub(crate) fn add(&self, label: &str, more: u64) {
        let place = self.labels.iter().position(|known| *known == label);
        if let Some(count) = place.map_or(self.counts.last(), |place| self.counts.get(place)) {
            count.add(more);
        }
    }

    pub(super) fn get(&self, label: &str) -> u64 {
        self.read().find(|(known, _)| *known == label).map_or(0, |(_, count)| count)
    }

    pub(crate) fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.labels.iter().copied().zip(self.counts.iter().map(Count::get))
    }
}

/// The outcomes and durations of a kind of call.
#[derive(Debug)]
pub(super) struct CallMeter {
    pub(super) outcomes: Counts,
    pub(super) nanos: Histogram,
}

/// All meters of a node.
#[derive(Debug)]
pub(crate) struct Meters {
    calls: [CallMeter; CALLS.len()],
    /// The changes by this program and by peers, by kind.
    pub(super) local_changes: Counts,
    pub(super) peer_changes: Counts,
    pub(crate) sync_sessions: Counts,
    pub(crate) sync_records: Counts,
    pub(crate) sync_bytes: Counts,
    pub(crate) sync_round_trips: Count,
    pub(super) sync_nanos: Histogram,
    pub(crate) repair_walks: Count,
    pub(crate) repair_records: Counts,
    /// The part of the keyspace that the current repair pass has covered, in units of 1/65536.
    pub(crate) repair_position: Level,
    pub(crate) republished: Counts,
    pub(crate) republish_due: Level,
    pub(crate) blob_bytes: Counts,
    /// The bytes received on all connections.
    pub(crate) bytes_in: Count,
    pub(crate) bytes_out: Count,
    /// Requests of peers that were answered with `Busy` unseen, by protocol.
    pub(crate) busy: Counts,
    pub(crate) bans: Count,
    pub(crate) slowed: Count,
    pub(crate) events_lost: Count,
    pub(super) loop_nanos: Histogram,
    pub(crate) connected_peers: Level,
    /// The milliseconds by which this node's clock is ahead of the peers'.
    pub(crate) clock_ahead: Offset,
    pub(crate) waiting_commands: Level,
    pub(crate) outbox: Level,
}

impl Default for Meters {
    fn default() -> Self {
        let call = |call: Call| CallMeter {
            outcomes: Counts::new(call.outcomes()),
            nanos: Histogram::new(CALL_NANOS),
        };
        Self {
            calls: CALLS.map(call),
            local_changes: Counts::new(CHANGES),
            peer_changes: Counts::new(CHANGES),
            sync_sessions: Counts::new(SYNC_OUTCOMES),
            sync_records: Counts::new(SYNC_RECORDS),
            sync_bytes: Counts::new(SYNC_BYTES),
            sync_round_trips: Count::default(),
            sync_nanos: Histogram::new(SYNC_NANOS),
            repair_walks: Count::default(),
            repair_records: Counts::new(REPAIR_RECORDS),
            repair_position: Level::default(),
            republished: Counts::new(REPUBLISHED),
            republish_due: Level::default(),
            blob_bytes: Counts::new(DIRECTIONS),
            bytes_in: Count::default(),
            bytes_out: Count::default(),
            busy: Counts::new(PROTOCOLS),
            bans: Count::default(),
            slowed: Count::default(),
            events_lost: Count::default(),
            loop_nanos: Histogram::new(LOOP_NANOS),
            connected_peers: Level::default(),
            clock_ahead: Offset::default(),
            waiting_commands: Level::default(),
            outbox: Level::default(),
        }
    }
}

impl Meters {
    pub(super) fn calls(&self) -> impl Iterator<Item = (Call, &CallMeter)> {
        CALLS.into_iter().zip(&self.calls)
    }

    pub(super) fn called(&self, call: Call, outcome: &str, took: Duration) {
        if let Some((_, meter)) = self.calls().find(|(known, _)| *known == call) {
            meter.outcomes.add(outcome, 1);
            meter.nanos.observe(nanos(took));
        }
    }

    pub(super) fn total(&self, call: Call) -> u64 {
        let of_call = self.calls().filter(|(known, _)| *known == call);
        of_call.flat_map(|(_, meter)| meter.outcomes.read()).map(|(_, count)| count).sum()
    }

    pub(super) fn count_of(&self, call: Call, outcome: &str) -> u64 {
        self.calls().filter(|(known, _)| *known == call).map(|(_, meter)| meter.outcomes.get(outcome)).sum()
    }
}

/// Returns a duration in whole nanoseconds.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_of_the_list_whatever_is_counted() {
        let counts = Counts::new(SYNC_OUTCOMES);
        counts.add("ok", 2);
        counts.add("something that a peer has made up", 3);
        assert_eq!((counts.get("ok"), counts.get("other")), (2, 3));
        assert_eq!(counts.read().count(), SYNC_OUTCOMES.len());
    }
}
