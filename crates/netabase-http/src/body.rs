//! The bodies of requests and answers.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use netabase::netabase_store::text;
use netabase_client::error_chain;
use netabase_client::media::JSON;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::sync::Semaphore;

use crate::app::App;
use crate::config::Limits;
use crate::limits::{ANSWER_PIECE_BYTES, ANSWERS_KIB};
use crate::problem::{Answer, Kind, Problem};

/// The media type of bytes.
pub(crate) const BYTES: &str = "application/octet-stream";

/// Capacities that are enough for the headers and the body of most answers.
const ANSWER_HEADERS: usize = 10;
const ANSWER_BYTES: usize = 1024;

/// Reads the JSON text of a request, within the limits of its length and its time.
pub(crate) async fn json_text(app: &App, headers: &HeaderMap, body: Body) -> Answer<String> {
    require_type(headers, &[JSON])?;
    let bytes = whole(app, body).await?;
    let not_json = |error: &dyn std::fmt::Display| Problem::new(Kind::NotJson, error.to_string());
    let text = String::from_utf8(bytes).map_err(|error| not_json(&error))?;
    serde_json::from_str::<IgnoredAny>(&text).map_err(|error| not_json(&error))?;
    Ok(text)
}

/// Reads a request that is one JSON object of a known form.
pub(crate) async fn json<T: DeserializeOwned>(app: &App, headers: &HeaderMap, body: Body) -> Answer<T> {
    let text = json_text(app, headers, body).await?;
    if !text.trim_start().starts_with('{') {
        return Err(Problem::new(Kind::InvalidValue, "the body must be an object"));
    }
    serde_json::from_str(&text).map_err(|error| Problem::new(Kind::InvalidValue, error.to_string()))
}

async fn whole(app: &App, body: Body) -> Answer<Vec<u8>> {
    let body_timeout = app.config.limits.body_timeout;
    let read = tokio::time::timeout(body_timeout, pieces(app, body));
    read.await.unwrap_or_else(|_| Err(too_slow("the body did not come", body_timeout)))
}

/// Reads a body whose every piece comes in time.
async fn pieces(app: &App, body: Body) -> Answer<Vec<u8>> {
    let Limits { max_body_bytes: limit, piece_timeout, .. } = app.config.limits;
    let (mut body, mut read) = (Limited::new(body, limit), Vec::new());
    loop {
        let piece = tokio::time::timeout(piece_timeout, body.frame()).await;
        match piece.map_err(|_| too_slow("nothing of the body came", piece_timeout))? {
            None => return Ok(read),
            Some(Ok(frame)) => read.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Some(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(Problem::new(Kind::TooLarge, format!("the body may have {limit} bytes")));
            }
            Some(Err(error)) => return Err(Problem::new(Kind::NotJson, error_chain(error.as_ref()))),
        }
    }
}

fn too_slow(what: &str, within: Duration) -> Problem {
    let seconds = within.as_secs_f32();
    Problem::new(Kind::TooSlow, format!("{what} within {seconds} s; send the request again"))
}

/// Refuses a body of another media type.
pub(crate) fn require_type(headers: &HeaderMap, allowed: &[&str]) -> Answer<()> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|given| given.to_str().ok()).unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default().trim();
    if allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(media)) {
        return Ok(());
    }
    let detail = format!("the body must be {}, and not `{given}`", allowed.join(" or "));
    Err(Problem::new(Kind::UnsupportedMediaType, detail))
}

/// Refuses a request that does not accept answers of this media type.
pub(crate) fn require_accept(headers: &HeaderMap, media: &str) -> Answer<()> {
    let mut ranges = headers.get_all(header::ACCEPT).iter().peekable();
    if ranges.peek().is_none() {
        return Ok(());
    }
    let text: Vec<_> = ranges.filter_map(|accept| accept.to_str().ok()).collect();
    let mut best: Option<(u8, bool)> = None;
    for range in text.iter().flat_map(|accept| accept.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let Some(precision) = precision(parts.next().unwrap_or_default(), media) else { continue };
        let quality =
            parts.find_map(|part| part.strip_prefix("q=")).and_then(|quality| quality.parse::<f32>().ok());
        // The most specific range decides.
        if best.is_none_or(|(known, _)| precision >= known) {
            best = Some((precision, quality.is_none_or(|quality| quality > 0.0)));
        }
    }
    if best.is_some_and(|(_, is_accepted)| is_accepted) {
        return Ok(());
    }
    Err(Problem::new(Kind::NotAcceptable, format!("the answer is {media}")))
}

fn precision(range: &str, media: &str) -> Option<u8> {
    let of_type =
        |range: &str| range.strip_suffix("/*").is_some_and(|kind| media.split('/').next() == Some(kind));
    match range {
        "*/*" => Some(0),
        range if of_type(range) => Some(1),
        range if range.eq_ignore_ascii_case(media) => Some(2),
        _ => None,
    }
}

