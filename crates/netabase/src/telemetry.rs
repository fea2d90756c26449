//! Telemetry: metrics, record traces, and the ids of distributed traces.

use std::sync::Arc;

use crate::swarm::Parts;
use crate::telemetry::metrics::Meters;
use crate::telemetry::trace::Traces;

pub(crate) mod limits;
pub(crate) mod metrics;
pub(crate) mod trace;
pub(crate) mod trace_context;

/// The event loop's metrics and traces.
pub(crate) struct Telemetry {
    pub(crate) traces: Traces,
    pub(crate) meters: Arc<Meters>,
    /// libp2p's own metrics.
    pub(crate) swarm_metrics: libp2p::metrics::Metrics,
}

impl Telemetry {
    pub(crate) fn new(parts: &Parts, swarm_metrics: libp2p::metrics::Metrics) -> Self {
        Self { traces: parts.traces.clone(), meters: Arc::clone(parts.metrics.meters()), swarm_metrics }
    }
}
