//! The health checks of a node.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use netabase_client::media::JSON;
use serde_json::json;

use crate::app::Shared;
use crate::body::{answer, ok, require_accept};
use crate::params;
use crate::problem::Answer;

/// Answers that the server is alive.
pub(crate) async fn live(headers: HeaderMap, uri: Uri) -> Answer {
    params::none(&uri)?;
    require_accept(&headers, JSON)?;
    ok(&json!({ "status": "live" }))
}

/// Answers whether the store accepts writes and the node is not shutting down, and whether the node
/// has compared its records with its peers since it was offline.
pub(crate) async fn ready(State(app): State<Shared>, headers: HeaderMap, uri: Uri) -> Answer {
    params::none(&uri)?;
    require_accept(&headers, JSON)?;
    let is_stopping = app.is_stopping();
    let status = match app.node.store().failure() {
        Some(_) => "store_failed",
        None if is_stopping => "stopping",
        None => "ready",
    };
    let code = if status == "ready" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(code, &json!({ "status": status, "current": app.node.is_current() }))
}
