//! What a node tells of itself: metrics, the traces of records, the ids of distributed traces, and
//! the bytes of its connections.

pub(crate) mod bandwidth;
pub(crate) mod metrics;
pub(crate) mod trace;
pub(crate) mod trace_context;
