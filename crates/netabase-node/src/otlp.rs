//! Exports spans to an OpenTelemetry collector, as OTLP 1.x in JSON over plain HTTP.
//!
//! Only spans of sampled traces are exported: those of calls, of peers' requests in a trace, and
//! the spans inside of them. Peers receive the same ids, so that a trace continues on the node that
//! serves a request. Nothing is encrypted, so the collector has to run on this machine or in its
//! network.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use netabase::TraceContext;
use netabase::netabase_store::text;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use resource::Resource;

mod resource;
#[cfg(test)]
mod tests;

/// The standard environment variable with the URL of the collector: `http://host:port`, with an
/// optional path.
pub(crate) const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// The most spans that wait to be sent. Further ones are dropped and counted.
const QUEUE_SPANS: usize = 4096;
/// The most of them that belong to requests of peers, whose rate peers choose.
const QUEUE_PEER_SPANS: usize = QUEUE_SPANS / 4;
/// The most spans in one request to the collector.
const BATCH_SPANS: usize = 512;
/// The longest time that a span waits for others in the same request.
const PACE: Duration = Duration::from_secs(1);
/// How long the collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest value of a field, in bytes. The rest is cut off.
const MAX_VALUE_BYTES: usize = 256;
/// The most bytes of an answer that are read. The status line is enough.
const MAX_ANSWER_BYTES: u64 = 4096;
/// The OTLP span kinds of local work and of requests of peers.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
/// The name of the span of a peer's request.
const SERVE: &str = "serve";
/// The outcomes of failed calls and requests, and the OTLP status code of an error.
const FAILURES: [&str; 4] = ["error", "timeout", "refused", "failure"];
const FAILED: u8 = 2;
/// The shortest interval between two warnings about lost spans.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// The default port of collectors, and their path for spans.
const DEFAULT_PORT: u16 = 4318;
const TRACES: &str = "/v1/traces";

/// The layer that collects spans and queues them for the sending thread.
pub(crate) struct Spans(Exporter);

/// The queue of the sending thread.
#[derive(Clone)]
pub(crate) struct Exporter {
    queue: SyncSender<Message>,
    /// The number of spans in the queue that belong to requests of peers.
    of_peers: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
    resource: Resource,
}

enum Message {
    Span {
        span: Box<Value>,
        is_of_peer: bool,
    },
    /// Answered when all messages before it were sent.
    Flush(SyncSender<()>),
}

/// The address of the collector.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Endpoint {
    host: String,
    path: String,
}

/// An open span.
struct Open {
    trace: String,
    span: String,
    parent: Option<String>,
    /// Whether the span is a peer's request or inside of one.
    is_of_peer: bool,
    begun: SystemTime,
    fields: Fields,
}

impl Exporter {
    /// Starts a thread that sends to the collector at `endpoint`, with the service name of the
    /// environment. Also returns the layer that collects the spans.
    pub(crate) fn begin(endpoint: &str) -> anyhow::Result<(Self, Spans)> {
        let endpoint = Endpoint::parse(endpoint)?;
        let (exporter, messages) = Self::new(QUEUE_SPANS, Resource::of_environment()?);
        let sender = Sender {
            endpoint,
            messages,
            of_peers: Arc::clone(&exporter.of_peers),
            dropped: Arc::clone(&exporter.dropped),
            resource: exporter.resource.clone(),
            losses: Losses::default(),
        };
        let thread = thread::Builder::new().name("netabase-otlp".into());
        thread.spawn(move || sender.run()).context("cannot start a thread")?;
        Ok((exporter.clone(), Spans(exporter)))
    }

    fn new(room: usize, resource: Resource) -> (Self, Receiver<Message>) {
        let (queue, messages) = sync_channel(room);
        (Self { queue, of_peers: Arc::default(), dropped: Arc::default(), resource }, messages)
    }

    /// Sets the node to which spans are attributed from now on.
    pub(crate) fn name_instance(&self, name: String) {
        self.resource.name_instance(name);
    }

