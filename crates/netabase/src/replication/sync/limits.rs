//! The limits of kept scopes.

use std::time::Duration;

use netabase_store::replica::SyncItem;

use crate::protocol::limits::{MAX_NEED_IDS, MAX_NEEDS, MAX_SYNC_RECORDS};
use crate::rpc::backoff::Backoff;
use crate::rpc::limits::PEER_SHARE;

/// How many bytes of requests from peers are in memory.
pub(crate) const MAX_SYNC_INCOMING_BYTES: usize = 32 * 1024 * 1024;
/// How long a frame is at most, unless one record is larger.
pub const SYNC_FRAME_BYTES: usize = 1024 * 1024;

/// How many blobs are fetched at a time.
pub(crate) const MAX_BLOB_FETCHES: usize = 2;
/// How many blobs wait to be fetched; what is more is found by the next walk.
pub(crate) const MAX_WAITING_BLOBS: usize = 4096;
/// How many references are looked at without a pause for other work of the thread.
pub(crate) const BLOB_WALK_STEP: usize = 1024;
/// How soon after somebody has come what is missing is looked for again.
pub(crate) const BLOB_RETRY_PAUSE: Duration = Duration::from_secs(2);

/// How many versions are remembered that were refused, and are not fetched again; as many for which
/// there was no room.
pub(crate) const MAX_REFUSED_IDS: usize = 65_536;
/// For how long it is remembered that there was no room for a version.
pub(crate) const NO_ROOM_FOR: Duration = Duration::from_secs(10 * 60);

/// How many peers are remembered that compare a scope with ours.
pub(crate) const MAX_HEARD: usize = 1024;
/// For how long a peer that compares a scope is thought to fetch by itself what it lacks.
pub(crate) const HEARD_FOR: Duration = Duration::from_secs(10);

/// How many sessions there are at a time; of one scope there is one, so that nothing comes twice.
pub(crate) const MAX_SESSIONS: usize = 4;
/// How many holders are found of a scope, besides those that are connected.
pub(crate) const MAX_FOUND_PEERS: usize = 64;
/// How far the interval is strayed from, in percent.
pub(crate) const SYNC_JITTER_PERCENT: u32 = 20;

/// The most items that are looked at for one fetch.
pub(crate) const MAX_SYNC_SCANNED: usize = 65_536;
/// From how many times as many items on, and so many more, the peer should ask for all of them.
pub(crate) const MANY_TIMES: usize = 16;
pub(crate) const MANY_MORE: usize = 1024;
/// How much of a frame is for other things than a message of a comparison.
pub(crate) const FRAME_RESERVE: usize = 64;
/// How many entries of the store that are read for an answer cost the asker as much as one record
/// that it sends.
pub(crate) const ENTRIES_PER_RECORD: usize = 16;

/// The most messages of one comparison.
pub(crate) const MAX_ROUNDS: usize = 256;
/// How often a scope is compared anew in one session, since much has come or not everything was
/// known.
pub(crate) const MAX_PASSES: usize = 64;
/// How many records that are missing are kept in mind; what is beyond them is found by the next
/// comparison.
pub(crate) const MAX_DIFFERENCES: usize = 131_072;
/// The most ids in one request for records.
pub(crate) const MAX_IDS_PER_FETCH: usize = 16_384;
/// For how many records in a row there may be no room before no further ones are fetched.
pub(crate) const MAX_FULL: usize = 4096;
/// How many answers in a row may bring nothing new.
pub(crate) const MAX_IDLE_PAGES: usize = 64;
/// How many pages are verified while the next one is on its way.
pub(crate) const PAGES_AHEAD: usize = 2;
/// From how many more items on a peer's records are streamed, if at least half of them are thought
/// to be missing.
pub(crate) const STREAM_AT: usize = 1024;

/// How many records at least are worth a thread of their own.
pub(crate) const MIN_SHARE: usize = 64;
/// How often the disk is waited for while too many writes wait.
pub(crate) const MAX_WAITS: usize = 64;

/// How many items that the peer lacks are kept in mind; with more the comparison waits until these
/// are given.
pub(crate) const MAX_HAVE: usize = 65_536;
/// Of how many records is remembered that the peer has an earlier version; the others are found by
/// the next session.
pub(crate) const MAX_OUTDATED: usize = 4096;
/// How many records are looked up at a time.
pub(crate) const GIVE_PAGE_RECORDS: usize = MAX_SYNC_RECORDS;
/// How many bytes the keys have that are looked up at a time.
pub(crate) const GIVE_PAGE_BYTES: usize = SYNC_FRAME_BYTES;
/// The most bytes in memory at a time of what is to be given to a peer: ids, the keys of a page,
/// and one frame, unless one record is larger, which goes alone.
pub const SYNC_GIVE_BYTES: usize = MAX_HAVE * size_of::<SyncItem>() + GIVE_PAGE_BYTES + SYNC_FRAME_BYTES;

/// How long a session may take without anything new.
pub(crate) const PACE_PATIENCE: Duration = Duration::from_secs(120);
/// Over how long it is counted how much is new.
pub(crate) const PACE_WINDOW: Duration = Duration::from_secs(120);
/// How many records, or bytes of them, must come or be given in each.
pub(crate) const PACE_MIN_RECORDS: u64 = 512;
pub(crate) const PACE_MIN_BYTES: u64 = 1024 * 1024;

/// How long a peer is left alone after a session has failed, and at most.
pub(crate) const SESSION_BACKOFF: Backoff =
    Backoff { first: Duration::from_secs(2), max: Duration::from_secs(30 * 60) };
/// How long after a session another one begins because live changes were lost meanwhile, and at
/// most: each session that found nothing missing doubles it.
pub(crate) const OVERRUN_PAUSE: Backoff =
    Backoff { first: Duration::from_millis(100), max: Duration::from_secs(60) };
/// For how long after the back-off a peer that has gone is remembered.
pub(crate) const REMEMBERED_FOR: Duration = SESSION_BACKOFF.max;
/// How many peers that have gone are remembered, with all scopes together.
pub(crate) const MAX_GONE: usize = 1024;

// Several peers ask at a time.
const _: () = assert!(PEER_SHARE * SYNC_FRAME_BYTES <= MAX_SYNC_INCOMING_BYTES);
const _: () = assert!(FRAME_RESERVE < SYNC_FRAME_BYTES);
// The ids of one fetch fit into as many ranges as it may have.
const _: () = assert!(MAX_NEED_IDS <= MAX_IDS_PER_FETCH && MAX_IDS_PER_FETCH <= MAX_NEEDS * MAX_NEED_IDS);
// A set that differs in more than are kept in mind is streamed.
const _: () = assert!(STREAM_AT <= MAX_DIFFERENCES);
// A page of what is given is taken from what is kept in mind.
const _: () = assert!(GIVE_PAGE_RECORDS <= MAX_HAVE);
// Between two peers that compare at the same time, one gives and the other fetches.
const _: () = assert!(SESSION_BACKOFF.first.as_secs() < HEARD_FOR.as_secs());
