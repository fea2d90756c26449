//! The status, statistics and metrics of a node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::Response;
use netabase::health::{ClockComparison, OtherRoot, Standing};
use netabase::netabase_store::Clock;
use netabase::netabase_store::admin::{ModelStatistics, Statistics, TableStatistics};
use netabase::netabase_store::replica::Usage;
use netabase::{Author, DhtMode, PeerId, Refusal};
use netabase_client::media::JSON;
use serde_json::{Map, Value, json};

use crate::app::{App, Shared};
use crate::body::{blocking, ok, require_accept};
use crate::floods::Flood;
use crate::network::Connections;
use crate::params::{self, Params};
use crate::problem::{Answer, Problem};
use crate::render::{clock_json, peer_ids, refusal};
use crate::routes::authors;
use crate::statistics;
use crate::time::{millis, rfc3339_of};

/// The media type of `OpenMetrics`.
pub(crate) const PROMETHEUS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The media type of the older text format of Prometheus.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The number of the largest authors in the status; `/v1/authors` has more.
const SHOWN_AUTHORS: usize = 3;
/// The share of its quota, in percent, from which an author counts as filling it.
const FULL_PERCENT: u64 = 95;

/// Answers with the status of the node, and with warnings that tell the operator what to do.
pub(crate) async fn status(State(app): State<Shared>, headers: HeaderMap, uri: Uri) -> Answer {
    params::none(&uri)?;
    require_accept(&headers, JSON)?;
    let connections = app.network.connections(&app.node).await?;
    let peers: BTreeSet<_> = connections.known.iter().map(|connection| connection.peer).collect();
    let store = app.node.store().clone();
    let (counts, counters) = blocking(move || (store.record_counts(), store.counters())).await?;
    let records: u64 = counts?.iter().map(|(_, records)| records).sum();
    let authors = authors::largest(&app).await?;
    let (node, config, schema) = (&app.node, app.node.config(), app.node.schema());
    let refused: Map<_, _> = node
        .store()
        .replica()
        .refusals()
        .iter()
        .map(|(why, count)| (refusal(*why).to_owned(), json!(count)))
        .collect();
    ok(&json!({
        "peer_id": node.local_peer_id().to_string(),
        "author": node.store().author().map(|author| author.to_string()),
        "version": env!("CARGO_PKG_VERSION"),
        "definition": schema.name,
        "network": config.network.as_deref().unwrap_or(schema.name),
        "mode": match config.dht.mode { DhtMode::Client => "client", _ => "server" },
        "running": connections.is_running,
        "late": connections.is_late,
        "current": node.is_current(),
        "started": rfc3339_of(app.started_at),
        "uptime_ms": millis(app.started.elapsed()),
        "listen_addresses": node.listen_addresses().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "peers": peer_ids(&peers),
        "records": records,
        "refused": refused,
        "largest_authors": authors.iter().take(SHOWN_AUTHORS)
            .map(|(author, usage)| authors::author_json(&app, *author, usage)).collect::<Vec<_>>(),
        "store": {
            "backend": config.store.backend.to_string(),
            "path": node.database_path().map(|path| path.display().to_string()),
            "disk_bytes": counters.disk_bytes,
            "commits": counters.commits,
            "takes_writes": node.store().failure().is_none(),
        },
        "clock": app.node.standing().clock.as_ref().map(clock_json),
        "streams": app.open_streams(),
        "warnings": warnings(&app, &connections, &authors),
    }))
}

fn warning(kind: &str, message: impl Into<String>, what_to_do: &str) -> Value {
    json!({ "kind": kind, "message": message.into(), "what_to_do": what_to_do })
}

