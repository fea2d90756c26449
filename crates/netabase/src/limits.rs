//! The limits that users of a node meet, and those of its handles. Each subsystem has a `limits.rs`
//! of its own.

use std::time::Duration;

pub use crate::peers::limits::{
    BAN, BAN_AT, MAX_BAN, MAX_TRACKED_PEERS, RECORD_BURST, RECORDS_PER_SECOND, SLOW_AT,
};
pub use crate::query::limits::DEFAULT_PAGE_RECORDS;
pub use crate::replication::live::limits::MAX_TOPICS;
pub use crate::replication::sync::limits::{SYNC_FRAME_BYTES, SYNC_GIVE_BYTES};
pub use crate::telemetry::limits::MAX_TRACE_EVENTS;

/// The largest configurable limit of a value: 16 MiB.
pub const MAX_VALUE_BYTES: usize = 16 * 1024 * 1024;

/// The most bytes of a settings file.
pub(crate) const MAX_SETTINGS_FILE_BYTES: u64 = 1024 * 1024;

/// The most events that are buffered for a slow subscriber, which then loses the oldest.
pub const EVENT_CAPACITY: usize = 1000;

/// The most bytes of an identity file.
pub(crate) const MAX_IDENTITY_FILE_BYTES: u64 = 4096;

/// The time that a get of a node that is not current waits for peers if the record is stored here.
pub(crate) const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// The time that the history of a record waits for the swarm to tell whether this node is a holder.
pub(crate) const HOLDER_TIMEOUT: Duration = Duration::from_secs(1);

/// The most commands in the queue of the event loop. Further callers wait.
pub const COMMAND_CAPACITY: usize = 100;
/// The most concurrent calls of one node. Further callers wait. A cancelled call counts until its
/// query ends.
pub(crate) const MAX_CALLS: usize = 256;
/// The deadline used when a timeout would overflow `Instant`.
pub(crate) const LONGEST_TIMEOUT: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// The most queued repair calls. Further callers wait.
pub(crate) const MAX_REPAIR_ORDERS: usize = 16;
/// The memory for versions that are being sent, in KiB: 16 MiB of values. A version counts, even
/// after its caller was answered, until every peer has answered or timed out, and is held once per
/// peer.
pub(crate) const PUT_BUDGET_KIB: u32 = 16 * 1024;
/// The least cost of a version, in KiB, which bounds the number of versions being sent to 1024.
pub(crate) const MIN_PUT_COST_KIB: u32 = 16;

/// The number of turns that updates share. Updates of different records run concurrently; two
/// records that share a turn wait for each other as long as a write to the disk takes.
pub(crate) const UPDATE_TURNS: usize = 64;

const _: () = assert!(MIN_PUT_COST_KIB <= PUT_BUDGET_KIB);
// The largest record may be put: it costs no more than the whole budget.
const _: () = assert!(MAX_VALUE_BYTES <= PUT_BUDGET_KIB as usize * 1024);
// All queued repair calls are concurrent calls.
const _: () = assert!(MAX_REPAIR_ORDERS <= MAX_CALLS);
