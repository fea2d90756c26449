//! The spans of a request that a peer has sent: one for each trace that it belongs to.

use libp2p::PeerId;
use tracing::Span;
use tracing::field::Empty;
use tracing::span::EnteredSpan;

use super::Frame;
use crate::trace_context::Hex;

/// A request that is being carried out on this thread.
pub(in crate::network) struct Serving {
    spans: Vec<Span>,
    /// Dropped first.
    entered: Option<EnteredSpan>,
}

impl Serving {
    /// Begins the spans of a request, which go on with the traces that the peer names. Those are names and nothing
    /// else: what is done does not depend on them.
    pub(in crate::network) fn begin(protocol: &'static str, peer: PeerId, request: &Frame) -> Self {
        let span = |trace: &crate::trace_context::TraceContext| {
            tracing::info_span!(
                parent: None,
                "serve",
                otel.name = "serve",
                protocol,
                %peer,
                trace_id = %Hex(&trace.trace_id()),
                span_id = %Hex(&trace.child().span_id()),
                parent_id = %Hex(&trace.span_id()),
                outcome = Empty,
            )
        };
        let spans: Vec<Span> = request.traces().iter().map(span).collect();
        let entered = spans.first().map(|span| span.clone().entered());
        Self { spans, entered }
    }

    /// Says what became of it.
    pub(in crate::network) fn end(mut self, response: &Frame) {
        drop(self.entered.take());
        let outcome = match response.bytes() {
            Ok([0, ..]) | Err(_) => "failure",
            Ok(_) => "ok",
        };
        for span in &self.spans {
            span.record("outcome", outcome);
            tracing::debug!(parent: span, outcome, "a request of a peer was carried out");
        }
    }
}
