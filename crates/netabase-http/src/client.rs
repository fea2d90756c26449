//! A small client of the interface, for programs that talk to a running node.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Method, Request, Response, Uri, header};
use futures::Stream;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde_json::Value;

use crate::body::JSON;
use crate::problem::PROBLEM_JSON;
use crate::sse::EVENT_STREAM;
use crate::token::Token;

mod error;
mod exact;
mod lines;

pub use error::{ClientError, ProblemDocument};
pub(crate) use exact::{number_len, text_len};
pub use lines::{EventStream, Lines, MAX_LINE_BYTES, ServerEvent};

/// The base address of a node on this machine, at the default port.
pub const DEFAULT_URL: &str = "http://127.0.0.1:4080";
/// The media type of lines of JSON.
pub const NDJSON: &str = "application/x-ndjson";
/// How long a request may take until its answer begins, by default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take to be connected.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is read whole, in bytes: more than a page of large records has.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A client of one node. Cloning is cheap, and clones share connections.
///
/// Must be used inside a tokio runtime. Cancelling a call closes its connection, and does not take back what the
/// node has done.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), netabase_http::client::ClientError> {
/// use netabase_http::client::{Client, ClientError};
///
/// // Nothing listens there.
/// let client = Client::new("http://127.0.0.1:1")?;
/// let error = client.get("/v1/status").await.unwrap_err();
/// assert!(matches!(error, ClientError::NoNode { .. }));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    base: String,
    token: Option<HeaderValue>,
    timeout: Duration,
    pool: Pool<HttpConnector, Body>,
}

/// What a node has answered.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// The HTTP status, 200 to 299 or 304.
    pub status: u16,
    /// The entity tag of the record, without its quotes, for `If-Match`.
    pub etag: Option<String>,
    /// The content; null where there is none. Integers of more than 64 bits are texts in it.
    pub json: Value,
    /// The content as the node has written it.
    pub text: String,
}

/// A condition of a write, which is checked together with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The record is there in this version: the [`etag`](Answer::etag) of an earlier answer.
    Version(String),
    /// There is a record.
    Present,
    /// There is no record.
    Absent,
}

impl Client {
    /// Makes a client of the node at `base`, such as `http://127.0.0.1:4080`; does not connect yet.
    ///
    /// Fails with [`ClientError::Url`] if that is no `http` address.
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

    /// Waits so long for the beginning of an answer. Default: 60 s.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Returns the address of the node.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Asks for a path, with its query string, such as `/v1/status`.
    pub async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.whole(self.request(Method::GET, path, JSON)?.body(Body::empty())).await
    }

    /// Sends JSON to a path with `PUT`; a condition is `If-Match` or `If-None-Match`.
    pub async fn put(
        &self,
        path: &str,
        value: &impl Serialize,
        condition: Option<&Condition>,
    ) -> Result<Answer, ClientError> {
        let request = conditional(self.request(Method::PUT, path, JSON)?, condition);
        let json = serde_json::to_string(value).map_err(|error| self.broken(error.to_string()))?;
        self.whole(request.header(header::CONTENT_TYPE, JSON).body(json.into())).await
    }

    /// Sends JSON to a path with `POST`; null is no content.
    pub async fn post(&self, path: &str, value: &impl Serialize) -> Result<Answer, ClientError> {
        let request = self.request(Method::POST, path, JSON)?;
        let json = serde_json::to_string(value).map_err(|error| self.broken(error.to_string()))?;
        if json == "null" {
            return self.whole(request.body(Body::empty())).await;
        }
        self.whole(request.header(header::CONTENT_TYPE, JSON).body(json.into())).await
    }

    /// Sends lines of JSON, as they come, to a path with `POST`, and waits for the answer however long it takes.
    pub async fn post_lines<E>(
        &self,
        path: &str,
        lines: impl Stream<Item = Result<Vec<u8>, E>> + Send + 'static,
    ) -> Result<Answer, ClientError>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let request = self.request(Method::POST, path, JSON)?.header(header::CONTENT_TYPE, NDJSON);
        let body = Body::from_stream(futures::TryStreamExt::map_ok(lines, Bytes::from));
        let response = self.send(request.body(body), None).await?;
        self.read(response).await
    }

    /// Asks with `DELETE`.
    pub async fn delete(&self, path: &str, condition: Option<&Condition>) -> Result<Answer, ClientError> {
        self.whole(conditional(self.request(Method::DELETE, path, JSON)?, condition).body(Body::empty()))
            .await
    }

    /// Asks for lines, such as those of an export, and returns them as they come.
    pub async fn lines(&self, path: &str) -> Result<Lines, ClientError> {
        let request = self.request(Method::GET, path, "*/*")?.body(Body::empty());
        Ok(Lines::new(self.checked(request).await?, &self.base))
    }

    /// Follows a stream of events, after the event `last` if that is given.
    pub async fn events(&self, path: &str, last: Option<&str>) -> Result<EventStream, ClientError> {
        let mut request = self.request(Method::GET, path, EVENT_STREAM)?;
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        Ok(EventStream::new(Lines::new(self.checked(request.body(Body::empty())).await?, &self.base)))
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

    /// Sends a request, and returns the body of a good answer.
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
        let sent = match timeout {
            None => sent.await,
            Some(timeout) => match tokio::time::timeout(timeout, sent).await {
                Ok(sent) => sent,
                Err(_) => return Err(ClientError::TimedOut { url: self.base.clone(), after: timeout }),
            },
        };
        sent.map_err(|error| {
            if error.is_connect() {
                return ClientError::NoNode { url: self.base.clone(), reason: crate::problem::chain(&error) };
            }
            self.broken(crate::problem::chain(&error))
        })
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Answer, ClientError> {
        let (parts, body) = response.into_parts();
        let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let body = match Limited::new(body, MAX_ANSWER_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return Err(self.broken(format!("more than {MAX_ANSWER_BYTES} bytes")));
            }
            Err(error) => return Err(self.broken(crate::problem::chain(error.as_ref()))),
        };
        let media = text(header::CONTENT_TYPE).unwrap_or_default();
        // Without parameters, such as a character set that JSON has not.
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
            JSON => exact::parse(&content).map_err(|error| self.broken(error.to_string()))?,
            other => return Err(self.broken(format!("`{other}` in place of JSON"))),
        };
        let etag = text(header::ETAG).map(|etag| etag.trim_matches('"').to_owned());
        Ok(Answer { status: parts.status.as_u16(), etag, json, text: content })
    }

    fn broken(&self, reason: impl Into<String>) -> ClientError {
        ClientError::Broken { url: self.base.clone(), reason: reason.into() }
    }
}

type Builder = axum::http::request::Builder;
type Built = Result<Request<Body>, axum::http::Error>;

fn conditional(request: Builder, condition: Option<&Condition>) -> Builder {
    match condition {
        None => request,
        Some(Condition::Version(etag)) => request.header(header::IF_MATCH, format!("\"{etag}\"")),
        Some(Condition::Present) => request.header(header::IF_MATCH, "*"),
        Some(Condition::Absent) => request.header(header::IF_NONE_MATCH, "*"),
    }
}

/// Returns a text as a segment of a path or a value of a query string.
///
/// ```
/// assert_eq!(netabase_http::client::escape("a/b c"), "a%2Fb%20c");
/// ```
pub fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.base)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
