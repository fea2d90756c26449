//! The limits of traces and metrics.

/// The most events in memory, of all records together. The oldest are dropped.
pub const MAX_TRACE_EVENTS: usize = 4096;
/// The most changes of one record that are read from the persisted history.
pub(crate) const MAX_HISTORY_ENTRIES: usize = 64;
