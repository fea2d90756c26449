//! How the node is.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::Response;
use netabase::netabase_store::{ModelStatistics, Statistics, TableStatistics};
use netabase::{DhtMode, NetabaseError, Refusal};
use serde_json::{Map, Value, json};

use crate::app::{App, Shared};
use crate::body::{JSON, blocking, ok, require_accept};
use crate::params::{self, Params};
use crate::problem::{Answer, Problem};
use crate::render::{peer_ids, refusal};
use crate::statistics;
use crate::time::{millis, rfc3339_of};

/// The media type of Prometheus.
pub(crate) const PROMETHEUS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The media type of what Prometheus took before.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Says how the node is, and what the operator should do about it.
pub(crate) async fn status(State(app): State<Shared>, headers: HeaderMap, uri: Uri) -> Answer {
    params::none(&uri)?;
    require_accept(&headers, JSON)?;
    let peers = match app.node.connected_peers().await {
        Ok(peers) => Some(peers),
        Err(NetabaseError::NotRunning | NetabaseError::Closed) => None,
        Err(error) => return Err(error.into()),
    };
    let store = app.node.store().clone();
    let (counts, disk_bytes) = blocking(move || (store.record_counts(), store.disk_bytes())).await?;
    let records: u64 = counts?.iter().map(|(_, records)| records).sum();
    let (node, config, schema) = (&app.node, app.node.config(), app.node.schema());
    let refused: Map<_, _> =
        node.store().refusals().iter().map(|(why, count)| (refusal(*why).to_owned(), json!(count))).collect();
    ok(&json!({
        "peer_id": node.local_peer_id().to_string(),
        "author": node.store().author().map(|author| author.to_string()),
        "version": env!("CARGO_PKG_VERSION"),
        "definition": schema.name,
        "network": config.network.as_deref().unwrap_or(schema.name),
        "mode": match config.dht.mode { DhtMode::Client => "client", _ => "server" },
        "running": peers.is_some(),
        "started": rfc3339_of(app.started_at),
        "uptime_ms": millis(app.started.elapsed()),
        "listen_addresses": node.listen_addresses().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "peers": peer_ids(peers.as_deref().unwrap_or_default()),
        "records": records,
        "refused": refused,
        "store": {
            "backend": config.backend.to_string(),
            "path": node.database_path().map(|path| path.display().to_string()),
            "disk_bytes": disk_bytes?,
            "commits": node.store().commits(),
            "takes_writes": node.store().failure().is_none(),
        },
        "streams": app.open_streams(),
        "warnings": warnings(&app, peers.map(|peers| peers.len())),
    }))
}

fn warning(kind: &str, message: impl Into<String>, what_to_do: &str) -> Value {
    json!({ "kind": kind, "message": message.into(), "what_to_do": what_to_do })
}

fn warnings(app: &App, peers: Option<usize>) -> Vec<Value> {
    let mut warnings = Vec::new();
    if let Some(error) = app.node.store().failure() {
        warnings.push(warning(
            "store_failed",
            format!("the database takes no more writes: {}", crate::problem::chain(&error)),
            "make room on the disk or mend what the message says, then start the node again; \
             `netabase check` tells whether the file is whole",
        ));
    }
    match peers {
        None => warnings.push(warning(
            "not_running",
            "the network is not running: nothing is shared",
            "start the node again; its log says why the network stopped",
        )),
        Some(0) => warnings.push(warning(
            "no_peers",
            "no peer is connected: what is written here is on this machine alone",
            "add a peer with `POST /v1/peers` or as a bootstrap peer, or let multicast DNS find one; \
             look whether a firewall blocks the listen addresses",
        )),
        Some(_) => {}
    }
    // What was refused long ago is in the figures; a warning is of what goes on.
    let recent = app.ring.recent(app.node.store().refusals(), SystemTime::now());
    warnings.extend(recent.into_iter().filter_map(|(reason, count)| refused(reason, count)));
    warnings
}

