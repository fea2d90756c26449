//! Keeping a scope: every record of a definition, of a model or with one value, on this node and current.
//!
//! A node that keeps a scope compares its versions with those of peers by range-based set reconciliation, fetches
//! what it lacks, and gives what they lack to those who keep the scope, too. Where a peer has many more, its
//! records are streamed in the order of time, which is also how a session goes on that was broken off: what has
//! come is there. The peer that answers keeps nothing between requests.

use std::collections::HashMap;

use libp2p::StreamProtocol;
use libp2p::request_response::OutboundRequestId;
use netabase_store::{ENVELOPE_OVERHEAD_BYTES, MAX_RECORD_KEY_BYTES};

use super::command::Reply;
use super::record_protocol::{self, Frame};

mod refused;
mod replication;
mod replicator;
mod report;
mod respond;
mod running;
mod session;
mod turns;
pub(super) mod wire;

pub(crate) use replication::Replications;
pub use replication::{Replication, ReplicationProgress};
pub(super) use replicator::{Replicator, SyncPeers};
pub use report::{SyncFailure, SyncReport};
pub(super) use respond::Responder;
pub use session::SYNC_GIVE_BYTES;

/// How many bytes of requests from peers are in memory.
const MAX_INCOMING_BYTES: usize = 32 * 1024 * 1024;
/// How long a frame is at most, unless one record is larger.
pub const SYNC_FRAME_BYTES: usize = 1024 * 1024;

/// The behaviour of the sync protocol.
pub(super) type Behaviour = record_protocol::Behaviour;

/// Makes the behaviour of the protocol `name`.
pub(super) fn behaviour(name: StreamProtocol, max_value_bytes: usize) -> Behaviour {
    record_protocol::framed(name, longest_frame(max_value_bytes), MAX_INCOMING_BYTES)
}

/// Returns the length of the longest frame: [`SYNC_FRAME_BYTES`] or, alone with what goes with it, a record of the
/// largest size.
const fn longest_frame(max_value_bytes: usize) -> usize {
    SYNC_FRAME_BYTES + max_value_bytes + ENVELOPE_OVERHEAD_BYTES + 2 * MAX_RECORD_KEY_BYTES
}

/// The requests of this node's sessions that are under way. A session has one or two, and there are few sessions.
pub(super) type Asked = HashMap<OutboundRequestId, Reply<Frame>>;
