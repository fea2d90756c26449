//! The limits of large values.

use std::time::Duration;

use netabase_store::blob::{Blob, BlobStore};

use crate::rpc::limits::{MAX_OUTGOING_BYTES, PEER_SHARE};

/// The most groups of 16 KiB that a node's fetches request concurrently: 12 MiB.
pub(crate) const WINDOW_GROUPS: usize = 768;
/// The most concurrent slices of one fetch.
pub(crate) const MAX_SLICES: usize = 24;
/// The time without a verified part after which a fetch gives up.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The time that a holder may take for a slice before an idle holder is asked for it, too.
pub(crate) const STEAL_AFTER: Duration = Duration::from_millis(500);
/// The time between two checks of a fetch for slow slices and for holders that were busy.
pub(crate) const FETCH_TICK: Duration = Duration::from_millis(100);
/// The most searches for holders when none is left.
pub(crate) const MAX_SEARCHES: u32 = 4;
/// The time before a search for holders; the first two searches start at once.
pub(crate) const SEARCH_PAUSE: Duration = Duration::from_secs(1);

/// The most connected peers that are asked whether they have a blob.
pub(crate) const MAX_ASKED_PEERS: usize = 32;
/// The longest duration of a search for holders.
pub(crate) const SEARCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The most remembered holders of a blob.
pub(crate) const MAX_BLOB_HOLDERS: usize = 64;
/// The most concurrent slices that a new holder is asked for.
pub(crate) const FIRST_SLICES: usize = 2;
/// The most concurrent slices that a proven holder is asked for.
pub(crate) const MAX_SLICES_OF_HOLDER: usize = 8;
/// The most consecutive failures of a holder.
pub(crate) const MAX_HOLDER_FAILURES: u32 = 2;
/// The time after a `Busy` for which a holder is not asked.
pub(crate) const BUSY_PAUSE: Duration = Duration::from_millis(250);
/// The most consecutive `Busy` answers of a holder.
pub(crate) const MAX_BUSY_ANSWERS: u32 = 40;

/// The bytes of the input that are read at a time.
pub(crate) const INPUT_PART_BYTES: usize = 256 * 1024;
/// The most parts of the input that are read ahead.
pub(crate) const INPUT_PARTS: usize = 4;

/// The most blobs that a node provides. Other blobs are found only at connected peers.
pub(crate) const MAX_PROVIDED_BLOBS: usize = 16_384;

/// The bytes that are read from the disk at a time.
pub(crate) const READ_BYTES: u64 = 256 * 1024;
/// The bytes that are fetched ahead of a sequential reader.
pub(crate) const READ_AHEAD_BYTES: u64 = 4 * 1024 * 1024;

/// The most bytes of a frame: a slice of 512 KiB and its proof.
pub(crate) const MAX_BLOB_FRAME_BYTES: usize = 1024 * 1024;

/// The groups of 16 KiB of a slice, the unit of a request.
const SLICE_GROUPS: u64 = BlobStore::MAX_SLICE_GROUPS;
/// The bytes of a slice.
const SLICE_BYTES: u64 = SLICE_GROUPS * Blob::GROUP_BYTES;

// All slices of one fetch fit into the window of all fetches.
const _: () = assert!(MAX_SLICES as u64 * SLICE_GROUPS <= WINDOW_GROUPS as u64);
// One peer's share of the waiting responses is what it asks for concurrently.
const _: () = assert!(MAX_SLICES_OF_HOLDER as u64 * SLICE_BYTES <= (MAX_OUTGOING_BYTES / PEER_SHARE) as u64);
// A slice and its proof fit into a frame.
const _: () = assert!(SLICE_BYTES < MAX_BLOB_FRAME_BYTES as u64);
const _: () = assert!(FIRST_SLICES <= MAX_SLICES_OF_HOLDER && MAX_SLICES_OF_HOLDER <= MAX_SLICES);
// A fetch outlives a search for holders, and asks other holders long before it gives up.
const _: () = assert!(SEARCH_TIMEOUT.as_millis() < STALL_TIMEOUT.as_millis());
const _: () = assert!(FETCH_TICK.as_millis() < STEAL_AFTER.as_millis());
