//! Bounds of record keys, envelopes, clocks and member lists.

use std::time::Duration;

/// The longest definition or model name, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 64;

/// The longest primary key, in encoded bytes.
pub(crate) const MAX_PRIMARY_KEY_BYTES: usize = 1024;

/// The longest record key: three slashes, two names and a primary key.
pub(crate) const MAX_RECORD_KEY_BYTES: usize = 4 + 2 * MAX_NAME_BYTES + MAX_PRIMARY_KEY_BYTES;

/// The longest secondary key, in encoded bytes.
pub(crate) const MAX_INDEX_KEY_BYTES: usize = 1024;

/// The most secondary keys of one record.
pub(crate) const MAX_INDEX_KEYS: usize = 1024;

/// How many bytes of a merged record cost as much as a record, where a contribution to it comes.
pub(crate) const BYTES_PER_RECORD: usize = 4096;

/// How far ahead of our clock a peer's timestamp may be.
pub(crate) const MAX_CLOCK_SKEW: Duration = Duration::from_secs(10 * 60);

/// How many timestamps after the same one differ, for those who write the same record at the same
/// time: a 64th of a millisecond.
pub(crate) const MAX_SUCCESSORS: u64 = 1024;

/// The last moment of the year 9999, after which a year has five digits.
pub(crate) const MAX_SHOWN_MILLIS: u64 = 253_402_300_799_999;

/// The most authors whose contributions to a merged record are kept: the latest.
pub(crate) const MAX_CONTRIBUTIONS: usize = 64;

/// The most members of a network, revoked ones included: their list fits a value of the default
/// size.
pub(crate) const MAX_MEMBERS: usize = 16_384;

/// The most records that one step looks at.
pub(crate) const SWEEP_ENTRIES: usize = 4096;

/// The most records that one step removes.
pub(crate) const SWEEP_REMOVALS: usize = 1024;
