//! The limits of repair.

use std::time::Duration;

use crate::rpc::backoff::Backoff;

/// The most records of a slice, which are compared together.
pub(crate) const SLICE_RECORDS: usize = 4096;
/// The most peers that a slice is compared with concurrently.
pub(crate) const CONCURRENT_PEERS: usize = 4;
/// The most selections of peers for a slice. A further one is made because some peers were gone.
pub(crate) const MAX_VIEWS: usize = 3;
/// The longest time that one peer may take with one slice. The next pass finds the rest.
pub(crate) const SLICE_PATIENCE: Duration = Duration::from_secs(60);
/// The most records that are fetched from one peer in one slice.
pub(crate) const MAX_MISSING: usize = 16 * MAX_ITEMS;
/// The most further peers that are asked for a record which the first peer did not deliver.
pub(crate) const MAX_SOURCES: usize = 3;
/// The most messages of one comparison with one peer.
pub(crate) const MAX_MESSAGES: usize = 64;
/// The most ranges of one message.
pub(crate) const MAX_RANGES: usize = 32;
/// The most records that are offered or fetched in one message.
pub(crate) const MAX_ITEMS: usize = 1024;
/// The time to wait for further peers after one has connected or disconnected.
pub(crate) const ARRIVAL_SETTLING_TIME: Duration = Duration::from_millis(500);
/// The factor of the last comparison's duration for which new peers wait for the next one. Local
/// writes, and a node that is behind, wait for a factor of one.
pub(crate) const REPAIR_REST: u32 = 8;
/// The longest such wait, and the longest time before a node that is still behind retries.
pub(crate) const MAX_REPAIR_REST: Duration = Duration::from_secs(10 * 60);
/// The back-off of a node that is still behind.
pub(crate) const REPAIR_RETRY: Backoff = Backoff { first: Duration::from_secs(2), max: MAX_REPAIR_REST };
/// The divisor of the repair interval that gives the time before a full comparison after peers have
/// disconnected.
pub(crate) const REPAIR_HURRY: u32 = 16;
/// The jitter of a pass's pace, in percent, so that nodes that started together drift apart.
pub(crate) const REPAIR_JITTER_PERCENT: u32 = 20;

/// The number of written records from which a full comparison starts at once. Concurrent puts count
/// until they are sent; a burst of them may start one, which is harmless.
pub(crate) const MUCH_WRITTEN: i64 = 1024;
/// The most puts that send their records before they are committed.
pub(crate) const UNCOMMITTED_RECORDS: i64 = 256;

/// The most items of a range that is listed rather than summed.
pub(crate) const LISTED_AT_ONCE: usize = 128;
/// The most items in one list.
pub(crate) const MAX_LISTED: usize = 1024;
/// The number of ranges that a range is split into.
pub(crate) const SPLIT_PARTS: usize = 16;

/// The most returned peers that wait for a comparison. The next pass compares the others.
pub(crate) const MAX_RETURNED: usize = 1024;

/// The most records that are read for one request, in all its ranges.
pub(crate) const MAX_SCANNED: usize = 16_384;
/// The number of records read that cost the requester as much as one that it sends.
pub(crate) const SCANNED_PER_RECORD: usize = 8;
/// The most records that are read in one step.
pub(crate) const READ_AT_ONCE: usize = 1024;

// The ranges of a split range fit into one message, and so do the listed items.
const _: () = assert!(SPLIT_PARTS <= MAX_RANGES && LISTED_AT_ONCE <= MAX_LISTED);
// The items of a peer's list are fetched in one message.
const _: () = assert!(MAX_LISTED <= MAX_ITEMS);
// A slice is read completely for one request, in several steps.
const _: () = assert!(READ_AT_ONCE <= SLICE_RECORDS && SLICE_RECORDS <= MAX_SCANNED);
const _: () = assert!(UNCOMMITTED_RECORDS < MUCH_WRITTEN);
const _: () = assert!(ARRIVAL_SETTLING_TIME.as_millis() < REPAIR_RETRY.first.as_millis());