fn warnings(app: &App, connections: &Connections, authors: &[(Author, Usage)]) -> Vec<Value> {
    let mut warnings = Vec::new();
    if let Some(error) = app.node.store().failure() {
        warnings.push(warning(
            "store_failed",
            format!("the database takes no more writes: {}", netabase_client::error_chain(&error)),
            "make room on the disk, and the node resumes by itself; if it does not, fix the cause in the message, start \
             the node again, and run `netabase check`",
        ));
    }
    if let Some(change) = app.node.identity_change() {
        let former = change.former.map(|former| format!(", which was {former}")).unwrap_or_default();
        warnings.push(warning(
            "identity_changed",
            format!("the database was opened with another identity than before{former}"),
            "restore the identity file beside the database and start the node again; without it, the node's earlier \
             records count as another author's, and those of owned models cannot be changed",
        ));
    }
    if let Some(error) = app.accepting.failure() {
        warnings.push(warning(
            "connections_refused",
            format!("connections to this interface could not be accepted in the last ten minutes: {error}"),
            "raise the limit of open files (`ulimit -n`, `LimitNOFILE`), or close unused connections",
        ));
    }
    match connections {
        Connections { is_running: false, .. } => warnings.push(warning(
            "not_running",
            "the network is not running: nothing is shared",
            "start the node again; its log says why the network stopped",
        )),
        Connections { is_late: true, .. } => warnings.push(warning(
            "late",
            "the network did not answer this interface within a second: the peers are those of its last answer",
            "wait, and ask again; if the warning stays, check the load of the processors, and report what the log says",
        )),
        Connections { known, .. } if known.is_empty() => warnings.push(warning(
            "no_peers",
            "no peer is connected: new records are on this machine alone",
            "add a peer with `POST /v1/peers` or as a bootstrap peer, or enable mDNS; check whether a firewall blocks \
             the listen addresses",
        )),
        _ if !app.node.is_current() => warnings.push(warning(
            "catching_up",
            "this node was offline and has not compared its records with its peers since: records that they changed \
             meanwhile may be outdated here",
            "wait: the comparison is in progress, and takes seconds if peers answer; until then reads of single records \
             ask peers as well",
        )),
        _ => {}
    }
    warnings.extend(app.node.other_roots().iter().map(other_root));
    let own = app.node.store().author();
    let others: Vec<_> = authors.iter().copied().filter(|(author, _)| Some(*author) != own).collect();
    warnings.extend(app.floods.find(&app.node.store().counters().usage, &others).map(flood));
    let rate = app.node.config().author_records_per_second;
    warnings.extend(fast_authors(&app.node.fast_authors(), rate));
    let quota = app.node.config().store.max_author_bytes;
    warnings.extend(others.iter().filter_map(|(author, usage)| full_author(*author, usage, quota)));
    warnings.extend(told(app.node.standing(), app.node.local_peer_id()));
    // Older refusals are in the metrics. A warning is about the present.
    let recent = app.ring.recent(app.node.store().replica().refusals(), SystemTime::now());
    warnings.extend(recent.into_iter().filter_map(|(reason, count)| refused(reason, count)));
    warnings
}

/// Returns the warning about an author that has written most of the new records.
fn flood(Flood { author, records, percent, since }: Flood) -> Value {
    let minutes = since.elapsed().as_secs() / 60;
    warning(
        "author_flood",
        format!(
            "the author {author} wrote {records} records in the last {minutes} minutes, {percent} % of what this node stored"
        ),
        "if they are unwanted, `netabase authors refuse` refuses the author and removes its records",
    )
}

/// Returns the warning about authors whose new records came too fast.
fn fast_authors(fast: &[(Author, u64)], rate: u32) -> Option<Value> {
    let (author, count) = *fast.first()?;
    let others = match fast.len() - 1 {
        0 => String::new(),
        others => format!(", and of {others} other authors"),
    };
    let message = format!(
        "peers sent new records of the author {author}{others} faster than {rate} a second in the last ten minutes"
    );
    let what_to_do = "if they are unwanted, `netabase authors refuse` refuses an author and removes its records; \
                      otherwise wait, since peers send them again, or raise `authors.records_per_second`";
    Some(counted(warning("author_rate", message, what_to_do), Refusal::TooFast, count))
}

/// Returns the warning about an author whose records fill its quota.
fn full_author(author: Author, usage: &Usage, quota: u64) -> Option<Value> {
    let is_full = usage.bytes() >= quota / 100 * FULL_PERCENT;
    is_full.then(|| {
        warning(
            "author_quota",
            format!(
                "the author {author} has {} records in {} bytes here, and its quota is {quota} bytes",
                usage.records,
                usage.bytes()
            ),
            "if they are a flood, `netabase authors refuse` refuses the author and removes its records; otherwise raise \
             `max_author_bytes`",
        )
    })
}

