//! The health, history and holders of a record.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use netabase::changes::Origin;
use netabase::health::{HolderState, Trace, TraceEvent, TraceKind, VersionId, Written};
use netabase::netabase_store::ChangeKind;
use netabase::sync::ScopePart;
use netabase::{Health, RecordKey, Scope};
use netabase_client::media::JSON;
use serde_json::{Value, json};

use crate::app::{App, Shared};
use crate::body::{ok, require_accept};
use crate::params::Params;
use crate::problem::Answer;
use crate::render::{Record, VersionBody, hex, peer_ids, write_answers};
use crate::routes::Path;
use crate::routes::records::key_of;
use crate::time::rfc3339;

/// Asks the holders of a record for their versions.
pub(crate) async fn health(State(app): State<Shared>, path: Path, headers: HeaderMap, uri: Uri) -> Answer {
    require_accept(&headers, JSON)?;
    let key = only_key(&app, &path, &uri)?;
    ok(&health_json(&app, &app.node.health(key).await?))
}

/// Asks the holders of a record for their versions, and sends the newest one to those that lack it.
pub(crate) async fn repair(State(app): State<Shared>, path: Path, headers: HeaderMap, uri: Uri) -> Answer {
    require_accept(&headers, JSON)?;
    let key = only_key(&app, &path, &uri)?;
    ok(&health_json(&app, &app.node.health_and_repair(key).await?))
}

/// Answers with the history of a record on this node.
pub(crate) async fn why(State(app): State<Shared>, path: Path, headers: HeaderMap, uri: Uri) -> Answer {
    require_accept(&headers, JSON)?;
    let key = only_key(&app, &path, &uri)?;
    ok(&trace_json(&app, &app.node.why(key).await?))
}

/// Answers with the peers that may have records of the model.
pub(crate) async fn holders(State(app): State<Shared>, path: Path, headers: HeaderMap, uri: Uri) -> Answer {
    require_accept(&headers, JSON)?;
    let key = only_key(&app, &path, &uri)?;
    let part = ScopePart::Model(key.model().to_owned());
    let scope = Scope { definition: app.node.schema().name.to_owned(), part };
    let peers = app.node.holders(scope).await?;
    ok(&json!({ "model": key.model(), "peers": peer_ids(&peers) }))
}

/// Returns the key of a request that has no other parameters.
fn only_key(app: &App, path: &Path, uri: &Uri) -> Answer<RecordKey> {
    let mut params = Params::of(uri)?;
    let key = key_of(app, path, uri, &mut params)?;
    params.finish()?;
    Ok(key)
}

fn health_json(app: &App, health: &Health) -> Value {
    let Health { holders, current, wanted, newest, local, repairs, .. } = health;
    let holders: Vec<_> = holders
        .iter()
        .map(|(peer, state)| {
            let (word, version, reason) = holder_state(state);
            json!({
                "peer": peer.to_string(),
                "state": word,
                "version": version.map(|version| version_id(&version)),
                "reason": reason,
            })
        })
        .collect();
    json!({
        "holders": holders,
        "current": current,
        "wanted": wanted,
        "newest": newest.as_ref().map(version_id),
        "local": local.as_ref().map(version_id),
        "repairs": write_answers(app, repairs),
    })
}

fn holder_state(state: &HolderState) -> (&'static str, Option<VersionId>, Option<String>) {
    match state {
        HolderState::Current => ("current", None, None),
        HolderState::Older(version) => ("older", Some(*version), None),
        HolderState::Missing => ("missing", None, None),
        HolderState::Unreachable(reason) => ("unreachable", None, Some(reason.to_string())),
        HolderState::Invalid(reason) => ("invalid", None, Some(reason.to_string())),
        _ => ("other", None, None),
    }
}

fn version_id(version: &VersionId) -> Value {
    json!({
        "timestamp": rfc3339(version.timestamp.unix_millis()),
        "fingerprint": hex(&version.fingerprint),
    })
}

fn trace_json(app: &App, trace: &Trace) -> Value {
    let current = trace.current.as_ref();
    let current = current.and_then(|envelope| Record::new(app, &trace.key, envelope, "local".into()));
    let history: Vec<_> = trace
        .history
        .iter()
        .map(|(sequence, change)| {
            let version = change.envelope.as_ref().and_then(netabase::Envelope::version);
            json!({
                "sequence": sequence,
                "kind": change_kind(change.kind),
                "origin": origin(change.origin),
                "version": version.as_ref().map(VersionBody::new),
            })
        })
        .collect();
    json!({
        "model": trace.key.model(),
        "key": app.keys.to_json(trace.key.model(), trace.key.primary_key()),
        "current": current,
        "is_holder": trace.is_holder,
        "next_publication": trace.next_publication.map(rfc3339),
        "events": trace.events.iter().map(|event| trace_event(app, event)).collect::<Vec<_>>(),
        "history": history,
        "text": trace.to_string(),
    })
}

fn trace_event(app: &App, event: &TraceEvent) -> Value {
    let by = |written: &Option<Written>| {
        written.map(|Written { timestamp, author, .. }| {
            json!({ "timestamp": rfc3339(timestamp.unix_millis()), "author": author.to_string() })
        })
    };
    let mut json = match &event.kind {
        TraceKind::Changed { kind, origin: from, written } => json!({
            "event": "changed", "kind": change_kind(*kind), "origin": origin(*from), "version": by(written),
        }),
        TraceKind::Accepted { peer } => json!({ "event": "accepted", "peer": peer.to_string() }),
        TraceKind::Refused { peer, reason } => json!({
            "event": "refused", "peer": peer.map(|peer| peer.to_string()), "reason": reason.to_string(),
        }),
        TraceKind::Published { answers } => {
            json!({ "event": "published", "peers": write_answers(app, answers) })
        }
        TraceKind::Fetched { written, copies, kept } => json!({
            "event": "fetched", "version": by(written), "copies": copies, "kept": kept,
        }),
        TraceKind::Repaired { peers } => json!({ "event": "repaired", "sent_to": peer_ids(peers) }),
        _ => json!({ "event": "other" }),
    };
    if let Value::Object(fields) = &mut json {
        fields.insert("time".to_owned(), rfc3339(event.time).into());
    }
    json
}

/// Returns the name of a kind of change.
pub(crate) fn change_kind(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Stored => "stored",
        ChangeKind::Updated => "updated",
        ChangeKind::Removed => "removed",
        ChangeKind::Expired => "expired",
        ChangeKind::Evicted => "evicted",
        #[expect(unreachable_patterns, reason = "kinds may be added")]
        _ => "other",
    }
}

/// Returns the name of the origin of a version.
pub(crate) fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Local => "local",
        Origin::Network => "peer",
    }
}
