//! Requests to a node and the answers to them.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures::{Stream, TryStreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Builder;
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde_json::Value;

use crate::error::{ClientError, error_chain};
use crate::lines::{EventStream, Lines};
use crate::media::{EVENT_STREAM, JSON, NDJSON, PROBLEM_JSON};
use crate::token::Token;

/// The base address of a node on this machine, at the default port.
pub const DEFAULT_URL: &str = "http://127.0.0.1:4080";
/// How long a request may take until its answer begins, by default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The interval at which the client asks, while it waits for an answer, whether the node is alive.
const PROBE_AFTER: Duration = Duration::from_secs(1);
/// How long the node may take to answer that it is alive.
const PROBE_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a node may stay silent while the client sends it lines, which keep it busy.
const LINES_PATIENCE: Duration = Duration::from_secs(60);
/// The path that tells whether the node is alive. It needs no token, and the node answers at once.
const PROBE: &str = "/health/live";
/// The largest answer that is read as a whole, in bytes. A page of large records is smaller.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A client of one node. Cloning is cheap, and clones share connections.
///
/// Must be used inside a tokio runtime. Cancelling a call closes its connection; the node may have
/// carried out the request already.
#[derive(Clone)]
pub struct Client {
    base: String,
    token: Option<HeaderValue>,
    timeout: Duration,
    pool: Pool<HttpConnector, Body>,
}

/// The answer of a node.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// The HTTP status, 200 to 299 or 304.
    pub status: u16,
    /// The entity tag of the record, without its quotes, for `If-Match`.
    pub etag: Option<String>,
    /// The content, or `Value::Null` if the answer has none. Numbers keep all of their digits.
    pub json: Value,
    /// The content as the node wrote it.
    pub text: String,
}

/// A condition of a write, which the node checks and applies atomically.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The record exists in this version, which is the [`etag`](Answer::etag) of an earlier answer.
    Version(String),
    /// The record exists.
    Present,
    /// The record does not exist.
    Absent,
}

impl Client {
    /// Makes a client of the node at `base`, such as `http://127.0.0.1:4080`, without connecting.
    ///
    /// Fails with [`ClientError::Url`] if `base` is not an `http` address.
    pub fn new(base: &str) -> Result<Self, ClientError> {
        let base = base.trim_end_matches('/');
        let uri: Uri = base.parse().map_err(|_| ClientError::Url { url: base.to_owned() })?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() || uri.query().is_some() {
            return Err(ClientError::Url { url: base.to_owned() });
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let pool = Pool::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { base: base.to_owned(), token: None, timeout: DEFAULT_TIMEOUT, pool })
    }

