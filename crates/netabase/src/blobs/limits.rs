//! The limits of blobs.

use std::time::Duration;

use netabase_store::blob::{Blob, BlobStore};

use crate::rpc::limits::PEER_SHARE;

/// How many groups of 16 KiB may be on their way to a node, of all its fetches: 12 MiB.
pub(crate) const WINDOW_GROUPS: usize = 768;
/// The most slices of one fetch under way.
pub(crate) const MAX_SLICES: usize = 24;
/// How long a fetch waits for a part that can be verified before it gives up.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a holder may take with a slice before another one without work is asked for it, too.
pub(crate) const STEAL_AFTER: Duration = Duration::from_millis(500);
/// How often a fetch looks for slices to ask others for, and for holders that are not busy any
/// more.
pub(crate) const FETCH_TICK: Duration = Duration::from_millis(100);
/// How often holders are looked for when there are none left.
pub(crate) const MAX_SEARCHES: u32 = 4;
/// How long to wait before that; the first two times it is done at once.
pub(crate) const SEARCH_PAUSE: Duration = Duration::from_secs(1);

/// The most connected peers that are asked whether they have a blob.
pub(crate) const MAX_ASKED_PEERS: usize = 32;
/// How long a search takes at most.
pub(crate) const SEARCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The most holders that are remembered of a blob.
pub(crate) const MAX_BLOB_HOLDERS: usize = 64;
/// How many slices a new holder is asked for at a time.
pub(crate) const FIRST_SLICES: usize = 2;
/// How many one that has delivered is asked for.
pub(crate) const MAX_SLICES_OF_HOLDER: usize = 8;
/// How often in a row a holder may fail.
pub(crate) const MAX_HOLDER_FAILURES: u32 = 2;
/// How long a holder that is busy is left alone.
pub(crate) const BUSY_PAUSE: Duration = Duration::from_millis(250);
/// How often in a row a holder may be busy.
pub(crate) const MAX_BUSY_ANSWERS: u32 = 40;

/// How much is read at a time.
pub(crate) const INPUT_PART_BYTES: usize = 256 * 1024;
/// How many parts are read ahead.
pub(crate) const INPUT_PARTS: usize = 4;

/// The most blobs that are provided. Holders of others are found among the connected peers alone.
pub(crate) const MAX_PROVIDED_BLOBS: usize = 16_384;

/// How much is read from the disk at a time.
pub(crate) const READ_BYTES: u64 = 256 * 1024;
/// How much is fetched ahead of one who reads in order.
pub(crate) const READ_AHEAD_BYTES: u64 = 4 * 1024 * 1024;

/// The longest frame: a slice of 512 KiB and what proves it.
pub(crate) const MAX_BLOB_FRAME_BYTES: usize = 1024 * 1024;
/// How many bytes of requests from peers are in memory, read or being read.
pub(crate) const MAX_BLOB_INCOMING_BYTES: usize = 4 * 1024 * 1024;
/// How many bytes of slices are in memory until they are sent; an eighth, which one peer may have,
/// is as many slices as it asks for at a time. Who asks for more is told that this node is busy.
pub(crate) const MAX_BLOB_OUTGOING_BYTES: usize = 40 * 1024 * 1024;

/// The groups of a slice, the unit in which a blob is asked for, and their bytes.
const SLICE_GROUPS: u64 = BlobStore::MAX_SLICE_GROUPS;
const SLICE_BYTES: u64 = SLICE_GROUPS * Blob::GROUP_BYTES;

// All slices of one fetch fit into the window of all fetches.
const _: () = assert!(MAX_SLICES as u64 * SLICE_GROUPS <= WINDOW_GROUPS as u64);
// One peer's share of what waits to be sent is what it asks for at a time.
const _: () =
    assert!(MAX_SLICES_OF_HOLDER as u64 * SLICE_BYTES <= (MAX_BLOB_OUTGOING_BYTES / PEER_SHARE) as u64);
// A slice and its proof fit into a frame.
const _: () = assert!(SLICE_BYTES < MAX_BLOB_FRAME_BYTES as u64);
const _: () = assert!(FIRST_SLICES <= MAX_SLICES_OF_HOLDER && MAX_SLICES_OF_HOLDER <= MAX_SLICES);
// A fetch outlives a search for holders, and has others asked long before it gives up.
const _: () = assert!(SEARCH_TIMEOUT.as_millis() < STALL_TIMEOUT.as_millis());
const _: () = assert!(FETCH_TICK.as_millis() < STEAL_AFTER.as_millis());
