//! The description of the interface.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::Response;
use netabase_client::media::JSON;

use crate::app::Shared;
use crate::body::{ok, require_accept};
use crate::openapi;
use crate::params;
use crate::problem::Answer;

/// The page that shows the description. The page loads only the description.
const PAGE: &str = include_str!("docs.html");
const HTML: &str = "text/html";
/// The content security policy of the page: its inline script and style, and requests to this node.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Returns the description (`OpenAPI` 3.1).
pub(crate) async fn openapi(State(app): State<Shared>, headers: HeaderMap, uri: Uri) -> Answer {
    params::none(&uri)?;
    require_accept(&headers, JSON)?;
    ok(&openapi::document(&app))
}

/// Returns the page that shows the description.
pub(crate) async fn docs(headers: HeaderMap, uri: Uri) -> Answer {
    params::none(&uri)?;
    require_accept(&headers, HTML)?;
    let mut response = Response::new(Body::from(PAGE));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    Ok(response)
}
