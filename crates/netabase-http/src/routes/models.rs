//! What kinds of records there are.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use netabase::WritePolicy;
use netabase::netabase_store::ModelSchema;
use serde_json::{Value, json};

use crate::app::Shared;
use crate::body::{JSON, ok, require_accept};
use crate::params;
use crate::problem::Answer;

/// Describes the models.
pub(crate) async fn schema(State(app): State<Shared>, headers: HeaderMap, uri: Uri) -> Answer {
    params::none(&uri)?;
    require_accept(&headers, JSON)?;
    let schema = app.node.schema();
    let models: Vec<_> = schema.models.iter().map(|model| model_json(model)).collect();
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

fn model_json(model: &ModelSchema) -> Value {
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
        "secondary_keys": indexes,
    })
}
