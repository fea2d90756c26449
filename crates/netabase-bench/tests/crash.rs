//! A few rounds of what `netabase-bench crash` does a thousand times.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::process::Command;

use serde_json::Value;

fn crash(backend: &str, rounds: u64) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_netabase-bench"))
        .args(["crash", "--json", "--backend", backend, "--rounds", &rounds.to_string()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["rounds"], rounds);
    for fault in ["unreadable", "lost", "torn", "invented", "index_mismatches", "check_faults"] {
        assert_eq!(report[fault], 0, "{report}");
    }
    assert!(report["acknowledged"].as_u64().unwrap() > rounds, "{report}");
    assert!(report["kills_in_flight"].as_u64().unwrap() > 0, "{report}");
    report
}

#[test]
fn redb_loses_nothing_when_the_process_is_killed() {
    let report = crash("redb", 50);
    assert!(report["kills_while_opening"].as_u64().unwrap() > 0, "{report}");
}

#[test]
fn sled_loses_nothing_when_the_process_is_killed() {
    crash("sled", 10);
}
