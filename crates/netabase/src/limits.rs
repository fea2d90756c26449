//! The limits of a node that its users meet, and those of its handles. Each subsystem has its own
//! beside its code.

use std::time::Duration;

pub use crate::peers::limits::{
    BAN, BAN_AT, MAX_BAN, MAX_TRACKED_PEERS, RECORD_BURST, RECORDS_PER_SECOND, SLOW_AT,
};
pub use crate::query::limits::DEFAULT_PAGE_RECORDS;
pub use crate::replication::live::limits::MAX_TOPICS;
pub use crate::replication::sync::limits::{SYNC_FRAME_BYTES, SYNC_GIVE_BYTES};
pub use crate::telemetry::limits::MAX_TRACE_EVENTS;

/// The largest value that may be configured as the limit: 16 MiB.
pub const MAX_VALUE_BYTES: usize = 16 * 1024 * 1024;

/// The largest file of settings that is read.
pub(crate) const MAX_SETTINGS_FILE_BYTES: u64 = 1024 * 1024;

/// How many events wait for a slow subscriber before it loses the oldest.
pub const EVENT_CAPACITY: usize = 1000;

/// The largest identity file that is read.
pub(crate) const MAX_IDENTITY_FILE_BYTES: u64 = 4096;

/// How long a get of a node that is not current waits for peers, where the record is here as well.
pub(crate) const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// How many commands wait for the swarm before callers wait.
pub const COMMAND_CAPACITY: usize = 100;
/// How many calls of one node may be in flight before callers wait. A call whose caller has gone
/// away counts until its query ends.
pub(crate) const MAX_CALLS: usize = 256;
/// What a timeout counts for that is longer than times can be.
pub(crate) const LONGEST_TIMEOUT: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// How many callers of a repair wait for their turn before further ones wait to be let in.
pub(crate) const MAX_REPAIR_ORDERS: usize = 16;
/// How much may be on its way to other peers: 16 MiB of values. A version stays on its way, after
/// its caller was answered, until every peer has answered or timed out, and is held once per peer.
pub(crate) const PUT_BUDGET_KIB: u32 = 16 * 1024;
/// What a version costs of that at least, which bounds the number of versions on their way to 1024.
pub(crate) const MIN_PUT_COST_KIB: u32 = 16;

/// How many updates of different records go on at the same time; two records that share a turn wait
/// for each other as long as a write to the disk takes.
pub(crate) const UPDATE_TURNS: usize = 64;

const _: () = assert!(MIN_PUT_COST_KIB <= PUT_BUDGET_KIB);
// The largest record may be put: it costs no more than all of the budget.
const _: () = assert!(MAX_VALUE_BYTES <= PUT_BUDGET_KIB as usize * 1024);
// All callers of repairs are calls in flight.
const _: () = assert!(MAX_REPAIR_ORDERS <= MAX_CALLS);
