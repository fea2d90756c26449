//! Limits of the writer and its queue.

use std::time::Duration;

use crate::limits::DEFAULT_MAX_VALUE_BYTES;
use crate::version::envelope::ENVELOPE_OVERHEAD_BYTES;
use crate::version::limits::MAX_RECORD_KEY_BYTES;

/// The most writes in the queue; beyond it a local writer blocks.
pub(crate) const QUEUE_OPS: usize = 65_536;

/// The most bytes in the queue.
pub(crate) const QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// The share of both, in percent, that records from peers may fill. The rest is for local writers.
pub(crate) const NETWORK_SHARE: usize = 75;

/// The most writes in one transaction.
pub(crate) const GROUP_OPS: usize = 4096;

/// The most bytes in one transaction, unless one batch is larger.
pub(crate) const GROUP_BYTES: usize = 8 * 1024 * 1024;

/// The most records from peers in one batch.
pub(crate) const GATHERED_OPS: usize = 1024;

/// The most bytes of records from peers in one batch.
pub(crate) const GATHERED_BYTES: usize = 1024 * 1024;

/// The shortest time from one group to the next if all waiting writes came from peers.
pub(crate) const MIN_PACE: Duration = Duration::from_millis(20);

/// The longest such time.
pub(crate) const MAX_PACE: Duration = Duration::from_millis(100);

/// The pace, between the two limits, in multiples of the time that the last group took. If changes
/// are followed, the pace is that time itself.
pub(crate) const PACE_FACTOR: u32 = 4;

/// The longest time that lazy writes wait for others to share their commit.
pub(crate) const LAZY_DELAY: Duration = Duration::from_millis(500);

/// The most bytes of writes that a crash may lose, whatever the durability.
pub(crate) const UNSYNCED_BYTES: usize = 64 * 1024 * 1024;

/// The interval at which a failed store tries to write again.
pub(crate) const RESUME_INTERVAL: Duration = Duration::from_secs(1);

/// The longest time that a write waits for the disk with
/// [`Durability::Interval`](crate::Durability::Interval).
pub(crate) const FLUSH_INTERVAL: Duration = Duration::from_millis(200);

/// The most index entries that wait for the end of their group.
pub(crate) const MAX_INDEX_ENTRIES: usize = 131_072;

// A full group leaves place in the queue for the next one to gather, also within peers' share.
const _: () = assert!(2 * GROUP_OPS <= QUEUE_OPS / 100 * NETWORK_SHARE);
const _: () = assert!(2 * GROUP_BYTES <= QUEUE_BYTES / 100 * NETWORK_SHARE);
// Peers never fill the whole queue.
const _: () = assert!(NETWORK_SHARE < 100);
// Peers' batches are parts of a group.
const _: () = assert!(GATHERED_OPS <= GROUP_OPS && GATHERED_BYTES <= GROUP_BYTES);
// The largest record of the default size is one write of a group.
const _: () =
    assert!(MAX_RECORD_KEY_BYTES + ENVELOPE_OVERHEAD_BYTES + DEFAULT_MAX_VALUE_BYTES <= GROUP_BYTES);
// The flush for too many bytes comes after a whole group.
const _: () = assert!(GROUP_BYTES <= UNSYNCED_BYTES);
// Records from peers are committed before an interval's flush, which comes before lazy writes, and
// these before the store tries again after a failure.
const _: () = assert!(MIN_PACE.as_millis() < MAX_PACE.as_millis());
const _: () = assert!(MAX_PACE.as_millis() < FLUSH_INTERVAL.as_millis());
const _: () = assert!(FLUSH_INTERVAL.as_millis() < LAZY_DELAY.as_millis());
const _: () = assert!(LAZY_DELAY.as_millis() < RESUME_INTERVAL.as_millis());