/// Returns the warning about a peer whose closed network has the name of this one.
fn other_root(other: &OtherRoot) -> Value {
    let OtherRoot { peer, theirs, ours, .. } = other;
    match ours {
        Some(ours) => warning(
            "other_root",
            format!(
                "the network of the peer {peer} has the same name and the root {theirs}.., this node's root is {ours}..: the two are kept apart"
            ),
            "if the peer is in another network, give yours a name of its own (`network`); otherwise one of the two nodes \
             has a wrong `root`",
        ),
        None => warning(
            "other_root",
            format!(
                "the network of the peer {peer} is closed and has the root {theirs}.., and this node has no root: its records are refused there"
            ),
            "start this node with that `root`, or give your network a name of its own (`network`)",
        ),
    }
}

/// Returns the warnings about the clock, the identity, the bans and the refusals that peers report.
fn told(standing: Standing, us: PeerId) -> Vec<Value> {
    let mut warnings = Vec::new();
    if let Some(clock) = standing.clock.filter(ClockComparison::differs) {
        warnings.push(clock_warning(&clock));
    }
    for (peer, ahead) in
        standing.other_clocks.iter().filter(|_| standing.clock.is_some_and(|clock| !clock.differs()))
    {
        warnings.push(warning(
            "peer_clock",
            format!("the clock of the peer {peer} is {} this node's", apart(ahead.saturating_neg())),
            "set its clock by NTP (`timedatectl set-ntp true`); its records are refused if the clock is more than ten \
             minutes ahead",
        ));
    }
    for peer in standing.shared_identities {
        let message = if peer == us {
            format!("another running node has the identity of this one ({us}): neither writes anything")
        } else {
            format!("two running nodes have the identity {peer}: each would overwrite what the other writes")
        };
        warnings.push(warning(
            "identity_shared",
            message,
            "stop one of the two, or give one a new identity: stop the node, remove its `.identity` file and start it again",
        ));
    }
    for (peer, rest) in standing.slowed_by {
        warnings.push(warning(
            "slowed",
            format!("the peer {peer} has slowed this node for {} s more", rest.as_secs() + 1),
            "the peer refuses most records of this node until then; `netabase why` and the log show what it refused before",
        ));
    }
    for ban in standing.banned_by {
        warnings.push(warning(
            "banned",
            format!(
                "the peer {} does not let this node connect until {}: {}",
                ban.peer,
                rfc3339_of(ban.until),
                ban.reason
            ),
            "update the older of the two programs; the operator of the peer can pardon this node",
        ));
    }
    for (reason, count) in standing.refused {
        let message = format!("peers refuse what this node publishes: {reason}");
        let what_to_do = match reason {
            Refusal::FutureTimestamp => {
                "set this machine's clock by NTP (`timedatectl set-ntp true`); the node then publishes the refused records \
                 again with a correct date"
            }
            Refusal::Slowed => "wait until the peers no longer slow this node",
            Refusal::NotMember => "have the network's root add this node to the members",
            Refusal::RefusedAuthor => "ask the operators of those peers why they refuse this node's author",
            Refusal::TooLarge => "agree on one `max_value_bytes` with the peers",
            Refusal::OverQuota | Refusal::Full => {
                "raise the limits of the peers, or add nodes to the network"
            }
            Refusal::InvalidValue | Refusal::KeyMismatch => "compare `netabase schema` with the peers'",
            _ => {
                "the node keeps the records and offers them again; `netabase why` shows the history of one record"
            }
        };
        warnings.push(counted(warning("refused_by_peers", message, what_to_do), reason, count));
    }
    warnings
}

fn clock_warning(clock: &ClockComparison) -> Value {
    let apart = apart(clock.ahead_millis);
    let message = match clock.peers {
        1 => format!("the clock of this node is {apart} that of its only peer: one of the two is wrong"),
        peers => format!("the clock of this node is {apart} those of its {peers} peers"),
    };
    let skew = i64::try_from(Clock::MAX_SKEW.as_millis()).unwrap_or(i64::MAX);
    let what_to_do = if clock.ahead_millis > skew {
        "set this machine's clock by NTP (`timedatectl set-ntp true`): until then peers refuse the records of this node, \
         which publishes them again afterwards with a correct date"
    } else {
        "set this machine's clock by NTP (`timedatectl set-ntp true`): of two concurrent writes, the one with the later \
         clock wins"
    };
    warning("clock_skew", message, what_to_do)
}

