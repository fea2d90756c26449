//! Limits of record keys, envelopes, clocks and member lists.

use std::time::Duration;

use crate::limits::DEFAULT_MAX_VALUE_BYTES;
use crate::version::envelope::{ENVELOPE_OVERHEAD_BYTES, LEN_BYTES};
use crate::write::limits::{GROUP_OPS, MAX_INDEX_ENTRIES};

/// The longest name of a definition or model, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 64;

/// The longest primary key, in encoded bytes.
pub(crate) const MAX_PRIMARY_KEY_BYTES: usize = 1024;

/// The longest record key: a policy's mark, three slashes, two names and a primary key.
pub(crate) const MAX_RECORD_KEY_BYTES: usize = 4 + 2 * MAX_NAME_BYTES + MAX_PRIMARY_KEY_BYTES;

/// The longest secondary key, in encoded bytes.
pub(crate) const MAX_INDEX_KEY_BYTES: usize = 1024;

/// The most secondary keys of one record.
pub(crate) const MAX_INDEX_KEYS: usize = 1024;

/// A contribution costs its sender one record for each so many bytes of the merged record.
pub(crate) const BYTES_PER_RECORD: usize = 4096;

/// The cost of a tombstone for a key that is not stored here, in records: as much as 16 puts.
pub(crate) const IDLE_TOMBSTONE_COST: usize = 16;

/// The most by which a peer's timestamp may be ahead of this store's clock.
pub(crate) const MAX_CLOCK_SKEW: Duration = Duration::from_secs(10 * 60);

/// The most by which the wall clock may stray from the monotonic one between two looks. After more
/// it counts as set.
pub(crate) const MAX_DRIFT: Duration = Duration::from_secs(5);

/// The number of different timestamps that may follow the same one, for writers of one record at
/// the same time: a 64th of a millisecond.
pub(crate) const MAX_SUCCESSORS: u64 = 1024;

/// The last millisecond of the year 9999, after which a year has five digits.
pub(crate) const MAX_SHOWN_MILLIS: u64 = 253_402_300_799_999;

/// The most authors whose contributions to a merged record are kept: the latest ones.
pub(crate) const MAX_CONTRIBUTIONS: usize = 64;

/// The most members of a network, with revoked ones.
pub(crate) const MAX_MEMBERS: usize = 16_384;

/// The most records that one step of the removal of revoked members' records looks at.
pub(crate) const SWEEP_ENTRIES: usize = 4096;

/// The most records that one such step removes.
pub(crate) const SWEEP_REMOVALS: usize = 1024;

// An index entry writes the length of its key in two bytes.
const _: () = assert!(MAX_INDEX_KEY_BYTES <= u16::MAX as usize);
// The entries of the old and the new version of one record wait in memory together.
const _: () = assert!(2 * MAX_INDEX_KEYS <= MAX_INDEX_ENTRIES);
// A full merged record has bytes for each contribution's length, signature and payload.
const _: () =
    assert!(MAX_CONTRIBUTIONS * (2 * ENVELOPE_OVERHEAD_BYTES + LEN_BYTES) < DEFAULT_MAX_VALUE_BYTES);
// The list of all members is a value of the default size: of each member a key and two times, with
// a byte in front of each time, which take 10 bytes at most.
const _: () = assert!(8 + MAX_MEMBERS * (32 + 2 * (1 + 10)) <= DEFAULT_MAX_VALUE_BYTES);
// One step is one group of the writer.
const _: () = assert!(SWEEP_REMOVALS <= SWEEP_ENTRIES && SWEEP_REMOVALS <= GROUP_OPS);
// A time that has a date fits the 48 bits of a timestamp.
const _: () = assert!(MAX_SHOWN_MILLIS < 1 << 48);
// A clock that peers refuse was set, and did not stray.
const _: () = assert!(MAX_DRIFT.as_millis() < MAX_CLOCK_SKEW.as_millis());
