//! The routes of the interface.

use netabase_client::media::JSON;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::extract::{RawPathParams, Request};
use axum::http::{HeaderMap, Uri};
use axum::routing::{delete, get, post, put};

use crate::app::{App, Shared};
use crate::assets;
use crate::body::{ok, require_accept};
use crate::params;
use crate::problem::{Answer, Kind, Problem};

pub(crate) mod authors;
mod changes;
mod conditions;
mod description;
mod details;
mod events;
mod health;
pub(crate) mod models;
mod peers;
pub(crate) mod records;
pub(crate) mod status;
pub(crate) mod transfer;

/// Returns the router of all paths.
pub(crate) fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/", get(assets::index))
        .route("/assets/{name}", get(assets::asset))
        .route("/v1/status", get(status::status))
        .route("/v1/schema", get(models::schema))
        .route("/v1/models", get(models::models))
        .route("/v1/models/{model}/records", get(records::list).post(records::post))
        .route(
            "/v1/models/{model}/records/{key}",
            get(records::get).put(records::put).delete(records::delete),
        )
        .route("/v1/models/{model}/records/{key}/health", get(details::health).post(details::repair))
        .route("/v1/models/{model}/records/{key}/why", get(details::why))
        .route("/v1/models/{model}/records/{key}/holders", get(details::holders))
        // The empty key, from programs that put every key into the path.
        .route("/v1/models/{model}/records/", get(records::get).put(records::put).delete(records::delete))
        // With the key in the query string: a path cannot carry the keys that are empty, `.` and
        // `..`.
        .route("/v1/models/{model}/record", get(records::get).put(records::put).delete(records::delete))
        .route("/v1/models/{model}/record/health", get(details::health).post(details::repair))
        .route("/v1/models/{model}/record/why", get(details::why))
        .route("/v1/models/{model}/record/holders", get(details::holders))
        .route("/v1/changes", get(changes::changes))
        .route("/v1/events", get(events::events))
        .route("/v1/peers", get(peers::list).post(peers::dial))
        .route("/v1/peers/{id}", get(peers::get).delete(peers::disconnect))
        .route("/v1/authors", get(authors::list))
        .route("/v1/authors/{author}", delete(authors::remove))
        .route("/v1/authors/{author}/refusal", put(authors::refuse).delete(authors::allow))
        .route("/v1/statistics", get(status::statistics))
        .route("/v1/store", get(status::store))
        .route("/v1/import", post(transfer::import))
        .route("/v1/export", get(transfer::export))
        .route("/v1/backup", post(transfer::backup))
        .route("/v1/check", post(transfer::check))
        .route("/v1/compact", post(transfer::compact))
        .route("/openapi.json", get(description::openapi))
        .route("/docs", get(description::docs))
        .route("/metrics", get(status::metrics))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/problems/{slug}", get(problem))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(Arc::clone(app))
}

/// The parameters of a path.
pub(crate) struct Path(RawPathParams);

impl Path {
    /// Returns a parameter, or `None` if the path does not have it.
    pub(crate) fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Returns a parameter that every path of the route has.
    pub(crate) fn part(&self, name: &str) -> Answer<&str> {
        self.find(name).ok_or_else(|| Problem::internal(format!("the path has no part `{name}`")))
    }
}

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for Path {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Answer<Self> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        params.map(Self).map_err(|error| Problem::parameter("path", error))
    }
}

async fn not_found(request: Request) -> Problem {
    Problem::new(Kind::NotFound, format!("there is nothing at {}", request.uri().path()))
}

async fn method_not_allowed(request: Request) -> Problem {
    let (method, path) = (request.method(), request.uri().path());
    Problem::new(Kind::MethodNotAllowed, format!("{path} does not accept {method}"))
}

/// Explains a kind of problem.
async fn problem(State(_): State<Shared>, path: Path, headers: HeaderMap, uri: Uri) -> Answer {
    params::none(&uri)?;
    require_accept(&headers, JSON)?;
    let slug = path.part("slug")?;
    let Some(kind) = Kind::ALL.iter().find(|kind| kind.slug() == slug) else {
        return Err(Problem::new(Kind::NotFound, format!("there is no kind of problem `{slug}`")));
    };
    let (status, slug, title, meaning) = kind.parts();
    ok(&serde_json::json!({
        "type": format!("/problems/{slug}"),
        "title": title,
        "status": status.as_u16(),
        "meaning": meaning,
    }))
}
