//! The limits of the repair.

use std::time::Duration;

use crate::limits::{MIN_PUT_COST_KIB, PUT_BUDGET_KIB};
use crate::rpc::backoff::Backoff;

/// How many records are compared at a time.
pub(crate) const SLICE_RECORDS: usize = 4096;
/// How many peers a slice is compared with at a time.
pub(crate) const CONCURRENT_PEERS: usize = 4;
/// How often the peers of a slice are chosen anew because some of them were gone.
pub(crate) const MAX_VIEWS: usize = 3;
/// How long one peer may take with one slice; what is left is found by the next walk.
pub(crate) const SLICE_PATIENCE: Duration = Duration::from_secs(60);
/// The most records that are fetched from one peer in one slice.
pub(crate) const MAX_MISSING: usize = 16 * MAX_ITEMS;
/// From how many more peers a record is fetched that the first one did not deliver.
pub(crate) const MAX_SOURCES: usize = 3;
/// The most messages that one comparison with one peer takes.
pub(crate) const MAX_MESSAGES: usize = 64;
/// The most ranges in one message.
pub(crate) const MAX_RANGES: usize = 32;
/// The most records that are offered or fetched in one message.
pub(crate) const MAX_ITEMS: usize = 1024;
/// How long to wait for further peers after one has come or gone.
pub(crate) const ARRIVAL_SETTLING_TIME: Duration = Duration::from_millis(500);
/// How many times as long as the last comparison took peers that have come wait for the next one.
/// What was written here and a node that has fallen behind wait only once as long.
pub(crate) const REPAIR_REST: u32 = 8;
/// The longest of that, and of the time after which a node that is still behind tries again.
pub(crate) const MAX_REPAIR_REST: Duration = Duration::from_secs(10 * 60);
/// How soon a node that is still behind tries again.
pub(crate) const REPAIR_RETRY: Backoff = Backoff { first: Duration::from_secs(2), max: MAX_REPAIR_REST };
/// How soon everything is compared after peers are gone, as a part of the interval.
pub(crate) const REPAIR_HURRY: u32 = 16;
/// How far a walk strays from its pace, in percent, so that nodes that started together do not stay
/// together.
pub(crate) const REPAIR_JITTER_PERCENT: u32 = 20;

/// From how many records on everything is compared at once: more than there are puts under way,
/// which count until they are sent.
pub(crate) const MUCH_WRITTEN: i64 = 1024;
/// How many puts send their records at a time before they are committed.
pub(crate) const UNCOMMITTED_RECORDS: i64 = 256;

/// How many items of a range are listed rather than summed up once more.
pub(crate) const LISTED_AT_ONCE: usize = 128;
/// The most items in one list.
pub(crate) const MAX_LISTED: usize = 1024;
/// Into how many ranges a range is split.
pub(crate) const SPLIT_PARTS: usize = 16;

/// The most peers that wait to be compared with because they have come back; the next walk finds
/// what others miss.
pub(crate) const MAX_RETURNED: usize = 1024;

/// The most records that are looked at for one request, in all its ranges.
pub(crate) const MAX_SCANNED: usize = 16_384;
/// How many of them cost the asker as much as a record that it sends.
pub(crate) const SCANNED_PER_RECORD: usize = 8;
/// How many of them are read at a time.
pub(crate) const READ_AT_ONCE: usize = 1024;

// The ranges into which one is split go in one message, and so do the items that are listed.
const _: () = assert!(SPLIT_PARTS <= MAX_RANGES && LISTED_AT_ONCE <= MAX_LISTED);
// What a peer lists is fetched in one message.
const _: () = assert!(MAX_LISTED <= MAX_ITEMS);
// A slice is looked at whole for one request, in several steps.
const _: () = assert!(READ_AT_ONCE <= SLICE_RECORDS && SLICE_RECORDS <= MAX_SCANNED);
// Puts under way alone are not much.
const _: () = assert!((PUT_BUDGET_KIB / MIN_PUT_COST_KIB) as i64 <= MUCH_WRITTEN);
const _: () = assert!(UNCOMMITTED_RECORDS < MUCH_WRITTEN);
const _: () = assert!(ARRIVAL_SETTLING_TIME.as_millis() < REPAIR_RETRY.first.as_millis());