    /// Sends a token with every request.
    #[must_use]
    pub fn with_token(self, token: &Token) -> Self {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.as_str())).ok();
        if let Some(value) = &mut value {
            value.set_sensitive(true);
        }
        Self { token: value, ..self }
    }

    /// Sets how long a call waits for the beginning of an answer. Default: 60 s.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Returns the address of the node.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Sends a `GET` request for a path with its query string, such as `/v1/status`.
    pub async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.whole(self.request(Method::GET, path, JSON)?.body(empty())).await
    }

    /// Sends JSON to a path with `PUT`, and a condition as `If-Match` or `If-None-Match`.
    pub async fn put(
        &self,
        path: &str,
        value: &impl Serialize,
        condition: Option<&Condition>,
    ) -> Result<Answer, ClientError> {
        let request = conditional(self.request(Method::PUT, path, JSON)?, condition);
        let json = serde_json::to_string(value).map_err(|error| self.broken(error.to_string()))?;
        self.whole(request.header(header::CONTENT_TYPE, JSON).body(whole(json))).await
    }

    /// Sends JSON to a path with `POST`, without a body if `value` serializes to `null`.
    pub async fn post(&self, path: &str, value: &impl Serialize) -> Result<Answer, ClientError> {
        let request = self.request(Method::POST, path, JSON)?;
        let json = serde_json::to_string(value).map_err(|error| self.broken(error.to_string()))?;
        if json == "null" {
            return self.whole(request.body(empty())).await;
        }
        self.whole(request.header(header::CONTENT_TYPE, JSON).body(whole(json))).await
    }

    /// Sends lines of JSON to a path with `POST`, as the stream yields them.
    ///
    /// The timeout of the client does not apply. Fails with [`ClientError::Silent`] if the node
    /// stays silent for a minute.
    pub async fn post_lines<E>(
        &self,
        path: &str,
        lines: impl Stream<Item = Result<Vec<u8>, E>> + Send + 'static,
    ) -> Result<Answer, ClientError>
    where
        E: Error + Send + Sync + 'static,
    {
        let request = self.request(Method::POST, path, JSON)?.header(header::CONTENT_TYPE, NDJSON);
        let frames = lines.map_ok(|line| Frame::data(Bytes::from(line))).map_err(BodyError::from);
        let response = self.send(request.body(StreamBody::new(frames).boxed_unsync()), None).await?;
        self.read(response).await
    }

    /// Sends a `DELETE` request, with a condition as `If-Match` or `If-None-Match`.
    pub async fn delete(&self, path: &str, condition: Option<&Condition>) -> Result<Answer, ClientError> {
        self.whole(conditional(self.request(Method::DELETE, path, JSON)?, condition).body(empty())).await
    }

    /// Sends a `GET` request whose answer is read line by line, such as that of an export.
    pub async fn lines(&self, path: &str) -> Result<Lines, ClientError> {
        let request = self.request(Method::GET, path, "*/*")?.body(empty());
        Ok(Lines::new(self.checked(request).await?, &self.base))
    }

    /// Follows a stream of events, from now on or after the event whose id is `last`.
    pub async fn events(&self, path: &str, last: Option<&str>) -> Result<EventStream, ClientError> {
        let mut request = self.request(Method::GET, path, EVENT_STREAM)?;
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        Ok(EventStream::new(Lines::new(self.checked(request.body(empty())).await?, &self.base)))
    }

    fn request(&self, method: Method, path: &str, accept: &str) -> Result<Builder, ClientError> {
        let url = format!("{}{path}", self.base);
        let uri: Uri = url.parse().map_err(|_| ClientError::Url { url })?;
        let mut request = Request::builder().method(method).uri(uri).header(header::ACCEPT, accept);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        Ok(request)
    }

    async fn whole(&self, request: Built) -> Result<Answer, ClientError> {
        let response = self.send(request, Some(self.timeout)).await?;
        self.read(response).await
    }

    /// Sends a request, and returns the body of a successful answer.
    async fn checked(&self, request: Built) -> Result<Incoming, ClientError> {
        let response = self.send(request, Some(self.timeout)).await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        match self.read(response).await {
            Err(error) => Err(error),
            Ok(answer) => Err(self.broken(format!("the status {}", answer.status))),
        }
    }

    async fn send(
        &self,
        request: Built,
        timeout: Option<Duration>,
    ) -> Result<Response<Incoming>, ClientError> {
        let request = request.map_err(|error| self.broken(error.to_string()))?;
        let sent: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(self.pool.request(request));
        let timed_out = async {
            match timeout {
                None => std::future::pending().await,
                Some(timeout) => {
                    tokio::time::sleep(timeout).await;
                    ClientError::TimedOut { url: self.base.clone(), after: timeout }
                }
            }
        };
        let patience = timeout.map_or(LINES_PATIENCE, |_| PROBE_TIMEOUT);
        let sent = tokio::select! {
            biased;
            sent = sent => sent,
            error = timed_out => return Err(error),
            error = self.silent(patience) => return Err(error),
        };
        sent.map_err(|error| {
            if error.is_connect() {
                return ClientError::NoNode { url: self.base.clone(), reason: error_chain(&error) };
            }
            self.broken(error_chain(&error))
        })
    }

    /// Waits until the node has not answered for `patience` that it is alive. The system accepts
    /// connections also for a process that is stopped.
    async fn silent(&self, patience: Duration) -> ClientError {
        let mut alive = Instant::now();
        loop {
            tokio::time::sleep(PROBE_AFTER).await;
            let probe = Request::builder().uri(format!("{}{PROBE}", self.base)).body(empty());
            // The address is valid, or the request itself would have failed.
            let Ok(probe) = probe else { return std::future::pending().await };
            let answered = tokio::time::timeout(PROBE_TIMEOUT, self.pool.request(probe)).await;
            let silent = alive.elapsed();
            if answered.is_ok() {
                alive = Instant::now();
            } else if silent >= patience {
                let after = Duration::from_secs(silent.as_secs());
                return ClientError::Silent { url: self.base.clone(), after };
            }
        }
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Answer, ClientError> {
        let (parts, body) = response.into_parts();
        let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let body = match Limited::new(body, MAX_ANSWER_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(self.broken(format!("more than {MAX_ANSWER_BYTES} bytes")));
            }
            Err(error) => return Err(self.broken(error_chain(error.as_ref()))),
        };
        let media = text(header::CONTENT_TYPE).unwrap_or_default();
        // Without parameters, such as a character set, which JSON does not define.
        let media = media.split(';').next().unwrap_or_default().trim();
        if media == PROBLEM_JSON {
            let document = serde_json::from_slice(&body).map_err(|error| self.broken(error.to_string()))?;
            return Err(ClientError::Problem(Box::new(document)));
        }
        if !parts.status.is_success() && parts.status.as_u16() != 304 {
            return Err(self.broken(format!("the status {} without an explanation", parts.status)));
        }
        let content = String::from_utf8(body.into()).map_err(|error| self.broken(error.to_string()))?;
        let json = match media {
            _ if content.is_empty() => Value::Null,
            JSON => serde_json::from_str(&content).map_err(|error| self.broken(error.to_string()))?,
            other => return Err(self.broken(format!("`{other}` in place of JSON"))),
        };
        let etag = text(header::ETAG).map(|etag| etag.trim_matches('"').to_owned());
        Ok(Answer { status: parts.status.as_u16(), etag, json, text: content })
    }

    fn broken(&self, reason: impl Into<String>) -> ClientError {
        ClientError::Broken { url: self.base.clone(), reason: reason.into() }
    }
}

