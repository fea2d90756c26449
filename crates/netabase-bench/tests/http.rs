//! The `http` and `footprint` subjects, with a few records.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn measure(arguments: &[&str]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netabase-bench"));
    let output = command.args(arguments).args(["--json", "--repetitions", "1"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn gets_and_puts_are_measured_through_the_interface_and_on_the_crate() {
    let rows = measure(&["http", "--records", "100", "--requests", "640"]);
    for (system, case) in
        [("crate", "get"), ("crate", "put"), ("http", "get"), ("http", "put"), ("hyper", "get")]
    {
        let of = |row: &&Value| row["system"] == system && row["case"] == case;
        let metrics: Vec<_> = rows.iter().filter(of).map(|row| row["metric"].as_str().unwrap()).collect();
        assert_eq!(metrics, ["requests", "p50", "p99"], "{system}, {case}");
    }
    assert!(rows.iter().all(|row| row["value"].as_f64().unwrap() > 0.0));
}

#[test]
fn the_program_is_measured_from_outside() {
    let program = Path::new(env!("CARGO_BIN_EXE_netabase-bench")).with_file_name("netabase");
    if !program.exists() {
        println!("skipped: {} is not built", program.display());
        return;
    }
    let rows = measure(&["footprint", "--records", "1000"]);
    let cases: Vec<_> = rows.iter().map(|row| row["case"].as_str().unwrap()).collect();
    assert_eq!(cases, ["program", "start", "idle"]);
}
