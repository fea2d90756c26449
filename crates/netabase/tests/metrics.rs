//! What a node counts, and the names it has.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeSet;

use common::*;
use netabase::{Metrics, Query};

const DOCUMENTATION: &str = include_str!("../../../docs/metrics.md");
const GRAFANA: &str = include_str!("../../../docs/grafana/netabase.json");

/// The names of the families in a text of OpenMetrics, as they are in its samples.
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
    wait_for_record(&mut events, |record| record.kind() == netabase::ChangeKind::Stored).await;
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
async fn every_name_is_documented_and_every_documented_name_is_there() {
    let nodes = network(2).await;
    let [one, other] = &nodes[..] else { unreachable!() };
    let kept = other.replicate(Query::<Note>::new().scope()).unwrap();
    one.put_record(note(1, "one")).await.unwrap();
    one.store().admit(b"not a key", b"").unwrap_err();
    let mut there = families(&one.metrics().encode());
    drop(kept);
    // Absent in memory.
    there.insert("netabase_store_disk_bytes".to_owned());
    let ours: BTreeSet<String> = there.iter().filter(|name| name.starts_with("netabase_")).cloned().collect();
    let rows = DOCUMENTATION.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeSet<String> = rows.map(|row| row.split('`').next().unwrap().to_owned()).collect();
    assert_eq!(documented, ours);

    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = GRAFANA.split(|letter| !is_name(letter));
    let named = words.filter(|word| word.starts_with("netabase_") || word.starts_with("libp2p_"));
    let plotted: BTreeSet<String> = named.map(|name| name.trim_end_matches("_bucket").to_owned()).collect();
    let missing: Vec<&String> = plotted.difference(&there).collect();
    assert!(missing.is_empty(), "{missing:?} are in the Grafana dashboard alone, of {there:?}");
    assert!(ours.is_subset(&plotted), "{:?} are not plotted", ours.difference(&plotted));
}

#[tokio::test]
async fn the_text_is_open_metrics() {
    let nodes = network(2).await;
    nodes[0].put_record(note(1, "one")).await.unwrap();
    let text = nodes[0].metrics().encode();
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    let mut described = BTreeSet::new();
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("# TYPE ") {
            assert!(described.insert(line.split(' ').next().unwrap()), "{line} twice");
        } else if !line.starts_with('#') {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            let name = sample.split('{').next().unwrap();
            assert!(described.iter().any(|family| name.starts_with(family)), "{line}");
        }
    }
}
