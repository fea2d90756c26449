//! The events of a node as a stream.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::sse::Event;
use netabase::sync::ScopePart;
use netabase::sync::SyncReport;
use netabase::{EventError, Events, NetabaseSwarmEvent, PeerId, RecordEvent, Scope};
use serde_json::{Value, json};

use crate::app::{App, Shared};
use crate::body::written;
use crate::params;
use crate::problem::Answer;
use crate::render::{clock_json, refusal};
use crate::routes::details::{change_kind, origin};
use crate::sse::{Source, admit, stream_of};
use crate::time::{millis, rfc3339_of};

/// Streams the events of the node from now on.
pub(crate) async fn events(State(app): State<Shared>, headers: HeaderMap, uri: Uri) -> Answer {
    params::none(&uri)?;
    let permit = admit(&app, &headers)?;
    let events = app.node.subscribe_to_broadcasts();
    Ok(stream_of(&app, permit, Happening { app: Shared::clone(&app), events }))
}

struct Happening {
    app: Shared,
    events: Events,
}

impl Source for Happening {
    async fn next(&mut self) -> Option<Event> {
        loop {
            let event = match self.events.recv().await {
                Ok(event) => describe(&self.app, &event),
                Err(EventError::Lagged { missed }) => Some(("missed", json!({ "missed": missed }))),
                Err(EventError::Closed) => return None,
            };
            if let Some((event, mut data)) = event {
                if let Value::Object(fields) = &mut data {
                    fields.insert("time".to_owned(), rfc3339_of(std::time::SystemTime::now()).into());
                }
                return Some(Event::default().event(event).data(written(&data).ok()?));
            }
        }
    }
}

/// Returns the name and the data of an event, or `None` for the events that are not part of the
/// interface.
fn describe(app: &App, event: &NetabaseSwarmEvent) -> Option<(&'static str, Value)> {
    use NetabaseSwarmEvent as Event;
    Some(match event {
        Event::Started => ("started", json!({})),
        Event::Stopped => ("stopped", json!({})),
        Event::Record(record) => ("record", record_json(app, record)),
        Event::MembersChanged(_) => ("members_changed", json!({})),
        Event::RecordRefused { peer, key, reason } => {
            let key = key.as_ref().map(netabase::RecordKey::to_string);
            let reason_text = reason.to_string();
            (
                "record_refused",
                json!({ "peer": name(peer.as_ref()), "record": key, "reason": refusal(*reason), "detail": reason_text }),
            )
        }
        Event::OtherRoot(other) => (
            "other_root",
            json!({ "peer": other.peer.to_string(), "theirs": *other.theirs, "ours": other.ours.as_deref() }),
        ),
        Event::Repaired(report) => (
            "repaired",
            json!({ "records": report.records, "sent": report.sent, "received": report.received }),
        ),
        Event::SyncStarted { scope, peer } => ("sync_started", sync_json(scope, peer, None)),
        Event::SyncFinished { scope, peer, report, failure } => {
            let mut json = sync_json(scope, peer, Some(report));
            if let Value::Object(fields) = &mut json {
                fields.insert("failure".to_owned(), failure.map(|failure| failure.to_string()).into());
            }
            ("sync_finished", json)
        }
        Event::PeerSlowed { peer } => ("peer_slowed", json!({ "peer": peer.to_string() })),
        Event::PeerBanned { peer, until, reason } => (
            "peer_banned",
            json!({ "peer": peer.to_string(), "until": rfc3339_of(*until), "reason": refusal(*reason) }),
        ),
        Event::ClockDiffers(clock) => ("clock_differs", clock_json(clock)),
        Event::ClockAgrees => ("clock_agrees", json!({})),
        Event::SlowedBy { peer, rest } => {
            ("slowed_by", json!({ "peer": peer.to_string(), "rest_ms": millis(*rest) }))
        }
        Event::BannedBy { peer, rest, reason } => (
            "banned_by",
            json!({ "peer": peer.to_string(), "rest_ms": millis(*rest), "reason": refusal(*reason) }),
        ),
        Event::IdentityShared { peer } => ("identity_shared", json!({ "peer": peer.to_string() })),
        Event::ConnectionEstablished { peer, address, outgoing, connections } => (
            "connected",
            json!({
                "peer": peer.to_string(),
                "address": address.to_string(),
                "direction": if *outgoing { "outgoing" } else { "incoming" },
                "connections": connections,
            }),
        ),
        Event::ConnectionClosed { peer, address, connections, cause } => (
            "disconnected",
            json!({
                "peer": peer.to_string(),
                "address": address.to_string(),
                "connections": connections,
                "cause": cause.as_deref(),
            }),
        ),
        Event::IncomingConnectionError { remote_address, cause } => (
            "connection_failed",
            json!({ "peer": Value::Null, "address": remote_address.to_string(), "cause": **cause }),
        ),
        Event::OutgoingConnectionError { peer, cause } => (
            "connection_failed",
            json!({ "peer": name(peer.as_ref()), "address": Value::Null, "cause": **cause }),
        ),
        Event::NewListenAddress(address) => ("listening", json!({ "address": address.to_string() })),
        Event::ExternalAddressConfirmed(address) => ("reachable", json!({ "address": address.to_string() })),
        _ => return None,
    })
}

fn name(peer: Option<&PeerId>) -> Option<String> {
    peer.map(PeerId::to_string)
}

fn record_json(app: &App, record: &RecordEvent) -> Value {
    let key = record.key();
    json!({
        "model": key.model(),
        "key": app.keys.to_json(key.model(), key.primary_key()),
        "kind": change_kind(record.kind()),
        "origin": origin(record.origin()),
        "author": record.author().map(|author| author.to_string()),
        "size": record.envelope().map(|envelope| envelope.as_bytes().len()),
    })
}

fn sync_json(scope: &Scope, peer: &PeerId, report: Option<&SyncReport>) -> Value {
    let model = match &scope.part {
        ScopePart::Model(model) | ScopePart::Value { model, .. } => Some(model.clone()),
        ScopePart::All => None,
    };
    json!({
        "model": model,
        "peer": peer.to_string(),
        "received": report.map(|report| report.received),
        "sent": report.map(|report| report.sent),
        "bytes_received": report.map(|report| report.bytes_received),
        "bytes_sent": report.map(|report| report.bytes_sent),
    })
}
