//! The limits of queries.

use std::time::Duration;

use netabase_store::RecordKey;

use crate::protocol::limits::MAX_KEYS_PER_REQUEST;
use crate::protocol::limits::MAX_PAGE_RECORDS;
use crate::query::keys::SHARDS;
use crate::rpc::backoff::Backoff;

/// The most questions for records of one node under way, each of whose answers is as long as a
/// frame at most.
pub(crate) const MAX_PAGES_IN_FLIGHT: usize = 64;
/// How many records a page has where the query has no limit.
pub const DEFAULT_PAGE_RECORDS: u64 = 1000;
/// How many records wait for who reads a stream of them.
pub(crate) const STREAM_CAPACITY: usize = 256;

/// The most pages that are kept; the oldest makes room.
pub(crate) const MAX_CACHED_PAGES: usize = 64;
/// The most bytes of records that are kept.
pub(crate) const MAX_CACHED_BYTES: usize = 16 * 1024 * 1024;

/// The longest request, whose keys are those of one batch.
pub(crate) const CONFIRM_REQUEST_BYTES: usize = 1024 * 1024;
/// How many times the timeout of a peer a batch may take, however many peers say to have newer
/// versions.
pub(crate) const CONFIRM_TIMEOUTS: u32 = 2;

/// How many providers a list of them has room for. One with as many may lack some, who are found in
/// its shards.
pub(crate) const MAX_LISTED_PROVIDERS: usize = 20;
/// How often a list is divided into shards, and a shard into shards again: room for 80,000 holders.
pub(crate) const MAX_SHARD_DEPTH: usize = 3;
/// The most peers that are found.
pub(crate) const MAX_HOLDERS: usize = 256;
/// The most lists that are looked up for one question, and at a time.
pub(crate) const MAX_LISTS: usize = 64;
pub(crate) const LOOKUP_CONCURRENCY: usize = 8;
/// How long lists are looked up. Dead peers may keep a lookup busy for longer.
pub(crate) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How many answers wait to be read, from peers that were asked for a list.
pub(crate) const LOOKUP_ANSWERS: usize = 64;
/// In a network with fewer peers than this everybody is asked: nearly all of them hold nearly
/// everything, and nobody needs to have said so yet.
pub(crate) const SMALL_NETWORK: usize = 24;
/// How long the answer to a lookup is used again.
pub(crate) const HOLDERS_LIFETIME: Duration = Duration::from_secs(5);
/// How many answers are kept for that time.
pub(crate) const MAX_KEPT_LOOKUPS: usize = 256;

/// The most records that are remembered after they were given out, by which older versions from
/// slower sources are known; half of them are forgotten at a time.
pub(crate) const MAX_REMEMBERED_RECORDS: usize = 65_536;

/// The most entries that are looked at for one page; those of records that have expired give none.
pub(crate) const MAX_PAGE_ENTRIES: usize = 2 * MAX_PAGE_RECORDS;
/// How many times as many bytes are read for a page as it may have: records that have expired are
/// read, too.
pub(crate) const READ_FACTOR: usize = 2;
/// How many records of a page cost a peer as much as one that it sends: they are read, and no
/// signature is checked.
pub(crate) const RECORDS_PER_CHARGE: usize = 16;

/// How many records are confirmed and given out at a time.
pub(crate) const CONFIRM_BATCH: usize = 256;
/// How many records ahead of the reader are asked for.
pub(crate) const READ_AHEAD_RECORDS: usize = 512;
/// The fewest records that are asked for at a time.
pub(crate) const MIN_PAGE_RECORDS: usize = 16;
/// The most bytes of a page that are asked for, beyond one record.
pub(crate) const PAGE_BYTES: usize = 256 * 1024;
/// How many answers in a row may tell of nothing; expired records make some.
pub(crate) const MAX_EMPTY_PAGES: u32 = 16;
/// How many records that are refused make a peer's answers worthless.
pub(crate) const MAX_REFUSED_RECORDS: u64 = 16;

/// How often a busy peer is asked, and how much later each time.
pub(crate) const BUSY_RETRIES: u32 = 3;
pub(crate) const BUSY_BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(100), max: Duration::from_millis(400) };

// The keys of one batch fit into one request.
const _: () = assert!(CONFIRM_BATCH * RecordKey::MAX_BYTES <= CONFIRM_REQUEST_BYTES);
const _: () = assert!(CONFIRM_BATCH <= MAX_KEYS_PER_REQUEST && CONFIRM_BATCH <= READ_AHEAD_RECORDS);
const _: () = assert!(CONFIRM_BATCH <= STREAM_CAPACITY);
const _: () =
    assert!(MIN_PAGE_RECORDS <= MAX_PAGE_RECORDS && DEFAULT_PAGE_RECORDS <= MAX_PAGE_RECORDS as u64);
// A small network is found whole, and so is a list with all its shards of one level.
const _: () = assert!(SMALL_NETWORK <= MAX_HOLDERS && MAX_LISTED_PROVIDERS <= MAX_HOLDERS);
const _: () = assert!(SHARDS as usize + 1 <= MAX_LISTS);