/// Warns of refusals that somebody can do something about; that a version is outdated is as it should be.
fn refused(reason: Refusal, count: u64) -> Option<Value> {
    let what_to_do = match reason {
        Refusal::FutureTimestamp => {
            let message = "records were refused in the last ten minutes since they come from the future";
            let what_to_do =
                "set this machine's clock by NTP; if it is right, the clocks of their authors are not";
            return Some(counted(warning("clock_skew", message, what_to_do), reason, count));
        }
        Refusal::TooLarge => "raise `max_value_bytes`, on which all nodes of a network should agree",
        Refusal::OverQuota => "raise `max_author_bytes` if the author may have more here",
        Refusal::Full => "raise `max_replica_bytes`, or add nodes to the network",
        Refusal::Busy => "writes come faster than the disk takes them: look at its load",
        Refusal::NotMember => "if the author is to write, have the network's root add it to the members",
        Refusal::InvalidValue | Refusal::KeyMismatch => {
            "their authors have another schema: compare `/v1/schema`"
        }
        Refusal::InvalidSignature | Refusal::InvalidEnvelope | Refusal::InvalidKey | Refusal::NotOwner => {
            "`/v1/peers` tells which peer sends them; it is banned if it goes on"
        }
        _ => return None,
    };
    let message = format!("records were refused in the last ten minutes: {reason}");
    Some(counted(warning("refused_records", message, what_to_do), reason, count))
}

/// Adds what was refused and how often: the message stays the same while the number grows.
fn counted(mut warning: Value, reason: Refusal, count: u64) -> Value {
    if let Value::Object(fields) = &mut warning {
        fields.insert("reason".to_owned(), refusal(reason).into());
        fields.insert("count".to_owned(), count.into());
    }
    warning
}

/// Counts and measures everything in the store.
pub(crate) async fn store(State(app): State<Shared>, headers: HeaderMap, uri: Uri) -> Answer {
    params::none(&uri)?;
    require_accept(&headers, JSON)?;
    // It reads the whole database; those who ask meanwhile wait for one answer after another.
    let turn = Arc::clone(&app.measuring).lock_owned().await;
    let store = app.node.store().clone();
    let measure = move || {
        // The work goes on when nobody waits for it any more, and so does its turn.
        let _turn = turn;
        store.statistics()
    };
    let statistics = blocking(measure).await??;
    ok(&store_json(&statistics))
}

fn store_json(statistics: &Statistics) -> Value {
    let model = |model: &ModelStatistics| {
        let indexes: Vec<_> = model
            .indexes
            .iter()
            .map(|index| json!({ "name": index.name, "entries": table_json(&index.entries) }))
            .collect();
        json!({ "name": model.name, "records": table_json(&model.records), "newer": model.newer, "secondary_keys": indexes })
    };
    let authors: Vec<_> = statistics
        .largest_authors
        .iter()
        .map(|(author, usage)| json!({ "author": author.to_string(), "bytes": usage.bytes() }))
        .collect();
    json!({
        "models": statistics.models.iter().map(model).collect::<Vec<_>>(),
        "foreign": table_json(&statistics.foreign),
        "tombstones": table_json(&statistics.tombstones),
        "expiring": statistics.expiring,
        "scheduled": statistics.scheduled,
        "leases": statistics.leases,
        "own_bytes": statistics.own.bytes(),
        "others_bytes": statistics.others.bytes(),
        "largest_authors": authors,
        "history": {
            "changes": statistics.history.changes,
            "bytes": statistics.history.bytes,
            "first": statistics.history.first,
            "last": statistics.history.last,
        },
        "disk_bytes": statistics.disk_bytes,
        "commits": statistics.commits,
    })
}

fn table_json(table: &TableStatistics) -> Value {
    json!({ "count": table.count, "key_bytes": table.key_bytes, "value_bytes": table.value_bytes })
}

/// Returns what was sampled in the last ten minutes, or since an earlier answer.
pub(crate) async fn statistics(State(app): State<Shared>, headers: HeaderMap, uri: Uri) -> Answer {
    let mut params = Params::of(&uri)?;
    let after = params.take("after")?;
    let series = params.take("series")?;
    params.finish()?;
    require_accept(&headers, JSON)?;
    let wanted: Option<Vec<_>> = series.as_deref().map(|names| names.split(',').collect());
    if let Some(unknown) =
        wanted.iter().flatten().find(|name| !statistics::names().any(|known| known == **name))
    {
        return Err(Problem::parameter("series", format!("there is no series `{unknown}`")));
    }
    ok(&app.ring.json(after.as_deref(), wanted.as_deref()))
}

/// Returns what Prometheus collects.
pub(crate) async fn metrics(State(app): State<Shared>, headers: HeaderMap, uri: Uri) -> Answer {
    params::none(&uri)?;
    let takes = |media| require_accept(&headers, media);
    // The text is the same: who knows only the older format reads it as such.
    let media = match takes("application/openmetrics-text") {
        Ok(()) => PROMETHEUS,
        Err(_) => takes("text/plain").map(|()| PLAIN)?,
    };
    let mut response = Response::new(Body::from(statistics::metrics(&app)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    Ok(response)
}
