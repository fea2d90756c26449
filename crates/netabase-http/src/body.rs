//! The bodies of requests and answers.

use std::borrow::Cow;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use netabase::netabase_store::text;
use netabase_client::error_chain;
use netabase_client::media::JSON;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::app::App;
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
    let text = String::from_utf8(bytes.into()).map_err(|error| not_json(&error))?;
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

async fn whole(app: &App, body: Body) -> Answer<Bytes> {
    let limit = app.config.limits.max_body_bytes;
    let read = Limited::new(body, limit).collect();
    let Ok(read) = tokio::time::timeout(app.config.limits.body_timeout, read).await else {
        return Err(too_slow(app));
    };
    match read {
        Ok(read) => Ok(read.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Problem::new(Kind::TooLarge, format!("the body may have {limit} bytes")))
        }
        Err(error) => Err(Problem::new(Kind::NotJson, error_chain(error.as_ref()))),
    }
}

pub(crate) fn too_slow(app: &App) -> Problem {
    let seconds = app.config.limits.body_timeout.as_secs_f32();
    Problem::new(Kind::TooSlow, format!("the body did not come within {seconds} s"))
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

    #[test]
    fn the_most_precise_range_says_whether_an_answer_is_accepted() {
        assert!(require_accept(&HeaderMap::new(), JSON).is_ok());
        assert!(accepts("*/*", JSON) && accepts("application/*", JSON));
        assert!(accepts("text/html, application/json;q=0.5", JSON));
        assert!(!accepts("text/html", JSON));
        assert!(!accepts("*/*, application/json;q=0", JSON));
    }
}