    /// Waits until the spans closed so far are sent or lost, at most 10 s.
    pub(crate) fn flush(&self) {
        let (done, is_done) = sync_channel(1);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            // A thread that has ended has nothing left to send.
            let _ = is_done.recv_timeout(2 * PATIENCE);
        }
    }

    fn push(&self, span: Value, is_of_peer: bool) {
        let has_room = !is_of_peer || self.take_room_of_peers();
        if has_room && self.queue.try_send(Message::Span { span: Box::new(span), is_of_peer }).is_ok() {
            return;
        }
        if has_room && is_of_peer {
            self.of_peers.fetch_sub(1, Ordering::Relaxed);
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one of the places for spans of peers' requests, and returns whether one was free.
    fn take_room_of_peers(&self) -> bool {
        let next = |taken| (taken < QUEUE_PEER_SPANS).then_some(taken + 1);
        self.of_peers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

impl Spans {
    /// Returns the layer, filtered to spans of Netabase's own crates.
    pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(self) -> impl Layer<S> {
        self.with_filter(filter_fn(|metadata| {
            let is_detail = *metadata.level() > Level::DEBUG;
            metadata.is_span() && metadata.target().starts_with("netabase") && !is_detail
        }))
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let outer = span.parent();
        let inherited = outer.as_ref().and_then(|outer| {
            let extensions = outer.extensions();
            extensions.get::<Open>().map(|outer| (outer.trace.clone(), outer.span.clone(), outer.is_of_peer))
        });
        let begun = SystemTime::now();
        let open = match (fields.take("trace_id"), inherited) {
            (Some(trace), _) => {
                let (id, parent) = (fields.take("span_id"), fields.take("parent_id"));
                let (id, is_of_peer) = (id.unwrap_or_else(new_id), span.name() == SERVE);
                Open { trace, span: id, parent, is_of_peer, begun, fields }
            }
            (None, Some((trace, parent, is_of_peer))) => {
                Open { trace, span: new_id(), parent: Some(parent), is_of_peer, begun, fields }
            }
            // The span belongs to no trace, or to one that is not sampled.
            (None, None) => return,
        };
        span.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        let Some(open) = extensions.get_mut::<Open>() else { return };
        values.record(&mut open.fields);
        if let Some(parent) = open.fields.take("parent_id") {
            open.parent = Some(parent);
        }
        if open.fields.take("sampled").is_some_and(|sampled| sampled == "false") {
            // The spans inside of it begin later and are not sampled either.
            extensions.remove::<Open>();
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        if let Some(open) = span.extensions_mut().remove::<Open>() {
            let is_of_peer = open.is_of_peer;
            self.0.push(open.into_json(span.name()), is_of_peer);
        }
    }
}

impl Open {
    fn into_json(mut self, name: &str) -> Value {
        let kind = if name == SERVE { SERVER } else { INTERNAL };
        let name = self.fields.take("otel.name").unwrap_or_else(|| name.to_owned());
        let Self { trace, span, parent, is_of_peer: _, begun, fields: Fields(fields) } = self;
        let has_failed = fields.get("outcome").is_some_and(|outcome| FAILURES.contains(&outcome.as_str()));
        let status = if has_failed { json!({ "code": FAILED }) } else { json!({}) };
        let attribute = |(key, value)| json!({ "key": key, "value": { "stringValue": value } });
        json!({
            "traceId": trace,
            "spanId": span,
            "parentSpanId": parent.unwrap_or_default(),
            "name": name,
            "kind": kind,
            "startTimeUnixNano": unix_nanos(begun),
            "endTimeUnixNano": unix_nanos(SystemTime::now()),
            "status": status,
            "attributes": fields.into_iter().map(attribute).collect::<Vec<_>>(),
        })
    }
}

/// The fields of a span. Their names are constants of the program, so their number is bounded.
#[derive(Debug, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Fields {
    fn take(&mut self, name: &'static str) -> Option<String> {
        self.0.remove(name)
    }

    fn put(&mut self, field: &Field, mut value: String) {
        let mut end = MAX_VALUE_BYTES.min(value.len());
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        value.truncate(end);
        self.0.insert(field.name(), value);
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

/// The thread that sends spans.
struct Sender {
    endpoint: Endpoint,
    messages: Receiver<Message>,
    of_peers: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
    resource: Resource,
    losses: Losses,
}

impl Sender {
    /// Sends spans until all senders of the queue are dropped.
    fn run(mut self) {
        let mut spans = Vec::new();
        loop {
            let (mut flushed, mut is_over) = (None, false);
            let until = Instant::now() + PACE;
            while spans.len() < BATCH_SPANS && flushed.is_none() && !is_over {
                match self.messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(Message::Span { span, is_of_peer }) => {
                        self.of_peers.fetch_sub(is_of_peer.into(), Ordering::Relaxed);
                        spans.push(*span);
                    }
                    Ok(Message::Flush(done)) => flushed = Some(done),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => is_over = true,
                }
            }
            self.send(&spans);
            spans.clear();
            if let Some(done) = flushed {
                // The caller may have stopped waiting.
                let _ = done.send(());
            }
            if is_over {
                return;
            }
        }
    }

    fn send(&mut self, spans: &[Value]) {
        let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        if count > 0
            && let Err(error) = post(&self.endpoint, &request_of(spans, &self.resource))
        {
            self.dropped.fetch_add(count, Ordering::Relaxed);
            tracing::debug!(%error, count, "cannot send spans to the collector");
        }
        if let Some(dropped) = self.losses.news(self.dropped.load(Ordering::Relaxed), Instant::now()) {
            tracing::warn!(dropped, "spans were not sent to the collector");
        }
    }
}

/// The last warning about lost spans.
#[derive(Debug, Default)]
struct Losses {
    told: u64,
    at: Option<Instant>,
}

impl Losses {
    /// Returns the number of lost spans if a warning is due: at the first loss, and then once a
    /// minute while the number grows.
    fn news(&mut self, lost: u64, now: Instant) -> Option<u64> {
        let is_early = self.at.is_some_and(|at| now.saturating_duration_since(at) < WARNING_INTERVAL);
        if lost <= self.told || is_early {
            return None;
        }
        *self = Self { told: lost, at: Some(now) };
        Some(lost)
    }
}

/// Returns bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| DIGITS.get(usize::from(half)).copied().map_or('?', char::from);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn request_of(spans: &[Value], resource: &Resource) -> Value {
    json!({
        "resourceSpans": [{
            "resource": { "attributes": resource.json() },
            "scopeSpans": [{ "scope": { "name": "netabase" }, "spans": spans }],
        }],
    })
}

fn post(endpoint: &Endpoint, request: &Value) -> io::Result<()> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in endpoint.host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return post_to(endpoint, stream, &text::json(&request.to_string())),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn post_to(endpoint: &Endpoint, mut stream: TcpStream, body: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let Endpoint { host, path } = endpoint;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    stream.flush()?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(MAX_ANSWER_BYTES)).read_until(b'\n', &mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if status.starts_with('2') { Ok(()) } else { Err(io::Error::other(format!("it answers {answer:?}"))) }
}

impl Endpoint {
    /// Parses `http://host:port/path`. The default port is 4318, and `/v1/traces` is added to the
    /// path.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let Some(rest) = text.strip_prefix("http://") else {
            bail!("{ENDPOINT} is `{text}`; write http://127.0.0.1:4318, for a collector without encryption");
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let is_text = |part: &str| part.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || !is_text(rest) {
            bail!("{ENDPOINT} is `{text}`, which names no host; write http://127.0.0.1:4318");
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let host = if has_port { host.to_owned() } else { format!("{host}:{DEFAULT_PORT}") };
        let path = path.trim_end_matches('/');
        let path = if path.is_empty() { TRACES.to_owned() } else { format!("/{path}{TRACES}") };
        Ok(Self { host, path })
    }
}

/// Returns a random id for a span.
fn new_id() -> String {
    hex(&TraceContext::begin().span_id())
}

fn unix_nanos(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}
