//! The limits of requests and answers.

use std::time::Duration;

use crate::limits::MAX_VALUE_BYTES;
use crate::rpc::pool::Limits;

/// How long a request may take, from its first byte to the last one of its answer.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The most requests of one connection under way, in both directions together; more are dropped.
pub(crate) const MAX_CONCURRENT_STREAMS: usize = 64;
/// What a frame may have beyond one record of the largest size.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = 64 * 1024;
/// How many bytes of requests from peers are in memory, read or being read. Who comes later is told
/// that this node is busy.
pub(crate) const MAX_INCOMING_BYTES: usize = 64 * 1024 * 1024;
/// How many bytes of our responses are in memory until they are sent. Who asks meanwhile is told
/// that this node is busy.
pub(crate) const MAX_OUTGOING_BYTES: usize = 64 * 1024 * 1024;
/// Which part of either one peer may have: an eighth, and one frame in any case.
pub(crate) const PEER_SHARE: usize = 8;
/// The longest response that is made whatever is waiting to be sent: one to a put of as many
/// records as may be.
pub(crate) const SMALL_RESPONSE_BYTES: usize = 1024;
/// How much of a frame is read before more memory is taken for it, so that it costs a peer as much
/// as us.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;
/// The longest frame that is read to its end, without keeping it, to say that it is too long.
pub(crate) const MAX_DISCARDED_BYTES: usize = 32 * 1024 * 1024;
/// To how many traces a request belongs at most: those of the calls that share it.
pub(crate) const MAX_TRACES_PER_REQUEST: usize = 16;

/// The most puts under way to one peer.
pub(crate) const MAX_PUTS_IN_FLIGHT: usize = 2;
/// The most questions under way to one peer: fewer than it lets wait, and than a connection has
/// streams.
pub(crate) const MAX_QUESTIONS_IN_FLIGHT: usize = 16;
/// The most questions about one key each that share a request.
pub(crate) const MAX_SHARED_QUESTIONS: usize = 64;

/// How much is worked on at a time where the number of cores is not known.
pub(crate) const DEFAULT_WORKERS: usize = 2;

/// The most requests that wait for a thread, and of one peer. Later ones are answered at once with
/// `Busy`.
pub(crate) const REQUEST_LIMITS: Limits = Limits { waiting: 256, of_peer: 32 };

// What one node sends another at a time finds room there, with a hello and a sign of life.
const _: () = assert!(MAX_PUTS_IN_FLIGHT + MAX_QUESTIONS_IN_FLIGHT + 2 <= REQUEST_LIMITS.of_peer);
const _: () = assert!(MAX_PUTS_IN_FLIGHT + MAX_QUESTIONS_IN_FLIGHT < MAX_CONCURRENT_STREAMS);
const _: () = assert!(REQUEST_LIMITS.of_peer * PEER_SHARE <= REQUEST_LIMITS.waiting);
// A peer's share of the memory has room for a frame without a large record.
const _: () = assert!(FRAME_OVERHEAD_BYTES + CHUNK_BYTES <= MAX_INCOMING_BYTES / PEER_SHARE);
// The longest frame that is meant for us is read to its end.
const _: () = assert!(MAX_VALUE_BYTES + FRAME_OVERHEAD_BYTES <= MAX_DISCARDED_BYTES);
