//! The limits of queries of the network.

use std::time::Duration;

use netabase_store::RecordKey;

use crate::protocol::limits::{MAX_KEYS_PER_REQUEST, MAX_PAGE_RECORDS};
use crate::query::keys::SHARDS;
use crate::rpc::backoff::Backoff;

/// The most concurrent requests of one node for pages. Each response is at most one frame long.
pub(crate) const MAX_PAGES_IN_FLIGHT: usize = 64;
/// The default number of records of a page.
pub const DEFAULT_PAGE_RECORDS: u64 = 1000;
/// The most records that wait for the reader of a stream.
pub(crate) const STREAM_CAPACITY: usize = 256;

/// The most cached pages. The oldest is evicted.
pub(crate) const MAX_CACHED_PAGES: usize = 64;
/// The most bytes of records in cached pages.
pub(crate) const MAX_CACHED_BYTES: usize = 16 * 1024 * 1024;

/// The most bytes of a confirming request, whose keys are those of one batch.
pub(crate) const CONFIRM_REQUEST_BYTES: usize = 1024 * 1024;
/// The factor of a peer's timeout that confirming a batch may take, however many peers claim newer
/// versions.
pub(crate) const CONFIRM_TIMEOUTS: u32 = 2;

/// The most providers of one list. A list of that many may be incomplete; the other providers are
/// in its shards.
pub(crate) const MAX_LISTED_PROVIDERS: usize = 20;
/// The most levels of shards of a list, which give room for 80,000 holders.
pub(crate) const MAX_SHARD_DEPTH: usize = 3;
/// The most holders that a lookup returns.
pub(crate) const MAX_HOLDERS: usize = 256;
/// The most lists that are looked up for one question.
pub(crate) const MAX_LISTS: usize = 64;
/// The most lists of one question that are looked up concurrently.
pub(crate) const LOOKUP_CONCURRENCY: usize = 8;
/// The timeout of the lookup of lists. Dead peers may keep a lookup busy for longer.
pub(crate) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// The most unread answers from peers that were asked for a list.
pub(crate) const LOOKUP_ANSWERS: usize = 64;
/// The number of peers below which a network is small. All peers of a small network are asked,
/// since each holds nearly every record, advertised or not.
pub(crate) const SMALL_NETWORK: usize = 24;
/// The time for which the result of a lookup is cached.
pub(crate) const HOLDERS_LIFETIME: Duration = Duration::from_secs(5);
/// The most cached results of lookups.
pub(crate) const MAX_KEPT_LOOKUPS: usize = 256;

/// The most records that are remembered after they were returned, in order to recognise older
/// versions from slower sources. Half of them are dropped at a time.
pub(crate) const MAX_REMEMBERED_RECORDS: usize = 65_536;

/// The most entries that are read for one page. Entries of expired records give no record.
pub(crate) const MAX_PAGE_ENTRIES: usize = 2 * MAX_PAGE_RECORDS;
/// The factor of a page's bytes that may be read for it, since expired records are read, too.
pub(crate) const READ_FACTOR: usize = 2;
/// The number of records of a page that cost a peer as much as one that it sends. They are read,
/// and no signature is verified.
pub(crate) const RECORDS_PER_CHARGE: usize = 16;

/// The most records that are confirmed and returned at a time.
pub(crate) const CONFIRM_BATCH: usize = 256;
/// The most records that are requested ahead of the reader.
pub(crate) const READ_AHEAD_RECORDS: usize = 512;
/// The fewest records of a request for a page.
pub(crate) const MIN_PAGE_RECORDS: usize = 16;
/// The most bytes of a requested page, beyond one record.
pub(crate) const PAGE_BYTES: usize = 256 * 1024;
/// The most consecutive empty pages of a peer. Expired records cause some.
pub(crate) const MAX_EMPTY_PAGES: u32 = 16;
/// The number of refused records from which a peer's answers are ignored.
pub(crate) const MAX_REFUSED_RECORDS: u64 = 16;

/// The most requests for a page to a busy peer.
pub(crate) const MAX_BUSY_REQUESTS: u32 = 3;
/// The back-off between requests to a busy peer.
pub(crate) const BUSY_BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(100), max: Duration::from_millis(400) };

// The keys of one batch fit into one request.
const _: () = assert!(CONFIRM_BATCH * RecordKey::MAX_BYTES <= CONFIRM_REQUEST_BYTES);
const _: () = assert!(CONFIRM_BATCH <= MAX_KEYS_PER_REQUEST && CONFIRM_BATCH <= READ_AHEAD_RECORDS);
const _: () = assert!(CONFIRM_BATCH <= STREAM_CAPACITY);
const _: () =
    assert!(MIN_PAGE_RECORDS <= MAX_PAGE_RECORDS && DEFAULT_PAGE_RECORDS <= MAX_PAGE_RECORDS as u64);
// A small network is found completely, and so is a list with all its shards of one level.
const _: () = assert!(SMALL_NETWORK <= MAX_HOLDERS && MAX_LISTED_PROVIDERS <= MAX_HOLDERS);
const _: () = assert!((SHARDS as usize) < MAX_LISTS);
