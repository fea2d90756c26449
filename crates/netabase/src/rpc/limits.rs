//! The limits of requests and responses.

use std::time::Duration;

use crate::limits::MAX_VALUE_BYTES;
use crate::rpc::pool::Limits;

/// The timeout of a request, from its first byte to the last byte of its response.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The most concurrent requests of one connection, in both directions together. Further ones are
/// dropped.
pub(crate) const MAX_CONCURRENT_STREAMS: usize = 64;
/// The most bytes of a frame beyond one record of the largest size.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = 64 * 1024;
/// The most bytes of peers' requests of all protocols in memory, complete or being read. Further
/// requests are answered with `Busy`.
pub(crate) const MAX_INCOMING_BYTES: usize = 24 * 1024 * 1024;
/// The most bytes of this node's responses of all protocols in memory until they are sent. Further
/// requests are answered with `Busy`.
pub(crate) const MAX_OUTGOING_BYTES: usize = 32 * 1024 * 1024;
/// One peer's share of the memory for requests or responses: an eighth of what is free, and one
/// frame as long as [`RESERVED_PART`] of all is free, a quarter.
pub(crate) const PEER_SHARE: usize = 8;
pub(crate) const RESERVED_PART: usize = 4;
/// The memory is scarce while less than this part of it is free, a half: then a peer has
/// [`CHUNK_PATIENCE`] to send or read the next [`CHUNK_BYTES`], or its stream ends.
pub(crate) const SCARCE_PART: usize = 2;
pub(crate) const CHUNK_PATIENCE: Duration = Duration::from_secs(1);
/// The longest response that is sent even if the memory for responses is used up: one to a put of
/// the most records.
pub(crate) const SMALL_RESPONSE_BYTES: usize = 1024;
/// The bytes of a frame for which memory is taken at first, and the most at a time: as much again
/// as was read, so that a frame costs its sender as much as this node.
pub(crate) const FIRST_CHUNK_BYTES: usize = 4 * 1024;
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;
/// The longest frame that is read to its end and discarded, in order to answer that it is too long.
pub(crate) const MAX_DISCARDED_BYTES: usize = 32 * 1024 * 1024;
/// The most traces of a request: those of the calls that share it.
pub(crate) const MAX_TRACES_PER_REQUEST: usize = 16;

/// The most concurrent puts to one peer.
pub(crate) const MAX_PUTS_IN_FLIGHT: usize = 2;
/// The most concurrent questions to one peer: fewer than the peer lets wait, and than a connection
/// has streams.
pub(crate) const MAX_QUESTIONS_IN_FLIGHT: usize = 16;
/// The most single-key questions that share a request.
pub(crate) const MAX_SHARED_QUESTIONS: usize = 64;

/// The number of worker threads if the number of cores is unknown.
pub(crate) const DEFAULT_WORKERS: usize = 2;

/// The threads beyond the number of cores for peers that have taken less than [`LIGHT_TIME`] of
/// the processor lately for each of their shares, so that they do not wait for costly requests of
/// others.
pub(crate) const LIGHT_WORKERS: usize = 1;
pub(crate) const LIGHT_TIME: Duration = Duration::from_millis(10);
/// The time between two requests of peers above their share of the processor that start since
/// nothing of their peer has for [`LONGEST_PAUSE`](crate::connection::limits::LONGEST_PAUSE).
pub(crate) const OVERDUE_INTERVAL: Duration = Duration::from_millis(25);
/// The most requests that wait for a thread, in total and of one peer. Further ones are answered
/// with `Busy` at once.
pub(crate) const REQUEST_LIMITS: Limits = Limits { waiting: 256, of_peer: 32 };

// A node's concurrent requests to a peer fit into that peer's queue, with a hello and a probe.
const _: () = assert!(MAX_PUTS_IN_FLIGHT + MAX_QUESTIONS_IN_FLIGHT + 2 <= REQUEST_LIMITS.of_peer);
const _: () = assert!(MAX_PUTS_IN_FLIGHT + MAX_QUESTIONS_IN_FLIGHT < MAX_CONCURRENT_STREAMS);
const _: () = assert!(REQUEST_LIMITS.of_peer * PEER_SHARE <= REQUEST_LIMITS.waiting);
// A peer's share of the memory fits a frame without a large record.
const _: () = assert!(FRAME_OVERHEAD_BYTES + CHUNK_BYTES <= MAX_INCOMING_BYTES / PEER_SHARE);
// The longest valid frame is read to its end.
const _: () = assert!(MAX_VALUE_BYTES + FRAME_OVERHEAD_BYTES <= MAX_DISCARDED_BYTES);
