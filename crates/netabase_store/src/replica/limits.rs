//! Limits of replication: sets and how they are compared, quotas, sweeps, marks and providers.

use std::time::Duration;

use crate::version::limits::MAX_DRIFT;
use crate::write::limits::GROUP_OPS;

/// The most items under one sum. A piece with more is cut into two.
pub(crate) const MAX_PIECE: usize = 512;

/// The number of items at which a piece that grows at its end is full, and the next one begins.
pub(crate) const FULL_PIECE: usize = 384;

/// The number of items up to which two adjacent pieces become one.
pub(crate) const MERGE_AT: u32 = 128;

/// The number of pieces that stay in memory after they were read.
pub(crate) const CACHED_PIECES: usize = 16;

/// The most items that wait for the end of their group.
pub(crate) const MAX_SET_CHANGES: usize = 65_536;

/// The most records in the scope of a value that is compared. Its set is gathered in memory, in
/// about 100 bytes a record.
pub(crate) const MAX_VALUE_ITEMS: usize = 1 << 20;

/// The most sets of values in memory.
pub(crate) const MAX_CACHED_SETS: usize = 16;

/// The most items of all sets of values in memory: one set of the largest size fits.
pub(crate) const MAX_CACHED_ITEMS: usize = MAX_VALUE_ITEMS;

/// The most changes that are read to find out whether a set in memory is still current. After more
/// the set is gathered again.
pub(crate) const MAX_COMPARED_CHANGES: u64 = 256;

/// The smallest limit of a message's length, in bytes.
pub(crate) const MIN_SYNC_MESSAGE_BYTES: usize = 4096;

/// The most of the farthest records that are looked up at a time to find one to evict. This store's
/// own are not looked up again.
pub(crate) const MAX_EVICTION_LOOKUPS: usize = 2048;

/// The longest time that the writer sleeps before it looks for records that have expired or are to
/// be evicted.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The most records of each kind that one sweep deletes, and the most old tombstones that it looks
/// at.
pub(crate) const SWEEP_RECORDS: usize = 1024;

/// The interval at which a store records on the disk that it is online.
pub(crate) const ONLINE_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The most records that one transaction of a discard evicts.
pub(crate) const DISCARD_RECORDS: usize = 1024;

/// The most versions ahead of the clock that one call looks at.
pub(crate) const MAX_REDATED: usize = 4096;

/// The most authors that a store refuses.
pub(crate) const MAX_REFUSED_AUTHORS: usize = 1024;

/// The most tombstones of one other author that delete nothing here, beyond the number of its
/// records.
pub(crate) const MAX_IDLE_TOMBSTONES: u64 = 8192;

/// The most marks of a store.
pub(crate) const MAX_MARKS: usize = 64;

/// The longest name of a mark, in bytes.
pub(crate) const MAX_MARK_NAME_BYTES: usize = 64;

/// The longest value of a mark, in bytes.
pub(crate) const MAX_MARK_BYTES: usize = 1024;

/// The most providers of one key.
#[cfg(feature = "libp2p")]
pub(crate) const MAX_PROVIDERS_PER_KEY: usize = 20;

/// The most provider records of all peers.
#[cfg(feature = "libp2p")]
pub(crate) const MAX_PROVIDER_RECORDS: usize = 65_536;

/// The most bytes of keys and addresses in provider records of all peers.
#[cfg(feature = "libp2p")]
pub(crate) const MAX_PROVIDER_BYTES: usize = 16 * 1024 * 1024;

/// The fraction of both that one peer may fill, so that it cannot crowd out all others.
#[cfg(feature = "libp2p")]
const PEER_FRACTION: usize = 8;

/// The most provider records of one peer.
#[cfg(feature = "libp2p")]
pub(crate) const MAX_PROVIDER_RECORDS_PER_PEER: usize = MAX_PROVIDER_RECORDS / PEER_FRACTION;

/// The most bytes of keys and addresses in provider records of one peer.
#[cfg(feature = "libp2p")]
pub(crate) const MAX_PROVIDER_BYTES_PER_PEER: usize = MAX_PROVIDER_BYTES / PEER_FRACTION;

/// The most addresses that are kept of one provider.
#[cfg(feature = "libp2p")]
pub(crate) const MAX_PROVIDER_ADDRESSES: usize = 16;

/// The longest address that is kept, in bytes. Longer ones are left out.
#[cfg(feature = "libp2p")]
pub(crate) const MAX_PROVIDER_ADDRESS_BYTES: usize = 512;

/// The longest key that a provider may announce, in bytes.
#[cfg(feature = "libp2p")]
pub(crate) const MAX_PROVIDED_KEY_BYTES: usize = 2048;

// A piece is full before it is cut, and the halves of a cut are not merged again.
const _: () = assert!(FULL_PIECE < MAX_PIECE && MERGE_AT as usize <= MAX_PIECE / 2);
// Each write of a group replaces one item by another.
const _: () = assert!(2 * GROUP_OPS <= MAX_SET_CHANGES);
// Sweeps of three kinds, and the evictions of a discard, are one group of the writer each.
const _: () = assert!(3 * SWEEP_RECORDS <= GROUP_OPS && DISCARD_RECORDS < GROUP_OPS);
// A search for a record to evict looks at more records than a sweep evicts.
const _: () = assert!(SWEEP_RECORDS < MAX_EVICTION_LOOKUPS);
// A sweep writes down in one group that the records of all refused authors are gone.
const _: () = assert!(MAX_REFUSED_AUTHORS <= GROUP_OPS);
// A clock that was set is noticed by the next sweep.
const _: () = assert!(MAX_DRIFT.as_millis() < SWEEP_INTERVAL.as_millis());
// All marks are in memory, in less than 128 KiB.
const _: () = assert!(MAX_MARKS * (MAX_MARK_NAME_BYTES + MAX_MARK_BYTES) < 128 * 1024);
// The longest record of one provider fits its peer's share, and those of a key fit the whole.
#[cfg(feature = "libp2p")]
const LONGEST_PROVIDER_BYTES: usize =
    MAX_PROVIDED_KEY_BYTES + MAX_PROVIDER_ADDRESSES * MAX_PROVIDER_ADDRESS_BYTES;
#[cfg(feature = "libp2p")]
const _: () = assert!(LONGEST_PROVIDER_BYTES <= MAX_PROVIDER_BYTES_PER_PEER);
#[cfg(feature = "libp2p")]
const _: () = assert!(MAX_PROVIDERS_PER_KEY * LONGEST_PROVIDER_BYTES <= MAX_PROVIDER_BYTES);
// A record key can be announced.
#[cfg(feature = "libp2p")]
const _: () = assert!(crate::version::limits::MAX_RECORD_KEY_BYTES <= MAX_PROVIDED_KEY_BYTES);