/// Returns a value as JSON that can be shown as it is. All answers and events are written so.
pub(crate) fn written(value: &impl Serialize) -> serde_json::Result<String> {
    let mut text = Vec::with_capacity(ANSWER_BYTES);
    serde_json::to_writer(&mut text, value)?;
    let text = String::from_utf8(text).map_err(serde::ser::Error::custom)?;
    Ok(match text::json(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(escaped) => escaped,
    })
}

/// Returns an answer with JSON.
pub(crate) fn answer(status: StatusCode, value: &impl Serialize) -> Answer {
    let mut response = Response::new(Body::from(written(value).map_err(Problem::internal)?));
    *response.status_mut() = status;
    response.headers_mut().reserve(ANSWER_HEADERS);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    Ok(response)
}

/// Returns an answer with bytes and the status 200.
pub(crate) fn bytes(bytes: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(BYTES));
    response
}

/// Returns an answer with JSON and the status 200.
pub(crate) fn ok(value: &impl Serialize) -> Answer {
    answer(StatusCode::OK, value)
}

/// Reserves memory for an answer until the client has read it, if it is a large one. Returns a
/// problem in its place if there is no memory left.
pub(crate) fn reserve(answers: &Arc<Semaphore>, response: Response) -> Answer {
    let bytes = response.body().size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let Some(bytes) = bytes.filter(|bytes| *bytes > ANSWER_PIECE_BYTES) else { return Ok(response) };
    let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(ANSWERS_KIB);
    let Ok(reserved) = Arc::clone(answers).try_acquire_many_owned(kib) else {
        let detail = "clients have too many large answers that they have not read; read them, ask for smaller pages \
                      (`limit`), or try again later";
        return Err(Problem::busy(detail));
    };
    Ok(response.map(|body| Body::new(Holding::new(body, reserved))))
}

/// The body of an answer, which holds something until the connection has taken all of it, in pieces
/// of [`ANSWER_PIECE_BYTES`]: of one large piece the connection would keep what the client has not
/// read.
#[derive(Debug)]
pub(crate) struct Holding<T> {
    body: Body,
    /// The rest of a large piece.
    rest: Bytes,
    _held: T,
}

impl<T> Holding<T> {
    pub(crate) fn new(body: Body, held: T) -> Self {
        Self { body, rest: Bytes::new(), _held: held }
    }
}

impl<T: Unpin> HttpBody for Holding<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame.into_data(),
                ended => return Poll::Ready(ended),
            };
            match frame {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let length = self.rest.len().min(ANSWER_PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), u64::try_from(self.rest.len()).unwrap_or(u64::MAX));
        // The upper bound first: it may not be less than the lower one.
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}

/// Runs `work`, which reads much of the database, on a thread for blocking work.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Answer<T> {
    tokio::task::spawn_blocking(work).await.map_err(Problem::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(accept: &str, media: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        require_accept(&headers, media).is_ok()
    }

    #[tokio::test]
    async fn a_large_answer_is_passed_on_in_pieces() {
        let held = Arc::new(());
        let mut body = Holding::new(Body::from(vec![7; 2 * ANSWER_PIECE_BYTES + 1]), Arc::clone(&held));
        let (mut sizes, mut left) = (Vec::new(), body.size_hint().exact().unwrap());
        while let Some(frame) = body.frame().await {
            sizes.push(frame.unwrap().into_data().unwrap().len());
            left -= u64::try_from(*sizes.last().unwrap()).unwrap();
            assert_eq!(body.size_hint().exact(), Some(left));
            assert_eq!(body.is_end_stream(), left == 0);
        }
        assert_eq!(sizes, [ANSWER_PIECE_BYTES, ANSWER_PIECE_BYTES, 1]);
        assert_eq!(Arc::strong_count(&held), 2);
        drop(body);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn large_answers_that_are_not_read_take_memory() {
        let answers = Arc::new(Semaphore::new(200));
        let answer = |bytes: usize| reserve(&answers, Response::new(Body::from(vec![0; bytes])));
        let [unread, _other] = [(); 2].map(|()| answer(ANSWER_PIECE_BYTES + 1).unwrap());
        assert_eq!(answers.available_permits(), 200 - 2 * 65);
        assert_eq!(answer(100 * 1024).unwrap_err().kind, Kind::Busy);
        assert!(answer(ANSWER_PIECE_BYTES).is_ok(), "a small one");
        drop(unread);
        assert!(answer(100 * 1024).is_ok());
    }

    #[test]
    fn the_most_precise_range_says_whether_an_answer_is_accepted() {
        assert!(require_accept(&HeaderMap::new(), JSON).is_ok());
        assert!(accepts("*/*", JSON) && accepts("application/*", JSON));
        assert!(accepts("text/html, application/json;q=0.5", JSON));
        assert!(!accepts("text/html", JSON));
        assert!(!accepts("*/*, application/json;q=0", JSON));
    }
}
