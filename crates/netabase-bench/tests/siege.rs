//! The `siege` subject, with a second for each window, and a minute of conversations.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use netabase_bench::siege::ensure_namespaces;
use serde_json::Value;

#[test]
fn every_row_attacks_the_node_and_tells_what_those_beside_it_feel() {
    let Some(rows) = besiege(&["--seconds", "1"]) else { return };
    let values = |metric: &str, system: &str| values(&rows, metric, system);
    for metric in ["put p50", "get p99", "API get p50", "memory", "newcomers connected"] {
        for system in ["idle", "attacked"] {
            assert_eq!(values(metric, system).len(), 18, "{metric}, {system}");
        }
    }
    for metric in ["puts served", "gets served", "API gets served"] {
        assert!(values(metric, "idle").iter().all(|(_, share)| *share > 99.9), "{metric}");
    }
    for (case, connections) in values("strangers' connections", "attacked") {
        assert!(connections > 0.0 || case == "300 QUIC ports", "{case}");
    }
    for (case, messages) in values("strangers' messages", "attacked") {
        assert!(messages > 0.0 || case.ends_with(" sockets") || case == "routes", "{case}");
    }
}

#[test]
fn conversations_neither_end_the_node_nor_take_much_memory() {
    let Some(rows) = besiege(&["--seconds", "60", "--only", "conversations"]) else { return };
    let values = |metric: &str| values(&rows, metric, "attacked");
    assert!(values("strangers' messages")[0].1 > 0.0);
    assert!(values("API gets served")[0].1 > 0.0);
    assert!(values("memory over idle")[0].1 <= 128.0, "{rows:?}");
}

#[test]
fn a_siege_on_loopback_needs_no_namespace() {
    let Some(output) = run(&["--loopback", "--seconds", "1", "--only", "routes", "--json"]) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8(output.stdout).unwrap().contains("newcomers connected"));
}

/// Measures in a network namespace, with the same conversations each time.
fn besiege(args: &[&str]) -> Option<Vec<Value>> {
    if let Err(error) = ensure_namespaces() {
        println!("skipped: {error}");
        return None;
    }
    let output = run(&[&["--json", "--seed", "14"], args].concat())?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    Some(lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// Runs the subject, one at a time: each has a few processes and many peers.
fn run(args: &[&str]) -> Option<Output> {
    static TURN: Mutex<()> = Mutex::new(());
    let bench = Path::new(env!("CARGO_BIN_EXE_netabase-bench"));
    let program = bench.with_file_name("netabase");
    if !cfg!(target_os = "linux") || !program.exists() {
        println!("skipped: this is not Linux, or {} is not built", program.display());
        return None;
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Some(Command::new(bench).arg("siege").args(args).output().unwrap())
}

fn values(rows: &[Value], metric: &str, system: &str) -> Vec<(String, f64)> {
    let wanted = |row: &&Value| row["metric"] == metric && row["system"] == system;
    let value = |row: &Value| (row["case"].as_str().unwrap().to_owned(), row["value"].as_f64().unwrap());
    rows.iter().filter(wanted).map(value).collect()
}
