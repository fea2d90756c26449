//! The checks before every request (rate, host, origin, token) and the headers of every answer.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tokio::time::Instant;

use crate::app::App;
use crate::body::reserve;
use crate::problem::{Answer, Kind, Problem};
use crate::server::places::Place;
use crate::traces::in_trace;

pub(crate) mod rate;

/// The paths that need no token. They reveal nothing about the contents of the database.
const OPEN: [&str; 4] = ["/", "/docs", "/health/live", "/health/ready"];
/// The prefixes of further paths without a token: the files of the dashboard and the kinds of
/// problems.
const OPEN_PREFIXES: [&str; 2] = ["/assets/", "/problems/"];
/// The headers and methods that pages of allowed origins may use.
const ALLOW_HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, if-match, if-none-match, last-event-id");
const ALLOW_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE");
const EXPOSE_HEADERS: HeaderValue = HeaderValue::from_static("etag, location, retry-after");

/// Answers a request of `client`, or refuses it with a problem document.
pub(crate) async fn guard(
    app: &App,
    client: SocketAddr,
    place: &Place,
    request: Request,
    router: Router,
) -> Response {
    app.counters.requests.add();
    let origin = request.headers().get(header::ORIGIN).cloned();
    let origin = origin.filter(|origin| is_allowed(app, origin));
    let response = match check(app, client, place, &request) {
        Err(problem) => problem.into_response(),
        Ok(()) if is_allowed_preflight(app, &request) => StatusCode::NO_CONTENT.into_response(),
        Ok(()) => {
            // A panic in the code of a model fails the request, and not the connection.
            let answered = AssertUnwindSafe(in_trace(request, router)).catch_unwind().await;
            let answered = answered
                .unwrap_or_else(|_| Problem::internal("the request made the node panic").into_response());
            reserve(&app.answers, answered).unwrap_or_else(IntoResponse::into_response)
        }
    };
    if response.status().is_client_error() || response.status().is_server_error() {
        app.counters.problems.add();
    }
    finish(app, response, origin)
}

fn check(app: &App, client: SocketAddr, place: &Place, request: &Request) -> Answer<()> {
    check_rate(app, client)?;
    check_host(app, request)?;
    check_origin(app, request)?;
    if !is_authorized(app, request)? || place.authorize() || is_open(request.uri().path()) {
        return Ok(());
    }
    Err(Problem::busy("all connections have a request in progress; try again when one has ended"))
}

fn check_rate(app: &App, client: SocketAddr) -> Answer<()> {
    let client = client.ip().to_canonical();
    if client.is_loopback() && !app.config.limits.limit_loopback {
        return Ok(());
    }
    app.buckets.take(client, Instant::now()).map_err(|wait| {
        app.counters.limited.add();
        let rate = app.config.limits.rate.per_second;
        let detail = format!("more than {rate} requests a second came from {client}");
        Problem::new(Kind::TooManyRequests, detail).retry_after(wait.as_secs() + 1)
    })
}

/// Refuses requests for other host names: in DNS rebinding, a page of a foreign site makes its own
/// name resolve to this machine.
fn check_host(app: &App, request: &Request) -> Answer<()> {
    let is_beyond_loopback = !app.config.bind.ip().is_loopback();
    let is_own = |host: &str| {
        let name = without_port(host);
        // An IP address cannot be rebound.
        is_loopback(name)
            || app.config.allow_hosts.iter().any(|allowed| without_port(allowed).eq_ignore_ascii_case(name))
            || is_beyond_loopback && (app.config.allow_hosts.is_empty() || is_address(name))
    };
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        _ => None,
    };
    let Some(host) = host else { return Err(Problem::parameter("Host", "must be given once")) };
    let authority = request.uri().authority().map(axum::http::uri::Authority::as_str);
    if is_own(host) && authority.is_none_or(is_own) {
        return Ok(());
    }
    let detail = format!(
        "`{host}` is not a name of this node; if it should be, add it to `allow_hosts`, or to the setting `api.hosts`"
    );
    Err(Problem::new(Kind::ForeignHost, detail))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

fn is_loopback(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || address(name).is_some_and(|ip| ip.is_loopback())
}

fn is_address(name: &str) -> bool {
    address(name).is_some()
}

fn address(name: &str) -> Option<IpAddr> {
    name.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Refuses requests by pages of other origins. Reads are refused as well, since they can have
/// effects such as requests to peers.
fn check_origin(app: &App, request: &Request) -> Answer<()> {
    let foreign = |origin: &str| {
        let detail =
            format!("pages of {origin} may not use this node; add it to `allow_origins` if they may");
        Err(Problem::new(Kind::ForeignOrigin, detail))
    };
    let only_reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if only_reads && is_open(request.uri().path()) {
        return Ok(());
    }
    match request.headers().get(header::ORIGIN) {
        Some(origin) if is_allowed(app, origin) || is_same(request.headers(), origin) => Ok(()),
        Some(origin) => foreign(origin.to_str().unwrap_or("another origin")),
        None if fetch_site(request.headers())
            .is_some_and(|site| site == "cross-site" || site == "same-site") =>
        {
            foreign("another site, or of another port")
        }
        None => Ok(()),
    }
}

/// Returns whether a path needs no token and has no effects.
fn is_open(path: &str) -> bool {
    OPEN.contains(&path) || OPEN_PREFIXES.iter().any(|prefix| path.starts_with(prefix))
}

fn fetch_site(headers: &HeaderMap) -> Option<&str> {
    headers.get(HeaderName::from_static("sec-fetch-site"))?.to_str().ok()
}

fn is_allowed(app: &App, origin: &HeaderValue) -> bool {
    app.config.allow_origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
}

/// Returns whether an origin is the host that the request names.
fn is_same(headers: &HeaderMap, origin: &HeaderValue) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    host.zip(origin).is_some_and(|(host, (_, origin))| origin.eq_ignore_ascii_case(host))
}

/// Returns whether a request shows the token, if there is one. Refuses a request without it, unless
/// its path needs none.
fn is_authorized(app: &App, request: &Request) -> Answer<bool> {
    let Some(token) = &app.config.token else { return Ok(true) };
    let given = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let parts = given.and_then(|given| given.split_at_checked("Bearer ".len()));
    if parts.is_some_and(|(scheme, given)| scheme.eq_ignore_ascii_case(b"Bearer ") && token.matches(given)) {
        return Ok(true);
    }
    if is_open(request.uri().path()) || is_allowed_preflight(app, request) {
        return Ok(false);
    }
    let detail = match given {
        None => "send the node's token as `Authorization: Bearer <token>`",
        Some(_) => "this is not the node's token",
    };
    Err(Problem::new(Kind::Unauthorized, detail))
}

/// Returns whether a request is the preflight of a page that may use the interface. Browsers send
/// no token with it.
fn is_allowed_preflight(app: &App, request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        && request.headers().get(header::ORIGIN).is_some_and(|origin| is_allowed(app, origin))
}

/// Adds the headers of every answer, and those that let a page of an allowed origin read it.
fn finish(app: &App, mut response: Response, origin: Option<HeaderValue>) -> Response {
    let headers = response.headers_mut();
    let mut add = |name: HeaderName, value: HeaderValue| {
        headers.entry(name).or_insert(value);
    };
    add(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    add(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    add(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    add(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    if !app.config.allow_origins.is_empty() {
        add(header::VARY, HeaderValue::from_static("origin"));
    }
    match origin {
        Some(origin) => {
            add(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            add(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOW_HEADERS);
            add(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOW_METHODS);
            add(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSE_HEADERS);
        }
        None => add(
            HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("same-origin"),
        ),
    }
    response
}
