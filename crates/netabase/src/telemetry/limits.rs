//! The limits of traces and metrics.

use std::time::Duration;

/// How long a connection has to close.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The most events that are remembered, of all records together; the oldest are forgotten.
pub const MAX_TRACE_EVENTS: usize = 4096;
/// The most changes of one record that are read from the persisted history.
pub(crate) const MAX_HISTORY_ENTRIES: usize = 64;
