//! Which spans a call makes, here and at the peers that it asks.
#![allow(clippy::disallowed_methods, reason = "a test uses clocks, tasks and threads directly")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "suite/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use common::*;
use netabase::{Query, TraceContext};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Subscriber, subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// What no span may have.
const SECRET: &str = "what nobody else may read";

/// A span of ours.
#[derive(Debug, Clone, Default)]
struct Seen {
    name: &'static str,
    parent: Option<u64>,
    fields: BTreeMap<&'static str, String>,
}

/// All spans of this crate and the store, of all tests of the program.
#[derive(Clone, Default)]
struct Spans {
    open: Arc<Mutex<BTreeMap<u64, Seen>>>,
    closed: Arc<Mutex<Vec<Seen>>>,
    news: Arc<Notify>,
}

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if !attributes.metadata().target().starts_with("netabase") {
            return;
        }
        let parent = context.span(id).and_then(|span| span.parent().map(|parent| parent.id().into_u64()));
        let mut seen = Seen { name: attributes.metadata().name(), parent, ..Seen::default() };
        attributes.record(&mut Fields(&mut seen.fields));
        self.open.lock().insert(id.into_u64(), seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        if let Some(seen) = self.open.lock().get_mut(&id.into_u64()) {
            values.record(&mut Fields(&mut seen.fields));
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        let has_secret = event.metadata().target().starts_with("netabase")
            && fields.values().any(|value| value.contains(SECRET));
        assert!(!has_secret, "{fields:?}");
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        if let Some(seen) = self.open.lock().remove(&id.into_u64()) {
            self.closed.lock().push(seen);
        }
        self.news.notify_waiters();
    }
}

impl Spans {
    fn all() -> Self {
        static SPANS: OnceLock<Spans> = OnceLock::new();
        let begin = || {
            let spans = Self::default();
            subscriber::set_global_default(tracing_subscriber::registry().with(spans.clone())).unwrap();
            spans
        };
        SPANS.get_or_init(begin).clone()
    }

    /// Waits for a closed span.
    async fn closed(&self, what: &str, is_it: impl Fn(&Seen) -> bool) -> Seen {
        let found = async {
            loop {
                let news = self.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                let found = self.closed.lock().iter().find(|seen| is_it(seen)).cloned();
                match found {
                    Some(found) => return found,
                    None => news.await,
                }
            }
        };
        within_deadline(what, found).await
    }

    fn assert_no_secrets(&self) {
        for seen in self.closed.lock().iter() {
            assert!(seen.fields.values().all(|value| !value.contains(SECRET)), "{seen:?}");
        }
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[tokio::test]
async fn the_spans_of_a_call_and_of_whoever_serves_it_share_a_trace() {
    let spans = Spans::all();
    let nodes = network(2).await;
    let [one, other] = &nodes[..] else { unreachable!() };
    for (protocol, call) in [("record", "put"), ("record", "health"), ("query", "query")] {
        let context = TraceContext::begin();
        let trace = hex(&context.trace_id());
        let work = async {
            match call {
                "put" => drop(one.put_record(note(1, SECRET)).await.unwrap()),
                "health" => drop(one.health(NotePrimaryKey(1)).await.unwrap()),
                _ => drop(one.query::<Note>().page().await.unwrap()),
            }
        };
        context.scope(work).await;
        let is_call = |seen: &Seen| seen.name == "call" && seen.fields["trace_id"] == trace;
        let called = spans.closed("the call", is_call).await;
        assert_eq!(called.fields["otel.name"], call);
        assert_eq!(called.fields["model"], "Note");
        assert_eq!(called.fields["parent_id"], hex(&context.span_id()));
        assert!(["ok", "complete"].contains(&called.fields["outcome"].as_str()), "{called:?}");
        let is_served = |seen: &Seen| {
            seen.name == "serve" && seen.fields["trace_id"] == trace && seen.fields["protocol"] == protocol
        };
        let served = spans.closed("the serving", is_served).await;
        assert_eq!(served.fields["peer"], one.local_peer_id().to_string());
        assert_eq!(served.fields["parent_id"], called.fields["span_id"]);
        assert_ne!(served.fields["span_id"], called.fields["span_id"]);
        assert_eq!((served.fields["outcome"].as_str(), served.parent), ("ok", None));
    }
    assert_ne!(one.local_peer_id(), other.local_peer_id());
    for name in ["command", "in_flight", "store_write", "store_commit"] {
        spans.closed(name, |seen| seen.name == name).await;
    }
    spans.assert_no_secrets();
}

#[tokio::test]
async fn a_call_outside_of_any_trace_begins_one() {
    let spans = Spans::all();
    let nodes = network(2).await;
    nodes[0].put_record(note(7, SECRET)).await.unwrap();
    nodes[0].remove_record(NotePrimaryKey(7)).await.unwrap();
    let is_call = |seen: &Seen| seen.name == "call" && seen.fields["otel.name"] == "remove";
    let called = spans.closed("the call", is_call).await;
    assert!(!called.fields.contains_key("parent_id"));
    let served = |seen: &Seen| seen.name == "serve" && seen.fields["trace_id"] == called.fields["trace_id"];
    spans.closed("the serving", served).await;
}

#[tokio::test]
async fn comparing_a_scope_is_a_trace_of_its_own() {
    let spans = Spans::all();
    let nodes = network(2).await;
    let [one, other] = &nodes[..] else { unreachable!() };
    one.put_record(note(1, SECRET)).await.unwrap();
    let kept = other.replicate(Query::<Note>::new().scope()).unwrap();
    within_deadline("the records", kept.caught_up()).await.unwrap();
    let is_sync = |seen: &Seen| seen.name == "work" && seen.fields["otel.name"] == "sync";
    let work = spans.closed("the work", is_sync).await;
    let served = |seen: &Seen| seen.name == "serve" && seen.fields["trace_id"] == work.fields["trace_id"];
    assert_eq!(spans.closed("the serving", served).await.fields["protocol"], "sync");
    spans.assert_no_secrets();
}
