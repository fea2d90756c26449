//! The limits of sync sessions, which replicate a scope.

use std::time::Duration;

use netabase_store::replica::SyncItem;

use crate::protocol::limits::{MAX_NEED_IDS, MAX_NEEDS, MAX_SYNC_RECORDS};
use crate::rpc::backoff::Backoff;
use crate::rpc::limits::{MAX_INCOMING_BYTES, PEER_SHARE};

/// The most bytes of a frame, unless one record is larger.
pub const SYNC_FRAME_BYTES: usize = 1024 * 1024;

/// The most concurrent fetches of blobs.
pub(crate) const MAX_BLOB_FETCHES: usize = 2;
/// The most blobs that wait to be fetched. The next walk finds further ones.
pub(crate) const MAX_WAITING_BLOBS: usize = 4096;
/// The references that are read before the task yields.
pub(crate) const BLOB_WALK_STEP: usize = 1024;
/// The time after a peer has connected until missing blobs are searched again.
pub(crate) const BLOB_RETRY_PAUSE: Duration = Duration::from_secs(2);

/// The most remembered ids of refused versions, which are not fetched again, and the most of
/// versions refused for lack of space.
pub(crate) const MAX_REFUSED_IDS: usize = 65_536;
/// The time for which a refusal for lack of space is remembered.
pub(crate) const NO_ROOM_FOR: Duration = Duration::from_secs(10 * 60);

/// The most remembered peers that compare a scope with this node.
pub(crate) const MAX_HEARD: usize = 1024;
/// The time after its comparison for which a peer is expected to fetch missing records itself.
pub(crate) const HEARD_FOR: Duration = Duration::from_secs(10);

/// The most concurrent sessions. A scope has one at a time, so that no record is fetched twice.
pub(crate) const MAX_SESSIONS: usize = 4;
/// The most holders of a scope that are looked up, besides connected ones.
pub(crate) const MAX_FOUND_PEERS: usize = 64;
/// The jitter of the sync interval, in percent.
pub(crate) const SYNC_JITTER_PERCENT: u32 = 20;

/// The most items that are read for one fetch.
pub(crate) const MAX_SYNC_SCANNED: usize = 65_536;
/// The factor of a peer's items that, plus [`MANY_MORE`], this node's set must exceed for the peer
/// to be told to ask for all records.
pub(crate) const MANY_TIMES: usize = 16;
/// The number of items, beyond [`MANY_TIMES`] times a peer's, that this node's set must exceed for
/// the peer to be told to ask for all records.
pub(crate) const MANY_MORE: usize = 1024;
/// The bytes of a frame that are reserved for other fields than a comparison's message.
pub(crate) const FRAME_RESERVE: usize = 64;
/// The number of store entries read for an answer that cost the requester as much as one record
/// that it sends.
pub(crate) const ENTRIES_PER_RECORD: usize = 16;

/// The most messages of one comparison.
pub(crate) const MAX_ROUNDS: usize = 256;
/// The most comparisons of a scope in one session. A further one follows if many records came or
/// the difference was incomplete.
pub(crate) const MAX_PASSES: usize = 64;
/// The most missing records that are kept in memory. The next comparison finds further ones.
pub(crate) const MAX_DIFFERENCES: usize = 131_072;
/// The most ids in one request for records.
pub(crate) const MAX_IDS_PER_FETCH: usize = 16_384;
/// The number of consecutive refusals for lack of space after which a session fetches no more.
pub(crate) const MAX_FULL: usize = 4096;
/// The most consecutive pages without a new record.
pub(crate) const MAX_IDLE_PAGES: usize = 64;
/// The most pages that are verified while the next one is requested.
pub(crate) const PAGES_AHEAD: usize = 2;
/// The number of items by which a peer's set must be larger for its records to be streamed, if at
/// least half of them are estimated to be missing.
pub(crate) const STREAM_AT: usize = 1024;

/// The fewest records that are verified in a thread of their own.
pub(crate) const MIN_SHARE: usize = 64;
/// The most waits for the disk while too many writes are queued.
pub(crate) const MAX_WAITS: usize = 64;

/// The most items in memory that the peer lacks. Above it the comparison waits until they are sent.
pub(crate) const MAX_HAVE: usize = 65_536;
/// The most remembered records of which the peer has an earlier version. The next session finds
/// further ones.
pub(crate) const MAX_OUTDATED: usize = 4096;
/// The most records that are looked up at a time.
pub(crate) const GIVE_PAGE_RECORDS: usize = MAX_SYNC_RECORDS;
/// The most bytes of the keys that are looked up at a time.
pub(crate) const GIVE_PAGE_BYTES: usize = SYNC_FRAME_BYTES;
/// The most bytes in memory of data for a peer: ids, the keys of a page, and one frame. A record
/// larger than a frame is sent alone.
pub const SYNC_GIVE_BYTES: usize = MAX_HAVE * size_of::<SyncItem>() + GIVE_PAGE_BYTES + SYNC_FRAME_BYTES;

/// The longest time of a session without progress.
pub(crate) const PACE_PATIENCE: Duration = Duration::from_secs(120);
/// The window over which progress is measured.
pub(crate) const PACE_WINDOW: Duration = Duration::from_secs(120);
/// The fewest records that a session must fetch or send in each window, unless it moves
/// [`PACE_MIN_BYTES`].
pub(crate) const PACE_MIN_RECORDS: u64 = 512;
/// The fewest bytes of records that a session must fetch or send in each window, unless it moves
/// [`PACE_MIN_RECORDS`].
pub(crate) const PACE_MIN_BYTES: u64 = 1024 * 1024;

/// The back-off after a failed session with a peer.
pub(crate) const SESSION_BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(2), max: Duration::from_secs(30 * 60) };
/// The back-off of sessions that start because live changes were lost. Each session that finds
/// nothing missing doubles it.
pub(crate) const OVERRUN_PAUSE: Backoff =
    Backoff { first: Duration::from_millis(100), max: Duration::from_secs(60) };
/// The time after the back-off for which a disconnected peer is remembered.
pub(crate) const REMEMBERED_FOR: Duration = SESSION_BACKOFF.max;
/// The most remembered disconnected peers, of all scopes together.
pub(crate) const MAX_GONE: usize = 1024;

// Several peers ask concurrently.
const _: () = assert!(PEER_SHARE * SYNC_FRAME_BYTES <= MAX_INCOMING_BYTES);
const _: () = assert!(FRAME_RESERVE < SYNC_FRAME_BYTES);
// The ids of one fetch fit into its ranges.
const _: () = assert!(MAX_NEED_IDS <= MAX_IDS_PER_FETCH && MAX_IDS_PER_FETCH <= MAX_NEEDS * MAX_NEED_IDS);
// A set whose difference exceeds the memory for it is streamed.
const _: () = assert!(STREAM_AT <= MAX_DIFFERENCES);
// A page of items to send is taken from those in memory.
const _: () = assert!(GIVE_PAGE_RECORDS <= MAX_HAVE);
// A peer whose session failed tries again while it is still expected to fetch by itself.
const _: () = assert!(SESSION_BACKOFF.first.as_secs() < HEARD_FOR.as_secs());
