//! The span of a peer's request.

use libp2p::PeerId;
use tracing::field::Empty;
use tracing::span::EnteredSpan;

use crate::rpc::frame::Frame;
use crate::telemetry::trace_context::{Hex, TraceContext};

/// The span of a request that this thread carries out.
pub(crate) struct Serving {
    /// `None` if the request belongs to no recorded trace.
    span: Option<EnteredSpan>,
}

impl Serving {
    /// Starts the span of a request, as a child of the first sampled trace that the peer names; the
    /// others are only counted. Trace ids are only names and do not affect the request. A peer may
    /// name many, but causes one span.
    pub(crate) fn begin(protocol: &'static str, peer: PeerId, request: &Frame) -> Self {
        let mut sampled = request.traces().iter().filter(|trace| trace.is_sampled());
        let begin = |trace: &TraceContext, others: usize| {
            let span = tracing::info_span!(
                parent: None,
                "serve",
                otel.name = "serve",
                protocol,
                %peer,
                trace_id = %Hex(&trace.trace_id()),
                span_id = %Hex(&trace.child().span_id()),
                parent_id = %Hex(&trace.span_id()),
                other_traces = others,
                outcome = Empty,
            );
            span.entered()
        };
        Self { span: sampled.next().map(|trace| begin(trace, sampled.count())) }
    }

    /// Ends the span with the outcome.
    pub(crate) fn end(self, response: &Frame) {
        let Some(span) = self.span else { return };
        let outcome = match response.bytes() {
            Ok([0, ..]) | Err(_) => "failure",
            Ok(_) => "ok",
        };
        span.record("outcome", outcome);
        tracing::debug!(outcome, "a request of a peer was carried out");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber, subscriber};

    use super::*;

    /// The fields of every span.
    #[derive(Clone, Default)]
    struct Spans(Arc<Mutex<Vec<Fields>>>);

    #[derive(Default)]
    struct Fields(BTreeMap<&'static str, String>);

    impl Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.0.insert(field.name(), format!("{value:?}"));
        }
    }

    impl Subscriber for Spans {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.is_span()
        }

        fn new_span(&self, attributes: &Attributes<'_>) -> Id {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            self.0.lock().push(fields);
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    fn unsampled() -> TraceContext {
        TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00").unwrap()
    }

    fn spans_of(traces: impl IntoIterator<Item = TraceContext>) -> Vec<Fields> {
        let spans = Spans::default();
        subscriber::with_default(spans.clone(), || {
            let request = Frame::new(b"request".to_vec()).traced(traces);
            Serving::begin("record", PeerId::random(), &request).end(&Frame::new(vec![1]));
        });
        std::mem::take(&mut *spans.0.lock())
    }

    #[test]
    fn a_request_makes_one_span_however_many_traces_it_names() {
        let first = TraceContext::begin();
        let others = std::iter::repeat_with(TraceContext::begin).take(14);
        let spans = spans_of([unsampled(), first].into_iter().chain(others));
        let [Fields(span)] = &spans[..] else { panic!("{} spans", spans.len()) };
        assert_eq!(span["trace_id"], Hex(&first.trace_id()).to_string());
        assert_eq!(span["parent_id"], Hex(&first.span_id()).to_string());
        assert_eq!(span["other_traces"], "14");
    }

    #[test]
    fn a_request_of_no_sampled_trace_makes_none() {
        assert_eq!(spans_of([unsampled(); 3]).len(), 0);
        assert_eq!(spans_of([]).len(), 0);
    }
}
