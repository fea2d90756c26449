//! Bounds of what replication keeps and does.

use std::time::Duration;

/// The most items under one sum; a piece with more is cut into two.
pub(crate) const MAX_PIECE: usize = 512;

/// How many items a sum has that grows at its end, before the next one begins.
pub(crate) const FULL_PIECE: usize = 384;

/// How many pieces are kept after they were read.
pub(crate) const CACHED_PIECES: usize = 16;

/// The most items that wait.
pub(crate) const MAX_SET_CHANGES: usize = 65_536;

/// The most records with one value whose scope is compared: they are gathered in memory, about 100
/// bytes each.
pub(crate) const MAX_VALUE_ITEMS: usize = 1 << 20;

/// How many sets of values are kept, and how many items of all of them, of which each takes about
/// 100 bytes.
pub(crate) const MAX_CACHED_SETS: usize = 16;

pub(crate) const MAX_CACHED_ITEMS: usize = MAX_VALUE_ITEMS;

/// How many changes are looked at to find out whether a set is still what it was; after more it is
/// gathered anew.
pub(crate) const MAX_COMPARED_CHANGES: u64 = 256;

/// The shortest limit of messages.
pub(crate) const MIN_SYNC_MESSAGE_BYTES: usize = 4096;

/// How many of the farthest records are looked up at a time for one that may go; others are our
/// own, and are not looked up again.
pub(crate) const MAX_EVICTION_LOOKUPS: usize = 2048;

/// The longest the writer sleeps before it looks for what is to go.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The most records that one sweep deletes of each kind, and the most old tombstones that it looks
/// at.
pub(crate) const SWEEP_RECORDS: usize = 1024;

/// How often it is written down that a store is online.
pub(crate) const ONLINE_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// How many records are given up in one transaction.
pub(crate) const DISCARD_RECORDS: usize = 1024;

/// How far the wall clock may be from where the time that has passed would have it, for a
/// comparison with peers to hold.
pub(crate) const MAX_DRIFT: Duration = Duration::from_secs(5);

/// How many versions from the future are looked at in one call.
pub(crate) const MAX_REDATED: usize = 4096;

/// The most marks of a store.
pub(crate) const MAX_MARKS: usize = 64;

/// The longest name of a mark, in bytes.
pub(crate) const MAX_MARK_NAME_BYTES: usize = 64;

/// The longest value of a mark, in bytes.
pub(crate) const MAX_MARK_BYTES: usize = 1024;

/// The most providers of one key.
pub(crate) const MAX_PROVIDERS_PER_KEY: usize = 20;

/// The most provider records in all.
pub(crate) const MAX_PROVIDER_RECORDS: usize = 65_536;

/// The most provider records of one peer, an eighth of all: one peer's cannot crowd out everybody
/// else's.
pub(crate) const MAX_PROVIDER_RECORDS_PER_PEER: usize = 8192;

/// The most bytes of one peer's keys and addresses, an eighth of all, too.
pub(crate) const MAX_PROVIDER_BYTES_PER_PEER: usize = 2 * 1024 * 1024;

/// The most bytes of keys and addresses in all.
pub(crate) const MAX_PROVIDER_BYTES: usize = 16 * 1024 * 1024;

/// The most addresses that are kept of one provider.
pub(crate) const MAX_PROVIDER_ADDRESSES: usize = 16;

/// The longest address that is kept, in bytes; longer ones are left out.
pub(crate) const MAX_PROVIDER_ADDRESS_BYTES: usize = 512;

/// The longest key that a provider may announce, in bytes.
pub(crate) const MAX_PROVIDED_KEY_BYTES: usize = 2048;
