//! A small network that loses nodes, and what the `churn` subject says of it.

use std::process::Command;

use serde_json::Value;

fn churn(options: &[&str]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netabase-bench"));
    command.args(["churn", "--json", "--nodes", "6", "--records", "20", "--rounds", "1"]).args(options);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn value(rows: &[Value], case: &str, metric: &str, system: &str) -> f64 {
    let wanted = |row: &&Value| row["case"] == case && row["metric"] == metric && row["system"] == system;
    let row = rows.iter().find(wanted).unwrap_or_else(|| panic!("no {case}, {metric} of {system}"));
    row["value"].as_f64().unwrap()
}

#[test]
fn nothing_is_lost_where_every_node_has_everything() {
    let rows = churn(&["--repair", "on"]);
    for metric in ["retrieved", "current"] {
        assert!(value(&rows, "read", metric, "netabase") > 99.9);
    }
    assert!(value(&rows, "copies", "min", "netabase") > 0.0);
    assert!(value(&rows, "survive", "records", "no-repair") > 99.9);
}

#[test]
fn a_record_with_one_replica_is_lost_with_it() {
    let rows = churn(&["--repair", "off", "--replication", "1", "--replace", "50", "--update", "0"]);
    let survived = value(&rows, "survive", "records", "netabase");
    assert!((1.0..99.0).contains(&survived), "{survived}");
    assert!(rows.iter().all(|row| row["case"] != "repair"));
}
