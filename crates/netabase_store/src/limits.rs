//! Bounds of what all handles of a store share.

use std::time::Duration;

/// How many records can be updated at the same time by those who have met conflicts.
pub(crate) const UPDATE_TURNS: usize = 64;

/// How long an update waits for those who have met a conflict.
pub(crate) const TURN_PATIENCE: Duration = Duration::from_secs(1);

/// How many of peers' contributions to one merged record wait for the disk; others are refused as
/// `Busy`.
pub(crate) const MAX_WAITING_BUNDLES: usize = 256;

/// How long a read of many records waits for the commit of what peers have sent; a writer that is
/// held up for longer, as by a check, must not hold up the reads.
pub(crate) const SETTLE_PATIENCE: Duration = Duration::from_secs(1);

/// The default of [`StoreOptions::max_value_bytes`].
pub(crate) const DEFAULT_MAX_VALUE_BYTES: usize = 1024 * 1024;
