//! What a node counts, and the names it has.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;
use libp2p::Swarm;
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, ValidationMode, Version};
use netabase::{Envelope, Metrics, NetabaseSwarmEvent, Query, RecordKey, Timestamp};
use netabase_store::SigningKey;
use netabase_store::schema::EncodedRecord;

use crate::common::bare::*;
use crate::common::*;

const DOCUMENTATION: &str = include_str!("../../../../docs/metrics.md");
const GRAFANA: &str = include_str!("../../../../docs/grafana/netabase.json");

/// The names of the families in a text of `OpenMetrics`, as they are in its samples.
fn families(text: &str) -> BTreeSet<String> {
    let typed = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names = typed.map(|line| {
        let (name, kind) = line.split_once(' ').unwrap();
        if kind == "counter" { format!("{name}_total") } else { name.to_owned() }
    });
    names.collect()
}

fn value(metrics: &Metrics, sample: &str) -> f64 {
    let text = metrics.encode();
    let line = text.lines().find_map(|line| line.strip_prefix(sample)).unwrap_or_else(|| panic!("{text}"));
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn calls_and_changes_are_counted_where_they_happen() {
    let nodes = network(2).await;
    let [one, other] = &nodes[..] else { unreachable!() };
    let mut events = other.subscribe_to_broadcasts();
    one.put_record(note(1, "one")).await.unwrap();
    wait_for_record(&mut events, |record| record.kind() == netabase::changes::ChangeKind::Stored).await;
    one.put_record(note(1, "two")).await.unwrap();
    one.remove_record(NotePrimaryKey(1)).await.unwrap();
    one.get_record(NotePrimaryKey(1)).await.unwrap();
    one.get_record(NotePrimaryKey(2)).await.unwrap();
    one.query::<Note>().page().await.unwrap();

    let counters = one.metrics().counters();
    assert_eq!((counters.puts, counters.gets, counters.queries), (3, 2, 1));
    assert_eq!((counters.local_hits, counters.received, counters.connected_peers), (1, 0, 1));
    assert!(counters.bytes_in > 0 && counters.bytes_out > 0, "{counters:?}");
    assert!(other.metrics().counters().received > 0);
    let metrics = one.metrics();
    assert_eq!(value(metrics, r#"netabase_calls_total{call="put",outcome="ok"}"#) as u64, 2);
    assert_eq!(value(metrics, r#"netabase_call_duration_seconds_count{call="remove"}"#) as u64, 1);
    assert_eq!(
        value(metrics, r#"netabase_records{model="Note"}"#) as u64,
        one.store().open_tree::<Note>().unwrap().len().unwrap()
    );
    assert!(value(metrics, "netabase_event_loop_delay_seconds_count") > 0.0);
}

#[tokio::test]
async fn calls_that_wait_for_the_event_loop_are_seen_while_they_wait() {
    const CALLS: usize = 50;
    let node = started(memory_config()).await;
    // The event loop, on this thread, has no turn until all calls of a round wait for it, and
    // measures once a second.
    let seen = async {
        while value(node.metrics(), "netabase_waiting_commands") < 1.0 {
            let calls = futures::future::join_all((0..CALLS).map(|_| node.connected_peers())).await;
            assert!(calls.iter().all(Result::is_ok));
        }
    };
    within_deadline("a measurement of the calls that wait", seen).await;
}

#[tokio::test]
async fn every_name_is_documented_and_every_documented_name_is_there() {
    let nodes = network(2).await;
    let [one, other] = &nodes[..] else { unreachable!() };
    let kept = other.replicate(Query::<Note>::new().scope()).unwrap();
    one.put_record(note(1, "one")).await.unwrap();
    one.store().replica().admit(b"not a key", b"").unwrap_err();
    let mut there = families(&one.metrics().encode());
    drop(kept);
    // Absent in memory.
    there.insert("netabase_store_disk_bytes".to_owned());
    let ours: BTreeSet<String> = there.iter().filter(|name| name.starts_with("netabase_")).cloned().collect();
    let rows = DOCUMENTATION.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented = rows.map(|row| row.split('`').next().unwrap().to_owned());
    // One other table has spans, and one has what the HTTP interface adds.
    let is_of_node = |name: &String| name.starts_with("netabase_") && !name.starts_with("netabase_api_");
    let documented: BTreeSet<String> = documented.filter(is_of_node).collect();
    assert_eq!(documented, ours);

    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = GRAFANA.split(|letter| !is_name(letter));
    let named = words.filter(|word| word.starts_with("netabase_") || word.starts_with("libp2p_"));
    let plotted: BTreeSet<String> = named.map(|name| name.trim_end_matches("_bucket").to_owned()).collect();
    let missing: Vec<&String> = plotted.difference(&there).collect();
    assert!(missing.is_empty(), "{missing:?} are in the Grafana dashboard alone, of {there:?}");
    assert!(ours.is_subset(&plotted), "{:?} are not plotted", ours.difference(&plotted));
}

/// The samples of a text of `OpenMetrics`, checked: names, labels and values have their forms,
/// families are told once and before their samples, no series is there twice, and the ranges of
/// histograms add up.
fn samples(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    let is_name = |name: &str| {
        let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        !name.is_empty() && name.chars().all(is_letter) && !name.starts_with(|first: char| first.is_numeric())
    };
    let (mut families, mut samples) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            let (family, kind) = described.split_once(' ').unwrap();
            assert!(is_name(family) && families.insert(family, kind).is_none(), "{line}");
        } else if !line.starts_with("# HELP ") && !line.starts_with("# UNIT ") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
            for label in labels.split("\",").filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                assert!(is_name(label) && !value.trim_end_matches('"').contains('"'), "{line}");
            }
            let suffixes: BTreeMap<&str, &[&str]> = BTreeMap::from([
                ("counter", &["_total"][..]),
                ("gauge", &[""]),
                ("histogram", &["_bucket", "_sum", "_count"]),
            ]);
            let is_of = |(family, kind): (&&str, &&str)| {
                name.strip_prefix(*family).is_some_and(|suffix| suffixes[*kind].contains(&suffix))
            };
            assert!(is_name(name) && families.iter().any(is_of), "{line}");
            let may_be_negative = series == "netabase_clock_offset_seconds";
            assert!(value >= 0.0 || may_be_negative, "{line}");
            assert!(samples.insert(series.to_owned(), value).is_none(), "{line}");
        }
    }
    for (series, count) in &samples {
        let Some((name, labels)) = series.split_once("_count").filter(|_| !series.contains("_total")) else {
            continue;
        };
        let inner = labels.trim_start_matches('{').trim_end_matches('}');
        let buckets = samples.iter().filter(|(bucket, _)| {
            bucket.strip_prefix(name).is_some_and(|bucket| {
                bucket.starts_with("_bucket{") && (inner.is_empty() || bucket.contains(inner))
            })
        });
        let largest = buckets.map(|(_, below)| *below).fold(0.0, f64::max);
        if families.get(name) == Some(&"histogram") {
            assert!((largest - count).abs() < 0.5, "{series}");
        }
    }
    samples
}

#[tokio::test]
async fn the_text_is_open_metrics() {
    let nodes = network(2).await;
    nodes[0].put_record(note(1, "one")).await.unwrap();
    let samples = samples(&nodes[0].metrics().encode());
    assert_eq!(samples[r#"netabase_calls_total{call="put",outcome="ok"}"#] as u64, 1);
    let sums = samples.iter().filter(|(series, _)| series.contains("call_duration_seconds_count"));
    assert_eq!(sums.map(|(_, count)| *count as u64).sum::<u64>(), 1);
}

#[tokio::test]
async fn outcomes_are_told_apart() {
    let nodes = network(2).await;
    let [one, other] = &nodes[..] else { unreachable!() };
    other.store().open_tree::<Note>().unwrap().put(&note(1, "of one")).unwrap();
    assert!(one.fetch_record(NotePrimaryKey(1)).await.unwrap().is_some());
    assert!(other.get_record(NotePrimaryKey(1)).await.unwrap().is_some());
    assert!(one.get_record(NotePrimaryKey(2)).await.unwrap().is_none());
    let large = note(3, &"x".repeat(one.config().store.max_value_bytes + 1));
    one.put_record(large).await.unwrap_err();
    // The event loop, on this thread, has no turn.
    assert!(one.put_record(note(4, "nobody waits")).now_or_never().is_none());
    let of = |node: &Notes, call: &str, outcome: &str| {
        value(node.metrics(), &format!(r#"netabase_calls_total{{call="{call}",outcome="{outcome}"}}"#)) as u64
    };
    assert_eq!((of(one, "get", "network"), of(one, "get", "local"), of(one, "get", "missing")), (1, 0, 1));
    assert_eq!((of(other, "get", "network"), of(other, "get", "local")), (0, 1));
    assert_eq!((of(one, "put", "refused"), of(one, "put", "cancelled"), of(one, "put", "ok")), (1, 1, 0));
}

#[tokio::test]
async fn writes_count_when_they_are_committed_however_they_came() {
    let node = started(memory_config()).await;
    let puts = || node.metrics().counters().puts;
    let notes = node.store().open_tree::<Note>().unwrap();
    notes.put_many(&(0..20).map(|id| note(id, "many")).collect::<Vec<_>>()).unwrap();
    node.store().flush().unwrap();
    assert_eq!(puts(), 20);
    let mut export = Vec::new();
    let options = netabase_store::export::ExportOptions::default();
    assert_eq!(node.store().export_json(&mut export, options).unwrap().records, 20);
    let other = started(memory_config()).await;
    let report =
        other.store().import_json(&export[..], netabase_store::import::ImportOptions::default()).unwrap();
    other.store().flush().unwrap();
    assert_eq!((report.records, other.metrics().counters().puts), (20, 20));
    // The store refuses it, and nothing changes.
    node.put_record(note(3, &"x".repeat(node.config().store.max_value_bytes + 1))).await.unwrap_err();
    assert_eq!(puts(), 20);
    node.remove_record(NotePrimaryKey(3)).await.unwrap();
    assert_eq!(puts(), 21);
}

#[tokio::test]
async fn what_a_comparison_moves_is_counted_at_both_ends_of_it() {
    let nodes = network(2).await;
    let [one, other] = &nodes[..] else { unreachable!() };
    let kept_notes: Vec<Note> = (0..20).map(|id| note(id, "kept")).collect();
    one.store().open_tree::<Note>().unwrap().put_many(&kept_notes).unwrap();
    let kept = other.replicate(Query::<Note>::new().scope()).unwrap();
    within_deadline("the records", kept.caught_up()).await.unwrap();
    let (report, metrics) = (kept.statistics(), other.metrics());
    let count = |sample: &str| value(metrics, sample) as u64;
    assert_eq!(count(r#"netabase_sync_records_total{direction="in"}"#), report.received);
    assert_eq!(count(r#"netabase_sync_bytes_total{direction="in"}"#), report.bytes_received);
    assert_eq!(count("netabase_sync_round_trips_total"), report.round_trips);
    assert_eq!(count(r#"netabase_sync_sessions_total{outcome="ok"}"#), report.sessions);
    assert_eq!((metrics.counters().synced_in, count("netabase_replications")), (report.received, 1));
    // The handler of another task may still be at work.
    assert!(one.store().counters().commits > 0);
    // Whoever is fetched from has given.
    let served = |sample: &str| value(one.metrics(), sample) as u64;
    assert_eq!(served(r#"netabase_sync_records_total{direction="served"}"#), report.received);
    let bytes = served(r#"netabase_sync_bytes_total{direction="served"}"#);
    assert!(0 < bytes && bytes <= report.bytes_received, "{bytes}, {report:?}");
    assert_eq!(one.metrics().counters().synced_out, report.received);
    let samples = samples(&metrics.encode());
    assert!(samples["netabase_store_commit_writes_sum"] >= 20.0);
}

#[tokio::test]
async fn a_comparison_is_counted_while_it_goes_on() {
    const NOTES: u64 = 2000;
    let nodes = network(2).await;
    let [one, other] = &nodes[..] else { unreachable!() };
    let written: Vec<Note> = (0..NOTES).map(|id| note(id, &"x".repeat(1000))).collect();
    one.store().open_tree::<Note>().unwrap().put_many(&written).unwrap();
    let mut events = other.subscribe_to_broadcasts();
    let _kept = other.replicate(Query::<Note>::new().scope()).unwrap();
    let report = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::SyncProgress { report, .. } => Some(*report),
        _ => None,
    });
    let report = report.await;
    let metrics = other.metrics();
    let sessions = value(metrics, r#"netabase_sync_sessions_total{outcome="ok"}"#) as u64;
    assert_eq!(sessions, 0, "the session goes on");
    assert!(0 < report.received && report.received < NOTES, "{report:?}");
    assert!(metrics.counters().synced_in >= report.received);
    let bytes = value(metrics, r#"netabase_sync_bytes_total{direction="in"}"#) as u64;
    assert!(bytes >= report.bytes_received && bytes > 0, "{bytes}, {report:?}");
}

fn forged(id: u64) -> (RecordKey, Vec<u8>) {
    let key = RecordKey::of(&NotePrimaryKey(id)).unwrap();
    let payload = EncodedRecord::of(&note(id, "forged")).unwrap().payload;
    let signer = SigningKey::from_bytes(&[7; 32]);
    let envelope = Envelope::sign(&signer, &key, Timestamp::from_unix_millis(5), 0, Some(&payload));
    let mut bytes = envelope.as_bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    (key, bytes)
}

#[tokio::test]
async fn refusals_and_bans_are_counted_by_reason() {
    let victim = started(memory_config()).await;
    let mut hostile = hostile_peer(&victim).await;
    let mut events = victim.subscribe_to_broadcasts();
    let records: Vec<_> = (0..12).map(forged).collect();
    let records: Vec<_> = records.iter().map(|(key, value)| (key.as_bytes(), value.as_slice())).collect();
    ask(&mut hostile, &victim, put_request(&records)).await;
    wait_for(&mut events, |event| matches!(event, NetabaseSwarmEvent::PeerBanned { .. }).then_some(())).await;
    let refused = victim.store().replica().refusals().iter().map(|(_, count)| count).sum::<u64>();
    assert_eq!((refused, victim.metrics().counters().refused), (12, 12));
    let count = |sample: &str| value(victim.metrics(), sample) as u64;
    assert_eq!(count(r#"netabase_refused_records_total{reason="invalid_signature"}"#), 12);
    assert_eq!((count("netabase_bans_total"), count("netabase_banned_peers")), (1, 1));
}

/// The series that there are, whatever their values.
fn series(node: &Notes) -> BTreeSet<String> {
    samples(&node.metrics().encode()).into_keys().collect()
}

/// Says what nobody knows, in every protocol, `count` times; each time in other words.
async fn babble(hostile: &mut Swarm<Hostile>, victim: &Notes, count: u64, words: &str) {
    for id in 0..count {
        let model = format!("{words}{id}");
        let key = RecordKey::new(&model, &model, model.as_bytes()).unwrap();
        ask(hostile, victim, put_request(&[(key.as_bytes(), b"no envelope")])).await;
        ask(hostile, victim, keys_request(2, &[key.as_bytes(), model.as_bytes()])).await;
        ask(hostile, victim, model.clone().into_bytes()).await;
        ask_query(hostile, victim, [&[1][..], model.as_bytes()].concat()).await;
    }
}

/// A peer that follows topics that it has made up.
async fn follower(victim: &Notes, topics: usize) -> Swarm<gossipsub::Behaviour> {
    use futures::StreamExt;
    use libp2p::core::{transport::MemoryTransport, upgrade};
    use libp2p::{SwarmBuilder, Transport, noise, yamux};

    let config = gossipsub::ConfigBuilder::default()
        .protocol_id("/netabase/NotesDefinition/live/1.0.0", Version::V1_1)
        .validation_mode(ValidationMode::Anonymous)
        .build()
        .unwrap();
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_other_transport(|identity| {
            let memory = MemoryTransport::default().upgrade(upgrade::Version::V1);
            memory.authenticate(noise::Config::new(identity).unwrap()).multiplex(yamux::Config::default())
        })
        .unwrap()
        .with_behaviour(|_| gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, config).unwrap())
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(DEADLINE))
        .build();
    for topic in 0..topics {
        swarm.behaviour_mut().subscribe(&IdentTopic::new(format!("{topic:032x}"))).unwrap();
    }
    swarm.dial(full_address(victim)).unwrap();
    let heard = async {
        while let Some(event) = swarm.next().await {
            if let libp2p::swarm::SwarmEvent::Behaviour(gossipsub::Event::Subscribed { .. }) = event {
                return;
            }
        }
    };
    within_deadline("the victim's topics", heard).await;
    swarm
}

#[tokio::test]
async fn hostile_input_makes_no_series_of_its_own() {
    let nodes = network(2).await;
    let victim = &nodes[0];
    // So that it has topics of its own.
    let _watch = victim.watch(Query::<Note>::new()).unwrap();
    victim.put_record(note(1, "seen by nobody")).await.unwrap();
    let mut hostile = hostile_peer(victim).await;
    let _follower = follower(victim, 5).await;
    babble(&mut hostile, victim, 2, "Prattle").await;
    let before = series(victim);
    let mut others = hostile_peer(victim).await;
    let _more = follower(victim, 100).await;
    babble(&mut others, victim, 30, "Blabber").await;
    let after = series(victim);
    assert!(after.len() > 100, "{after:?}");
    // What is new is of another outcome, out of lists that are bounded: nothing is of a peer.
    let new = after.difference(&before);
    // gossipsub measures its queues once a second, whoever sends: before or after.
    let new: Vec<&String> = new.filter(|series| !series.starts_with("libp2p_gossipsub_queue_size")).collect();
    assert!(new.len() < 60, "{new:?}");
    let peers = [victim.local_peer_id(), *hostile.local_peer_id(), *others.local_peer_id()];
    for series in &after {
        let is_told =
            ["Prattle", "Blabber", "00000000", "memory/", "seen by"].iter().any(|word| series.contains(word));
        assert!(!is_told && peers.iter().all(|peer| !series.contains(&peer.to_string())), "{series}");
    }
}