type BodyError = Box<dyn Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, BodyError>;
type Built = Result<Request<Body>, hyper::http::Error>;

fn empty() -> Body {
    whole(String::new())
}

fn whole(text: String) -> Body {
    Full::from(text).map_err(BodyError::from).boxed_unsync()
}

fn conditional(request: Builder, condition: Option<&Condition>) -> Builder {
    match condition {
        None => request,
        Some(Condition::Version(etag)) => request.header(header::IF_MATCH, format!("\"{etag}\"")),
        Some(Condition::Present) => request.header(header::IF_MATCH, "*"),
        Some(Condition::Absent) => request.header(header::IF_NONE_MATCH, "*"),
    }
}

/// Percent-encodes a text as a segment of a path or a value of a query string.
///
/// ```
/// assert_eq!(netabase_client::escape("a/b c"), "a%2Fb%20c");
/// ```
pub fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Returns the path of a record or of a resource below it, such as `health`. The key is text in the
/// form in which the node writes keys.
///
/// The keys `.`, `..` and the empty key, which a path cannot have, go into the query string.
///
/// ```
/// use netabase_client::record_path;
///
/// assert_eq!(record_path("Message", "a/b", None), "/v1/models/Message/records/a%2Fb");
/// assert_eq!(record_path("Message", "42", Some("why")), "/v1/models/Message/records/42/why");
/// assert_eq!(record_path("Message", "..", Some("why")), "/v1/models/Message/record/why?key=%2E%2E");
/// ```
pub fn record_path(model: &str, key: &str, below: Option<&str>) -> String {
    let (model, key) = (escape(model), escape(key));
    let below = below.map(|below| format!("/{below}")).unwrap_or_default();
    match key.as_str() {
        "" | "%2E" | "%2E%2E" => format!("/v1/models/{model}/record{below}?key={key}"),
        key => format!("/v1/models/{model}/records/{key}{below}"),
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.base)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
