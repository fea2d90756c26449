//! The limits of traces and metrics.

use std::time::Duration;

/// The time that a connection has to close.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The most events in memory, of all records together. The oldest are dropped.
pub const MAX_TRACE_EVENTS: usize = 4096;
/// The most changes of one record that are read from the persisted history.
pub(crate) const MAX_HISTORY_ENTRIES: usize = 64;
