//! How the node is.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use netabase::{DhtMode, NetabaseError};
use serde_json::{Value, json};

use crate::app::{App, Shared};
use crate::body::{JSON, blocking, ok, require_accept};
use crate::params;
use crate::problem::Answer;
use crate::render::peer_ids;
use crate::time::{millis, rfc3339_of};

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
    let (counts, disk_bytes) = (counts?, disk_bytes?);
    let records: u64 = counts.iter().map(|(_, records)| records).sum();
    let node = &app.node;
    let config = node.config();
    let schema = node.schema();
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
        "listen_addresses": strings(node.listen_addresses()),
        "peers": peer_ids(&peers.clone().unwrap_or_default()),
        "records": records,
        "store": {
            "backend": config.backend.to_string(),
            "path": node.database_path().map(|path| path.display().to_string()),
            "disk_bytes": disk_bytes,
            "commits": node.store().commits(),
            "takes_writes": node.store().failure().is_none(),
        },
        "streams": app.open_streams(),
        "warnings": warnings(&app, peers.as_ref().map(Vec::len)),
    }))
}

fn strings<T: ToString>(items: Vec<T>) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn warnings(_app: &App, _peers: Option<usize>) -> Vec<Value> {
    Vec::new()
}
