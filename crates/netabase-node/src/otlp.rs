//! Sends spans to a collector of OpenTelemetry, as OTLP 1.x in JSON over plain HTTP.
//!
//! Only spans of a sampled trace are sent: those of calls, of what peers ask in a trace, and what
//! is inside of them. Their ids are those that peers are sent, so that a trace goes on at whoever
//! serves it. A collector runs on this machine or in its network: nothing is encrypted.

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

/// Names the collector, as every program that speaks OTLP has it: `http://host:port`, and a path if
/// need be.
pub(crate) const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// How many spans wait to be sent; further ones are dropped, and counted.
const QUEUE_SPANS: usize = 4096;
/// How many of them are about requests of peers, which come as fast as peers like.
const QUEUE_PEER_SPANS: usize = QUEUE_SPANS / 4;
/// The most spans of one request.
const BATCH_SPANS: usize = 512;
/// How long spans wait for others to share their request.
const PACE: Duration = Duration::from_secs(1);
/// How long the collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes of a value of a field; the rest is cut off.
const MAX_VALUE_BYTES: usize = 256;
/// How much of an answer is read: its first line says everything.
const MAX_ANSWER_BYTES: u64 = 4096;
/// How OTLP calls what is done here, and what is done for a peer.
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
/// The name of the span of a request of a peer.
const SERVE: &str = "serve";
/// Outcomes of calls and requests that have failed, and what OTLP says for that.
const FAILURES: [&str; 4] = ["error", "timeout", "refused", "failure"];
const FAILED: u8 = 2;
/// How often it is said at most that spans were lost.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// Where a collector listens, and what it takes spans under.
const DEFAULT_PORT: u16 = 4318;
const TRACES: &str = "/v1/traces";

/// What collects spans and gives them to the thread that sends.
pub(crate) struct Spans(Exporter);

/// The queue of the thread that sends.
#[derive(Clone)]
pub(crate) struct Exporter {
    queue: SyncSender<Message>,
    /// How many spans in the queue are about requests of peers.
    of_peers: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
    resource: Resource,
}

enum Message {
    Span {
        span: Box<Value>,
        is_of_peer: bool,
    },
    /// Answered when everything before was sent.
    Flush(SyncSender<()>),
}

/// Where the collector is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Endpoint {
    host: String,
    path: String,
}

/// A span that is open.
struct Open {
    trace: String,
    span: String,
    parent: Option<String>,
    /// Whether it is a request of a peer, or is inside of one.
    is_of_peer: bool,
    begun: SystemTime,
    fields: Fields,
}

impl Exporter {
    /// Begins to send to the collector at `endpoint`, in the name that the environment says; spans
    /// come from the layer that is returned with it.
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

    /// Says from now on which node the spans are of.
    pub(crate) fn name_instance(&self, name: String) {
        self.resource.name_instance(name);
    }

    /// Waits until everything that was closed before is sent, or could not be; 10 s at most.
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

    /// Takes a place of those for spans about requests of peers, if there is one.
    fn take_room_of_peers(&self) -> bool {
        let next = |taken| (taken < QUEUE_PEER_SPANS).then_some(taken + 1);
        self.of_peers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

impl Spans {
    /// Returns the layer, which sees spans of this program's own crates only.
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
            // It is of no trace, or of one that is not sampled.
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
            // Neither are the spans inside of it, which begin later.
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

/// The fields of a span, whose names are those of this program and its libraries.
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

/// What sends spans, on a thread of its own.
struct Sender {
    endpoint: Endpoint,
    messages: Receiver<Message>,
    of_peers: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
    resource: Resource,
    losses: Losses,
}

impl Sender {
    /// Sends what comes until nobody sends any more.
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
                // Whoever waits no longer needs no answer.
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
            tracing::debug!(%error, count, "the collector does not take spans");
        }
        if let Some(dropped) = self.losses.news(self.dropped.load(Ordering::Relaxed), Instant::now()) {
            tracing::warn!(dropped, "spans were not sent to the collector");
        }
    }
}

/// What was said of lost spans, and when.
#[derive(Debug, Default)]
struct Losses {
    told: u64,
    at: Option<Instant>,
}

impl Losses {
    /// Returns how many spans are lost, if that is to be said: at the first loss, and then once a
    /// minute while there are more.
    fn news(&mut self, lost: u64, now: Instant) -> Option<u64> {
        let is_early = self.at.is_some_and(|at| now.saturating_duration_since(at) < WARNING_INTERVAL);
        if lost <= self.told || is_early {
            return None;
        }
        *self = Self { told: lost, at: Some(now) };
        Some(lost)
    }
}

/// Writes bytes as hexadecimal digits.
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
            Ok(stream) => return post_to(endpoint, stream, &request.to_string()),
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
    /// Reads `http://host:port/path`; the port is 4318 by default, and `/v1/traces` comes behind
    /// the path.
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

/// Returns a random name for a span.
fn new_id() -> String {
    hex(&TraceContext::begin().span_id())
}

fn unix_nanos(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}
