//! Every format of the `format` subject, with a few records.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::process::Command;

use serde_json::Value;

#[test]
fn every_format_gives_back_its_records() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netabase-bench"));
    let output =
        command.args(["format", "--json", "--repetitions", "1", "--records", "100"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2 * 3 * 3, "{lines}");
    assert!(rows.iter().all(|row| row["value"].as_f64().is_some_and(|value| value > 0.0)), "{lines}");
}
