//! Calls of the application: each is counted, and is a span of a trace.

use std::future::Future;

use netabase_store::StoreError;
use tracing::field::{Empty, display};
use tracing::{Instrument, Span};

use crate::error::NetabaseError;
use crate::platform::{self, Instant};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace_context::{Hex, TraceContext};

/// The kinds of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Put,
    Remove,
    Get,
    Query,
    Health,
}

pub(super) const CALLS: [Call; 5] = [Call::Put, Call::Remove, Call::Get, Call::Query, Call::Health];

/// The outcomes of calls that have a single kind of success.
const OUTCOMES: &[&str] = &["ok", "timeout", "refused", "cancelled", "error"];
const GET_OUTCOMES: &[&str] = &["local", "network", "missing", "timeout", "cancelled", "error"];
const QUERY_OUTCOMES: &[&str] = &["complete", "partial", "timeout", "cancelled", "error"];

impl Call {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Remove => "remove",
            Self::Get => "get",
            Self::Query => "query",
            Self::Health => "health",
        }
    }

    pub(super) const fn outcomes(self) -> &'static [&'static str] {
        match self {
            Self::Put | Self::Remove | Self::Health => OUTCOMES,
            Self::Get => GET_OUTCOMES,
            Self::Query => QUERY_OUTCOMES,
        }
    }
}

/// Returns whether the store itself has failed, as opposed to refusing the operation.
fn has_failed(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Poisoned(_) | StoreError::Backend(_) | StoreError::Damage(_) | StoreError::File { .. }
    )
}

/// A running call. Dropping it before its end counts as cancelled.
struct UnderWay<'a> {
    metrics: &'a Metrics,
    call: Call,
    begun: Instant,
    span: Span,
    is_over: bool,
}

impl UnderWay<'_> {
    fn end(&mut self, outcome: &str) {
        let took = platform::since(self.begun);
        self.is_over = true;
        self.metrics.meters().called(self.call, outcome, took);
        self.span.record("outcome", outcome);
        let name = self.call.name();
        tracing::debug!(parent: &self.span, call = name, outcome, micros = took.as_micros(), "a call has ended");
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.end("cancelled");
        }
    }
}

impl Metrics {
    /// Runs a call about a model in its trace, and counts it.
    pub(crate) async fn call<T>(
        &self,
        call: Call,
        model: &str,
        work: impl Future<Output = Result<T, NetabaseError>>,
        outcome_of: impl FnOnce(&T) -> &'static str,
    ) -> Result<T, NetabaseError> {
        let outer = TraceContext::current();
        let context = outer.map_or_else(TraceContext::begin, |outer| outer.child());
        let span = tracing::info_span!(
            "call",
            otel.name = call.name(),
            model,
            trace_id = %Hex(&context.trace_id()),
            span_id = %Hex(&context.span_id()),
            parent_id = Empty,
            sampled = Empty,
            outcome = Empty,
        );
        if !context.is_sampled() {
            span.record("sampled", false);
        }
        if let Some(outer) = outer {
            span.record("parent_id", display(Hex(&outer.span_id())));
        }
        let mut under_way =
            UnderWay { metrics: self, call, begun: platform::now(), span: span.clone(), is_over: false };
        let result = context.scope(work).instrument(span).await;
        under_way.end(match &result {
            Ok(value) => outcome_of(value),
            Err(NetabaseError::Timeout { .. }) => "timeout",
            Err(NetabaseError::Store(error)) if !has_failed(error) => "refused",
            Err(_) => "error",
        });
        result
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use netabase_store::WriteError;

    use super::*;

    #[test]
    fn a_disk_that_fails_refuses_nothing() {
        let disk = StoreError::Backend(Arc::new(io::Error::other("the disk is gone")));
        assert!(has_failed(&disk) && has_failed(&StoreError::Poisoned(Arc::new(disk))));
        assert!(!has_failed(&StoreError::Write(WriteError::ValueTooLarge { size: 2, limit: 1 })));
        assert!(!has_failed(&StoreError::Write(WriteError::NoIdentity)));
    }
}
