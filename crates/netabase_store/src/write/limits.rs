//! Bounds of the writer and its queue.

use std::time::Duration;

/// The most writes that may wait; a local writer blocks beyond it.
pub(crate) const QUEUE_OPS: usize = 65_536;

/// The most bytes that may wait.
pub(crate) const QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// Of both, the share in percent that records from peers may fill; the rest is for local writers.
pub(crate) const NETWORK_SHARE: usize = 75;

/// The most writes in one transaction.
pub(crate) const GROUP_OPS: usize = 4096;

/// The most bytes in one transaction, unless one batch is larger.
pub(crate) const GROUP_BYTES: usize = 8 * 1024 * 1024;

/// The most writes and bytes of peers' records that are gathered to one batch.
pub(crate) const GATHERED_OPS: usize = 1024;

pub(crate) const GATHERED_BYTES: usize = 1024 * 1024;

/// The least and the most time from one group to the next if all that waits came from peers, and
/// nobody waits for it.
pub(crate) const MIN_PACE: Duration = Duration::from_millis(20);

pub(crate) const MAX_PACE: Duration = Duration::from_millis(100);

/// Between the two it is so many times what the last group took. Where somebody follows the changes
/// it is as long as that took.
pub(crate) const PACE_FACTOR: u32 = 4;

/// How long lazy writes wait for company.
pub(crate) const LAZY_DELAY: Duration = Duration::from_millis(500);

/// The most bytes of writes that may be lost in a crash, whatever the durability.
pub(crate) const UNSYNCED_BYTES: usize = 64 * 1024 * 1024;

/// How often it is tried whether a store that has failed can be written again.
pub(crate) const RESUME_INTERVAL: Duration = Duration::from_secs(1);

/// How long a write may wait for the disk with [`Durability::Interval`].
pub(crate) const FLUSH_INTERVAL: Duration = Duration::from_millis(200);

/// The most entries that wait.
pub(crate) const MAX_INDEX_ENTRIES: usize = 131_072;