/// Describes how far a clock is ahead of or behind another one.
fn apart(ahead_millis: i64) -> String {
    let seconds = ahead_millis.unsigned_abs() / 1000;
    let way = if ahead_millis < 0 { "behind" } else { "ahead of" };
    format!("{seconds} s {way}")
}

/// Returns the warning about refused records, or `None` where nothing need be done, as for outdated
/// versions.
fn refused(reason: Refusal, count: u64) -> Option<Value> {
    let what_to_do = match reason {
        Refusal::FutureTimestamp => {
            let message =
                "records were refused in the last ten minutes because their timestamps are in the future";
            let what_to_do =
                "set the clocks of their authors by NTP, or that of this machine if another warning names it";
            return Some(counted(warning("refused_records", message, what_to_do), reason, count));
        }
        Refusal::TooLarge => "raise `max_value_bytes`, which should be the same on all nodes of a network",
        Refusal::OverQuota => "raise `max_author_bytes` if the author may use more space here",
        Refusal::Full => "raise `max_replica_bytes`, or add nodes to the network",
        Refusal::Busy => "records arrive faster than the disk writes them: check the load of the disk",
        Refusal::NotMember => {
            "their authors are not in the list of members, were revoked, or write for a network with another root: to let \
             one write, have the network's root add it to the members"
        }
        Refusal::InvalidValue | Refusal::KeyMismatch | Refusal::OtherPolicy => {
            "their authors have another schema: compare `/v1/schema`"
        }
        Refusal::UnknownFormat => "a later version of Netabase wrote them: update this program",
        Refusal::NotCanonical => {
            "their authors encode values differently: update the programs of the authors"
        }
        Refusal::InvalidSignature | Refusal::InvalidEnvelope | Refusal::InvalidKey | Refusal::NotOwner => {
            "`/v1/peers` shows which peer sends them; a peer that continues is banned"
        }
        _ => return None,
    };
    let message = format!("records were refused in the last ten minutes: {reason}");
    Some(counted(warning("refused_records", message, what_to_do), reason, count))
}

/// Adds the reason and the number of refusals, so that the message stays the same while the number
/// grows.
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
    // Measuring reads the whole database, so requests wait for each other.
    let turn = Arc::clone(&app.measuring).lock_owned().await;
    let store = app.node.store().clone();
    let measure = move || {
        // A cancelled request keeps the lock until its work is done.
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

/// Answers with the samples of the last ten minutes, or since an earlier answer.
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

/// Answers with the metrics for Prometheus.
pub(crate) async fn metrics(State(app): State<Shared>, headers: HeaderMap, uri: Uri) -> Answer {
    params::none(&uri)?;
    let takes = |media| require_accept(&headers, media);
    // The text is valid in both formats.
    let media = match takes("application/openmetrics-text") {
        Ok(()) => PROMETHEUS,
        Err(_) => takes("text/plain").map(|()| PLAIN)?,
    };
    let mut response = Response::new(Body::from(statistics::metrics(&app)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_peers_say_of_a_node_is_a_warning_with_its_reason() {
        let [us, peer] = [(); 2].map(|()| PeerId::random());
        assert_eq!(told(Standing::default(), us), Vec::<Value>::new());
        let mut standing = Standing::default();
        standing.shared_identities = vec![us, peer];
        standing.slowed_by = vec![(peer, Duration::from_millis(96_500))];
        standing.refused = vec![(Refusal::FutureTimestamp, 500)];
        let warnings = told(standing, us);
        let kinds: Vec<_> = warnings.iter().map(|warning| warning["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["identity_shared", "identity_shared", "slowed", "refused_by_peers"]);
        let message = |at: usize| warnings[at]["message"].as_str().unwrap();
        assert!(message(0).contains("neither writes anything"), "{}", message(0));
        assert!(message(1).contains(&peer.to_string()), "{}", message(1));
        assert_eq!(message(2), format!("the peer {peer} has slowed this node for 97 s more"));
        assert_eq!(
            (&warnings[3]["reason"], &warnings[3]["count"]),
            (&json!("future_timestamp"), &json!(500))
        );
    }

    #[test]
    fn clocks_are_told_apart_in_seconds() {
        assert_eq!((apart(3_600_999), apart(-61_000)), ("3600 s ahead of".into(), "61 s behind".into()));
    }
}
