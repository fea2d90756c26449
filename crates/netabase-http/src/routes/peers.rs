//! The peers of a node.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use netabase::health::{ConnectionInfo, PeerReport, PeerState};
use netabase::libp2p::multiaddr::Protocol;
use netabase::{Multiaddr, PeerId};
use netabase_client::media::JSON;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::app::{App, Shared};
use crate::body::{answer, json, ok, require_accept};
use crate::network::Connections;
use crate::params;
use crate::problem::{Answer, Kind, Problem};
use crate::render::refusal;
use crate::routes::Path;
use crate::time::rfc3339_of;

/// Lists the connected peers.
pub(crate) async fn list(State(app): State<Shared>, headers: HeaderMap, uri: Uri) -> Answer {
    params::none(&uri)?;
    require_accept(&headers, JSON)?;
    let mut peers: BTreeMap<PeerId, Vec<ConnectionInfo>> = BTreeMap::new();
    let Connections { known, is_late, .. } = app.network.connections(&app.node).await?;
    for connection in known {
        peers.entry(connection.peer).or_default().push(connection);
    }
    let peers: Vec<_> = peers.iter().map(|(peer, known)| peer_json(&app, *peer, known)).collect();
    ok(&json!({ "peers": peers, "late": is_late }))
}

/// Answers with the connections and the report of a peer.
pub(crate) async fn get(State(app): State<Shared>, path: Path, headers: HeaderMap, uri: Uri) -> Answer {
    params::none(&uri)?;
    require_accept(&headers, JSON)?;
    let peer = peer_of(&path)?;
    let Connections { mut known, is_late, .. } = app.network.connections(&app.node).await?;
    known.retain(|connection| connection.peer == peer);
    if known.is_empty() && app.node.peer_report(peer).is_none() {
        return Err(if is_late { late() } else { unknown(peer) });
    }
    ok(&peer_json(&app, peer, &known))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dial {
    address: String,
}

/// How long the answer waits for the connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to a peer, and answers whether it is connected.
pub(crate) async fn dial(State(app): State<Shared>, headers: HeaderMap, uri: Uri, body: Body) -> Answer {
    params::none(&uri)?;
    require_accept(&headers, JSON)?;
    let Dial { address } = json(&app, &headers, body).await?;
    let invalid = |reason: &str| {
        Problem::new(
            Kind::InvalidValue,
            format!("`address` {reason}, as in /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo.."),
        )
    };
    let mut address: Multiaddr = address.parse().map_err(|_| invalid("must be a multiaddr"))?;
    let Some(Protocol::P2p(peer)) = address.pop() else {
        return Err(invalid("must end with the peer id"));
    };
    let told = |connected: bool| json!({ "peer": peer.to_string(), "connected": connected });
    match timeout(DIAL_TIMEOUT, app.node.connect(peer, address)).await {
        Ok(connected) => connected.map_err(Problem::from).and_then(|()| ok(&told(true))),
        // The node keeps dialling.
        Err(_) => answer(StatusCode::ACCEPTED, &told(false)),
    }
}

/// Disconnects from a peer.
pub(crate) async fn disconnect(
    State(app): State<Shared>,
    path: Path,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    params::none(&uri)?;
    require_accept(&headers, JSON)?;
    let peer = peer_of(&path)?;
    let connections = app.network.connections(&app.node).await?;
    let was_connected = connections.known.iter().any(|connection| connection.peer == peer);
    let was_known = app.node.remove_peer(peer).await?;
    if !was_connected && !was_known {
        return Err(unknown(peer));
    }
    ok(&json!({ "peer": peer.to_string() }))
}

fn peer_of(path: &Path) -> Answer<PeerId> {
    path.part("id")?.parse().map_err(|_| Problem::parameter("id", "is not a peer id"))
}

fn unknown(peer: PeerId) -> Problem {
    Problem::new(Kind::UnknownPeer, format!("{peer} is not connected and not known"))
}

fn late() -> Problem {
    Problem::new(Kind::Timeout, "the network is busy and does not tell its connections; try again later")
}

/// Returns a peer as JSON, with the agent of its newest connection and the shortest round-trip time
/// of all.
fn peer_json(app: &App, peer: PeerId, connections: &[ConnectionInfo]) -> Value {
    let agent = connections.iter().rev().find_map(|connection| connection.agent.as_deref());
    let round_trip = connections.iter().filter_map(|connection| connection.round_trip).min();
    let is_connected = !connections.is_empty();
    let connections: Vec<_> = connections
        .iter()
        .map(|connection| {
            json!({
                "address": connection.address.to_string(),
                "direction": if connection.outgoing { "outgoing" } else { "incoming" },
                "since": rfc3339_of(connection.since),
            })
        })
        .collect();
    let report = app.node.peer_report(peer);
    json!({
        "peer": peer.to_string(),
        "connected": is_connected,
        "connections": connections,
        "agent": agent,
        "rtt_ms": round_trip.map(|time| time.as_secs_f64() * 1000.0),
        "report": report.as_ref().map(report_json),
    })
}

fn report_json(report: &PeerReport) -> Value {
    let PeerReport { state, score, refused, throttled, bans, .. } = report;
    let (word, until) = match state {
        PeerState::Good => ("good", None),
        PeerState::Slowed => ("slowed", None),
        PeerState::Banned { until } => ("banned", Some(rfc3339_of(*until))),
        _ => ("other", None),
    };
    let refused: serde_json::Map<_, _> =
        refused.iter().map(|(reason, count)| (refusal(*reason).to_owned(), Value::from(*count))).collect();
    json!({
        "state": word,
        "banned_until": until,
        "score": score,
        "refused": refused,
        "throttled": throttled,
        "bans": bans,
    })
}
