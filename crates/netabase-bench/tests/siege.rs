//! The `siege` subject, with a second for each window.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn every_row_attacks_the_node_and_tells_what_those_beside_it_feel() {
    let bench = Path::new(env!("CARGO_BIN_EXE_netabase-bench"));
    let program = bench.with_file_name("netabase");
    if !cfg!(target_os = "linux") || !program.exists() {
        println!("skipped: this is not Linux, or {} is not built", program.display());
        return;
    }
    let output = Command::new(bench).args(["siege", "--json", "--seconds", "1"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let values = |metric: &str, system: &str| -> Vec<(String, f64)> {
        let wanted = |row: &&Value| row["metric"] == metric && row["system"] == system;
        let value = |row: &Value| (row["case"].as_str().unwrap().to_owned(), row["value"].as_f64().unwrap());
        rows.iter().filter(wanted).map(value).collect()
    };
    for metric in ["put p50", "get p99", "API get p50", "memory", "newcomers connected"] {
        for system in ["idle", "attacked"] {
            assert_eq!(values(metric, system).len(), 12, "{metric}, {system}");
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
