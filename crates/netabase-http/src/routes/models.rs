//! The models of a node.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::Response;
use netabase::dynamic::Field;
use netabase::key::WritePolicy;
use netabase::netabase_store::schema::ModelSchema;
use netabase_client::media::JSON;
use serde_json::{Value, json};

use crate::app::{App, Shared};
use crate::body::{ok, require_accept};
use crate::params::{self, Params};
use crate::problem::{Answer, Kind, Problem};

/// The media type of TOML.
pub(crate) const TOML: &str = "application/toml";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Toml,
}

/// Answers with the schema.
pub(crate) async fn schema(State(app): State<Shared>, headers: HeaderMap, uri: Uri) -> Answer {
    let mut params = Params::of(&uri)?;
    let format = params.choice("format", &[("json", Format::Json), ("toml", Format::Toml)])?;
    params.finish()?;
    if format == Some(Format::Toml) {
        require_accept(&headers, TOML)?;
        let Some(described) = app.keys.complete() else {
            let detail = "the program does not describe the types of all fields";
            return Err(Problem::new(Kind::Unsupported, detail));
        };
        let mut response = Response::new(Body::from(described.to_toml()));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(TOML));
        return Ok(response);
    }
    require_accept(&headers, JSON)?;
    let schema = app.node.schema();
    let models: Vec<_> = schema.models.iter().map(|model| model_json(&app, model)).collect();
    ok(&json!({ "name": schema.name, "models": models }))
}

/// Lists the models with the number of their records.
pub(crate) async fn models(State(app): State<Shared>, headers: HeaderMap, uri: Uri) -> Answer {
    params::none(&uri)?;
    require_accept(&headers, JSON)?;
    let counts = app.node.store().record_counts()?;
    let models: Vec<_> =
        counts.iter().map(|(name, records)| json!({ "name": name, "records": records })).collect();
    ok(&json!({ "models": models }))
}

/// Returns the name of a policy.
pub(crate) fn policy(policy: WritePolicy) -> &'static str {
    match policy {
        WritePolicy::Owned => "owned",
        WritePolicy::Merged => "merged",
        WritePolicy::Root => "root",
        _ => "open",
    }
}

fn model_json(app: &App, model: &ModelSchema) -> Value {
    let described = app.keys.described().and_then(|schema| schema.model(model.name));
    let fields = described.map(|described| {
        let field = |field: &Field| json!({ "name": *field.name, "type": field.ty.to_string() });
        described.fields().iter().map(field).collect::<Vec<_>>()
    });
    let primary =
        described.map(|described| described.primary_key().map(|field| field.name.to_string()).collect());
    let primary: Vec<String> =
        primary.unwrap_or_else(|| model.primary_key.iter().map(|name| (*name).to_owned()).collect());
    let indexes: Vec<_> = model
        .indexes
        .iter()
        .map(|index| json!({ "name": index.name, "source": index.source, "unique": index.unique }))
        .collect();
    json!({
        "name": model.name,
        "version": model.version,
        "policy": policy(model.policy),
        "lifetime_ms": model.lifetime,
        "primary_key": primary,
        "fields": fields,
        "secondary_keys": indexes,
    })
}
