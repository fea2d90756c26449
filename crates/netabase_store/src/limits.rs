//! Limits that all handles of a store share. Each folder has its own beside them.

use std::time::Duration;

use crate::write::limits::{MAX_PACE, QUEUE_OPS};

/// The number of records that are updated in turn at the same time, after conflicts.
pub(crate) const UPDATE_TURNS: usize = 64;

/// The longest time that an update waits for its turn after a conflict.
pub(crate) const TURN_PATIENCE: Duration = Duration::from_secs(1);

/// The most contributions of peers to one merged record that wait for the disk. Further ones are
/// refused as `Busy`.
pub(crate) const MAX_WAITING_BUNDLES: usize = 256;

/// The longest time that a read of many records waits for the commit of peers' records. A writer
/// that is held up for longer, as by a check, does not hold up reads.
pub(crate) const SETTLE_PATIENCE: Duration = Duration::from_secs(1);

/// The default of [`StoreOptions::max_value_bytes`](crate::StoreOptions::max_value_bytes).
pub(crate) const DEFAULT_MAX_VALUE_BYTES: usize = 1024 * 1024;

// A read waits for longer than the writer lets records from peers gather.
const _: () = assert!(MAX_PACE.as_millis() < SETTLE_PATIENCE.as_millis());
// One merged record does not fill the queue.
const _: () = assert!(MAX_WAITING_BUNDLES < QUEUE_OPS);
