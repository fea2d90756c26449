//! Each part of the `sync` subject, with a few records.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::process::Command;

use serde_json::Value;

fn sync(part: &str, options: &[&str]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netabase-bench"));
    command.args(["sync", "--json", "--no-iroh", "--repetitions", "1", "--only", part]).args(options);
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
fn every_way_to_write_is_measured() {
    let rows = sync("writes", &["--records", "200,300"]);
    for system in ["netabase", "netabase-interval"] {
        for metric in ["one caller", "64 callers", "batch"] {
            assert!(value(&rows, "writes", metric, system) > 0.0);
        }
    }
    assert!(rows.iter().any(|row| row["records"] == 300));
}

#[test]
fn an_empty_node_gets_everything() {
    assert!(value(&sync("join", &["--records", "200"]), "join", "until readable", "netabase") > 0.0);
}

#[test]
fn a_comparison_takes_bytes_and_round_trips() {
    let rows = sync("reconcile", &["--items", "2000"]);
    for metric in ["bytes", "round trips", "sets ready", "time"] {
        assert!(value(&rows, "0 differences", metric, "negentropy") > 0.0);
    }
    let bytes = |case| value(&rows, case, "bytes", "negentropy");
    assert!(bytes("100 differences") > bytes("0 differences"));
    assert!(rows.iter().all(|row| row["case"] != "10000 differences"));
}

#[test]
fn every_follower_hears_of_every_put_once() {
    let rows = sync("latency", &["--live-nodes", "3", "--puts", "5"]);
    for metric in ["missed", "repeated"] {
        assert!(value(&rows, "latency", metric, "netabase") < 1.0);
    }
    assert!(value(&rows, "latency", "p50", "netabase") > 0.0);
}

#[test]
fn a_query_finds_what_is_there() {
    let rows = sync("query", &["--query-nodes", "3", "--query-records", "500"]);
    assert!(value(&rows, "query", "complete", "netabase") > 99.9);
    assert!(value(&rows, "query", "peers asked", "netabase") > 0.0);
}

#[test]
fn a_large_value_comes_whole_from_holders_that_fail() {
    let rows = sync("blob", &["--blob-mebibytes", "32"]);
    assert!(value(&rows, "blob", "correct", "netabase") > 99.9);
    assert!(value(&rows, "blob", "throughput", "tcp") > 0.0);
    let reported = value(&rows, "blob", "corrupting holders reported", "netabase");
    assert!((0.9..1.1).contains(&reported), "{reported}");
}
